"""What GMRF MCVAE's image experiments run, PolyMNIST and bicycles, and on which data.

Importing this module needs no torch; loading and building do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from repro.papers.gmrf_mcvae.copula.experiment import METHODS
from repro.papers.gmrf_mcvae.images.settings import (
    ARTIFACTS,
    BASELINE_BETA,
    CONSTRUCTIONS,
    COSTS,
    EXPERIMENTS,
    GMRF_BETA,
    LONGER,
    OPTIONAL,
    PILOT_EPOCHS,
    PILOT_HELD_OUT,
    PILOTS,
    REDUCED_BASELINE_BETA,
    REDUCED_GMRF_BETA,
    REDUCED_LATENTS,
    SHOWN_CLASSES,
    VARIANTS,
)
from repro.records import RunSpec, of_profile

if TYPE_CHECKING:
    from torch import Tensor

    from repro.datasets import Dataset
    from repro.datasets.base import ModalitySpec
    from repro.model import MultimodalModel

__all__ = [
    "ARTIFACTS",
    "estimate",
    "figure_samples",
    "image_spec",
    "load_data",
    "model_arguments",
    "network_arguments",
    "plan",
]


def image_spec(
    dataset: str, method: str, seed: int, profile: str, *, longer: int = 1, pilot: bool = False, **changes: Any
) -> RunSpec:
    """The specification of one image run, every hyper-parameter resolved.

    Arguments:
        dataset: A name in ``EXPERIMENTS``.
        method: One of ``METHODS``.
        seed: Seed of initialisation and training; the data's seed is always 0.
        profile: ``"paper"``, ``"overnight"``, ``"quick"`` or ``"smoke"``.
        longer: How many times the profile's epochs.
        pilot: Whether it is one of the choice of settings: few epochs, measured on held-out training images.
        changes: Model settings that differ from the table's.

    Raises:
        ValueError: If the dataset or the method is unknown, or the method has no such setting.
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
            "beta": GMRF_BETA if whole else REDUCED_GMRF_BETA,
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
    training = settings["training"] | {"epochs": longer * settings["training"]["epochs"]}
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


def plan(artifact: str, profile: str, seeds: int | None = None) -> dict[str, list[RunSpec]]:
    """The runs that an artifact is rendered from, by row.

    Arguments:
        artifact: One of ``ARTIFACTS``.
        profile: The profile.
        seeds: How many seeds, from 0 on; the profile's number if None. Figures show the first.
    """
    dataset = ARTIFACTS[artifact]
    number = of_profile(EXPERIMENTS[dataset].profiles, profile)["seeds"] if seeds is None else seeds
    number = 1 if artifact.startswith("fig") else number
    if artifact == "table2-ablations":
        rows = {"as in Table II": [image_spec(dataset, "gmrf_mcvae", s, profile) for s in range(number)]}
        for i, (name, changes) in enumerate(VARIANTS.items()):
            longer = LONGER if profile in ("quick", "smoke") and i == len(VARIANTS) - 1 else 1
            row = name if longer == 1 else f"{name}, {longer} times the epochs"
            rows[row] = [image_spec(dataset, "gmrf_mcvae", s, profile, longer=longer, **changes) for s in range(number)]
        if profile in ("paper", "overnight"):
            for row, changes in CONSTRUCTIONS.items():
                rows[row] = [image_spec(dataset, "gmrf_mcvae", s, profile, **changes) for s in range(number)]
        return rows
    if artifact == "table2-sweep":
        return {name: [image_spec(dataset, "gmrf_mcvae", 0, profile, pilot=True, **c)] for name, c in PILOTS.items()}
    return {m: [image_spec(dataset, m, s, profile) for s in range(number)] for m in METHODS}


def estimate(spec: RunSpec) -> tuple[float, float]:
    """Seconds on one core and peak megabytes of a run, from measured seconds a sample."""
    step, each = EXPERIMENTS[spec.dataset].profiles[spec.profile]["seconds"]
    train, test = (60_000, 10_000) if spec.dataset == "polymnist" else (3_642, 456)
    train = spec.params["data"]["train_samples"] or train
    test = spec.params["evaluation"]["num_samples"] or test
    passes = train * spec.params["training"]["epochs"] * COSTS[spec.method]
    wide = 4.0 if spec.profile == "paper" else 1.0
    return passes * step + test * each + 15.0, 1500.0 * wide * max(1.0, COSTS[spec.method] / 2)


def load_data(spec: RunSpec) -> dict[str, Dataset]:
    """The training and the test split, in the run's size of images, and the validation split where there is one.

    That is the dataset's own, or the training split's end where the run holds it out.
    """
    from repro.datasets import load_dataset
    from repro.datasets.card import load_card
    from repro.datasets.held_out import hold_out

    data, number = spec.params["data"], spec.params["evaluation"]["num_samples"]
    sizes = {"train": data["train_samples"], "validation": number, "test": number}
    found = {}
    for split in (s for s in sizes if s in load_card(spec.dataset).splits):
        whole = load_dataset(spec.dataset, split=split, **data["options"])
        part = whole if sizes[split] is None else whole.first(min(sizes[split], len(whole)))
        found[split] = _shrunk(part, data["size"])
    if "held_out" in data:
        found["train"], found["validation"] = hold_out(found["train"], data["held_out"])
    if spec.params["evaluation"].get("split", "test") != "test":
        del found["test"]
    return found


