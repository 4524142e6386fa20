"""What reproducing everything takes: runs, hours, memory, storage, and the makespan on so many workers.

Times are measured ones wherever there are any: a run's own record, on a CPU at most 1.5 times what is counted of its
operations, since whatever else a machine has to do only lengthens it; else the seconds a step of recorded runs of the
same paper, dataset and method on a GPU; else what is counted, for one core of a CPU. Where nothing is counted it is
the seconds a step of recorded runs on a core, else what the run's experiment states.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from repro.artifacts.inventory import artifacts
from repro.artifacts.render import plan, unique
from repro.engine.cost import cost as counted_cost
from repro.engine.cost import expected
from repro.engine.progress import count_epochs, makespan
from repro.engine.speed import REFERENCE, cached_speed
from repro.engine.store import RunStore, read_record
from repro.errors import NotOfferedError, RecordError, UsageError
from repro.papers import experiment_of
from repro.records import Record, RunSpec, canonical_json
from repro.report.text import columns

__all__ = ["Cost", "Measured", "all_runs", "distinguished", "read_measured", "render_plan"]

WORKERS = (1, 8, 64)
# As far as a count may be off; a record on a CPU that took longer had other work beside it.
MOST_OFF = 1.5
# A record, a log and the files' headers; and Adam's two moments beside the parameters in each of two checkpoints.
RECORD_BYTES, CHECKPOINT_COPIES = 60_000, 2 * 3
SOURCES = ("own record", "records of its method", "estimate")


@dataclass(frozen=True)
class Cost:
    """What one run takes.

    Arguments:
        seconds: On one GPU, or on one core where ``on_gpu`` is false.
        megabytes: Peak memory.
        source: One of ``SOURCES``.
        on_gpu: Whether the seconds are a GPU's.
    """

    seconds: float
    megabytes: float
    source: str
    on_gpu: bool


def _steps(spec: RunSpec) -> float:
    """Steps of a run, as far as its specification tells; epochs where it does not say how many samples there are."""
    data, training = spec.params.get("data", {}), spec.params["training"]
    samples = data.get("train_samples") or data.get("samples")
    each = -(-samples // training["batch_size"]) if samples else 1
    return count_epochs(spec) * each


def _kind(spec: RunSpec) -> tuple[str, str, str, bool]:
    data = spec.params.get("data", {})
    return spec.paper, spec.dataset, spec.method, bool(data.get("train_samples") or data.get("samples"))


@dataclass
class Measured:
    """Recorded times, by run and by kind of run.

    Arguments:
        records: What was recorded.
    """

    records: Iterable[Record] = ()
    own: dict[str, Record] = field(default_factory=dict)
    alike: dict[tuple[str, str, str, bool], list[Record]] = field(default_factory=dict)
    methods: dict[tuple[str, str, str], list[Record]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for record in self.records:
            self.own[record.spec.key] = record
            if not _on_gpu(record):
                which = record.spec.paper, record.spec.dataset, record.spec.method
                self.methods.setdefault(which, []).append(record)
            self.alike.setdefault(_kind(record.spec), []).append(record)

    def cost(self, spec: RunSpec) -> Cost:
        """What a run takes."""
        estimated, megabytes = expected(spec, cached_speed() or REFERENCE)
        counted = counted_cost(spec) is not None
        if (record := self.own.get(spec.key)) is not None:
            if _on_gpu(record) or not counted or _seconds(record) <= MOST_OFF * estimated:
                return Cost(_seconds(record), megabytes, SOURCES[0], _on_gpu(record))
            return Cost(MOST_OFF * estimated, megabytes, SOURCES[2], False)
        known = self.alike.get(_kind(spec), [])
        known = [r for r in known if _on_gpu(r)] or ([] if counted else known)
        if known:
            step = median(r.training_seconds / _steps(r.spec) for r in known)
            evaluation = median(r.evaluation_seconds for r in known)
            return Cost(step * _steps(spec) + evaluation, megabytes, SOURCES[1], _on_gpu(known[0]))
        others = self.methods.get((spec.paper, spec.dataset, spec.method), [])
        if others and not counted:  # by how far the estimate was off for them; work beside them only lengthens
            ratio = min(_seconds(r) / expected(r.spec, cached_speed() or REFERENCE)[0] for r in others)
            return Cost(estimated * ratio, megabytes, SOURCES[2], False)
        return Cost(estimated, megabytes, SOURCES[2], False)


def _seconds(record: Record) -> float:
    return record.training_seconds + record.evaluation_seconds


def _on_gpu(record: Record) -> bool:
    return str(record.environment.get("device", "")).startswith("cuda")


def read_measured(store: RunStore, figures: Path) -> Measured:
    """The records beside the figures and in the run directories; one that is refused counts for nothing here."""
    found: dict[str, Record] = {}
    for path in [*sorted(figures.glob("*/records/*.json")), *sorted(store.root.glob("*/*/record.json"))]:
        with suppress(RecordError):
            if (record := read_record(path)) is not None:
                found[record.spec.key] = record
    return Measured(found.values())


def all_runs(profile: str, seeds: int | None = None) -> dict[str, list[RunSpec]]:
    """Artifact to the runs that it needs, for all that are computed here; a run of several stands under the first.

    Raises:
        UsageError: If no artifact has runs of the profile.
    """
    seen: set[RunSpec] = set()
    found: dict[str, list[RunSpec]] = {}
    for artifact in artifacts().values():
        if not artifact.built or artifact.kind in "DX" or artifact.same_as:
            continue
        try:
            specs = [s for s in unique(plan(artifact, profile, seeds)) if s not in seen]
        except NotOfferedError:
            continue
        seen.update(specs)
        if specs:
            found[artifact.name] = specs
    if not found:
        raise UsageError(f"no artifact has runs of profile {profile}")
    return found


def _leaves(value: object, name: str = "") -> dict[str, object]:
    """Settings of nested mappings, by their dotted names."""
    if not isinstance(value, Mapping):
        return {name: value}
    found: dict[str, object] = {}
    for key, inner in value.items():
        found |= _leaves(inner, f"{name}.{key}" if name else str(key))
    return found


def distinguished(specs: Sequence[RunSpec]) -> dict[RunSpec, str]:
    """What tells each run from all others, for people: method and seed, and the dataset and settings that differ.

    Settings are named by the last part of their name, where that is not another setting's too; of runs of several
    methods only what differs between runs of one method and seed is named.
    """
    leaves = {s: _leaves(s.params) for s in specs}
    datasets = len({s.dataset for s in specs}) > 1
    groups: dict[tuple[str, str, int], list[RunSpec]] = {}
    for spec in specs:
        groups.setdefault((spec.method, spec.dataset, spec.seed), []).append(spec)
    said: dict[RunSpec, str] = {}
    for group in groups.values():
        names = dict.fromkeys(n for s in group for n in leaves[s])
        differing = [n for n in names if len({canonical_json(leaves[s].get(n)) for s in group}) > 1]
        short = [n.rsplit(".", 1)[-1] for n in differing]
        labels = [n if short.count(last) > 1 else last for n, last in zip(differing, short, strict=True)]
        for spec in group:
            parts = [spec.method, *([spec.dataset] if datasets else []), f"seed {spec.seed}"]
            for name, label in zip(differing, labels, strict=True):
                value = leaves[spec].get(name)
                parts += [] if value is None else [f"{label} {_short(value)}"]
            said[spec] = ", ".join(parts)
    return said


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else canonical_json(value).strip('"')


def _stored_bytes(directory: Path) -> int:
    return sum(p.stat().st_size for p in directory.iterdir() if p.is_file()) if directory.is_dir() else 0


def model_bytes(spec: RunSpec) -> int:
    """Bytes of a run's parameters and buffers; 0 where the model cannot be built without data that is not here."""
    import torch

    before = os.environ.get("REPRO_OFFLINE")
    os.environ["REPRO_OFFLINE"] = "1"  # a plan fetches nothing
    try:
        for device in ("meta", "cpu"):  # without memory for values; but some models compute with them as they are made
            with suppress(Exception), torch.device(device), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                state = experiment_of(spec).build(spec).state_dict()
                return sum(x.numel() * x.element_size() for x in state.values())
    finally:
        if before is None:
            del os.environ["REPRO_OFFLINE"]
        else:
            os.environ["REPRO_OFFLINE"] = before
    return 0


