"""Where runs are executed: in this process, in one single-threaded process a core, or in processes on each GPU."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import ModuleType
from typing import Any

from repro.engine.devices import device_slots, visible
from repro.engine.progress import Progress
from repro.engine.store import RunStore, write_atomically
from repro.engine.torchrun import launch
from repro.errors import BusyError, OutOfMemoryError, RecordError, RunError, TrainingStopped
from repro.records import RunSpec

__all__ = ["Failure", "RunsStopped", "describe", "note_failure", "run_all"]

EXPECTED_ERRORS = (RunError, RecordError, ValueError, TypeError, RuntimeError, OSError, KeyError)
# What a second attempt cannot change.
FINAL_ERRORS = (RecordError, BusyError, OutOfMemoryError)
ATTEMPTS = 2
SECONDS_BETWEEN_QUESTIONS = 0.5
# Until a run that another process executes is asked for again.
SECONDS_UNTIL_ASKED_AGAIN = 1.0
_STARTING = threading.Lock()


@dataclass(frozen=True)
class Failure:
    """A run that did not come to a record, and why, in one line."""

    spec: RunSpec
    reason: str


class RunsStopped(Exception):
    """The runs were asked to stop; each continues from the step that it was in.

    Arguments:
        failures: The runs that had failed before.
    """

    def __init__(self, failures: Sequence[Failure]) -> None:
        super().__init__("stopped")
        self.failures = list(failures)


def one_line(error: BaseException) -> str:
    """The error's message with its white space folded, or its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def _kind(error: BaseException) -> str:
    if isinstance(error, BusyError):
        return "busy"
    return "final" if isinstance(error, FINAL_ERRORS) or getattr(error, "final", False) else "failed"


def describe(failures: Sequence[Failure], total: int) -> str:
    """One line on all runs that failed, each reason once with the runs that it stopped."""
    by_reason: dict[str, list[str]] = {}
    for failure in failures:
        by_reason.setdefault(failure.reason, []).append(failure.spec.label)
    listed = "; ".join(f"{', '.join(labels)}: {reason}" for reason, labels in by_reason.items())
    return f"{len(failures)} of {total} runs failed: {listed}"


def note_failure(spec: RunSpec, store: RunStore, reason: str) -> None:
    """Leaves the reason in the run's directory for ``repro status``; a disk that refuses keeps no note."""
    with suppress(RunError):
        write_atomically(store.directory(spec) / "failure.json", json.dumps({"reason": reason}) + "\n")


