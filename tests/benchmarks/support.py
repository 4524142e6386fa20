"""What the benchmarks share: timing, the machine's matrix-product peak, and whether bfloat16 is worth measuring."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

__all__ = ["measured_dtypes", "peak_flops", "seconds"]


def seconds(call: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def peak_flops(dtype: torch.dtype, n: int = 2048, repetitions: int = 5) -> float:
    """Floating-point operations a second of a product of two n x n matrices, the best of some repetitions."""
    a, b = (torch.randn(n, n).to(dtype) for _ in range(2))
    return 2 * n**3 / min(seconds(lambda: a @ b) for _ in range(repetitions))


def measured_dtypes() -> dict[str, torch.dtype]:
    """Types that hidden layers are measured in: bfloat16 only where it is not slower than float32.

    A processor without units for it emulates bfloat16, several times slower than float32; a small product tells.
    """
    single, half = (peak_flops(d, 512) for d in (torch.float32, torch.bfloat16))
    if half < single:
        print(
            f"  bfloat16 not measured: this processor has no units for it (a small matrix product at "
            f"{half / 1e9:.0f} GFLOP/s, {single / 1e9:.0f} in float32)",
            flush=True,
        )
        return {"float32": torch.float32}
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}
