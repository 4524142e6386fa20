"""All models on MNIST triples, by coherence and Fréchet distance, in both readings of what the first two show."""
