"""All models on the Gaussian copula: what is run, built and measured."""

from __future__ import annotations

from typing import Any

from repro.papers.compare.all_models import AllModels
from repro.papers.compare.methods import method_spec
from repro.records import RunSpec

__all__ = ["AllOnCopula", "copula_spec"]

DATASET = "copula"


def copula_spec(method: str, seed: int, profile: str, **changes: Any) -> RunSpec:
    """As :func:`~repro.papers.compare.methods.method_spec`, of the copula."""
    return method_spec(DATASET, method, seed, profile, **changes)


class AllOnCopula(AllModels):
    """Every model on the data of GMRF MCVAE's Table I."""

    datasets = (DATASET,)

    def spec(self, method: str, seed: int, profile: str, **changes: Any) -> RunSpec:
        return copula_spec(method, seed, profile, **changes)
