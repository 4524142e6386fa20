"""Executing runs from the command line: here, one by its key, on a cluster, or only planned."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from types import FrameType
from typing import Any

import torch

from repro.artifacts import render as a
from repro.artifacts.planning import all_runs, read_measured, render_plan
from repro.artifacts.results import check_writable
from repro.engine.devices import default_device, default_workers, device_slots
from repro.engine.earlier import begin_with_earlier_stages
from repro.engine.execute import execute
from repro.engine.local import EXPECTED_ERRORS, FINAL_ERRORS, RunsStopped, describe, note_failure, one_line, run_all
from repro.engine.processes import joined
from repro.engine.progress import Progress, duration
from repro.engine.slurm import Cluster, check_cluster, minutes, submit
from repro.engine.store import RunStore, default_runs_root, figures_root, read_spec
from repro.engine.torchrun import launch
from repro.errors import BusyError, RunError, StoppedError, TrainingStopped, UsageError
from repro.records import RunSpec

__all__ = ["StopRequest", "run_everything", "run_key", "run_specs", "share_stages", "submit_array"]


class StopRequest:
    """Whether to stop: when the minutes are over, or when SIGTERM or SIGUSR2 came, however often.

    Arguments:
        minutes: The minutes from now on; None for no limit.
    """

    def __init__(self, minutes: float | None = None) -> None:
        self.minutes, self.signal = minutes, ""
        self.end = float("inf") if minutes is None else time.monotonic() + 60 * minutes
        self._former: dict[signal.Signals, Any] = {}

    def __call__(self) -> bool:
        return bool(self.signal) or time.monotonic() >= self.end

    @property
    def reason(self) -> str:
        """Why, as the end of "stopped ..."."""
        if self.signal:
            return f"by {self.signal}"
        return f"after {self.minutes:g} minute{'s' * (self.minutes != 1)}"

    def __enter__(self) -> StopRequest:
        for name in (signal.SIGTERM, signal.SIGUSR2):
            with suppress(ValueError):  # not the main thread, which alone can take signals
                self._former[name] = signal.signal(name, self._note)
        return self

    def __exit__(self, *ending: object) -> None:
        for name, former in self._former.items():
            signal.signal(name, former)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number).name


def run_specs(
    specs: Sequence[RunSpec],
    store: Any,
    options: argparse.Namespace,
    *,
    total: int,
    discarded: Sequence[RunSpec] = (),
    apart: bool = False,
) -> None:
    """Executes runs on this machine.

    Arguments:
        specs: The runs without a record.
        store: Where run directories live.
        options: What the command line says.
        total: Number of runs of the artifact, with those that are recorded.
        discarded: Runs of which nothing is kept, once what was asked for is known to be possible.
        apart: Whether even a single run has a process of its own, except with the executor ``inline``.

    Raises:
        UsageError: If there is no such device, a number is under 1, or the folder cannot be written to.
        StoppedError: If the minutes were over, or a signal came.
        RunError: If runs failed; it names each of them and why.
    """
    device, workers = default_device(options.device), 1 if options.executor == "inline" else options.workers
    threads = options.threads
    check_writable(store.root, "runs", "--runs or REPRO_RUNS names another folder")
    numbers = {"runs_per_gpu": options.runs_per_gpu, "processes": options.processes, "threads": threads}
    device_slots(device, workers=workers, **numbers)
    for spec in discarded:
        store.discard(spec)
    if options.share_stages:
        share_stages(specs, store, device)
    progress = Progress(specs, lambda spec: a.estimate([spec], 1)[0], workers=workers or default_workers(threads))
    with StopRequest(options.max_minutes) as stop:
        try:
            failures = run_all(
                specs,
                store,
                workers=workers,
                device=device,
                progress=progress,
                stop=stop,
                **numbers,
                shards=options.shards,
                apart=apart and options.executor != "inline",
            )
        except RunsStopped as stopped:
            left = sum(store.current(s) is None for s in specs)
            failed = f", {len(stopped.failures)} failed" if stopped.failures else ""
            recorded = f"{total - left} of {total} runs recorded{failed}"
            again = "the same command without --force" if options.force else "the same command"
            raise StoppedError(f"stopped {stop.reason}: {recorded}; {again} continues") from None
        finally:
            progress.close()
    if failures:
        raise RunError(describe(failures, len(specs)))


def share_stages(specs: Sequence[RunSpec], store: RunStore, device: str) -> None:
    """Lets runs that have not begun begin with what others beside them have trained, and says which.

    A run that cannot be begun so (no data, a full disk, another process) says why, and begins as any other does.
    """
    if device == "cpu":
        torch.set_num_threads(1)  # as every worker does: what is shared was trained with as many
    shared = 0
    for spec in specs:
        try:
            if key := begin_with_earlier_stages(spec, store, device):
                shared += 1
                print(f"{spec.label}: begins with stages that {key} has trained", file=sys.stderr)
        except EXPECTED_ERRORS as error:
            print(f"{spec.label}: shares no stages: {one_line(error)}", file=sys.stderr)
    if not shared:
        print("no further run begins with stages that another has trained", file=sys.stderr)


def submit_array(specs: Sequence[RunSpec], store: Any, options: argparse.Namespace) -> None:
    """Submits runs to SLURM as one array, and says what was submitted.

    Raises:
        RunError: If there is no SLURM, it refuses the array, or the folder cannot be written to.
    """
    cluster = Cluster(
        partition=options.partition,
        gpus=options.gpus,
        processes=options.processes,
        time=minutes(options.time),
        max_jobs=options.max_jobs,
        memory=options.mem,
        account=options.account,
    )
    if options.force:
        check_cluster(cluster)  # before anything is discarded
        for spec in specs:
            store.discard(spec)
    found, queued = submit(specs, store, cluster, shards=options.shards)
    waiting = f", {len(queued)} are waiting or running already" if queued else ""
    if found is None:
        print(f"nothing to submit{waiting}")
        return
    job = next(iter(found.tasks.values())).split("_")[0]
    print(f"job {job}: {len(found.tasks)} runs submitted{waiting}; `{_status(options)}` shows how they stand")


def _status(options: argparse.Namespace) -> str:
    """The command that shows the runs of another: of the same profile, seeds, precision and folder."""
    words = ["repro", "status", options.id]
    words += ["--profile", options.profile] if options.profile != "paper" else []
    for name in ("seeds", "precision", "runs"):
        if (value := getattr(options, name)) is not None:
            words += [f"--{name}", str(value)]
    return shlex.join(words)


def run_everything(options: argparse.Namespace) -> None:
    """Plans, or executes, the runs of all artifacts: the command ``repro run --all``.

    Raises:
        UsageError: If an artifact is named too.
        RunError, StoppedError: See :func:`run_specs` and :func:`submit_array`.
    """
    if options.id is not None:
        raise UsageError(f"--all or {options.id}, not both")
    runs = all_runs(a.check_profile(options.profile), options.seeds)
    runs = {name: [a.resolved(s, options.device) for s in specs] for name, specs in runs.items()}
    store = RunStore(options.runs or default_runs_root())
    if options.dry_run:
        print(render_plan(runs, store, read_measured(store, figures_root())))
        return
    specs = [s for some in runs.values() for s in some]
    todo = specs if options.force else a.missing_runs(specs, store)
    options.id = "ID"  # for messages
    if options.executor == "slurm":
        submit_array(todo, store, options)
        return
    if not (options.long or options.max_minutes):
        raise UsageError("--all takes long; see its --dry-run, then give --long, --max-minutes or --executor slurm")
    if todo:
        run_specs(todo, store, options, total=len(specs))
    print(f"{len(specs)} runs recorded; `repro run ID` renders each table and figure")


def _spec_of_key(key: str, store: Any, options: argparse.Namespace) -> RunSpec:
    if (spec := read_spec(store, key)) is not None:
        return spec
    names = [options.id] if options.id else [x.name for x in a.artifacts().values() if x.built and x.kind not in "DX"]
    for name in names:
        for precision in (options.precision,) if options.precision else (None, "auto"):
            rows = a.plan(a.find(name), a.check_profile(options.profile), options.seeds, precision)
            if (spec := next((s for s in a.unique(rows) if s.key == key), None)) is not None:
                return spec
    where = f"the plan of {options.id}" if options.id else "any artifact's plan"
    raise UsageError(
        f"no run has the key {key!r} in {store.root} or in {where}, profile {options.profile}; "
        f"`repro run {options.id or 'ID'} --profile {options.profile} --dry-run` lists the keys"
    )


@contextmanager
def _told(spec: RunSpec) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Shows how far one run is, and that it is recorded if nothing is raised; takes its epochs' entries."""
    progress = Progress([spec], lambda spec: a.estimate([spec], 1)[0])
    progress.began(spec)
    try:
        yield partial(progress.epoch, spec)
        progress.finished(spec, None)
    finally:
        progress.close()


