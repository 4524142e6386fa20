"""BIKED's segmented component images, placed by hand."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from repro.datasets.base import Dataset
from repro.datasets.cache import Writer, prepared
from repro.datasets.card import Card
from repro.datasets.exact import permutation
from repro.datasets.fetch import FetchError, placed_by_hand
from repro.datasets.places import listed

__all__ = ["discover", "load", "to_square"]

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff"}
WHITE = 255


def discover(folder: Path, keywords: Mapping[str, Sequence[str]]) -> dict[int, dict[str, list[Path]]]:
    """Finds the images of every bicycle's components.

    How the files are called is documented nowhere. A file belongs to the component whose keyword stands in its name
    or, if none does, in the name of a folder above it, and to the bicycle of the last number in its name or, if there
    is none, in the name of the nearest folder that has one.

    Arguments:
        folder: The folder of the segmented images.
        keywords: Component to the words that tell it.

    Returns:
        Bicycle to component to files; several files of one component, such as two wheels, belong together.

    Raises:
        ValueError: If a file's name speaks of two components.
    """
    found: dict[int, dict[str, list[Path]]] = {}
    for path in listed(folder, below=True):
        if path.suffix.lower() not in SUFFIXES or not path.is_file():
            continue
        names = [path.stem, *reversed(path.relative_to(folder).parts[:-1])]
        component = next((c for n in names if (c := _component(n, keywords, path)) is not None), None)
        number = next((m[-1] for n in names if (m := re.findall(r"\d+", n))), None)
        if component is not None and number is not None:
            found.setdefault(int(number), {}).setdefault(component, []).append(path)
    return found


def _component(name: str, keywords: Mapping[str, Sequence[str]], path: Path) -> str | None:
    spoken = [c for c, words in keywords.items() if any(word in name.lower() for word in words)]
    if len(spoken) > 1:
        raise ValueError(f"{path}: the name {name!r} speaks of {' and '.join(spoken)}")
    return spoken[0] if spoken else None


def to_square(paths: Sequence[Path], side: int) -> np.ndarray:
    """One grey image of a component: its files over each other, on a white square, shrunk to ``side`` x ``side``.

    Arguments:
        paths: Files of one size; transparent pixels are white.
        side: Pixels a side.

    Returns:
        uint8 of shape ``(side, side)``.

    Raises:
        ValueError: If the files differ in size.
    """
    whole: np.ndarray | None = None
    for path in paths:
        with Image.open(path) as image:
            rgba = image.convert("RGBA")
        ground = Image.new("RGBA", rgba.size, (WHITE, WHITE, WHITE, WHITE))
        grey = np.asarray(Image.alpha_composite(ground, rgba).convert("L"))
        if whole is not None and whole.shape != grey.shape:
            raise ValueError(f"{path}: size {grey.shape}, other files of the component {whole.shape}")
        whole = grey if whole is None else np.minimum(whole, grey)
    if whole is None:
        raise ValueError("a component without a file")
    height, width = whole.shape
    size = max(height, width)
    square = np.full((size, size), WHITE, dtype=np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    square[top : top + height, left : left + width] = whole
    return np.asarray(Image.fromarray(square).resize((side, side), Image.Resampling.BOX))


def load(card: Card, split: str, *, seed: int = 0) -> Dataset:
    """Loads BIKED's segmented images.

    Arguments:
        card: The dataset's card.
        split: ``"train"``, ``"validation"`` or ``"test"``, a tenth each of the last two, by the seed.
        seed: The seed of the split.

    Raises:
        FetchError: If no bicycle has all components; it says what was looked for and what was found.
    """

    def build(writer: Writer) -> None:
        keywords = card.generation["keywords"]
        words = ", ".join(" or ".join(w) for w in keywords.values())
        looked = [f"image files below it, named or in folders named after {words}, with the bicycle's number"]
        folder = placed_by_hand(card, lambda f: f.is_dir() and _has_images(f), looked)
        found = discover(folder, keywords)
        bikes = sorted(b for b, components in found.items() if set(components) == set(keywords))
        if len(bikes) < 10:
            tally = {c: sum(c in components for components in found.values()) for c in keywords}
            raise FetchError(
                f"{card.name}: {len(bikes)} bicycles with all of {', '.join(keywords)} in {folder}, at least 10 are "
                f"needed; looked for {looked[0]}; found {tally} among {len(found)} numbers"
            )
        chosen = [bikes[n] for n in _split_rows(len(bikes), split, seed)]
        side = next(iter(card.modalities.values())).shape[-1]
        for component in card.modalities:
            array = writer.array(component, (len(chosen), 1, side, side))
            for n, bike in enumerate(chosen):
                array[n, 0] = to_square(found[bike][component], side)
        writer.provenance = {
            "source": "placed by hand",
            "seed": seed,
            "bikes": chosen,
            "files": {c: [p.relative_to(folder).as_posix() for p in found[chosen[0]][c]] for c in keywords},
            "incomplete": len(found) - len(bikes),
        }
        writer.variant = "" if seed == card.generation["seed"] else None

    return prepared(card, split, {"seed": seed}, build)


def _has_images(folder: Path) -> bool:
    return any(path.suffix.lower() in SUFFIXES for path in listed(folder, below=True))


def _split_rows(count: int, split: str, seed: int) -> np.ndarray:
    order = permutation(count, seed, "biked", "split")
    held_out = count // 10
    parts = {"train": order[2 * held_out :], "validation": order[:held_out], "test": order[held_out : 2 * held_out]}
    return np.sort(parts[split])
