"""Pairs of correlated values: what is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from repro.experiment import Cost, Experiment, Rows
from repro.records import Metric, RunSpec


class Pairs(Experiment):
    datasets = ("pairs",)

    def spec(self, method: str, seed: int, profile: str, **changes: Any) -> RunSpec:
        training = {"epochs": 2, "batch_size": 20, "learning_rate": 0.1} | changes
        return RunSpec("fifth", "pairs", method, seed, profile, {"training": training, "data": {"samples": 100}})

    def load(self, spec: RunSpec) -> dict[str, Any]:
        import torch

        from repro.datasets import Dataset

        a = torch.randn(spec.params["data"]["samples"], 1, generator=torch.Generator().manual_seed(0))
        return Dataset.from_arrays({"a": a, "b": 0.9 * a}, name="pairs")

    def build(self, spec: RunSpec) -> Any:
        from repro.papers.fifth.model import Regression  # type: ignore[import-not-found]

        return Regression()

    def evaluate(self, model: Any, data: Mapping[str, Any], spec: RunSpec, device: str = "cpu") -> Sequence[Metric]:
        import torch

        drawn = model.generate(50, generator=torch.Generator().manual_seed(0))
        return [Metric("test/distance", float((drawn["a"] - drawn["b"]).abs().mean()), "1", 50, "50 samples")]

    def figure_samples(self, model: Any, spec: RunSpec, device: str = "cpu") -> dict[str, Any]:
        import torch

        return model.generate(50, generator=torch.Generator().manual_seed(0))

    def cost(self, spec: RunSpec) -> Cost:
        return Cost(1.0, 100.0)


def runs(profile: str, seeds: int | None) -> Rows:
    return {"Regression": [Pairs().spec("regression", s, profile) for s in range(seeds or 2)]}
