"""How the VAEGAN and the digit classifiers are trained and measured, as ordinary runs.

Importing this module needs no torch; building, loading and evaluating do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repro.records import Metric, RunSpec, of_profile

if TYPE_CHECKING:
    from torch import Tensor

    from repro.datasets import Dataset
    from repro.model import TrainableModel
    from repro.training import TrainingSettings

__all__ = [
    "CLASSIFIERS",
    "build_model",
    "classifier_spec",
    "estimate",
    "evaluate",
    "figure_samples",
    "flow_spec",
    "load_data",
    "plan",
    "training_settings",
    "vaegan_spec",
]

# CoVAE, section 3: 50 epochs of AdamW at 1e-4, batch 64. The reduced profile is what a CPU trains in two hours.
VAEGAN_EPOCHS = {"paper": 50, "quick": 6, "smoke": 1}
VAEGAN_TRAINING = {"batch_size": 64, "learning_rate": 1e-4, "optimizer": "adamw"}
# Adversarial scale, margin and equilibrium of section 3; features are those of the third of the discriminator's layers.
VAEGAN_MODEL = {"latent_dim": 10, "adversarial_scale": 0.8, "margin": 0.4, "equilibrium": 0.68}
VAEGAN_MODEL |= {"gradients": "accumulated"}
# With seeds 0 and 1 training came to a halt in its first epoch: the discriminator rested in nearly every step, and all
# samples were patterns of dots (erratum E18).
VAEGAN_SEED = 2

# The flow of correlated MNIST; the paper leaves its size and its training open.
FLOW_EPOCHS = {"paper": 8, "overnight": 8, "quick": 8, "smoke": 1}
FLOW_TRAINING = {"batch_size": 250, "learning_rate": 1e-3}

# Dataset to epochs, whether one classifier serves all modalities, options of the loader, seconds of an epoch.
CLASSIFIERS: Mapping[str, Mapping[str, Any]] = {
    "mnist": {"epochs": 10, "shared": True, "options": {}, "seconds": 60},
    "polymnist": {"epochs": 20, "shared": False, "options": {"source": "generated"}, "seconds": 60},
    "extended_polymnist": {"epochs": 5, "shared": True, "options": {}, "seconds": 200},
}
CLASSIFIER_TRAINING = {"batch_size": 250, "learning_rate": 1e-3, "labels": "label"}

# Profiles' sizes: how many samples are trained on and measured on; None for all.
SIZES: Mapping[str, int | None] = {"paper": None, "overnight": None, "quick": None, "smoke": 500}
# Of the classifiers, whose paper profile takes two cores less than an hour.
CLASSIFIER_SIZES = {name: SIZES[name] for name in ("paper", "quick", "smoke")}
SECONDS_VAEGAN_EPOCH, SECONDS_FLOW_EPOCH = 380.0, 30.0
PEAK_MEGABYTES = 2500


def vaegan_spec(profile: str, seed: int = VAEGAN_SEED) -> RunSpec:
    """The specification of the VAEGAN's run."""
    params = {
        "model": VAEGAN_MODEL | {"compute_dtype": "bfloat16"},
        "training": VAEGAN_TRAINING | {"epochs": of_profile(VAEGAN_EPOCHS, profile)},
        "data": {"options": {}, "samples": SIZES[profile]},
        "evaluation": {"num_samples": 10_000 if profile != "smoke" else 200, "confidence": 0.9, "seed": 0},
    }
    return RunSpec("pretrained", "mnist", "vaegan", seed, profile, params)


def flow_spec(profile: str, seed: int = 0) -> RunSpec:
    """The specification of the flow's run, on the encoder that ships with the package."""
    params = {
        "model": {"transforms": 5, "hidden": [128, 128]},
        "training": FLOW_TRAINING | {"epochs": FLOW_EPOCHS[profile]},
        "data": {"options": {}, "samples": SIZES[profile]},
        "evaluation": {"num_samples": 10_000 if profile != "smoke" else 200, "confidence": 0.9, "seed": 0},
    }
    return RunSpec("pretrained", "mnist", "flow", seed, profile, params)


