"""A Markov Random Field Multi-Modal Variational AutoEncoder (Oubari et al.)."""
