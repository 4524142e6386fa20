"""Prepared splits: memory-mapped arrays and a manifest, built once and whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from repro.datasets.base import Dataset, fingerprint, from_card
from repro.datasets.card import Card
from repro.datasets.states import LABELS, hash_arrays, prepared_folder

__all__ = ["Writer", "find_prepared", "prepared", "verify"]


class Writer:
    """Takes the arrays of one split while it is built.

    The caller fills ``provenance`` and, where the card states count and hash of what is built, ``variant`` as
    :func:`~repro.datasets.base.from_card` takes it.

    Arguments:
        folder: Where the arrays are written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.arrays: dict[str, dict[str, Any]] = {}
        self.provenance: dict[str, Any] = {}
        self.variant: str | None = None

    def array(self, name: str, shape: tuple[int, ...], dtype: str = "uint8") -> np.memmap:
        """A new array on disk, zero at first, to be filled by the caller and then let go.

        Arguments:
            name: A modality's name, or ``"labels"``.
            shape: Its shape, samples first.
            dtype: ``"uint8"``, ``"float32"`` or ``"int64"``.

        Raises:
            ValueError: If there is one of that name already, or the shape holds no value.
        """
        if name in self.arrays:
            raise ValueError(f"array {name!r} is there already")
        if min(shape) < 1:
            raise ValueError(f"array {name!r} would have shape {shape}")
        array = np.memmap(
            self.folder / f"{name}.bin", dtype=np.dtype(dtype).newbyteorder("<"), mode="w+", shape=tuple(shape)
        )
        self.arrays[name] = {
            "file": f"{name}.bin",
            "dtype": array.dtype.str,
            "shape": [int(n) for n in shape],
            "bytes": array.nbytes,
        }
        return array

    def put(self, name: str, values: np.ndarray) -> None:
        """A new array on disk with the given values."""
        self.array(name, values.shape, values.dtype.name)[:] = values


def find_prepared(card: Card, split: str, options: Mapping[str, Any]) -> Dataset | None:
    """The prepared split, None if it is not there whole."""
    folder = prepared_folder(card, split, options)
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        if any((folder / a["file"]).stat().st_size != a["bytes"] for a in manifest["arrays"].values()):
            return None
        arrays = {name: _open(folder, a) for name, a in manifest["arrays"].items()}
    except (OSError, KeyError, TypeError, json.JSONDecodeError):
        return None
    labels = arrays.pop(LABELS, None)
    return from_card(card, split, arrays, labels, manifest["provenance"])


def prepared(card: Card, split: str, options: Mapping[str, Any], build: Callable[[Writer], None]) -> Dataset:
    """Loads a split, building it first if it has not been built whole.

    The build goes to a temporary folder; the manifest is written last and the folder then moved into place, so that an
    interrupted build leaves nothing that a later load would take for whole. Arrays are mapped copy-on-write: writing
    to a tensor never reaches the file.

    Arguments:
        card: The dataset's card.
        split: The split's name.
        options: What tells this variant from others; JSON values.
        build: Fills the arrays of the modalities and, where there are any, of the labels.
    """
    if (dataset := find_prepared(card, split, options)) is not None:
        return dataset
    folder = prepared_folder(card, split, options)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if (dataset := find_prepared(card, split, options)) is not None:
            return dataset  # another process built it meanwhile
        temporary = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".partial", dir=folder.parent))
        try:
            _build(card, split, options, build, temporary)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    dataset = find_prepared(card, split, options)
    assert dataset is not None
    return dataset


def verify(card: Card, split: str, options: Mapping[str, Any]) -> list[str]:
    """What is wrong with a prepared split: absent, changed since it was built, or not what the card states.

    Arguments:
        card: The dataset's card.
        split: The split's name.
        options: The options it was built with.
    """
    dataset = find_prepared(card, split, options)
    if dataset is None:
        return [f"{card.name} {split}: not prepared"]
    problems = []
    if (found := fingerprint(dataset.data, dataset.labels)) != dataset.provenance["sha256"]:
        problems.append(f"{card.name} {split}: sha256 {found}, built as {dataset.provenance['sha256']}")
    if dataset.provenance.get("matches_card") is False:
        problems.append(f"{card.name} {split}: sha256 {dataset.provenance['sha256']} is not the card's")
    return problems


def _build(card: Card, split: str, options: Mapping[str, Any], build: Callable[[Writer], None], folder: Path) -> None:
    writer = Writer(folder)
    build(writer)
    names = [*card.modalities, *([LABELS] if LABELS in writer.arrays else [])]
    if set(writer.arrays) != set(names):
        raise ValueError(f"{card.name} {split}: built {sorted(writer.arrays)}, the card has {names}")
    tensors = {name: _open(folder, writer.arrays[name]) for name in names}
    labels = tensors.pop(LABELS, None)
    provenance = {"options": dict(options), **writer.provenance, "sha256": hash_arrays(folder, names)}
    checked = from_card(card, split, tensors, labels, provenance, writer.variant)
    manifest = {
        "dataset": card.name,
        "split": split,
        "arrays": {name: writer.arrays[name] for name in names},
        "provenance": {**checked.provenance, "count": len(checked)},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    os.chmod(folder, 0o755)


def _open(folder: Path, array: Mapping[str, Any]) -> torch.Tensor:
    values = np.memmap(folder / array["file"], dtype=array["dtype"], mode="c", shape=tuple(array["shape"]))
    return torch.from_numpy(values)
