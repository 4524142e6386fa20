"""Whether predictive intervals hold what they promise."""

from __future__ import annotations

import torch
from torch import Tensor

from repro.metrics.arguments import check_tensors

__all__ = ["interval_coverage"]


def interval_coverage(samples: Tensor, true: Tensor, level: float = 0.9) -> Tensor:
    r"""Share of true values that lie in the central predictive interval of samples, for each of several quantities.

    .. math:: \frac1N \sum_n \mathbf 1\left[ F_n < y_n < F'_n \right]

    where the interval runs between the order statistics of the K samples whose ranks r and K + 1 − r leave
    :math:`r = (1 - \text{level}) (K + 1) / 2` on either side. If samples and true value have the same distribution, its
    probability is exactly ``level`` where r is an integer, whatever the distribution; otherwise r is rounded, and the
    probability is :math:`1 - 2 r / (K + 1)`, which :func:`interval_coverage` does not correct. K = 199 gives r = 10 at
    0.9, and 99 gives 5.

    Arguments:
        samples: K predictive samples for each point, ``(K, N, *event)``.
        true: What came to be, ``(N, *event)``.
        level: Probability that the interval should have.

    Returns:
        Coverage of each quantity over the N points, ``(*event,)``; its standard error is
        :math:`\sqrt{c (1 - c) / N}` for independent points.

    Raises:
        ValueError: If shapes do not fit, ``level`` is not in (0, 1), or there are too few samples for it.
    """
    check_tensors(samples=samples, true=true)
    if samples.ndim < 2 or samples.shape[1:] != true.shape or not len(true):
        raise ValueError(f"samples {tuple(samples.shape)} must be (K, N, ...) for true values {tuple(true.shape)}")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, must be in (0, 1)")
    k = len(samples)
    rank = round((1 - level) * (k + 1) / 2)
    if rank < 1 or 2 * rank > k:
        raise ValueError(f"{k} samples are too few for an interval of level {level}")
    ordered = samples.sort(0).values
    inside = (ordered[rank - 1] < true) & (true < ordered[k - rank])
    return inside.to(torch.float64).mean(0)
