"""Resident multimodal data: named modalities, labels and where they come from."""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from html import escape
from importlib import import_module
from itertools import pairwise
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from repro.datasets.card import Card
from repro.datasets.devices import as_device
from repro.datasets.scales import Scales
from repro.datasets.values import as_tensor, as_type, unit_values, whole_number

__all__ = [
    "Dataset",
    "ModalitySpec",
    "check_name",
    "fingerprint",
    "first_of_each_class",
    "from_arrays",
    "from_card",
    "specs",
]

# Names that a part of a model cannot have, as torch.nn.ModuleDict has attributes of these names.
RESERVED = frozenset(dir(torch.nn.ModuleDict())) | {"training"}
ROUNDING = 1e-5  # of a range's width: float32 has it in a sum of products, not in a value
KINDS = ("continuous", "image", "binary", "audio")


@dataclass(frozen=True)
class ModalitySpec:
    """Shape, kind and range of one modality.

    Arguments:
        shape: The event shape, without the batch dimension, such as ``(2,)`` or ``(3, 28, 28)``.
        kind: ``"continuous"``, ``"image"``, ``"binary"`` or ``"audio"``.
        range: The closed interval that values lie in, None where unbounded; of binary values it is within [0, 1].
        unit: The unit of the values, "1" where they have none.

    Raises:
        ValueError: If the kind is unknown, there is no dimension or one is not a positive whole number, or the range is
            not of two finite numbers, is empty or, for binary values, outside [0, 1].
    """

    shape: tuple[int, ...]
    kind: str = "continuous"
    range: tuple[float, float] | None = None
    unit: str = "1"

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "shape", tuple(operator.index(n) for n in self.shape))
        except TypeError:
            raise ValueError(f"modality shape {self.shape!r} must be whole numbers, such as (3, 28, 28)") from None
        if self.kind not in KINDS:
            raise ValueError(f"unknown modality kind {self.kind!r}; one of {', '.join(KINDS)}")
        if not self.shape:
            raise ValueError("modality shape () has no dimension; a single number a sample has the shape (1,)")
        if any(n < 1 for n in self.shape):
            raise ValueError(f"modality shape {self.shape} has a dimension under 1")
        if self.range is not None:
            ends = tuple(self.range) if isinstance(self.range, Iterable) else ()
            if len(ends) != 2 or not all(isinstance(v, Real) and abs(v) < math.inf for v in ends):
                raise ValueError(f"modality range {self.range!r} must be two finite numbers, or None where unbounded")
            object.__setattr__(self, "range", ends)
            low, high = self.range
            if not low < high:
                raise ValueError(f"modality range {self.range} is empty; the lower end comes first")
            if self.kind == "binary" and not 0 <= low < high <= 1:
                raise ValueError(f"modality range {self.range}: binary values lie in [0, 1]")

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The range, which binary values have without stating it."""
        return (0.0, 1.0) if self.range is None and self.kind == "binary" else self.range

    @property
    def numel(self) -> int:
        """Number of values in one sample."""
        n = 1
        for size in self.shape:
            n *= size
        return n


def check_name(name: object) -> None:
    """Refuses a name that no modality can have, since parts of a model are called by it.

    Raises:
        ValueError: If it is empty or no text, contains a dot or a control character, or is that of an attribute of
            ``torch.nn.ModuleDict``, such as ``type``, ``values`` or ``half``.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"a modality is called {name!r}; its name must be text, and not empty")
    if "." in name or not name.isprintable():
        raise ValueError(f"a modality is called {name!r}; its name must contain neither a dot nor a control character")
    if name in RESERVED:
        raise ValueError(f"a modality is called {name!r}, as an attribute of torch.nn.ModuleDict; give it another name")


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """One split of a multimodal dataset, held in memory as one tensor a modality.

    Images are stored as uint8; indexing and batches give them as float32 in [0, 1], with ``padding`` zeros on each
    side. Values of other types become float32 (:func:`as_tensor`), but for float64, which stays. Bytes of a binary
    modality whose largest is 1 are 0 and 1.

    Arguments:
        name: The dataset's name, that of its card.
        split: The split's name.
        modalities: Name to :class:`ModalitySpec`, in the order that models use.
        data: Name to tensor of shape ``(N, *spec.shape)``, the same N for all; NumPy arrays and data frames become
            tensors.
        labels: Integer class labels of shape ``(N,)``, of any sequence of numbers; None where there are none.
        provenance: How the data came about: seed, sources, hashes.
        padding: Zeros added on each side of the last two dimensions; ``modalities`` state the padded shape.
        label_key: Name under which samples and batches carry the label, empty for none.
        scales: The mean and the standard deviation that values were standardised by, of the modalities that were
            (:class:`~repro.datasets.scales.Scales`); see :meth:`from_arrays`.

    Raises:
        ValueError: If names, shapes or lengths of ``data`` and ``modalities`` do not fit, a name is reserved, there is
            no sample, a value is no real number, not finite or outside its modality's range, or labels are not one real
            number a sample.
    """

    name: str
    split: str
    modalities: Mapping[str, ModalitySpec]
    data: Mapping[str, Tensor]
    labels: Tensor | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    padding: int = 0
    label_key: str = ""
    scales: Scales = field(default_factory=Scales)

    @staticmethod
    def from_arrays(
        arrays: Mapping[str, Any],
        *,
        name: str = "mine",
        specs: Mapping[str, ModalitySpec] | None = None,
        labels: Any = None,
        standardise: bool = False,
        validation: float = 0.0,
        test: float = 0.0,
        seed: int = 0,
    ) -> dict[str, Dataset]:
        """Splits of one's own arrays, one a modality with samples first: train, and validation and test on request.

        What a modality is, is inferred where it is not stated: bytes of three dimensions or more are images, values
        that are all 0 or 1 are binary, all others continuous. A column of single numbers has the shape (1,).

        Arguments:
            arrays: Name to tensor, NumPy array or data frame, the same number of samples in all.
            name: The data's name.
            specs: What some modalities are, by name.
            labels: Class labels, one a sample.
            standardise: Whether continuous modalities get zero mean and unit variance over the training split, value by
                value; :meth:`standardised` does the same to other samples and :meth:`restored` undoes it.
            validation: Share of the samples that are held out for choices, drawn without replacement.
            test: Share that is held out for what is reported, drawn after them.
            seed: Of that draw.

        Raises:
            ValueError: As the splits themselves do; if a share is not in [0, 1), a split would be empty, or data frames
                have the same index in different orders.
        """
        options = {"name": name, "specs": specs, "labels": labels, "standardise": standardise}
        return from_arrays(arrays, **options, validation=validation, test=test, seed=seed)

    def standardised(self, values: Mapping[str, Any]) -> dict[str, Tensor]:
        """Values in their own units as this split has them: :meth:`repro.datasets.scales.Scales.standardised`.

        Raises:
            ValueError: As there, or if a name is no modality of this split.
        """
        self._check_names(values)
        return self.scales.standardised(values)

    def restored(self, values: Mapping[str, Any]) -> dict[str, Tensor]:
        """Values of this split, or generated ones, in their own units: the inverse of :meth:`standardised`.

        Raises:
            ValueError: As :meth:`standardised`.
        """
        self._check_names(values)
        return self.scales.restored(values)

    def _check_names(self, values: Any) -> None:
        _check_mapping(self.name, "values", values)
        if unknown := [m for m in values if m not in self.modalities]:
            raise ValueError(f"{self.name}: unknown modalities {unknown}; there are {list(self.modalities)}")

    def __post_init__(self) -> None:
        _check_mapping(self.name, "data", self.data)
        _check_specs(self.name, self.modalities)
        if list(self.data) != list(self.modalities):
            raise ValueError(f"{self.name}: data has modalities {list(self.data)}, expected {list(self.modalities)}")
        if not self.data:
            raise ValueError(f"{self.name}: there is no modality")
        try:
            for m in self.modalities:
                check_name(m)
            data = {m: as_tensor(m, x) for m, x in self.data.items()}
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from None
        for m, x in data.items():
            spec = self.modalities[m]
            shape = _pad_shape(tuple(x.shape[1:]), self.padding)
            if x.ndim < 2 or shape != spec.shape:
                raise ValueError(f"{self.name}: modality {m!r} has shape {shape}, expected {spec.shape}")
            if x.dtype is torch.uint8 and spec.kind == "binary" and x.numel() and int(x.max()) <= 1:
                data[m] = x.float()
            elif x.dtype is torch.uint8 and spec.range != (0.0, 1.0):
                raise ValueError(f"{self.name}: modality {m!r} is stored as uint8, so its range must be (0, 1)")
        lengths = {m: len(x) for m, x in data.items()}
        if self.labels is not None:
            object.__setattr__(self, "labels", _labels(self.name, self.labels))
            lengths["labels"] = len(self.labels)
        if len(set(lengths.values())) != 1:
            raise ValueError(f"{self.name}: unequal lengths {lengths}")
        if not len(next(iter(data.values()))):
            raise ValueError(f"{self.name}: there is no sample")
        for m, x in data.items():
            _check_values(self.name, m, self.modalities[m], x)
        object.__setattr__(self, "data", data)

    def __len__(self) -> int:
        return len(next(iter(self.data.values())))

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> dict[str, Tensor]:
        """One sample by its index, or a batch by a slice, a list of indices or a mask.

        Raises:
            IndexError: If an index is outside or no whole number, or a mask has another length than the split.
        """
        if isinstance(index, slice):
            try:
                index.indices(len(self))
            except (TypeError, ValueError) as error:
                raise IndexError(f"{index} does not fit {self.name} {self.split}: {error}") from None
        if isinstance(index, slice) and (index.step or 1) > 0:
            return self._select(lambda x: x[index])
        rows = self._index(index)
        if rows.ndim == 0:
            number = int(rows)
            return self._select(lambda x: x[number])
        return self._select(lambda x: x[rows.to(x.device)])

    def _index(self, index: Any) -> Tensor:
        """Rows as whole numbers from 0 on: one, or a vector of them, from an index, indices, a mask or a slice."""
        where = f"{self.name} {self.split} of length {len(self)}"
        if isinstance(index, slice):
            index = range(*index.indices(len(self)))
        try:
            rows = index if isinstance(index, Tensor) else torch.as_tensor(np.array(index))
        except (TypeError, ValueError):
            raise IndexError(f"index {index!r} is neither whole numbers nor a mask of {where}") from None
        if rows.dtype is torch.bool:
            if tuple(rows.shape) != (len(self),):
                raise IndexError(f"a mask of shape {tuple(rows.shape)} does not fit {where}")
            return rows.nonzero().flatten()
        rows = rows if rows.numel() else rows.long()
        if rows.is_floating_point() or rows.is_complex() or rows.ndim > 1:
            raise IndexError(f"index {index!r} is neither whole numbers nor a mask of {where}")
        outside = rows[(rows < -len(self)) | (rows >= len(self))].flatten()
        if len(outside):
            raise IndexError(f"index {int(outside[0])} is outside {where}")
        return rows.long() % len(self)

    def __eq__(self, other: object) -> bool:
        """Whether both are the same split with the same values; where they came from does not matter."""
        if not isinstance(other, Dataset):
            return NotImplemented
        own, others = ((d.name, d.split, dict(d.modalities), d.padding, d.label_key) for d in (self, other))
        if own != others or list(self.data) != list(other.data) or (self.labels is None) != (other.labels is None):
            return False
        if self.labels is not None and not torch.equal(self.labels.cpu(), other.labels.cpu()):  # type: ignore[union-attr]
            return False
        pairs = ((x, other.data[m]) for m, x in self.data.items())
        return all(x.dtype is y.dtype and torch.equal(x.cpu(), y.cpu()) for x, y in pairs)

    __hash__ = None  # type: ignore[assignment]

    def _rows(self) -> list[tuple[str, str, str, str, str]]:
        rows = []
        for m, spec in self.modalities.items():
            x = self.data[m]
            low, high = (v.item() / (255.0 if x.dtype is torch.uint8 else 1.0) for v in x.aminmax())
            kind = str(x.dtype).removeprefix("torch.")
            unit = "" if spec.unit == "1" else f" {spec.unit}"
            rows.append((m, str(spec.shape), spec.kind, kind, f"[{low:.4g}, {high:.4g}]{unit}"))
        return rows

    def _title(self) -> str:
        labels = "" if self.labels is None else f", {len(self.labels.unique())} classes"
        padding = f", padded by {self.padding}" if self.padding else ""
        return f"{self.name} {self.split}: {len(self)} samples{labels}{padding}"

    def __repr__(self) -> str:
        """Name, split and number of samples, then a line a modality: shape, kind, type and the range of its values."""
        rows = self._rows()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ("  ".join(v.ljust(w) for v, w in zip(row, widths, strict=True)).rstrip() for row in rows)
        return "\n".join([self._title(), *(f"  {line}" for line in lines)])

    def _repr_html_(self) -> str:
        """The same as a table, which notebooks show."""
        head = "".join(f"<th>{name}</th>" for name in ("modality", "shape", "kind", "type", "values"))
        body = "".join("<tr>" + "".join(f"<td>{escape(v)}</td>" for v in row) + "</tr>" for row in self._rows())
        return f"<table><caption>{escape(self._title())}</caption><tr>{head}</tr>{body}</table>"

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = True,
        drop_last: bool = False,
        smallest: int = 1,
        generator: torch.Generator | None = None,
    ) -> Iterator[dict[str, Tensor]]:
        """Yields batches of the resident tensors; no worker processes.

        In order, batches of float tensors are views of them, so they must not be written to.

        Arguments:
            batch_size: Samples a batch.
            shuffle: Whether to visit samples in a random order.
            drop_last: Whether to leave out a last batch that is smaller.
            smallest: The fewest samples of a batch: a remainder of fewer is part of the batch before it.
            generator: Source of the random order; the global one if None.

        Raises:
            ValueError: If ``batch_size`` is no whole number or under 1.
        """
        batch_size = whole_number("batch_size", batch_size)
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, must be at least 1")
        n = len(self)
        end = n - n % batch_size if drop_last else n
        ends = [*range(batch_size, end, batch_size), end]
        if len(ends) > 1 and 0 < end % batch_size < smallest:
            del ends[-2]
        bounds = list(pairwise([0, *ends])) if end else []
        if not shuffle:
            for start, stop in bounds:
                rows = slice(start, stop)
                yield self._select(lambda x, rows=rows: x[rows])
            return
        order = torch.randperm(n, generator=generator).to(next(iter(self.data.values())).device)
        for start, stop in bounds:
            index = order[start:stop]
            # index_select copies whole rows, some five times as fast as indexing by a tensor.
            yield self._select(lambda x, index=index: x.index_select(0, index))

    def floats(self) -> Dataset:
        """The same split with bytes converted to float32 once: four times the memory, for faster batches."""
        return replace(self, data={m: unit_values(x) for m, x in self.data.items()})

    def converted(self, dtype: torch.dtype) -> Dataset:
        """The same split with its values in a model's floating-point type; bytes stay bytes for float32.

        Raises:
            ValueError: If the type cannot hold them, see :func:`as_type`.
        """
        found = {}
        for m, x in self.data.items():
            x = unit_values(x) if x.dtype is torch.uint8 and dtype is not torch.float32 else x
            found[m] = x if x.dtype is torch.uint8 else as_type(m, x, dtype)
        return self if all(found[m] is x for m, x in self.data.items()) else replace(self, data=found)

    def select(self, rows: Sequence[int] | Tensor | slice, split: str | None = None) -> Dataset:
        """The samples of some rows, in that order, as a split of its own.

        Arguments:
            rows: Indices, a mask of as many entries as there are samples, or a slice.
            split: Its name; this split's if None.

        Raises:
            IndexError: If a row is outside, or a mask has another length than the split.
            ValueError: If there is none.
        """
        index = self._index(rows).reshape(-1)
        data = {m: x[index.to(x.device)] for m, x in self.data.items()}
        labels = None if self.labels is None else self.labels[index.to(self.labels.device)]
        known = dict(self.provenance) | {"sha256": fingerprint(data, labels)}
        return replace(self, data=data, labels=labels, provenance=known, split=split or self.split)

    def first(self, count: int) -> Dataset:
        """The split's first ``count`` samples, as views.

        Raises:
            ValueError: If there are not as many, or ``count`` is under 1.
        """
        count = whole_number("count", count)
        if not 1 <= count <= len(self):
            raise ValueError(f"{self.name} {self.split} has {len(self)} samples, {count} are asked for")
        data = {m: x[:count] for m, x in self.data.items()}
        labels = None if self.labels is None else self.labels[:count]
        known = dict(self.provenance) | {"sha256": fingerprint(data, labels), "first": count}
        return replace(self, data=data, labels=labels, provenance=known)

    def to(self, device: torch.device | str) -> Dataset:
        """Returns the same split with its tensors on ``device``.

        Raises:
            ValueError: If there is no such device.
        """
        place = as_device(device)
        return replace(
            self,
            data={m: x.to(place) for m, x in self.data.items()},
            labels=None if self.labels is None else self.labels.to(place),
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
            ValueError: If there are no labels or they are no whole numbers, or a modality has that name.
        """
        if self.labels is None:
            raise ValueError(f"{self.name} {self.split} has no labels")
        if key in self.modalities:
            raise ValueError(f"{self.name}: {key!r} is a modality; the label needs another name")
        labels = self.labels
        if labels.is_floating_point() and not bool((labels == labels.round()).all()):
            raise ValueError(f"{self.name} {self.split}: labels of type {labels.dtype} are no whole numbers")
        return replace(self, labels=labels.long(), label_key=key)

    def _select(self, pick: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        chosen = {m: self._values(pick(x)) for m, x in self.data.items()}
        if self.label_key and self.labels is not None:
            chosen[self.label_key] = pick(self.labels)
        return chosen

    def _values(self, x: Tensor) -> Tensor:
        x = unit_values(x)
        return pad(x, (self.padding,) * 4) if self.padding else x


def _labels(where: str, labels: Any) -> Tensor:
    """Labels as one real number a sample."""
    try:
        found = labels if isinstance(labels, Tensor) else torch.as_tensor(np.array(labels))
    except (TypeError, ValueError):
        raise ValueError(f"{where}: labels are not numbers; give whole numbers, one for each class") from None
    if found.ndim != 1 or found.is_complex():
        raise ValueError(f"{where}: labels have type {found.dtype} and shape {tuple(found.shape)}, needs one a sample")
    if found.is_floating_point() and not bool(found.isfinite().all()):
        raise ValueError(f"{where}: labels are not all finite; leave samples without a label out")
    return found


def _check_mapping(where: str, what: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: {what} are a {type(value).__name__}, must be a mapping from each modality's name")


def _check_specs(where: str, specs: Any) -> None:
    _check_mapping(where, "specs", specs)
    for m, spec in specs.items():
        if not isinstance(spec, ModalitySpec):
            raise ValueError(f"{where}: the spec of modality {m!r} is {spec!r}, must be a ModalitySpec")


def _check_values(where: str, name: str, spec: ModalitySpec, x: Tensor) -> None:
    """Refuses values that are not finite, or outside the declared range by more than rounding."""
    if x.dtype is torch.uint8:
        return
    low, high = (float(v) for v in x.detach().aminmax())
    if not math.isfinite(low) or not math.isfinite(high):
        raise ValueError(f"{where}: modality {name!r} has values that are not finite")
    if spec.bounds is not None:
        slack = ROUNDING * (spec.bounds[1] - spec.bounds[0])
        if low < spec.bounds[0] - slack or high > spec.bounds[1] + slack:
            declared = f"[{spec.bounds[0]:g}, {spec.bounds[1]:g}]"
            raise ValueError(
                f"{where}: modality {name!r} has values in [{low:g}, {high:g}], its declared range is {declared}"
            )


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


def _check_rows(arrays: Mapping[str, Any]) -> None:
    """Refuses frames that have the same rows in other orders: samples are paired by their places alone."""
    indices = {m: list(x.index) for m, x in arrays.items() if hasattr(x, "to_numpy") and hasattr(x, "index")}
    first = next(iter(indices), "")
    for m, index in indices.items():
        if index != indices[first] and Counter(index) == Counter(indices[first]):
            raise ValueError(f"data frames {first!r} and {m!r} have the same rows in different orders; sort them alike")


def _values(name: str, value: Any) -> Tensor:
    found = as_tensor(name, value)
    if found.dtype is torch.uint8 and (found.ndim < 3 or not found.numel() or int(found.max()) <= 1):
        found = found.float()  # counts, or zeros and ones: no levels of grey
    return found[:, None] if found.ndim == 1 else found


def _single(data: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {m: as_type(m, x, torch.float32) if x.dtype is torch.float64 else x for m, x in data.items()}


def _inferred(name: str, x: Tensor) -> ModalitySpec:
    shape = tuple(x.shape[1:])
    if x.dtype is torch.uint8:
        return ModalitySpec(shape, "image", (0.0, 1.0))
    if bool(((x == 0) | (x == 1)).all()):
        return ModalitySpec(shape, "binary", (0.0, 1.0))
    return ModalitySpec(shape)


def from_arrays(
    arrays: Mapping[str, Any],
    *,
    name: str = "mine",
    specs: Mapping[str, ModalitySpec] | None = None,
    labels: Any = None,
    standardise: bool = False,
    validation: float = 0.0,
    test: float = 0.0,
    seed: int = 0,
) -> dict[str, Dataset]:
    """See :meth:`repro.datasets.Dataset.from_arrays`, also for what it raises."""
    shares = {"validation": validation, "test": test}
    for split, share in shares.items():
        if not isinstance(share, Real) or not 0 <= share < 1:
            raise ValueError(f"{split} is {share!r}, must be a number of at least 0 and under 1")
    seed = whole_number("seed", seed)
    if not -(2**63) <= seed < 2**64:
        raise ValueError(f"seed is {seed}, must fit 64 bits")
    _check_mapping(name, "arrays", arrays)
    _check_specs(name, specs or {})
    if unknown := [m for m in specs or {} if m not in arrays]:
        raise ValueError(f"specs of {unknown}; the arrays are {list(arrays)}")
    _check_rows(arrays)
    data = {m: _values(m, x) for m, x in arrays.items()}
    known = {m: (specs or {}).get(m) or _inferred(m, x) for m, x in data.items()}
    whole = Dataset(name, "train", known, data, labels)
    rows, left = {}, torch.randperm(len(whole), generator=torch.Generator().manual_seed(seed))
    for split, share in shares.items():
        count = round(share * len(whole))
        if share and not 1 <= count < len(left):
            raise ValueError(f"{name}: {count} of {len(whole)} samples for {split} leave one part without any")
        rows[split], left = left[:count].sort().values, left[count:]
    rows = {"train": left.sort().values, **rows}
    parts = {split: whole.select(r, split) for split, r in rows.items() if len(r)}
    if not standardise:
        return {split: replace(d, data=_single(d.data)) for split, d in parts.items()}
    scales = Scales.of({m: x for m, x in parts["train"].data.items() if known[m].kind == "continuous"})
    unbounded = {m: replace(s, range=None, unit="1") if m in scales else s for m, s in known.items()}
    return {
        split: replace(d, modalities=unbounded, data=_single(scales.standardised(d.data)), scales=scales)
        for split, d in parts.items()
    }
