"""Bicycles rendered from BIKED's parameters: five components drawn at 64 x 64. These are not BIKED's images."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from torch import Tensor

from repro.datasets.base import Dataset
from repro.datasets.bike_drawing import COMPONENTS, draw
from repro.datasets.bike_table import STYLE, plausible, read_table, table_bytes
from repro.datasets.cache import Writer, prepared
from repro.datasets.card import Card
from repro.datasets.exact import permutation

__all__ = ["load", "overlay", "split_rows"]

CHUNK = 32
THREADS = 2


def overlay(components: Mapping[str, Tensor]) -> Tensor:
    """The whole bicycle: the darkest of its components at every pixel.

    Arguments:
        components: Component to images of one shape, white ground.

    Raises:
        ValueError: If there is no component, or shapes differ.
    """
    pictures = list(components.values())
    if not pictures or any(p.shape != pictures[0].shape for p in pictures):
        raise ValueError(f"components of shapes {[tuple(p.shape) for p in pictures]} do not overlay")
    whole = pictures[0]
    for picture in pictures[1:]:
        whole = whole.minimum(picture)
    return whole


def split_rows(count: int, split: str, sizes: Mapping[str, int], seed: int) -> np.ndarray:
    """Sorted indices of a split: consecutive parts of a permutation by the seed, in the order of ``sizes``.

    Raises:
        ValueError: If the sizes do not add up to ``count``.
    """
    if sum(sizes.values()) != count:
        raise ValueError(f"biked_rendered: splits of {dict(sizes)} for {count} bicycles")
    order = permutation(count, seed, "biked_rendered", "split")
    ends = dict(zip(sizes, np.cumsum(list(sizes.values())), strict=True))
    return np.sort(order[ends[split] - sizes[split] : ends[split]])


def load(card: Card, split: str, *, seed: int = 0) -> Dataset:
    """Loads the rendered bicycles; the label is the bicycle's style.

    Arguments:
        card: The dataset's card, which states the filter, the sizes of the splits and the scale.
        split: ``"train"``, ``"validation"`` or ``"test"``.
        seed: The seed of the split.

    Raises:
        FetchError: If the table cannot be had.
        ValueError: If the table lacks a column, or a style is none of the card's.
    """

    def build(writer: Writer) -> None:
        content, origin = table_bytes(card)
        table = read_table(content, origin)
        table = table.take(plausible(table, card.generation["limits"], card.generation["excluded"]))
        sizes = {name: stated.count or 0 for name, stated in card.splits.items()}
        table = table.take(split_rows(len(table), split, sizes, seed))
        styles = table.text(STYLE)
        if unknown := sorted(set(styles) - set(card.labels)):
            raise ValueError(f"{origin}: style {unknown[0]!r} is none of the card's classes")
        side = card.modalities[COMPONENTS[0]].shape[-1]
        arrays = {c: writer.array(c, (len(table), 1, side, side)) for c in card.modalities}

        def part(start: int) -> None:
            rows = np.arange(start, min(start + CHUNK, len(table)))
            for component, pictures in draw(table.take(rows), side, float(card.generation["pixel"])).items():
                arrays[component][rows] = pictures

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(part, range(0, len(table), CHUNK)))
        writer.put("labels", np.array([card.labels.index(s) for s in styles], dtype=np.int64))
        writer.provenance = {
            "source": f"rendered from {origin}",
            "seed": seed,
            "bikes": [int(b) for b in table.text("bike")],
        }
        writer.variant = "" if seed == card.generation["seed"] else None

    return prepared(card, split, {"seed": seed}, build)
