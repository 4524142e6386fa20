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
from repro.artifacts.inventory import Artifact, artifacts
from repro.engine.store import RunStore, read_divergence, read_record, write_atomically
from repro.errors import RecordError, RunError, UnreadableError, UsageError
from repro.records import FORMAT, PRECISIONS, RunSpec, with_precision
from repro.report.joined import Joint, join
from repro.report.plain_tables import PlainTable
from repro.report.tables import Table

__all__ = [
    "ResultsError",
    "Standing",
    "check_results",
    "check_writable",
    "check_versions",
    "nearest_folder",
    "refusing_damaged_records",
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


def nearest_folder(folder: Path) -> Path:
    """The folder, or the nearest above it that exists."""
    return next((p for p in (folder, *folder.parents) if os.path.lexists(p)), Path())


def check_writable(folder: Path, what: str = "results", advice: str = ELSEWHERE) -> None:
    """Makes sure that files can be written to a folder, or made above it.

    Raises:
        ResultsError: If not.
    """
    try:
        with tempfile.TemporaryFile(dir=nearest_folder(folder)):
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
        check_writable(folder)
    page = results / "README.md"
    if page.exists() and not page.read_text(encoding="utf-8", errors="replace").startswith(RESULTS_HEADING):
        raise ResultsError(f"{page} was not written by this package; {ELSEWHERE}")
    for paper in dict.fromkeys(s.paper for s in specs):
        check_versions(results, paper)
    for spec in specs:
        read_record(a.record_path(spec, results), spec)
        read_divergence(a.divergence_path(spec, results), spec)


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
    """The largest number of seeds for which every row has been run, those beyond the profile's number among them.

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
        if set(more) <= set(known) or any(sources.record(s) is None and not sources.diverged(s) for s in more):
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
