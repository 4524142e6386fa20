"""What networks consist of and cost: layers in call order, floating point operations, parameters, and seconds."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

__all__ = ["Flops", "LayerCall", "count_flops", "count_parameters", "timed", "trace_layers"]

T = TypeVar("T")


@dataclass(frozen=True)
class Flops:
    """Floating point operations of one pass of a mini-batch, a multiplication and an addition counted as two.

    Arguments:
        forward: Operations of the forward pass of the mini-batch.
        backward: Operations of its backward pass.
        batch_size: Samples in the mini-batch.
    """

    forward: int
    backward: int
    batch_size: int

    @property
    def total(self) -> int:
        """Forward and backward, of the mini-batch."""
        return self.forward + self.backward

    @property
    def per_sample(self) -> float:
        """Forward and backward, of one sample."""
        return self.total / self.batch_size


def count_flops(module: nn.Module, shape: Sequence[int], *, batch_size: int = 1, input_gradient: bool = True) -> Flops:
    r"""Counts the operations of a forward and a backward pass.

    Matrix products and convolutions are counted, with :class:`torch.utils.flop_counter.FlopCounterMode`; additions of
    biases, activations, pooling and upsampling are not. A linear layer from n to m features costs :math:`2 n m` a
    sample forward, :math:`2 n m` backward for its weights and :math:`2 n m` for its input. The passes run on tensors
    without storage: nothing is computed, the module's gradients stay, and no random number is drawn.

    Arguments:
        module: Takes one tensor; its outputs, all of them, are differentiated.
        shape: Shape of one sample, without the batch dimension.
        batch_size: Samples in the mini-batch.
        input_gradient: Whether the backward pass reaches the input: true for a decoder, which passes the gradient on
            to the encoder, false for an encoder of data.

    Raises:
        ValueError: If ``batch_size`` is under 1.
    """
    from torch.utils.flop_counter import FlopCounterMode  # 50 MB of triton, which nothing else here needs

    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, must be at least 1")
    x = torch.empty(batch_size, *shape, device="meta", requires_grad=input_gradient)
    tensors = {n: _without_storage(t) for n, t in (*module.named_parameters(), *module.named_buffers())}
    with FlopCounterMode(display=False) as forward:
        out = functional_call(module, tensors, (x,))
    total = sum((t.sum() for t in tree_leaves(out)), start=torch.zeros((), device="meta"))
    wanted = [t for t in (x, *tensors.values()) if t.requires_grad]
    with FlopCounterMode(display=False) as backward:
        if wanted:
            torch.autograd.grad(total, wanted, allow_unused=True)
    return Flops(forward.get_total_flops(), backward.get_total_flops(), batch_size)


def _without_storage(t: Tensor) -> Tensor:
    return torch.empty_like(t, device="meta", requires_grad=t.requires_grad)


def count_parameters(module: nn.Module) -> int:
    """Number of trainable parameters; one that is used twice counts once.

    Arguments:
        module: Any module.
    """
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer.

    Arguments:
        name: The layer's name within the traced module.
        layer: The layer.
        shape: Shape of its result for one sample.
    """

    name: str
    layer: nn.Module
    shape: tuple[int, ...]


def trace_layers(
    module: nn.Module,
    shape: Sequence[int],
    *,
    run: Callable[[Tensor], object] | None = None,
    whole: tuple[type[nn.Module], ...] = (),
) -> list[LayerCall]:
    """The layers of a module in the order in which they are called; one that is called twice appears twice.

    Arguments:
        module: A module on the meta device, so that nothing is computed.
        shape: Shape of one sample, without the batch dimension.
        run: What is called on the sample; the module itself if None.
        whole: Types that count as one layer, whatever they hold.

    Raises:
        ValueError: If a parameter of the module is on another device.
    """
    if devices := {p.device.type for p in module.parameters()} - {"meta"}:
        raise ValueError(f"the module is on {', '.join(sorted(devices))}, layers are traced on the meta device")
    calls: list[LayerCall] = []

    def record(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        return lambda layer, _, out: calls.append(LayerCall(name, layer, tuple(out.shape[1:])))

    def watch(parent: nn.Module, prefix: str) -> list[RemovableHandle]:
        handles = []
        for name, child in parent.named_children():
            if isinstance(child, whole) or not any(True for _ in child.children()):
                handles.append(child.register_forward_hook(record(prefix + name)))
            else:
                handles += watch(child, f"{prefix}{name}.")
        return handles

    handles = watch(module, "")
    try:
        (run or module)(torch.empty(1, *shape, device="meta"))
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def timed(call: Callable[[], T], device: str, *, processor: bool = False) -> tuple[T, float]:
    """What a call returns, and its seconds; a GPU has ended its work.

    Arguments:
        call: What to call, once.
        device: Where it computes.
        processor: Whether a call on the CPU is given the seconds of this process's processor, which other processes do
            not lengthen, instead of the wall clock's.
    """
    gpu = device.startswith("cuda")
    clock = _processor_seconds if processor and not gpu else time.perf_counter
    start = clock()
    found = call()
    if gpu:
        torch.cuda.synchronize(device)
    return found, clock() - start
