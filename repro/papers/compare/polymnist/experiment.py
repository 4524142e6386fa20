"""All models on PolyMNIST of three modalities: what is run, built and measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from repro.experiment import Cost
from repro.papers.compare.all_models import AllModels
from repro.papers.compare.methods import POLYMNIST
from repro.papers.compare.polymnist.settings import polymnist_spec
from repro.papers.sbm_vae.polymnist.experiment import ExtendedPolyMNIST
from repro.records import RunSpec

if TYPE_CHECKING:
    from repro.datasets import Dataset

__all__ = ["AllOnPolyMNIST"]

# Seconds of one core's processor beside other work, measured: an epoch of 10,000 samples with the quick profile's
# networks, of stages of their own too, measuring a thousand samples, a thousand draws more where they are iterated, a
# thousand distances of a thousand points in all tasks, a point and importance sample, and the rest of a run.
EPOCH_SECONDS = {"dmvae": 61.0, "covae": 54.0, "mvae": 40.0, "mmvae": 40.0, "mmvae_plus": 40.0, "jmvae": 39.0}
EPOCH_SECONDS |= {"sbm_vae": 21.0, "sbm_rae": 21.0, "mld": 21.0}
OTHER_EPOCH_SECONDS = 24.0
STAGE_SECONDS = {"deep_cca": 5.0, "score": 16.0}
MEASURE_SECONDS, NEAREST_SECONDS = 7.6, 0.5
DRAW_SECONDS = {"nnmrf": 2.1, "sbm_vae": 5.0, "sbm_rae": 5.0, "mld": 5.0}
LIKELIHOOD_SECONDS = {"nnmrf": 0.0012, "sbm_vae": 0.06}
OTHER_LIKELIHOOD_SECONDS = 0.0006
WIDER = {"paper": 16.0, "overnight": 1.2, "quick": 1.0, "smoke": 0.2}
OVERHEAD_SECONDS = {"paper": 300.0, "overnight": 40.0, "quick": 5.0, "smoke": 3.0}
PEAK_MEGABYTES = {"paper": 8000, "overnight": 5000, "quick": 1500, "smoke": 1000}


class AllOnPolyMNIST(AllModels):
    """Every model on the first three modalities of Extended PolyMNIST."""

    datasets = (POLYMNIST,)

    def spec(self, method: str, seed: int, profile: str, **changes: Any) -> RunSpec:
        """As :func:`~repro.papers.compare.polymnist.settings.polymnist_spec`."""
        return polymnist_spec(method, seed, profile, **changes)

    def load(self, spec: RunSpec) -> dict[str, Dataset]:
        """The training and the validation split, and the test split as :meth:`ExtendedPolyMNIST.load` gives them.

        Runs of the choice of weights do not have the test split.
        """
        found = ExtendedPolyMNIST().load(spec)
        if spec.params["evaluation"]["split"] == "validation":
            del found["test"]
        return found

    def cost(self, spec: RunSpec) -> Cost:
        """From measured seconds of an epoch, of a draw and of a likelihood."""
        data, evaluation, training = (spec.params[k] for k in ("data", "evaluation", "training"))
        seconds = EPOCH_SECONDS.get(spec.method, OTHER_EPOCH_SECONDS) * training["epochs"]
        for name, stage in training.get("stages", {}).items():
            seconds += STAGE_SECONDS[name] * stage["epochs"]
        seconds *= data["train_samples"] / 10_000
        test, samples = evaluation["split"] == "test", evaluation["num_samples"] / 1000
        # Joint samples, given each modality and all but each; on the test split those of seconds too.
        drawn = 7.0 * samples + 2.0 * evaluation.get("timed", 0) / 1000
        asked = evaluation.get("likelihood", {"points": 0, "importance_samples": 0})
        each = LIKELIHOOD_SECONDS.get(spec.method, OTHER_LIKELIHOOD_SECONDS)
        seconds += MEASURE_SECONDS * samples + each * asked["points"] * asked["importance_samples"]
        seconds *= WIDER[spec.profile]
        seconds += DRAW_SECONDS.get(spec.method, 0.0) * drawn
        seconds += NEAREST_SECONDS * samples * data["train_samples"] / 1000 if test else 0.0
        return Cost(seconds + (1.0 if test else 0.5) * OVERHEAD_SECONDS[spec.profile], PEAK_MEGABYTES[spec.profile])
