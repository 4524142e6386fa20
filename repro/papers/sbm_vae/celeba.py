"""SBM-VAE's settings on CelebAMask-HQ (Table 10, appendix A.9).

Importing this module needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["CELEBA"]

CELEBA: Mapping[str, Any] = {
    "latent_dim": 256,
    "latents": "mean",
    "sde": [0.1, 20.0],
    "beta": {"image": 0.1, "mask": 1.0, "attributes": 1.0},  # the attributes' is not printed
    "likelihoods": {"image": "gaussian", "mask": "gaussian", "attributes": "bernoulli"},
    "regularisation": {"image": 1e-4, "mask": 1e-5, "attributes": 1e-4},
    "noise_variance": {"image": 0.001, "mask": 0.001, "attributes": 0.1},
    "widths": [64, 128, 256, 512, 512],
    "sampling": {"sampler": "predictor_corrector", "num_steps": 1000},
    "batch_size": 256,
    "gamma": 2000 / 256,
}
