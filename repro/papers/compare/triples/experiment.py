"""All models on MNIST triples: what is run, built and measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from repro import datasets
from repro.experiment import Cost
from repro.papers.compare.all_models import AllModels
from repro.papers.compare.methods import TRIPLES
from repro.papers.compare.triples.settings import triples_spec
from repro.records import RunSpec

if TYPE_CHECKING:
    from repro.datasets import Dataset

__all__ = ["AllOnTriples"]

# Seconds of one core's processor, measured: an epoch of 10,000 triples with the quick profile's networks, of stages of
# their own too, a thousand samples where they are iterated, a point and importance sample of SBM-VAE's likelihood, and
# the rest of a run.
EPOCH_SECONDS = {"covae": 6.0, "dmvae": 5.0, "mmvae_plus": 3.7, "mmvae": 3.5, "nnmrf": 3.5, "mvae": 3.0}
EPOCH_SECONDS |= {"sbm_vae": 1.7, "sbm_rae": 1.6, "mld": 1.6}
OTHER_EPOCH_SECONDS = 2.3
STAGE_SECONDS = {"deep_cca": 0.6, "score": 5.5}
WIDER = 16.0  # the networks of the paper profile
DRAW_SECONDS = {"nnmrf": 2.0, "sbm_vae": 1.5, "sbm_rae": 1.5, "mld": 1.5}
LIKELIHOOD_SECONDS = {"sbm_vae": 0.02}
OVERHEAD_SECONDS = {"paper": 120.0, "overnight": 60.0, "quick": 15.0, "smoke": 2.0}
PEAK_MEGABYTES = 1500


class AllOnTriples(AllModels):
    """Every model on the triples of MRF MVAE's Table 4, in both readings of what its first two modalities show."""

    datasets = (TRIPLES,)

    def spec(self, method: str, seed: int, profile: str, **changes: Any) -> RunSpec:
        """As :func:`~repro.papers.compare.triples.settings.triples_spec`, with ``alike`` among the changes."""
        return triples_spec(method, seed, profile, **changes)

    def load(self, spec: RunSpec) -> dict[str, Dataset]:
        """The training split, its end as ``"validation"`` where the run holds it out, and the test split.

        Runs of the choice of weights do not have the test split.
        """
        data = spec.params["data"]
        train = datasets.load_dataset(TRIPLES, split="train", alike=data["alike"]).first(data["train_samples"])
        found = {"train": train}
        if data["held_out"]:
            found["train"], found["validation"] = datasets.hold_out(train, data["held_out"])
        if spec.params["evaluation"]["split"] == "test":
            found["test"] = datasets.load_dataset(TRIPLES, split="test", alike=data["alike"])
        return found

    def cost(self, spec: RunSpec) -> Cost:
        """From measured seconds of an epoch, of a draw and of a likelihood."""
        data, evaluation, training = (spec.params[k] for k in ("data", "evaluation", "training"))
        wider = WIDER if spec.profile == "paper" else 1.0
        seconds = EPOCH_SECONDS.get(spec.method, OTHER_EPOCH_SECONDS) * training["epochs"]
        for name, stage in training.get("stages", {}).items():
            seconds += STAGE_SECONDS[name] * stage["epochs"]
        seconds *= wider * (data["train_samples"] - data["held_out"]) / 10_000
        test = evaluation["split"] == "test"
        # Joint samples and given each of the first two; on the test split those of seconds too.
        drawn = 3.0 * evaluation["num_samples"] + 2.0 * evaluation.get("timed", 0)
        asked = evaluation.get("likelihood", {"points": 0, "importance_samples": 0})
        weighed = asked["points"] * asked["importance_samples"]
        seconds += DRAW_SECONDS.get(spec.method, 0.0) * drawn / 1000
        seconds += LIKELIHOOD_SECONDS.get(spec.method, 0.0) * weighed
        return Cost(seconds + (1.0 if test else 0.3) * OVERHEAD_SECONDS[spec.profile], PEAK_MEGABYTES)
