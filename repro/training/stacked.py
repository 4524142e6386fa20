r"""Several seeds of one model trained in one process, the losses of all by one call.

The parameters :math:`\theta_s` of the seeds are stacked, and :func:`torch.func.vmap` computes

.. math:: \nabla_\theta L(\theta_s; x_s, \epsilon_s), \quad s = 1, \dots, S

with so many operations as one seed takes. Everything else is each seed's own: its data, the order of its samples, its
optimiser, its checkpoint, which a run alone continues and which continues one. So is its noise :math:`\epsilon_s`: what
the loss draws is drawn beforehand from the seed's own random stream, in its order, and handed to the loss in place of
its draws. A seed has therefore the parameters that it has alone within rounding, and not bit for bit, since a stacked
product of matrices sums in another order; it is continued bit for bit as long as it is stacked with the same seeds.

A model is stacked only if a trial says that it can be: each seed's loss, gradients and buffers have to be those of the
step alone. Where they are not, or the loss cannot be vectorised (it looks at a value, or draws what depends on one), a
warning of one line says why and the seeds are trained one after another.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from repro.model import Stage, TrainableModel
from repro.training.loop import StepRequest
from repro.training.steps import EagerStep, unchecked
from repro.training.streams import random_state, set_random_state, undone

__all__ = ["NotStackableError", "Stack", "train_stacked"]

# What draws without regard to values, so that it can be drawn beforehand.
DRAWS = (torch.rand, torch.randn, torch.rand_like, torch.randn_like, torch.randint, torch.randint_like, torch.randperm)
FILLS = (Tensor.normal_, Tensor.uniform_, Tensor.exponential_, Tensor.random_)
# How far a seed's loss may be from its loss alone, as a share.
ROUNDING = 1e-3

Batch = Mapping[str, Tensor]
Terms = dict[str, Tensor]
Run = Generator[StepRequest, Mapping[str, Tensor], list[dict[str, Any]]]


class NotStackableError(ValueError):
    """A loss that cannot be computed for several seeds at once; the message says why."""


class _Tape(TorchFunctionMode):
    """Notes what a loss draws, as functions that draw as much again."""

    def __init__(self) -> None:
        super().__init__()
        self.draws: list[Callable[[], Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in DRAWS or func in FILLS or func is torch.normal:
            self.draws.append(self._again(func, args, kwargs))
        return func(*args, **kwargs)

    def _again(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[], Tensor]:
        if kwargs.get("generator") is not None:
            raise NotStackableError(f"{func.__name__} draws by a generator of the loss's own")
        if func is torch.normal:
            whole = all(isinstance(x, Tensor) for x in args[:2]) and not kwargs
            if not whole or bool((args[0] != 0).any()) or bool((args[1] != 1).any()):
                raise NotStackableError("torch.normal draws around values of its own")
            mean, scale = (x.detach().clone() for x in args[:2])
            return lambda: torch.normal(mean, scale)
        rest = [x for x in (*args[1:], *kwargs.values()) if isinstance(x, Tensor)]
        if rest:
            raise NotStackableError(f"{func.__name__} draws by values")
        if args and isinstance(args[0], Tensor):  # of its layout too, in whose order memory is filled
            like, others = torch.empty_like(args[0]).detach(), args[1:]
            return lambda: func(torch.empty_like(like) if func in FILLS else like, *others, **kwargs)
        return lambda: func(*args, **kwargs)


class _Seeded(TorchDispatchMode):
    """Counts operations that draw."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


class _Played(TorchFunctionMode):
    """Gives what was drawn beforehand in place of draws."""

    def __init__(self, drawn: Sequence[Tensor]) -> None:
        super().__init__()
        self.left = list(reversed(drawn))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in DRAWS or func in FILLS or func is torch.normal:
            return self.left.pop()
        return func(*args, **(kwargs or {}))


class _Scalar(nn.Module):
    """A model's loss as a forward pass, whose parameters and buffers :mod:`torch.func` puts in their place."""

    def __init__(self, model: TrainableModel, stage: Stage) -> None:
        super().__init__()
        self.model, self.stage = model, stage

    def forward(self, batch: Batch) -> tuple[Tensor, Terms]:
        """The loss, and it with its terms."""
        loss = self.model.loss(batch, self.stage)
        if loss.parts:
            raise NotStackableError(f"the loss has a part for each of {list(loss.parts)}")
        return loss.total, {"loss": loss.total.detach(), **{k: v.detach() for k, v in loss.terms.items()}}


