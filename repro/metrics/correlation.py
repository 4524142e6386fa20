"""Canonical and distance correlation of two sets of features, differentiable, and what CoVAE reads from them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from repro.metrics.arguments import check_tensors

__all__ = [
    "CanonicalMap",
    "canonical_correlations",
    "cca_loss",
    "distance_correlation",
    "distance_correlation_unbiased",
    "fit_canonical_map",
    "participation_ratio",
]


def _checked(x: Tensor, y: Tensor, what: str, least: int) -> tuple[Tensor, Tensor]:
    """Both as float64 matrices of equally many rows, finite, without constant columns."""
    check_tensors(**{f"{what}: x": x, f"{what}: y": y})
    for name, value in (("x", x), ("y", y)):
        if value.ndim != 2 or value.shape[1] < 1:
            raise ValueError(f"{what}: {name} has shape {tuple(value.shape)}, must be (samples, features)")
    if len(x) != len(y):
        raise ValueError(f"{what}: x has {len(x)} samples, y has {len(y)}")
    if len(x) < least:
        raise ValueError(f"{what}: {len(x)} samples of {x.shape[1]} and {y.shape[1]} features, needs at least {least}")
    x, y = x.double(), y.double()
    for name, value in (("x", x), ("y", y)):
        if not bool(value.isfinite().all()):
            raise ValueError(f"{what}: {name} has values that are not finite")
        if bool((constant := (value == value[0]).all(0)).any()):
            raise ValueError(f"{what}: features {constant.nonzero().flatten().tolist()} of {name} are constant")
    return x, y


def _factor(covariance: Tensor, name: str) -> Tensor:
    factor, info = torch.linalg.cholesky_ex(covariance)
    # What rounding leaves of a feature that the ones before it determine is no part of its own.
    left = factor.diagonal().square() / covariance.diagonal()
    if int(info) or bool((left < 1e-13).any()):
        raise ValueError(f"the covariance of {name} is singular: its features depend on one another; give a ridge")
    return factor


def _whitened(x: Tensor, y: Tensor, ridge: float, what: str) -> tuple[Tensor, Tensor, Tensor]:
    """Cholesky factors of both covariances, and the whitened cross-covariance."""
    if not ridge >= 0:
        raise ValueError(f"{what}: ridge is {ridge}, must not be negative")
    check_tensors(**{f"{what}: x": x, f"{what}: y": y})
    # With as many samples as features, or fewer, every correlation is 1.
    x, y = _checked(x, y, what, max(x.shape[-1], y.shape[-1]) + 2)
    x, y = x - x.mean(0), y - y.mean(0)
    eye = [torch.eye(v.shape[1], dtype=v.dtype, device=v.device) for v in (x, y)]
    n = len(x) - 1
    first, second = (_factor(v.T @ v / n + ridge * i, k) for v, i, k in zip((x, y), eye, "xy", strict=True))
    cross = torch.linalg.solve_triangular(first, x.T @ y / n, upper=False)
    return first, second, torch.linalg.solve_triangular(second, cross.T, upper=False).T


def canonical_correlations(x: Tensor, y: Tensor, *, ridge: float = 0.0) -> Tensor:
    r"""Sample canonical correlations: the singular values of the whitened cross-covariance.

    .. math:: \rho = \sigma\big(L_1^{-1} S_{12} L_2^{-\top}\big), \qquad L_k L_k^\top = S_{kk} + r I

    They are biased upwards: independent standard normal features, 16 on either side, have a mean of 0.31 at 128 samples
    and of 0.05 at 5,000. For an estimate without that bias see :meth:`CanonicalMap.correlations` on other samples.

    Arguments:
        x: Features, ``(samples, d1)``.
        y: Features, ``(samples, d2)``.
        ridge: r, in the squared unit of the features.

    Returns:
        Correlations in descending order, float64 of shape ``(min(d1, d2),)``, differentiable.

    Raises:
        ValueError: If shapes do not fit, there are not at least two samples more than features, a feature is constant,
            or a covariance is singular.

    Source: CoVAE, section 3.1; erratum E14.
    """
    return torch.linalg.svdvals(_whitened(x, y, ridge, "canonical correlations")[2])


def cca_loss(x: Tensor, y: Tensor, *, ridge: float = 1e-3) -> Tensor:
    r"""Loss of Deep CCA: minus the sum of the batch's canonical correlations.

    .. math:: -\sum_i \sigma_i\big(L_1^{-1} S_{12} L_2^{-\top}\big)

    Arguments:
        x: Outputs of one network for a batch, ``(batch, d1)``.
        y: Outputs of the other, ``(batch, d2)``.
        ridge: Added to the diagonal of both covariances.

    Returns:
        A scalar in the features' type.

    Raises:
        ValueError: As :func:`canonical_correlations` does.

    Source: CoVAE, Algorithm 1, line 1; erratum E14.
    """
    return -canonical_correlations(x, y, ridge=ridge).sum().to(x.dtype)


@dataclass(frozen=True)
class CanonicalMap:
    """Affine maps that whiten two sets of features and rotate them to their canonical directions.

    Arguments:
        mean_x: ``(d1,)``.
        weight_x: ``(d1, d1)``; ``(x - mean_x) @ weight_x.T`` has unit covariance on the samples of the fit.
        mean_y: ``(d2,)``.
        weight_y: ``(d2, d2)``.
        fitted: Correlations on the samples of the fit, ``(min(d1, d2),)``, biased upwards.
    """

    mean_x: Tensor
    weight_x: Tensor
    mean_y: Tensor
    weight_y: Tensor
    fitted: Tensor

    def __call__(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Canonical coordinates, float64, of both sets of features."""
        return (x.double() - self.mean_x) @ self.weight_x.T, (y.double() - self.mean_y) @ self.weight_y.T

    def correlations(self, x: Tensor, y: Tensor) -> Tensor:
        """Correlation of each pair of canonical coordinates on other samples than those of the fit.

        For these directions it is free of the upward bias of the fit, and may be negative where the true one is small.

        Arguments:
            x: Held-out features, ``(samples, d1)``.
            y: Held-out features, ``(samples, d2)``.

        Raises:
            ValueError: If shapes do not fit, there are fewer than three samples, or a feature is constant.
        """
        u, v = _checked(*self(x, y), "held-out canonical correlations", 3)
        k = len(self.fitted)
        u, v = u[:, :k] - u[:, :k].mean(0), v[:, :k] - v[:, :k].mean(0)
        return (u * v).sum(0) / (u.square().sum(0) * v.square().sum(0)).sqrt()


