"""One training loop for every model, with checkpoints from which it continues bit for bit."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repro.datasets.base import Dataset, fingerprint
from repro.datasets.devices import as_device
from repro.datasets.values import whole_number
from repro.errors import TrainingStopped
from repro.model import Stage, TrainableModel, evaluating, isolated_rng, keeping_modes
from repro.training.checkpoints import (
    Checkpoint,
    CheckpointError,
    check_folder,
    load_latest_checkpoint,
    save_checkpoint,
)
from repro.training.distributed import ALONE, Parallel, ShardedLoss
from repro.training.steps import STEPS, CapturedStep, EagerStep, chosen_step
from repro.training.streams import random_state, set_random_state

__all__ = [
    "NonFiniteLossError",
    "TrainingSettings",
    "TrainingStopped",
    "default_key",
    "epoch_seed",
    "stage_parameters",
    "train",
    "training",
]

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
POSITIVE = ("epochs", "batch_size", "learning_rate")
OWN = (*POSITIVE, "decay", "plateau", "patience")
# The streams of a stage's data and of its validation, in place of an epoch's number.
STAGE_DATA, VALIDATION = -1, -2
# Several processes agree on stopping every so many steps: an exchange a step would be felt by small models.
STEPS_BETWEEN_AGREEMENTS = 8


class NonFiniteLossError(RuntimeError):
    """A loss or a parameter became NaN or infinite."""

    final = True  # the same steps lead there again


@dataclass(frozen=True)
class TrainingSettings:
    r"""How every stage of a model is optimised, and when it ends.

    A stage takes ``epochs`` passes over its training data. Where it has ``patience`` that is the most, and it ends
    before them after the first epoch :math:`t` that is ``patience`` epochs behind the last improvement. Epoch
    :math:`t` improves where its mean validation loss :math:`v_t` has

    .. math:: v_t < b - r\,|b|,

    with :math:`b` the validation loss of the last epoch that improved, and :math:`r` the ``min_improvement``; the first
    epoch does. The stage has then converged. What is kept are the parameters of its last epoch, not of its best one.

    Arguments:
        epochs: Passes over the training split, for each stage; the most where there is ``patience``.
        batch_size: Samples a step.
        learning_rate: Step size of the optimiser; its other settings are PyTorch's defaults.
        device: Where tensors live.
        optimizer: ``"adam"`` or ``"adamw"``.
        labels: Under what name a batch carries the class labels; empty for models that do not see them.
        stages: Name of a stage to the ``epochs``, ``batch_size``, ``learning_rate``, ``decay``, ``plateau`` and
            ``patience`` that it has of its own.
        decay: What the learning rate is multiplied by after every epoch, above 0 and up to 1 (PyTorch's ExponentialLR);
            1 for a constant rate.
        plateau: Epochs without a lower loss after which the learning rate falls to a tenth (PyTorch's
            ReduceLROnPlateau); 0 for a constant rate.
        patience: Epochs without improvement of the validation loss before a stage ends; None for exactly ``epochs``.
        min_improvement: The relative improvement r of the validation loss that counts, from 0 to below 1.
        step: How a step is taken on a GPU (:mod:`repro.training.steps`): ``"eager"``, ``"captured"`` or ``"auto"``, the
            faster of both. It changes no key, like the device.

    Raises:
        ValueError: If a number is not positive or outside its range, the optimiser or the way of a step is unknown, or
            a stage has a setting of another name.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    device: str = "cpu"
    optimizer: str = "adam"
    labels: str = ""
    stages: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    decay: float = 1.0
    plateau: int = 0
    patience: int | None = None
    min_improvement: float = 0.0
    step: str = "eager"

    def __post_init__(self) -> None:
        for name in (*OWN, "min_improvement"):
            value, whole = getattr(self, name), name not in ("learning_rate", "decay", "min_improvement")
            if name == "patience" and value is None:
                continue
            if not isinstance(value, Integral if whole else Real) or isinstance(value, bool):
                raise ValueError(f"{name} is {value!r}, must be a {'whole ' if whole else ''}number")
            if isinstance(value, np.generic):  # a checkpoint's key and a record hold plain numbers
                object.__setattr__(self, name, value.item())
            if name in POSITIVE and not 0 < value < float("inf"):
                raise ValueError(f"{name} is {value}, must be positive{'' if whole else ' and finite'}")
        if not 0 < self.decay <= 1:
            raise ValueError(f"decay is {self.decay}, must be above 0 and at most 1")
        if self.plateau < 0:
            raise ValueError(f"plateau is {self.plateau}, must be at least 0")
        if self.plateau and self.decay < 1:
            raise ValueError(
                f"plateau is {self.plateau} and decay {self.decay}; the learning rate falls by one of them"
            )
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience is {self.patience}, must be at least 1, or None to train every epoch")
        if not 0 <= self.min_improvement < 1:
            raise ValueError(f"min_improvement is {self.min_improvement}, must be from 0 to below 1")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer is {self.optimizer!r}; one of {', '.join(OPTIMIZERS)}")
        if self.step not in STEPS:
            raise ValueError(f"step is {self.step!r}; one of {', '.join(STEPS)}")
        if not isinstance(self.stages, Mapping) or not all(isinstance(own, Mapping) for own in self.stages.values()):
            raise ValueError(f"stages are {self.stages!r}, must be a mapping from a stage's name to its settings")
        object.__setattr__(self, "device", str(self.device))
        plain = {}
        for stage, own in self.stages.items():
            plain[stage] = {k: v.item() if isinstance(v, np.generic) else v for k, v in own.items()}
        object.__setattr__(self, "stages", plain)
        for stage, own in self.stages.items():
            if unknown := sorted(set(own) - set(OWN)):
                raise ValueError(f"stage {stage!r} has settings {unknown}; of its own it can have {', '.join(OWN)}")
            self.for_stage(stage)

    def for_stage(self, name: str) -> TrainingSettings:
        """The settings of one stage.

        Raises:
            ValueError: If one of its own numbers is not positive.
        """
        try:
            return replace(self, stages={}, **self.stages.get(name, {}))
        except ValueError as error:
            raise ValueError(f"stage {name!r}: {error}") from None


def epoch_seed(seed: int, stage: str, epoch: int) -> int:
    """The seed of one epoch, a hash of run seed, stage and epoch.

    Every epoch draws from its own stream, so that continuing between epochs needs no saved random state.
    """
    text = f"{seed}/{stage}/{epoch}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 2


def stage_parameters(model: TrainableModel, stage: Stage) -> list[torch.nn.Parameter]:
    """The parameters that a stage optimises.

    Raises:
        ValueError: If it names none, or all of them are frozen.
    """
    chosen = [p for n, p in model.named_parameters() if not stage.parameters or n.startswith(stage.parameters)]
    if not chosen:
        raise ValueError(f"stage {stage.name!r} names no parameter of {type(model).__name__}: {stage.parameters}")
    if not any(p.requires_grad for p in chosen):
        raise ValueError(f"stage {stage.name!r}: all parameters of {type(model).__name__} are frozen (requires_grad)")
    return chosen


def _optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {f"{i}.{k}": v for i, s in optimizer.state_dict()["state"].items() for k, v in s.items()}


def _load_optimizer_state(optimizer: torch.optim.Optimizer, flat: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in flat.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _size(batch: Mapping[str, Tensor]) -> int:
    return len(next(iter(batch.values())))


@dataclass(frozen=True)
class StepRequest:
    """A step that training asks for, to be answered with the sums over its samples of the loss and its terms.

    Arguments:
        step: What takes it.
        batch: On what.
    """

    step: EagerStep | CapturedStep
    batch: Mapping[str, Tensor]


class _Way:
    """How the steps of a stage are taken, which its first batch decides.

    Arguments:
        asked: One of ``STEPS``.
        eager: The step operation by operation.
    """

    def __init__(self, asked: str, eager: EagerStep) -> None:
        self.asked, self.eager = asked, eager
        self._chosen: EagerStep | CapturedStep | None = eager if asked == "eager" else None

    @property
    def name(self) -> str:
        """What was chosen; nothing before the first batch, or where nothing was asked for."""
        return "" if self._chosen is None or self.asked == "eager" else self._chosen.name

    def step(self, batch: Mapping[str, Tensor]) -> EagerStep | CapturedStep:
        """What takes the step on a batch."""
        if self._chosen is None:
            self._chosen = chosen_step(self.asked, self.eager, batch)
        return self._chosen


@dataclass
class _Epoch:
    """One pass over the data, which can be left after any step and taken up again."""

    way: _Way
    data: Dataset
    batch_size: int
    seed: int
    smallest: int = 1
    step: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)
    random: dict[str, Tensor] = field(default_factory=dict)

    def run(
        self, stop: Callable[[], bool], sharded: ShardedLoss | None, parallel: Parallel
    ) -> Generator[StepRequest, Mapping[str, Tensor], bool]:
        """Goes on to the epoch's end, or until ``stop``; returns whether it came to the end."""
        first, seen = self.step, 0
        with isolated_rng(self.seed):
            batches = iter(self.data.batches(self.batch_size, smallest=self.smallest))
            for batch in islice(batches, first):  # the order is drawn anew, what was done is passed over
                seen += _size(batch)
            if self.random:
                set_random_state(self.random)
            for batch in batches:
                if sharded is None:
                    terms = yield StepRequest(self.way.step(batch), batch)
                else:
                    terms = self._sharded(batch, sharded)
                for name, term in terms.items():
                    self.sums[name] = self.sums[name] + term if name in self.sums else term
                self.step, seen = self.step + 1, seen + _size(batch)
                due = parallel.world == 1 or self.step % STEPS_BETWEEN_AGREEMENTS == 0
                if due and seen < len(self.data) and parallel.any(stop()):
                    self.random = {} if sharded is not None else random_state()
                    self.sums = parallel.sum(self.sums)
                    return False
        return True

    def _sharded(self, batch: Mapping[str, Tensor], sharded: ShardedLoss) -> Mapping[str, Tensor]:
        optimizer = self.way.eager.optimizer
        optimizer.zero_grad(set_to_none=True)
        terms = sharded.backward(batch, epoch_seed(self.seed, "step", self.step))
        optimizer.step()
        return terms

    def means(self, parallel: Parallel) -> dict[str, float]:
        """Means over samples of the loss and its terms."""
        return {name: float(value) / len(self.data) for name, value in parallel.sum(self.sums).items()}


@contextmanager
def _evaluated(model: TrainableModel) -> Iterator[None]:
    """Evaluation mode within the block; afterwards every module's mode and every buffer are as they were."""
    before = {name: (buffer._version, buffer.clone()) for name, buffer in model.named_buffers()}
    try:
        with evaluating(model):
            yield
    finally:
        for name, buffer in model.named_buffers():  # what a loss counts or averages is training's alone
            version, value = before[name]
            if buffer._version != version:
                buffer.copy_(value)


class _Patience:
    """The stopping rule of one stage, see :class:`TrainingSettings`.

    What it has seen is in the history, which every checkpoint holds, so that no state of it needs to be kept.
    """

    def __init__(
        self, model: TrainableModel, stage: Stage, data: Dataset, settings: TrainingSettings, seed: int
    ) -> None:
        self.model, self.stage, self.settings, self.seed = model, stage, settings, seed
        self.best, self.waited = float("inf"), 0
        # The stage's data may be fitted (a scale, a map) on the way, which is for the training split to decide.
        with isolated_rng(epoch_seed(seed, stage.name, STAGE_DATA)), torch.no_grad():
            self.data = copy.deepcopy(model).stage_data(stage, data)

    def measure(self) -> float:
        """Mean loss of the validation split, in evaluation mode, with the same noise at every epoch."""
        total = 0.0
        with isolated_rng(epoch_seed(self.seed, self.stage.name, VALIDATION)), torch.no_grad(), _evaluated(self.model):
            # In a random order, the same each time: some losses give samples parts of their own by position.
            smallest = self.model.smallest_batch(self.stage)
            for batch in self.data.batches(self.settings.batch_size, smallest=smallest):
                loss = self.model.loss(batch, self.stage)
                if loss.parts:
                    raise ValueError(
                        f"patience is {self.settings.patience}, but the loss of {type(self.model).__name__} has a part "
                        f"for each of {list(loss.parts)}: no one number says when it has stopped improving"
                    )
                total += float(loss.total) * _size(batch)
        return total / len(self.data)

    def note(self, value: float) -> bool:
        """Takes note of an epoch's validation loss; returns whether the stage ends with it."""
        improved = self.best == float("inf") or value < self.best - self.settings.min_improvement * abs(self.best)
        self.best, self.waited = (value, 0) if improved else (self.best, self.waited + 1)
        assert self.settings.patience is not None
        return self.waited >= self.settings.patience


def _continued(model: TrainableModel, checkpoint: Path | None, key: str, parallel: Parallel, device: str) -> Checkpoint:
    state = None
    if checkpoint is not None:
        # The first process may put the checkpoint before in place of a damaged one; the others read after it.
        state = parallel.first_then_others(lambda: load_latest_checkpoint(checkpoint, key))
    if state is None:
        return Checkpoint(0, 0, [], shards=parallel.shards)
    if state.shards != parallel.shards:
        raise CheckpointError(
            f"checkpoint {checkpoint} divides batches into {state.shards}, now {parallel.shards} shards are asked for;"
            f" continue with --shards {state.shards}, or move it away to start the run again"
        )
    try:
        model.load_state_dict(state.model, strict=True)
    except RuntimeError as error:
        raise CheckpointError(f"{checkpoint} does not fit the model: {' '.join(str(error).split())}") from None
    state.sums = {k: v.to(device) for k, v in state.sums.items()} if parallel.rank == 0 else {}
    return state


def _check(
    model: TrainableModel, data: Dataset, settings: TrainingSettings, validation: Dataset | None, shards: int
) -> list[Stage]:
    if not isinstance(settings, TrainingSettings):
        raise ValueError(f"the settings are a {type(settings).__name__}, must be TrainingSettings")
    for what, split in {"data": data, "validation": validation}.items():
        if not isinstance(split, Dataset) and (what == "data" or split is not None):
            raise ValueError(f"{what} is a {type(split).__name__}, must be one split, a Dataset")
    as_device(settings.device)
    for split in (data, validation):
        if split is not None and dict(split.modalities) != model.modalities:
            raise ValueError(f"the data has modalities {dict(split.modalities)}, the model {model.modalities}")
    stages = list(model.stages())
    if unknown := sorted(set(settings.stages) - {s.name for s in stages}):
        raise ValueError(f"settings for stages {unknown}; the model has {[s.name for s in stages]}")
    for stage in stages:
        stage_parameters(model, stage)
        if validation is None and (patience := settings.for_stage(stage.name).patience) is not None:
            raise ValueError(f"stage {stage.name!r} has patience {patience}, which needs a validation split")
        least, size = model.smallest_batch(stage) * shards, settings.for_stage(stage.name).batch_size
        if size < least and least > shards:
            raise ValueError(
                f"stage {stage.name!r} of {type(model).__name__} needs batches of at least {least} samples, the "
                f"batch_size is {size}"
            )
        for split in (data, validation):
            if split is not None and len(split) < least and least > shards:
                raise ValueError(
                    f"stage {stage.name!r} of {type(model).__name__} needs batches of at least {least} samples, "
                    f"{split.name} {split.split} has {len(split)}"
                )
    model.check_data(data)
    return stages


def _plain(value: Any) -> Any:
    """A setting as JSON can hold it; None for what is no setting, such as a module or a tensor."""
    if isinstance(value, str | float | bool):
        return value
    if isinstance(value, Mapping):
        return {str(k): found for k, v in value.items() if (found := _plain(v)) is not None} or None
    if hasattr(type(value), "__dataclass_fields__") and not isinstance(value, torch.nn.Module):
        fields = {name: getattr(value, name) for name in type(value).__dataclass_fields__}
        return _plain({k: float(v) if type(v) is int else v for k, v in fields.items()})
    return None


def default_key(
    model: TrainableModel, data: Dataset, settings: TrainingSettings, seed: int, validation: Dataset | None = None
) -> str:
    """The key of a run that was given none: what its parameters follow from, as JSON.

    It holds the seed, the settings but for the device, the way of a step and the number of epochs, the fingerprints of
    the training split and of the validation split, and the model: its class, the shapes of its parameters, and the
    text, fractions and flags among its modules' public attributes (β, a likelihood's scale). Whole numbers are left
    out, as counters are some.

    Arguments:
        model: The model.
        data: The training split.
        settings: How it is trained.
        seed: The run's seed.
        validation: The split that ends a stage with patience; None where none has any.
    """
    own = asdict(settings)
    for name in ("device", "epochs", "step"):
        own.pop(name)
    own["stages"] = {s: {k: v for k, v in x.items() if k != "epochs"} for s, x in settings.stages.items()}
    own["stages"] = {s: x for s, x in own["stages"].items() if x}
    if settings.decay == 1:  # as in the checkpoints of before there was one
        own.pop("decay")
    attributes = {}
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            kept = not name.startswith("_") and name not in ("training", "modalities")
            if kept and (found := _plain(value)) is not None:
                attributes[f"{path}.{name}".lstrip(".")] = found
    shapes = {n: list(p.shape) for n, p in model.named_parameters()}
    digest = hashlib.sha256(json.dumps([attributes, shapes], sort_keys=True).encode()).hexdigest()
    parts = {
        "model": type(model).__qualname__,
        "model's options": digest[:16],
        "seed": seed,
        "data": fingerprint(data.data, data.labels)[:16],
        **own,
    }
    if validation is not None:
        parts["validation"] = fingerprint(validation.data, validation.labels)[:16]
    return json.dumps(parts, sort_keys=True)


def _added(found: Any, entry: Mapping[str, Any]) -> dict[str, Any]:
    """What ``on_epoch`` returned, as plain values that a checkpoint can hold.

    Raises:
        ValueError: If it is no mapping, a name is no text or the entry's own, or a value is neither plain nor a single
            number.
    """
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise ValueError(f"on_epoch returned a {type(found).__name__}, must return a mapping or None")
    plain = {}
    for name, value in found.items():
        if not isinstance(name, str) or name in entry:
            taken = "which every entry has of its own" if name in entry else "which is no name"
            raise ValueError(f"on_epoch returned {name!r}, {taken}; give it another name")
        if isinstance(value, Tensor | np.ndarray | np.generic) and np.prod(value.shape) == 1:
            value = value.item()
        try:
            json.dumps({name: value})
        except (TypeError, ValueError):
            kind = type(value).__name__
            raise ValueError(f"on_epoch returned {name!r} of type {kind}, which a checkpoint cannot hold") from None
        plain[name] = value
    return plain


def _check_continued(state: Checkpoint, work: _Epoch, checkpoint: Path | None) -> None:
    """Refuses to go on within an epoch whose batches were others."""
    now = {"batch_size": work.batch_size, "samples": len(work.data)}
    for name, value in now.items():
        if state.step and (before := getattr(state, name)) not in (0, value):
            raise CheckpointError(
                f"checkpoint {checkpoint} was left within an epoch of {name.replace('_', ' ')} {before}, now it is "
                f"{value}; continue with {before}, or move it away to start the run again"
            )


def _refused(error: Exception) -> str:
    """In one line, what a distribution or a factorisation refused to compute with; empty for any other error.

    Data are finite, so that after a first step it was the parameters that led there. Such an error of torch may fill a
    page with values.
    """
    constraint = "to satisfy the constraint" in str(error)
    reason = str(error).partition(", but found")[0]
    return " ".join(reason.split()) if constraint or isinstance(error, torch.linalg.LinAlgError) else ""


def _check_finite(model: TrainableModel, where: str) -> None:
    if bad := [n for n, p in model.named_parameters() if not bool(torch.isfinite(p).all())]:
        raise NonFiniteLossError(f"{where}: parameters not finite: {bad[:3]}; the checkpoint is kept") from None


def training(
    model: TrainableModel,
    data: Dataset,
    settings: TrainingSettings,
    *,
    seed: int,
    key: str = "",
    validation: Dataset | None = None,
    checkpoint: str | Path | None = None,
    on_epoch: Callable[[dict[str, Any]], Mapping[str, Any] | None] | None = None,
    stop: Callable[[], bool] | None = None,
    pace: Callable[[Callable[[], None]], None] | None = None,
    parallel: Parallel = ALONE,
) -> Generator[StepRequest, Mapping[str, Tensor], list[dict[str, Any]]]:
    """Training as :func:`train` does it, which asks for each step and goes on with what that gives.

    What takes a step may be another's: several such runs share theirs in :mod:`repro.training.stacked`. An error of a
    step is to be thrown into the run, which says what it means. Arguments, result and errors are those of
    :func:`train`.
    """
    stages = _check(model, data, settings, validation, parallel.shards)
    seed = whole_number("seed", seed)
    if checkpoint is not None:
        checkpoint = Path(checkpoint)
        check_folder(checkpoint)
    if all(settings.for_stage(s.name).patience is None for s in stages):
        validation = None
    if checkpoint is not None:
        key = key or default_key(model, data, settings, seed, validation)
    stop, pace = stop or (lambda: False), pace or (lambda save: save())
    model.to(settings.device).train()
    data = data.to(settings.device).converted(model.dtype)
    validation = None if validation is None else validation.to(settings.device).converted(model.dtype)
    if settings.labels:
        data = data.labelled(settings.labels)
        validation = None if validation is None else validation.labelled(settings.labels)
    state = _continued(model, checkpoint, key, parallel, settings.device)

    def save(**changes: Any) -> None:
        if checkpoint is not None and parallel.rank == 0:
            tensors = {"model": model.state_dict(), "optimizer": _optimizer_state(optimizer)}
            done = Checkpoint(index, history=state.history, shards=parallel.shards, way=way.name, **tensors, **changes)
            save_checkpoint(checkpoint, done, key)

    for index in range(state.stage, len(stages)):
        stage, own = stages[index], settings.for_stage(stages[index].name)
        first = state.epoch if index == state.stage else 0
        past = [e for e in state.history if e["stage"] == stage.name]
        if first >= own.epochs or (past and past[-1].get("converged")):
            continue
        with torch.no_grad(), isolated_rng(epoch_seed(seed, stage.name, STAGE_DATA)):
            split = model.stage_data(stage, data)
        optimizer = OPTIMIZERS[settings.optimizer](stage_parameters(model, stage), lr=own.learning_rate, fused=True)
        if index == state.stage and state.optimizer:
            _load_optimizer_state(optimizer, state.optimizer)
        falls = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=own.plateau) if own.plateau else None
        rule = None
        if own.patience is not None and validation is not None:
            rule = _Patience(model, stage, validation, own, seed)
        for entry in past:  # what both have seen is in the history, so that no state of them needs to be kept
            if falls is not None:
                falls.step(entry["loss"])
            if rule is not None:
                rule.note(entry["validation_loss"])
        sharded = parallel.loss(model, stage)
        asked = "eager" if sharded is not None else own.step
        if asked == "auto" and index == state.stage and state.way:
            asked = state.way  # whatever is faster now: one way of taking steps, one result
        way = _Way(asked, EagerStep(model, stage, optimizer))
        least = model.smallest_batch(stage)
        smallest = 1 if least == 1 else least * parallel.shards
        if len(split) < smallest:
            raise ValueError(f"stage {stage.name!r} needs at least {smallest} samples, it has {len(split)}")
        for epoch in range(first, own.epochs):
            work = _Epoch(way, split, own.batch_size, epoch_seed(seed, stage.name, epoch), smallest)
            if index == state.stage and epoch == state.epoch:
                _check_continued(state, work, checkpoint)
                work.step, work.sums, work.random = state.step, state.sums, state.random
            where = f"stage {stage.name!r}, epoch {epoch + 1} of {own.epochs}"
            if falls is None:
                for group in optimizer.param_groups:
                    group["lr"] = own.learning_rate * own.decay**epoch
            try:
                finished = yield from work.run(stop, sharded, parallel)
            except (ValueError, torch.linalg.LinAlgError) as error:
                place = f"{where}, step {work.step + 1}"
                _check_finite(model, place)
                if (work.step or epoch) and (reason := _refused(error)):
                    raise NonFiniteLossError(
                        f"{place}: the loss cannot be computed ({reason}); the last good checkpoint is kept"
                    ) from None
                raise
            if not finished:
                within = {"batch_size": own.batch_size, "samples": len(split)}
                save(epoch=epoch, step=work.step, sums=work.sums, random=work.random, **within)
                raise TrainingStopped(f"stopped in {where}, after {work.step} of its steps")
            terms = work.means(parallel)
            bad = {k: v for k, v in terms.items() if not abs(v) < float("inf")}
            if "loss" in bad:
                raise NonFiniteLossError(f"{where}: the loss is not finite ({bad}); the last good checkpoint is kept")
            _check_finite(model, where)
            if falls is not None:
                falls.step(terms["loss"])
            entry: dict[str, Any] = {"stage": stage.name, "epoch": epoch + 1, "epochs": own.epochs}
            entry |= {k: v for k, v in terms.items() if k not in bad} | ({"not_finite": sorted(bad)} if bad else {})
            entry |= {"step": way.name} if way.name else {}
            last = epoch + 1 == own.epochs
            if rule is not None:
                value = parallel.share(rule.measure)
                if not abs(value) < float("inf"):
                    raise NonFiniteLossError(
                        f"{where}: the validation loss is {value}; the last good checkpoint is kept"
                    )
                converged = rule.note(value)
                last = last or converged
                entry |= {"validation_loss": value} | ({"converged": converged} if last else {})
            if on_epoch is not None and parallel.rank == 0:
                with keeping_modes(model):
                    entry |= _added(on_epoch(dict(entry)), entry)
            state.history.append(entry)
            if not (last and index + 1 == len(stages)) and parallel.any(stop()):
                save(epoch=epoch + 1)
                raise TrainingStopped(f"stopped after {where}")
            pace(lambda done=epoch + 1: save(epoch=done))
            if last:
                break
    model.eval()
    return state.history


