"""MHD, multimodal handwritten digits: image, spoken digit and pen trajectory, from the published 6-tuples."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from repro.datasets.base import Dataset
from repro.datasets.cache import Writer, prepared
from repro.datasets.card import Card
from repro.datasets.fetch import placed_by_hand, sha256_of

__all__ = ["load", "read_tuple", "spectrogram"]


def load(card: Card, split: str, *, trajectory: bool = False) -> Dataset:
    """Loads MHD.

    Arguments:
        card: The dataset's card.
        split: ``"train"`` or ``"test"``.
        trajectory: Whether the trajectory is a third modality.

    Raises:
        FetchError: If the files are not placed; it says where they are to be had.
        ValueError: If a file is not such a tuple.
    """
    kept = {m: spec for m, spec in card.modalities.items() if trajectory or m != "trajectory"}
    card = replace(card, modalities=kept)
    name = f"mhd_{split}.pt"

    def build(writer: Writer) -> None:
        path = placed_by_hand(card, lambda f: (f / name).is_file(), [name]) / name
        data, labels, normalisation = read_tuple(path, {m: s.shape for m, s in kept.items()})
        for m, values in data.items():
            writer.put(m, values.numpy())
        writer.put("labels", labels.numpy())
        writer.provenance = {"source": {name: sha256_of(path)}, "normalisation": normalisation}
        writer.variant = "trajectory" if trajectory else ""

    return prepared(card, split, {"trajectory": trajectory}, build)


def spectrogram(audio: Tensor, where: str) -> Tensor:
    """Audio as one channel of 32 by 128: as it is, or four blocks of 32 frames side by side.

    Raises:
        ValueError: If the shape is neither ``(N, 1, 32, 128)`` nor ``(N, 4, 32, 32)``.
    """
    if audio.shape[1:] == (1, 32, 128):
        return audio
    if audio.shape[1:] == (4, 32, 32):
        # Blocks hold frames x bins: laid end to end along the frames, then bins x frames.
        return audio.reshape(len(audio), 128, 32).transpose(1, 2).unsqueeze(1)
    raise ValueError(f"{where}: audio of shape {tuple(audio.shape[1:])}, expected (1, 32, 128) or (4, 32, 32)")


def read_tuple(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, Tensor], Tensor, list[Any]]:
    """Reads labels, image, trajectory, audio and the normalisations of the last two.

    Arguments:
        path: The file; only tensors and plain containers are unpickled.
        shapes: Modality to event shape.

    Returns:
        Modality to float32 tensor, the int64 labels, and the two normalisations as plain lists.

    Raises:
        ValueError: If it is no 6-tuple, a tensor has another shape, or the image leaves [0, 1].
    """
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} cannot be read: {reason}") from error
    if not isinstance(content, (tuple, list)) or len(content) != 6:
        raise ValueError(f"{path} does not hold a tuple of 6")
    labels, image, trajectory, audio, *normalisation = content
    labels = torch.as_tensor(labels).long().reshape(-1)
    found = {
        "image": torch.as_tensor(image),
        "audio": torch.as_tensor(audio),
        "trajectory": torch.as_tensor(trajectory),
    }
    data = {}
    for m, shape in shapes.items():
        values = found[m].float()
        if m == "audio":
            values = spectrogram(values, str(path))
        if tuple(values.shape) != (len(labels), *shape):
            raise ValueError(f"{path}: {m} has shape {tuple(values.shape)}, expected {(len(labels), *shape)}")
        data[m] = values.contiguous()
    if "image" in data and not 0.0 <= float(data["image"].min()) <= float(data["image"].max()) <= 1.0:
        raise ValueError(f"{path}: image has values outside [0, 1]")
    return data, labels, [_plain(n) for n in normalisation]


def _plain(value: Any) -> Any:
    """Tensors and containers as JSON values."""
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return value if isinstance(value, (int, float, str, bool, type(None))) else str(value)