def _shrunk(data: Dataset, size: int) -> Dataset:
    """The split with square images of ``size`` pixels, each the mean of a square of pixels, rounded to bytes."""
    from dataclasses import replace

    import torch
    from torch.nn.functional import avg_pool2d

    from repro.datasets.base import fingerprint

    side = next(iter(data.modalities.values())).shape[-1]
    if side == size:
        return data
    if side % size:
        raise ValueError(f"{data.name}: images of {side} pixels cannot be shrunk to {size}")
    images = {m: avg_pool2d(x.float(), side // size).round().to(torch.uint8) for m, x in data.data.items()}
    modalities = {m: replace(s, shape=(*s.shape[:-2], size, size)) for m, s in data.modalities.items()}
    known = dict(data.provenance) | {"sha256": fingerprint(images, data.labels), "size": size}
    return replace(data, modalities=modalities, data=images, provenance=known)


def network_arguments(
    settings: dict[str, Any], modalities: Mapping[str, ModalitySpec], *, beta_is_relative: bool
) -> dict[str, Any]:
    """Settings of a model with its residual encoders and decoders instead of their sizes.

    Arguments:
        settings: A specification's, with ``network``, ``hidden_dtype``, ``channels_last`` and ``compile``.
        modalities: The model's.
        beta_is_relative: Whether the model takes a beta relative to a likelihood of unit scale and no scale, as the
            baselines do: then beta is multiplied by the scale (Laplace) or its square (Gaussian), which multiplies
            the whole loss by the same factor.
    """
    from functools import partial

    import torch

    from repro.model import checked_distributions
    from repro.networks.resnet import ResNetDecoder, ResNetEncoder

    settings = dict(settings)
    network = dict(settings.pop("network"))
    widest = [network.pop(f"{part}_max_channels") for part in ("encoder", "decoder")]
    background = network.pop("background", None)
    dtype = settings.pop("hidden_dtype")
    network |= {"hidden_dtype": None if dtype == "float32" else getattr(torch, dtype)}
    network |= {"channels_last": settings.pop("channels_last")}
    latents = settings["latent_dim"] + settings.get("specific_dim", 0)
    encoders, decoders = (
        {m: kind(spec.shape, latents, max_channels=most, **network) for m, spec in modalities.items()}
        for kind, most in zip((ResNetEncoder, partial(ResNetDecoder, background=background)), widest, strict=True)
    )
    if backend := settings.pop("compile"):
        with checked_distributions():
            for module in (*encoders.values(), *decoders.values()):
                module.blocks.compile(backend=backend)
    if beta_is_relative:
        scale = settings.pop("scale")
        settings["beta"] *= scale if settings["likelihood"] == "laplace" else scale**2
    return settings | {"encoders": encoders, "decoders": decoders}


def model_arguments(spec: RunSpec) -> tuple[dict[str, ModalitySpec], dict[str, Any]]:
    """Modalities and settings of a run's model, with its networks."""
    from dataclasses import replace

    from repro.datasets.base import specs
    from repro.datasets.card import load_card

    size = spec.params["data"]["size"]
    modalities = {m: replace(s, shape=(*s.shape[:-2], size, size)) for m, s in specs(load_card(spec.dataset)).items()}
    relative = spec.method != "gmrf_mcvae"
    return modalities, network_arguments(spec.params["model"], modalities, beta_is_relative=relative)


def figure_samples(model: MultimodalModel, spec: RunSpec, device: str = "cpu") -> dict[str, Tensor]:
    """One conditional sample for the first test sample of each class, as bytes, with what it is conditioned on.

    Names are ``true/<condition>``, ``generated/<modality>`` and, for components of one picture, ``true/whole``, each
    ``(classes, channels, size, size)``. Without labels, as BIKED's images are, they are the first test samples.
    """
    import torch

    from repro.datasets.base import first_of_each_class
    from repro.datasets.biked_rendered import overlay

    evaluation = spec.params["evaluation"]
    if evaluation.get("split", "test") != "test":
        return {}
    test = load_data(spec)["test"]
    if test.labels is None:
        rows = list(range(min(SHOWN_CLASSES, len(test))))
    else:
        rows = first_of_each_class(test.labels, SHOWN_CLASSES)
    true = {m: torch.stack([test[i][m] for i in rows]) for m in test.modalities}
    condition = evaluation["condition"]
    generator = torch.Generator(device).manual_seed(evaluation["seed"])
    drawn = model.generate(1, given={condition: true[condition].to(device)}, generator=generator)
    found = {f"true/{condition}": true[condition]} | {f"generated/{m}": x[0] for m, x in drawn.items()}
    if evaluation["features"] == "pixels":
        found["true/whole"] = overlay(true)
    return {name: x.float().clamp(0, 1).mul(255).round().to(torch.uint8) for name, x in found.items()}
