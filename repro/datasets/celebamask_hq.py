"""CelebAMask-HQ: faces, the union of their segmentation masks, and 18 attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from repro.datasets.archive import extract
from repro.datasets.base import Dataset
from repro.datasets.cache import Writer, prepared
from repro.datasets.card import Card
from repro.datasets.fetch import placed, placed_by_hand
from repro.datasets.places import cache_root, listed

__all__ = ["load", "merged_mask", "read_attributes", "read_mapping", "shrink"]

ATTRIBUTES = "CelebAMask-HQ-attribute-anno.txt"
MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"
PER_FOLDER = 2000
FOLDER_OF = {"train": "train", "validation": "val", "test": "test"}


def load(card: Card, split: str) -> Dataset:
    """Loads CelebAMask-HQ from the published folders or from the preprocessed ones.

    Arguments:
        card: The dataset's card.
        split: ``"train"``, ``"validation"`` or ``"test"``, by the image's number in CelebA.

    Raises:
        FetchError: If the files are not placed; it says where they are to be had.
        ValueError: If an attribute, an image or a mask is missing or has another shape.
    """

    def build(writer: Writer) -> None:
        folder = _folder(card)
        names = list(card.generation["attributes"])
        attributes = read_attributes(folder / ATTRIBUTES, names)
        published = _is_published(folder)
        keys = _published_keys(folder, card, split) if published else _preprocessed_keys(folder, split)
        if not keys:
            raise ValueError(f"{card.name} {split}: no image in {folder}")
        if missing := [k for k in keys if k not in attributes]:
            raise ValueError(f"{ATTRIBUTES}: no line for image {missing[0]} ({len(missing)} in all)")
        side = card.modalities["image"].shape[-1]
        images = writer.array("image", (len(keys), 3, side, side))
        masks = writer.array("mask", (len(keys), 1, side, side))
        for n, k in enumerate(keys):
            face, mask = _published(folder, k, card) if published else _preprocessed(folder, k, split)
            images[n] = shrink(face, side).transpose(2, 0, 1)
            masks[n, 0] = np.where(shrink(mask, side) > 127, np.uint8(255), np.uint8(0))
        writer.put("attributes", np.array([attributes[k] for k in keys], dtype=np.float32))
        writer.provenance = {"source": "placed by hand", "layout": "published" if published else "preprocessed"}
        writer.variant = ""

    return prepared(card, split, {}, build)


def shrink(image: Image.Image, side: int) -> np.ndarray:
    """An image at ``side`` x ``side``, each pixel the mean of the square that it covers.

    Raises:
        ValueError: If the image is not a square whose side is a multiple of ``side``.
    """
    width, height = image.size
    if width != height or width % side:
        raise ValueError(f"an image of {width} x {height} does not shrink to {side} x {side}")
    return np.asarray(image.reduce(width // side) if width > side else image)


def read_attributes(path: Path, wanted: Sequence[str]) -> dict[int, list[float]]:
    """Reads the wanted attributes of every image, 1 where it has the attribute and 0 elsewhere.

    The file's first line is a count or the names; the names are the first line of more than one word. Words are split
    at any white space, since the file has runs of blanks.

    Raises:
        ValueError: If a wanted attribute is missing, or a line has another length or a value other than 1 and
            -1, or an image occurs twice.
    """
    lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    start = next((n for n, words in enumerate(lines) if len(words) > 1), 0)
    names = lines[start] if lines else []
    if missing := [name for name in wanted if name not in names]:
        raise ValueError(f"{path.name}: no attribute {missing[0]!r}")
    columns = [names.index(name) for name in wanted]
    attributes = {}
    for words in lines[start + 1 :]:
        stem = words[0].partition(".")[0]
        if len(words) != len(names) + 1 or not stem.isdigit() or not {*words[1:]} <= {"1", "-1"}:
            raise ValueError(f"{path.name}: line of {words[0]!r} is not an image's name and {len(names)} of 1 and -1")
        if int(stem) in attributes:
            raise ValueError(f"{path.name}: image {int(stem)} occurs twice")
        attributes[int(stem)] = [float(words[1 + c] == "1") for c in columns]
    return attributes


def read_mapping(path: Path) -> dict[int, int]:
    """Reads the number in CelebA of every image of CelebA-HQ: the second column of a table, below a line of names.

    Raises:
        ValueError: If a line does not open with two numbers, or an image occurs twice.
    """
    rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines()[1:] if line.strip()]
    for row in rows:
        if len(row) < 2 or not (row[0].isdigit() and row[1].isdigit()):
            raise ValueError(f"{path.name}: line {' '.join(row)!r} does not open with two numbers")
    numbers = [int(row[0]) for row in rows]
    if len(set(numbers)) != len(numbers):
        raise ValueError(f"{path.name}: image {next(n for n in numbers if numbers.count(n) > 1)} occurs twice")
    return {int(row[0]): int(row[1]) for row in rows}


def merged_mask(folder: Path, k: int, labels: Sequence[str]) -> Image.Image:
    """Union of the masks of image ``k``, 255 where one of the labels is.

    Raises:
        ValueError: If there is none of them, or two differ in size.
    """
    union: np.ndarray | None = None
    for label in labels:
        path = folder / str(k // PER_FOLDER) / f"{k:05d}_{label}.png"
        if not path.is_file():
            continue  # a face without this part has no file for it
        with Image.open(path) as image:
            part = np.asarray(image.convert("L")) > 0
        if union is not None and union.shape != part.shape:
            raise ValueError(f"{path}: {part.shape}, other masks of the image {union.shape}")
        union = part if union is None else union | part
    if union is None:
        raise ValueError(f"{folder / str(k // PER_FOLDER)}: no mask of image {k}")
    return Image.fromarray(np.where(union, np.uint8(255), np.uint8(0)))


def _published(folder: Path, k: int, card: Card) -> tuple[Image.Image, Image.Image]:
    with Image.open(folder / "CelebA-HQ-img" / f"{k}.jpg") as image:
        face = image.convert("RGB")
    return face, merged_mask(folder / "CelebAMask-HQ-mask-anno", k, card.generation["mask_labels"])


def _preprocessed(folder: Path, k: int, split: str) -> tuple[Image.Image, Image.Image]:
    name = FOLDER_OF[split]
    path = folder / f"{name}_mask" / f"{k}.png"
    if not path.is_file():
        raise ValueError(f"{path} is missing")
    with Image.open(folder / f"{name}_img" / f"{k}.jpg") as image, Image.open(path) as mask:
        return image.convert("RGB"), mask.convert("L")


def _published_keys(folder: Path, card: Card, split: str) -> list[int]:
    present = _numbers(folder / "CelebA-HQ-img")
    numbers: Mapping[int, int] = read_mapping(folder / MAPPING)
    if missing := sorted(set(present) - set(numbers)):
        raise ValueError(f"{MAPPING}: no line for image {missing[0]} ({len(missing)} in all)")
    train_end, validation_end = card.generation["split_ends"]
    limits = {
        "train": (0, train_end),
        "validation": (train_end, validation_end),
        "test": (validation_end, float("inf")),
    }
    low, high = limits[split]
    return [k for k in present if low <= numbers[k] < high]


def _preprocessed_keys(folder: Path, split: str) -> list[int]:
    return _numbers(folder / f"{FOLDER_OF[split]}_img")


def _numbers(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in folder.glob("*.jpg") if path.stem.isdigit())


def _is_published(folder: Path) -> bool:
    return (folder / "CelebA-HQ-img").is_dir()


def _complete(folder: Path) -> bool:
    if not (folder / ATTRIBUTES).is_file():
        return False
    if _is_published(folder):
        return (folder / "CelebAMask-HQ-mask-anno").is_dir() and (folder / MAPPING).is_file()
    return all((folder / f"{s}_{kind}").is_dir() for s in FOLDER_OF.values() for kind in ("img", "mask"))


def _within(folder: Path) -> Path | None:
    """The folder itself or one right below it that is complete."""
    candidates = [folder, *(p for p in listed(folder) if p.is_dir())]
    return next((c for c in candidates if _complete(c)), None)


def _folder(card: Card) -> Path:
    folder = placed(card.name)
    if folder is not None and _within(folder) is None:
        for archive in (p for p in listed(folder) if p.name.endswith((".zip", ".tar", ".tar.gz", ".tgz"))):
            extracted = extract(archive, cache_root() / "extracted" / card.name / archive.stem)
            if found := _within(extracted):
                return found
    needs = [
        f"CelebA-HQ-img/*.jpg, CelebAMask-HQ-mask-anno/*/*.png, {ATTRIBUTES} and {MAPPING}",
        f"or train_img, train_mask, val_img, val_mask, test_img, test_mask and {ATTRIBUTES}",
        "or an archive of either",
    ]
    found = _within(placed_by_hand(card, lambda f: _within(f) is not None, needs))
    assert found is not None
    return found
