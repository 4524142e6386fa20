"""``repro.run``: what an artifact needs is run and rendered, from a script or a notebook."""

from __future__ import annotations

import os
from pathlib import Path

from repro.artifacts import render as a
from repro.artifacts.inventory import find
from repro.artifacts.results import ResultsError, check_results, check_writable, nearest_folder, write_results
from repro.datasets.places import expanded
from repro.engine.devices import available_cores, default_device, device_slots
from repro.engine.local import describe, run_all
from repro.engine.progress import Progress
from repro.engine.store import RunStore, default_results_root, default_runs_root
from repro.errors import RunError, UsageError

__all__ = ["run"]


def _folder(name: str, value: str | os.PathLike[str] | None, default: Path) -> Path:
    """A folder that a caller names, ``~`` expanded; the default for None and for an empty text."""
    try:
        folder = expanded(value or default)
    except TypeError:
        raise UsageError(f"{name} is {value!r}, must be a path") from None
    if not (existing := nearest_folder(folder)).is_dir():
        raise ResultsError(f"cannot write {name} to {folder}: {existing} is no folder")
    return folder


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
        UsageError: If the artifact, the profile or the device is unknown, it is not computed here, a number is under 1,
            or a folder is no path, cannot be written to, or holds results of another version of the package.
        RecordError: If a record there is damaged.
        RunError: If a run failed; it names each failed run and why.
    """
    artifact, place = find(name), default_device(device)
    specs = a.unique(a.plan(artifact, profile, seeds, precision, device))
    store = RunStore(_folder("runs", runs, default_runs_root()))
    results = _folder("results", results, default_results_root())
    check_results(artifact, profile, specs, results, precision)
    if todo := specs if force else a.missing_runs(specs, store):
        device_slots(place, workers=workers)
        check_writable(store.root, "runs", "runs= or REPRO_RUNS names another folder")
        for spec in todo if force else ():
            store.discard(spec)
        progress = Progress(todo, lambda spec: a.estimate([spec], 1)[0], workers=workers or available_cores())
        try:
            failures = run_all(todo, store, workers=workers, device=place, progress=progress)
        finally:
            progress.close()
        if failures:
            raise RunError(describe(failures, len(todo)))
    return write_results(artifact, profile, specs, results, store=store, seeds=seeds, precision=precision)
