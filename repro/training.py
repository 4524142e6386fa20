"""One training loop for every model, with checkpoints from which it continues bit for bit."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from repro.datasets.base import Dataset
from repro.model import Loss, Stage, TrainableModel, isolated_rng

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "NonFiniteLossError",
    "TrainingSettings",
    "epoch_seed",
    "load_checkpoint",
    "save_checkpoint",
    "train",
]

FORMAT = "repro-checkpoint/1"
OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
STAGE_SETTINGS = ("epochs", "batch_size", "learning_rate", "plateau")  # what a stage may have of its own


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be continued from: truncated, altered, foreign, or not writable."""


class NonFiniteLossError(RuntimeError):
    """A loss term or a parameter became NaN or infinite."""


@dataclass(frozen=True)
class TrainingSettings:
    """How every stage of a model is optimised.

    Arguments:
        epochs: Passes over the training split, for each stage.
        batch_size: Samples a step.
        learning_rate: Step size of the optimiser; its other settings are PyTorch's defaults.
        device: Where tensors live.
        optimizer: ``"adam"`` or ``"adamw"``.
        labels: Under what name a batch carries the class labels; empty for models that do not see them.
        plateau: Epochs without a lower training loss after which the learning rate falls to a tenth
            (``ReduceLROnPlateau``); 0 for a constant rate.
        stages: Name of a stage to its own epochs, batch size, learning rate or plateau.

    Raises:
        ValueError: If a number is out of range, the optimiser is unknown, or a stage has other settings of its own.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    device: str = "cpu"
    optimizer: str = "adam"
    labels: str = ""
    plateau: int = 0
    stages: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}, must be positive")
        if self.plateau < 0:
            raise ValueError(f"plateau is {self.plateau}, must not be negative")
        for stage, own in self.stages.items():
            if unknown := sorted(set(own) - set(STAGE_SETTINGS)):
                raise ValueError(f"stage {stage!r} has settings {unknown}; it may have {', '.join(STAGE_SETTINGS)}")
            self.for_stage(stage)
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer is {self.optimizer!r}; one of {', '.join(OPTIMIZERS)}")

    def for_stage(self, name: str) -> TrainingSettings:
        """The settings of one stage."""
        return replace(self, stages={}, **self.stages.get(name, {}))


@dataclass
class Checkpoint:
    """The state of training after a whole epoch.

    Arguments:
        stage: Index of the stage to continue with.
        epoch: Its next epoch.
        history: One entry for each epoch done.
        model: The model's state.
        optimizer: Tensors of the optimiser's state, ``"<parameter's index>.<name>"``.
    """

    stage: int
    epoch: int
    history: list[dict[str, Any]]
    model: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Tensor] = field(default_factory=dict)


def _digest(state: str, tensors: Mapping[str, Tensor]) -> str:
    sha = hashlib.sha256(state.encode())
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        sha.update(f"{name}:{value.dtype}:{tuple(value.shape)};".encode())
        sha.update(value.reshape(-1).view(torch.uint8).numpy())
    return sha.hexdigest()


def save_checkpoint(path: Path, checkpoint: Checkpoint, key: str) -> None:
    """Writes a checkpoint atomically: it is there whole, or the one before still is.

    Arguments:
        path: The file, ``*.safetensors``; its JSON part is the header's metadata.
        checkpoint: What to write.
        key: Key of the run that it belongs to.

    Raises:
        CheckpointError: If it cannot be written; the former file is untouched.
    """
    tensors = {f"model.{k}": v.detach().cpu().contiguous() for k, v in checkpoint.model.items()}
    tensors |= {f"optimizer.{k}": v.detach().cpu().contiguous() for k, v in checkpoint.optimizer.items()}
    state = json.dumps({"stage": checkpoint.stage, "epoch": checkpoint.epoch, "history": checkpoint.history})
    metadata = {"format": FORMAT, "key": key, "state": state, "sha256": _digest(state, tensors)}
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        save_file(tensors, partial, metadata=metadata)
        with open(partial, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):  # the folder cannot be written to; the error below says so
            partial.unlink(missing_ok=True)
        raise CheckpointError(f"cannot write checkpoint {path}: {error}; the former one is kept") from None


def load_checkpoint(path: Path, key: str) -> Checkpoint:
    """Reads a checkpoint and checks that it is whole and belongs to the run.

    Raises:
        CheckpointError: If it is truncated, altered, not a checkpoint of this package, or of another run.
    """
    advice = "move it away to start the run again"
    try:
        with safe_open(path, framework="pt") as handle:
            metadata = handle.metadata() or {}
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"checkpoint {path} is truncated or no safetensors file ({error}); {advice}") from None
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"checkpoint {path} is not a {FORMAT} file; {advice}")
    if metadata.get("key") != key:
        raise CheckpointError(f"checkpoint {path} belongs to run {metadata.get('key')}, not to {key}; {advice}")
    if metadata.get("sha256") != _digest(metadata.get("state", ""), tensors):
        raise CheckpointError(f"checkpoint {path} is damaged (its hash does not match); {advice}")
    state = json.loads(metadata["state"])
    pick = lambda prefix: {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}  # noqa: E731
    return Checkpoint(state["stage"], state["epoch"], state["history"], pick("model."), pick("optimizer."))


def epoch_seed(seed: int, stage: str, epoch: int) -> int:
    """The seed of one epoch, a hash of run seed, stage and epoch.

    Every epoch draws from its own stream, so that continuing needs no saved random state.
    """
    text = f"{seed}/{stage}/{epoch}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 2


def _parameters(model: TrainableModel, stage: Stage) -> list[torch.nn.Parameter]:
    chosen = [p for n, p in model.named_parameters() if not stage.parameters or n.startswith(stage.parameters)]
    if not chosen:
        raise ValueError(f"stage {stage.name!r} names no parameter of {type(model).__name__}: {stage.parameters}")
    return chosen


def _optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {f"{i}.{k}": v for i, s in optimizer.state_dict()["state"].items() for k, v in s.items()}


def _load_optimizer_state(optimizer: torch.optim.Optimizer, flat: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in flat.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _scheduler(
    optimizer: torch.optim.Optimizer, settings: TrainingSettings, losses: Sequence[float]
) -> torch.optim.lr_scheduler.ReduceLROnPlateau | None:
    """The schedule of the learning rate, brought to where the losses of the epochs done leave it."""
    if not settings.plateau:
        return None
    for group in optimizer.param_groups:
        group["lr"] = settings.learning_rate
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=settings.plateau)
    for loss in losses:
        scheduler.step(loss)
    return scheduler


def _backward(model: TrainableModel, loss: Loss) -> None:
    """Gradients of the total; or, where there are parts, of each part by the parameters of its group alone."""
    if not loss.parts:
        loss.total.backward()
        return
    for prefix, part in loss.parts.items():
        group = [p for name, p in model.named_parameters() if name.startswith(prefix)]
        if not group:
            raise ValueError(f"the loss has a part for {prefix!r}, the model has no such parameter")
        for parameter, gradient in zip(group, torch.autograd.grad(part, group, retain_graph=True), strict=True):
            parameter.grad = gradient


def _epoch(
    model: TrainableModel, stage: Stage, optimizer: torch.optim.Optimizer, data: Dataset, batch_size: int
) -> dict[str, float]:
    """One pass over the data; returns the means over samples of the loss and its terms."""
    sums: dict[str, Tensor] = {}
    for batch in data.batches(batch_size):
        loss = model.loss(batch, stage)
        optimizer.zero_grad(set_to_none=True)
        _backward(model, loss)
        optimizer.step()
        size = len(next(iter(batch.values())))
        for name, value in {"loss": loss.total, **loss.terms}.items():
            term = value.detach() * size
            sums[name] = sums[name] + term if name in sums else term
    return {name: float(value) / len(data) for name, value in sums.items()}


def train(
    model: TrainableModel,
    data: Dataset,
    settings: TrainingSettings,
    *,
    seed: int,
    key: str = "",
    checkpoint: Path | None = None,
    on_epoch: Callable[[dict[str, Any]], Mapping[str, Any] | None] | None = None,
) -> list[dict[str, Any]]:
    """Trains all stages of a model, from its checkpoint where there is one.

    A checkpoint is written after every epoch. Continuing from it gives the same parameters, bit for bit on one device
    with one number of threads, as training without an interruption.

    Arguments:
        model: The model, with its initial parameters; it is trained in place.
        data: The training split.
        settings: Epochs, batch size, learning rate, device.
        seed: Seed of the order of samples and of all noise.
        key: Key of the run, kept in the checkpoint.
        checkpoint: The checkpoint's file; None for none.
        on_epoch: Called with every finished epoch's entry (stage, epoch, epochs, means of the loss terms); what it
            returns is added to the entry before the checkpoint is written.

    Returns:
        The history, one entry an epoch.

    Raises:
        NonFiniteLossError: If a loss term or a parameter is NaN or infinite after an epoch; the last good checkpoint
            is kept.
        CheckpointError: If the checkpoint cannot be read or written.
        ValueError: If the data's modalities are not the model's.
    """
    if dict(data.modalities) != model.modalities:
        raise ValueError(f"the data has modalities {dict(data.modalities)}, the model {model.modalities}")
    model.to(settings.device).train()
    data = data.to(settings.device)
    if settings.labels:
        data = data.labelled(settings.labels)
    state = Checkpoint(0, 0, [])
    if checkpoint is not None and checkpoint.exists():
        state = load_checkpoint(checkpoint, key)
        try:
            model.load_state_dict(state.model, strict=True)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"checkpoint {checkpoint} does not fit the model: {reason}") from None
    stages = list(model.stages())
    if unknown := sorted(set(settings.stages) - {s.name for s in stages}):
        raise ValueError(f"settings for stages {unknown}; the model has {[s.name for s in stages]}")
    for index in range(state.stage, len(stages)):
        stage = stages[index]
        own = settings.for_stage(stage.name)
        create = OPTIMIZERS[own.optimizer]
        optimizer = create(_parameters(model, stage), lr=own.learning_rate, fused=True)
        first = state.epoch if index == state.stage else 0
        if first >= own.epochs:
            continue
        if first and state.optimizer:
            _load_optimizer_state(optimizer, state.optimizer)
        scheduler = _scheduler(optimizer, own, [e["loss"] for e in state.history if e["stage"] == stage.name])
        with torch.no_grad(), isolated_rng(epoch_seed(seed, stage.name, -1)):
            stage_data = model.stage_data(stage, data)
        for epoch in range(first, own.epochs):
            with isolated_rng(epoch_seed(seed, stage.name, epoch)):
                terms = _epoch(model, stage, optimizer, stage_data, own.batch_size)
            where = f"stage {stage.name!r}, epoch {epoch + 1} of {own.epochs}"
            if bad := {k: v for k, v in terms.items() if not abs(v) < float("inf")}:
                raise NonFiniteLossError(f"{where}: the loss is not finite ({bad}); the last good checkpoint is kept")
            if bad_names := [n for n, p in model.named_parameters() if not bool(torch.isfinite(p).all())]:
                raise NonFiniteLossError(f"{where}: parameters not finite: {bad_names[:3]}; the checkpoint is kept")
            if scheduler is not None:
                scheduler.step(terms["loss"])
            entry: dict[str, Any] = {"stage": stage.name, "epoch": epoch + 1, "epochs": own.epochs, **terms}
            if on_epoch is not None:
                entry |= on_epoch(entry) or {}
            state.history.append(entry)
            if checkpoint is not None:
                done = Checkpoint(index, epoch + 1, state.history, model.state_dict(), _optimizer_state(optimizer))
                save_checkpoint(checkpoint, done, key)
    model.eval()
    return state.history
