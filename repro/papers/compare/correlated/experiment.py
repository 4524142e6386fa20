"""CoVAE, GMRF MCVAE and SBM-VAE on correlated MNIST of three modalities: what is run, built and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repro import datasets
from repro.experiment import Cost, Experiment
from repro.papers.compare.correlated.settings import DATASET, LABELS, compare_spec
from repro.records import Metric, RunSpec

if TYPE_CHECKING:
    from repro.datasets import Dataset
    from repro.model import MultimodalModel

__all__ = ["Correlated"]

# Seconds on one core of an epoch of 10,000 triples with the quick profile's networks, and of one evaluation of the
# score network for 1,000 samples, from the processor's time of single steps; appendix D's networks take this many
# times more, and the paper profile's score network too.
EPOCH_SECONDS = {"covae": 8.2, "gmrf_mcvae": 2.5, "sbm_vae": 2.4}
SCORE_EPOCH_SECONDS, SCORE_EVALUATION_SECONDS = 7.3, 0.17
WIDER = {"paper": 40.0, "overnight": 1.0, "quick": 1.0, "smoke": 1.0}
WIDER_SCORE = {"paper": 8.0, "overnight": 1.0, "quick": 1.0, "smoke": 0.2}
PEAK_MEGABYTES = 2000


class Correlated(Experiment):
    """The three models with the same encoders and decoders, and the same number of epochs."""

    datasets = (DATASET,)

    def owns(self, spec: RunSpec) -> bool:
        """By the method, since other comparisons have the same data."""
        return spec.method in LABELS and super().owns(spec)

    def spec(self, method: str, seed: int, profile: str, **changes: Any) -> RunSpec:
        """As :func:`~repro.papers.compare.correlated.settings.compare_spec`, with ``rho`` among the changes."""
        return compare_spec(method, seed, profile, **changes)

    def load(self, spec: RunSpec) -> dict[str, Dataset]:
        """The splits of a run; ``"truth"`` and ``"train_truth"`` are both with the latents that they were drawn from.

        ``"validation"`` is the training split's end, where the run holds it out.
        """
        data = spec.params["data"]

        def split(name: str, **options: Any) -> Dataset:
            size = data[f"{name}_samples"]
            return datasets.load_dataset(DATASET, name, rho=data["rho"], seed=data["seed"], num_samples=size, **options)

        found = {
            "train": split("train"),
            "test": split("test"),
            "train_truth": split("train", latents=True),
            "truth": split("test", latents=True),
        }
        if count := data.get("validation_samples"):
            found["train"], found["validation"] = datasets.hold_out(found["train"], count)
            found["train_truth"], _ = datasets.hold_out(found["train_truth"], count)
        return found

    def build(self, spec: RunSpec) -> MultimodalModel:
        return self.code.build_run(spec)

    def evaluate(
        self, model: MultimodalModel, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu"
    ) -> Sequence[Metric]:
        return self.code.evaluate_triples(model, data, spec, device)

    def cost(self, spec: RunSpec) -> Cost:
        """From measured seconds an epoch and an evaluation of the score network."""
        training, data, evaluation = (spec.params[k] for k in ("training", "data", "evaluation"))
        samples = data["train_samples"] / 10_000
        seconds = WIDER[spec.profile] * EPOCH_SECONDS[spec.method] * training["epochs"] * samples
        if spec.method == "sbm_vae":
            wider = WIDER_SCORE[spec.profile]
            seconds += wider * SCORE_EPOCH_SECONDS * training["stages"]["score"]["epochs"] * samples
            steps = evaluation["sampling"]["num_steps"] * (2 if "corrector" in evaluation["sampling"]["sampler"] else 1)
            drawn = (data["test_samples"] + 6 * evaluation["points"] * evaluation["draws"]) / 1000
            seconds += wider * SCORE_EVALUATION_SECONDS * steps * drawn
        return Cost(seconds + 20.0 * samples + 5.0, PEAK_MEGABYTES)
