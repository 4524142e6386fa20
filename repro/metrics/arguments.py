"""What every metric asks of its arguments before it looks at their shapes: that they are tensors."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

__all__ = ["check_samples", "check_tensors"]


def check_tensors(**values: object) -> None:
    """Refuses what is no tensor, by the name that it is given by.

    Raises:
        ValueError: If a value is not a tensor.
    """
    for name, value in values.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{name} is a {type(value).__name__}, must be a tensor")


def check_samples(**sides: object) -> None:
    """Refuses what is no mapping from names of modalities to tensors, by the name that it is given by.

    Raises:
        ValueError: If it is no mapping, or a modality's value is not a tensor.
    """
    for side, samples in sides.items():
        if not isinstance(samples, Mapping):
            raise ValueError(f"{side} is a {type(samples).__name__}, must be a mapping from each modality's name")
        for m, x in samples.items():
            if not isinstance(x, Tensor):
                raise ValueError(f"modality {m!r} of {side} is a {type(x).__name__}, must be a tensor")
