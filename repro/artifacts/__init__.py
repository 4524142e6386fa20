"""Tables, figures and claims: what there is, what each needs, how it is rendered and cited."""
