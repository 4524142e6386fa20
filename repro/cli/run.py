"""Carrying runs out from the command line: here, one by its key, on a cluster, or only planned; and their status."""

from __future__ import annotations

import argparse
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from repro.engine.slurm import Cluster, minutes, submit
from repro.engine.torchrun import STOPPED
from repro.records import RunSpec

__all__ = [
    "StopRequest",
    "StoppedError",
    "add_run_options",
    "add_status_command",
    "check_options",
    "chosen_device",
    "run_everything",
    "run_key",
    "run_specs",
    "show_status",
    "submit_array",
]


class StoppedError(Exception):
    """Runs were stopped as asked, and the same command continues them; the exit code is 75 (EX_TEMPFAIL)."""

    code = STOPPED


def add_run_options(sub: argparse.ArgumentParser) -> None:
    """Adds the options of ``repro run`` that say where, for how long and with what runs are executed."""
    sub.add_argument(
        "--max-minutes",
        type=float,
        metavar="M",
        help="stop at the first step after M minutes, with checkpoints and exit code 75; the same command continues",
    )
    sub.add_argument("--runs-per-gpu", type=int, default=1, metavar="N", help="runs at once on each GPU (1)")
    sub.add_argument("--processes", type=int, default=1, metavar="N", help="processes, or GPUs, that train one run (1)")
    sub.add_argument(
        "--shards",
        type=int,
        metavar="S",
        help="parts of every batch, each with noise of its own; a multiple of --processes, which it is by default",
    )
    group = sub.add_argument_group("with --executor slurm")
    group.add_argument("--partition", default="", metavar="NAME", help="the cluster's default partition if not given")
    group.add_argument("--gpus", type=int, default=0, metavar="N", help="GPUs of each task, which train one run (0)")
    group.add_argument(
        "--time", default="1h", metavar="T", help="such as 2h; then it checkpoints and queues again (1h)"
    )
    group.add_argument("--max-jobs", type=int, default=64, metavar="N", help="tasks at once (64)")
    group.add_argument("--mem", default="", metavar="SIZE", help="memory of each task, such as 16G")
    group.add_argument("--account", default="", metavar="NAME", help="whom the time is charged to")
    sub.add_argument(
        "--all", action="store_true", help="the runs of all tables and figures; with --dry-run, their plan"
    )
    sub.add_argument("--key", help="execute one run, by its key, without rendering; what the cluster's tasks call")


def check_options(options: argparse.Namespace) -> None:
    """Checks the options of :func:`add_run_options`.

    Raises:
        UsageError: If one is out of its range, or two do not go together.
    """
    from repro.errors import UsageError

    for name in ("workers", "runs_per_gpu", "processes", "shards", "max_minutes", "max_jobs"):
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


def chosen_device(asked: str | None) -> str:
    """The device that was asked for; a GPU where there is one if None."""
    if asked is not None:
        return asked
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def run_specs(specs: Sequence[RunSpec], store: Any, options: argparse.Namespace, *, total: int) -> None:
    """Carries runs out on this machine.

    Arguments:
        specs: The runs without a record.
        store: Where run directories live.
        options: What the command line says.
        total: Number of runs of the artifact, with those that are recorded.

    Raises:
        StoppedError: If the minutes were over, or a signal came.
        RunError: If runs failed; it names each of them and why.
    """
    from repro.artifacts.render import estimate
    from repro.engine.devices import available_cores
    from repro.engine.local import RunsStopped, describe, run_all
    from repro.engine.progress import Progress
    from repro.errors import RunError

    device, workers = chosen_device(options.device), 1 if options.executor == "inline" else options.workers
    progress = Progress(specs, lambda spec: estimate([spec], 1)[0], workers=workers or available_cores())
    with StopRequest(options.max_minutes) as stop:
        try:
            failures = run_all(
                specs,
                store,
                workers=workers,
                device=device,
                progress=progress,
                stop=stop,
                runs_per_gpu=options.runs_per_gpu,
                processes=options.processes,
                shards=options.shards,
            )
        except RunsStopped as stopped:
            left = sum(store.record(s) is None for s in specs)
            failed = f", {len(stopped.failures)} failed" if stopped.failures else ""
            recorded = f"{total - left} of {total} runs recorded{failed}"
            again = "the same command without --force" if options.force else "the same command"
            raise StoppedError(f"stopped {stop.reason}: {recorded}; {again} continues") from None
        finally:
            progress.close()
    if failures:
        raise RunError(describe(failures, len(specs)))


