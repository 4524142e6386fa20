"""The recipe of PolyMNIST: a digit inverts the pixels of a random crop of a background, one background a modality."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from repro.datasets.base import Dataset
from repro.datasets.cache import Writer, find_prepared, prepared
from repro.datasets.card import Card, Source
from repro.datasets.exact import choice_below, permutation, words
from repro.datasets.fetch import FetchError, fetch

__all__ = ["blend", "fill", "generated", "permuted_within"]

SIDE = 28
THRESHOLD = 128
CHUNK = 2048
THREADS = 2


def blend(images: np.ndarray, background: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Digits on crops of a background: v where the digit is at most 128, 255 - v where it is brighter.

    Arguments:
        images: MNIST images, uint8 of shape ``(N, 28, 28)``.
        background: An image, uint8 of shape ``(3, H, W)``.
        corners: Row and column of the crops' upper left corners, of shape ``(N, 2)``.

    Returns:
        uint8 of shape ``(N, 3, 28, 28)``.
    """
    windows = sliding_window_view(background, (SIDE, SIDE), axis=(1, 2))
    crops = windows[:, corners[:, 0], corners[:, 1]].transpose(1, 0, 2, 3)
    inverted = np.where(images > THRESHOLD, np.uint8(255), np.uint8(0))
    return crops ^ inverted[:, None]


def permuted_within(labels: np.ndarray, seed: int, *stream: str | int) -> np.ndarray:
    """A permutation of the samples that keeps every sample's label, uniform and independent for each label."""
    order = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        order[members] = members[permutation(len(members), seed, *stream, int(label))]
    return order


def fill(
    writer: Writer, backgrounds: Mapping[str, np.ndarray], images: np.ndarray, labels: np.ndarray, seed: int,
    *stream: str,
) -> None:  # fmt: skip
    """Writes one split, in which sample n shows some image of the digit ``labels[n]`` in every modality.

    Arguments:
        writer: Takes the arrays.
        backgrounds: Modality to image, uint8 of shape ``(3, H, W)``; crops start below H - 28 and W - 28.
        images: MNIST images, uint8 of shape ``(N, 28, 28)``.
        labels: Their digits, of shape ``(N,)``.
        seed: The seed.
        stream: Names that tell this split's randomness from others.
    """
    count = len(images)

    def modality(name: str) -> None:
        background = backgrounds[name]
        shown = permuted_within(labels, seed, *stream, name, "pairs")
        bounds = np.array(background.shape[1:]) - SIDE
        corners = choice_below(bounds, words(2 * count, seed, *stream, name, "crops").reshape(count, 2))
        array = writer.array(name, (count, 3, SIDE, SIDE))
        for start in range(0, count, CHUNK):
            part = slice(start, start + CHUNK)
            array[part] = blend(images[shown[part]], background, corners[part])

    # Every modality has its own streams, so the order in which threads fill them changes nothing.
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(modality, backgrounds))
    writer.put("labels", labels.astype(np.int64))


def generated(
    card: Card,
    split: str,
    membership: Callable[[], tuple[np.ndarray, np.ndarray]],
    options: Mapping[str, Any],
    variant: str | None,
) -> Dataset:
    """Loads a split of the recipe, building it first where it has not been built.

    Where a background cannot be had and the card names a substitute that can, the substitute is taken and the
    provenance says so.

    Arguments:
        card: The dataset's card; its sources of group ``"background"``, by name, serve the modalities in order.
        split: The split's name.
        membership: Returns images and labels of the split's MNIST digits.
        options: ``seed``, and what else tells this variant from others.
        variant: ``""`` where these are the card's default options, None elsewhere.
    """
    for backgrounds in ("original", "substitute"):
        if (dataset := find_prepared(card, split, {**options, "backgrounds": backgrounds})) is not None:
            return dataset
    wanted = sorted(card.sources_of("background"), key=lambda s: s.filename)[: len(card.modalities)]
    paths, substitutes = _backgrounds(wanted, [s for s in card.sources if s.group == "substitute"])

    def build(writer: Writer) -> None:
        pictures = {m: _read_image(path) for m, path in zip(card.modalities, paths, strict=True)}
        fill(writer, pictures, *membership(), int(options["seed"]), card.name, split)
        writer.provenance = {
            "source": "generated",
            "seed": options["seed"],
            "stream": split,
            "backgrounds": {m: path.name for m, path in zip(card.modalities, paths, strict=True)},
            "substitutes": substitutes,
        }
        writer.variant = "substitute" if substitutes and variant == "" else variant

    return prepared(card, split, {**options, "backgrounds": "substitute" if substitutes else "original"}, build)


def _backgrounds(wanted: Sequence[Source], substitutes: Sequence[Source]) -> tuple[list[Path], dict[str, str]]:
    paths, used = [], {}
    for source in wanted:
        try:
            paths.append(fetch(source))
        except FetchError as error:
            other = next((s for s in substitutes if s.filename.replace(".substitute.", ".") == source.filename), None)
            if other is None:
                raise
            try:
                paths.append(fetch(other))
            except FetchError:
                raise error from None
            used[Path(source.filename).name] = Path(other.filename).name
    return paths, used


def _read_image(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        picture = np.ascontiguousarray(np.asarray(image.convert("RGB")).transpose(2, 0, 1))
    if min(picture.shape[1:]) <= SIDE:
        raise ValueError(f"background {path.name} has shape {picture.shape[1:]}, must be over {SIDE} on each side")
    return picture
