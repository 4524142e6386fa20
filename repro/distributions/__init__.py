"""Latent distributions over blocks, one block a modality."""

from repro.distributions.asymmetric_laplace import AsymmetricLaplace
from repro.distributions.block_gaussian import BlockGaussian
from repro.distributions.covariance import block_dominant_scale_tril, cholesky_scale_tril
from repro.distributions.diffusion import VPSDE, denoising_loss
from repro.distributions.diffusion_density import log_density
from repro.distributions.diffusion_samplers import SAMPLERS, Observed, dpm_solver, predictor_corrector, probability_flow
from repro.distributions.generalized_hyperbolic import GeneralizedHyperbolic
from repro.distributions.generalized_inverse_gaussian import GeneralizedInverseGaussian
from repro.distributions.log_partition import log_partition_batch, log_partition_per_sample
from repro.distributions.mcmc import MCMCDiagnostics
from repro.distributions.pairwise_mrf import PairwiseMRF

__all__ = [
    "SAMPLERS",
    "VPSDE",
    "AsymmetricLaplace",
    "BlockGaussian",
    "GeneralizedHyperbolic",
    "GeneralizedInverseGaussian",
    "MCMCDiagnostics",
    "Observed",
    "PairwiseMRF",
    "block_dominant_scale_tril",
    "cholesky_scale_tril",
    "denoising_loss",
    "dpm_solver",
    "log_density",
    "log_partition_batch",
    "log_partition_per_sample",
    "predictor_corrector",
    "probability_flow",
]
