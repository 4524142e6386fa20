"""SBM-VAE on Extended PolyMNIST: what is run, built and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repro.experiment import Cost, Experiment
from repro.papers.sbm_vae.settings import BASELINES, METHODS, sbm_spec
from repro.records import Metric, RunSpec

if TYPE_CHECKING:
    from torch import Tensor

    from repro.datasets import Dataset
    from repro.model import MultimodalModel

__all__ = ["SECONDS_EVALUATION", "ExtendedPolyMNIST"]

# Seconds of one core for 1,000 images of one modality (autoencoders, baselines) or 1,000 samples (score, energy), and
# for 1,000 evaluations, measured in the reduced widths; the paper's networks take this many times more.
SECONDS = {"autoencoders": 1.3, "contrastive": 1.3, "score": 1.9, "energy": 0.3, "train": 1.5, "finetune": 12.0}
SECONDS_EVALUATION, WIDER = 0.8, 20.0
PEAK_MEGABYTES = 2500


class ExtendedPolyMNIST(Experiment):
    """Score-based models and baselines on up to ten modalities of Extended PolyMNIST."""

    datasets = ("extended_polymnist",)

    def owns(self, spec: RunSpec) -> bool:
        """The comparison's runs; what times them is another experiment's."""
        return super().owns(spec) and spec.method in (*METHODS, *BASELINES)

    def spec(self, method: str, seed: int, profile: str, **changes: Any) -> RunSpec:
        """As :func:`~repro.papers.sbm_vae.settings.sbm_spec`."""
        return sbm_spec(method, seed, profile, **changes)

    def load(self, spec: RunSpec) -> dict[str, Dataset]:
        """The training, the validation and the test split of a run."""
        return self.code.load(spec)

    def build(self, spec: RunSpec) -> MultimodalModel:
        return self.code.build(spec)

    def evaluate(
        self, model: MultimodalModel, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu"
    ) -> Sequence[Metric]:
        return self.code.evaluate_polymnist(model, data, spec, device)

    def figure_samples(self, model: MultimodalModel, spec: RunSpec, device: str = "cpu") -> dict[str, Tensor]:
        """What the qualitative figures show; see :func:`~repro.papers.sbm_vae.polymnist.evaluation.draw_samples`."""
        return self.code.draw_samples(model, self.load(spec)["test"], spec, device)

    def cost(self, spec: RunSpec) -> Cost:
        """From seconds measured in the quick profile."""
        training, data = spec.params["training"], spec.params["data"]
        evaluation, modalities = spec.params["evaluation"], data["modalities"]
        train = (data["train_samples"] or 50_000) / 1000
        test = (evaluation["num_samples"] or 10_000) / 1000
        stages = training.get("stages") or {"train": {"epochs": training["epochs"]}}
        seconds = 0.0
        for name, own in stages.items():
            images = modalities if name in ("autoencoders", "contrastive", "train") else 1
            seconds += SECONDS[name] * images * train * own["epochs"]
        if spec.method in METHODS:
            ways = 2 if spec.params["model"]["energy"] else 1
            steps = evaluation["sampling"]["num_steps"] * (2 if "corrector" in evaluation["sampling"]["sampler"] else 1)
            tasks = 1 + ways * (2 * modalities + 2 * (modalities - 2))
            seconds += SECONDS_EVALUATION * test * steps * tasks
            each = sum(n * (2 if name in ("predictor_corrector", "heun") else 1) for name, n in evaluation["nfe"])
            seconds += SECONDS_EVALUATION * 2 * each * evaluation["curve_samples"] / 1000
            curves = ways * (modalities - 1)  # figure 11, at two evaluations a step
            seconds += SECONDS_EVALUATION * 2 * sum(evaluation["steps"]) * curves * evaluation["steps_samples"] / 1000
        wide = WIDER if spec.profile == "paper" else 1.0
        return Cost(wide * seconds + 40.0, PEAK_MEGABYTES * (4.0 if spec.profile == "paper" else 1.0))
