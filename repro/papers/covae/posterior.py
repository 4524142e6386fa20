"""The covariances that CoVAE's joint encoder can give: a Cholesky factor, or blocks crossed by diagonals."""

from __future__ import annotations

import torch
from torch import Tensor

from repro.distributions.blocks import cholesky_factor
from repro.distributions.covariance import cholesky_scale_tril
from repro.papers.covae.prior import MAX_CORRELATION

__all__ = ["POSTERIORS", "num_covariance_entries", "posterior_scale_tril"]

POSTERIORS = ("cholesky", "cross_diagonal")


def num_covariance_entries(posterior: str, sizes: list[int]) -> int:
    """How many numbers of the joint encoder make one covariance of blocks of these sizes."""
    dim = sum(sizes)
    return dim + (dim * (dim - 1) // 2 if posterior == "cholesky" else min(sizes))


def posterior_scale_tril(posterior: str, entries: Tensor, sizes: list[int], epsilon: float) -> Tensor:
    r"""Cholesky factor of the joint posterior's covariance.

    ``"cholesky"``, with L lower triangular and an exponential diagonal:

    .. math:: \Sigma = L L^\top + \varepsilon I

    ``"cross_diagonal"``, for two modalities, with standard deviations s and correlations r in (0, 1) by a sigmoid:

    .. math:: \Sigma = \begin{pmatrix} S_1^2 & S_1 R S_2 \\ S_2 R^\top S_1 & S_2^2 \end{pmatrix} + \varepsilon I

    Arguments:
        posterior: One of :data:`POSTERIORS`.
        entries: Logarithms of the diagonal (of L, or of s), then the entries of L under its diagonal, row by row, or
            the logits of r; ``(batch, num_covariance_entries(...))``.
        sizes: Latents of each modality.
        epsilon: ε; the ELBO is 0.10 nats off at 1e-3 where the density leaves it out (erratum E13), so it does not.

    Returns:
        ``(batch, D, D)``. It is computed in float64 where float32 does not suffice.

    Raises:
        ValueError: If the covariance is not positive definite even in float64 (entries not finite).

    Source: CoVAE, section 2.2 and appendices B and C; erratum E13.
    """
    dim = sum(sizes)
    log_diagonal, rest = entries[:, :dim], entries[:, dim:]
    if posterior == "cholesky":
        lower = cholesky_scale_tril(log_diagonal, rest)
        covariance = lower @ lower.mT
    else:
        first, k = sizes[0], min(sizes)
        scale = log_diagonal.exp()
        correlation = rest.sigmoid().clamp_max(MAX_CORRELATION)
        covariance = torch.diag_embed(scale.square())
        i = torch.arange(k, device=entries.device)
        cross = correlation * scale[:, :k] * scale[:, first : first + k]
        covariance[:, i, first + i] = cross
        covariance[:, first + i, i] = cross
    covariance = covariance + epsilon * torch.eye(dim, dtype=entries.dtype, device=entries.device)
    factor, info = torch.linalg.cholesky_ex(covariance)
    if not bool(info.any()):
        return factor
    wide = covariance.double()
    if posterior == "cholesky":  # the product itself loses what float32 cannot hold
        wide = lower.double() @ lower.double().mT + epsilon * torch.eye(dim, dtype=wide.dtype, device=wide.device)
    return cholesky_factor(wide).to(entries.dtype)
