"""Latent distributions over blocks, one block a modality."""

from repro.distributions.block_gaussian import BlockGaussian
from repro.distributions.covariance import block_dominant_scale_tril, cholesky_scale_tril

__all__ = ["BlockGaussian", "block_dominant_scale_tril", "cholesky_scale_tril"]
