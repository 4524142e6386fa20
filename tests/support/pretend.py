"""A second device without hardware: a backend of torch's own, whose tensors refuse to meet tensors of the CPU.

``torch.device("pretend")`` is torch's backend for third parties (PrivateUse1) with an implementation in Python: each of
its tensors holds one of the CPU, on which every operation is computed; results equal its own within rounding. What
is checked is what a GPU would refuse:

- an operation on tensors of both devices, but for 0-dimensional ones of the CPU and for indices of the CPU, which a GPU
  takes too;
- a draw on one device by a generator of the other;
- reading memory: ``numpy()``, ``data_ptr()``.

So it sees constants, buffers, masks, noise, labels and batches that stay where they were made, generators on the wrong
device, and results that are written without being fetched. It does not see faults of one GPU among several, of
streams, of memory, of precision (TF32, order of sums), of operations that a GPU lacks, or of compiled and captured
code: those tests run for real where ``devices()`` names ``cuda``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map, tree_map_only
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

__all__ = ["MixedDevicesError", "PretendGenerator", "PretendTensor", "devices", "pretend", "pretending"]

NAME = "pretend"
# Copies from device to device, and what takes indices of the CPU.
COPIES = {"copy_", "_copy_from", "_copy_from_and_resize"}
INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
FILLING = ("copy_.default", "detach.default", "_to_copy.default")
# What torch makes by resizing an empty tensor, which a wrapper's shape would not follow.
FACTORIES = ("eye.default", "eye.m", "arange.default", "arange.start", "arange.start_step", "linspace.default")
FACTORIES += ("logspace.default", "randperm.default", "randperm.generator")
JOINING = {"cat", "stack"}  # which take no number of the CPU


class MixedDevicesError(RuntimeError):
    """An operation on tensors or generators of two devices."""


class PretendGenerator(torch.Generator):
    """A generator whose device can be the pretended one; to stand instead of ``torch.Generator``.

    Its numbers are those of a generator of the CPU with the same seed.
    """

    def __new__(cls, device: torch.device | str = "cpu") -> PretendGenerator:
        """A generator of the CPU, which is asked for where another device than the pretended one is."""
        place = torch.device(device)
        return super().__new__(cls, device="cpu" if place.type == NAME else place)

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.place = torch.device(device)
        if self.place.type == NAME:
            _generators[self._cdata] = self

    @property
    def device(self) -> torch.device:
        """Where it is said to be."""
        return self.place


# Those of the pretended device, by their address: an operation is handed another object for the same generator.
_generators: WeakValueDictionary[int, PretendGenerator] = WeakValueDictionary()


class PretendTensor(Tensor):
    """A tensor of the pretended device; ``held`` is the tensor of the CPU that it is computed by."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> PretendTensor:
        """Of the same type, shape and strides as ``held``."""
        self = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(NAME, 0),
        )
        self.held = held
        return self

    def __repr__(self, **options: Any) -> str:
        """The values, and where they are."""
        return f"PretendTensor({self.held!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        """As a tensor's."""
        with torch.no_grad():
            copy = self.clone()
        if isinstance(self, torch.nn.Parameter):
            copy = torch.nn.Parameter(copy, self.requires_grad)
        memo[id(self)] = copy
        return copy.requires_grad_(self.requires_grad)

    def tolist(self) -> Any:
        """Values fetched from the device, which torch leaves to subclasses."""
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operation."""
        return _compute(func, args, kwargs or {})


def _compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = func.overloadpacket.__name__
    leaves, _ = tree_flatten((args, kwargs))
    wanted = kwargs.get("device")
    first = next((x for x in leaves if isinstance(x, Tensor)), None)
    if wanted is not None:
        there = torch.device(wanted).type == NAME
    elif name in COPIES:
        there = isinstance(args[0], PretendTensor)
    else:
        there = any(isinstance(x, PretendTensor) for x in leaves)
    if name not in COPIES and name != "_to_copy":
        _check(name, args, leaves, there if first is None else any(isinstance(x, PretendTensor) for x in leaves))
    _check_generators(name, leaves, there)
    if name == "resize_":
        raise NotImplementedError("the pretended device does not resize tensors")
    inner = tree_map_only(PretendTensor, lambda x: x.held, (args, kwargs))
    options = {k: "cpu" if k == "device" and v is not None else v for k, v in inner[1].items()}
    if name == "_to_copy" and first is not None and isinstance(first, PretendTensor) != there:
        options.pop("non_blocking", None)
    out = func(*inner[0], **options)
    if not there:
        return out
    wrapped = tree_map(lambda x: PretendTensor(x) if isinstance(x, Tensor) else x, out)
    if first is None:
        return wrapped
    return return_and_correct_aliasing(func, args, kwargs, wrapped)


def _check_generators(name: str, leaves: list[Any], there: bool) -> None:
    for generator in (x for x in leaves if isinstance(x, torch._C.Generator)):
        if (generator._cdata in _generators) != there:
            raise MixedDevicesError(f"{name}: the tensor and the generator are on two devices, {NAME} and cpu")


class _CPUDraws(TorchDispatchMode):
    """Refuses draws on the CPU by generators of the pretended device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        leaves, _ = tree_flatten((args, kwargs or {}))
        place = (kwargs or {}).get("device")
        if not any(isinstance(x, PretendTensor) for x in leaves) and (place is None or place.type == "cpu"):
            _check_generators(func.overloadpacket.__name__, leaves, there=False)
        return func(*args, **(kwargs or {}))


