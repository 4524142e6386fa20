"""Building blocks inside the package: weights that models are built from, each held to the manifest's hash."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from safetensors.torch import load
from torch import Tensor

from repro.networks.classifiers import DigitClassifier, digit_classifier

__all__ = ["load_classifier", "load_config", "load_tensors", "manifest"]

FOLDER = "repro.weights"
# Datasets whose images are those of another one.
SAME_IMAGES = {"mnist_triples": "mnist", "correlated_mnist": "mnist"}


@cache
def manifest() -> Mapping[str, Any]:
    """The building blocks that ship, by name: sha256 and bytes of each file, the record's key, the headline metric."""
    found = tomllib.loads((files(FOLDER) / "manifest.toml").read_text(encoding="utf-8"))
    return {name: entry for name, entry in found.items() if "dtype" in entry}


def _read(name: str, file: str) -> bytes:
    if name not in manifest():
        raise ValueError(f"no weights named {name!r} ship with the package; it has {', '.join(manifest()) or 'none'}")
    content = (files(FOLDER) / name / file).read_bytes()
    expected = manifest()[name]["sha256"][file]
    if (found := hashlib.sha256(content).hexdigest()) != expected:
        raise ValueError(f"weights/{name}/{file} has sha256 {found}, the manifest says {expected}; install it again")
    return content


def load_tensors(name: str) -> dict[str, Tensor]:
    """The tensors of shipped weights, as they are stored.

    Arguments:
        name: A name of :func:`manifest`, such as ``"vaegan-decoder"``.

    Raises:
        ValueError: If there are none of that name, or a file is not the one that the manifest states.
    """
    return load(_read(name, "weights.safetensors"))


def load_config(name: str) -> dict[str, Any]:
    """How to rebuild the module that the weights are for.

    Raises:
        ValueError: As :func:`load_tensors`.
    """
    return json.loads(_read(name, "config.json"))


def load_classifier(dataset: str, modality: str | None = None) -> DigitClassifier:
    """The trained digit classifier of a dataset, in evaluation mode and float32.

    Arguments:
        dataset: ``"mnist"``, ``"mnist_triples"``, ``"correlated_mnist"``, ``"polymnist"`` or ``"extended_polymnist"``.
        modality: Which modality's, where each has its own.

    Raises:
        ValueError: As :func:`load_tensors`, or if the modality is not named or unknown.
    """
    dataset = SAME_IMAGES.get(dataset, dataset)
    config = load_config(f"classifier-{dataset}")
    tensors = load_tensors(f"classifier-{dataset}")
    network = digit_classifier(config["architecture"])
    prefix = f"networks.{'shared' if config['shared'] else modality}."
    own = {k.removeprefix(prefix): v.float() for k, v in tensors.items() if k.startswith(prefix)}
    if not own:
        raise ValueError(
            f"classifier-{dataset} has one network a modality, one of {config['modalities']}, not {modality}"
        )
    network.load_state_dict(own, strict=True)
    return network.eval().requires_grad_(False)
