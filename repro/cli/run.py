"""The command ``repro run``: what an artifact needs is planned here, and executed by :mod:`repro.cli.executing`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from repro.artifacts import render as a
from repro.artifacts.inventory import Artifact
from repro.artifacts.planning import distinguished
from repro.artifacts.results import check_results, refusing_damaged_records, write_results
from repro.cli.results import print_outcome
from repro.datasets.card import card_names, load_card, not_available
from repro.datasets.former import changes_of
from repro.datasets.places import NoHomeError
from repro.datasets.states import state_of
from repro.engine.devices import default_device, default_workers
from repro.engine.progress import duration
from repro.engine.slurm import minutes
from repro.engine.speed import cached_speed, speed
from repro.engine.store import RunStore, default_results_root, default_runs_root, figures_root
from repro.errors import RunError, UsageError
from repro.records import RunSpec

__all__ = ["run"]

# No default paper run longer than this starts without a GPU; PROFILE=quick does.
MOST_CPU_SECONDS = 3600.0


def _check(options: argparse.Namespace) -> None:
    """Refuses options that are out of their range, or do not go together."""
    for name in ("workers", "threads", "runs_per_gpu", "processes", "shards", "max_minutes", "max_jobs"):
        value = getattr(options, name)
        if value is not None and not value >= (1 if name != "max_minutes" else 1e-9):
            bound = "positive" if name == "max_minutes" else "at least 1"
            raise UsageError(f"--{name.replace('_', '-')} is {value}, must be {bound}")
    if options.gpus < 0:
        raise UsageError(f"--gpus is {options.gpus}, must be at least 0")
    if options.gpus and options.executor != "slurm":
        raise UsageError("--gpus is for --executor slurm; here --processes says how many GPUs train one run")
    try:
        minutes(options.time)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if options.shards is not None and options.shards % options.processes:
        raise UsageError(f"--shards is {options.shards}, must be a multiple of --processes, {options.processes}")


def run(options: argparse.Namespace) -> None:
    """Runs what an artifact needs and renders it: the command ``repro run``.

    Raises:
        UsageError: If an option or a name is wrong, or it would take over an hour on the CPU.
        RunError, StoppedError: As :func:`repro.cli.executing.run_specs`.
    """
    _check(options)
    if options.device is not None:
        default_device(options.device)
    if (options.set or options.only_methods) and not options.method:
        raise UsageError("--set and --only-methods are for --method")
    together = options.processes > 1 or (options.shards or 1) > 1 or os.environ.get("WORLD_SIZE", "1") != "1"
    if options.share_stages and (options.force or options.executor == "slurm" or together):
        raise UsageError("--share-stages is for runs on this machine, one process each, and not with --force")
    if options.threads > 1:
        elsewhere = options.executor == "slurm" or together or options.from_weights or options.share_stages
        if elsewhere or default_device(options.device).startswith("cuda"):
            raise UsageError("--threads is for runs that this machine's CPU trains whole, one process each")
    if options.method:
        if options.id is None:
            raise UsageError("--method needs a table, as in repro run gmrf-table1 --method ...")
        bounded = options.long or options.max_minutes is not None or default_device(options.device).startswith("cuda")
        from repro.cli.methods import run_methods

        run_methods(options, most_seconds=None if bounded else MOST_CPU_SECONDS)
    elif options.id is None and not options.all and options.key is None:
        raise UsageError("which table or figure? `repro list` shows all")
    elif options.key is not None:
        executing().run_key(options)
    elif options.from_weights:
        from repro.cli.from_weights import run_from_weights

        run_from_weights(options)
    elif options.all:
        executing().run_everything(options)
    else:
        _run_artifact(options)


def executing() -> ModuleType:
    """What executes runs; it needs torch, which a plan and a refusal do not wait for."""
    from repro.cli import executing

    return executing


def _operations(specs: Sequence[RunSpec]) -> str:
    """The operations of trainings, where they are known and there are any, as a part of a sentence."""
    return f", {found:.1e} FLOP of training" if specs and (found := a.operations(specs)) else ""


def _taken(spec: RunSpec) -> str:
    return f"{duration(a.estimate([spec], 1)[0])}{_operations([spec])}"


def _lacking(artifact: Artifact) -> list[str]:
    """A line for each dataset whose files a person has yet to place.

    Of datasets whose cards lie elsewhere nothing is known, nor of files where no folder can be looked into: a plan says
    nothing of these, and the run itself what it lacks.
    """
    found, known = [], set(card_names())
    for name in artifact.data:
        with suppress(NoHomeError, ValueError):
            if name in known and state_of(load_card(name)).word == "by hand":
                found.append(f"{name}: {not_available(name)}")
    return found


def _run_artifact(options: argparse.Namespace) -> None:
    artifact = a.find(options.id)
    a.check_profile(options.profile)
    specs = a.unique(a.plan(artifact, options.profile, options.seeds, options.precision or "auto", options.device))
    store = RunStore(options.runs or default_runs_root())
    results = options.results or default_results_root()
    workers = 1 if options.executor == "inline" else options.workers or default_workers(options.threads)
    with refusing_damaged_records():
        todo = specs if options.force else a.missing_runs(specs, store)
    if stale := changes_of(r.data for s in specs if (r := store.record(s)) is not None):
        print(f"{artifact.name}: {stale}; to be run again", file=sys.stderr)
    if todo and not options.dry_run and not default_device(options.device).startswith("cuda"):
        speed()  # measured once and kept; the estimate rests on it
    seconds, megabytes = a.estimate(todo, workers) if todo else (0.0, 0.0)
    summary = (
        f"{artifact.name}, profile {options.profile}: {len(specs)} runs, {len(specs) - len(todo)} recorded; "
        f"about {duration(seconds)}{_operations(todo)} and {megabytes / 1000:.1f} GB on {workers} "
        f"core{'s' * (workers > 1)}"
    )
    if options.dry_run:
        if todo and cached_speed() is None:  # a plan measures nothing
            summary += "; for a CPU with AVX-512, `repro doctor` measures this one"
        labels = distinguished(specs)
        width = max((len(text) for text in labels.values()), default=0)
        committed = a.Sources(None, figures_root())
        for spec in specs:
            left = "to run" if spec in todo else "recorded"
            known = "; a record is in figures/" if spec in todo and committed.is_current(spec) else ""
            print(f"{spec.key}  {labels[spec]:{width}s}  {left:8s}  {_taken(spec)}{known}")
        for missing in _lacking(artifact) if todo else ():
            print(missing)
        print(summary)
        return
    with refusing_damaged_records():
        check_results(artifact, options.profile, specs, results, options.precision)
    if todo and options.executor == "slurm":
        executing().submit_array(specs if options.force else todo, store, options)
        return
    if todo:
        print(summary, file=sys.stderr)
        bounded = options.long or options.max_minutes is not None
        if seconds > MOST_CPU_SECONDS and not bounded and not default_device(options.device).startswith("cuda"):
            raise UsageError(
                f"{artifact.name} would take about {duration(seconds)} here; use PROFILE=quick, a GPU, or --long"
            )
        discarded = specs if options.force else ()
        try:
            executing().run_specs(todo, store, options, total=len(specs), discarded=discarded)
        except RunError:
            if all(store.current(s) is not None or store.divergence(s) is not None for s in specs):
                with suppress(RunError):  # nothing without what diverged, which the message says
                    _write(artifact, options, specs, results, store)
            raise
    _write(artifact, options, specs, results, store)


def _write(
    artifact: Artifact, options: argparse.Namespace, specs: Sequence[RunSpec], results: Path, store: RunStore
) -> None:
    """Writes an artifact's files, and prints what there is to see."""
    choices = {"seeds": options.seeds, "precision": options.precision}
    with refusing_damaged_records():
        paths = write_results(artifact, options.profile, specs, results, store=store, **choices)
        print_outcome(artifact, options, paths)