@torch.no_grad()
def fit_canonical_map(x: Tensor, y: Tensor, *, ridge: float = 0.0) -> CanonicalMap:
    r"""Fits the maps under which two sets of features have the covariance of CoVAE's equation 5.

    .. math:: \Sigma = \begin{pmatrix} I & R \\ R^\top & I \end{pmatrix}, \qquad R_{ij} = \rho_i \delta_{ij}

    Arguments:
        x: Features, ``(samples, d1)``.
        y: Features, ``(samples, d2)``.
        ridge: Added to the diagonal of both covariances.

    Raises:
        ValueError: As :func:`canonical_correlations` does.

    Source: CoVAE, equation 5; erratum E14.
    """
    first, second, cross = _whitened(x, y, ridge, "canonical map")
    u, s, vt = torch.linalg.svd(cross, full_matrices=True)
    weight_x = torch.linalg.solve_triangular(first.T, u, upper=True).T
    weight_y = torch.linalg.solve_triangular(second.T, vt.T, upper=True).T
    return CanonicalMap(x.double().mean(0), weight_x, y.double().mean(0), weight_y, s)


def _distances(x: Tensor) -> Tensor:
    # Not by products of matrices, which lose the small distances; its gradient is 0 where two samples are equal.
    return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")


def distance_correlation(x: Tensor, y: Tensor) -> Tensor:
    r"""Distance correlation with the biased V-statistics, in [0, 1].

    .. math:: \sqrt{\frac{\langle A, B \rangle}{\sqrt{\langle A, A \rangle \langle B, B \rangle}}}

    with A and B the doubly centred matrices of distances. On 128 independent samples of 16 features it is about 0.57:
    see :func:`distance_correlation_unbiased`.

    Arguments:
        x: ``(samples, d1)``.
        y: ``(samples, d2)``.

    Raises:
        ValueError: If shapes do not fit, there are fewer than four samples, or a feature is constant.

    Source: Székely et al. (2007), definition 4; erratum E14.
    """

    def centred(d: Tensor) -> Tensor:
        return d - d.mean(0) - d.mean(1, keepdim=True) + d.mean()

    a, b = (centred(_distances(v)) for v in _checked(x, y, "distance correlation", 4))
    ratio = (a * b).sum() / ((a * a).sum() * (b * b).sum()).sqrt()
    return ratio.clamp_min(0.0).sqrt().to(x.dtype)


