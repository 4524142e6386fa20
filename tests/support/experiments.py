"""A run's experiment, step by step, and an artifact's results from records that a test makes up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from repro.artifacts.inventory import find
from repro.artifacts.render import contents
from repro.artifacts.render import results as results_of_artifact
from repro.datasets import Dataset
from repro.experiment import Cost, Results
from repro.papers import experiment_of
from repro.records import Metric, Record, RunSpec
from repro.training import TrainingSettings

__all__ = [
    "build_model",
    "estimate",
    "evaluate",
    "figure_samples",
    "load_data",
    "render",
    "results_of",
    "training_settings",
]

Lookup = Callable[[RunSpec], Record | None]
Samples = Callable[[RunSpec], Mapping[str, Any]]


def build_model(spec: RunSpec) -> Any:
    return experiment_of(spec).build(spec)


def load_data(spec: RunSpec) -> dict[str, Dataset]:
    return experiment_of(spec).load(spec)


def training_settings(spec: RunSpec, device: str = "cpu") -> TrainingSettings:
    return experiment_of(spec).training(spec, device)


def evaluate(model: Any, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu") -> Sequence[Metric]:
    return experiment_of(spec).evaluate(model, data, spec, device)


def figure_samples(model: Any, spec: RunSpec, device: str = "cpu") -> dict[str, Tensor]:
    return experiment_of(spec).figure_samples(model, spec, device)


def estimate(spec: RunSpec) -> Cost:
    return experiment_of(spec).cost(spec)


def _no_samples(spec: RunSpec) -> Mapping[str, Any]:
    raise AssertionError(f"asks for samples of {spec.label}")


def results_of(
    name: str, profile: str, lookup: Lookup, samples: Samples = _no_samples, seeds: int | None = None
) -> Results:
    """What the function of an artifact takes."""
    return results_of_artifact(find(name), profile, lookup, samples, seeds)


def render(
    name: str, profile: str, *, lookup: Lookup, samples: Samples = _no_samples, seeds: int | None = None
) -> dict[str, str | bytes]:
    """An artifact's files, suffix to content."""
    return contents(find(name), profile, lookup, samples, seeds)
