"""Begins a run with the stages that it shares with another, which has trained them already.

Every epoch draws from a stream of its own, named by seed, stage and epoch, and every stage has a new optimiser: what a
stage trains depends on nothing of those after it, and stays as it is where those train other parts of the model. Of two
runs that differ in later stages alone (in how long an energy is trained, say), or only in what is measured, the second
therefore need not train the earlier ones again. It begins with a checkpoint made of the first one's weights, and is,
with the same code bit for bit, what it would be if it had trained them itself. Every entry of its history that another
run has trained says which, at which commit, and whether it had changes; a record of such stages is one with changes
too. A table's line of provenance counts the records that began so, and names those commits."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from repro.datasets.base import Dataset
from repro.engine.environment import environment
from repro.engine.execute import acquired, loaded
from repro.engine.store import RunStore, check_spec_file, file_sha256, read_record, write_atomically
from repro.errors import RecordError
from repro.model import Stage
from repro.papers import experiment_of
from repro.records import RunSpec
from repro.training.checkpoints import Checkpoint, previous_path, save_checkpoint
from repro.training.loop import TrainingSettings

__all__ = ["begin_with_earlier_stages", "shared_stages"]

# What is noted of training several seeds at once or by several processes.
TOGETHER = ("shards", "processes", "stacked")
# What a run's directory can be like that is not one, is of another version, or is being written or removed.
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecordError, SafetensorError)


@dataclass(frozen=True)
class _Earlier:
    """What another run has trained.

    Arguments:
        key: The run.
        stages: Number of stages that are shared.
        history: Their entries.
        weights: Its parameters and buffers.
    """

    key: str
    stages: int
    history: list[dict[str, Any]]
    weights: Mapping[str, Tensor]


def _parts(stages: list[Stage]) -> set[str]:
    """The parts of a model, the first of a parameter's name, that stages train; ``""`` for all of it."""
    return {p.partition(".")[0] for stage in stages for p in stage.parameters or ("",)}


def _apart(stages: list[Stage], number: int) -> bool:
    """Whether the stages from a number on are of other parts of the model than those before.

    By parts and not by parameters, since a part has more than those: a score's moving average, an encoder's statistics.
    """
    if number == len(stages):
        return True
    earlier, later = _parts(stages[:number]), _parts(stages[number:])
    return "" not in earlier | later and earlier.isdisjoint(later)


def _but_training(spec: RunSpec) -> RunSpec:
    kept = {k: v for k, v in spec.params.items() if k not in ("training", "evaluation")}
    return replace(spec, params=kept)


def _for_stages(spec: RunSpec, stages: list[Stage]) -> list[TrainingSettings]:
    settings = experiment_of(spec).training(spec)
    return [settings.for_stage(stage.name) for stage in stages]


def shared_stages(spec: RunSpec, other: RunSpec, stages: list[Stage]) -> int:
    """How many stages two runs have in common before the first that differs; 0 if they differ in anything else.

    What is measured may differ. Stages are not shared whose parts of the model later ones train further, and neither
    are those of a reader's own model, of which nobody knows what a stage changes besides.

    Arguments:
        spec: One run.
        other: Another of the same model.
        stages: The model's stages.
    """
    if _but_training(spec) != _but_training(other) or experiment_of(spec).foreign:
        return 0
    asked, found = (_for_stages(one, stages) for one in (spec, other))
    same = 0
    while same < len(stages) and asked[same] == found[same]:
        same += 1
    return max((n for n in range(same + 1) if _apart(stages, n)), default=0)


