"""Single numbers and flags among settings, as plain values of Python; nothing here needs torch or NumPy."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from numbers import Real
from typing import Any

__all__ = ["flag", "real_number", "whole_number"]


def whole_number(name: str, value: Any) -> int:
    """A count, size or seed of any type of whole numbers as an int.

    Raises:
        ValueError: If it is none; it says ``name``.
    """
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"{name} is {value!r}, must be a whole number") from None


def real_number(
    name: str, value: Any, allowed: str = "a finite number", within: Callable[[float], bool] = math.isfinite
) -> float:
    """A weight, scale or share of any type of real numbers as a float.

    A tensor is one if it has no dimensions and no gradient.

    Arguments:
        name: The setting, for the error.
        value: The number.
        allowed: What it must be, for the error.
        within: Whether a finite number is in its range.

    Raises:
        ValueError: If it is none, a truth value, not finite or out of its range; it says all three.
    """
    plain = value
    if getattr(value, "ndim", 1) == 0 and not getattr(value, "requires_grad", True):
        plain = value.item()
    number = math.nan
    if isinstance(plain, Real) and not isinstance(plain, bool):
        try:
            number = float(plain)
        except OverflowError:
            number = math.inf
    if not (math.isfinite(number) and within(number)):
        raise ValueError(f"{name} is {value!r}, must be {allowed}")
    return number


def flag(name: str, value: Any) -> bool:
    """Whether something is done, as a bool.

    Raises:
        ValueError: If it is neither True nor False; it says ``name``.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}, must be True or False")
    return value
