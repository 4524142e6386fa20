"""What is checked of a reader's own model before anything is trained, each fault one line."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from repro.datasets.base import ModalitySpec
from repro.errors import UsageError
from repro.methods.models import Adapted, attributes, reason
from repro.model import MultimodalModel, isolated_rng

__all__ = ["check_kept", "check_method"]

SAMPLES, POINTS = 3, 8  # samples drawn, data points given
GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)


def _points(spec: ModalitySpec, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Values of a modality that data could have: uniform in its range, bits, or standard normal."""
    shape = (POINTS, *spec.shape)
    if spec.range is None:
        return torch.randn(shape, generator=generator, dtype=dtype)
    low, high = spec.range
    values = torch.rand(shape, generator=generator, dtype=dtype)
    return low + (high - low) * (values.round() if spec.kind == "binary" else values)


def _data(model: MultimodalModel, device: str) -> dict[str, Tensor]:
    return {
        m: _points(s, torch.Generator().manual_seed(i), model.dtype).to(device)
        for i, (m, s) in enumerate(model.modalities.items())
    }


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


def _leaves(total: Tensor) -> dict[int, Tensor]:
    """The tensors in which a backward pass from a scalar accumulates gradients, by identity."""
    found, seen, nodes = {}, set(), [total.grad_fn]
    while nodes:
        if (node := nodes.pop()) is None or node in seen:
            continue
        seen.add(node)
        if type(node).__name__ == "AccumulateGrad":
            found[id(node.variable)] = node.variable
        nodes += [following for following, _ in node.next_functions]
    return found


def _check_trained(model: MultimodalModel, data: Mapping[str, Tensor], before: Mapping[int, Tensor]) -> None:
    """Refuses a loss whose gradient reaches tensors that no optimizer is given and that were there a loss before.

    Nor may it reach the loss before, as it does through a running mean that is not detached.
    """
    own = {id(p) for p in model.parameters()}
    total = model.loss(data, model.stages()[0]).total
    now = _leaves(total)
    total.backward()
    model.zero_grad()
    if outside := [x for k, x in now.items() if k in before and k not in own]:
        raise ValueError(
            f"loss depends on a tensor of shape {tuple(outside[0].shape)} that is no parameter of the model and would "
            "not be trained: make what holds it a torch.nn.Module or an attribute of its own, or call "
            "requires_grad_(False) where it is to stay as it is"
        )


def _check_loss(model: MultimodalModel, data: Mapping[str, Tensor]) -> dict[int, Tensor]:
    total = model.loss(data, model.stages()[0]).total
    if not isinstance(total, Tensor) or total.dim() != 0 or total.is_complex() or not total.requires_grad:
        raise ValueError("loss must be a scalar with a gradient")
    if not math.isfinite(total.item()):
        raise ValueError(f"loss is {total.item()} at the start")
    leaves = _leaves(total)
    total.backward()
    found = [p.grad for p in model.parameters() if p.grad is not None]
    if not found:
        raise ValueError("loss has no gradient in any parameter of the model")
    if not all(torch.isfinite(g).all() for g in found):
        raise ValueError("loss has a gradient that is not finite at the start")
    model.zero_grad()
    return leaves


def _check_likelihood(found: Any, what: str) -> None:
    if not isinstance(found, Tensor) or tuple(found.shape) != (POINTS,) or not torch.isfinite(found).all():
        raise ValueError(f"{what} must give {POINTS} finite values for {POINTS} points, in a tensor")


def _check_unchanged(data: Mapping[str, Tensor], before: Mapping[str, Tensor], what: str) -> None:
    """Refuses a model that writes into what it is given, which is the data that it is measured by."""
    if changed := [m for m, x in data.items() if not torch.equal(x, before[m])]:
        raise ValueError(f"{what} writes into the values of {changed[0]!r} that it is given, must leave them")


def _copied_state(model: MultimodalModel) -> dict[str, Tensor]:
    state = model.state_dict()
    if other := [k for k, v in state.items() if not isinstance(v, Tensor)]:
        raise TypeError(f"its state has {other[0]!r}, which is no tensor; tensors alone are kept: register_buffer")
    return {k: v.clone() for k, v in state.items()}


