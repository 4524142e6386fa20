"""The eight models on correlated MNIST: what is run, built and measured (CoVAE, section 3.1, appendices B and D)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repro import datasets
from repro.experiment import Cost, Experiment
from repro.papers.covae.settings import METHODS, changed_settings, check_method, model_settings, training_params
from repro.records import Metric, RunSpec, of_profile

if TYPE_CHECKING:
    from torch import Tensor

    from repro.datasets import Dataset
    from repro.model import MultimodalModel

__all__ = [
    "PROFILES",
    "RHOS",
    "VARIANTS",
    "CorrelatedMNIST",
    "figure_methods",
    "image_rows",
    "image_spec",
    "number_of_seeds",
]

DATASET = "correlated_mnist"
SMALL = ("covae", "jmvae", "mvae", "mmvae_plus")  # of the quick profile of the figures on images

# True correlations. The paper's figures show eleven or so; these are the ones that its text names, and 0.3.
RHOS = {
    "paper": (0.05, 0.3, 0.6, 0.7, 0.9, 0.99),
    "overnight": (0.3, 0.6, 0.9),
    "quick": (0.3, 0.6, 0.9),
    "smoke": (0.6,),
}

# Figure 11 and appendix B: CoVAE with one choice changed.
VARIANTS: dict[str, dict[str, Any]] = {
    "trainable prior": {"trainable_prior": True},
    "cross-diagonal posterior": {"posterior": "cross_diagonal"},
}

# "paper": appendices B and D. The paper states neither batches nor epochs of Deep CCA on images: canonical correlations
# of a batch of 1,000 are biased far less than those of 256, and more epochs fit the training pairs alone.
# "overnight": the networks of "quick" on all pairs, of which the last are held out, until their loss has not improved
# for "patience" epochs; Deep CCA, whose correlations are measured on pairs of its own, has its fixed epochs.
PROFILES: dict[str, dict[str, Any]] = {
    "paper": {
        "networks": {"networks": "resnet"},
        "train_samples": 20_000,
        "test_samples": 5_000,
        "training": {"epochs": 30, "batch_size": 256},
        "deep_cca": {"epochs": 10, "batch_size": 1000, "learning_rate": 1e-3},
        "evaluation": {"points": 500, "importance_samples": 1000, "draws": 64},
        "seeds": 5,
    },
    "overnight": {
        "networks": {"networks": "mlp", "widths": [400, 200]},
        "train_samples": 20_000,
        "held_out": 2_000,
        "test_samples": 5_000,
        "training": {"epochs": 60, "batch_size": 256, "patience": 5},
        "deep_cca": {"epochs": 5, "batch_size": 1000, "learning_rate": 1e-3, "patience": None},
        "evaluation": {"points": 500, "importance_samples": 200, "draws": 64},
        "seeds": 5,
    },
    "quick": {
        "networks": {"networks": "mlp", "widths": [400, 200]},
        "train_samples": 10_000,
        "test_samples": 2_000,
        "training": {"epochs": 12, "batch_size": 256},
        "deep_cca": {"epochs": 5, "batch_size": 1000, "learning_rate": 1e-3},
        "evaluation": {"points": 200, "importance_samples": 200, "draws": 64},
        "seeds": 1,
    },
    "smoke": {
        "networks": {"networks": "mlp", "widths": [32]},
        "train_samples": 160,
        "test_samples": 80,
        "training": {"epochs": 1, "batch_size": 80},
        "deep_cca": {"epochs": 1, "batch_size": 80, "learning_rate": 1e-3},
        "evaluation": {"points": 20, "importance_samples": 30, "draws": 8},
        "seeds": 1,
    },
}

# Seconds of an epoch of 10,000 pairs with the quick profile's networks on one core: CoVAE's from the processor's time
# of a run on a shared core, the others' by their numbers of passes through the same networks, as is the factor for
# appendix D's networks; seconds of the rest of a run; peak memory of a process in megabytes.
EPOCH_SECONDS = {
    "mvae": 2.0,
    "mvtcae": 1.3,
    "mmvae": 1.7,
    "mopoe": 1.7,
    "jmvae": 1.5,
    "dmvae": 2.5,
    "mmvae_plus": 1.8,
    "covae": 3.2,
}
RESNET_FACTOR = 40.0
OVERHEAD_SECONDS = {"paper": 600.0, "overnight": 150.0, "quick": 60.0, "smoke": 10.0}
PEAK_MEGABYTES = 1500


def image_spec(
    method: str, seed: int, profile: str, rho: float, *, flow: bool = False, latents: int = 20, **changes: Any
) -> RunSpec:
    """The specification of one run on correlated MNIST.

    Arguments:
        method: One of :data:`METHODS`.
        seed: Seed of initialisation and training; the data's seed is always 0.
        profile: ``"paper"``, ``"overnight"``, ``"quick"`` or ``"smoke"``.
        rho: True correlation of the data's latents, in [0, 1).
        flow: Whether a flow stands between the latents and the decoders of the data (Figure 10).
        latents: Latents in all; Figure 15 has ten.
        changes: Model settings that differ.

    Raises:
        ValueError: If the method or a setting is unknown, or rho is outside [0, 1).
    """
    check_method(method)
    if not 0 <= rho < 1:
        raise ValueError(f"rho is {rho}, must be in [0, 1)")
    settings = of_profile(PROFILES, profile)
    model = model_settings(method, latents, ("m0", "m1"), settings["networks"])
    params = {
        "model": changed_settings(method, model, changes),
        "training": training_params(method, settings["training"], settings["deep_cca"]),
        "data": {"rho": float(rho), "flow": flow, "seed": 0}
        | {k: settings[k] for k in ("train_samples", "held_out", "test_samples") if k in settings},
        "evaluation": settings["evaluation"] | {"seed": 0},
    }
    return RunSpec("covae", DATASET, method, seed, profile, params)


def figure_methods(profile: str) -> tuple[str, ...]:
    """The models of the figures on images: all eight, in the quick profile four."""
    return SMALL if profile == "quick" else METHODS


def number_of_seeds(profile: str, seeds: int | None) -> int:
    """The number of seeds itself, the profile's if None."""
    return of_profile(PROFILES, profile)["seeds"] if seeds is None else seeds


