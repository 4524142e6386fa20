"""One modality's values, of any real type, as the tensor that a dataset or a model takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from repro.datasets.scalars import whole_number

__all__ = ["as_tensor", "as_type", "unit_values", "whole_number"]


def as_tensor(name: str, value: Any) -> Tensor:
    """A modality's values as a tensor of bytes or of floating-point numbers of 32 bits or more.

    Whole numbers, flags and half precision become float32, which holds them exactly or they are refused; bytes stay
    bytes. No copy is made where none is needed.

    Arguments:
        name: The modality, for the error.
        value: A tensor, a NumPy array, a data frame, or nested lists of numbers.

    Raises:
        ValueError: If the values are no real numbers, some are masked, or float32 cannot hold them; it names the
            modality and the type.
    """
    if np.ma.is_masked(value):
        raise ValueError(f"modality {name!r} has masked values; fill them, or leave their samples out")
    if not isinstance(value, Tensor):
        kind = type(value).__name__
        try:
            array = np.asarray(value.to_numpy() if hasattr(value, "to_numpy") else value)
            if array.dtype == object:  # such as a frame of columns of several types of numbers
                if any(isinstance(x, str | bytes) for x in array.flat):
                    raise TypeError("text")
                array = array.astype(np.float64)
        except (TypeError, ValueError):
            raise ValueError(f"modality {name!r} is a {kind} of values that are not all numbers") from None
        if array.dtype.kind not in "fiub":
            raise ValueError(f"modality {name!r} has values of type {array.dtype}, needs real numbers")
        if array.dtype.itemsize > 8:
            array = array.astype(np.float64)
        little = array.dtype.newbyteorder("=")
        copied = not array.flags.writeable or any(n < 0 for n in array.strides) or array.dtype != little
        wide = array.dtype.kind == "u" and array.dtype.itemsize > 1
        if wide and array.size and int(array.max()) > np.iinfo(np.int64).max:
            raise ValueError(f"modality {name!r} has values of type {array.dtype} that float32 cannot hold")
        array = array.astype(np.int64) if wide else array.astype(little) if copied else array
        value = torch.from_numpy(array)
    if value.is_complex() or value.is_quantized or value.is_meta or value.layout is not torch.strided:
        raise ValueError(f"modality {name!r} has values of type {value.dtype}, needs dense real numbers")
    if value.dtype in (torch.uint8, torch.float32, torch.float64):
        return value
    return as_type(name, value, torch.float32)


def as_type(name: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    """Values in a floating-point type, rounded as that type rounds.

    Arguments:
        name: The modality, for the error.
        value: Numbers of any real type but bytes.
        dtype: The type.

    Raises:
        ValueError: If whole numbers are not held exactly, or finite ones overflow.
    """
    if value.dtype is dtype:
        return value
    found = value.to(dtype)
    if not value.is_floating_point():
        lost = value.dtype is not torch.bool and bool((found.double() != value.double()).any())
        # Doubles hold whole numbers up to 2**53 alone.
        lost = lost or (value.dtype is torch.int64 and bool((value.abs() > 2**53).any()))
    else:
        lost = value.element_size() > found.element_size() and bool((found.isinf() & ~value.isinf()).any())
    if lost:
        kinds = [str(t).removeprefix("torch.") for t in (value.dtype, dtype)]
        raise ValueError(f"modality {name!r} has values of type {kinds[0]} that {kinds[1]} cannot hold")
    return found


def unit_values(x: Tensor) -> Tensor:
    """Bytes as float32 in [0, 1], all else as it is."""
    return x.float().div_(255.0) if x.dtype is torch.uint8 else x
