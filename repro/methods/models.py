"""From what a reader's function returns to a model of the one interface, and what is checked before any training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from typing import Any

import torch
from torch import Tensor, nn

from repro.datasets.base import ModalitySpec
from repro.errors import UsageError
from repro.model import Loss, MultimodalModel, Stage, isolated_rng

__all__ = ["Adapted", "built", "check_method"]

METHODS = ("loss", "generate", "log_likelihood")
SAMPLES, POINTS = 3, 8  # of the check: samples drawn, data points given


class Adapted(MultimodalModel):
    """An object with ``loss``, ``generate`` and ``log_likelihood`` behind the one interface.

    ``loss(batch)`` gives a scalar or a :class:`~repro.model.Loss`; ``generate(num_samples, given=, generator=,
    sample_likelihood=)`` and ``log_likelihood(batch, given=, num_importance_samples=, generator=)`` are as the
    interface has them, and each may leave out what it does not need, but ``given``.

    Arguments:
        modalities: Name to :class:`~repro.datasets.base.ModalitySpec`.
        inner: The object. Parameters are its own where it is a module, else those of its attributes that are modules or
            parameters.

    Raises:
        ValueError: If it has no parameter to train.
    """

    def __init__(self, modalities: Mapping[str, ModalitySpec], inner: Any) -> None:
        super().__init__(modalities)
        if isinstance(inner, nn.Module):
            self.parts = nn.ModuleDict({"inner": inner})
        else:
            known = {k: getattr(inner, k, None) for k in _attributes(inner)}
            self.parts, self.values = nn.Module(), nn.Module()
            for k, v in known.items():  # with a prefix: an attribute may have the name of one of torch's own
                if isinstance(v, nn.Module):
                    self.parts.add_module(f"of_{k}", v)
                elif isinstance(v, nn.Parameter):
                    self.values.register_parameter(f"of_{k}", v)
        if not any(p.requires_grad for p in self.parameters()):
            raise ValueError(f"{type(inner).__name__} has no parameter to train")
        self._inner = (inner,)  # in a tuple, so that a module is registered once

    @property
    def inner(self) -> Any:
        """The object."""
        return self._inner[0]

    def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
        """The object's own loss of a batch."""
        self.check_batch(batch)
        found = self.inner.loss(dict(batch))
        return found if isinstance(found, Loss) else Loss(found)

    def _generate(
        self,
        num_samples: int,
        *,
        given: Mapping[str, Tensor] | None,
        generator: torch.Generator | None,
        sample_likelihood: bool,
    ) -> dict[str, Tensor]:
        options = {"given": _copied(given), "generator": generator, "sample_likelihood": sample_likelihood}
        self._check_takes("generate", options)
        found = _call(self.inner.generate, num_samples, options, generator)
        if not isinstance(found, Mapping) or set(found) != set(self.modalities):
            return found
        return {m: self._as_own(found[m]) for m in self.modalities}

    def _log_likelihood(
        self,
        batch: Mapping[str, Tensor],
        *,
        given: Mapping[str, Tensor] | None,
        num_importance_samples: int,
        generator: torch.Generator | None,
    ) -> Tensor:
        number = num_importance_samples
        options = {"given": _copied(given), "num_importance_samples": number, "generator": generator}
        self._check_takes("log_likelihood", options)
        return self._as_own(_call(self.inner.log_likelihood, _copied(batch), options, generator))

    def _check_takes(self, name: str, options: Mapping[str, Any]) -> None:
        """Refuses what would be answered as if it had not been asked for."""
        taken = _taken(getattr(self.inner, name), options)
        for option in ("given", "sample_likelihood"):
            asked = options.get(option)
            if asked is not None and asked is not False and option not in taken:
                raise NotImplementedError(f"{type(self.inner).__name__}.{name} takes no {option}")

    def _as_own(self, x: Any) -> Any:
        """A tensor of another real type in that of the parameters, which classifiers and distances expect."""
        return x.to(self.dtype) if isinstance(x, Tensor) and not x.is_complex() else x


