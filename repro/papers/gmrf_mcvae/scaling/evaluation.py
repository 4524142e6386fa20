"""Data, models and measurements of the scaling runs."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from repro.datasets import Dataset, load_dataset
from repro.datasets.base import ModalitySpec, fingerprint, specs
from repro.datasets.card import load_card
from repro.model import MultimodalModel, isolated_rng
from repro.papers.gmrf_mcvae.building import build_method
from repro.papers.gmrf_mcvae.images.building import network_arguments
from repro.records import Metric, RunSpec

__all__ = ["build", "load", "measure", "model_arguments"]


def load(spec: RunSpec) -> dict[str, Dataset]:
    """The first training samples of PolyMNIST; modality i is its modality i mod 5."""
    data = spec.params["data"]
    whole = load_dataset("polymnist", split="train", **data["options"]).first(data["samples"])
    modalities, _ = model_arguments(spec, networks=False)
    images = dict(zip(modalities, _repeated(list(whole.data.values()), len(modalities)), strict=True))
    known = dict(whole.provenance) | {"sha256": fingerprint(images), "components": data["components"]}
    return {"train": Dataset("polymnist", "train", modalities, images, provenance=known)}


def _repeated(values: list[Any], count: int) -> list[Any]:
    return [values[i % len(values)] for i in range(count)]


def model_arguments(spec: RunSpec, *, networks: bool = True) -> tuple[dict[str, ModalitySpec], dict[str, Any]]:
    """Modalities and settings of a run's model, with its networks or as the specification has them."""
    own, count = list(specs(load_card("polymnist")).values()), spec.params["data"]["components"]
    modalities = {f"m{i}": s for i, s in enumerate(_repeated(own, count))}
    if not networks:
        return modalities, dict(spec.params["model"])
    relative = spec.method != "gmrf_mcvae"
    return modalities, network_arguments(spec.params["model"], modalities, beta_is_relative=relative)


def build(spec: RunSpec) -> MultimodalModel:
    """The untrained model of a run."""
    modalities, settings = model_arguments(spec)
    return build_method(spec.method, modalities, **settings)


def measure(model: MultimodalModel, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu") -> list[Metric]:
    """Peak memory and floating point operations of one training step; its seconds are in the record.

    Memory counts what a step allocates beyond what is there before it: activations, gradients, work space.
    """
    model.to(device).train()
    size = spec.params["training"]["batch_size"]
    batch = next(data["train"].to(device).batches(size, shuffle=False))

    def step() -> None:
        model.zero_grad(set_to_none=True)
        model.loss(batch).total.backward()

    with torch.enable_grad(), isolated_rng(0):
        with FlopCounterMode(display=False) as counter:
            step()
        model.zero_grad(set_to_none=True)
        peak = _peak_bytes(step, device)
    model.zero_grad(set_to_none=True)
    text = f"one training step, loss and gradients, of {spec.params['data']['components']} modalities, batch {size}"
    return [
        Metric("step/peak", peak / 1e6, "MB", size, f"{text}; most memory allocated at once beyond the parameters"),
        Metric("step/flops", counter.get_total_flops() / 1e9, "GFLOP", size, f"{text}; products and convolutions"),
    ]


def _peak_bytes(step: Callable[[], None], device: str) -> int:
    """The most bytes that tensors take at once within a step, beyond those before it."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with _allocations() as live:
        step()
    return live.peak


def _allocations() -> Any:
    """A mode under which ``peak`` is the most bytes of the tensors that operations made and that still live.

    What an operation takes for itself and gives back is not seen. PyTorch's profiler would see it, and keep a record of
    each of the millions of events of a step over 2^10 subsets.
    """

    class Allocations(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.live = self.peak = 0
            self.known: weakref.WeakKeyDictionary[Any, None] = weakref.WeakKeyDictionary()

        def note(self, tensor: Tensor, made: bool) -> None:
            storage = tensor.untyped_storage()
            if storage in self.known:
                return
            self.known[storage] = None
            if made:
                self.live += storage.nbytes()
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self.free, storage.nbytes())

        def free(self, size: int) -> None:
            self.live -= size

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            tree_map_only(torch.Tensor, lambda t: self.note(t, made=False), (args, kwargs))
            out = function(*args, **(kwargs or {}))
            tree_map_only(torch.Tensor, lambda t: self.note(t, made=True), out)
            return out

    return Allocations()