def _check_state(state: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> None:
    if new := sorted(state.keys() ^ before.keys()):
        raise ValueError(f"loss creates or removes {new[0]!r} in its state; build has to create all of it")


def check_method(name: str, model: MultimodalModel, *, device: str = "cpu") -> list[str]:
    """Takes a loss and samples of a new model, so that what is wrong is said before anything is trained.

    Arguments:
        name: The method's.
        model: As it was built; its parameters stay as they are.
        device: Where to check.

    Returns:
        What the model does not offer and some tables ask for: a likelihood, or its noise.

    Raises:
        UsageError: If the loss is no finite scalar with a gradient, or depends on what no optimizer is given; if
            samples have wrong names or shapes or are not finite; if parameters or buffers are created late, or are no
            tensors; if it writes into what it is given. One line.
    """
    missing = []
    draws = torch.Generator(device).manual_seed(0)
    names = list(model.modalities)
    with isolated_rng(0):
        try:
            if any(is_lazy(p) for p in model.parameters()):
                raise TypeError("it has lazy layers; give each its sizes, so that build creates all parameters")
            if model.dtype not in (torch.float32, torch.float64):
                raise TypeError(f"its parameters are {model.dtype}; training takes torch.float32 or torch.float64")
            model.to(device)
            data = _data(model, device)
            one, others = {names[0]: data[names[0]]}, {m: data[m] for m in names[1:]}
            kept = _copied_state(model)
            as_given = {m: x.clone() for m, x in data.items()}
            model.train()
            leaves = _check_loss(model, data)
            _check_unchanged(data, as_given, "loss")
            _check_trained(model, data, leaves)
            _check_state(model.state_dict(), kept)
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
            raise UsageError(f"method {name}: {reason(error)}") from None
    return missing


def _holders(model: MultimodalModel) -> list[Any]:
    """What of a model may have attributes of its own: its modules, and the object that it adapts."""
    return [*model.modules(), *([model.inner] if isinstance(model, Adapted) else [])]


def _unkept(model: MultimodalModel) -> dict[tuple[int, str], float | Tensor]:
    """Numbers and plain tensors among a model's attributes, by holder and name; no parameters, no buffers."""
    found: dict[tuple[int, str], float | Tensor] = {}
    for i, holder in enumerate(_holders(model)):
        for name in attributes(holder):
            value = getattr(holder, name, None)
            if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
                if value.layout is torch.strided and not value.is_meta:
                    found[i, name] = value.detach().clone()
            elif isinstance(value, int | float) and not isinstance(value, bool):
                found[i, name] = value
    return found


def _same(one: float | Tensor, other: float | Tensor) -> bool:
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return isinstance(one, Tensor) and isinstance(other, Tensor) and torch.equal(one, other)
    return one == other


def _answers(model: MultimodalModel, data: Mapping[str, Tensor]) -> list[Tensor]:
    """A loss as in training, then joint and conditional samples, all at fixed seeds."""
    first = next(iter(data))
    draws = torch.Generator(data[first].device).manual_seed(0)
    with isolated_rng(0):
        loss = model.train().loss(data, model.stages()[0]).total.detach()
    model.eval()
    with isolated_rng(0), torch.no_grad():
        joint = model.generate(SAMPLES, generator=draws)
        given = model.generate(SAMPLES, given={first: data[first]}, generator=draws)
    return [loss, *joint.values(), *given.values()]


def _answers_of_another(
    make: Callable[[], MultimodalModel], state: Mapping[str, Tensor], data: Mapping[str, Tensor]
) -> list[Tensor]:
    """The same of a model that is built anew and given a state."""
    model = make()
    model.load_state_dict(state)
    return _answers(model, data)


def _alike(one: list[Tensor], other: list[Tensor]) -> bool:
    """Whether two models answer the same, but for the rounding of sums that are taken in another order."""
    return all(torch.allclose(x, y, rtol=1e-5, atol=1e-7, equal_nan=True) for x, y in zip(one, other, strict=True))


def check_kept(name: str, make: Callable[[], MultimodalModel]) -> list[str]:
    """Finds out whether a model is what its parameters and buffers say, which is all that checkpoints keep of it.

    A model that has taken a loss and a new one with its state have to give the same next loss, of the first stage of
    training, and the same samples. Nothing can be told of a model with random generators of its own.

    Arguments:
        name: The method's.
        make: Builds it anew, each time as the first time.

    Returns:
        Names of numbers that change while it trains and are not kept, but show in neither loss nor samples yet.

    Raises:
        UsageError: If the loss or the samples of the two differ; one line.
    """
    try:
        model = make()
        if any(isinstance(getattr(h, k, None), GENERATORS) for h in _holders(model) for k in attributes(h)):
            return []
        data, before = _data(model, "cpu"), _unkept(model)
        as_new = _answers_of_another(make, _copied_state(model), data)
        if not _alike(_answers(model, data), as_new):
            return []  # it draws otherwise, and so it is never twice the same
        after = _unkept(model)
        changed = {k[1]: v for k, v in after.items() if k not in before or not _same(v, before[k])}
        continued = _answers_of_another(make, _copied_state(model), data)
        if not _alike(_answers(model, data), continued):
            what = ", ".join(changed) or "such as a count in a dict"
            raise ValueError(
                f"its loss or samples depend on what its training changes besides parameters and buffers ({what}), "
                "which is lost when it is interrupted: keep it in a buffer of a torch.nn.Module"
            )
    except (Exception, SystemExit) as error:
        raise UsageError(f"method {name}: {reason(error)}") from None
    return [k for k, v in changed.items() if not isinstance(v, Tensor)]
