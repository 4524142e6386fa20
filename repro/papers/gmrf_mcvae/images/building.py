"""Data and models of the image experiments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch.nn.functional import avg_pool2d

from repro.datasets import Dataset, load_dataset
from repro.datasets.base import ModalitySpec, fingerprint, specs
from repro.datasets.card import load_card
from repro.datasets.held_out import hold_out
from repro.model import MultimodalModel, checked_distributions
from repro.networks.resnet import ResNetDecoder, ResNetEncoder
from repro.papers.gmrf_mcvae.building import build_method
from repro.records import RunSpec

__all__ = ["build", "load", "model_arguments", "network_arguments"]


def load(spec: RunSpec) -> dict[str, Dataset]:
    """The training and the test split, in the run's size of images, and the validation split where there is one.

    That is the dataset's own, or the training split's end where the run holds it out.
    """
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
    size = spec.params["data"]["size"]
    modalities = {m: replace(s, shape=(*s.shape[:-2], size, size)) for m, s in specs(load_card(spec.dataset)).items()}
    relative = spec.method != "gmrf_mcvae"
    return modalities, network_arguments(spec.params["model"], modalities, beta_is_relative=relative)


def build(spec: RunSpec) -> MultimodalModel:
    """The untrained model of a run."""
    modalities, settings = model_arguments(spec)
    return build_method(spec.method, modalities, **settings)
