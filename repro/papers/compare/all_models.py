"""What the comparisons of all models on a generated dataset share: what is loaded and built, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from repro import datasets
from repro.experiment import Cost, Experiment
from repro.papers.compare.methods import LABELS
from repro.records import Metric, RunSpec

if TYPE_CHECKING:
    from repro.datasets import Dataset
    from repro.model import MultimodalModel

__all__ = ["AllModels"]

# Seconds of one core's processor, measured: an epoch of 10,000 samples, and drawing 10,000 samples once more than the
# rest of an evaluation takes.
EPOCH_SECONDS = {"covae": 2.0, "sbm_vae": 1.0, "sbm_rae": 1.0, "mld": 1.2, "nnmrf": 1.6, "mvae": 1.4, "mopoe": 1.3}
EPOCH_SECONDS |= {"mmvae": 1.7, "mmvae_plus": 2.2, "dmvae": 2.0}
OTHER_EPOCH_SECONDS = 0.9
DRAW_SECONDS = {"nnmrf": 15.0, "sbm_vae": 8.0, "sbm_rae": 8.0, "mld": 8.0}
OVERHEAD_SECONDS = {"paper": 40.0, "quick": 15.0, "smoke": 3.0}
LIKELIHOOD_SECONDS = {"sbm_vae": 0.006}  # a point and importance sample
PEAK_MEGABYTES = 1500


class AllModels(Experiment):
    """Every model on one dataset."""

    def owns(self, spec: RunSpec) -> bool:
        """By the method, since other comparisons have the same data."""
        return spec.method in LABELS and super().owns(spec)

    def load(self, spec: RunSpec) -> dict[str, Dataset]:
        """The training split, the split that is measured on, and beside the test split a further true sample."""
        data, evaluation = spec.params["data"], spec.params["evaluation"]
        number, split = evaluation["num_samples"], evaluation["split"]
        sizes = {"train": data["train_samples"], split: number} | ({"reference": number} if split == "test" else {})
        return {
            s: datasets.load_dataset(spec.dataset, split=s, seed=data["seed"], num_samples=n) for s, n in sizes.items()
        }

    def build(self, spec: RunSpec) -> MultimodalModel:
        return self.code.build(spec)

    def evaluate(
        self, model: MultimodalModel, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu"
    ) -> Sequence[Metric]:
        return self.code.evaluate(model, data, spec, device)

    def cost(self, spec: RunSpec) -> Cost:
        """From measured seconds of an epoch and of a draw."""
        training, data, evaluation = (spec.params[k] for k in ("training", "data", "evaluation"))
        epochs = training["epochs"] + sum(s["epochs"] for s in training.get("stages", {}).values())
        share = EPOCH_SECONDS.get(spec.method, OTHER_EPOCH_SECONDS) * data["train_samples"] / 10_000
        draws = 5 + 1.5 * (evaluation["split"] == "test")  # joint samples, given each modality, and for the seconds
        drawn = draws * DRAW_SECONDS.get(spec.method, 0.0) * evaluation["num_samples"] / 10_000
        asked = evaluation.get("likelihood", {"points": 0, "importance_samples": 0})
        weighed = LIKELIHOOD_SECONDS.get(spec.method, 0.0) * asked["points"] * asked["importance_samples"]
        other = OVERHEAD_SECONDS[spec.profile] * (1.0 if evaluation["split"] == "test" else 0.1)
        return Cost(epochs * share + drawn + weighed + other, PEAK_MEGABYTES)