def _draws_of(step: EagerStep, batch: Batch) -> list[Callable[[], Tensor]]:
    """What a loss draws, in order; random streams and buffers are as before.

    Raises:
        NotStackableError: If it draws what cannot be drawn beforehand.
    """
    with undone(step.model, step.optimizer), unchecked(), torch.no_grad(), _Seeded() as seeded, _Tape() as tape:
        step.model.loss(batch, step.stage)
    if len(seeded.names) != len(tape.draws):
        raise NotStackableError(f"{', '.join(dict.fromkeys(seeded.names))} draws within a library's operation")
    return tape.draws


class Stack:
    """A step of several seeds of one model.

    From now on their parameters and buffers are parts of stacked tensors, in which the seeds' optimisers write.

    Arguments:
        steps: Each seed's step operation by operation, of the same stage.
        batches: A batch for each, of one size.

    Raises:
        NotStackableError: If the models differ in more than values, or a trial says that the loss of all at once is not
            that of each.
    """

    def __init__(self, steps: Sequence[EagerStep], batches: Sequence[Batch]) -> None:
        self.steps, first = list(steps), steps[0]
        self._draws: dict[Any, list[Callable[[], Tensor]]] = {}
        self.draws(batches[0])
        states = [{**dict(s.model.named_parameters()), **dict(s.model.named_buffers())} for s in steps]
        shapes = [{k: (x.shape, x.dtype) for k, x in state.items()} for state in states]
        if any(x != shapes[0] for x in shapes):
            raise NotStackableError("the seeds' models differ in more than values")
        alone = self._alone(batches)
        # What a step alone leaves without a gradient, frozen or out of the loss's sight, has none here.
        names = [k for k, _ in first.model.named_parameters() if f"gradient of {k}" in alone[0][1]]
        stacked = {}
        with torch.no_grad():
            for name in states[0]:
                stacked[name] = torch.stack([state[name].detach() for state in states])
                for state, part in zip(states, stacked[name], strict=True):
                    state[name].data = part
        self.trained = {k: stacked[k] for k in names}
        self.others = {k: x for k, x in stacked.items() if k not in self.trained}
        self.parameters = [[dict(s.model.named_parameters())[k] for k in names] for s in steps]
        scalar = _Scalar(first.model, first.stage)

        def loss(trained: Mapping[str, Tensor], others: Mapping[str, Tensor], batch: Batch, drawn: Any) -> Any:
            state = {f"model.{k}": x for k, x in {**trained, **others}.items()}
            with _Played(drawn):
                return functional_call(scalar, state, (batch,))

        self.call = vmap(grad_and_value(loss, has_aux=True), randomness="error")
        self._check(batches, alone)

    def draws(self, batch: Batch) -> list[Callable[[], Tensor]]:
        """What the loss of such a batch draws, in order."""
        shapes = _shapes(batch)
        if shapes not in self._draws:
            self._draws[shapes] = _draws_of(self.steps[0], batch)
        return self._draws[shapes]

    def __call__(self, batches: Sequence[Batch], drawn: Sequence[Sequence[Tensor]]) -> list[Terms]:
        """Takes a step of every seed; returns each one's loss and terms, summed over its samples.

        Arguments:
            batches: A batch for each seed, of one size.
            drawn: What each loss draws, by ``draws``.
        """
        gradients, terms = self._computed(batches, drawn)
        size = len(next(iter(batches[0].values())))
        sums = {k: (v * size).unbind() for k, v in terms.items()}
        parts = [x.unbind() for x in gradients.values()]
        for number, step in enumerate(self.steps):
            step.optimizer.zero_grad(set_to_none=True)
            for parameter, part in zip(self.parameters[number], parts, strict=True):
                parameter.grad = part[number]
            step.optimizer.step()
        return [{k: v[number] for k, v in sums.items()} for number in range(len(self.steps))]

    def _computed(self, batches: Sequence[Batch], drawn: Sequence[Sequence[Tensor]]) -> tuple[Terms, Terms]:
        batch = {m: torch.stack([b[m] for b in batches]) for m in batches[0]}
        noise = [torch.stack(list(x)) for x in zip(*drawn, strict=True)]
        with unchecked():
            gradients, (_, terms) = self.call(self.trained, self.others, batch, noise)
        return gradients, terms

    def _alone(self, batches: Sequence[Batch]) -> list[tuple[list[Tensor], Terms]]:
        """What each seed draws, and loss, gradients and buffers of its own step; leaves no trace."""
        streams, found = random_state(), []
        for step, batch in zip(self.steps, batches, strict=True):
            with undone(step.model):
                drawn = [draw() for draw in self.draws(batch)]
                set_random_state(streams)
                step.model.zero_grad(set_to_none=True)
                loss = step.model.loss(batch, step.stage)
                loss.total.backward()
                trained = {id(p) for group in step.optimizer.param_groups for p in group["params"]}
                parameters = ((k, p) for k, p in step.model.named_parameters() if id(p) in trained)
                values = {f"gradient of {k}": p.grad for k, p in parameters if p.grad is not None}
                values |= {f"buffer {k}": b.clone() for k, b in step.model.named_buffers()}
                found.append((drawn, {"loss": loss.total.detach(), **values}))
        return found

    def _check(self, batches: Sequence[Batch], alone: Sequence[tuple[list[Tensor], Terms]]) -> None:
        """Compares all seeds at once with each alone, and leaves no trace.

        A sample whose hidden unit is 0 but for rounding has another gradient on either side of it, so that gradients
        that are not the same are compared once more in double precision.
        """
        drawn, expected = [d for d, _ in alone], [values for _, values in alone]
        with undone(*(s.model for s in self.steps)):
            try:
                gradients, terms = self._computed(batches, drawn)
            except Exception as error:  # torch.func says what it cannot vectorise in many types of errors
                raise NotStackableError(" ".join(str(error).split())[:200]) from None
            here = {"loss": terms["loss"], **{f"gradient of {k}": x for k, x in gradients.items()}}
            here |= {f"buffer {k}": self.others[k] for k, _ in self.steps[0].model.named_buffers()}
            found = _difference(here, expected, gradients=False)
            if found is None and (found := _difference(here, expected, gradients=True)) is not None:
                with suppress(Exception):  # a model that does not compute in double precision: what was found stands
                    found = self._difference_in_double(batches, drawn)
        if found is not None:
            raise NotStackableError(f"the {found[0]} of seed {found[1]} at once is not what it is alone")

    def _difference_in_double(
        self, batches: Sequence[Batch], drawn: Sequence[Sequence[Tensor]]
    ) -> tuple[str, int] | None:
        """Which gradient of which seed differs, by double precision of values, samples and draws."""
        batches, drawn = [_in_double(b) for b in batches], [[_in_double({"": x})[""] for x in d] for d in drawn]
        trained, others, expected = self.trained, self.others, []
        for step, batch, own in zip(self.steps, batches, drawn, strict=True):
            with _doubled(step.model), _Played(own):
                step.model.loss(batch, step.stage).total.backward()
                gradients = {k: p.grad for k, p in step.model.named_parameters() if k in trained}
            expected.append({f"gradient of {k}": x for k, x in gradients.items() if x is not None})
        try:
            self.trained, self.others = _in_double(trained), _in_double(others)
            gradients, _ = self._computed(batches, drawn)
        finally:
            self.trained, self.others = trained, others
        return _difference({f"gradient of {k}": x for k, x in gradients.items()}, expected, gradients=True)