class _Sizes:
    """Models' sizes, each built once however many seeds it has."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str, str, str], int] = {}

    def of(self, spec: RunSpec) -> int:
        which = spec.paper, spec.dataset, spec.method, canonical_json(spec.params.get("model", {}))
        if which not in self.known:
            self.known[which] = model_bytes(spec)
        return self.known[which]


def _gigabytes(value: float) -> str:
    return f"{value / 1e9:.1f} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h"


def render_plan(runs: Mapping[str, Sequence[RunSpec]], store: RunStore, measured: Measured) -> str:
    """The plan as text: a line for each artifact, totals, makespans, and what the numbers rest on."""
    head = ("artifact", "runs", "recorded", "GPU-hours", "core-hours", "peak memory", "storage")
    rows: list[tuple[str, ...]] = [head]
    costs: list[Cost] = []
    totals = [0, 0]
    kept = checkpoints = unknown = 0
    models = _Sizes()
    for name, specs in runs.items():
        own = [measured.cost(s) for s in specs]
        recorded = sum(s.key in measured.own for s in specs)
        sizes = [models.of(s) for s in specs]
        unknown += sum(size == 0 for size in sizes)
        there = [_stored_bytes(store.directory(s)) for s in specs]
        stored = sum(n or size + RECORD_BYTES for n, size in zip(there, sizes, strict=True))
        rows.append(_row(name, len(specs), recorded, own, stored))
        costs += own
        totals = [totals[0] + len(specs), totals[1] + recorded]
        kept += stored
        checkpoints = max(checkpoints, CHECKPOINT_COPIES * max(sizes))
    rows.append(_row("all", *totals, costs, kept))
    lines = columns(rows, numbers=True)
    spans = [f"{_hours(makespan([c.seconds for c in costs], n))} on {n}" for n in WORKERS]
    longest = max(c.seconds for c in costs)
    lines.append(f"makespan: {', '.join(spans)} GPUs, one run a GPU (the longest takes {_hours(longest)})")
    lines.append(f"checkpoints while a run is trained: up to {_gigabytes(checkpoints)} more for each run at once")
    counts = [sum(c.source == s for c in costs) for s in SOURCES]
    lines.append(
        f"times: {counts[0]} runs by their own record, {counts[1]} by the seconds a step of records of their method, "
        f"{counts[2]} by their paper's estimate"
    )
    cores = sum(not c.on_gpu for c in costs)
    if cores:
        lines.append(f"{cores} runs have no time of a GPU: each is counted with that of one core of a CPU")
    if unknown:
        lines.append(f"storage of {unknown} runs is unknown: their models are built from data that is not read here")
    return "\n".join(lines)


def _row(name: str, runs: int, recorded: int, costs: Sequence[Cost], stored: int) -> tuple[str, ...]:
    gpu = sum(c.seconds for c in costs if c.on_gpu)
    core = sum(c.seconds for c in costs if not c.on_gpu)
    memory = max(c.megabytes for c in costs)
    hours = [f"{x / 3600:.1f}" if x else "-" for x in (gpu, core)]
    return name, str(runs), str(recorded), *hours, _gigabytes(1e6 * memory), _gigabytes(stored)
