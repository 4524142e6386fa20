"""Checkpoints of training: whole or refused, never unpickled, and the one before kept beside the latest."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, uint8

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "check_folder",
    "discard_checkpoints",
    "load_checkpoint",
    "load_latest_checkpoint",
    "previous_path",
    "save_checkpoint",
]

# The second format adds what continues within an epoch; whole epochs are still written in the first.
FORMATS = ("repro-checkpoint/1", "repro-checkpoint/2")
GROUPS = ("model", "optimizer", "sums", "random")
ADVICE = "move it away to start the run again"


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be continued from: truncated, altered, foreign, or not writable."""


class _DamagedError(CheckpointError):
    """A checkpoint that is not whole: the one before it may be."""


@dataclass
class Checkpoint:
    """The state of training after a whole epoch, or after some steps of one.

    Arguments:
        stage: Index of the stage to continue with.
        epoch: Its next epoch.
        history: One entry for each epoch done.
        model: The model's state.
        optimizer: Tensors of the optimiser's state, ``"<parameter's index>.<name>"``.
        step: Steps done of the next epoch; 0 between epochs.
        sums: What those steps added up of the loss terms.
        random: State of the random generators after those steps; empty where each step has a seed of its own.
        shards: Parts that every batch was divided into.
        batch_size: Samples a step of an epoch that was left within; 0 where it is not known.
        samples: Of that epoch, 0 where it is not known.
        way: How the stage's steps are taken; empty where no other way was asked for than operation by operation.
    """

    stage: int
    epoch: int
    history: list[dict[str, Any]]
    model: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Tensor] = field(default_factory=dict)
    step: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)
    random: dict[str, Tensor] = field(default_factory=dict)
    shards: int = 1
    batch_size: int = 0
    samples: int = 0
    way: str = ""


def _digest(state: str, tensors: Mapping[str, Tensor]) -> str:
    sha = hashlib.sha256(state.encode())
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        sha.update(f"{name}:{value.dtype}:{tuple(value.shape)};".encode())
        sha.update(value.reshape(-1).view(uint8).numpy())
    return sha.hexdigest()


def previous_path(path: Path) -> Path:
    """Where the checkpoint before the latest lies."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def check_folder(path: Path) -> None:
    """Notices before any training that a checkpoint has nowhere to go.

    Raises:
        CheckpointError: If its folder is not there or cannot be written to, or there is a folder of its name.
    """
    if path.is_dir():
        raise CheckpointError(f"cannot write checkpoint {path}: it is a folder; name a file in it")
    if not path.parent.is_dir():
        raise CheckpointError(f"cannot write checkpoint {path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise CheckpointError(f"cannot write checkpoint {path}: the folder {path.parent} cannot be written to")


def discard_checkpoints(path: Path) -> None:
    """Removes the latest checkpoint and the one before."""
    path.unlink(missing_ok=True)
    previous_path(path).unlink(missing_ok=True)


def save_checkpoint(path: Path, checkpoint: Checkpoint, key: str) -> None:
    """Writes a checkpoint atomically: it is there whole, or the one before still is.

    The former one is kept beside it under :func:`previous_path`, or given up where the disk has no room for both.

    Arguments:
        path: The file, ``*.safetensors``; its JSON part is the header's metadata.
        checkpoint: What to write.
        key: Key of the run that it belongs to.

    Raises:
        CheckpointError: If it cannot be written; the former file is untouched.
    """
    tensors = _unshared(
        {
            f"{group}.{name}": value.detach().cpu().contiguous()
            for group in GROUPS
            for name, value in getattr(checkpoint, group).items()
        }
    )
    content: dict[str, Any] = {"stage": checkpoint.stage, "epoch": checkpoint.epoch, "history": checkpoint.history}
    content |= {"way": checkpoint.way} if checkpoint.way else {}
    within = checkpoint.step > 0 or checkpoint.shards > 1
    if within:
        content |= {"step": checkpoint.step, "shards": checkpoint.shards, "terms": list(checkpoint.sums)}
        content |= {name: n for name in ("batch_size", "samples") if (n := getattr(checkpoint, name))}
    state = json.dumps(content)
    metadata = {"format": FORMATS[within], "key": key, "state": state, "sha256": _digest(state, tensors)}
    try:
        try:
            _write(path, tensors, metadata)
        except (OSError, SafetensorError) as error:
            if not _disk_is_full(error) or not previous_path(path).exists():
                raise
            previous_path(path).unlink()
            _write(path, tensors, metadata)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot write checkpoint {path}: {error}; the former one is kept") from None


def _unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same values, with a copy of those that share memory, as parameters of two parts of a model can."""
    seen: set[int] = set()
    found = {}
    for name, value in tensors.items():
        place = value.untyped_storage().data_ptr()
        found[name] = value.clone() if value.numel() and place in seen else value
        seen.add(place)
    return found


