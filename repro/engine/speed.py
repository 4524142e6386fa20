"""How fast this machine is at what decides the time of a training step: measured once, in about a second, and kept."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from importlib import metadata
from pathlib import Path

from repro.datasets.places import cache_root
from repro.engine.environment import bfloat16_units, cpu_model
from repro.engine.store import write_atomically
from repro.errors import RunError

__all__ = ["REFERENCE", "Speed", "cached_speed", "describe", "measure_speed", "speed"]

REPETITIONS = 5


@dataclass(frozen=True)
class Speed:
    """What one core does.

    Arguments:
        products: Matrix products in float32, in GFLOP/s.
        products_bfloat16: The same in bfloat16, emulated where the CPU has no units for it.
        convolutions: Convolutions of 3 x 3 in float32, forward and backward, in GFLOP/s.
        convolutions_bfloat16: The same in bfloat16.
        operation: Seconds that a small operation takes, with its gradient, whatever it computes.
        bandwidth: Memory traffic of operations on large tensors, in GB/s.
    """

    products: float
    products_bfloat16: float
    convolutions: float
    convolutions_bfloat16: float
    operation: float
    bandwidth: float

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 < value < float("inf"):
                raise ValueError(f"{name} is {value}, must be positive")


def _best(step: Callable[[], object]) -> float:
    """The least seconds of the thread's own processor time, which work beside it changes little."""
    step()
    found = []
    for _ in range(REPETITIONS):
        start = time.thread_time()
        step()
        found.append(time.thread_time() - start)
    return max(1e-9, min(found))


def measure_speed() -> Speed:
    """Measures one core, in about a second."""
    import torch  # what was measured before is read without it

    def product(dtype: torch.dtype, size: int) -> float:
        a, b = torch.ones(size, size, dtype=dtype), torch.ones(size, size, dtype=dtype)
        return 2 * size**3 / _best(lambda: a @ b) / 1e9

    def convolution(dtype: torch.dtype, batch: int) -> float:
        layer = torch.nn.Conv2d(64, 64, 3, padding=1).to(dtype).to(memory_format=torch.channels_last)
        x = torch.ones(batch, 64, 14, 14, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_()

        def step() -> None:
            layer(x).sum().backward()

        return 3 * 2 * batch * 14 * 14 * 64 * 64 * 9 / _best(step) / 1e9

    def small() -> None:
        x = torch.ones(8, 8, requires_grad=True)
        y = x
        for _ in range(100):
            y = y * 1.01 + x
        y.sum().backward()

    large = torch.ones(16_000_000)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            # Emulated bfloat16 is slower by an order of magnitude: a smaller product tells as much.
            half = 512 if bfloat16_units() else 192
            return Speed(
                products=product(torch.float32, 512),
                products_bfloat16=product(torch.bfloat16, half),
                convolutions=convolution(torch.float32, 32),
                convolutions_bfloat16=convolution(torch.bfloat16, 32 if bfloat16_units() else 4),
                operation=_best(small) / 500,  # two operations forward, three backward
                bandwidth=2 * large.nbytes / _best(lambda: large.mul_(1.0)) / 1e9,
            )
    finally:
        torch.set_num_threads(threads)


# One core of an AMD EPYC of the fourth generation with bfloat16 units, on which the papers' packages state seconds of
# what is not counted in operations (measured by this module, torch 2.11).
REFERENCE = Speed(
    products=84.0,
    products_bfloat16=217.0,
    convolutions=96.0,
    convolutions_bfloat16=188.0,
    operation=3.3e-06,
    bandwidth=45.0,
)


def _path() -> Path:
    limits = [os.environ.get(n, "") for n in ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS")]
    what = [cpu_model(), os.cpu_count(), metadata.version("torch"), *limits]
    return cache_root() / "speed" / f"{sha256(json.dumps(what).encode()).hexdigest()[:16]}.json"


def cached_speed() -> Speed | None:
    """What was measured earlier on this kind of machine, None if nothing was; torch is not needed."""
    try:
        value = json.loads(_path().read_text(encoding="utf-8"))
        return Speed(**{f.name: float(value[f.name]) for f in fields(Speed)})
    except (OSError, ValueError, KeyError, TypeError):  # not there, or another version's: it is measured anew
        return None


def speed() -> Speed:
    """What was measured earlier on this kind of machine, else measured now and kept where the cache can be written."""
    if (known := cached_speed()) is not None:
        return known
    found = measure_speed()
    with suppress(RunError, OSError):  # a cache that cannot be written, or is nowhere, costs a second the next time
        write_atomically(_path(), json.dumps(asdict(found)))
    return found


def describe(found: Speed) -> list[str]:
    """What was measured, in lines for people."""
    return [
        f"matrix products {found.products:.0f} GFLOP/s in float32, {found.products_bfloat16:.0f} in bfloat16",
        f"convolutions {found.convolutions:.0f} GFLOP/s in float32, {found.convolutions_bfloat16:.0f} in bfloat16",
        f"{1e6 * found.operation:.1f} us a small operation, {found.bandwidth:.0f} GB/s of memory traffic",
    ]
