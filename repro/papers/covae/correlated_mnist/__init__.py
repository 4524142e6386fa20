"""Correlated MNIST: the figures, calibration and the library's likelihoods."""
