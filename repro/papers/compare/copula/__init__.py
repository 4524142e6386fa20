"""All models on the Gaussian copula."""