@dataclass(frozen=True)
class _Way:
    """How one run is executed."""

    device: str
    processes: int
    shards: int
    step: str = "eager"
    threads: int = 1

    def run_one(
        self,
        spec: RunSpec,
        store: RunStore,
        on_epoch: Callable[[dict[str, Any]], None] | None,
        stop: Callable[[], bool],
    ) -> None:
        if self.processes > 1:
            launch(spec, store, device=self.device, processes=self.processes, shards=self.shards, stop=stop)
            return
        # Here, that a worker's number of threads is set before torch is imported.
        from repro.engine.execute import execute
        from repro.training.distributed import Parallel

        parallel = Parallel(shards=self.shards)
        options: dict[str, Any] = {"on_epoch": on_epoch, "stop": stop, "parallel": parallel, "step": self.step}
        execute(spec, store, device=self.device, **options)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _worker(connection: Connection, root: str, way: _Way, asked: Any) -> None:
    """Executes the runs that arrive, one at a time, on so many threads, until ``asked`` is set."""
    for name in (signal.SIGINT, signal.SIGTERM):  # the parent decides, whoever else was sent the signal
        signal.signal(name, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(way.threads)
    import torch

    torch.set_num_threads(way.threads)
    store = RunStore(Path(root))
    while True:
        try:
            spec = RunSpec.from_dict(connection.recv())
        except EOFError:
            return
        try:
            connection.send(("began", None))
            way.run_one(spec, store, lambda entry: connection.send(("epoch", entry)), lambda: bool(asked.value))
            connection.send(("done", None))
        except TrainingStopped:
            connection.send(("stopped", None))
        except EXPECTED_ERRORS as error:
            connection.send((_kind(error), one_line(error)))


@contextmanager
def _without_script() -> Iterator[None]:
    """Processes started within the block do not import the caller's script or notebook again.

    Spawned processes import the file of ``__main__``, for functions that are defined there. A script without a guard
    would so start itself once more, and one from standard input has no file; workers need nothing of either.
    """
    with _STARTING:
        script = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = script


class _Pool:
    def __init__(self, places: Sequence[str], store: RunStore, way: _Way) -> None:
        self.context = multiprocessing.get_context("spawn")
        self.store, self.way = store, way
        self.asked = self.context.RawValue("b", 0)
        self.busy: dict[Connection, RunSpec] = {}
        self.began: set[RunSpec] = set()
        self.processes: dict[Connection, Any] = {}
        self.places: dict[Connection, str] = {}
        self.idle = [self._start(place) for place in places]

    def _start(self, place: str) -> Connection:
        ours, theirs = self.context.Pipe()
        arguments = (theirs, str(self.store.root), self.way, self.asked)
        process = self.context.Process(target=_worker, args=arguments, daemon=True)
        with visible(place if self.way.device == "cuda" else None), _without_script():
            process.start()
        theirs.close()
        self.processes[ours], self.places[ours] = process, place
        return ours

    def submit(self, spec: RunSpec) -> None:
        connection = self.idle.pop()
        connection.send(spec.to_dict())
        self.busy[connection] = spec

    def stop(self) -> list[RunSpec]:
        """Asks every worker to end its run at the next step; returns the runs whose worker is not even at its start."""
        self.asked.value = 1
        idle = [c for c, spec in self.busy.items() if spec not in self.began]
        return [self.busy.pop(c) for c in idle]

    def events(self, seconds: float | None = None) -> list[tuple[RunSpec, str, Any]]:
        """Waits for messages; a worker that died is replaced and its run reported as failed."""
        out = []
        for connection in wait(list(self.busy), seconds):
            assert isinstance(connection, Connection)
            spec = self.busy[connection]
            try:
                kind, value = connection.recv()
            except (EOFError, OSError):
                process = self.processes.pop(connection)
                process.join()
                del self.busy[connection]
                self.idle.append(self._start(self.places.pop(connection)))
                killed = " (killed, for want of memory?)" if process.exitcode == -signal.SIGKILL else ""
                reason = f"its process ended with code {process.exitcode}{killed}; run again to continue"
                out.append((spec, "failed", reason))
                continue
            if kind == "began":
                self.began.add(spec)
            elif kind != "epoch":
                del self.busy[connection]
                self.idle.append(connection)
            out.append((spec, kind, value))
        return out

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.join()


@contextmanager
def _threads_of(way: _Way) -> Iterator[None]:
    """The workers' number of threads, so that a CPU run is the same here as there."""
    import torch

    threads = torch.get_num_threads()
    if way.device == "cpu":
        torch.set_num_threads(way.threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _Ledger:
    """Which runs wait, and what became of the others.

    A run that failed waits once more, behind all others; one that another process executes waits until that has
    recorded it, or has gone.
    """

    def __init__(self, specs: Sequence[RunSpec], store: RunStore, progress: Progress | None) -> None:
        self.waiting, self.store, self.progress = deque(specs), store, progress
        self.attempts: dict[RunSpec, int] = {}
        self.due: dict[RunSpec, float] = {}  # when a run of another process is asked for again
        self.failures: list[Failure] = []

    def next(self) -> RunSpec | None:
        """The first run that may start now; None if all that wait are executed by other processes."""
        now = time.monotonic()
        spec = next((s for s in self.waiting if self.due.get(s, now) <= now), None)
        if spec is not None:
            self.waiting.remove(spec)
        return spec

    def take(self, fits: Callable[[RunSpec], bool]) -> list[RunSpec]:
        """All runs of a kind that may start now."""
        now = time.monotonic()
        found = [s for s in self.waiting if self.due.get(s, now) <= now and fits(s)]
        for spec in found:
            self.waiting.remove(spec)
        return found

    def began(self, spec: RunSpec) -> None:
        if self.progress is not None:
            self.progress.began(spec)

    def tick(self) -> None:
        if self.progress is not None:
            self.progress.tick()

    def epoch(self, spec: RunSpec, entry: Mapping[str, Any]) -> None:
        if self.progress is not None:
            self.progress.epoch(spec, dict(entry))

    def done(self, spec: RunSpec) -> None:
        if self.progress is not None:
            self.progress.finished(spec, None)

    def failed(self, spec: RunSpec, reason: str, kind: str) -> None:
        if kind == "busy":
            self.waiting.append(spec)
            self.due[spec] = time.monotonic() + SECONDS_UNTIL_ASKED_AGAIN
            if self.progress is not None:
                self.progress.waits(spec, reason)
            return
        self.attempts[spec] = self.attempts.get(spec, 0) + 1
        if kind == "failed" and self.attempts[spec] < ATTEMPTS:
            if self.progress is not None:
                self.progress.retried(spec, reason)
            self.waiting.append(spec)
            return
        self.failures.append(Failure(spec, reason))
        note_failure(spec, self.store, reason)
        if self.progress is not None:
            self.progress.finished(spec, reason)


def run_all(
    specs: Sequence[RunSpec],
    store: RunStore,
    *,
    workers: int | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
    runs_per_gpu: int = 1,
    processes: int = 1,
    shards: int | None = None,
    step: str = "eager",
    stacked: bool = False,
    apart: bool = False,
    threads: int = 1,
) -> list[Failure]:
    """Executes all runs that have no record yet; a failure stops none of the others, and is tried again once.

    A run that another process executes is waited for; where that process ends without a record, it is continued here.

    Arguments:
        specs: The runs, in the order in which they are started.
        store: Where run directories live.
        workers: Processes; as many as :func:`device_slots` says if None. One means this process,
            but for ``apart``.
        device: Where models are trained; ``"cuda"`` for all visible GPUs.
        progress: Told of every epoch and every end.
        stop: Asked after every step; no further run is started after the first true answer.
        runs_per_gpu: Runs at once on one GPU.
        processes: Processes that train one run together.
        shards: Parts that every batch is divided into; ``processes`` of them if None.
        step: How a training step is taken, ``"eager"``, ``"captured"`` or ``"auto"``.
        stacked: Whether seeds of one model are trained together, in this process.
        apart: Whether even a single worker is a process of its own, so that code which ends it ends no more than that.
        threads: Threads of each process. With others a run is not the same bit for bit, as sums are taken in another
            order; its record says how many it had.

    Returns:
        The runs that failed twice.

    Raises:
        RunsStopped: If ``stop`` asked for it, after every run has written its checkpoint.
        ValueError: If a number is under 1, there are fewer GPUs than one run takes, or seeds are to be stacked that
            several processes or shards train.
        KeyboardInterrupt: After the workers have been stopped; each run continues from its last epoch.
    """
    specs = list(dict.fromkeys(specs))
    if not specs:
        return []
    way = _Way(device, processes, processes if shards is None else shards, step, threads)
    if stacked and way.shards > 1:
        raise ValueError("seeds are stacked in one process with one shard")
    if threads > 1 and processes > 1:
        raise ValueError("several threads are of a run in one process")
    places = device_slots(device, workers=workers, runs_per_gpu=runs_per_gpu, processes=processes, threads=threads)[
        : len(specs)
    ]
    ledger, stop = _Ledger(specs, store, progress), stop or (lambda: False)
    if stacked:
        stopped = _stacked(ledger, way, stop)
    else:
        here = len(places) == 1 and (not apart or processes > 1)  # several are torchrun's, apart already
        stopped = _inline(ledger, way, stop) if here else _pooled(ledger, way, stop, places)
    if stopped:
        raise RunsStopped(ledger.failures)
    return ledger.failures


def _inline(ledger: _Ledger, way: _Way, stop: Callable[[], bool]) -> bool:
    def asked() -> bool:  # after every step: a long epoch too says every now and then how far it is
        ledger.tick()
        return stop()

    with _threads_of(way):
        while ledger.waiting:
            if stop():
                return True
            spec = ledger.next()
            if spec is None:
                ledger.tick()
                time.sleep(SECONDS_BETWEEN_QUESTIONS)
                continue
            ledger.began(spec)
            try:
                way.run_one(spec, ledger.store, lambda entry, spec=spec: ledger.epoch(spec, entry), asked)
                ledger.done(spec)
            except TrainingStopped:
                return True
            except EXPECTED_ERRORS as error:
                ledger.failed(spec, one_line(error), _kind(error))
    return False


def _stacked(ledger: _Ledger, way: _Way, stop: Callable[[], bool]) -> bool:
    """All seeds of one model at once, one model after another."""
    from repro.engine.execute import alike, execute_stacked

    def asked() -> bool:
        ledger.tick()
        return stop()

    with _threads_of(way):
        while ledger.waiting:
            if stop():
                return True
            first = ledger.next()
            if first is None:
                ledger.tick()
                time.sleep(SECONDS_BETWEEN_QUESTIONS)
                continue
            group = [first, *ledger.take(lambda spec, first=first: alike(spec, first))]
            for spec in group:
                ledger.began(spec)
            try:
                ended = execute_stacked(group, ledger.store, device=way.device, on_epoch=ledger.epoch, stop=asked)
            except TrainingStopped:
                return True
            except EXPECTED_ERRORS as error:
                ended = [error] * len(group)
            for spec, end in zip(group, ended, strict=True):
                if not isinstance(end, Exception):
                    ledger.done(spec)
                elif isinstance(end, EXPECTED_ERRORS):
                    ledger.failed(spec, one_line(end), _kind(end))
                else:
                    raise end
    return False


def _pooled(ledger: _Ledger, way: _Way, stop: Callable[[], bool], places: Sequence[str]) -> bool:
    pool, stopped = _Pool(places, ledger.store, way), False
    try:
        while pool.busy or (ledger.waiting and not stopped):
            if not stopped and stop():
                stopped = True
                ledger.waiting.extend(pool.stop())
            while pool.idle and not stopped and (following := ledger.next()) is not None:
                pool.submit(following)
            for spec, kind, value in pool.events(SECONDS_BETWEEN_QUESTIONS):
                if kind == "began":
                    ledger.began(spec)
                elif kind == "epoch":
                    ledger.epoch(spec, value)
                elif kind == "done":
                    ledger.done(spec)
                elif kind == "stopped":
                    ledger.waiting.append(spec)
                else:
                    ledger.failed(spec, value, kind)
            ledger.tick()
    finally:
        pool.close()
    return stopped and bool(ledger.waiting)
