"""A reader's own results: where they are written, what is refused there, and how they stand beside recorded ones."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from repro.artifacts import render as a
from repro.artifacts.gallery import RESULTS_HEADING, gallery, recorded_seeds
from repro.artifacts.inventory import Artifact, artifacts, find
from repro.datasets.places import expanded
from repro.engine.store import RunStore, default_results_root, default_runs_root, read_record, write_atomically
from repro.errors import RecordError, RunError, UnreadableError, UsageError
from repro.records import FORMAT, PRECISIONS, RunSpec, with_precision
from repro.report.joined import Joint, join
from repro.report.plain_tables import PlainTable
from repro.report.tables import Table

__all__ = [
    "ResultsError",
    "Standing",
    "check_results",
    "check_versions",
    "refusing_damaged_records",
    "run",
    "standing",
    "write_results",
]

ELSEWHERE = "--results or REPRO_RESULTS names another folder"


class ResultsError(UsageError):
    """A folder of results that cannot be used; the message is one line, and nothing in it was changed."""


@contextmanager
def refusing_damaged_records() -> Iterator[None]:
    """Makes a damaged record a refusal of the call, as other results that cannot be used are.

    Raises:
        ResultsError: If a record was altered, cut off, or is that of another run.
    """
    try:
        yield
    except UnreadableError:  # the disk's fault, not the record's
        raise
    except RecordError as error:
        advice = "" if " move " in str(error) else "; move the file away"
        raise ResultsError(f"{error}{advice}") from None


def _folder(name: str, value: str | os.PathLike[str] | None, default: Path) -> Path:
    """A folder that a caller names, ``~`` expanded; the default for None and for an empty text."""
    try:
        folder = expanded(value or default)
    except TypeError:
        raise UsageError(f"{name} is {value!r}, must be a path") from None
    if not (existing := _nearest(folder)).is_dir():
        raise ResultsError(f"cannot write {name} to {folder}: {existing} is no folder")
    return folder


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest above it that exists."""
    return next((p for p in (folder, *folder.parents) if os.path.lexists(p)), Path())


def _check_writable(folder: Path, what: str = "results", advice: str = ELSEWHERE) -> None:
    try:
        with tempfile.TemporaryFile(dir=_nearest(folder)):
            pass
    except OSError as error:
        raise ResultsError(f"cannot write {what} to {folder}: {error.strerror or error}; {advice}") from None


@cache
def _planned(paper: str, profile: str, seeds: int | None) -> frozenset[RunSpec]:
    found: set[RunSpec] = set()
    for artifact in artifacts().values():
        if artifact.paper == paper and artifact.built and not artifact.same_as:
            with suppress(a.NotOfferedError):
                found |= set(a.unique(a.plan(artifact, profile, seeds)))
    return frozenset(found)


def _is_planned(spec: RunSpec) -> bool:
    """Whether some artifact has that run, with however many seeds and in whatever precision."""
    alike = {spec}
    for precision in PRECISIONS:
        with suppress(ValueError):  # a model without such a choice
            alike.add(with_precision(spec, precision))
    return any(alike & _planned(spec.paper, spec.profile, seeds) for seeds in (None, spec.seed + 1))


def check_versions(results: Path, paper: str) -> None:
    """Makes sure that the records of a paper are this version's; damaged ones are refused where they are needed.

    Raises:
        ResultsError: If one has another format, or is of a run that no artifact has any more.
    """
    for path in sorted((results / paper / "records").glob("*.json")):
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            form = value.get("format")
            spec = RunSpec.from_dict(value.get("spec"), str(path)) if form == FORMAT else None
        except (OSError, ValueError, AttributeError):
            continue
        if isinstance(form, str) and form != FORMAT:
            why = f"has the format {form!r}, here it is {FORMAT!r}"
        elif spec is not None and spec.paper == paper and not _is_planned(spec):
            why = f"is of a run that this version does not have ({spec.label})"
        else:
            continue
        raise ResultsError(
            f"{path} {why}: results of another version of the package; move {results} away, or {ELSEWHERE}"
        )


def check_results(
    artifact: Artifact, profile: str, specs: Sequence[RunSpec], results: Path, precision: str | None = None
) -> None:
    """Makes sure, before anything is trained, that results can be written and that none of another kind is in the way.

    Arguments:
        artifact: What is to be rendered.
        profile: The profile of its runs.
        specs: Its runs.
        results: The folder.
        precision: Of the hidden layers, as :func:`repro.artifacts.render.plan` takes it.

    Raises:
        ResultsError: If the folder cannot be written to, or what is there is another version's or not this package's.
        RecordError: If the record of one of the runs is damaged there.
    """
    folders = [results, a.output_folder(artifact, profile, results, precision)]
    for folder in dict.fromkeys([*folders, *(a.record_path(s, results).parent for s in specs)]):
        _check_writable(folder)
    page = results / "README.md"
    if page.exists() and not page.read_text(encoding="utf-8", errors="replace").startswith(RESULTS_HEADING):
        raise ResultsError(f"{page} was not written by this package; {ELSEWHERE}")
    for paper in dict.fromkeys(s.paper for s in specs):
        check_versions(results, paper)
    for spec in specs:
        read_record(a.record_path(spec, results), spec)


def write_results(
    artifact: Artifact,
    profile: str,
    specs: Sequence[RunSpec],
    results: Path,
    *,
    store: RunStore,
    seeds: int | None = None,
    precision: str | None = None,
) -> list[Path]:
    """Writes the records, what is rendered from them, and the page over all results.

    Arguments:
        artifact: What to render.
        profile: The profile of its runs.
        specs: Its runs, all recorded.
        results: The folder.
        store: The run directories.
        seeds: Number of seeds; the profile's if None.
        precision: Of the hidden layers, as :func:`repro.artifacts.render.plan` takes it.

    Returns:
        The rendered files.
    """
    a.export_records(specs, store, results)
    paths = a.render(artifact, profile, results, store=store, seeds=seeds, precision=precision)
    write_atomically(results / "README.md", gallery(results, own=True))
    return paths