def _copied(values: Mapping[str, Tensor] | None) -> dict[str, Tensor] | None:
    """What an object is given of the data, into which it may write."""
    return None if values is None else {m: x.clone() for m, x in values.items()}


def _attributes(inner: Any) -> list[str]:
    """The names of an object's attributes, those of its slots too, private ones as Python mangles them."""
    slots = []
    for kind in type(inner).__mro__:
        names = getattr(kind, "__slots__", ())
        for name in [names] if isinstance(names, str) else names:
            private = name.startswith("__") and not name.endswith("__")
            slots.append(f"_{kind.__name__.lstrip('_')}{name}" if private else name)
    return list(dict.fromkeys([*slots, *getattr(inner, "__dict__", {})]))


def _taken(function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    known = signature(function).parameters
    if any(p.kind is Parameter.VAR_KEYWORD for p in known.values()):
        return dict(options)
    return {k: v for k, v in options.items() if k in known}


def _call(
    function: Callable[..., Any], first: Any, options: Mapping[str, Any], generator: torch.Generator | None
) -> Any:
    """Calls a function with the options that it takes; without a generator of its own it draws from a seeded state."""
    taken = _taken(function, options)
    if "generator" in taken:
        return function(first, **taken)
    with isolated_rng(generator):
        return function(first, **taken)


def built(
    name: str,
    function: Callable[..., Any],
    modalities: Mapping[str, ModalitySpec],
    settings: Mapping[str, Any],
) -> MultimodalModel:
    """What a method's function builds, behind the one interface.

    Arguments:
        name: The method's.
        function: ``function(modalities, **settings)``.
        modalities: Name to :class:`~repro.datasets.base.ModalitySpec`.
        settings: Keyword arguments.

    Raises:
        UsageError: If it raises, or returns anything but a model of these modalities; one line.
    """
    try:
        made = function(dict(modalities), **settings)
        if isinstance(made, type):
            raise TypeError(f"it returns the class {made.__name__}, not a model of that class")
        if not isinstance(made, MultimodalModel):
            lacks = [m for m in METHODS if not callable(getattr(made, m, None))]
            if lacks:
                raise TypeError(f"it returns {type(made).__name__}, which has no {', '.join(lacks)}")
            made = Adapted(modalities, made)
    except (Exception, SystemExit) as error:
        raise UsageError(f"method {name} cannot be built: {_reason(error)}") from None
    if dict(made.modalities) != dict(modalities):
        raise UsageError(f"method {name} has modalities {list(made.modalities)}, the table's are {list(modalities)}")
    return made


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _points(spec: ModalitySpec, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Values of a modality that data could have: uniform in its range, bits, or standard normal."""
    shape = (POINTS, *spec.shape)
    if spec.range is None:
        return torch.randn(shape, generator=generator, dtype=dtype)
    low, high = spec.range
    values = torch.rand(shape, generator=generator, dtype=dtype)
    return low + (high - low) * (values.round() if spec.kind == "binary" else values)


def _check_samples(found: Any, model: MultimodalModel, leading: tuple[int, ...], what: str) -> None:
    names = list(model.modalities)
    if not isinstance(found, Mapping) or list(found) != names:
        got = list(found) if isinstance(found, Mapping) else type(found).__name__
        raise ValueError(f"{what} returns {got}, must be a tensor for each of {names}")
    for m, spec in model.modalities.items():
        x, expected = found[m], (*leading, *spec.shape)
        if not isinstance(x, Tensor):
            raise ValueError(f"{what} returns {m!r} of type {type(x).__name__}, must be a tensor")
        if tuple(x.shape) != expected:
            raise ValueError(f"{what} returns {m!r} of shape {tuple(x.shape)}, must be {expected}")
        if x.dtype != model.dtype:
            raise ValueError(f"{what} returns {m!r} of type {x.dtype}, must be {model.dtype}")
        if not torch.isfinite(x).all():
            raise ValueError(f"{what} returns {m!r} with values that are not finite")


def _check_loss(model: MultimodalModel, data: Mapping[str, Tensor]) -> None:
    total = model.loss(data, model.stages()[0]).total
    if not isinstance(total, Tensor) or total.dim() != 0 or total.is_complex() or not total.requires_grad:
        raise ValueError("loss must be a scalar with a gradient")
    if not math.isfinite(total.item()):
        raise ValueError(f"loss is {total.item()} at the start")
    total.backward()
    found = [p.grad for p in model.parameters() if p.grad is not None]
    if not found:
        raise ValueError("loss has no gradient in any parameter of the model")
    if not all(torch.isfinite(g).all() for g in found):
        raise ValueError("loss has a gradient that is not finite at the start")
    model.zero_grad()


def _check_likelihood(found: Any, what: str) -> None:
    if not isinstance(found, Tensor) or tuple(found.shape) != (POINTS,) or not torch.isfinite(found).all():
        raise ValueError(f"{what} must give {POINTS} finite values for {POINTS} points, in a tensor")


def _check_unchanged(data: Mapping[str, Tensor], before: Mapping[str, Tensor], what: str) -> None:
    """Refuses a model that writes into what it is given, which is the data that it is measured by."""
    if changed := [m for m, x in data.items() if not torch.equal(x, before[m])]:
        raise ValueError(f"{what} writes into the values of {changed[0]!r} that it is given, must leave them")


def check_method(name: str, model: MultimodalModel, *, device: str = "cpu") -> list[str]:
    """Takes a loss and samples of a new model, so that what is wrong is said before anything is trained.

    Arguments:
        name: The method's.
        model: As it was built; its parameters stay as they are.
        device: Where to check.

    Returns:
        What the model does not offer and some tables ask for: a likelihood, or its noise.

    Raises:
        UsageError: If the loss is no finite scalar with a gradient, or samples have wrong names or shapes or are not
            finite; one line.
    """
    missing = []
    draws = torch.Generator(device).manual_seed(0)
    names = list(model.modalities)
    with isolated_rng(0):
        try:
            if model.dtype not in (torch.float32, torch.float64):
                raise TypeError(f"its parameters are {model.dtype}; training takes torch.float32 or torch.float64")
            model.to(device)
            data = {
                m: _points(s, torch.Generator().manual_seed(i), model.dtype).to(device)
                for i, (m, s) in enumerate(model.modalities.items())
            }
            one, others = {names[0]: data[names[0]]}, {m: data[m] for m in names[1:]}
            kept = {k: v.clone() for k, v in model.state_dict().items()}
            as_given = {m: x.clone() for m, x in data.items()}
            model.train()
            _check_loss(model, data)
            _check_unchanged(data, as_given, "loss")
            model.load_state_dict(kept)  # batch normalisation has counted a batch
            model.eval()
            _check_samples(model.generate(SAMPLES, generator=draws), model, (SAMPLES,), "generate")
            drawn = model.generate(SAMPLES, given=one, generator=draws)
            _check_samples(drawn, model, (SAMPLES, POINTS), f"generate given {names[0]!r}")
            _check_unchanged(data, as_given, "generate")
            try:
                drawn = model.generate(SAMPLES, generator=draws, sample_likelihood=True)
                _check_samples(drawn, model, (SAMPLES,), "generate with sample_likelihood")
            except NotImplementedError:
                missing.append("samples of its likelihood")
            options = {"num_importance_samples": 20, "generator": draws}
            try:
                _check_likelihood(model.log_likelihood(data, **options), "log_likelihood")
                if others:
                    found = model.log_likelihood(others, given=one, **options)
                    _check_likelihood(found, f"log_likelihood given {names[0]!r}")
                _check_unchanged(data, as_given, "log_likelihood")
            except NotImplementedError:
                missing.append("a likelihood")
        except (Exception, SystemExit) as error:
            raise UsageError(f"method {name}: {_reason(error)}") from None
    return missing
