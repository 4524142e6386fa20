r"""A training step: operation by operation, or recorded once as a graph of the GPU and replayed.

A small model's step is hundreds of operations of microseconds each, and launching them takes longer than computing
them. A graph launches them at once. What it computes is the same: its operations are those of the step that was
recorded, on tensors that stay in their place, and its random numbers are those that torch's generator would have given
next, so that a run is continued bit for bit from a checkpoint as long as each of its steps is taken in one way. The
checkpoint says which.

A graph holds operations of the GPU alone. A loss that looks at a value (a branch, ``item()``), makes a tensor whose
size depends on values, draws on the CPU, or copies from it is found before anything is recorded, and trained operation
by operation. What Python computes in a step is recorded as it was: such a loss may not count its own calls.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from repro.model import Loss, Stage, TrainableModel, checked_distributions
from repro.training.streams import undone

__all__ = [
    "GRAPHS",
    "STEPS",
    "CapturedStep",
    "EagerStep",
    "backward_pass",
    "chosen_step",
    "obstacle",
    "step_seconds",
    "unchecked",
]

# How a step can be asked for.
STEPS = ("eager", "captured", "auto")
WARM_UPS, TIMED = 3, 20
# Checks of matrices look at values without saying so in their signature.
LOOKING = ("_linalg_check_errors", "is_nonzero", "_assert_async_with_item")

Batch = Mapping[str, Tensor]
Terms = dict[str, Tensor]
# From a step to what replays it, and what it gives, which every replay overwrites.
Capture = Callable[[Callable[[], Terms]], tuple[Callable[[], object], Terms]]


def backward_pass(model: TrainableModel, loss: Loss) -> None:
    """Gradients of the total; or, where there are parts, of each part by the parameters of its group alone.

    Raises:
        ValueError: If the model has no parameter of a part.
    """
    if not loss.parts:
        loss.total.backward()
        return
    for prefix, part in loss.parts.items():
        group = [p for name, p in model.named_parameters() if name.startswith(prefix)]
        if not group:
            raise ValueError(f"the loss has a part for {prefix!r}, the model has no such parameter")
        for parameter, gradient in zip(group, torch.autograd.grad(part, group, retain_graph=True), strict=True):
            parameter.grad = gradient


@dataclass
class EagerStep:
    """A step operation by operation.

    Arguments:
        model: The model.
        stage: The stage that is trained.
        optimizer: Its optimiser.
    """

    model: TrainableModel
    stage: Stage
    optimizer: torch.optim.Optimizer
    name: str = field(default="eager", init=False)

    def __call__(self, batch: Batch) -> Terms:
        """Takes the step; returns the loss and its terms, summed over the samples."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.model.loss(batch, self.stage)
        backward_pass(self.model, loss)
        size = len(next(iter(batch.values())))
        terms = {k: v.detach() * size for k, v in {"loss": loss.total, **loss.terms}.items()}
        self.optimizer.step()
        return terms


