"""A graph of the pretended device: what a CUDA graph does, with operations recorded and replayed in Python.

A replay computes the recorded operations again, in their order, on the tensors that they had, in whose memory their
results are written; nothing else of the recorded step happens. So a value that Python computes is what it was, a batch
that is not copied to its place is not seen, and random numbers are the next ones of the stream. It does not see what
CUDA refuses (memory from outside, other streams, libraries that cannot be captured).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from repro.training import steps
from tests.support.pretend import PretendTensor, pretend

__all__ = ["capturing", "pretended_graph"]


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, list[Any]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # A tensor of the CPU is a constant, as what a kernel is launched with.
        held = tree_map_only(Tensor, lambda x: x if isinstance(x, PretendTensor) else x.clone(), (args, kwargs))
        out = func(*args, **kwargs)
        outputs = [x for x in tree_leaves(out) if isinstance(x, PretendTensor)]
        if outputs or any(isinstance(x, PretendTensor) for x in tree_leaves((args, kwargs))):
            self.operations.append((func, *held, outputs))
        return out

    @torch.no_grad()
    def replay(self) -> None:
        """Computes everything again."""
        for func, args, kwargs, outputs in self.operations:
            if "empty" in func.overloadpacket.__name__ or func.is_view:
                continue
            again = [x for x in tree_leaves(func(*args, **kwargs)) if isinstance(x, PretendTensor)]
            if not func._schema.is_mutable:
                for place, value in zip(outputs, again, strict=True):
                    place.held.copy_(value.held)


def pretended_graph(step: Callable[[], Any]) -> tuple[Callable[[], object], Any]:
    """Records a step, after one that makes the optimiser's state."""
    step()
    recorder = _Recorder()
    with recorder:
        terms = step()
    return recorder.replay, terms


@contextmanager
def capturing() -> Iterator[None]:
    """A block in which steps can be captured on the pretended device."""
    steps.GRAPHS[pretend()] = pretended_graph
    try:
        yield
    finally:
        del steps.GRAPHS[pretend()]
