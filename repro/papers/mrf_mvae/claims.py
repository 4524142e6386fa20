"""Evidence for claims of MRF MVAE's paper that no record holds."""

from __future__ import annotations

from repro.report.evidence import Comparison

__all__ = ["lemma_1"]

PAIRS = 2_000


def lemma_1() -> list[Comparison]:
    r"""Gaussians in one dimension, where both sides are known exactly.

    With the kernel :math:`k(x, y) = e^{-(x-y)^2 / 2}`, :math:`E[k] = s^{-1/2} e^{-d^2 / 2s}` for a difference of
    variables of mean d and variance s - 1. Erratum E5: the inequality is reversed.
    """
    import numpy as np

    generator = np.random.default_rng(0)
    mean = generator.normal(size=(2, PAIRS))
    variance = np.exp(generator.normal(size=(2, PAIRS)))

    def expected(i: int, j: int) -> np.ndarray:
        s = 1 + variance[i] + variance[j]
        return np.exp(-((mean[i] - mean[j]) ** 2) / (2 * s)) / np.sqrt(s)

    mmd2 = expected(0, 0) + expected(1, 1) - 2 * expected(0, 1)
    ratio = variance[0] / variance[1]
    kl = (ratio - 1 - np.log(ratio) + (mean[0] - mean[1]) ** 2 / variance[1]) / 2
    broken = int((kl > np.log1p(mmd2)).sum())
    return [Comparison(f"broken by {broken:,} of {PAIRS:,} random pairs of Gaussians (erratum E5)", broken == 0)]