def image_rows(
    methods: Sequence[str], rhos: Sequence[float], profile: str, seeds: int, **changes: Any
) -> dict[str, list[RunSpec]]:
    """Rows ``"<method>, rho <value>"`` of each method at each correlation, with settings changed as by the changes."""
    return {
        f"{m}, rho {rho:g}": [image_spec(m, s, profile, rho, **changes) for s in range(seeds)]
        for rho in rhos
        for m in methods
    }


class CorrelatedMNIST(Experiment):
    """Pairs of digits whose latents have a known correlation."""

    datasets = (DATASET,)
    no_methods = "sets multivae's own likelihoods beside this package's"

    def spec(self, method: str, seed: int, profile: str, **changes: Any) -> RunSpec:
        """As :func:`image_spec`, with ``rho`` among the changes."""
        return image_spec(method, seed, profile, **changes)

    def load(self, spec: RunSpec) -> dict[str, Dataset]:
        """The splits of a run; ``"truth"`` is the test split with the latents that it was drawn from.

        ``"validation"`` is the training split's end, where the run holds it out.
        """
        data = spec.params["data"]
        options = {"rho": data["rho"], "flow": data["flow"], "seed": data["seed"]}
        test = {"split": "test", "num_samples": data["test_samples"]}
        train = datasets.load_dataset(DATASET, split="train", num_samples=data["train_samples"], **options)
        parts = {"train": train}
        if "held_out" in data:
            parts = dict(zip(("train", "validation"), datasets.hold_out(train, data["held_out"]), strict=True))
        return parts | {
            "test": datasets.load_dataset(DATASET, **test, **options),
            "truth": datasets.load_dataset(DATASET, **test, latents=True, **options),
        }

    def build(self, spec: RunSpec) -> MultimodalModel:
        return self.code.build_run(spec)

    def evaluate(
        self, model: MultimodalModel, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu"
    ) -> Sequence[Metric]:
        """All metrics of a run; see :mod:`repro.papers.covae.correlated_mnist.evaluation`."""
        return self.code.evaluate_images(model, data, spec, device)

    def figure_samples(self, model: MultimodalModel, spec: RunSpec, device: str = "cpu") -> dict[str, Tensor]:
        """Images of a fixed rule, and terms of the likelihood."""
        return self.code.image_samples(model, self.load(spec)["test"], spec, device)

    def cost(self, spec: RunSpec) -> Cost:
        """From measured seconds an epoch."""
        factor = RESNET_FACTOR if spec.params["model"]["networks"] == "resnet" else 1.0
        samples, epochs = spec.params["data"]["train_samples"] / 10_000, spec.params["training"]["epochs"]
        seconds = factor * EPOCH_SECONDS[spec.method] * epochs * samples + OVERHEAD_SECONDS[spec.profile]
        return Cost(seconds, PEAK_MEGABYTES)
