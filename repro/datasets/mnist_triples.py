"""Triples of MNIST images: the first two show one digit, the third is drawn at random."""

from __future__ import annotations

import numpy as np

from repro.datasets.base import Dataset
from repro.datasets.blended import permuted_within
from repro.datasets.cache import Writer, prepared
from repro.datasets.card import Card
from repro.datasets.exact import permutation
from repro.datasets.mnist import digits

__all__ = ["load", "triples"]


def triples(labels: np.ndarray, seed: int, stream: str) -> np.ndarray:
    """Indices of the three images of every sample, of shape ``(N, 3)``.

    Sample n shows image n, another image of its digit, and an image of any digit. Every image occurs once in each
    modality.

    Arguments:
        labels: Digits of the N images.
        seed: The seed.
        stream: Name of the split's own stream.

    Source: MRF MVAE, appendix D.2.
    """
    count = len(labels)
    alike = permuted_within(labels, seed, "mnist_triples", stream, "alike")
    return np.stack([np.arange(count), alike, permutation(count, seed, "mnist_triples", stream, "random")], axis=1)


def load(card: Card, split: str, *, seed: int = 0) -> Dataset:
    """Loads the triples; the label is the digit of the first two.

    Arguments:
        card: The dataset's card.
        split: ``"train"`` or ``"test"``, from MNIST's split of that name.
        seed: The seed.
    """

    def build(writer: Writer) -> None:
        images, labels = digits(split)
        index = triples(labels, seed, split)
        for k, m in enumerate(card.modalities):
            writer.put(m, images[index[:, k]][:, None])
        writer.put("labels", labels.astype(np.int64))
        writer.provenance = {"source": "generated", "seed": seed, "stream": split}
        writer.variant = "" if seed == card.generation["seed"] else None

    return prepared(card, split, {"seed": seed}, build)
