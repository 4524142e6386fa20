"""What a queue of runs does in which order: steps of a TOML file, the package's own being ``overnight.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from repro.artifacts.inventory import find
from repro.artifacts.planning import Measured
from repro.artifacts.render import Sources, check_profile, missing_runs, plan, unique
from repro.engine.progress import makespan
from repro.engine.store import RunStore
from repro.errors import NotOfferedError, UsageError
from repro.records import RunSpec
from repro.report.text import columns
from repro.weights.folder import package_folder

__all__ = ["Planned", "Step", "plan_steps", "read_steps", "render_steps", "waiting"]


@dataclass(frozen=True)
class Step:
    """The runs of one artifact.

    Arguments:
        artifact: Its name.
        part: The part of the schedule that it belongs to, for people.
        profile: The profile of its runs.
        seeds: How many seeds, from 0 on; the profile's number if None.
        ships: Building blocks of the package that come of its run.
        after: Building blocks that must ship from an earlier step's run before this one starts.
    """

    artifact: str
    part: str = ""
    profile: str = "overnight"
    seeds: int | None = None
    ships: Sequence[str] = ()
    after: Sequence[str] = ()

    @property
    def label(self) -> str:
        """A short name for people."""
        return f"{self.artifact} ({self.profile}{'' if self.seeds is None else f', {self.seeds} seeds'})"


@dataclass(frozen=True)
class Planned:
    """A step and what there is to do.

    Arguments:
        step: The step.
        specs: Its runs that no step before has.
        todo: Those of them without a record, or with one of data that have changed since; the longest first.
        waits: Why it cannot be started yet; empty where it can.
    """

    step: Step
    specs: Sequence[RunSpec] = ()
    todo: Sequence[RunSpec] = field(default=())
    waits: str = ""


def read_steps(path: Path | None = None) -> list[Step]:
    """The steps of a schedule, in order.

    Arguments:
        path: Its file; the package's own if None.

    Raises:
        UsageError: If it cannot be read, names what there is not, a value is of a wrong type, or a step is to start
            after what none before ships.
    """
    where = "overnight.toml" if path is None else str(path)
    try:
        text = (
            (files("repro.artifacts") / "overnight.toml").read_text(encoding="utf-8")
            if path is None
            else path.read_text(encoding="utf-8")
        )
        found = tomllib.loads(text)
        steps = [Step(**entry) for entry in found["step"]]
        for number, step in enumerate(steps, 1):
            _check_types(step, f"{where}: step {number}")
    except OSError as error:
        raise UsageError(f"cannot read {where}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise UsageError(f"{where} is not a schedule of [[step]] entries: {' '.join(str(error).split())}") from None
    shipped: set[str] = set()
    for step in steps:
        find(step.artifact)
        check_profile(step.profile)
        if unknown := [name for name in step.after if name not in shipped]:
            raise UsageError(
                f"{where}: {step.label} is to start after {', '.join(unknown)}, which no step before ships"
            )
        shipped |= set(step.ships)
    return steps


def _check_types(step: Step, where: str) -> None:
    """Refuses values that TOML can hold and a step cannot."""
    for name in ("artifact", "part", "profile"):
        if not isinstance(value := getattr(step, name), str):
            raise UsageError(f"{where}: {name} is {value!r}, must be text")
    for name in ("ships", "after"):
        value = getattr(step, name)
        if not isinstance(value, list | tuple) or not all(isinstance(x, str) for x in value):
            raise UsageError(f"{where}: {name} is {value!r}, must be a list of names")
    seeds = step.seeds
    if seeds is not None and (not isinstance(seeds, int) or isinstance(seeds, bool) or seeds < 1):
        raise UsageError(f"{where}: seeds is {seeds!r}, must be a whole number of at least 1")


def plan_steps(steps: Sequence[Step], store: RunStore, figures: Path | None = None) -> list[Planned]:
    """What there is to do of each step; a run of several steps is of the first of them.

    A run whose building blocks have yet to ship needs its own directory, from which they are shipped, and is to do
    even where its record lies in ``figures``.

    Arguments:
        steps: The steps, in order.
        store: Where run directories live.
        figures: Recorded material, whose runs are not done again; None to do them again.

    Raises:
        RecordError: If a record is not sound.
        UsageError: If a step's artifact is not computed from runs.
    """
    manifest = package_folder() / "manifest.toml"
    shipped = {name: entry["record"] for name, entry in tomllib.loads(manifest.read_text(encoding="utf-8")).items()}
    sources: dict[str, RunSpec] = {}
    seen: set[RunSpec] = set()
    found = []
    for step in steps:
        try:
            every = unique(plan(find(step.artifact), step.profile, step.seeds, "auto"))
        except NotOfferedError as error:
            found.append(Planned(step, waits=str(error)))
            continue
        specs = [s for s in every if s not in seen]
        todo = missing_runs(specs, store)
        if figures is not None and all(shipped.get(name) == every[0].key for name in step.ships):
            recorded = Sources(None, figures)
            todo = [s for s in todo if not recorded.is_current(s) and not recorded.diverged(s)]
        waits = _waits(step, sources, shipped) if todo else ""
        if not waits:
            seen.update(specs)
        sources |= dict.fromkeys(step.ships, every[0])
        found.append(Planned(step, specs, todo, waits))
    return found


def _waits(step: Step, sources: Mapping[str, RunSpec], shipped: Mapping[str, Any]) -> str:
    """Why a step cannot start, as far as what ships is concerned."""
    absent = [name for name in step.after if name not in sources or shipped.get(name) != sources[name].key]
    if not absent:
        return ""
    runs = ", ".join(dict.fromkeys(sources[name].label for name in absent if name in sources))
    return (
        f"its data need {' and '.join(absent)} of {runs}: ship {'it' if len(absent) == 1 else 'them'}, then start again"
    )


def render_steps(planned: Sequence[Planned], measured: Measured, workers: int) -> str:
    """The schedule as text: a line for each step, the steps that wait with their reason, and the time of the others.

    Arguments:
        planned: The steps.
        measured: Times of what is recorded.
        workers: Processes, one run each.
    """
    rows = [("step", "runs", "recorded", f"hours on {workers}")]
    total: list[float] = []
    for p in planned:
        seconds = [measured.cost(s).seconds for s in p.todo]
        left = "waits" if p.waits else f"{makespan(seconds, workers) / 3600:.1f}"
        rows.append((p.step.label, str(len(p.specs)), str(len(p.specs) - len(p.todo)), left))
        total += [] if p.waits else seconds
    head, *steps = columns(rows, numbers=True)
    lines, part = [head], ""
    for p, line in zip(planned, steps, strict=True):
        lines += [p.step.part, line] if p.step.part not in ("", part) else [line]
        part = p.step.part
    hours = makespan(total, workers) / 3600
    lines.append(
        f"{len(total)} runs to do, about {hours:.1f} h on {workers} core{'s' * (workers > 1)} at their most epochs"
    )
    return "\n".join([*lines, *waiting(planned)])


def waiting(planned: Sequence[Planned]) -> list[str]:
    """One line for each reason why steps cannot start yet, with those steps."""
    by_reason: dict[str, list[str]] = {}
    for p in planned:
        if p.waits:
            by_reason.setdefault(p.waits, []).append(p.step.label)
    return [f"{', '.join(labels)} cannot start yet: {reason}" for reason, labels in by_reason.items()]
