"""The end of a training split as a validation split, for datasets that have none of their own."""

from __future__ import annotations

from dataclasses import replace

from repro.datasets.base import Dataset, fingerprint

__all__ = ["hold_out"]


def hold_out(data: Dataset, count: int) -> tuple[Dataset, Dataset]:
    """A split without its last samples, and those as the split ``"validation"``, both as views.

    Arguments:
        data: The training split.
        count: How many samples are held out.

    Raises:
        ValueError: If that leaves none to train on, or ``count`` is under 1.
    """
    if not 1 <= count < len(data):
        raise ValueError(f"{data.name} {data.split} has {len(data)} samples, of which {count} cannot be held out")
    values = {m: x[-count:] for m, x in data.data.items()}
    labels = None if data.labels is None else data.labels[-count:]
    known = dict(data.provenance) | {"sha256": fingerprint(values, labels), "last": count}
    held_out = replace(data, split="validation", data=values, labels=labels, provenance=known)
    return data.first(len(data) - count), held_out
