"""What MRF MVAE's experiments run, by artifact and by dataset: the interface of the paper package.

Importing this module needs no torch; building, loading and evaluating do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from repro.papers.mrf_mvae.skewed import experiment as skewed
from repro.papers.mrf_mvae.triples import experiment as triples
from repro.records import Metric, RunSpec, of_profile

if TYPE_CHECKING:
    from torch import Tensor

    from repro.datasets import Dataset
    from repro.model import MultimodalModel
    from repro.training import TrainingSettings

__all__ = ["build_model", "estimate", "evaluate", "figure_samples", "load_data", "plan", "training_settings"]

EXPERIMENTS = {"mnist_triples": triples, "skewed_copula": skewed}


def plan(artifact: str, profile: str, seeds: int | None = None) -> dict[str, list[RunSpec]]:
    """The runs that an artifact is rendered from, by row.

    Arguments:
        artifact: Its id within the paper, such as ``"table4"``.
        profile: ``"paper"``, ``"overnight"``, ``"quick"`` or ``"smoke"``.
        seeds: How many seeds, from 0 on; the profile's number if None.

    Raises:
        KeyError: If the artifact needs no runs of this paper.
    """
    for experiment in EXPERIMENTS.values():
        if artifact in experiment.ARTIFACTS:
            of_profile(experiment.PROFILES, profile)
            return experiment.plan(artifact, profile, seeds)
    raise KeyError(artifact)


def estimate(spec: RunSpec) -> tuple[float, float]:
    """Seconds on one core and peak megabytes of a run, from measured seconds an epoch."""
    return EXPERIMENTS[spec.dataset].estimate(spec)


def load_data(spec: RunSpec) -> dict[str, Dataset]:
    """The splits that a run uses."""
    return EXPERIMENTS[spec.dataset].load_data(spec)


def build_model(spec: RunSpec) -> MultimodalModel:
    """The untrained variant of a run."""
    import torch

    from repro.datasets.base import specs
    from repro.datasets.card import load_card
    from repro.papers.mrf_mvae.neural_prior import ChainSettings
    from repro.papers.mrf_mvae.variants import build_variant

    settings = dict(spec.params["model"])
    dtype = settings.pop("hidden_dtype")
    if "chains" in settings:
        settings["chains"] = ChainSettings(**settings["chains"])
    return build_variant(
        settings.pop("variant"),
        specs(load_card(spec.dataset)),
        hidden_dtype=None if dtype == "float32" else getattr(torch, dtype),
        **settings,
    )


def training_settings(spec: RunSpec, device: str = "cpu") -> TrainingSettings:
    """How a run is trained."""
    from repro.training import TrainingSettings

    return TrainingSettings(**spec.params["training"], device=device)


def _evaluation(spec: RunSpec) -> Any:
    return import_module(f"repro.papers.mrf_mvae.{EXPERIMENTS[spec.dataset].EVALUATION}")


def evaluate(
    model: MultimodalModel, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu"
) -> Sequence[Metric]:
    """All metrics of a run, as the experiment's evaluation module says."""
    return _evaluation(spec).evaluate(model, data, spec, device)


def figure_samples(model: MultimodalModel, spec: RunSpec, device: str = "cpu") -> dict[str, Tensor]:
    """Samples that the experiment's figures are drawn from."""
    return _evaluation(spec).figure_samples(model, spec, device)
