"""The command ``repro overnight``: a queue of runs that can be left alone for nights, and stopped at any moment."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from repro.artifacts.planning import read_measured
from repro.artifacts.render import estimate
from repro.artifacts.schedule import Planned, plan_steps, read_steps, render_steps, waiting
from repro.cli.executing import StopRequest
from repro.engine.devices import available_cores, default_device
from repro.engine.local import RunsStopped, describe, run_all
from repro.engine.locks import LockError, RunLock
from repro.engine.progress import Progress
from repro.engine.store import RunStore, default_runs_root, figures_root
from repro.errors import RunError, StoppedError, UsageError
from repro.records import RunSpec

__all__ = ["run_overnight"]

NO_SPACE = "No space left on device"


class _Watched(Progress):
    """Progress that notes when a run failed as the disk is full."""

    full = False

    def finished(self, spec: RunSpec, reason: str | None) -> None:
        self.full |= NO_SPACE in (reason or "")
        super().finished(spec, reason)

    def retried(self, spec: RunSpec, reason: str) -> None:
        self.full |= NO_SPACE in reason
        super().retried(spec, reason)


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Makes sure that no other queue is at work on these run directories.

    Raises:
        UsageError: If one is.
        RunError: If the folder cannot be written to.
    """

    lock = RunLock(root / "overnight")
    try:
        lock.directory.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except LockError as error:
        raise UsageError(f"a queue on {root} {error}; one at a time") from None
    except OSError as error:
        raise RunError(f"cannot write to {lock.directory}: {error.strerror or error}") from None
    try:
        yield
    finally:
        lock.release(finished=True)


def run_overnight(options: argparse.Namespace) -> None:
    """Runs a schedule's steps in their order: the command ``repro overnight``.

    What has a record of today's data, among the runs or in ``figures/``, is not run again, unless ``--again`` asks for
    what the latter has; what was interrupted continues from its last checkpoint. A run that fails stops no other; a
    full disk stops all.

    Raises:
        UsageError: If an option is out of its range, the schedule is none, or another queue is at work on these runs.
        StoppedError: If the minutes were over, or a signal came.
        RunError: If runs failed, or the disk is full.
    """

    if options.workers is not None and options.workers < 1:
        raise UsageError(f"--workers is {options.workers}, must be at least 1")
    if options.max_minutes is not None and not options.max_minutes > 0:
        raise UsageError(f"--max-minutes is {options.max_minutes}, must be positive")
    steps, store = read_steps(options.schedule), RunStore(options.runs or default_runs_root())
    figures = options.figures or figures_root()
    recorded = None if options.again else figures
    if options.dry_run:
        measured = read_measured(store, figures)
        print(render_steps(plan_steps(steps, store, recorded), measured, options.workers or available_cores()))
        return
    with _alone(store.root):
        planned = plan_steps(steps, store, recorded)
        todo = [spec for p in planned if not p.waits for spec in p.todo]
        total = sum(len(p.specs) for p in planned if not p.waits)
        if todo:
            _run_all(todo, store, options, total)
    _say_what_is_left(planned, total)


def _run_all(todo: Sequence[RunSpec], store: RunStore, options: argparse.Namespace, total: int) -> None:
    print(f"{total} runs, {total - len(todo)} recorded", file=sys.stderr)
    device = default_device(options.device)
    progress = _Watched(todo, lambda spec: estimate([spec], 1)[0], workers=options.workers or available_cores())
    failures, stopped = [], False
    with StopRequest(options.max_minutes) as stop:
        try:
            failures = run_all(
                todo,
                store,
                workers=options.workers,
                device=device,
                progress=progress,
                stop=lambda: stop() or progress.full,
            )
        except RunsStopped as reason:
            stopped, failures = True, reason.failures
        finally:
            progress.close()
        left = sum(store.current(s) is None for s in todo)
        recorded = f"{total - left} of {total} runs recorded"
        if progress.full and left:
            raise RunError(f"the disk of {store.root} is full; {recorded}, nothing is lost; make space and start again")
        if stopped:
            failed = f"; {describe(failures, len(todo))}" if failures else ""
            raise StoppedError(f"stopped {stop.reason}: {recorded}{failed}; the same command continues")
    if failures:
        raise RunError(describe(failures, len(todo)))


def _say_what_is_left(planned: Sequence[Planned], total: int) -> None:
    print("".join(f"{line}\n" for line in waiting(planned)), end="")
    profiles = list(dict.fromkeys(p.step.profile for p in planned if not p.waits)) or ["overnight"]
    name, where = (profiles[0], "") if len(profiles) == 1 else ("P", f", P being its step's: {' or '.join(profiles)}")
    print(f"{total} runs recorded; `repro run ID --profile {name}` renders each table and figure{where}")