def submit_array(specs: Sequence[RunSpec], store: Any, options: argparse.Namespace) -> None:
    """Submits runs to SLURM as one array, and says what was submitted.

    Raises:
        RunError: If there is no SLURM, it refuses the array, or the folder cannot be written to.
    """
    if options.force:
        for spec in specs:
            store.discard(spec)
    cluster = Cluster(
        partition=options.partition,
        gpus=options.gpus,
        processes=options.processes,
        time=minutes(options.time),
        max_jobs=options.max_jobs,
        memory=options.mem,
        account=options.account,
    )
    found, queued = submit(specs, store, cluster, shards=options.shards)
    waiting = f", {len(queued)} are waiting or running already" if queued else ""
    if found is None:
        print(f"nothing to submit{waiting}")
        return
    job = next(iter(found.tasks.values())).split("_")[0]
    print(f"job {job}: {len(found.tasks)} runs submitted{waiting}; `repro status {options.id}` shows how they stand")


def show_status(options: argparse.Namespace) -> None:
    """Prints where the runs of an artifact stand: the command ``repro status``.

    Raises:
        UsageError: If there is no such artifact, or it needs no runs.
    """
    from repro.artifacts import render as a
    from repro.engine.status import states, summary
    from repro.engine.store import RunStore, default_runs_root

    artifact = a.find(options.id)
    specs = a.unique(a.plan(artifact, a.check_profile(options.profile), options.seeds, options.precision or "auto"))
    found = states(specs, RunStore(options.runs or default_runs_root()))
    for x in found:
        if x.state != "done" or options.all:
            said = "; ".join(text for text in (x.detail, x.log) if text)
            print(f"{x.spec.key}  {x.state:8s} {x.spec.label:56s} {said}".rstrip())
    print(f"{artifact.name}, profile {options.profile}: {summary(found)}")


def add_status_command(sub: argparse.ArgumentParser) -> None:
    """Adds the options of ``repro status``."""
    sub.add_argument("id", help="such as covae/fig5 or covae-fig5")
    sub.add_argument("--profile", default="paper", help="paper (default), overnight, quick or smoke")
    sub.add_argument("--seeds", type=int, metavar="N")
    sub.add_argument("--precision", help="of hidden layers: auto (default), float32 or bfloat16")
    sub.add_argument("--runs", type=Path, metavar="DIR", help="run directories (REPRO_RUNS, or runs)")
    sub.add_argument("--all", action="store_true", help="also name the runs that are done")


def run_everything(options: argparse.Namespace) -> None:
    """Plans, or executes, the runs of all artifacts: the command ``repro run --all``.

    Raises:
        UsageError: If an artifact is named too.
        RunError, StoppedError: See :func:`run_specs` and :func:`submit_array`.
    """
    from repro.artifacts import render as a
    from repro.artifacts.planning import all_runs, read_measured, render_plan
    from repro.engine.store import RunStore, default_runs_root, figures_root

    if options.id is not None:
        raise a.UsageError(f"--all or {options.id}, not both")
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
        raise a.UsageError("--all takes long; see its --dry-run, then give --long, --max-minutes or --executor slurm")
    if todo:
        run_specs(todo, store, options, total=len(specs))
    print(f"{len(specs)} runs recorded; `repro run ID` renders each table and figure")


def _spec_of_key(key: str, store: Any, options: argparse.Namespace) -> RunSpec:
    from repro.artifacts import render as a
    from repro.engine.store import read_spec

    if (spec := read_spec(store, key)) is not None:
        return spec
    names = [options.id] if options.id else [x.name for x in a.artifacts().values() if x.built and x.kind not in "DX"]
    for name in names:
        for precision in (options.precision,) if options.precision else (None, "auto"):
            rows = a.plan(a.find(name), a.check_profile(options.profile), options.seeds, precision)
            if (spec := next((s for s in a.unique(rows) if s.key == key), None)) is not None:
                return spec
    where = f"the plan of {options.id}" if options.id else "any artifact's plan"
    raise a.UsageError(
        f"no run has the key {key!r} in {store.root} or in {where}, profile {options.profile}; "
        f"`repro run {options.id or 'ID'} --profile {options.profile} --dry-run` lists the keys"
    )


def run_key(options: argparse.Namespace) -> None:
    """Executes one run by its key, alone or as one of the processes that torchrun started.

    Raises:
        StoppedError: If the minutes were over, or a signal came.
        UsageError: If there is no such run.
        RunError: If it failed.
    """
    from repro.engine.execute import execute
    from repro.engine.local import EXPECTED_ERRORS, FINAL_ERRORS, note_failure, one_line
    from repro.engine.store import RunStore, default_runs_root
    from repro.engine.torchrun import joined, launch
    from repro.errors import BusyError, RunError
    from repro.training import TrainingStopped

    store = RunStore(options.runs or default_runs_root())
    spec = _spec_of_key(options.key, store, options)
    if store.record(spec) is not None:
        return
    device, reason = chosen_device(options.device), ""
    with StopRequest(options.max_minutes) as stop:
        try:
            if options.processes > 1:
                shards = options.shards or options.processes
                launch(spec, store, device=device, processes=options.processes, shards=shards, stop=stop)
                return
            with joined(device, options.shards) as (own, parallel):
                if device == "cpu":
                    import torch

                    torch.set_num_threads(1)
                execute(spec, store, device=own, stop=stop, parallel=parallel)
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
