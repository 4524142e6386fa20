"""What a training step of each model costs for 2 to 10 modalities, against the orders of appendix -D.

A run trains one model with M modalities for one epoch; its record's seconds of training are those of the steps. The
modalities are PolyMNIST's five, repeated: what a step costs does not depend on what they show. Importing this module
needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from repro.papers.gmrf_mcvae.copula.experiment import METHODS
from repro.papers.gmrf_mcvae.images.experiment import image_spec, network_arguments
from repro.papers.gmrf_mcvae.images.settings import EXPERIMENTS
from repro.records import Metric, Record, RunSpec, of_profile

if TYPE_CHECKING:
    from torch import Tensor

    from repro.datasets import Dataset
    from repro.datasets.base import ModalitySpec
    from repro.model import MultimodalModel

__all__ = [
    "ORDERS",
    "PROFILES",
    "estimate",
    "figure_samples",
    "is_scaling",
    "load_data",
    "measure",
    "model_arguments",
    "plan",
    "scaling_spec",
    "seconds_per_step",
]

# Appendix -D, with C the cost of a decoder and d the latents of a component; it has no order for MVAE.
ORDERS = {
    "mvae": "—",
    "mmvae": "M² C",
    "mopoe": "2^M C",
    "mmvae_plus": "M² C",
    "gmrf_mcvae": "M² d² + M C",
}
PROFILES: dict[str, dict[str, Any]] = {
    "paper": {"components": tuple(range(2, 11)), "batch_size": 256, "steps": 20},
    "quick": {"components": tuple(range(2, 11)), "batch_size": 32, "steps": 10},
    "smoke": {"components": (2, 3), "batch_size": 4, "steps": 2},
}


def scaling_spec(method: str, components: int, profile: str) -> RunSpec:
    """The specification of one model with M modalities, with the networks and latents of PolyMNIST in the profile.

    Raises:
        ValueError: If the method is unknown, or there are fewer than two components.
    """
    if components < 2:
        raise ValueError(f"components is {components}, must be at least 2")
    settings = of_profile(PROFILES, profile)
    image = image_spec("polymnist", method, 0, profile).params
    batch, steps = settings["batch_size"], settings["steps"]
    params = {
        "model": image["model"],
        "training": {"epochs": 1, "batch_size": batch, "learning_rate": image["training"]["learning_rate"]},
        "data": {"options": image["data"]["options"], "components": components, "samples": batch * steps},
    }
    return RunSpec("gmrf_mcvae", "polymnist", method, 0, profile, params)


def is_scaling(spec: RunSpec) -> bool:
    """Whether a run is one of these, not one of Table II's."""
    return "components" in spec.params["data"]


def plan(profile: str) -> dict[str, list[RunSpec]]:
    """The runs, by method."""
    return {m: [scaling_spec(m, c, profile) for c in of_profile(PROFILES, profile)["components"]] for m in METHODS}


def estimate(spec: RunSpec) -> tuple[float, float]:
    """Seconds on one core and peak megabytes, from the measured seconds of PolyMNIST's steps."""
    each, _ = EXPERIMENTS["polymnist"].profiles[spec.profile]["seconds"]
    m, samples = spec.params["data"]["components"], spec.params["data"]["samples"]
    decodes = {"mvae": 2 * m, "mmvae": m**2, "mopoe": m, "mmvae_plus": m**2, "gmrf_mcvae": m}[spec.method]
    subsets = 2e-4 * 2**m * samples / spec.params["training"]["batch_size"] if spec.method == "mopoe" else 0.0
    return each * samples * (m + decodes) / 10 + subsets + 4.0, 800.0 + 2.0 * decodes * (m if m > 5 else 5)


def load_data(spec: RunSpec) -> dict[str, Dataset]:
    """The first training samples of PolyMNIST; modality i is its modality i mod 5."""
    from repro.datasets import Dataset, load_dataset
    from repro.datasets.base import fingerprint

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
    from repro.datasets.base import specs
    from repro.datasets.card import load_card

    own, count = list(specs(load_card("polymnist")).values()), spec.params["data"]["components"]
    modalities = {f"m{i}": s for i, s in enumerate(_repeated(own, count))}
    if not networks:
        return modalities, dict(spec.params["model"])
    relative = spec.method != "gmrf_mcvae"
    return modalities, network_arguments(spec.params["model"], modalities, beta_is_relative=relative)


def figure_samples(model: MultimodalModel, spec: RunSpec, device: str = "cpu") -> dict[str, Tensor]:
    """Nothing: these runs are about costs."""
    return {}


def measure(model: MultimodalModel, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu") -> list[Metric]:
    """Peak memory and floating point operations of one training step; its seconds are in the record.

    Memory counts what a step allocates beyond what is there before it: activations, gradients, work space.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from repro.model import isolated_rng

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
    import torch

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
    import weakref

    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_map_only

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


def seconds_per_step(record: Record) -> float:
    """Wall-clock seconds of a training step, the optimiser's included."""
    data, training = record.spec.params["data"], record.spec.params["training"]
    return record.training_seconds / (training["epochs"] * data["samples"] / training["batch_size"])
