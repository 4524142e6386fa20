"""A reader's own methods in a table: their runs, and the files that show them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from repro.artifacts import render as a
from repro.artifacts.inventory import Artifact
from repro.artifacts.method_rows import Chosen, Lookup, method_tables
from repro.artifacts.results import check_writable
from repro.engine.store import RunStore, read_record, write_atomically
from repro.errors import UsageError
from repro.experiment import not_diverged
from repro.methods.experiment import derived
from repro.methods.runs import protocol_rows
from repro.methods.source import Source
from repro.papers import experiment_of
from repro.records import RunSpec
from repro.report.names import named
from repro.report.tables import join_tables

__all__ = ["check_folders", "method_runs", "own_folder", "own_names", "write_methods"]


def method_runs(
    artifact: Artifact,
    profile: str,
    seeds: int | None,
    name: str,
    source: Source,
    changes: Mapping[str, object],
    *,
    precision: str | None = "auto",
    device: str | None = None,
) -> list[RunSpec]:
    """The runs of a method that stand for a row of a table: one for each data and seed that a row of it has.

    Arguments:
        artifact: The table.
        profile: Its profile.
        seeds: Number of seeds; the profile's if None.
        name: The method's name.
        source: What builds it.
        changes: Settings that differ, by name.
        precision: As :func:`repro.artifacts.render.plan` takes it.
        device: As there.

    Raises:
        UsageError: If the artifact is no table of trained multimodal models, or one of its own methods has the name.
    """
    specs = a.unique(a.plan(artifact, profile, seeds, precision, device))
    if artifact.kind != "T":
        raise UsageError(f"--method adds rows to tables; {artifact.name} is none")
    if not any(s.params.get("training", {}).get("epochs") for s in specs):
        raise UsageError(f"{artifact.name} trains no models, so no method can be added")
    for spec in specs:
        if reason := experiment_of(spec).no_methods:
            raise UsageError(f"{artifact.name} {reason}, so no method can be added")
    if name.lower() in own_names(specs):
        raise UsageError(f"{artifact.name} has a method {name!r}; --method other_name=... gives yours another name")
    return [derived(s, name, source, changes) for s in protocol_rows(specs)]


def own_names(specs: Sequence[RunSpec]) -> set[str]:
    """What a table's own methods are called, as keys and in its rows, in lower case."""
    return {n.lower() for s in specs for n in (s.method, named(s.method))}


def own_folder(results: Path, name: str) -> Path:
    """Where a method's table and records lie."""
    return results / "own" / name


def check_folders(artifact: Artifact, profile: str, chosen: Chosen, results: Path) -> None:
    """Makes sure, before anything is trained, that methods' results can be written.

    Arguments:
        artifact: The table.
        profile: Its profile.
        chosen: Method's name to its runs.
        results: The reader's folder of results.

    Raises:
        ResultsError: If a folder cannot be written to.
        RecordError: If the record of one of the runs is damaged there.
    """
    for name, runs in chosen.items():
        folder = own_folder(results, name)
        check_writable(a.output_folder(artifact, profile, folder))
        for spec in runs:
            check_writable(a.record_path(spec, folder).parent)
            read_record(a.record_path(spec, folder), spec)


def write_methods(
    artifact: Artifact,
    profile: str,
    chosen: Chosen,
    lookup: Lookup,
    results: Path,
    *,
    store: RunStore,
    seeds: int | None = None,
    diverged: Callable[[RunSpec], str] = not_diverged,
) -> list[Path]:
    """Writes each method's records, and the table with its row, into a folder of its own.

    Arguments:
        artifact: The table.
        profile: Its profile.
        chosen: Method's name to its runs, all recorded.
        lookup: As :func:`~repro.artifacts.method_rows.method_tables` takes it.
        results: The reader's folder of results.
        store: The run directories.
        seeds: Number of seeds; the profile's if None.
        diverged: As :func:`~repro.artifacts.method_rows.method_tables` takes it.

    Returns:
        The tables' files.
    """
    contents = {
        name: join_tables(
            method_tables(artifact, profile, {name: runs}, lookup, seeds, diverged), f"tab:{artifact.target}-{name}"
        )
        for name, runs in chosen.items()
    }
    paths = []
    for name, runs in chosen.items():
        folder = own_folder(results, name)
        a.export_records(runs, store, folder)
        for suffix, content in contents[name].items():
            paths.append(a.output_folder(artifact, profile, folder) / f"{artifact.id}.{suffix}")
            write_atomically(paths[-1], content)
    return paths