def train(
    model: TrainableModel,
    data: Dataset,
    settings: TrainingSettings,
    *,
    seed: int,
    key: str = "",
    validation: Dataset | None = None,
    checkpoint: str | Path | None = None,
    on_epoch: Callable[[dict[str, Any]], Mapping[str, Any] | None] | None = None,
    stop: Callable[[], bool] | None = None,
    pace: Callable[[Callable[[], None]], None] | None = None,
    parallel: Parallel = ALONE,
) -> list[dict[str, Any]]:
    """Trains all stages of a model, from its checkpoint where there is one.

    A checkpoint is written after every epoch or as ``pace`` has it, and within one where ``stop`` asks for an end.
    Continuing from it gives the same parameters, bit for bit on one device with one number of threads and steps taken
    in one way, as training without an interruption; where the way is chosen by measurement, the checkpoint says which.
    The number of threads is one that was set, by ``torch.set_num_threads``, before the process's first step: until then
    MKL may choose fewer for a product. ``repro run`` sets one thread.

    Arguments:
        model: The model, with its initial parameters; it is trained in place.
        data: The training split.
        settings: Epochs, batch size, learning rate, device.
        seed: Seed of the order of samples and of all noise.
        key: Key of the run, kept in the checkpoint, where one of another key is refused; :func:`default_key` if empty.
        validation: The split whose loss ends the stages that have patience; it is used for nothing else.
        checkpoint: The checkpoint's file, in a folder that is there; None for none.
        on_epoch: Called with every finished epoch's entry (stage, epoch, epochs, means of the loss terms; with patience
            the ``validation_loss`` too, and in a stage's last entry whether it has ``converged``); what it returns
            (a mapping of plain values and single numbers, or None) is added to the entry before the checkpoint is
            written. It may generate: the model is as it was afterwards. In the first process alone.
        stop: Asked after every step; training ends at the first true answer.
        pace: Handed what writes the checkpoint after every epoch, which it calls or leaves; calls it if None.
        parallel: The processes that train together, and the parts that each batch is divided into.

    Returns:
        The history, one entry an epoch.

    Raises:
        TrainingStopped: If ``stop`` asked for it; the checkpoint holds every step that was done.
        NonFiniteLossError: If the loss, a validation loss or a parameter is NaN or infinite after an epoch, or the
            parameters have become such that the loss cannot be computed; the last good checkpoint is kept. A term for
            the log alone that left the range of its floating point numbers ends nothing: its epoch's entry leaves it
            out, and names it under ``not_finite``.
        CheckpointError: If the checkpoint cannot be read or written, or is of another run.
        ValueError: If the data's modalities are not the model's, settings name a stage that it has not, a stage has
            patience without a validation split or with a loss in parts, batches or the split are too small for a
            stage, all of a stage's parameters are frozen, the data's values cannot be the model's type without loss,
            there is no such device, an argument is of another type, or ``on_epoch`` returns what a checkpoint cannot
            hold.
    """
    options: dict[str, Any] = {"validation": validation, "checkpoint": checkpoint, "on_epoch": on_epoch}
    options |= {"stop": stop, "pace": pace, "parallel": parallel}
    run = training(model, data, settings, seed=seed, key=key, **options)
    try:
        request = next(run)
        while True:
            try:
                terms = request.step(request.batch)
            except BaseException as error:  # a signal's too: what is open within the run is closed at once
                request = run.throw(error)
            else:
                request = run.send(terms)
    except StopIteration as end:
        return end.value
