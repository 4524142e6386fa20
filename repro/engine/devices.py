"""How many runs this machine executes at once, and which GPUs each of them sees."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice

from repro.errors import UsageError

__all__ = ["available_cores", "default_device", "default_workers", "device_slots", "visible"]


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _number_of_gpus() -> int:
    import torch  # what never asks for a GPU starts without it

    return torch.cuda.device_count()


def default_device(asked: str | None = None) -> str:
    """The device that was asked for; a GPU where there is one, else the CPU, if None.

    Raises:
        UsageError: If it is none that runs are trained on.
    """
    if asked is None:
        return "cuda" if _number_of_gpus() else "cpu"
    if not isinstance(asked, str) or not re.fullmatch(r"cpu|cuda(:\d+)?", asked):
        raise UsageError(f"device is {asked!r}, must be cpu, cuda or cuda:<index>")
    return asked


def _visible_gpus() -> list[str]:
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [n for n in named.split(",") if n.strip()]
    return [str(i) for i in range(_number_of_gpus())]


def default_workers(threads: int = 1) -> int:
    """How many processes train on the CPU unless something else is asked for: one for every ``threads`` cores."""
    return max(1, available_cores() // threads)


def device_slots(
    device: str, *, workers: int | None = None, runs_per_gpu: int = 1, processes: int = 1, threads: int = 1
) -> list[str]:
    """What each worker process sees as CUDA_VISIBLE_DEVICES; as many entries as workers.

    On the CPU a worker is a core, or ``processes`` of them, or ``threads``. On ``"cuda"`` each group of ``processes``
    GPUs has ``runs_per_gpu`` workers; where ``workers`` says how many, they are dealt out in turn.

    Raises:
        UsageError: If a number is under 1, or there are fewer GPUs than one run takes.
    """
    numbers = {"workers": workers, "runs-per-gpu": runs_per_gpu, "processes": processes, "threads": threads}
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise UsageError(f"--{name} is {value}, must be at least 1")
    if device.startswith("cuda:") and int(device.removeprefix("cuda:")) >= len(_visible_gpus()):
        raise UsageError(f"device is {device}, {len(_visible_gpus())} GPUs are visible; see --device")
    if device != "cuda":
        here = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        number = runs_per_gpu if device.startswith("cuda") else default_workers(processes * threads)
        return [here] * (workers or number)
    gpus = _visible_gpus()
    groups = [",".join(gpus[i : i + processes]) for i in range(0, len(gpus) - processes + 1, processes)]
    if not groups:
        raise UsageError(f"a run wants {processes} GPUs, {len(gpus)} are visible; see --device and --processes")
    return list(islice(cycle(groups), workers or runs_per_gpu * len(groups)))


@contextmanager
def visible(gpus: str | None) -> Iterator[None]:
    """The GPUs that a process started within the block sees; None leaves them as they are."""
    name = "CUDA_VISIBLE_DEVICES"
    before = os.environ.get(name)
    if gpus is not None:
        os.environ[name] = gpus
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before