def distance_correlation_unbiased(x: Tensor, y: Tensor) -> Tensor:
    r"""Bias-corrected squared distance correlation; its mean is near 0 for independent samples, and it may be negative.

    .. math:: R^* = \frac{(\tilde A \cdot \tilde B)}{\sqrt{(\tilde A \cdot \tilde A)(\tilde B \cdot \tilde B)}}, \qquad
        (\tilde A \cdot \tilde B) = \frac{1}{n (n - 3)} \sum_{i \neq j} \tilde A_{ij} \tilde B_{ij}

    with U-centred distances: for :math:`i \neq j`, the distance less its row's and column's sums over n − 2, plus the
    sum of all over (n − 1)(n − 2).

    Arguments:
        x: ``(samples, d1)``.
        y: ``(samples, d2)``.

    Returns:
        A differentiable scalar in the features' type.

    Raises:
        ValueError: If shapes do not fit, there are fewer than four samples, or a feature is constant.

    Source: Székely and Rizzo (2014), definitions 2 and 3; CoVAE, appendix B.2; erratum E14.
    """

    def centred(d: Tensor) -> Tensor:
        n = len(d)
        whole = d - d.sum(0) / (n - 2) - d.sum(1, keepdim=True) / (n - 2) + d.sum() / ((n - 1) * (n - 2))
        return whole * (1 - torch.eye(n, dtype=d.dtype, device=d.device))

    a, b = (centred(_distances(v)) for v in _checked(x, y, "distance correlation", 4))
    return ((a * b).sum() / ((a * a).sum() * (b * b).sum()).sqrt()).to(x.dtype)


def participation_ratio(covariance: Tensor) -> Tensor:
    r"""Effective number of dimensions of a covariance.

    .. math:: \frac{(\sum_i \lambda_i)^2}{\sum_i \lambda_i^2}

    Arguments:
        covariance: Symmetric, ``(*batch, D, D)``.

    Returns:
        Between 1 and D, of shape ``(*batch,)``.

    Raises:
        ValueError: If the matrix is not square or all zero.

    Source: CoVAE, appendix C.
    """
    check_tensors(covariance=covariance)
    if covariance.ndim < 2 or covariance.shape[-1] != covariance.shape[-2]:
        raise ValueError(f"covariance has shape {tuple(covariance.shape)}, must be square")
    # Traces of the matrix and of its square are the sums of eigenvalues and of their squares.
    squares = covariance.square().sum((-2, -1))
    if bool((squares == 0).any()):
        raise ValueError("the covariance is zero, so it has no participation ratio")
    return covariance.diagonal(dim1=-2, dim2=-1).sum(-1).square() / squares
