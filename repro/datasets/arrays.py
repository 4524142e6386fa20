"""Splits made of a user's own arrays: what they hold is inferred, and how they were standardised is remembered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repro.datasets.base import Dataset, ModalitySpec, as_tensor

__all__ = ["from_arrays"]


def _values(name: str, value: Any) -> Tensor:
    found = as_tensor(name, value)
    if found.dtype is torch.uint8 and (found.ndim < 3 or not found.numel() or int(found.max()) <= 1):
        found = found.float()  # counts, or zeros and ones: no levels of grey
    found = found.float() if found.dtype is torch.float64 else found
    return found[:, None] if found.ndim == 1 else found


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
    seed: int = 0,
) -> dict[str, Dataset]:
    """See :meth:`repro.datasets.Dataset.from_arrays`."""
    if not 0 <= validation < 1:
        raise ValueError(f"validation is {validation}, must be at least 0 and under 1")
    if unknown := [m for m in specs or {} if m not in arrays]:
        raise ValueError(f"specs of {unknown}; the arrays are {list(arrays)}")
    data = {m: _values(m, x) for m, x in arrays.items()}
    known = {m: (specs or {}).get(m) or _inferred(m, x) for m, x in data.items()}
    labels = None if labels is None else torch.as_tensor(np.asarray(labels))
    whole = Dataset(name, "train", known, data, labels)
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(seed))
    held_out = round(validation * len(whole))
    if validation and not 1 <= held_out < len(whole):
        raise ValueError(f"{name}: {held_out} of {len(whole)} samples for validation leave one part without any")
    rows = {"train": order[held_out:].sort().values, "validation": order[:held_out].sort().values}
    parts = {split: whole.select(r, split) for split, r in rows.items() if len(r)}
    if not standardise:
        return parts
    scales = {}
    for m, x in parts["train"].data.items():
        if known[m].kind == "continuous":
            deviation = x.double().std(0, correction=0)
            scales[m] = x.double().mean(0).float(), torch.where(deviation > 0, deviation, 1.0).float()
    unbounded = {m: replace(s, range=None, unit="1") if m in scales else s for m, s in known.items()}
    return {
        split: replace(d, modalities=unbounded, data={**d.data, **_scaled(d.data, scales)}, scales=scales)
        for split, d in parts.items()
    }


def _scaled(data: Mapping[str, Tensor], scales: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    return {m: (data[m] - mean) / deviation for m, (mean, deviation) in scales.items()}
