"""Figure 27: what a batch of samples costs by the number of modalities, in the forms that the sampler can run in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repro.experiment import Cost, Experiment
from repro.papers.sbm_vae.settings import sbm_spec
from repro.records import Metric, RunSpec, of_profile

if TYPE_CHECKING:
    from repro.datasets import Dataset
    from repro.model import TrainableModel

__all__ = ["FORMS", "PROFILES", "Timing", "timing_spec"]

METHOD = "timing"
# Form to the row's label. All take the released sampler's steps: a score for the corrector, one for the predictor.
FORMS = {
    "eager": "SBM-VAE, as released",
    "compiled": "SBM-VAE, score compiled (torch.compile)",
    "graph": "SBM-VAE, score as a CUDA graph",
    "decoding": "decoding of all modalities",
    "mopoe": "MoPoE, all modalities given all but the last",
}
# On a CPU "timed_steps" of the steps are timed, and all of them once for "whole" modalities; on a GPU always all.
PROFILES: Mapping[str, Mapping[str, Any]] = {
    "paper": {
        "modalities": list(range(2, 11)),
        "batch_size": 256,
        "num_steps": 100,
        "timed_steps": 1,
        "repetitions": 5,
        "compiled": [2, 6, 10],
        "whole": [10],
    },
    "quick": {
        "modalities": list(range(2, 11)),
        "batch_size": 256,
        "num_steps": 100,
        "timed_steps": 2,
        "repetitions": 5,
        "compiled": [2, 10],
        "whole": [10],
    },
    "smoke": {
        "modalities": [2, 3],
        "batch_size": 4,
        "num_steps": 3,
        "timed_steps": 2,
        "repetitions": 2,
        "compiled": [],
        "whole": [3],
    },
}
# Seconds of one core, of the quick profile's networks: an evaluation of a sample, a compilation, a decoded image.
SECONDS_EVALUATION, SECONDS_COMPILING, SECONDS_IMAGE, WIDER = 6e-4, 60.0, 5e-4, 20.0


def timing_spec(profile: str) -> RunSpec:
    """The one run of a profile: the comparison's networks and what is timed.

    Its model, of the largest number of modalities, takes one step in each stage, as a run has to train something.
    """
    timing = dict(of_profile(PROFILES, profile))
    most, batch = max(timing["modalities"]), timing["batch_size"]
    model = sbm_spec("sbm_vae", 0, profile, modalities=most).params["model"] | {"energy": None}
    params = {
        "model": model,
        "training": {"epochs": 1, "batch_size": batch, "learning_rate": 1e-3},
        "data": {"modalities": most, "samples": batch},
        "evaluation": {"sampling": {"sampler": "predictor_corrector", "num_steps": timing["num_steps"]}},
        "timing": timing,
    }
    return RunSpec("sbm_vae", "extended_polymnist", METHOD, 0, profile, params)


class Timing(Experiment):
    """The comparison's networks on a clock."""

    datasets = ("extended_polymnist",)

    def owns(self, spec: RunSpec) -> bool:
        """The timed runs, not the comparison's."""
        return spec.method == METHOD

    def spec(self, method: str, seed: int, profile: str, **changes: Any) -> RunSpec:
        """The one run of a profile, as :func:`timing_spec`; its method is ``"timing"``, its seed 0.

        Raises:
            ValueError: If another one is asked for.
        """
        if method != METHOD or seed != 0 or changes:
            raise ValueError(f"a profile has one timed run, {METHOD!r} of seed 0, without changes")
        return timing_spec(profile)

    def load(self, spec: RunSpec) -> dict[str, Dataset]:
        """The first images of the training and of the test split, a batch of each."""
        return self.code.load_batches(spec)

    def build(self, spec: RunSpec) -> TrainableModel:
        """The model of the largest number of modalities."""
        return self.code.build_largest(spec)

    def evaluate(
        self, model: TrainableModel, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu"
    ) -> Sequence[Metric]:
        return self.code.measure(model, data, spec, device)

    def cost(self, spec: RunSpec) -> Cost:
        """Seconds on one core, without a GPU."""
        t, wide = spec.params["timing"], WIDER if spec.profile == "paper" else 1.0
        each, batch, counts = 1 + t["repetitions"], t["batch_size"], t["modalities"]
        steps = t["timed_steps"] * each * (len(counts) + len(t["compiled"])) + t["num_steps"] * len(t["whole"])
        images = (2 * sum(counts) * each + 3 * max(counts)) * batch  # decoded, encoded by MoPoE, and trained on
        seconds = wide * (2 * steps * batch * SECONDS_EVALUATION + images * SECONDS_IMAGE)
        seconds += SECONDS_COMPILING * len(t["compiled"]) + 20.0
        return Cost(seconds, 2500.0 * (4.0 if spec.profile == "paper" else 1.0))