def classifier_spec(dataset: str, profile: str, seed: int = 0) -> RunSpec:
    """The specification of a dataset's digit classifiers.

    Raises:
        ValueError: If the dataset has none.
    """
    if dataset not in CLASSIFIERS:
        raise ValueError(f"no digit classifier for {dataset!r}; one of {', '.join(CLASSIFIERS)}")
    known = CLASSIFIERS[dataset]
    params = {
        "model": {"architecture": dataset, "shared": known["shared"]},
        "training": CLASSIFIER_TRAINING | {"epochs": known["epochs"] if profile == "paper" else 1},
        "data": {"options": dict(known["options"]), "samples": of_profile(CLASSIFIER_SIZES, profile)},
        "evaluation": {"weights": "float16"},
    }
    return RunSpec("pretrained", dataset, "classifier", seed, profile, params)


def plan(artifact: str, profile: str, seeds: int | None = None) -> dict[str, list[RunSpec]]:
    """The runs that an artifact is rendered from, by row.

    Arguments:
        artifact: ``"vaegan"``, ``"flow"`` or ``"classifiers"``.
        profile: The profile.
        seeds: How many seeds, from 0 on, or from ``VAEGAN_SEED``; 1 if None.

    Raises:
        KeyError: If there is no such artifact.
    """
    numbers = range(1 if seeds is None else seeds)
    if artifact == "vaegan":
        return {"vaegan": [vaegan_spec(profile, VAEGAN_SEED + s) for s in numbers]}
    if artifact == "flow":
        return {"flow": [flow_spec(profile, s) for s in numbers]}
    if artifact == "classifiers":
        return {name: [classifier_spec(name, profile, s) for s in numbers] for name in CLASSIFIERS}
    raise KeyError(artifact)


def estimate(spec: RunSpec) -> tuple[float, float]:
    """Seconds on one core and peak megabytes of a run, from measured seconds an epoch."""
    fixed = {"vaegan": SECONDS_VAEGAN_EPOCH, "flow": SECONDS_FLOW_EPOCH}
    seconds = fixed.get(spec.method, CLASSIFIERS[spec.dataset]["seconds"])
    share = 1.0 if spec.params["data"]["samples"] is None else spec.params["data"]["samples"] / 60_000
    return seconds * share * spec.params["training"]["epochs"] + 20.0, PEAK_MEGABYTES


def load_data(spec: RunSpec) -> dict[str, Dataset]:
    """The training and the test split."""
    from repro.datasets import load_dataset

    data = spec.params["data"]
    found = {s: load_dataset(spec.dataset, split=s, **data["options"]) for s in ("train", "test")}
    return found if data["samples"] is None else {s: d.first(data["samples"]) for s, d in found.items()}


def build_model(spec: RunSpec) -> TrainableModel:
    """The untrained model of a run."""
    import torch

    from repro.datasets.base import specs
    from repro.datasets.card import load_card
    from repro.papers.pretrained.classifiers import DigitClassifiers
    from repro.papers.pretrained.flow import EncodingFlow
    from repro.papers.pretrained.vaegan import VAEGAN

    modalities = specs(load_card(spec.dataset))
    settings = dict(spec.params["model"])
    if spec.method == "flow":
        return EncodingFlow(modalities, **settings)
    if spec.method == "vaegan":
        return VAEGAN(modalities, **settings | {"compute_dtype": getattr(torch, settings["compute_dtype"])})
    return DigitClassifiers(modalities, settings["architecture"], shared=settings["shared"])


def training_settings(spec: RunSpec, device: str = "cpu") -> TrainingSettings:
    """How a run is trained."""
    from repro.training import TrainingSettings

    return TrainingSettings(**spec.params["training"], device=device)


def evaluate(
    model: TrainableModel, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu"
) -> Sequence[Metric]:
    """All metrics of a run; see :mod:`repro.papers.pretrained.evaluation`."""
    from repro.papers.pretrained import evaluation

    return getattr(evaluation, f"evaluate_{spec.method}")(model, data, spec, device)


def figure_samples(model: TrainableModel, spec: RunSpec, device: str = "cpu") -> dict[str, Tensor]:
    """100 samples of the VAEGAN in uint8; nothing of classifiers."""
    import torch

    from repro.papers.pretrained.vaegan import VAEGAN

    if not isinstance(model, VAEGAN):
        return {}
    generator = torch.Generator(device).manual_seed(spec.params["evaluation"]["seed"])
    return {"samples": model.sample(100, generator=generator).mul(255).round().to(torch.uint8)}