def cuda_graph(step: Callable[[], Terms]) -> tuple[Callable[[], object], Terms]:
    """Records a step as a CUDA graph, after steps that let libraries choose their kernels and take their memory."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UPS):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        terms = step()
    return graph.replay, terms


# What records graphs, by the type of the device.
GRAPHS: dict[str, Capture] = {"cuda": cuda_graph}


class CapturedStep:
    """A step that is recorded once for each size of batch and learning rate, and replayed.

    Arguments:
        eager: The step.
        capture: What records it.
    """

    name = "captured"

    def __init__(self, eager: EagerStep, capture: Capture) -> None:
        self.eager, self.capture = eager, capture
        self.graphs: dict[Any, tuple[dict[str, Tensor], Callable[[], object], Terms]] = {}
        self.rates: tuple[float, ...] = ()

    def __call__(self, batch: Batch) -> Terms:
        """Takes the step; returns the loss and its terms, summed over the samples."""
        shapes = tuple((name, tuple(x.shape), x.dtype) for name, x in batch.items())
        rates = tuple(group["lr"] for group in self.eager.optimizer.param_groups)  # a constant of the graphs
        if rates != self.rates:  # which does not come back
            self.graphs.clear()
            self.rates = rates
        if shapes not in self.graphs:
            self.graphs[shapes] = self._recorded(batch)
        inputs, replay, terms = self.graphs[shapes]
        for name, x in batch.items():
            inputs[name].copy_(x)
        replay()
        return {name: value.clone() for name, value in terms.items()}

    def _recorded(self, batch: Batch) -> tuple[dict[str, Tensor], Callable[[], object], Terms]:
        inputs = {name: x.clone() for name, x in batch.items()}
        with undone(self.eager.model, self.eager.optimizer), unchecked(), _capturable(self.eager.optimizer):
            replay, terms = self.capture(lambda: self.eager(inputs))
        return inputs, replay, terms


@contextmanager
def _capturable(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """torch records an optimiser that is said to be capturable; a fused one computes the same either way."""
    for group in optimizer.param_groups:
        group["capturable"] = True
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This instance was constructed with capturable=True")
            yield
    finally:
        for group in optimizer.param_groups:
            group["capturable"] = False


@contextmanager
def unchecked() -> Iterator[None]:
    """Distributions do not look at their arguments: every epoch ends with a look at loss and parameters."""
    with checked_distributions():
        Distribution.set_default_validate_args(False)
        yield


class _Watch(TorchDispatchMode):
    """Notes the first operation that a graph cannot hold."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device, self.seen = device, ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not self.seen:
            self.seen = self._obstacle(func, tree_leaves((args, kwargs or {})), tree_leaves(out))
        return out

    def _obstacle(self, func: Any, inputs: list[Any], outputs: list[Any]) -> str:
        name = func.overloadpacket.__name__
        before, after = ({x.device.type for x in part if isinstance(x, Tensor)} for part in (inputs, outputs))
        if torch.Tag.nondeterministic_seeded in func.tags and (before | after) == {"cpu"}:
            return f"{name} draws on the CPU" if self.device.type != "cpu" else ""
        if self.device.type not in before | after:
            return ""
        if name in ("_to_copy", "copy_", "_copy_from") and len(before | after) > 1:
            return f"{name} copies from one device to another"
        if name in ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"):
            masks = [x for x in inputs if isinstance(x, Tensor) and x.dtype in (torch.bool, torch.uint8)]
            return f"{name} takes a mask, and so many rows as it has" if masks else ""
        if torch.Tag.data_dependent_output in func.tags or name in LOOKING:
            return f"{name} looks at a value"
        return f"{name} gives so many values as it finds" if torch.Tag.dynamic_output_shape in func.tags else ""


def obstacle(step: EagerStep, batch: Batch) -> str:
    """Why a graph cannot hold a step, by a trial that leaves no trace; nothing where it can.

    Arguments:
        step: The step.
        batch: A batch.
    """
    device = next(iter(batch.values())).device
    with undone(step.model, step.optimizer), unchecked():
        step(batch)  # what is made in a first step alone is not what the others do
        with _Watch(device) as watch:
            step(batch)
    return watch.seen


def step_seconds(step: Callable[[], object]) -> float:
    """Seconds of a step on the GPU, as its stream sees them: the median of some, launches included."""
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(TIMED + 1)]
    marks[0].record()
    for mark in marks[1:]:
        step()
        mark.record()
    torch.cuda.synchronize()
    return median(a.elapsed_time(b) for a, b in pairwise(marks)) / 1e3


def chosen_step(
    way: str,
    eager: EagerStep,
    batch: Batch,
    *,
    seconds: Callable[[Callable[[], object]], float] | None = None,
) -> EagerStep | CapturedStep:
    """The step that is asked for, or the one operation by operation with a warning of one line that says why.

    Arguments:
        way: ``"eager"``; ``"captured"``; or ``"auto"`` for the faster of both on this batch, which on the CPU is
            ``"eager"`` without a measurement.
        eager: The step operation by operation.
        batch: A batch of the size that most have.
        seconds: What measures a step; :func:`step_seconds` if None.

    Raises:
        ValueError: If the way is unknown.
    """
    if way not in STEPS:
        raise ValueError(f"step is {way!r}; one of {', '.join(STEPS)}")
    device = next(iter(batch.values())).device.type
    if way == "eager" or (way == "auto" and device == "cpu"):
        return eager
    if device not in GRAPHS:
        return _fallen_back(eager, f"a step is captured on {' or '.join(GRAPHS)}, not on {device}")
    if reason := obstacle(eager, batch):
        return _fallen_back(eager, reason)
    captured = CapturedStep(eager, GRAPHS[device])
    measure = seconds or step_seconds
    try:
        with undone(eager.model, eager.optimizer):
            captured(batch)
            if way == "captured":
                return captured
            times = [measure(lambda step=step: step(batch)) for step in (eager, captured)]
    except RuntimeError as error:  # of a library's operation, which the trial could not see
        return _fallen_back(eager, " ".join(str(error).split())[:200])
    return captured if times[1] < times[0] else eager


def _fallen_back(eager: EagerStep, reason: str) -> EagerStep:
    where = f"stage {eager.stage.name!r} of {type(eager.model).__name__}"
    warnings.warn(f"{where} is trained operation by operation: {reason}", stacklevel=3)
    return eager