@contextmanager
def _doubled(model: nn.Module) -> Iterator[None]:
    """Within the block a model's parameters and buffers are of double precision; afterwards they are what they were.

    In place, since a model may hold what cannot be copied.
    """
    kept = [(x, x.data) for x in (*model.parameters(), *model.buffers()) if x.is_floating_point()]
    model.zero_grad(set_to_none=True)
    try:
        for x, value in kept:
            x.data = value.double()
        yield
    finally:
        model.zero_grad(set_to_none=True)
        for x, value in kept:
            x.data = value


def _in_double(values: Terms) -> Terms:
    return {k: x.double() if x.is_floating_point() else x for k, x in values.items()}


def _difference(here: Terms, expected: Sequence[Terms], *, gradients: bool) -> tuple[str, int] | None:
    """The first value that differs by more than ``ROUNDING``, and of which seed; None if none does.

    Arguments:
        here: Name to the values of all seeds.
        expected: Each seed's own.
        gradients: Whether gradients are compared, or all else.
    """
    for number, values in enumerate(expected):
        for name, value in values.items():
            if name.startswith("gradient of ") != gradients:
                continue
            a, b = here[name][number].double(), value.double()
            size = float(b.nan_to_num(0.0, 0.0, 0.0).abs().amax()) if b.numel() else 0.0
            if not torch.allclose(a, b, ROUNDING, ROUNDING * size, equal_nan=True):
                return name, number
    return None


