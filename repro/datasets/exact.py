r"""Random numbers and elementary functions whose every bit is specified.

A generated dataset has one hash on every machine. So randomness is taken as raw 64-bit words from Philox seeded through
``SeedSequence`` (both under NumPy's guarantee of a stable stream, unlike the distributions of ``Generator``), and
functions are evaluated in float64 with elementwise additions, multiplications, divisions and square roots only, each of
which IEEE 754 rounds correctly. No libm, no BLAS, no reduction whose order depends on threads.
"""

from __future__ import annotations

from math import factorial, pi, sqrt
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "choice_below",
    "cosine_sine",
    "exp",
    "log_unit",
    "normal_cdf",
    "normals",
    "permutation",
    "uniforms",
    "words",
]

Words = NDArray[np.uint64]
Floats = NDArray[np.float64]

LOG_2 = 0.6931471805599453


def words(count: int, seed: int, *stream: str | int) -> Words:
    """Independent raw 64-bit words of a named stream; a longer draw begins with the shorter one.

    Arguments:
        count: Number of words.
        seed: The seed that all streams share.
        stream: Names that tell this stream from others.

    Raises:
        ValueError: If the seed is not an integer of at least 0.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed is {seed!r}, must be an integer of at least 0")
    key = tuple(crc32(s.encode()) if isinstance(s, str) else s for s in stream)
    sequence = np.random.SeedSequence(int(seed), spawn_key=key)
    return np.random.Philox(sequence).random_raw(count)


def uniforms(count: int, seed: int, *stream: str | int) -> Floats:
    """Uniform float64 in the open interval (0, 1), multiples of 2^-52 moved up by half a step."""
    return ((words(count, seed, *stream) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def permutation(count: int, seed: int, *stream: str | int) -> NDArray[np.int64]:
    """A uniform random permutation of ``range(count)``: the order of one random word for each."""
    return np.argsort(words(count, seed, *stream), kind="stable").astype(np.int64)


def choice_below(bound: int | NDArray[Any], raw: Words) -> NDArray[np.int64]:
    """Integers in ``[0, bound)``, one from the upper half of each word; the bias is under ``bound / 2^32``."""
    return (((raw >> np.uint64(32)) * np.asarray(bound, dtype=np.uint64)) >> np.uint64(32)).astype(np.int64)


def _polynomial(x: Floats, coefficients: list[float]) -> Floats:
    """Horner's rule, constant term first."""
    result = np.full_like(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        result = result * x + c
    return result


def exp(x: Floats) -> Floats:
    r"""Exponential for :math:`x \in [-50, 0]`: the Taylor series at :math:`x 2^{-6}`, squared six times."""
    result = _polynomial(x * 2.0**-6, [1.0 / factorial(n) for n in range(20)])
    for _ in range(6):
        result = result * result
    return result


def log_unit(x: Floats) -> Floats:
    r"""Natural logarithm of positive numbers, from :math:`\log m = 2 \operatorname{artanh} \frac{m - 1}{m + 1}`."""
    mantissa, exponent = np.frexp(x)
    low = mantissa < 0.75
    mantissa = np.where(low, 2.0 * mantissa, mantissa)
    exponent = exponent.astype(np.float64) - low
    t = (mantissa - 1.0) / (mantissa + 1.0)
    return exponent * LOG_2 + 2.0 * t * _polynomial(t * t, [1.0 / (2 * n + 1) for n in range(14)])


def cosine_sine(angle: Floats) -> tuple[Floats, Floats]:
    r"""Cosine and sine of angles in :math:`[-\pi, \pi]` radians, by their Taylor series."""
    square = angle * angle
    cosine = _polynomial(square, [(-1.0) ** n / factorial(2 * n) for n in range(16)])
    sine = angle * _polynomial(square, [(-1.0) ** n / factorial(2 * n + 1) for n in range(16)])
    return cosine, sine


def normals(count: int, seed: int, *stream: str | int) -> Floats:
    r"""Independent standard normal draws by the Box-Muller transform; a longer draw begins with the shorter one.

    Draws 2k and 2k + 1 are :math:`\sqrt{-2 \log u} \, (\cos 2 \pi v, \sin 2 \pi v)` for uniforms u, v.
    """
    pairs = (count + 1) // 2
    u, v = uniforms(2 * pairs, seed, *stream).reshape(pairs, 2).T
    radius = np.sqrt(-2.0 * log_unit(u))
    cosine, sine = cosine_sine(2.0 * pi * (v - 0.5))  # the opposite point, as uniform as the point itself
    return np.stack([radius * cosine, radius * sine], axis=1).reshape(-1)[:count]


def normal_cdf(x: Floats) -> Floats:
    r"""Standard normal distribution function, by Marsaglia's series.

    .. math:: \Phi(x) = \tfrac12 + \varphi(x) \left(x + \frac{x^3}{3} + \frac{x^5}{3 \cdot 5} + \dots\right)

    The absolute error is under 1e-14 for :math:`|x| < 9`, beyond which the result is 0 or 1.
    """
    x = np.clip(x, -9.0, 9.0)
    square = x * x
    term, total = x, x
    for n in range(3, 401, 2):
        term = term * square / n
        total = total + term
    density = exp(-0.5 * square) / sqrt(2.0 * pi)
    return np.clip(0.5 + density * total, 0.0, 1.0)
