"""A copula dataset with skewed, heavy joint tails: asymmetric Laplace where ``copula`` is Gaussian."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np
import torch

from repro.datasets.base import Dataset, from_card
from repro.datasets.card import Card
from repro.datasets.exact import Floats, exp, log_unit, normals, uniforms

__all__ = ["load", "marginal_cdf", "sample"]


def marginal_cdf(y: Floats, skew: float) -> Floats:
    r"""Distribution function of the asymmetric Laplace distribution AL(m, 1) in one dimension.

    .. math:: F(y) = \begin{cases} \frac{1}{\gamma b} e^{b y} & y \le 0 \\ 1 - \frac{1}{\gamma a} e^{-a y} & y > 0
        \end{cases}, \qquad \gamma = \sqrt{m^2 + 2}, \quad a = \gamma - m, \quad b = \gamma + m

    the integral of the density :math:`e^{m y - \gamma |y|} / \gamma`. The smaller of the rates a and b comes from
    :math:`a b = 2`, so that nothing cancels where the skew is large. The relative error is under 1e-12, also of
    F in the lower tail, down to 1e-87; below that F is 0 or as small.

    Arguments:
        y: Values, of any shape.
        skew: The skew m.

    Source: MRF MVAE, eq. 11, at dimension 1 and variance 1.
    """
    gamma = sqrt(skew * skew + 2.0)
    large = gamma + abs(skew)
    up, down = (2.0 / large, large) if skew >= 0 else (large, 2.0 / large)
    # exp takes [-50, 0]: a fourth of the exponent, then the fourth power. A division by 4 is exact.
    quarter = exp(np.maximum(-np.where(y > 0.0, up * y, -down * y), -200.0) / 4.0)
    square = quarter * quarter
    tail = square * square
    return np.where(y > 0.0, 1.0 - tail / (gamma * up), tail / (gamma * down))


def sample(
    num_samples: int, seed: int, stream: str, *, rho: float, skew: Sequence[Sequence[float]]
) -> list[np.ndarray]:
    r"""Draws the modalities, each of shape ``(num_samples, C)``, uniform on [0, 1].

    In coordinate j (from 1) all modalities share one exponential variable :math:`W^j`, and the Gaussian part has the
    correlation matrix of the Gaussian copula's coordinate: with signs :math:`s_k = ((-1)^j)^k` and standard normal f,
    e_k,

    .. math:: y_k = m^j_k W^j + \sqrt{W^j} \left(s_k \sqrt{\rho} \, f + \sqrt{1 - \rho} \, e_k\right), \qquad
        x_k = F_{m^j_k}(y_k), \qquad W^j = -\log u

    Arguments:
        num_samples: Number of samples; a longer draw begins with the shorter one.
        seed: The seed of all splits.
        stream: Name of the split's own stream.
        rho: Magnitude of the correlation of the Gaussian part, in [0, 1).
        skew: The skew m, one row a coordinate and one column a modality, ``(C, K)``.

    Raises:
        ValueError: If ``rho`` is outside [0, 1), or ``skew`` is not a finite matrix.

    Source: MRF MVAE, eq. 10, for the copula's distribution; section 4 for the layout of the data.
    """
    if not 0.0 <= rho < 1.0:
        raise ValueError(f"rho is {rho}, must be in [0, 1)")
    if len({len(row) for row in skew}) != 1 or not all(np.isfinite(row).all() and len(row) for row in skew):
        raise ValueError(f"skew is {skew}, must be finite, one row a coordinate and one column a modality")
    coordinates, num_modalities = len(skew), len(skew[0])
    per_copula = num_modalities + 1
    g = normals(num_samples * coordinates * per_copula, seed, "skewed_copula", stream, "normals")
    g = g.reshape(num_samples, coordinates, per_copula)
    u = uniforms(num_samples * coordinates, seed, "skewed_copula", stream, "mixing")
    mixing = -log_unit(u).reshape(num_samples, coordinates)
    data = []
    for k in range(num_modalities):
        columns = []
        for c, row in enumerate(skew):
            sign = -1.0 if (c + 1) * (k + 1) % 2 else 1.0
            gaussian = sign * sqrt(rho) * g[:, c, 0] + sqrt(1.0 - rho) * g[:, c, 1 + k]
            y = row[k] * mixing[:, c] + np.sqrt(mixing[:, c]) * gaussian
            columns.append(marginal_cdf(y, row[k]))
        data.append(np.stack(columns, axis=1).astype(np.float32))
    return data


def load(card: Card, split: str, *, seed: int = 0, num_samples: int | None = None) -> Dataset:
    """Generates a split: four modalities of two coordinates, each coordinate from its own asymmetric Laplace copula.

    Arguments:
        card: The dataset's card.
        split: ``"train"``, ``"validation"``, ``"test"`` or ``"reference"``, a further independent true sample.
        seed: The seed; each split has its own stream of it.
        num_samples: Number of samples, that of the card if None.

    Raises:
        ValueError: If ``num_samples`` is under 1 or the seed is negative.
    """
    stated = card.splits[split].count
    count = stated if num_samples is None else num_samples
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
        raise ValueError(f"{card.name}: num_samples is {num_samples!r}, must be an integer of at least 1")
    skew = [[float(m) for m in row] for row in card.generation["skew"]]
    arrays = sample(count, seed, split, rho=float(card.generation["rho"]), skew=skew)
    data = {m: torch.from_numpy(x) for m, x in zip(card.modalities, arrays, strict=True)}
    default = seed == card.generation["seed"] and count == stated
    provenance = {"source": "generated", "seed": seed, "stream": split}
    return from_card(card, split, data, provenance=provenance, variant="" if default else None)
