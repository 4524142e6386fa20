"""What a training step of each model costs for 2 to 10 modalities, against the orders of appendix -D.

A run trains one model with M modalities for one epoch; its record's seconds of training are those of the steps. The
modalities are PolyMNIST's five, repeated: what a step costs does not depend on what they show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repro.experiment import Cost, Experiment
from repro.papers.gmrf_mcvae.images.experiment import image_spec
from repro.papers.gmrf_mcvae.images.settings import EXPERIMENTS
from repro.records import Metric, Record, RunSpec, of_profile

if TYPE_CHECKING:
    from repro.datasets import Dataset
    from repro.model import MultimodalModel

__all__ = ["ORDERS", "PROFILES", "Scaling", "scaling_spec", "seconds_per_step"]

# Appendix -D, with C the cost of a decoder and d the latents of a component; it has no order for MVAE.
ORDERS = {
    "mvae": "—",
    "mmvae": "M² C",
    "mopoe": "2^M C",
    "mmvae_plus": "M² C",
    "gmrf_mcvae": "M² d² + M C",
}
PROFILES: dict[str, dict[str, Any]] = {
    "paper": {"components": tuple(range(2, 11)), "batch_size": 256, "steps": 20},
    "quick": {"components": tuple(range(2, 11)), "batch_size": 32, "steps": 10},
    "smoke": {"components": (2, 3), "batch_size": 4, "steps": 2},
}


def scaling_spec(method: str, components: int, profile: str) -> RunSpec:
    """The specification of one model with M modalities, with the networks and latents of PolyMNIST in the profile.

    Raises:
        ValueError: If the method is unknown, or there are fewer than two components.
    """
    if components < 2:
        raise ValueError(f"components is {components}, must be at least 2")
    settings = of_profile(PROFILES, profile)
    image = image_spec("polymnist", method, 0, profile).params
    batch, steps = settings["batch_size"], settings["steps"]
    params = {
        "model": image["model"],
        "training": {"epochs": 1, "batch_size": batch, "learning_rate": image["training"]["learning_rate"]},
        "data": {"options": image["data"]["options"], "components": components, "samples": batch * steps},
    }
    return RunSpec("gmrf_mcvae", "polymnist", method, 0, profile, params)


class Scaling(Experiment):
    """Steps of Table II's models with 2 to 10 modalities of PolyMNIST."""

    datasets = ("polymnist",)

    def owns(self, spec: RunSpec) -> bool:
        return super().owns(spec) and "components" in spec.params["data"]

    def spec(self, method: str, seed: int, profile: str, **changes: Any) -> RunSpec:
        """Of ``components`` modalities; the seed is always 0."""
        return scaling_spec(method, changes["components"], profile)

    def load(self, spec: RunSpec) -> dict[str, Dataset]:
        return self.code.load(spec)

    def build(self, spec: RunSpec) -> MultimodalModel:
        return self.code.build(spec)

    def evaluate(
        self, model: MultimodalModel, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu"
    ) -> Sequence[Metric]:
        return self.code.measure(model, data, spec, device)

    def cost(self, spec: RunSpec) -> Cost:
        """From the measured seconds of PolyMNIST's steps."""
        each, _ = EXPERIMENTS["polymnist"].profiles[spec.profile]["seconds"]
        m, samples = spec.params["data"]["components"], spec.params["data"]["samples"]
        decodes = {"mvae": 2 * m, "mmvae": m**2, "mopoe": m, "mmvae_plus": m**2, "gmrf_mcvae": m}[spec.method]
        subsets = 2e-4 * 2**m * samples / spec.params["training"]["batch_size"] if spec.method == "mopoe" else 0.0
        return Cost(each * samples * (m + decodes) / 10 + subsets + 4.0, 800.0 + 2.0 * decodes * (m if m > 5 else 5))


def seconds_per_step(record: Record) -> float:
    """Wall-clock seconds of a training step, the optimiser's included."""
    data, training = record.spec.params["data"], record.spec.params["training"]
    return record.training_seconds / (training["epochs"] * data["samples"] / training["batch_size"])
