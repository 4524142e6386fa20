"""All models on pairs of correlated MNIST: what is run, built and measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from repro import datasets
from repro.experiment import Cost
from repro.papers.compare.all_models import AllModels
from repro.papers.compare.correlated_pairs.settings import pairs_spec
from repro.papers.compare.methods import PAIRS
from repro.records import RunSpec

if TYPE_CHECKING:
    from repro.datasets import Dataset

__all__ = ["AllOnPairs"]

# Seconds of one core's processor, measured: an epoch of 10,000 pairs with the quick profile's networks, of stages of
# their own too, a thousand samples where they are iterated, a point and importance sample of SBM-VAE's likelihoods, and
# the rest of a run.
EPOCH_SECONDS = {"covae": 3.3, "nnmrf": 3.3, "dmvae": 3.0, "mmvae": 2.4, "mvae": 2.1, "mmvae_plus": 2.1, "jmvae": 1.8}
OTHER_EPOCH_SECONDS = 1.4
STAGE_SECONDS = {"deep_cca": 0.4, "score": 2.4}
RESNET_FACTOR = 40.0  # of encoders and decoders
DRAW_SECONDS = {"nnmrf": 1.2, "sbm_vae": 1.1, "sbm_rae": 1.1, "mld": 1.1}
LIKELIHOOD_SECONDS = {"sbm_vae": 0.075}
OVERHEAD_SECONDS = {"paper": 600.0, "overnight": 60.0, "quick": 5.0, "smoke": 1.0}
PEAK_MEGABYTES = 1500


class AllOnPairs(AllModels):
    """Every model on the pairs of CoVAE's Figures 5 to 8."""

    datasets = (PAIRS,)

    def spec(self, method: str, seed: int, profile: str, **changes: Any) -> RunSpec:
        """As :func:`~repro.papers.compare.correlated_pairs.settings.pairs_spec`, with ``rho`` among the changes."""
        return pairs_spec(method, seed, profile, **changes)

    def load(self, spec: RunSpec) -> dict[str, Dataset]:
        """The training split, its end as ``"validation"`` where the run holds it out, and the test split.

        ``"truth"`` and ``"train_truth"`` are the test and the training split with the latents that they were drawn
        from; runs of the choice of weights have neither, nor the test split.
        """
        data = spec.params["data"]

        def split(name: str, **options: Any) -> Dataset:
            size = data[f"{name}_samples"]
            return datasets.load_dataset(PAIRS, name, rho=data["rho"], seed=data["seed"], num_samples=size, **options)

        found = {"train": split("train")}
        if "test_samples" in data:
            found |= {"train_truth": split("train", latents=True)}
            found |= {"test": split("test"), "truth": split("test", latents=True)}
        if count := data.get("held_out"):
            found["train"], found["validation"] = datasets.hold_out(found["train"], count)
            if "train_truth" in found:
                found["train_truth"] = datasets.hold_out(found["train_truth"], count)[0]
        return found

    def cost(self, spec: RunSpec) -> Cost:
        """From measured seconds of an epoch, of a draw and of a likelihood."""
        data, evaluation, training = (spec.params[k] for k in ("data", "evaluation", "training"))
        wider = RESNET_FACTOR if spec.params["model"]["networks"] == "resnet" else 1.0
        seconds = wider * EPOCH_SECONDS.get(spec.method, OTHER_EPOCH_SECONDS) * training["epochs"]
        for name, stage in training.get("stages", {}).items():
            seconds += (1.0 if name == "score" else wider) * STAGE_SECONDS[name] * stage["epochs"]
        seconds *= (data["train_samples"] - data.get("held_out", 0)) / 10_000
        points, each = evaluation["points"], evaluation["draws"]
        if evaluation["split"] == "test":
            asked = evaluation.get("likelihood", {"importance_samples": 0, "predictive_samples": 0})
            each += evaluation["draws"] + evaluation["intervals"] + asked["predictive_samples"]
            seconds += LIKELIHOOD_SECONDS.get(spec.method, 0.0) * points * asked["importance_samples"]
        # Given each modality: all draws of some points, two of every test point; as many joint ones; for the seconds.
        drawn = 2.0 * points * each + 5.0 * data.get("test_samples", 0) + 2.0 * evaluation.get("timed", 0)
        seconds += DRAW_SECONDS.get(spec.method, 0.0) * drawn / 1000
        part = 1.0 if evaluation["split"] == "test" else 0.3
        return Cost(seconds + part * OVERHEAD_SECONDS[spec.profile], PEAK_MEGABYTES)
