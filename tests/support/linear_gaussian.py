"""Multimodal models with linear decoders and Gaussian noise, whose likelihoods are known exactly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy.stats import multivariate_normal
from torch import Tensor, nn

from repro.baselines import build_baseline
from repro.datasets.base import ModalitySpec
from repro.model import MultimodalModel, isolated_rng
from repro.papers.covae.model import CoVAE

__all__ = ["DIMS", "LinearDecoder", "LinearGaussian", "linear_covae", "linear_gaussian"]

DIMS = {"a": 4, "b": 5, "c": 4}


class LinearEncoder(nn.Module):
    """A linear mean and a fixed log-variance."""

    def __init__(self, weight: Tensor, log_variance: Tensor) -> None:
        super().__init__()
        self.mean = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
        self.log_variance = nn.Parameter(log_variance)
        with torch.no_grad():
            self.mean.weight.copy_(weight)
            self.mean.bias.zero_()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.mean(x)
        return mean, self.log_variance.expand_as(mean)


class LinearDecoder(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, z: Tensor) -> Tensor:
        return z @ self.weight.T


class LinearJoint(nn.Module):
    """All modalities, in order, through one matrix, then constant numbers."""

    def __init__(self, weight: Tensor, constants: Tensor) -> None:
        super().__init__()
        self.weight, self.constants = nn.Parameter(weight), nn.Parameter(constants)

    def forward(self, x: Mapping[str, Tensor]) -> Tensor:
        mean = torch.cat([x[m] for m in DIMS if m in x], 1) @ self.weight.T
        return torch.cat([mean, self.constants.expand(len(mean), -1)], 1)


class LinearGaussian:
    """A model and the exact covariance of all its modalities.

    Arguments:
        model: The model, in float64.
        covariance: Of the modalities in order.
    """

    def __init__(self, model: MultimodalModel, covariance: Tensor) -> None:
        self.model, self.covariance = model, covariance.numpy()
        names = list(model.modalities)
        ends = np.cumsum([DIMS[m] for m in names])
        self.slices = {m: slice(end - DIMS[m], end) for m, end in zip(names, ends, strict=True)}

    def data(self, size: int = 6) -> dict[str, Tensor]:
        rng = np.random.default_rng(0)
        draws = rng.multivariate_normal(np.zeros(len(self.covariance)), self.covariance, size=size)
        return {m: torch.as_tensor(draws[:, s].copy()) for m, s in self.slices.items()}

    def log_likelihood(self, x: Mapping[str, Tensor]) -> Tensor:
        """The exact log-density of some modalities."""
        index = np.concatenate([np.arange(len(self.covariance))[s] for m, s in self.slices.items() if m in x])
        values = np.concatenate([x[m].numpy() for m in self.slices if m in x], 1)
        density = multivariate_normal(np.zeros(len(index)), self.covariance[np.ix_(index, index)])
        return torch.as_tensor(np.atleast_1d(density.logpdf(values)))


def linear_gaussian(method: str, beta: float = 1.0) -> LinearGaussian:
    """A baseline with linear decoders of orthogonal columns, whose posterior given one modality is exact."""
    specific = 2 if method in ("mmvae_plus", "dmvae") else 0
    g, d = torch.Generator().manual_seed(7), 2
    loadings, encoders = {}, {}
    for m, n in DIMS.items():
        columns = torch.linalg.qr(torch.randn(n, n, generator=g, dtype=torch.float64)).Q[:, : d + specific]
        scales = 0.5 + 0.4 * torch.rand(d + specific, generator=g, dtype=torch.float64)
        loadings[m] = columns * scales
        prior = torch.ones(d + specific, dtype=torch.float64)
        if method in ("mvae", "dmvae"):
            prior[:d] = 0  # these multiply their experts by the prior themselves
        precision = scales**2 / beta + prior
        encoders[m] = LinearEncoder((loadings[m] / beta / precision).T.contiguous(), -precision.log())
    stacked = torch.cat([w[:, :d] for w in loadings.values()])
    private = torch.block_diag(*(w[:, d:] @ w[:, d:].T for w in loadings.values()))
    covariance = stacked @ stacked.T + private + beta * torch.eye(len(stacked), dtype=torch.float64)
    options: dict[str, Any] = {"latent_dim": d, "specific_dim": specific, "beta": beta, "encoders": encoders}
    options["decoders"] = {m: LinearDecoder(w) for m, w in loadings.items()}
    if method == "jmvae":  # exact, since the columns of every modality are orthogonal
        precision = torch.stack([(w**2).sum(0) for w in loadings.values()]).sum(0) / beta + 1
        options["joint_encoder"] = LinearJoint((stacked / beta / precision).T.contiguous(), -precision.log())
    with isolated_rng(0):
        model = build_baseline(method, {m: ModalitySpec((n,)) for m, n in DIMS.items()}, **options)
    return LinearGaussian(model.double().eval(), covariance)


def linear_covae(inflation: float = 1.0, names: str = "ab", **options: Any) -> LinearGaussian:
    """A CoVAE with linear decoders and correlated latents.

    Arguments:
        inflation: Factor on the standard deviations of all posteriors, which are exact at 1 (those of single encoders
            are diagonal, and the columns of the decoders orthogonal).
        names: Modalities.
        options: Of the model.
    """
    g, d = torch.Generator().manual_seed(3), 2
    sizes = dict.fromkeys(names, d)
    loadings, encoders = {}, {}
    for m in names:
        columns = torch.linalg.qr(torch.randn(DIMS[m], DIMS[m], generator=g, dtype=torch.float64)).Q[:, :d]
        scales = 0.6 + torch.rand(d, generator=g, dtype=torch.float64)
        loadings[m] = columns * scales
        precision = scales**2 + 1
        weight = (loadings[m] / precision).T.contiguous()
        encoders[m] = LinearEncoder(weight, -precision.log() + 2 * float(np.log(inflation)))
    total = d * len(names)
    prior = torch.eye(total, dtype=torch.float64)
    for i in range(d):
        prior[i::d, i::d] += (0.8 - 0.3 * i) * (1 - torch.eye(len(names), dtype=torch.float64))
    decoder = torch.block_diag(*loadings.values())
    precision = torch.linalg.inv(prior) + decoder.T @ decoder
    covariance = torch.linalg.inv(precision)
    tril = torch.linalg.cholesky(covariance) * inflation
    rows, columns = torch.tril_indices(total, total, -1)
    constants = torch.cat([tril.diagonal().log(), tril[rows, columns]])
    with isolated_rng(0):
        model = CoVAE(
            {m: ModalitySpec((DIMS[m],)) for m in names},
            latent_dims=sizes,
            encoders=encoders,
            decoders={m: LinearDecoder(w) for m, w in loadings.items()},
            joint_encoder=LinearJoint((covariance @ decoder.T).contiguous(), constants),
            **{"pretraining": "none", "epsilon": 1e-12, **options},
        ).double()
    if len(names) == 2 and options.get("trainable_prior"):
        model.prior.set_correlations(torch.tensor([0.8, 0.5]))
    else:
        model.prior.set_covariance(prior)
    size = len(decoder)
    return LinearGaussian(model.eval(), decoder @ prior @ decoder.T + torch.eye(size, dtype=torch.float64))
