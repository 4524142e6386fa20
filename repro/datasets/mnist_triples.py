"""Triples of MNIST images: the first two are similar, the third is drawn at random."""

from __future__ import annotations

from typing import Any

import numpy as np

from repro.datasets.base import Dataset
from repro.datasets.blended import permuted_within
from repro.datasets.cache import Writer, prepared
from repro.datasets.card import Card
from repro.datasets.exact import permutation
from repro.datasets.mnist import digits
from repro.datasets.scalars import whole_number

__all__ = ["ALIKE", "load", "triples"]

ALIKE = ("image", "digit")


def triples(labels: np.ndarray, seed: int, stream: str, alike: str = "image") -> np.ndarray:
    """Indices of the three images of every sample, of shape ``(N, 3)``.

    Sample n shows image n, the same image again or another image of its digit, and an image of any digit. Every image
    occurs once in each modality.

    Arguments:
        labels: Digits of the N images.
        seed: The seed.
        stream: Name of the split's own stream.
        alike: What "similar" is taken to mean: ``"image"``, the same image twice, or ``"digit"``, two images of one
            digit (erratum M7).

    Raises:
        ValueError: If ``alike`` is neither.

    Source: MRF MVAE, appendix D.2.
    """
    _check_alike(alike)
    count = len(labels)
    first = np.arange(count)
    second = first if alike == "image" else permuted_within(labels, seed, "mnist_triples", stream, "alike")
    return np.stack([first, second, permutation(count, seed, "mnist_triples", stream, "random")], axis=1)


def _check_alike(alike: Any) -> None:
    if not isinstance(alike, str) or alike not in ALIKE:
        raise ValueError(f"alike is {alike!r}, must be one of {', '.join(ALIKE)}")


def load(card: Card, split: str, *, alike: str = "image", seed: int = 0) -> Dataset:
    """Loads the triples; the label is the digit of the first two.

    Arguments:
        card: The dataset's card.
        split: ``"train"`` or ``"test"``, from MNIST's split of that name.
        alike: ``"image"`` or ``"digit"``, see :func:`triples`.
        seed: The seed.

    Raises:
        ValueError: If ``alike`` is neither, or the seed is no whole number of at least 0.
    """
    _check_alike(alike)
    if isinstance(seed, bool) or whole_number("seed", seed) < 0:
        raise ValueError(f"seed is {seed!r}, must be a whole number of at least 0")
    seed = whole_number("seed", seed)

    def build(writer: Writer) -> None:
        images, labels = digits(split)
        index = triples(labels, seed, split, alike)
        for k, m in enumerate(card.modalities):
            writer.put(m, images[index[:, k]][:, None])
        writer.put("labels", labels.astype(np.int64))
        writer.provenance = {"source": "generated", "seed": seed, "stream": split}
        variant = "" if alike == "image" else alike
        writer.variant = variant if seed == card.generation["seed"] else None

    return prepared(card, split, {"alike": alike, "seed": seed}, build)