@dataclass
class _Seed:
    """A run, its random streams, and what it asks for."""

    run: Run
    streams: dict[str, Tensor]
    request: StepRequest | None = None
    ended: list[dict[str, Any]] | Exception | None = None

    @contextmanager
    def own_streams(self) -> Iterator[None]:
        """The global random streams are this run's within the block."""
        outside = random_state()
        set_random_state(self.streams)
        try:
            yield
        finally:
            self.streams = random_state()
            set_random_state(outside)

    def go_on(self, advance: Callable[[], StepRequest]) -> None:
        """Lets the run go on to its next request, or to its end."""
        try:
            self.request = advance()
        except StopIteration as end:
            self.request, self.ended = None, end.value
        except Exception as error:
            self.request, self.ended = None, error


def _shapes(batch: Batch) -> Any:
    return tuple((name, tuple(x.shape), x.dtype) for name, x in batch.items())


def _kind(request: StepRequest) -> Any:
    if not isinstance(request.step, EagerStep):
        raise ValueError("seeds are stacked with steps operation by operation, not with captured ones")
    return request.step.stage, _shapes(request.batch)


class _Stacks:
    """The stacks by their kind of step and seeds, made when they are first asked for."""

    def __init__(self) -> None:
        self.made: dict[Any, Stack] = {}
        self.latest: dict[int, Stack] = {}  # of each model: its values are parts of that one's tensors
        self.refused: set[Stage] = set()

    def of(self, kind: Any, seeds: Sequence[_Seed]) -> Stack | None:
        """The stack of some seeds' requests; None where they cannot be stacked."""
        steps = [s.request.step for s in seeds if s.request is not None]
        stage = kind[0]
        if len(steps) < 2 or stage in self.refused:
            return None
        key = stage, tuple(map(id, steps))  # the same however large the batch is
        if key not in self.made or any(self.latest[id(x.model)] is not self.made[key] for x in steps):
            try:
                self.made[key] = Stack(steps, [s.request.batch for s in seeds])
            except NotStackableError as error:
                self.refused.add(stage)
                name = type(steps[0].model).__name__
                text = f"stage {stage.name!r} of {name} is trained one seed after another: {error}"
                warnings.warn(text, stacklevel=4)
                return None
            self.latest |= {id(x.model): self.made[key] for x in steps}
        return self.made[key]


def train_stacked(runs: Sequence[Run]) -> list[list[dict[str, Any]] | Exception]:
    """Trains several seeds of one model together.

    Arguments:
        runs: Each seed's run, from :func:`~repro.training.loop.training`, with the steps operation by operation.

    Returns:
        Each one's history, or the error that ended it; an error of one ends none of the others.
    """
    seeds, stacks = [_Seed(run, random_state()) for run in runs], _Stacks()
    for seed in seeds:
        with seed.own_streams():
            seed.go_on(partial(next, seed.run))
    while live := [s for s in seeds if s.request is not None]:
        kinds: dict[Any, list[_Seed]] = {}
        for seed in live:
            kinds.setdefault(_kind(seed.request), []).append(seed)
        for kind, members in kinds.items():
            if (stack := stacks.of(kind, members)) is not None:
                _together(stack, members)
            else:
                for seed in members:
                    _alone(seed)
    return [s.ended for s in seeds]


def _alone(seed: _Seed) -> None:
    request = seed.request
    with seed.own_streams():
        try:
            terms = request.step(request.batch)
        except Exception as error:
            seed.go_on(partial(seed.run.throw, error))
        else:
            seed.go_on(partial(seed.run.send, terms))


def _together(stack: Stack, members: Sequence[_Seed]) -> None:
    drawn = []
    for seed in members:
        with seed.own_streams():
            drawn.append([draw() for draw in stack.draws(seed.request.batch)])
    try:
        answers = stack([s.request.batch for s in members], drawn)
    except ValueError as error:  # of a distribution: each says what it means for itself
        for seed in members:
            with seed.own_streams():
                seed.go_on(partial(seed.run.throw, error))
        return
    for seed, terms in zip(members, answers, strict=True):
        with seed.own_streams():
            seed.go_on(partial(seed.run.send, terms))
