"""Parts of a training split as a validation split, for datasets that have none of their own."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from repro.datasets.base import Dataset, fingerprint
from repro.datasets.omics import stratified

__all__ = ["hold_out", "hold_out_stratified"]


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


def hold_out_stratified(data: Dataset, fraction: float, seed: int = 0) -> tuple[Dataset, Dataset]:
    """A split without the same part of each class, and those samples as the split ``"validation"``, both in order.

    For splits that are sorted by class, whose end is one class alone.

    Arguments:
        data: The training split, with a class for each sample.
        fraction: Part of every class that is held out, in (0, 1): the nearest number of samples, at least one and at
            most all but one.
        seed: Of the draw of the samples.

    Raises:
        ValueError: If the fraction is outside its range, there are no classes, or a class has one sample only.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction is {fraction}, must be in (0, 1)")
    if data.labels is None or data.labels.ndim != 1:
        raise ValueError(f"{data.name} {data.split} has no class for each sample to hold out a part of")
    chosen = torch.from_numpy(stratified(data.labels.cpu().numpy(), seed, data.name, fraction))

    def part(rows: Tensor, split: str) -> Dataset:
        values = {m: x[rows.to(x.device)] for m, x in data.data.items()}
        labels = data.labels[rows.to(data.labels.device)]
        known = dict(data.provenance) | {"sha256": fingerprint(values, labels), "part": f"{fraction:g} of each class"}
        names = known.pop("samples", ())
        if len(names) == len(data):  # of the split itself, and not of one that it is a part of
            known["samples"] = [name for name, taken in zip(names, rows.tolist(), strict=True) if taken]
        return replace(data, split=split, data=values, labels=labels, provenance=known)

    return part(~chosen, data.split), part(chosen, "validation")
