"""Maximum mean discrepancy under a Gaussian RBF kernel, as pure functions of samples."""

from __future__ import annotations

import torch
from torch import Tensor

from repro.metrics.arguments import check_tensors

__all__ = ["median_bandwidth", "mmd_squared", "rbf_kernel"]


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    # By products, not by differences: no (N, M, D) tensor, and a gradient of 0 where two points coincide. The shift
    # keeps the cancellation small for points far from the origin.
    shift = y.detach().mean(-2, keepdim=True)
    x, y = x - shift, y - shift
    squares = x.square().sum(-1, keepdim=True) + y.square().sum(-1).unsqueeze(-2)
    return (squares - 2 * x @ y.mT).clamp(min=0)


def rbf_kernel(x: Tensor, y: Tensor, bandwidth: float | Tensor) -> Tensor:
    r"""The Gaussian radial basis function of every pair of points, between 0 and 1.

    .. math:: k(x, y) = \exp\Big(-\frac{\lVert x - y \rVert^2}{2 h^2}\Big)

    Arguments:
        x: Points ``(*batch, N, D)``.
        y: Points ``(*batch, M, D)``.
        bandwidth: h in the points' unit, a number or ``(*batch)``.

    Returns:
        ``(*batch, N, M)``.

    Source: MRF MVAE, appendix B.3.
    """
    check_tensors(x=x, y=y)
    h = torch.as_tensor(bandwidth, dtype=x.dtype, device=x.device)
    return (-_squared_distances(x, y) / (2 * h.square())[..., None, None]).exp()


@torch.no_grad()
def median_bandwidth(x: Tensor, y: Tensor) -> Tensor:
    r"""The median distance between two different points of the pooled samples, a constant to the gradient.

    .. math:: h = \operatorname{median}_{i < j} \lVert u_i - u_j \rVert, \quad u = (x_1, \dots, x_N, y_1, \dots, y_M)

    Arguments:
        x: Points ``(*batch, N, D)``.
        y: Points ``(*batch, M, D)``.

    Returns:
        ``(*batch)``, positive even where all points coincide.

    Source: Gretton et al. (2012), section 8; the paper names no bandwidth.
    """
    check_tensors(x=x, y=y)
    pooled = torch.cat([x, y], -2)
    rows, columns = torch.triu_indices(pooled.shape[-2], pooled.shape[-2], 1, device=pooled.device)
    distances = _squared_distances(pooled, pooled)[..., rows, columns]
    return distances.median(-1).values.sqrt().clamp(min=torch.finfo(x.dtype).tiny ** 0.25)


def mmd_squared(x: Tensor, y: Tensor, *, bandwidth: float | str | Tensor = "median", unbiased: bool = True) -> Tensor:
    r"""The squared maximum mean discrepancy of two distributions, estimated from samples of each.

    .. math::
        \mathrm{MMD}_u^2 = \frac{1}{N (N - 1)} \sum_{i \ne j} k(x_i, x_j) + \frac{1}{M (M - 1)} \sum_{i \ne j}
        k(y_i, y_j) - \frac{2}{N M} \sum_{i, j} k(x_i, y_j)

    The unbiased estimate may be negative, and is at least :math:`-1 / N - 1 / M`. The biased one has the
    diagonal terms too and :math:`1 / N^2`, :math:`1 / M^2` as factors; it is at least 0. Both are at most 2.

    Arguments:
        x: Samples of the one, ``(*batch, N, D)``; gradients flow through them.
        y: Samples of the other, ``(*batch, M, D)``.
        bandwidth: h of :func:`rbf_kernel`, or ``"median"`` for :func:`median_bandwidth` of these samples, without
            gradient. The estimate is unbiased for a fixed kernel; with the median it is so up to the small dependence
            of h on each sample.
        unbiased: Which of the two.

    Returns:
        ``(*batch)``.

    Raises:
        ValueError: If shapes do not fit, there are fewer than two points (one for the biased estimate) of either, or
            the bandwidth is not positive.

    Source: MRF MVAE, eq. 35; Gretton et al. (2012), eq. 3 and 5.
    """
    check_tensors(x=x, y=y)
    if x.ndim < 2 or y.ndim < 2 or x.shape[-1] != y.shape[-1] or x.shape[:-2] != y.shape[:-2]:
        raise ValueError(f"x has shape {tuple(x.shape)} and y {tuple(y.shape)}, (*batch, N, D) and (*batch, M, D) fit")
    n, m = x.shape[-2], y.shape[-2]
    if min(n, m) < 1 + unbiased:
        raise ValueError(f"x has {n} points and y {m}; at least {1 + unbiased} of each are needed")
    if isinstance(bandwidth, str):
        if bandwidth != "median":
            raise ValueError(f"bandwidth is {bandwidth!r}, must be 'median' or a positive number")
        bandwidth = median_bandwidth(x, y)
    elif not bool((torch.as_tensor(bandwidth) > 0).all()):
        raise ValueError(f"bandwidth is {bandwidth}, must be 'median' or positive")
    within = 0.0
    for points, size in ((x, n), (y, m)):
        total = rbf_kernel(points, points, bandwidth).sum((-2, -1))
        # A point's kernel with itself is 1, so the diagonal need not be masked.
        within = within + ((total - size) / (size * (size - 1)) if unbiased else total / size**2)
    return within - 2 * rbf_kernel(x, y, bandwidth).mean((-2, -1))
