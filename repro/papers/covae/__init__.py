"""CoVAE: a multimodal VAE with a correlated prior (Caretti et al.)."""
