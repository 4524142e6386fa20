"""The synthetic copula dataset of GMRF MCVAE and MRF MVAE."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri

from repro.datasets.base import Dataset, from_card
from repro.datasets.card import Card
from repro.datasets.exact import normal_cdf, normals

__all__ = ["correlation", "load", "log_density", "sample"]


def correlation(j: int, rho: float = 0.9, num_modalities: int = 4) -> np.ndarray:
    r"""Correlation matrix of the copula of coordinate ``j`` (1 or 2).

    .. math:: R^j_{kk} = 1, \qquad R^j_{kl} = \left((-1)^j\right)^{k + l} \rho

    Arguments:
        j: Index of the coordinate, from 1.
        rho: Magnitude of the correlation.
        num_modalities: Number of modalities.

    Source: GMRF MCVAE, section IV-A.
    """
    signs = _signs(j, num_modalities)
    return np.where(np.eye(num_modalities, dtype=bool), 1.0, rho * np.outer(signs, signs))


def sample(
    num_samples: int, seed: int, stream: str, *, rho: float, mean: float, std: float, num_modalities: int = 4
) -> list[np.ndarray]:
    r"""Draws the modalities, each of shape ``(num_samples, 2)``, uniform on [0, 1].

    The matrix R^j has one factor: with signs :math:`s_k = ((-1)^j)^k` and standard normal f, e_k,

    .. math:: y_k = \mu + \sigma \left(s_k \sqrt{\rho} \, f + \sqrt{1 - \rho} \, e_k\right), \qquad
        x_k = \Phi\left(\frac{y_k - \mu}{\sigma}\right)

    Arguments:
        num_samples: Number of samples; a longer draw begins with the shorter one.
        seed: The seed of all splits.
        stream: Name of the split's own stream.
        rho: Magnitude of the correlation, in [0, 1).
        mean: Mean before the marginal transform.
        std: Standard deviation before the marginal transform.
        num_modalities: Number of modalities.
    """
    per_copula = num_modalities + 1
    g = normals(num_samples * 2 * per_copula, seed, "copula", stream).reshape(num_samples, 2, per_copula)
    data = []
    for k in range(num_modalities):
        coordinates = []
        for c in (0, 1):
            sign = _signs(c + 1, num_modalities)[k]
            y = mean + std * (sign * sqrt(rho) * g[:, c, 0] + sqrt(1.0 - rho) * g[:, c, 1 + k])
            coordinates.append(normal_cdf((y - mean) / std))
        data.append(np.stack(coordinates, axis=1).astype(np.float32))
    return data


def log_density(data: Mapping[str, NDArray[np.floating]], *, rho: float) -> NDArray[np.float64]:
    r"""ln p(x) of all modalities in nats, ``(N,)``, under the density that :func:`sample` draws from.

    .. math:: \ln p(x) = \sum_j -\frac12 \ln |R^j| - \frac12 y_j^\top \big((R^j)^{-1} - I\big) y_j, \qquad
        y_{jk} = \Phi^{-1}(x_{kj})

    Values are kept half a step of float32 at 1 away from 0 and 1, where the density has no bound.

    Arguments:
        data: Modality to ``(N, 2)``, in the order of the modalities.
        rho: Magnitude of the correlation, in [0, 1).
    """
    total = np.zeros(len(next(iter(data.values()))))
    for c in (0, 1):
        x = np.stack([np.asarray(v[:, c], np.float64) for v in data.values()], 1)
        y = ndtri(np.clip(x, 2.0**-25, 1.0 - 2.0**-25))
        matrix = correlation(c + 1, rho, len(data))
        quadratic = np.einsum("nk,kl,nl->n", y, np.linalg.inv(matrix) - np.eye(len(data)), y)
        total += -0.5 * np.linalg.slogdet(matrix)[1] - 0.5 * quadratic
    return total


def load(card: Card, split: str, *, seed: int = 0, num_samples: int | None = None) -> Dataset:
    """Generates a split: four modalities of two coordinates, coordinate c from copula c + 1.

    Arguments:
        card: The dataset's card.
        split: ``"train"``, ``"validation"``, ``"test"`` or ``"reference"``, a further independent true sample.
        seed: The seed; each split has its own stream of it.
        num_samples: Number of samples, that of the card if None.

    Raises:
        ValueError: If ``num_samples`` is under 1 or the seed is negative.
    """
    count = card.splits[split].count if num_samples is None else num_samples
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
        raise ValueError(f"{card.name}: num_samples is {num_samples!r}, must be an integer of at least 1")
    parameters = {key: float(value) for key, value in card.generation.items() if key in ("rho", "mean", "std")}
    arrays = sample(count, seed, split, **parameters, num_modalities=len(card.modalities))
    data = {m: torch.from_numpy(x) for m, x in zip(card.modalities, arrays, strict=True)}
    default = seed == card.generation["seed"] and count == card.splits[split].count
    provenance = {"source": "generated", "seed": seed, "stream": split}
    return from_card(card, split, data, provenance=provenance, variant="" if default else None)


def _signs(j: int, num_modalities: int) -> list[float]:
    return [float((-1) ** (j * k)) for k in range(1, num_modalities + 1)]