def _disk_is_full(error: Exception) -> bool:
    return getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        save_file(tensors, partial, metadata=metadata)
        with open(partial, "rb+") as handle:
            os.fsync(handle.fileno())
        if path.exists():
            # A second name for the former file, so that at every moment one whole checkpoint has the first name.
            with contextlib.suppress(OSError):  # a file system without links keeps no former checkpoint
                previous_path(path).unlink(missing_ok=True)
                os.link(path, previous_path(path))
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):  # the folder cannot be written to; the error itself says so
            partial.unlink(missing_ok=True)
        raise


def load_checkpoint(path: Path, key: str) -> Checkpoint:
    """Reads a checkpoint and checks that it is whole and belongs to the run.

    Raises:
        CheckpointError: If it is truncated, altered, not a checkpoint of this package, or of another run.
    """
    try:
        with safe_open(path, framework="pt") as handle:
            metadata = handle.metadata() or {}
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise _DamagedError(f"checkpoint {path} is truncated or no safetensors file ({error}); {ADVICE}") from None
    if metadata.get("format") not in FORMATS:
        # With this run's key it was this package's file once.
        kind = _DamagedError if metadata.get("key") == key != "" else CheckpointError
        raise kind(f"checkpoint {path} is not a {FORMATS[0]} file; {ADVICE}")
    if metadata.get("key") != key:
        raise CheckpointError(f"checkpoint {path} belongs to {_other_run(metadata.get('key'), key)}; {ADVICE}")
    if metadata.get("sha256") != _digest(metadata.get("state", ""), tensors):
        raise _DamagedError(f"checkpoint {path} is damaged (its hash does not match); {ADVICE}")
    state = json.loads(metadata["state"])
    groups: dict[str, dict[str, Tensor]] = {group: {} for group in GROUPS}
    for name, value in tensors.items():
        group, rest = name.split(".", 1)
        groups[group][rest] = value
    groups["sums"] = {name: groups["sums"][name] for name in state.get("terms", [])}
    return Checkpoint(
        state["stage"],
        state["epoch"],
        state["history"],
        groups["model"],
        groups["optimizer"],
        step=state.get("step", 0),
        sums=groups["sums"],
        random=groups["random"],
        shards=state.get("shards", 1),
        batch_size=state.get("batch_size", 0),
        samples=state.get("samples", 0),
        way=state.get("way", ""),
    )


def _other_run(found: str | None, key: str) -> str:
    """In what another run's key differs from this one's: by name where both are JSON, as default keys are."""
    try:
        before, now = json.loads(found or ""), json.loads(key)
        names = [n for n in {**before, **now} if before.get(n) != now.get(n)]
        changes = ", ".join(f"{n} {before.get(n)} (now {now.get(n)})" for n in names)
        return f"another run, of {changes}"
    except (ValueError, AttributeError, TypeError):
        return f"run {found}, not to {key}"


def load_latest_checkpoint(path: Path, key: str) -> Checkpoint | None:
    """Reads the latest checkpoint, or the one before it where the latest is damaged; None where there is neither.

    Continuing from the one before repeats the epochs between the two and ends in the same parameters.

    Raises:
        CheckpointError: If the latest is of another run or of another program, or if no whole one is left.
    """
    former = previous_path(path)
    if not path.exists():
        return load_checkpoint(former, key) if former.exists() else None
    try:
        return load_checkpoint(path, key)
    except _DamagedError as error:
        if not former.exists():
            raise CheckpointError(str(error)) from None
        try:
            found = load_checkpoint(former, key)
        except CheckpointError:
            raise CheckpointError(f"{error}; {former.name}, the one before, cannot be used either") from None
        warnings.warn(f"{error}; going on from the one before", stacklevel=2)
        with contextlib.suppress(OSError):  # so that the next one written keeps this one, not the damaged one
            os.replace(former, path)
        return found
