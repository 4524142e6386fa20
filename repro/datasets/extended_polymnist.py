"""Extended PolyMNIST: the recipe of PolyMNIST on ten backgrounds, with a validation split."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from repro.datasets.base import Dataset
from repro.datasets.blended import generated
from repro.datasets.card import Card
from repro.datasets.exact import permutation
from repro.datasets.mnist import digits

__all__ = ["crop", "load", "membership"]

PADDING = 2


def load(card: Card, split: str, *, seed: int = 0, padded: bool = False) -> Dataset:
    """Loads Extended PolyMNIST.

    Arguments:
        card: The dataset's card.
        split: ``"train"``, ``"validation"`` or ``"test"``.
        seed: The seed of the membership, the pairs and the crops.
        padded: Whether values come out as 3 x 32 x 32, with two zeros on each side; :func:`crop` takes them off.
    """
    size = card.splits["validation"].count or 0
    variant = "" if seed == card.generation["seed"] else None
    dataset = generated(card, split, lambda: membership(split, size, seed), {"seed": seed}, variant)
    return dataset.padded(PADDING) if padded else dataset


def membership(split: str, num_validation: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of the MNIST digits of a split.

    The paper's membership of its validation split is unpublished: here a permutation by the seed chooses
    ``num_validation`` of MNIST's training images, and the others are the training split. The test split is MNIST's.

    Raises:
        ValueError: If nothing would be left for training.
    """
    if split == "test":
        return digits("test")
    images, labels = digits("train")
    if not 0 < num_validation < len(images):
        raise ValueError(f"extended_polymnist: a validation split of {num_validation} of {len(images)} images")
    order = permutation(len(images), seed, "extended_polymnist", "membership")
    chosen = np.sort(order[-num_validation:] if split == "validation" else order[:-num_validation])
    return images[chosen], labels[chosen]


def crop(images: Tensor) -> Tensor:
    """Takes the padding off again, 32 x 32 to 28 x 28, as the paper's classifier needs it.

    Raises:
        ValueError: If the images are not 32 x 32.
    """
    if images.shape[-2:] != (32, 32):
        raise ValueError(f"images of shape {tuple(images.shape)}, expected (..., 32, 32)")
    return images[..., PADDING:-PADDING, PADDING:-PADDING]
