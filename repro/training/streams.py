"""The state of the global random streams, and what a trial of training must leave as it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["random_state", "set_random_state", "undone"]


def random_state() -> dict[str, Tensor]:
    """The state of the global generators of torch, on the CPU and on every GPU, and of NumPy."""
    _, keys, position, has_gauss, cached = np.random.get_state()
    state = {"torch": torch.get_rng_state(), "numpy": torch.from_numpy(keys.astype(np.int64))}
    state["numpy_rest"] = torch.tensor([position, has_gauss, cached], dtype=torch.float64)
    return state | {f"cuda{i}": torch.cuda.get_rng_state(i) for i in range(torch.cuda.device_count())}


def set_random_state(state: Mapping[str, Tensor]) -> None:
    """Puts back what :func:`random_state` gave."""
    torch.set_rng_state(state["torch"])
    position, has_gauss, cached = state["numpy_rest"].tolist()
    keys = state["numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, int(position), int(has_gauss), cached))
    for index in range(torch.cuda.device_count()):
        if f"cuda{index}" in state:
            torch.cuda.set_rng_state(state[f"cuda{index}"], index)


@contextmanager
def undone(*parts: nn.Module | torch.optim.Optimizer) -> Iterator[None]:
    """A block of trial steps that leaves no trace: values of models and optimisers and random streams are put back.

    Tensors keep their place in memory. What an optimiser's state has for the first time within the block becomes zero,
    as it is before the first step of Adam. Gradients are dropped.
    """
    models = [p for p in parts if isinstance(p, nn.Module)]
    optimizers = [p for p in parts if isinstance(p, torch.optim.Optimizer)]
    tensors = [x for m in models for x in (*m.parameters(), *m.buffers())]
    kept = [(x, x.detach().clone()) for x in (*tensors, *_state(optimizers))]
    streams = random_state()
    try:
        yield
    finally:
        with torch.no_grad():
            for x in _state(optimizers):
                x.zero_()
            for x, value in kept:
                x.copy_(value)
        for model in models:
            model.zero_grad(set_to_none=True)
        set_random_state(streams)


def _state(optimizers: list[torch.optim.Optimizer]) -> list[Tensor]:
    return [x for o in optimizers for s in o.state.values() for x in s.values() if isinstance(x, Tensor)]
