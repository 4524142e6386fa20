"""How well features are reconstructed: mean absolute error, and Spearman's correlation of every feature."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata
from torch import Tensor

__all__ = ["constant_features", "mean_absolute_error", "spearman_per_feature"]


def _pair(predicted: Tensor | np.ndarray, true: Tensor | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = (
        x.detach().cpu().double().numpy() if isinstance(x, Tensor) else np.asarray(x, dtype=np.float64)
        for x in (predicted, true)
    )
    if a.shape != b.shape or a.ndim != 2 or not a.size:
        raise ValueError(f"predicted values {a.shape} and true ones {b.shape} must both be (samples, features)")
    for name, x in (("predicted", a), ("true", b)):
        if not np.isfinite(x).all():
            raise ValueError(f"{name} values are not all finite")
    return a, b


def mean_absolute_error(predicted: Tensor | np.ndarray, true: Tensor | np.ndarray) -> float:
    """Mean of the absolute differences over samples and features, in the features' unit.

    Arguments:
        predicted: ``(samples, features)``.
        true: ``(samples, features)``.

    Raises:
        ValueError: If shapes differ or a value is not finite.

    Source: CoVAE, Table 2.
    """
    a, b = _pair(predicted, true)
    return float(np.abs(a - b).mean())


def constant_features(x: Tensor | np.ndarray) -> np.ndarray:
    """Whether each feature of ``(samples, features)`` has one value only; ranks then do not exist."""
    x = x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)
    return (x == x[:1]).all(0)


def spearman_per_feature(predicted: Tensor | np.ndarray, true: Tensor | np.ndarray) -> np.ndarray:
    r"""Spearman's rank correlation over samples, for every feature; ties share their mean rank.

    .. math:: r_s = \operatorname{corr}(\mathrm{rk}(\hat x), \mathrm{rk}(x))

    Without ties this is the paper's :math:`1 - 6 \sum_i d_i^2 / (N (N^2 - 1))`.

    Arguments:
        predicted: ``(samples, features)``.
        true: ``(samples, features)``.

    Returns:
        Coefficients in [−1, 1], ``(features,)``.

    Raises:
        ValueError: If shapes differ, a value is not finite, there are fewer than two samples, or a feature is constant
            on either side; it names the features.

    Source: CoVAE, appendix B.2, Figure 9 and Table 3.
    """
    a, b = _pair(predicted, true)
    if len(a) < 2:
        raise ValueError(f"{len(a)} sample has no rank correlation, needs at least 2")
    for name, x in (("predicted", a), ("true", b)):
        if len(constant := np.flatnonzero(constant_features(x))):
            raise ValueError(f"features {constant[:5].tolist()} of the {name} values are constant ({len(constant)})")
    ranks = [rankdata(x, axis=0) - (len(x) + 1) / 2 for x in (a, b)]
    return (ranks[0] * ranks[1]).sum(0) / np.sqrt((ranks[0] ** 2).sum(0) * (ranks[1] ** 2).sum(0))
