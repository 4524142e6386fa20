r"""Tail dependence of pairs of modalities, and how far a generated sample's lies from the truth.

A copula's tail is what it does in the four corners of the unit square. At a level u, with p = 1 - u and F the marginal
distribution functions, the coefficients of a pair (X, Y) are

.. math::
    \lambda_{\text{upper}} &= P(F(Y) > u \mid F(X) > u), \quad &
    \lambda_{\text{lower}} &= P(F(Y) < p \mid F(X) < p), \\
    \lambda_{\text{upper\_lower}} &= P(F(Y) < p \mid F(X) > u), \quad &
    \lambda_{\text{lower\_upper}} &= P(F(Y) > u \mid F(X) < p).

Independence gives p in every corner. Of comonotone variables the first two are 1, of countermonotone ones the last two.
The coefficients are of the finite level u; the limit at u = 1, the tail dependence of theory, no sample shows.

Samples are mappings from a modality to a tensor of shape ``(N, D)``, pairs are those of
:mod:`repro.metrics.transport`. Of N samples the :math:`k = \lfloor p N \rfloor` largest of a variable lie beyond the
level, and the k smallest. Values that tie at the boundary share the places that are left, which is the expectation
under a random order of them: a constant is independent of everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from math import ceil, floor, isfinite

import torch
from torch import Tensor

from repro.metrics.arguments import check_samples, check_tensors

__all__ = ["CORNERS", "MIN_TAIL", "PairwiseTails", "pairwise_tail_dependence", "tail_dependence", "tail_error"]

CORNERS = ("upper", "lower", "upper_lower", "lower_upper")
# At 20 samples beyond the level a coefficient of a half has a standard error of a tenth.
MIN_TAIL = 20

Samples = Mapping[str, Tensor]
PairKey = tuple[str, str, int]
# The boundary of each tail of (M, D) variables, and the share in it of a value that lies on it: each (2, M, D, 1).
Boundary = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class PairwiseTails:
    """Tail coefficients, or their absolute differences, of all pairs of modalities and coordinates.

    Arguments:
        values: The value of each corner for each ``(modality_i, modality_j, coordinate)``, the coordinate counted
            from 0; in ``"upper_lower"`` modality i is high and modality j low.
        level: The level u.
        num_tail: Samples k beyond the level in each tail.
        num_samples: Samples N.
    """

    values: Mapping[PairKey, Mapping[str, float]]
    level: float
    num_tail: int
    num_samples: int

    def corner(self, corner: str, coordinate: int | None = None) -> float:
        """Returns the mean over the pairs in one corner, at one coordinate (from 0) or over all.

        Raises:
            ValueError: If there is no such corner or coordinate.
        """
        if corner not in CORNERS:
            raise ValueError(f"no corner {corner!r}; there are {', '.join(CORNERS)}")
        known = sorted({c for _, _, c in self.values})
        if coordinate is not None and coordinate not in known:
            raise ValueError(f"no coordinate {coordinate}; there are {known}")
        selected = [v[corner] for (_, _, c), v in self.values.items() if coordinate in (None, c)]
        return sum(selected) / len(selected)

    def dimension(self, coordinate: int) -> float:
        """Returns the mean over the pairs and the four corners at one coordinate, counted from 0.

        Raises:
            ValueError: If there is no such coordinate.
        """
        return sum(self.corner(corner, coordinate) for corner in CORNERS) / len(CORNERS)

    @property
    def mean(self) -> float:
        """Mean over all pairs, coordinates and corners."""
        return sum(self.corner(corner) for corner in CORNERS) / len(CORNERS)


def tail_dependence(x: Tensor, y: Tensor, level: float = 0.95) -> dict[str, float]:
    r"""Tail coefficients of one pair of variables, by ranks.

    .. math:: \hat\lambda_{\text{upper}} = \frac{1}{k} \sum_{n=1}^N
        \mathbf{1}[x_n \text{ among the } k \text{ largest}] \, \mathbf{1}[y_n \text{ among the } k \text{ largest}]

    and so in the other corners. Increasing maps of x or of y change nothing. The standard error is at most about
    :math:`\sqrt{\lambda (1 - \lambda) / k}` where :math:`\lambda` is under a half, and near
    :math:`\sqrt{\lambda (1 - \lambda) (1 - \lambda / 2) / k}` where :math:`\lambda` hardly depends on the level.

    Arguments:
        x: Samples ``(N,)``.
        y: Samples ``(N,)``, in the same order.
        level: The level u, in (0.5, 1).

    Returns:
        The coefficient of each of ``CORNERS``; in ``"upper_lower"`` x is high and y low.

    Raises:
        ValueError: If shapes differ, a value is not finite, the level is outside (0.5, 1), or fewer than ``MIN_TAIL``
            samples lie beyond it.
    """
    check_tensors(x=x, y=y)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"x has shape {tuple(x.shape)} and y {tuple(y.shape)}, expected (N,) of both")
    return dict(pairwise_tail_dependence({"x": x[:, None], "y": y[:, None]}, level=level).values["x", "y", 0])


def pairwise_tail_dependence(samples: Samples, *, level: float = 0.95) -> PairwiseTails:
    """Tail coefficients of all pairs of modalities at every coordinate, each as :func:`tail_dependence` has it.

    Arguments:
        samples: Modality to tensor of shape ``(N, D)``.
        level: The level u, in (0.5, 1).

    Raises:
        ValueError: If there is one modality only, shapes differ, a value is not finite, the level is outside (0.5, 1),
            or fewer than ``MIN_TAIL`` samples lie beyond it.
    """
    values = _stacked(samples, "samples")
    count = _num_tail(values.shape[-1], level)
    corners = _corners(values, _boundary(values, count), count)
    return _tails(list(samples), corners, level, count, values.shape[-1])


def tail_error(true: Samples, generated: Samples, *, level: float = 0.95, marginals: str = "true") -> PairwiseTails:
    r"""Absolute differences between the tail coefficients of a generated sample and those of the truth.

    .. math:: \left| \hat\lambda^{\text{generated}}_{ijc} - \hat\lambda^{\text{true}}_{ijc} \right|

    for each pair i < j, coordinate c and corner; the result's ``corner`` and ``mean`` average them. The true
    coefficients are those of :func:`pairwise_tail_dependence`. The generated ones are, by name of ``marginals``,

    - ``"own"``: the same, by the generated sample's own ranks: pure dependence, blind to the marginals;
    - ``"true"``: the share of generated samples beyond the *true* sample's quantiles in both variables, over k / N. It
      is the coefficient where the marginals are right. It is 0 where a marginal misses the tail, and may exceed 1 where
      one has too much of it.

    A difference between two samples of one distribution has mean 0 and the standard error
    :math:`\sqrt{2 \lambda (1 - p \lambda) / k}` with ``"true"`` (the error of the boundaries enters both sides alike
    and cancels), and :math:`\sqrt 2` times that of :func:`tail_dependence` with ``"own"``; its absolute value has the
    mean 0.8 times that. This is the noise floor, which the function itself gives on two independent true samples: an
    error reads as its excess over it, at the same N and level.

    Arguments:
        true: Modality to tensor of shape ``(N, D)``.
        generated: The same modalities with the same shapes.
        level: The level u, in (0.5, 1).
        marginals: Whose quantiles bound the generated sample's tails, ``"true"`` or ``"own"``.

    Raises:
        ValueError: If modalities or shapes differ, a value is not finite, the level is outside (0.5, 1), fewer than
            ``MIN_TAIL`` samples lie beyond it, or ``marginals`` is unknown.
    """
    if marginals not in ("true", "own"):
        raise ValueError(f"marginals is {marginals!r}, must be 'true' or 'own'")
    check_samples(true=true, generated=generated)
    if list(true) != list(generated):
        raise ValueError(f"generated has modalities {list(generated)}, expected {list(true)}")
    p, q = _stacked(true, "true"), _stacked(generated, "generated")
    if p.shape != q.shape:
        (m, d, n), (_, e, o) = p.shape, q.shape
        raise ValueError(f"the {m} modalities of generated have shape {(o, e)}, expected that of true, {(n, d)}")
    count = _num_tail(p.shape[-1], level)
    boundary = _boundary(p, count)
    expected = _corners(p, boundary, count)
    found = _corners(q, boundary if marginals == "true" else _boundary(q, count), count)
    errors = {corner: (found[corner] - expected[corner]).abs() for corner in CORNERS}
    return _tails(list(true), errors, level, count, p.shape[-1])


def _num_tail(num_samples: int, level: float) -> int:
    """Returns k, after checking the level and that k is enough."""
    if isinstance(level, bool) or not isinstance(level, (int, float)) or not (isfinite(level) and 0.5 < level < 1.0):
        raise ValueError(f"level is {level!r}, must be a number in (0.5, 1)")
    # 1 - 0.95 is a little under 0.05 or over it, by rounding; the samples beyond are a whole number all the same.
    count = floor((1.0 - level) * num_samples + 1e-6)
    if count < MIN_TAIL:
        needed = ceil(MIN_TAIL / (1.0 - level) - 1e-6)
        raise ValueError(
            f"{count} of {num_samples} samples lie beyond level {level}; at least {MIN_TAIL} must, "
            f"which takes {needed} samples"
        )
    return count


def _stacked(samples: Samples, side: str) -> Tensor:
    """Returns the sample as (M, D, N) in double precision on the CPU, after checking types, shapes and values."""
    check_samples(**{side: samples})
    if len(samples) < 2:
        raise ValueError(f"pairs need at least two modalities, {side} has {list(samples)}")
    first, expected = next((m, tuple(x.shape)) for m, x in samples.items())
    if len(expected) != 2 or 0 in expected:
        raise ValueError(f"modality {first!r} of {side} has shape {expected}, expected (N, D), both positive")
    for m, x in samples.items():
        if tuple(x.shape) != expected:
            raise ValueError(f"modality {m!r} of {side} has shape {tuple(x.shape)}, expected {expected}")
        if not bool(torch.isfinite(x).all()):
            raise ValueError(f"modality {m!r} of {side} has values that are not finite")
    return torch.stack([x.detach().to("cpu", torch.float64).T for x in samples.values()])


def _boundary(values: Tensor, count: int) -> Boundary:
    """Returns where the tails of the values begin: the upper ones of (values, -values)."""
    both = torch.stack([values, -values])
    threshold = both.kthvalue(values.shape[-1] - count + 1, dim=-1, keepdim=True).values
    above, tied = ((both > threshold).sum(-1, keepdim=True), (both == threshold).sum(-1, keepdim=True))
    return threshold, (count - above) / tied.double()


def _corners(values: Tensor, boundary: Boundary, count: int) -> dict[str, Tensor]:
    """Returns the coefficients (D, M, M) of each corner; at [i, j] modality i comes first."""
    threshold, share = boundary
    both = torch.stack([values, -values])
    weights = (both > threshold).double() + share * (both == threshold)
    high, low = weights.transpose(1, 2)  # (D, M, N)
    return {
        "upper": high @ high.mT / count,
        "lower": low @ low.mT / count,
        "upper_lower": high @ low.mT / count,
        "lower_upper": low @ high.mT / count,
    }


def _tails(names: list[str], corners: dict[str, Tensor], level: float, count: int, num_samples: int) -> PairwiseTails:
    pairs = list(combinations(range(len(names)), 2))
    values = {
        (names[i], names[j], c): {corner: float(x[c, i, j]) for corner, x in corners.items()}
        for c in range(corners["upper"].shape[0])
        for i, j in pairs
    }
    return PairwiseTails(values, level, count, num_samples)
