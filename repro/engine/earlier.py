"""Begins a run with the stages that it shares with another, which has trained them already.

Every epoch draws from a stream of its own, named by seed, stage and epoch, and every stage has a new optimiser: what a
stage trains depends on nothing of those after it, and stays as it is where those train other parts of the model. Of two
runs that differ in later stages alone (in how long an energy is trained, say), or only in what is measured, the second
therefore need not train the earlier ones again. It begins with a checkpoint made of the first one's weights, and is,
bit for bit, what it would be if it had trained them itself."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from repro.datasets.base import Dataset
from repro.engine.store import file_sha256, read_record
from repro.errors import RecordError
from repro.model import Stage, TrainableModel
from repro.papers import experiment_of
from repro.records import RunSpec
from repro.training.checkpoints import Checkpoint, save_checkpoint
from repro.training.loop import TrainingSettings

__all__ = ["begin_with_earlier_stages", "shared_stages"]

# What a run was trained on and with, where its weights differ by it.
TRAINED_WITH = ("device_name", "shards", "processes", "stacked")


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


def shared_stages(spec: RunSpec, other: RunSpec, stages: list[Stage]) -> int:
    """How many stages two runs have in common before the first that differs; 0 if they differ in anything else.

    What is measured may differ. Stages are not shared whose parts of the model later ones train further, and neither
    are those of a reader's own model, of which nobody knows what a stage changes besides.

    Arguments:
        spec: One run.
        other: Another of the same model.
        stages: The model's stages.
    """

    def remaining(one: RunSpec) -> RunSpec:
        kept = {k: v for k, v in one.params.items() if k not in ("training", "evaluation")}
        return replace(one, params={**kept, "training": {}})

    if remaining(spec) != remaining(other) or "module" in spec.params.get("model", {}):
        return 0
    asked, found = (_for_stages(one, stages) for one in (spec, other))
    same = 0
    while same < len(stages) and asked[same] == found[same]:
        same += 1
    return max((n for n in range(same + 1) if _apart(stages, n)), default=0)


def _for_stages(spec: RunSpec, stages: list[Stage]) -> list[TrainingSettings]:
    settings = experiment_of(spec).training(spec)
    return [settings.for_stage(stage.name) for stage in stages]


def _candidates(spec: RunSpec, runs: Path) -> Iterator[tuple[Path, RunSpec]]:
    """The finished trainings beside a run's directory, of its model and seed."""
    for note in sorted(runs.glob("*/training.json")):
        with suppress(OSError, ValueError, RecordError):  # a run in the making, or one that is not ours to judge
            path = note.with_name("spec.json")
            other = RunSpec.from_dict(json.loads(path.read_text(encoding="utf-8")), str(path))
            if other.method == spec.method and other.seed == spec.seed and other != spec:
                yield note.parent, other


def begin_with_earlier_stages(
    spec: RunSpec, model: TrainableModel, data: Mapping[str, Dataset], directory: Path, machine: Mapping[str, Any]
) -> str:
    """Writes a run's first checkpoint from the recorded run beside it that shares most of its stages.

    Nothing is done where the run has a checkpoint, or no other run has trained stages that it shares, on the same data
    and device, and alone.

    Arguments:
        spec: The run.
        model: Its model, with its initial parameters, which stay as they are.
        data: Split to its data.
        directory: Its directory; the others lie beside it.
        machine: The environment that it is trained in.

    Returns:
        The key of the run that it begins with, empty for none.

    Raises:
        CheckpointError: If the checkpoint cannot be written.
    """
    checkpoint, stages = directory / "checkpoint.safetensors", list(model.stages())
    if checkpoint.exists():
        return ""
    ending = any(settings.patience is not None for settings in _for_stages(spec, stages))
    splits = ("train", "validation") if ending else ("train",)
    trained_on = {f"{d.name}/{s}": d.provenance["sha256"] for s, d in data.items() if s in splits}
    number, chosen = 0, None
    for folder, other in _candidates(spec, directory.parent):
        if (shared := shared_stages(spec, other, stages)) > number:
            trained = _trained_alike(folder, other, trained_on, machine)
            if trained is not None:
                number, chosen = shared, (folder, other, trained)
    if chosen is None:
        return ""
    folder, other, trained = chosen
    parts, state = _parts(stages[:number]), model.state_dict()
    everything = number == len(stages)
    weights = load_file(folder / "weights.safetensors")
    if set(weights) != set(state) or any(weights[n].shape != state[n].shape for n in state):
        return ""
    for name in state:
        if everything or name.partition(".")[0] in parts:
            state[name] = weights[name]
    names = {stage.name for stage in stages[:number]}
    by = {"trained_by": other.key, "commit": trained["environment"].get("commit")}
    history = [{**entry, **by} for entry in trained["history"] if entry["stage"] in names]
    save_checkpoint(checkpoint, Checkpoint(number, 0, history, model=state), spec.key)
    return other.key


def _trained_alike(
    folder: Path, other: RunSpec, trained_on: Mapping[str, str], machine: Mapping[str, Any]
) -> dict[str, Any] | None:
    """What is noted of a run's training, if it is recorded, whole, and was trained as one on this device and data."""
    try:
        if (record := read_record(folder / "record.json")) is None:
            return None
        trained = json.loads((folder / "training.json").read_text(encoding="utf-8"))
        had = trained["environment"]
        alike = all(record.data.get(name) == sha for name, sha in trained_on.items())
        alike = alike and all(had.get(name) == machine.get(name) for name in TRAINED_WITH)
        alike = alike and record.environment.get("versions", {}).get("torch") == machine["versions"]["torch"]
        alike = alike and (not had.get("dirty") or bool(machine.get("dirty")))  # a clean commit's record is that
        whole = trained["key"] == other.key and trained["weights_sha256"] == file_sha256(folder / "weights.safetensors")
    except (OSError, ValueError, KeyError, TypeError, RecordError):
        return None
    return trained if alike and whole else None
