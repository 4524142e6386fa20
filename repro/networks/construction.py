"""How a module was built: its class and arguments as plain values, and the same module again from them.

Every model of the package, and every network that a model can be given, remembers the arguments that it was made with.
They become JSON that names classes by the registry below, never by an import path, and nothing else of a file decides
what is called. Classes from outside the package are named too, and are imported on the reader's consent alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from importlib import import_module
from inspect import Parameter, isclass, signature
from typing import Any, TypeVar

import torch
from torch import nn

__all__ = ["CLASSES", "Construction", "construction_of", "decode", "encode", "rebuildable", "recording", "unrecorded"]

Cls = TypeVar("Cls", bound=type)

# Names in files, and where the package has the class today: what is saved stays readable when a module moves.
CLASSES: Mapping[str, tuple[str, str]] = {
    "ModalitySpec": ("repro.datasets.base", "ModalitySpec"),
    "VPSDE": ("repro.distributions.diffusion", "VPSDE"),
    "GMRFMCVAE": ("repro.papers.gmrf_mcvae.model", "GMRFMCVAE"),
    "ALMRFMVAE": ("repro.papers.mrf_mvae.almrf", "ALMRFMVAE"),
    "NNMRFMVAE": ("repro.papers.mrf_mvae.nnmrf", "NNMRFMVAE"),
    "ChainSettings": ("repro.papers.mrf_mvae.neural_prior", "ChainSettings"),
    "CoVAE": ("repro.papers.covae.model", "CoVAE"),
    "covae.FlatEncoder": ("repro.papers.covae.networks", "_Flat"),
    "covae.ImageEncoder": ("repro.papers.covae.networks", "_Image"),
    "covae.JointEncoder": ("repro.papers.covae.networks", "JointEncoder"),
    "SBMVAE": ("repro.papers.sbm_vae.model", "SBMVAE"),
    "Autoencoders": ("repro.papers.sbm_vae.autoencoders", "Autoencoders"),
    "ContrastiveEncoders": ("repro.papers.sbm_vae.guidance", "ContrastiveEncoders"),
    "LatentScore": ("repro.papers.sbm_vae.score", "LatentScore"),
    "PairEnergy": ("repro.papers.sbm_vae.guidance", "PairEnergy"),
    "SamplingSettings": ("repro.papers.sbm_vae.sampling", "SamplingSettings"),
    "sbm_vae.Decoder": ("repro.papers.sbm_vae.building", "_Decoder"),
    "sbm_vae.GaussianHeads": ("repro.papers.sbm_vae.building", "_GaussianHeads"),
    "FaceBaseline": ("repro.papers.sbm_vae.celeba.models", "FaceBaseline"),
    "faces.Decoder": ("repro.papers.sbm_vae.celeba.models", "_Decoder"),
    "faces.Encoder": ("repro.papers.sbm_vae.celeba.models", "_Encoder"),
    "compare.Heads": ("repro.papers.compare.building", "_Heads"),
    "compare.Joined": ("repro.papers.compare.building", "_Joined"),
    "compare.Means": ("repro.papers.compare.building", "_Means"),
    "compare.Rows": ("repro.papers.compare.building", "_Rows"),
    "StructuredAutoencoders": ("repro.papers.compare.priors.model", "StructuredAutoencoders"),
    "Baseline": ("repro.baselines.models", "Baseline"),
    "BaselineSettings": ("repro.baselines.models", "BaselineSettings"),
    "ConcatenatedEncoder": ("repro.baselines.models", "_ConcatenatedEncoder"),
    "GaussianMLPEncoder": ("repro.networks.mlp", "GaussianMLPEncoder"),
    "HiddenLayers": ("repro.networks.mlp", "HiddenLayers"),
    "MLP": ("repro.networks.mlp", "MLP"),
    "OmicsDecoder": ("repro.networks.omics", "OmicsDecoder"),
    "OmicsEncoder": ("repro.networks.omics", "OmicsEncoder"),
    "ResNetDecoder": ("repro.networks.resnet", "ResNetDecoder"),
    "ResNetEncoder": ("repro.networks.resnet", "ResNetEncoder"),
    "SoftIntroDecoder": ("repro.networks.soft_intro", "SoftIntroDecoder"),
    "SoftIntroEncoder": ("repro.networks.soft_intro", "SoftIntroEncoder"),
    "vaegan.Decoder": ("repro.networks.vaegan", "Decoder"),
    "vaegan.Encoder": ("repro.networks.vaegan", "Encoder"),
}
NAMES = {place: name for name, place in CLASSES.items()}
# What files name classes that have become one with another.
FORMER = {
    "FaceJointBaseline": "FaceBaseline",
    "JointBaseline": "Baseline",
    "JointBaselineSettings": "BaselineSettings",
}

_CONVOLUTION = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
_NORM = ("num_features", "eps", "momentum", "affine", "track_running_stats")
# Layers of torch itself, which keep their arguments as attributes. ``bias`` is a parameter there, or None.
LAYERS: Mapping[str, tuple[str, ...]] = {
    "BatchNorm1d": _NORM,
    "BatchNorm2d": _NORM,
    "Conv1d": (*_CONVOLUTION, "bias"),
    "Conv2d": (*_CONVOLUTION, "bias"),
    "ConvTranspose1d": (*_CONVOLUTION, "output_padding", "bias"),
    "ConvTranspose2d": (*_CONVOLUTION, "output_padding", "bias"),
    "Dropout": ("p",),
    "ELU": ("alpha",),
    "Flatten": ("start_dim", "end_dim"),
    "GELU": ("approximate",),
    "GroupNorm": ("num_groups", "num_channels", "eps", "affine"),
    "Identity": (),
    "LayerNorm": ("normalized_shape", "eps", "elementwise_affine", "bias"),
    "LeakyReLU": ("negative_slope",),
    "Linear": ("in_features", "out_features", "bias"),
    "ReLU": (),
    "SiLU": (),
    "Sigmoid": (),
    "Softplus": ("beta", "threshold"),
    "Tanh": (),
    "Unflatten": ("dim", "unflattened_size"),
    "Upsample": ("size", "scale_factor", "mode", "align_corners"),
}
SEQUENTIAL = "torch.nn.Sequential"
DTYPES = ("float64", "float32", "bfloat16", "float16")


@dataclass(eq=False)
class Construction:
    """What one module was made from; a module that two parts share has one of them.

    Arguments:
        name: Name of its class in files.
        arguments: Argument to plain value or to another construction; None where the class does not record them.
    """

    name: str
    arguments: dict[str, Any] | None


def _name(cls: type) -> str:
    """The registry's name, torch's layer, or module and class of what is outside the package."""
    place = (cls.__module__, cls.__qualname__)
    if place in NAMES:
        return NAMES[place]
    if vars(nn).get(cls.__name__) is cls and (cls.__name__ in LAYERS or cls is nn.Sequential):
        return f"torch.nn.{cls.__name__}"
    return ":".join(place)


def recording(init: Callable[..., None]) -> Callable[..., None]:
    """An ``__init__`` that keeps its resolved arguments with the module.

    Of nested calls the outermost counts, and only where it is the class's own: a class that adds an ``__init__`` which
    is not recorded has no known arguments.
    """
    known = signature(init)
    rest = next((p.name for p in known.parameters.values() if p.kind is Parameter.VAR_KEYWORD), None)

    @wraps(init)
    def recorded(self: nn.Module, *arguments: Any, **options: Any) -> None:
        if type(self).__init__ is recorded and "_construction" not in self.__dict__:
            try:
                bound = known.bind(self, *arguments, **options)
            except TypeError:
                pass  # the call itself says what is wrong
            else:
                bound.apply_defaults()
                _, *values = bound.arguments.items()
                given = dict(values)
                given |= given.pop(rest, {}) if rest else {}
                kept = {k: _kept(v) for k, v in given.items()}
                self.__dict__["_construction"] = Construction(_name(type(self)), kept)
        init(self, *arguments, **options)

    recorded.records = True  # type: ignore[attr-defined]
    return recorded


def rebuildable(cls: Cls) -> Cls:
    """Class decorator of a network whose arguments are kept, so that a saved model can be built with it again."""
    if not getattr(cls.__init__, "records", False):
        cls.__init__ = recording(cls.__init__)
    return cls


def construction_of(module: nn.Module) -> Construction:
    """What a module was made from."""
    found = module.__dict__.get("_construction")
    if found is None:
        found = Construction(_name(type(module)), _layer(module))
        module.__dict__["_construction"] = found
    return found


def _layer(module: nn.Module) -> dict[str, Any] | None:
    cls = type(module)
    if cls is nn.Sequential:
        return {"layers": [construction_of(layer) for layer in module]}
    if vars(nn).get(cls.__name__) is not cls or cls.__name__ not in LAYERS:
        return None
    values = {k: getattr(module, k) for k in LAYERS[cls.__name__]}
    return {k: v is not None if k == "bias" else _kept(v) for k, v in values.items()}


def _kept(value: Any) -> Any:
    """A value that later changes of the caller's containers do not reach, modules replaced by their constructions."""
    if isinstance(value, nn.ModuleDict):
        return {k: construction_of(v) for k, v in value.items()}
    if isinstance(value, nn.Module):
        return construction_of(value)
    if isinstance(value, Mapping):
        return {k: _kept(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_kept(v) for v in value) if type(value) in (list, tuple) else tuple(map(_kept, value))
    return value


def encode(module: nn.Module) -> dict[str, Any]:
    """How a module was built, as JSON values.

    Every object of the result has one field that says what it is: ``class`` (with ``arguments``; null where they are
    not known), ``mapping``, ``tuple``, ``float`` (no finite one), ``dtype``, ``layer`` (a class of layers), or
    ``same``, the ``id`` of an object that stands in two places.

    Raises:
        ValueError: If an argument is no plain value; it names it.
    """
    return _Encoder().value(construction_of(module), type(module).__name__)


class _Encoder:
    def __init__(self) -> None:
        self.seen: dict[int, dict[str, Any]] = {}
        self.shared = 0

    def _construction(self, value: Construction, where: str) -> dict[str, Any]:
        if (first := self.seen.get(id(value))) is not None:
            if "id" not in first:
                first["id"], self.shared = self.shared, self.shared + 1
            return {"same": first["id"]}
        found = self.seen[id(value)] = {"class": value.name, "arguments": None}
        if value.arguments is not None:
            found["arguments"] = {k: self.value(v, f"{where}.{k}") for k, v in value.arguments.items()}
        return found

    def value(self, value: Any, where: str) -> Any:
        if isinstance(value, Construction):
            return self._construction(value, where)
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {"float": str(value)}
        if isinstance(value, Mapping) and all(type(k) is str for k in value):
            return {"mapping": {k: self.value(v, f"{where}[{k!r}]") for k, v in value.items()}}
        if isinstance(value, list | tuple):
            found = [self.value(v, f"{where}[{i}]") for i, v in enumerate(value)]
            return found if isinstance(value, list) else {"tuple": found}
        if isinstance(value, torch.dtype) and str(value).removeprefix("torch.") in DTYPES:
            return {"dtype": str(value).removeprefix("torch.")}
        if isclass(value) and value.__name__ in LAYERS and getattr(nn, value.__name__) is value:
            return {"layer": value.__name__}
        if is_dataclass(value) and (type(value).__module__, type(value).__qualname__) in NAMES:
            given = {f.name: getattr(value, f.name) for f in fields(value) if f.init}
            encoded = {k: self.value(v, f"{where}.{k}") for k, v in given.items()}
            return {"class": _name(type(value)), "arguments": encoded}
        raise ValueError(f"{where} is a {type(value).__name__}, which no file can describe; the model is not saved")


def unrecorded(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Where classes from outside the package stand in an encoding, and their names."""
    if isinstance(value, list):
        for i, item in enumerate(value):
            yield from unrecorded(item, f"{where}[{i}]")
    elif isinstance(value, dict):
        if isinstance(name := value.get("class"), str) and ":" in name:
            yield where, name
        for key in ("arguments", "mapping", "tuple"):
            inside = value.get(key)
            for k, v in inside.items() if isinstance(inside, dict) else enumerate(inside or ()):
                yield from unrecorded(v, f"{where}.{k}".lstrip(".") if key == "arguments" else f"{where}[{k!r}]")


def decode(
    value: Any, *, trusted: bool = False, own: type | None = None, given: Mapping[str, Any] | None = None
) -> Any:
    """What an encoding describes, built anew.

    Arguments:
        value: As :func:`encode` gives it; it may come from anyone.
        trusted: Whether classes from outside the package may be imported from the reader's environment.
        own: A class from outside the package that the caller names, which may be built without ``trusted``.
        given: Arguments of the outermost class to take instead of the encoded ones, such as networks.

    Raises:
        ValueError: If it is no such encoding, a class is unknown or not trusted, or does not take the arguments.
    """
    return _Decoder(trusted, own).built(value, given or {})


class _Decoder:
    def __init__(self, trusted: bool, own: type | None) -> None:
        self.trusted, self.own = trusted, own
        self.known: dict[int, Any] = {}

    def value(self, value: Any) -> Any:
        if value is None or type(value) in (bool, int, float, str):
            return value
        if isinstance(value, list):
            return [self.value(v) for v in value]
        if not isinstance(value, dict) or not ("class" in value or len(value) == 1):
            raise ValueError(f"{str(value)[:60]} describes nothing")
        if "class" in value:
            return self.built(value, {})
        ((kind, inside),) = value.items()
        if kind == "mapping" and isinstance(inside, dict):
            return {k: self.value(v) for k, v in inside.items()}
        if kind == "tuple" and isinstance(inside, list):
            return tuple(self.value(v) for v in inside)
        if kind == "float" and inside in ("inf", "-inf", "nan"):
            return float(inside)
        if kind == "dtype" and inside in DTYPES:
            return getattr(torch, inside)
        if kind == "layer" and isinstance(inside, str) and inside in LAYERS:
            return getattr(nn, inside)
        if kind == "same" and type(inside) is int and inside in self.known:
            return self.known[inside]
        raise ValueError(f"{str(value)[:60]} describes nothing")

    def built(self, value: Any, given: Mapping[str, Any]) -> Any:
        """The object of a class with its arguments."""
        stated = set(value) if isinstance(value, dict) else set()
        if not {"class", "arguments"} <= stated <= {"class", "arguments", "id"} or type(value["class"]) is not str:
            raise ValueError(f"{str(value)[:60]} describes no class")
        name, arguments = value["class"], value["arguments"]
        cls = self._class(name, arguments)
        if not isinstance(arguments, dict):
            raise ValueError(f"{name} has the arguments {str(arguments)[:60]}")
        options = {k: self.value(v) for k, v in arguments.items() if k not in given} | dict(given)
        made = self._called(name, cls, options)
        if type(value.get("id")) is int:
            self.known[value["id"]] = made
        return made

    def _called(self, name: str, cls: type, options: Mapping[str, Any]) -> Any:
        parameters = signature(cls).parameters.values()
        accepted = {"layers"} if name == SEQUENTIAL else {p.name for p in parameters}
        if unknown := sorted(set(options) - accepted):
            raise ValueError(f"{name} has no arguments {unknown}")
        try:
            return nn.Sequential(*options["layers"]) if name == SEQUENTIAL else cls(**options)
        except (TypeError, ValueError, KeyError, RuntimeError, AttributeError, MemoryError, OverflowError) as error:
            raise ValueError(f"{name} cannot be built ({' '.join(str(error).split())})") from None

    def _class(self, name: str, arguments: Any) -> type:
        if (name := FORMER.get(name, name)) in CLASSES:
            module, leaf = CLASSES[name]
            return vars(import_module(module))[leaf]
        if name.startswith("torch.nn.") and ((leaf := name.removeprefix("torch.nn.")) in LAYERS or name == SEQUENTIAL):
            return getattr(nn, leaf)
        module, colon, leaf = name.partition(":")
        if not colon or module.split(".")[0] == "repro":
            raise ValueError(f"there is no class {name!r} in this package")
        if arguments is None:
            raise ValueError(
                f"the arguments of {name}, a class from outside this package, are not in the file; give the network as "
                f"an argument, or decorate the class with repro.rebuildable and save again"
            )
        if self.own is not None and (module, leaf) == (self.own.__module__, self.own.__qualname__):
            return self.own
        if not self.trusted:
            raise ValueError(
                f"{name} is a class from outside this package; give the network as an argument, or pass "
                f"trust_classes=True to import it from your own environment"
            )
        try:
            found: Any = import_module(module)
            for part in leaf.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(f"{name} is not in your environment ({' '.join(str(error).split())})") from None
        if not isclass(found) or not issubclass(found, nn.Module) or not getattr(found.__init__, "records", False):
            raise ValueError(f"{name} is no network that repro.rebuildable decorates")
        return found