def run_key(options: argparse.Namespace) -> None:
    """Executes one run by its key, alone or as one of the processes that torchrun started; or says what it would take.

    Raises:
        StoppedError: If the minutes were over, or a signal came.
        UsageError: If there is no such run, or an option is for more than one run.
        RunError: If it failed.
    """
    for name in ("all", "from_weights"):
        if getattr(options, name):
            raise UsageError(f"--key is one run: not with --{name.replace('_', '-')}")
    store = RunStore(options.runs or default_runs_root())
    spec = _spec_of_key(options.key, store, options)
    todo = options.force or store.current(spec) is None
    if options.dry_run:
        left = "to run" if todo else "recorded"
        print(f"{spec.key}  {spec.label}  {left}  {duration(a.estimate([spec], 1)[0])}")
        return
    if not todo:
        print(f"{spec.label}: recorded already", file=sys.stderr)
        return
    if options.force:
        store.discard(spec)
    device, reason = default_device(options.device), ""
    if options.share_stages:
        share_stages([spec], store, device)
    with StopRequest(options.max_minutes) as stop:
        try:
            if options.processes > 1:
                shards = options.shards or options.processes
                launch(spec, store, device=device, processes=options.processes, shards=shards, stop=stop)
                return
            with joined(device, options.shards) as (own, parallel):
                if device == "cpu":
                    torch.set_num_threads(options.threads)
                told = _told(spec) if parallel.rank == 0 else nullcontext()  # of several processes one tells
                with told as on_epoch:
                    execute(spec, store, device=own, stop=stop, parallel=parallel, on_epoch=on_epoch)
        except TrainingStopped:
            raise StoppedError(f"stopped {stop.reason}: {spec.label}; the same command continues") from None
        except EXPECTED_ERRORS as error:
            reason = one_line(error)
            if not isinstance(error, BusyError):
                note_failure(spec, store, reason)
            if isinstance(error, FINAL_ERRORS):
                raise
    if reason:
        raise RunError(f"{spec.label}: {reason}")
