"""PolyMNIST: the published archive in both its layouts, or the same recipe from MNIST and five backgrounds."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from repro.datasets.archive import extract
from repro.datasets.base import Dataset
from repro.datasets.blended import generated
from repro.datasets.cache import Writer, prepared
from repro.datasets.card import Card
from repro.datasets.fetch import FetchError, fetch, placed, sha256_of
from repro.datasets.mnist import digits
from repro.datasets.places import cache_root, listed

__all__ = ["find_layout", "load", "read_pictures", "read_tensors"]

SOURCES = ("archive", "generated")


def load(card: Card, split: str, *, source: str = "archive", seed: int = 0) -> Dataset:
    """Loads PolyMNIST.

    Arguments:
        card: The dataset's card.
        split: ``"train"`` or ``"test"``.
        source: ``"archive"`` for the published samples, ``"generated"`` for new ones by the same recipe.
        seed: The seed of the generated ones.

    Raises:
        ValueError: If ``source`` is unknown, or the archive's samples do not pair.
    """
    if source not in SOURCES:
        raise ValueError(f"{card.name}: source is {source!r}, must be one of {', '.join(SOURCES)}")
    if source == "generated":
        variant = "" if seed == card.generation["seed"] else None
        return generated(card, split, lambda: digits(split), {"source": source, "seed": seed}, variant)

    def build(writer: Writer) -> None:
        folder, origin = _archive(card, split)
        layout, base = find_layout(folder, split) or ("", folder)
        read = read_tensors if layout == "tensors" else read_pictures
        read(writer, base / split, list(card.modalities))
        writer.provenance = {"source": origin, "layout": layout}
        writer.variant = "archive"

    return prepared(card, split, {"source": source}, build)


def find_layout(folder: Path, split: str) -> tuple[str, Path] | None:
    """The layout of an extracted archive, ``"tensors"`` or ``"pictures"``, and the folder that holds its splits."""
    if not folder.is_dir():
        return None
    for base in (folder, *(p for p in listed(folder) if p.is_dir())):
        if (base / split / "m0.pt").is_file():
            return "tensors", base
        if (base / split / "m0").is_dir():
            return "pictures", base
    return None


def read_tensors(writer: Writer, folder: Path, modalities: list[str]) -> None:
    """Reads ``m0.pt``, ..., ``labels.pt``: one tensor a modality, paired by position.

    Raises:
        ValueError: If a file is missing, lengths differ, or values are outside [0, 1].
    """
    labels = _tensor(folder / "labels.pt").numpy().astype(np.int64).reshape(-1)
    for m in modalities:
        images = _tensor(folder / f"{m}.pt")
        if len(images) != len(labels):
            raise ValueError(f"{folder / f'{m}.pt'}: {len(images)} images, {len(labels)} labels")
        writer.put(m, _as_bytes(images, folder / f"{m}.pt"))
    writer.put("labels", labels)


def read_pictures(writer: Writer, folder: Path, modalities: list[str]) -> None:
    """Reads ``m0/{index}.{digit}.png``, ...: images are paired by their key, whatever the order of the folder.

    Raises:
        ValueError: If a key is malformed or in one modality only, or an image has another shape.
    """
    keys: dict[tuple[int, int], str] = {}
    for m in modalities:
        if not (folder / m).is_dir():
            raise ValueError(f"{folder / m} is missing")
        found = {_key(path): path.name for path in listed(folder / m) if path.suffix == ".png"}
        if m == modalities[0]:
            keys = dict(sorted(found.items()))
        if difference := sorted(set(found) ^ set(keys)):
            i, digit = difference[0]
            raise ValueError(f"{folder}: {i}.{digit}.png is not in both {modalities[0]} and {m}")
    if not keys:
        raise ValueError(f"{folder / modalities[0]} has no image")
    for m in modalities:
        array = writer.array(m, (len(keys), 3, 28, 28))
        for n, name in enumerate(keys.values()):
            with Image.open(folder / m / name) as image:
                pixels = np.asarray(image.convert("RGB"))
            if pixels.shape != (28, 28, 3):
                raise ValueError(f"{folder / m / name} has shape {pixels.shape}, expected (28, 28, 3)")
            array[n] = pixels.transpose(2, 0, 1)
    writer.put("labels", np.array([digit for _, digit in keys], dtype=np.int64))


def _archive(card: Card, split: str) -> tuple[Path, str]:
    """Folder with the extracted archive, and where it came from."""
    folder = placed(card.name)
    if folder is not None:
        if find_layout(folder, split):
            return folder, "placed by hand"
        archives = [p for p in listed(folder) if p.name.endswith((".zip", ".tar", ".tar.gz", ".tgz"))]
        for archive in archives:
            extracted = extract(archive, cache_root() / "extracted" / card.name / archive.stem)
            if find_layout(extracted, split):
                return extracted, archive.name
    (source,) = card.sources_of("archive")
    try:
        archive = fetch(source)
    except FetchError as error:
        raise FetchError(f"{error}. {card.manual}") from error
    extracted = extract(archive, cache_root() / "extracted" / card.name / archive.stem)
    if not find_layout(extracted, split):
        raise ValueError(f"{archive} holds neither {split}/m0.pt nor {split}/m0/*.png")
    return extracted, f"{source.filename}, sha256 {sha256_of(archive)}"


def _tensor(path: Path) -> torch.Tensor:
    if not path.is_file():
        raise ValueError(f"{path} is missing")
    value = torch.load(path, weights_only=True)
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"{path} holds {type(value).__name__}, not a tensor")
    return value


def _as_bytes(images: torch.Tensor, path: Path) -> np.ndarray:
    """Images as uint8 where that loses nothing, else as float32."""
    if images.dtype is torch.uint8:
        return images.numpy()
    images = images.float()
    if not bool(torch.isfinite(images).all()) or float(images.min()) < 0.0 or float(images.max()) > 1.0:
        raise ValueError(f"{path} has values outside [0, 1]")
    whole = (images * 255.0).round()
    return whole.byte().numpy() if torch.equal(whole / 255.0, images) else images.numpy()


def _key(path: Path) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)\.(\d)\.png", path.name)
    if not match:
        raise ValueError(f"{path}: name is not INDEX.DIGIT.png")
    return int(match[1]), int(match[2])
