"""All models on the asymmetric Laplace copula: what is run, built and measured."""

from __future__ import annotations

from typing import Any

from repro.papers.compare.all_models import AllModels
from repro.papers.compare.methods import method_spec
from repro.papers.mrf_mvae.skewed.experiment import DATASET, LEVEL
from repro.records import RunSpec

__all__ = ["AllOnSkewedCopula", "skewed_spec"]


def skewed_spec(method: str, seed: int, profile: str, **changes: Any) -> RunSpec:
    """As :func:`~repro.papers.compare.methods.method_spec`, of the asymmetric Laplace copula."""
    return method_spec(DATASET, method, seed, profile, evaluation={"level": LEVEL}, **changes)


class AllOnSkewedCopula(AllModels):
    """Every model on the data of MRF MVAE's comparison of tails."""

    datasets = (DATASET,)

    def spec(self, method: str, seed: int, profile: str, **changes: Any) -> RunSpec:
        return skewed_spec(method, seed, profile, **changes)
