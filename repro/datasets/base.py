"""Resident multimodal data: named modalities, labels and where they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from repro.datasets.card import Card

__all__ = ["Dataset", "ModalitySpec", "fingerprint", "first_of_each_class", "from_card", "specs"]

KINDS = ("continuous", "image", "binary", "audio")


@dataclass(frozen=True)
class ModalitySpec:
    """Shape, kind and range of one modality.

    Arguments:
        shape: The event shape, without the batch dimension, such as ``(2,)`` or ``(3, 28, 28)``.
        kind: ``"continuous"``, ``"image"``, ``"binary"`` or ``"audio"``.
        range: The closed interval that values lie in, None where unbounded.
        unit: The unit of the values, "1" where they have none.

    Raises:
        ValueError: If the kind is unknown or a dimension is not positive.
    """

    shape: tuple[int, ...]
    kind: str = "continuous"
    range: tuple[float, float] | None = None
    unit: str = "1"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        if self.kind not in KINDS:
            raise ValueError(f"unknown modality kind {self.kind!r}; one of {', '.join(KINDS)}")
        if any(n < 1 for n in self.shape):
            raise ValueError(f"modality shape {self.shape} has a dimension under 1")

    @property
    def numel(self) -> int:
        """Number of values in one sample."""
        n = 1
        for size in self.shape:
            n *= size
        return n


@dataclass(frozen=True)
class Dataset:
    """One split of a multimodal dataset, held in memory as one tensor a modality.

    Images are stored as uint8; indexing and batches give them as float32 in [0, 1], with ``padding`` zeros on each
    side.

    Arguments:
        name: The dataset's name, that of its card.
        split: The split's name.
        modalities: Name to :class:`ModalitySpec`, in the order that models use.
        data: Name to tensor of shape ``(N, *spec.shape)``, the same N for all.
        labels: Integer class labels of shape ``(N,)``, None where there are none.
        provenance: How the data came about: seed, sources, hashes.
        padding: Zeros added on each side of the last two dimensions; ``modalities`` state the padded shape.
        label_key: Name under which samples and batches carry the label, empty for none.

    Raises:
        ValueError: If names, shapes or lengths of ``data`` and ``modalities`` do not fit, or a value is not finite.
    """

    name: str
    split: str
    modalities: Mapping[str, ModalitySpec]
    data: Mapping[str, Tensor]
    labels: Tensor | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    padding: int = 0
    label_key: str = ""

    def __post_init__(self) -> None:
        if list(self.data) != list(self.modalities):
            raise ValueError(f"{self.name}: data has modalities {list(self.data)}, expected {list(self.modalities)}")
        lengths = {m: len(x) for m, x in self.data.items()}
        if self.labels is not None:
            lengths["labels"] = len(self.labels)
        if len(set(lengths.values())) != 1:
            raise ValueError(f"{self.name}: unequal lengths {lengths}")
        for m, x in self.data.items():
            shape = _pad_shape(tuple(x.shape[1:]), self.padding)
            if shape != self.modalities[m].shape:
                raise ValueError(f"{self.name}: modality {m!r} has shape {shape}, expected {self.modalities[m].shape}")
            if x.dtype is torch.uint8 and self.modalities[m].range != (0.0, 1.0):
                raise ValueError(f"{self.name}: modality {m!r} is stored as uint8, so its range must be (0, 1)")
            if x.is_floating_point() and not bool(torch.isfinite(x).all()):
                raise ValueError(f"{self.name}: modality {m!r} has values that are not finite")

    def __len__(self) -> int:
        return len(next(iter(self.data.values())))

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is outside {self.name} {self.split} of length {len(self)}")
        return self._select(lambda x: x[index])

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = True,
        drop_last: bool = False,
        generator: torch.Generator | None = None,
    ) -> Iterator[dict[str, Tensor]]:
        """Yields batches of the resident tensors; no worker processes.

        In order, batches of float tensors are views of them, so they must not be written to.

        Arguments:
            batch_size: Samples a batch.
            shuffle: Whether to visit samples in a random order.
            drop_last: Whether to leave out a last batch that is smaller.
            generator: Source of the random order; the global one if None.

        Raises:
            ValueError: If ``batch_size`` is under 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, must be at least 1")
        n = len(self)
        end = n - n % batch_size if drop_last else n
        if not shuffle:
            for start in range(0, end, batch_size):
                rows = slice(start, min(start + batch_size, end))
                yield self._select(lambda x, rows=rows: x[rows])
            return
        order = torch.randperm(n, generator=generator).to(next(iter(self.data.values())).device)
        for start in range(0, end, batch_size):
            index = order[start : start + batch_size]
            # index_select copies whole rows, some five times as fast as indexing by a tensor.
            yield self._select(lambda x, index=index: x.index_select(0, index))

    def floats(self) -> Dataset:
        """The same split with bytes converted to float32 once: four times the memory, for faster batches."""
        return replace(self, data={m: self._unit(x) for m, x in self.data.items()})

    def first(self, count: int) -> Dataset:
        """The split's first ``count`` samples, as views.

        Raises:
            ValueError: If there are not as many, or ``count`` is under 1.
        """
        if not 1 <= count <= len(self):
            raise ValueError(f"{self.name} {self.split} has {len(self)} samples, {count} are asked for")
        data = {m: x[:count] for m, x in self.data.items()}
        labels = None if self.labels is None else self.labels[:count]
        known = dict(self.provenance) | {"sha256": fingerprint(data, labels), "first": count}
        return replace(self, data=data, labels=labels, provenance=known)

    def to(self, device: torch.device | str) -> Dataset:
        """Returns the same split with its tensors on ``device``."""
        return replace(
            self,
            data={m: x.to(device) for m, x in self.data.items()},
            labels=None if self.labels is None else self.labels.to(device),
        )

    def to_hf(self) -> Any:
        """The split as a ``datasets.Dataset``: images as ``Image``, labels as ``ClassLabel``, the rest as arrays."""
        return import_module("repro.datasets.hf").to_hf(self)

    def padded(self, padding: int) -> Dataset:
        """A view of the same tensors whose values come out with further zeros on each side.

        Arguments:
            padding: Zeros on each side of the last two dimensions, such as 2 for 28 x 28 to 32 x 32.

        Raises:
            ValueError: If ``padding`` is negative or a modality has fewer than two dimensions.
        """
        if padding < 0 or any(len(spec.shape) < 2 for spec in self.modalities.values()):
            raise ValueError(f"{self.name}: cannot pad {[s.shape for s in self.modalities.values()]} by {padding}")
        modalities = {m: replace(s, shape=_pad_shape(s.shape, padding)) for m, s in self.modalities.items()}
        return replace(self, modalities=modalities, padding=self.padding + padding)

    def labelled(self, key: str = "label") -> Dataset:
        """The same split whose samples and batches carry the label too, as int64 under ``key``.

        Raises:
            ValueError: If there are no labels, or a modality has that name.
        """
        if self.labels is None:
            raise ValueError(f"{self.name} {self.split} has no labels")
        if key in self.modalities:
            raise ValueError(f"{self.name}: {key!r} is a modality; the label needs another name")
        return replace(self, label_key=key)

    def _select(self, pick: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        chosen = {m: self._values(pick(x)) for m, x in self.data.items()}
        if self.label_key and self.labels is not None:
            chosen[self.label_key] = pick(self.labels)
        return chosen

    def _values(self, x: Tensor) -> Tensor:
        x = self._unit(x)
        return pad(x, (self.padding,) * 4) if self.padding else x

    @staticmethod
    def _unit(x: Tensor) -> Tensor:
        return x.float().div_(255.0) if x.dtype is torch.uint8 else x


def _pad_shape(shape: tuple[int, ...], padding: int) -> tuple[int, ...]:
    return (*shape[:-2], *(n + 2 * padding for n in shape[-2:])) if padding else shape


def specs(card: Card) -> dict[str, ModalitySpec]:
    """The modalities of a card."""
    return {m: ModalitySpec(x.shape, x.kind, x.range, x.unit) for m, x in card.modalities.items()}


def first_of_each_class(labels: Tensor, most: int = 10) -> list[int]:
    """Index of the first sample of each class, by class, of at most so many classes: the rule of figures."""
    return [int((labels == c).nonzero()[0]) for c in labels.unique()[:most]]


def fingerprint(data: Mapping[str, Tensor], labels: Tensor | None = None) -> str:
    """SHA-256 of a split: every modality's values in order, little-endian and contiguous, then the labels as int64."""
    digest = sha256()
    for x in data.values():
        array = x.detach().cpu().numpy()
        digest.update(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")))
    if labels is not None:
        digest.update(np.ascontiguousarray(labels.cpu().numpy(), dtype="<i8"))
    return digest.hexdigest()


def from_card(
    card: Card,
    split: str,
    data: Mapping[str, Tensor],
    labels: Tensor | None = None,
    provenance: Mapping[str, Any] | None = None,
    variant: str | None = None,
) -> Dataset:
    """A split whose modalities are those of its card, with its hash added to the provenance.

    Arguments:
        card: The dataset's card.
        split: The split's name.
        data: Name to tensor.
        labels: Class labels.
        provenance: What is known so far; ``sha256`` is computed where it is not among it.
        variant: What the card states count and hash of: ``""`` for the default options, the name of a variant, or
            None where it states neither.

    Raises:
        ValueError: If the number of samples or of classes is not the card's.
    """
    known = dict(provenance or {})
    if "sha256" not in known:
        known["sha256"] = fingerprint(data, labels)
    stated = card.splits[split]
    count = len(next(iter(data.values())))
    if variant is not None:
        if stated.count not in (None, count):
            raise ValueError(f"{card.name} {split}: {count} samples, the card states {stated.count}")
        expected = stated.sha256_of.get(variant) if variant else stated.sha256
        if expected is not None:
            known["matches_card"] = known["sha256"] == expected
    if labels is not None and card.labels and not 0 <= int(labels.min()) <= int(labels.max()) < len(card.labels):
        raise ValueError(f"{card.name} {split}: a label is outside the {len(card.labels)} classes of the card")
    return Dataset(card.name, split, specs(card), data, labels, known)
