"""The image experiments, PolyMNIST and bicycles: what is run, and how each run is built and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repro.datasets.scalars import flag
from repro.experiment import Cost, Experiment
from repro.papers.gmrf_mcvae.copula.experiment import METHODS
from repro.papers.gmrf_mcvae.images.settings import (
    BASELINE_BETA,
    COSTS,
    EXPERIMENTS,
    GMRF_BETA,
    OPTIONAL,
    PILOT_EPOCHS,
    PILOT_HELD_OUT,
    REDUCED_BASELINE_BETA,
    REDUCED_GMRF_BETA,
    REDUCED_LATENTS,
)
from repro.records import Metric, RunSpec, of_profile

if TYPE_CHECKING:
    from torch import Tensor

    from repro.datasets import Dataset
    from repro.model import MultimodalModel

__all__ = ["Images", "image_spec"]


def image_spec(
    dataset: str,
    method: str,
    seed: int,
    profile: str,
    *,
    longer: int = 1,
    pilot: bool = False,
    constant_rate: Mapping[str, Any] | None = None,
    **changes: Any,
) -> RunSpec:
    """The specification of one image run, every hyper-parameter resolved.

    Arguments:
        dataset: A name in ``EXPERIMENTS``.
        method: One of ``METHODS``.
        seed: Seed of initialisation and training; the data's seed is always 0.
        profile: ``"paper"``, ``"overnight"``, ``"quick"`` or ``"smoke"``.
        longer: How many times the profile's epochs.
        pilot: Whether it is one of the choice of settings: few epochs, measured on held-out training images.
        constant_rate: Batch size and learning rate in place of the profile's, for a rate that stays.
        changes: Model settings that differ from the table's.

    Raises:
        ValueError: If the dataset or the method is unknown, the method has no such setting, or ``subsampling`` is no
            bool.
    """
    if dataset not in EXPERIMENTS:
        raise ValueError(f"no image experiment on {dataset!r}; one of {', '.join(EXPERIMENTS)}")
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; one of {', '.join(METHODS)}")
    e, settings = EXPERIMENTS[dataset], of_profile(EXPERIMENTS[dataset].profiles, profile)
    own, unfactorised, part = e.latents
    whole = profile == "paper"
    beta = BASELINE_BETA if whole else REDUCED_BASELINE_BETA
    model: dict[str, Any] = {"network": settings["network"], "hidden_dtype": "bfloat16", "channels_last": True}
    model |= {"compile": "", "likelihood": e.likelihood}
    if method == "gmrf_mcvae":
        model |= {
            "beta": settings.get("gmrf_beta", GMRF_BETA if whole else REDUCED_GMRF_BETA),
            "scale": e.gmrf_scale,
            "reduction": "mean",
            "latent_dim": own,
        }
        model |= {"posterior": "cholesky", "prior": "cholesky", "kept": e.kept, "mask_seed": 0}
        model |= {"dominance": "element", "epsilon": 0.9, "delta": 1e-6}
    elif method == "mmvae_plus":
        model |= {"beta": beta, "scale": e.baseline_scale, "latent_dim": part, "specific_dim": part}
    else:
        latents = unfactorised if whole else min(unfactorised, REDUCED_LATENTS)
        model |= {"beta": beta, "scale": e.baseline_scale, "latent_dim": latents, "specific_dim": 0}
        model |= {"subsampling": method == "mvae"}
    optional = OPTIONAL if method == "gmrf_mcvae" else ()
    if unknown := sorted(set(changes) - {*model, *optional}):
        raise ValueError(f"{method} has no setting {unknown}; it has {sorted(model)}")
    flag("subsampling", changes.get("subsampling", False))
    training = settings["training"] | {"epochs": longer * settings["training"]["epochs"]}
    if constant_rate is not None:
        training = {k: v for k, v in training.items() if k != "decay"} | dict(constant_rate)
    if pilot:
        training = {k: v for k, v in training.items() if k != "patience"} | {"epochs": PILOT_EPOCHS[profile]}
        settings = settings | {"held_out": PILOT_HELD_OUT[profile]}
    if "ramp" in changes:  # as many epochs in all, of which each beta has its share
        each = max(1, training["epochs"] // (len(changes["ramp"]) + 1))
        stages = {f"beta {b:g}": {"epochs": each, "patience": None} for b in changes["ramp"]}
        training |= {"epochs": max(1, training["epochs"] - each * len(stages)), "stages": stages}
    params = {
        "model": model | changes,
        "training": training,
        "data": {"options": e.options, "size": settings["size"]}
        | {k: settings[k] for k in ("train_samples", "held_out") if k in settings},
        "evaluation": {
            "num_samples": settings["num_samples"],
            "ssim_samples": settings["ssim_samples"],
            "features": e.features,
            "inception": profile == "paper",
            "condition": e.condition,
            "seed": 0,
        }
        | ({"split": "validation"} if pilot else {}),
    }
    return RunSpec("gmrf_mcvae", dataset, method, seed, profile, params)


class Images(Experiment):
    """Table II and Figure 3 on PolyMNIST; Table III and Figure 4 on bicycles, rendered or BIKED's own."""

    datasets = tuple(EXPERIMENTS)

    def owns(self, spec: RunSpec) -> bool:
        return super().owns(spec) and "components" not in spec.params["data"]  # the scaling runs' own setting

    def spec(self, method: str, seed: int, profile: str, **changes: Any) -> RunSpec:
        """As :func:`image_spec`, with ``dataset`` among the changes; PolyMNIST's if it is not named."""
        return image_spec(changes.pop("dataset", "polymnist"), method, seed, profile, **changes)

    def load(self, spec: RunSpec) -> dict[str, Dataset]:
        return self.code.load(spec)

    def build(self, spec: RunSpec) -> MultimodalModel:
        return self.code.build(spec)

    def evaluate(
        self, model: MultimodalModel, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu"
    ) -> Sequence[Metric]:
        return self.code.evaluate_images(model, data, spec, device)

    def figure_samples(self, model: MultimodalModel, spec: RunSpec, device: str = "cpu") -> dict[str, Tensor]:
        return self.code.figure_samples(model, spec, device)

    def cost(self, spec: RunSpec) -> Cost:
        """From measured seconds a sample."""
        step, each = EXPERIMENTS[spec.dataset].profiles[spec.profile]["seconds"]
        train, test = (60_000, 10_000) if spec.dataset == "polymnist" else (3_642, 456)
        train = spec.params["data"]["train_samples"] or train
        test = spec.params["evaluation"]["num_samples"] or test
        passes = train * spec.params["training"]["epochs"] * COSTS[spec.method]
        wide = 4.0 if spec.profile == "paper" else 1.0
        return Cost(passes * step + test * each + 15.0, 1500.0 * wide * max(1.0, COSTS[spec.method] / 2))
