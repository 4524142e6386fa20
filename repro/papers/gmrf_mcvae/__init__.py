"""Multi-Component VAE with Gaussian Markov Random Field (Oubari et al.)."""