def run(
    name: str,
    *,
    profile: str = "paper",
    seeds: int | None = None,
    workers: int | None = None,
    device: str | None = None,
    runs: str | os.PathLike[str] | None = None,
    results: str | os.PathLike[str] | None = None,
    force: bool = False,
    precision: str = "auto",
) -> list[Path]:
    """Runs what an artifact needs and renders it: the command ``repro run``.

    It can be called from a script without a main guard, from a notebook or from standard input: the worker processes
    do not import what calls it. A run that another process executes is waited for.

    Arguments:
        name: The artifact, such as ``"gmrf_mcvae/table1"``.
        profile: ``"paper"``, ``"overnight"``, ``"quick"`` or ``"smoke"``.
        seeds: Number of seeds; the profile's if None.
        workers: Processes; one a core if None.
        device: Where to train; a GPU if there is one, else the CPU, if None.
        runs: Folder of the run directories; that of ``REPRO_RUNS`` or ``runs`` if None.
        results: Folder of the rendered files and the records; that of ``REPRO_RESULTS`` or ``results`` if None.
        force: Whether to discard what these runs left and start them anew.
        precision: Of the hidden layers, as :func:`repro.artifacts.render.plan` takes it.

    Returns:
        The rendered files.

    Raises:
        UsageError: If the artifact or the profile is unknown, it is not computed here, or a folder is no path, cannot
            be written to, or holds results of another version of the package.
        RecordError: If a record there is damaged.
        RunError: If a run failed; it names each failed run and why.
    """
    from repro.engine.devices import available_cores
    from repro.engine.local import describe, run_all
    from repro.engine.progress import Progress

    artifact = find(name)
    specs = a.unique(a.plan(artifact, profile, seeds, precision, device))
    store = RunStore(_folder("runs", runs, default_runs_root()))
    results = _folder("results", results, default_results_root())
    check_results(artifact, profile, specs, results, precision)
    if force:
        for spec in specs:
            store.discard(spec)
    if todo := a.missing_runs(specs, store):
        _check_writable(store.root, "runs", "runs= or REPRO_RUNS names another folder")
        if device is None:
            import torch

            device = "cuda" if torch.cuda.is_available() else "cpu"
        progress = Progress(todo, lambda spec: a.estimate([spec], 1)[0], workers=workers or available_cores())
        try:
            failures = run_all(todo, store, workers=workers, device=device, progress=progress)
        finally:
            progress.close()
        if failures:
            raise RunError(describe(failures, len(todo)))
    return write_results(artifact, profile, specs, results, store=store, seeds=seeds, precision=precision)


@dataclass(frozen=True)
class Standing:
    """An artifact's tables from recorded runs and from your own.

    Arguments:
        recorded: Those of the recorded runs; None without any.
        yours: Those of your runs; None without any.
        joint: Both joined; None where they hold no numbers.
        unfinished: What there is of runs of yours that do not suffice for a table; empty if they do, or there is none.
    """

    recorded: Sequence[Table | PlainTable] | None
    yours: Sequence[Table | PlainTable] | None
    joint: Joint | None
    unfinished: str = ""


def _seeds(artifact: Artifact, profile: str, sources: a.Sources) -> int | None:
    """The largest number of seeds that all rows have records of, those beyond the profile's number among them.

    Raises:
        RunError: If a row lacks even its first seed.
    """
    found = recorded_seeds(artifact, profile, sources)
    if found is not None or a.is_unrecorded(artifact, profile, sources):
        return found
    known = a.unique(a.plan(artifact, profile))
    number = len({s.seed for s in known})
    while True:
        more = a.unique(a.plan(artifact, profile, number + 1))
        if set(more) <= set(known) or any(sources.record(s) is None for s in more):
            return found
        known, found = more, number + 1
        number += 1


def standing(
    artifact: Artifact,
    profile: str,
    *,
    figures: Path,
    store: RunStore,
    results: Path,
    seeds: int | None = None,
    precision: str | None = None,
) -> Standing:
    """The tables of recorded runs and of your own, joined.

    Arguments:
        artifact: The artifact.
        profile: The profile of the runs.
        figures: Where recorded material lies.
        store: Your run directories.
        results: Your results.
        seeds: Number of your seeds; as many as there are if None.
        precision: Of the hidden layers, as :func:`repro.artifacts.render.plan` takes it.

    Raises:
        ResultsError: If your results are another version's.
        RecordError: If a record that is needed is damaged.
    """
    specs = a.unique(a.plan(artifact, profile))
    for paper in dict.fromkeys(s.paper for s in specs):
        check_versions(results, paper)
    known = a.Sources(None, figures, precision)
    own = a.Sources(store, results, precision)
    recorded: Sequence[Table | PlainTable] | None = None
    yours: Sequence[Table | PlainTable] | None = None
    unfinished = ""
    with suppress(RunError):
        recorded = a.tables(artifact, profile, known, _seeds(artifact, profile, known))
    done = sum(own.record(s) is not None for s in specs)
    if done:
        try:
            yours = a.tables(artifact, profile, own, seeds or _seeds(artifact, profile, own))
        except RunError:
            unfinished = f"{done} of your {len(specs)} runs are recorded; `{artifact.command(profile)}` continues them"
    no_verdict = a.NO_VERDICT if profile == "smoke" else ""
    return Standing(recorded, yours, join(recorded, yours, no_verdict), unfinished)
