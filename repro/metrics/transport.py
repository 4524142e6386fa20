"""Wasserstein distances between the pairwise marginals of true and generated multi-component samples.

Samples are mappings from a modality to a tensor of shape ``(N, D)``. For every unordered pair of modalities
:math:`i < j`, in the order of the mapping, and every coordinate :math:`c`, a metric compares the two-dimensional sample
:math:`(x_i^c, x_j^c)` of the true data with that of the generated data. "Dim 1" of the published tables is the mean
over the pairs at :math:`c = 0`, "Dim 2" that at :math:`c = 1`. All distances are returned times 1000, as they are
published, in thousandths of the data's unit (of probability mass for the histogram-value distance).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from scipy.spatial.distance import cdist
from torch import Tensor

from repro.metrics.arguments import check_samples

__all__ = [
    "SCALE",
    "PairwiseDistance",
    "histogram_value_wasserstein",
    "noise_floor",
    "optimal_transport",
    "sliced_wasserstein",
]

SCALE = 1000.0  # GMRF MCVAE, Table I: "scaled Wasserstein distances (multiplied by 1000)"

Samples = Mapping[str, Tensor]
PairKey = tuple[str, str, int]


@dataclass(frozen=True)
class PairwiseDistance:
    """Distances of all pairs of modalities and coordinates, times 1000.

    Arguments:
        values: The distance for each ``(modality_i, modality_j, coordinate)``, the coordinate counted from 0.
        num_samples: Samples of each side that entered the distance.
    """

    values: Mapping[PairKey, float]
    num_samples: int

    def dimension(self, coordinate: int) -> float:
        """Returns the mean over the pairs at one coordinate, counted from 0.

        Raises:
            ValueError: If there is no such coordinate.
        """
        selected = [value for (_, _, c), value in self.values.items() if c == coordinate]
        if not selected:
            raise ValueError(f"no coordinate {coordinate}; there are {sorted({c for _, _, c in self.values})}")
        return sum(selected) / len(selected)

    @property
    def mean(self) -> float:
        """Mean over all pairs and coordinates."""
        return sum(self.values.values()) / len(self.values)


def histogram_value_wasserstein(true: Samples, generated: Samples, *, bins: int = 10) -> PairwiseDistance:
    r"""One-dimensional Wasserstein distance between the bin *values* of two normalised two-dimensional histograms.

    .. math:: 1000 \int_0^1 \left| F_h^{-1}(u) - F_g^{-1}(u) \right| du

    where :math:`F_h` and :math:`F_g` are the empirical distribution functions of the ``bins``:sup:`2` masses of the
    true and the generated histogram. This is the one reading of "the Wasserstein distance between the empirical
    probability density functions" that has the published scale; it is inferred, not stated. Each histogram spans its
    own sample's range, NumPy's default. It compares the multiset of bin masses and not where they lie:

    - a sign flip of all correlations, or any affine map of a coordinate, scores as a perfect model does;
    - it is not monotone in the noise added to an output;
    - a few values far out stretch the bins: on 10,000 copula samples, noise of standard deviation 0.03 added to a
      second true sample scores about 1.7, and 0.5 when its values are clipped back to [0, 1].

    Arguments:
        true: Modality to tensor of shape ``(N, D)``.
        generated: The same modalities with the same shapes.
        bins: Bins along each axis.

    Raises:
        ValueError: If modalities or shapes differ, a value is not finite, or ``bins`` is under 1.

    Source:
        GMRF MCVAE, section IV-A and Table I; MRF MVAE, Table 2.
    """
    from scipy.stats import wasserstein_distance  # takes longer to import than a model to load

    if bins < 1:
        raise ValueError(f"bins is {bins}, must be at least 1")
    values, n = {}, _check(true, generated)
    for key, p, q in _pairs(true, generated, n):
        masses = [np.histogram2d(x[:, 0], x[:, 1], bins=bins)[0].ravel() / n for x in (p, q)]
        values[key] = SCALE * float(wasserstein_distance(*masses))
    return PairwiseDistance(values, n)


def optimal_transport(true: Samples, generated: Samples, *, num_samples: int = 2000) -> PairwiseDistance:
    r"""Exact 1-Wasserstein distance between two-dimensional samples, with the Euclidean distance as ground cost.

    .. math:: 1000 \min_{\pi \in \Pi_N} \frac{1}{N} \sum_{n=1}^N \| p_n - q_{\pi(n)} \|_2

    over the permutations :math:`\Pi_N`, solved by the network simplex. The cost in time grows like :math:`N^3` and in
    memory like :math:`N^2`, hence the first ``num_samples`` samples of each side only.

    Arguments:
        true: Modality to tensor of shape ``(N, D)``, in random order.
        generated: The same modalities with the same shapes.
        num_samples: How many of the first samples enter; all where there are fewer.

    Raises:
        ValueError: If modalities or shapes differ, a value is not finite, or ``num_samples`` is under 1.
        RuntimeError: If the solver stops before the optimum.
    """
    import ot  # takes longer to import than a model to load

    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}, must be at least 1")
    n = min(_check(true, generated), num_samples)
    weights = np.full(n, 1.0 / n)
    values = {}
    for key, p, q in _pairs(true, generated, n):
        distance, log = ot.emd2(weights, weights, cdist(p, q), numItermax=10_000_000, log=True)
        if log["warning"] is not None:
            raise RuntimeError(f"optimal transport of {key}: {log['warning']}")
        values[key] = SCALE * float(distance)
    return PairwiseDistance(values, n)


def sliced_wasserstein(
    true: Samples, generated: Samples, *, num_projections: int = 32, order: int = 1
) -> PairwiseDistance:
    r"""Sliced Wasserstein distance between two-dimensional samples, over equally spaced directions.

    .. math:: 1000 \left( \frac{1}{K} \sum_{k=1}^K \frac{1}{N} \sum_{n=1}^N
        \left| (P \theta_k)_{(n)} - (Q \theta_k)_{(n)} \right|^p \right)^{1/p},
        \quad \theta_k = (\cos \phi_k, \sin \phi_k), \quad \phi_k = \frac{(k - 1/2) \pi}{K}

    where :math:`x_{(n)}` is the n-th smallest value. In the plane equally spaced angles replace random ones: the value
    is deterministic, and smooth in the angle, so that few directions suffice. At order 1 it never exceeds the
    1-Wasserstein distance.

    Arguments:
        true: Modality to tensor of shape ``(N, D)``, on any device.
        generated: The same modalities with the same shapes.
        num_projections: Number K of directions in the half circle.
        order: The order p, at least 1.

    Raises:
        ValueError: If modalities or shapes differ, a value is not finite, or an option is under 1.

    Source:
        Rabin et al., "Wasserstein barycenter and its application to texture mixing", 2011.
    """
    if num_projections < 1 or order < 1:
        raise ValueError(f"num_projections is {num_projections} and order is {order}, must be at least 1")
    n = _check(true, generated)
    names = list(true)
    # (M, D, N): the sorted axis last, so that sorting runs over contiguous memory.
    p, q = (torch.stack([_real(x[m]) for m in names]).transpose(1, 2).contiguous() for x in (true, generated))
    q = q.to(p)
    index = list(combinations(range(len(names)), 2))
    first, second = (torch.tensor([pair[side] for pair in index], device=p.device) for side in (0, 1))
    total = p.new_zeros(len(index), p.shape[1])
    for k in range(num_projections):
        angle = torch.tensor((k + 0.5) * torch.pi / num_projections, dtype=torch.float64)
        a, b = angle.cos().item(), angle.sin().item()
        u, v = (_sorted(a * x[first] + b * x[second]) for x in (p, q))
        total += (u - v).abs().pow(order).mean(-1)
    distances = SCALE * (total / num_projections).pow(1.0 / order)
    values = {
        (names[i], names[j], c): float(distances[row, c]) for row, (i, j) in enumerate(index) for c in range(p.shape[1])
    }
    return PairwiseDistance(values, n)


def noise_floor(
    metric: Callable[..., PairwiseDistance], true_a: Samples, true_b: Samples, **options: Any
) -> PairwiseDistance:
    """Returns what a metric gives between two independent true samples: the score of a perfect model at this size.

    A finite sample lies at a positive distance even from another one of its own distribution; a distance reads as its
    excess over this one, at the same ``num_samples``.

    Arguments:
        metric: One of this module's distances.
        true_a: The true sample that models are compared with.
        true_b: A second, independent true sample of the same shapes.
        options: Passed on to ``metric``; those that models are measured with.

    Raises:
        ValueError: If the two are the same tensors, and as ``metric`` does.
    """
    check_samples(true_a=true_a, true_b=true_b)
    shared = [m for m in true_a if m in true_b and torch.equal(true_a[m], true_b[m])]
    if shared:
        raise ValueError(f"noise floor needs two independent samples; modality {shared[0]!r} is the same in both")
    return metric(true_a, true_b, **options)


def _sorted(x: Tensor) -> Tensor:
    """Returns x sorted along its last axis; on the CPU by NumPy, whose vectorised sort takes a tenth of the time."""
    if x.device.type != "cpu":
        return torch.sort(x, dim=-1).values
    return torch.from_numpy(np.sort(x.numpy(), axis=-1))


def _real(x: Tensor) -> Tensor:
    """Returns x detached, in at least single precision."""
    return x.detach().to(torch.promote_types(x.dtype, torch.float32))


def _check(true: Samples, generated: Samples) -> int:
    """Returns the number of samples, after checking names, types, shapes and values."""
    check_samples(true=true, generated=generated)
    if list(true) != list(generated):
        raise ValueError(f"generated has modalities {list(generated)}, expected {list(true)}")
    if len(true) < 2:
        raise ValueError(f"pairs need at least two modalities, got {list(true)}")
    expected = tuple(next(iter(true.values())).shape)
    if len(expected) != 2 or 0 in expected:
        raise ValueError(f"modality {next(iter(true))!r} of true has shape {expected}, expected (N, D), both positive")
    for side, samples in (("true", true), ("generated", generated)):
        for m, x in samples.items():
            if tuple(x.shape) != expected:
                raise ValueError(f"modality {m!r} of {side} has shape {tuple(x.shape)}, expected {expected}")
            if not bool(torch.isfinite(x).all()):
                raise ValueError(f"modality {m!r} of {side} has values that are not finite")
    return expected[0]


def _pairs(true: Samples, generated: Samples, n: int) -> Iterator[tuple[PairKey, np.ndarray, np.ndarray]]:
    """Yields key, true and generated pair sample of shape (n, 2), in double precision, coordinate by coordinate."""
    p, q = ({m: x[:n].detach().to("cpu", torch.float64).numpy() for m, x in s.items()} for s in (true, generated))
    for c in range(next(iter(p.values())).shape[1]):
        for i, j in combinations(p, 2):
            yield (i, j, c), np.stack([p[i][:, c], p[j][:, c]], 1), np.stack([q[i][:, c], q[j][:, c]], 1)
