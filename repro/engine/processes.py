"""A process that trains a run together with others, which torchrun started."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed

from repro.training.distributed import Parallel

__all__ = ["joined"]

# The first process evaluates the same as the others; only a lost process keeps one waiting for so long.
SECONDS_UNTIL_LOST = 1800


@contextmanager
def joined(device: str, shards: int | None, environ: Mapping[str, str] = os.environ) -> Iterator[tuple[str, Parallel]]:
    """Joins the processes that torchrun started, if it did; gives this process's device and its place among them.

    Arguments:
        device: ``"cpu"`` or ``"cuda"``.
        shards: Parts that every batch is divided into; one a process if None.
        environ: Where torchrun's variables stand.
    """
    world, rank = int(environ.get("WORLD_SIZE", "1")), int(environ.get("RANK", "0"))
    parallel = Parallel(rank, world, world if shards is None else shards)
    if world == 1:
        yield device, parallel
        return
    if device.startswith("cuda"):
        # Each process sees its own GPU alone, and takes no memory on the others.
        gpus = environ.get("CUDA_VISIBLE_DEVICES", "") or ",".join(map(str, range(world)))
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus.split(",")[int(environ.get("LOCAL_RANK", "0"))]
        device = "cuda:0"
        torch.cuda.set_device(device)
    backend = "nccl" if device.startswith("cuda") else "gloo"
    distributed.init_process_group(backend, timeout=timedelta(seconds=SECONDS_UNTIL_LOST))
    try:
        yield device, parallel
    finally:
        distributed.destroy_process_group()