@contextmanager
def pretending() -> Iterator[None]:
    """A block in which ``torch.Generator`` can be of the pretended device."""
    real = torch.Generator
    torch.Generator = PretendGenerator  # type: ignore[misc]
    try:
        with _CPUDraws():
            yield
    finally:
        torch.Generator = real  # type: ignore[misc]


def _check(name: str, args: Any, leaves: list[Any], there: bool) -> None:
    """What a GPU refuses."""
    if not there:
        return
    checked = tree_flatten((args[0], args[2:]))[0] if name in INDEXED and isinstance(args[0], PretendTensor) else leaves
    least = 0 if name in JOINING else 1
    if bad := [x for x in checked if isinstance(x, Tensor) and not isinstance(x, PretendTensor) and x.dim() >= least]:
        raise MixedDevicesError(
            f"{name}: expected all tensors to be on the same device, but found at least two, {NAME} and cpu"
            f" (of shape {tuple(bad[0].shape)})"
        )


class _Module(_DummyBackendModule):
    """What torch asks a backend's module, ``torch.pretend``."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        """The CPU's."""
        return [torch.bfloat16, torch.float16]


@lru_cache
def pretend() -> str:
    """Registers the device, once a process, and returns its name."""
    _setup_privateuseone_for_python_backend(NAME, _Module())
    library = torch.library.Library("_", "IMPL")
    library.fallback(lambda func, *args, **kwargs: _compute(func, args, kwargs), "PrivateUse1")
    # torch.tensor fills a tensor below the level at which tensor subclasses are seen.
    filling = torch.library.Library("aten", "IMPL")
    for name in (*FILLING, *FACTORIES):
        packet, overload = name.split(".")
        func = getattr(getattr(torch.ops.aten, packet), overload)
        where = packet if overload == "default" else name
        filling.impl(where, lambda *args, func=func, **kwargs: _compute(func, args, kwargs), "PrivateUse1")
    # They are there as long as these objects.
    pretend.libraries = (library, filling)  # type: ignore[attr-defined]
    return NAME


def devices() -> list[str]:
    """The devices that a device test runs on here: the pretended one, and a GPU where there is one."""
    return [pretend(), *(["cuda"] if torch.cuda.is_available() else [])]
