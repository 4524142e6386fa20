"""All models on the breast tumours: what is run, built and measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from repro import datasets
from repro.datasets.card import load_card
from repro.experiment import Cost
from repro.papers.compare.all_models import AllModels
from repro.papers.compare.methods import TUMOURS
from repro.papers.compare.rows import epochs_in_all
from repro.papers.compare.tumours.settings import tumours_spec
from repro.records import RunSpec

if TYPE_CHECKING:
    from repro.datasets import Dataset

__all__ = ["AllOnTumours"]

# Seconds of one core's processor, measured: an epoch of 150 tumours, a thousand samples where they are iterated, a
# point and importance sample of SBM-VAE's five likelihoods, and the rest of a run.
EPOCH_SECONDS = {"nnmrf": 0.043, "sbm_vae": 0.04, "sbm_rae": 0.04, "mld": 0.04, "covae": 0.032}
OTHER_EPOCH_SECONDS = 0.025
DRAW_SECONDS = {"nnmrf": 1.4, "sbm_vae": 1.1, "sbm_rae": 1.1, "mld": 1.1}
LIKELIHOOD_SECONDS = {"sbm_vae": 0.08}
OVERHEAD_SECONDS = {"paper": 5.0, "quick": 4.0, "smoke": 1.0}
MEANS = {"nnmrf": 8, "sbm_vae": 16, "sbm_rae": 16, "mld": 16}  # samples of latents' means given one modality
PEAK_MEGABYTES = 1500


class AllOnTumours(AllModels):
    """Every model on the tumours of CoVAE's Tables 1 to 3 in the small."""

    datasets = (TUMOURS,)

    def spec(self, method: str, seed: int, profile: str, **changes: Any) -> RunSpec:
        return tumours_spec(method, seed, profile, **changes)

    def load(self, spec: RunSpec) -> dict[str, Dataset]:
        """The training and the test split; for the choice of weights the former alone, a part of each class held out.

        The training split is sorted by class, so that its end would be one class.
        """
        data = spec.params["data"]
        train = datasets.load_dataset(spec.dataset, split="train", seed=data["seed"])
        if data["validation"]:
            kept, held_out = datasets.hold_out_stratified(train, data["validation"], data["seed"])
            return {"train": kept, "validation": held_out}
        return {"train": train, "test": datasets.load_dataset(spec.dataset, split="test", seed=data["seed"])}

    def cost(self, spec: RunSpec) -> Cost:
        """From measured seconds of an epoch, of a draw and of a likelihood."""
        evaluation = spec.params["evaluation"]
        splits = {s: x.count or 0 for s, x in load_card(spec.dataset).splits.items()}
        seconds = EPOCH_SECONDS.get(spec.method, OTHER_EPOCH_SECONDS) * epochs_in_all(spec)
        if evaluation["split"] == "validation":
            points, draws = spec.params["data"]["validation"] * splits["train"], 2.0 * evaluation["draws"]
            drawn = points * draws
        else:
            asked = evaluation.get("likelihood", {"points": 0, "importance_samples": 0, "predictive_samples": 0})
            points = min(asked["points"], splits["test"])
            drawn = 2.0 * splits["test"] * evaluation["draws"] + 2.0 * sum(splits.values()) * MEANS.get(spec.method, 0)
            drawn += 2.0 * points * asked["predictive_samples"]
            seconds += LIKELIHOOD_SECONDS.get(spec.method, 0.0) * points * asked["importance_samples"]
        seconds += DRAW_SECONDS.get(spec.method, 0.0) * drawn / 1000
        return Cost(seconds + OVERHEAD_SECONDS[spec.profile], PEAK_MEGABYTES)
