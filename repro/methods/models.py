"""From what a reader's function returns to a model of the one interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from typing import Any

import torch
from torch import Tensor, nn

from repro.datasets.base import ModalitySpec
from repro.errors import UsageError
from repro.model import Loss, MultimodalModel, Stage, isolated_rng

__all__ = ["Adapted", "attributes", "built", "reason"]

METHODS = ("loss", "generate", "log_likelihood")


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
            known = {k: getattr(inner, k, None) for k in attributes(inner)}
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


def attributes(inner: Any) -> list[str]:
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
        raise UsageError(f"method {name} cannot be built: {reason(error)}") from None
    if dict(made.modalities) != dict(modalities):
        raise UsageError(f"method {name} has modalities {list(made.modalities)}, the table's are {list(modalities)}")
    return made


def reason(error: BaseException) -> str:
    """An exception in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
