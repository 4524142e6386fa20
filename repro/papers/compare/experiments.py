"""What the comparison runs and how each run is built and measured.

Importing this module needs no torch; building, loading and evaluating do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repro.papers.compare.correlated.settings import DATASET, LABELS, PROFILES, RHOS, compare_spec
from repro.records import Metric, RunSpec

if TYPE_CHECKING:
    from torch import Tensor

    from repro.datasets import Dataset
    from repro.model import MultimodalModel
    from repro.training import TrainingSettings

__all__ = [
    "build_model",
    "estimate",
    "evaluate",
    "figure_samples",
    "load_data",
    "plan",
    "training_settings",
]

# Seconds on one core of an epoch of 10,000 triples with the quick profile's networks, and of one evaluation of the
# score network for 1,000 samples, from the processor's time of single steps; appendix D's networks take this many
# times more, and the paper profile's score network too.
EPOCH_SECONDS = {"covae": 8.2, "gmrf_mcvae": 2.5, "sbm_vae": 2.4}
SCORE_EPOCH_SECONDS, SCORE_EVALUATION_SECONDS = 7.3, 0.17
WIDER = {"paper": 40.0, "overnight": 1.0, "quick": 1.0, "smoke": 1.0}
WIDER_SCORE = {"paper": 8.0, "overnight": 1.0, "quick": 1.0, "smoke": 0.2}
PEAK_MEGABYTES = 2000


def plan(artifact: str, profile: str, seeds: int | None = None) -> dict[str, list[RunSpec]]:
    """The runs that an artifact is rendered from, by row.

    Arguments:
        artifact: ``"correlated"``.
        profile: The profile.
        seeds: How many seeds, from 0 on; the profile's number if None.

    Raises:
        KeyError: If there is no such artifact.
    """
    if artifact != "correlated":
        raise KeyError(artifact)
    number = PROFILES[profile]["seeds"] if seeds is None else seeds
    return {
        f"{label}, rho {rho:g}": [compare_spec(method, seed, profile, rho) for seed in range(number)]
        for rho in RHOS[profile]
        for method, label in LABELS.items()
    }


def estimate(spec: RunSpec) -> tuple[float, float]:
    """Seconds on one core and peak megabytes of a run, from measured seconds an epoch."""
    training, data, evaluation = (spec.params[k] for k in ("training", "data", "evaluation"))
    samples = data["train_samples"] / 10_000
    seconds = WIDER[spec.profile] * EPOCH_SECONDS[spec.method] * training["epochs"] * samples
    if spec.method == "sbm_vae":
        wider = WIDER_SCORE[spec.profile]
        seconds += wider * SCORE_EPOCH_SECONDS * training["stages"]["score"]["epochs"] * samples
        steps = evaluation["sampling"]["num_steps"] * (2 if "corrector" in evaluation["sampling"]["sampler"] else 1)
        drawn = (data["test_samples"] + 6 * evaluation["points"] * evaluation["draws"]) / 1000
        seconds += wider * SCORE_EVALUATION_SECONDS * steps * drawn
    return seconds + 20.0 * samples + 5.0, PEAK_MEGABYTES


def load_data(spec: RunSpec) -> dict[str, Dataset]:
    """The splits of a run; ``"truth"`` and ``"train_truth"`` are both with the latents that they were drawn from.

    ``"validation"`` is the training split's end, where the run holds it out.
    """
    from repro.datasets import load_dataset
    from repro.datasets.held_out import hold_out

    data = spec.params["data"]

    def split(name: str, **options: Any) -> Dataset:
        size = data[f"{name}_samples"]
        return load_dataset(DATASET, name, rho=data["rho"], seed=data["seed"], num_samples=size, **options)

    found = {
        "train": split("train"),
        "test": split("test"),
        "train_truth": split("train", latents=True),
        "truth": split("test", latents=True),
    }
    if count := data.get("validation_samples"):
        found["train"], found["validation"] = hold_out(found["train"], count)
        found["train_truth"], _ = hold_out(found["train_truth"], count)
    return found


def build_model(spec: RunSpec) -> MultimodalModel:
    """The untrained model of a run."""
    from repro.datasets.base import specs
    from repro.datasets.card import load_card
    from repro.papers.compare.building import build

    modalities = {m: s for m, s in specs(load_card(spec.dataset)).items() if s.kind == "image"}
    return build(spec.method, modalities, spec.params["model"], spec.params["evaluation"].get("sampling"))


def training_settings(spec: RunSpec, device: str = "cpu") -> TrainingSettings:
    """How a run is trained."""
    from repro.training import TrainingSettings

    return TrainingSettings(**spec.params["training"], device=device)


def figure_samples(model: MultimodalModel, spec: RunSpec, device: str = "cpu") -> dict[str, Tensor]:
    """Nothing: the comparison has no figure samples."""
    return {}


def evaluate(
    model: MultimodalModel, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu"
) -> Sequence[Metric]:
    """All metrics of a run; see :mod:`repro.papers.compare.correlated.evaluation`."""
    from repro.papers.compare.correlated.evaluation import evaluate_triples

    return evaluate_triples(model, data, spec, device)