def begin_with_earlier_stages(spec: RunSpec, store: RunStore, device: str = "cpu") -> str:
    """Writes a run's first checkpoint from the recorded run beside it that shares most of its stages.

    Nothing is done where the run has begun already, or no other run has trained stages that it shares: on the same data
    and device, with the same torch and number of threads, alone, and of a commit without changes where this is one.

    Arguments:
        spec: The run.
        store: Where run directories live.
        device: Where it will be trained.

    Returns:
        The key of the run that it begins with, empty for none.

    Raises:
        BusyError: If another process is executing the run.
        RecordError: If files of another run are in its directory.
        CheckpointError: If the checkpoint cannot be written.
        RunError: If the directory cannot be written to.
    """
    directory = store.directory(spec)
    checkpoint = directory / "checkpoint.safetensors"
    begun = (directory / "record.json", directory / "weights.safetensors", checkpoint, previous_path(checkpoint))
    candidates = [] if experiment_of(spec).foreign else list(_candidates(spec, directory.parent))
    if not candidates or any(path.exists() for path in begun):
        return ""
    with acquired(spec, store):
        if any(path.exists() for path in begun):  # another process had it meanwhile
            return ""
        check_spec_file(directory, spec)
        data, model = loaded(spec)
        stages, state, machine = list(model.stages()), model.state_dict(), environment(device)
        shapes = {name: value.shape for name, value in state.items()}
        found = None
        for folder, other in candidates:
            with suppress(*UNREADABLE):
                one = _read(spec, folder, other, stages, data, machine)
                fits = one is not None and {name: x.shape for name, x in one.weights.items()} == shapes
                if fits and (found is None or one.stages > found.stages):
                    found = one
        if found is None:
            return ""
        parts = _parts(stages[: found.stages])
        for name in state:
            if found.stages == len(stages) or name.partition(".")[0] in parts:
                state[name] = found.weights[name]
        save_checkpoint(checkpoint, Checkpoint(found.stages, 0, found.history, model=state), spec.key)
        write_atomically(directory / "log.jsonl", "".join(json.dumps(entry) + "\n" for entry in found.history))
    return found.key


def _candidates(spec: RunSpec, runs: Path) -> Iterator[tuple[Path, RunSpec]]:
    """The recorded runs beside a run's directory that are of its model, data and seed."""
    for path in sorted(runs.glob("*/spec.json")):
        with suppress(*UNREADABLE):
            other = RunSpec.from_dict(json.loads(path.read_text(encoding="utf-8")), str(path))
            if other != spec and _but_training(other) == _but_training(spec) and (path.parent / "record.json").exists():
                yield path.parent, other


def _read(
    spec: RunSpec,
    folder: Path,
    other: RunSpec,
    stages: list[Stage],
    data: Mapping[str, Dataset],
    machine: Mapping[str, Any],
) -> _Earlier | None:
    """What a run has trained that another shares; None for nothing.

    Raises:
        Any of ``UNREADABLE``: If the run's directory is not what it should be.
    """
    number = shared_stages(spec, other, stages)
    record = read_record(folder / "record.json", other)
    trained = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    if not number or record is None or trained["key"] != other.key:
        return None
    had, weights = trained["environment"], folder / "weights.safetensors"
    ending = any(settings.patience is not None for settings in _for_stages(spec, stages))
    splits = ("train", "validation") if ending else ("train",)
    same_data = all(
        record.data.get(f"{d.name}/{split}") == d.provenance["sha256"] for split, d in data.items() if split in splits
    )
    alike = ("device", "threads") if machine["device"] == "cpu" else ("device",)  # a GPU's sums are of no thread
    same_machine = had.get("device_name") == machine.get("device_name") and all(
        record.environment[name] == machine[name] for name in alike
    )
    same_machine = same_machine and record.environment["versions"]["torch"] == machine["versions"]["torch"]
    clean = had.get("dirty") is False or machine.get("dirty") is not False
    whole = trained["weights_sha256"] == record.weights_sha256 == file_sha256(weights)
    if not (same_data and same_machine and clean and whole) or any(name in had for name in TOGETHER):
        return None
    if any("step" in entry for entry in trained["history"]):  # taken in another way than operation by operation
        return None
    names = {stage.name for stage in stages[:number]}
    by = {"trained_by": other.key, "commit": had.get("commit"), "dirty": had.get("dirty")}
    entries = [entry for entry in trained["history"] if entry["stage"] in names]
    history = [entry if "trained_by" in entry else {**entry, **by} for entry in entries]
    return _Earlier(other.key, number, history, load_file(weights)) if history else None
