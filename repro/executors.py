"""Where runs are carried out: in this process, or in one single-threaded process a core."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from repro.records import RecordError, RunSpec
from repro.runs import RunError, RunStore, execute

__all__ = ["Failure", "Progress", "available_cores", "run_all"]

EXPECTED_ERRORS = (RunError, RecordError, ValueError, TypeError, RuntimeError, OSError)


@dataclass(frozen=True)
class Failure:
    """A run that did not come to a record, and why, in one line."""

    spec: RunSpec
    reason: str


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def one_line(error: BaseException) -> str:
    """The error's message with its white space folded, or its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


class Progress:
    """Progress of many runs: a bar on a terminal, plain lines elsewhere.

    Arguments:
        total_epochs: Sum of the epochs of all runs.
        total_runs: Number of runs.
        every: Seconds between plain lines.
    """

    def __init__(self, total_epochs: int, total_runs: int, *, every: float = 30.0) -> None:
        self.total_epochs, self.total_runs, self.every = total_epochs, total_runs, every
        self.epochs: dict[str, int] = {}
        self.runs = 0
        self.start = self.last = time.monotonic()
        self.bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=total_epochs, unit="epoch", dynamic_ncols=True)

    def epoch(self, spec: RunSpec, entry: dict[str, Any]) -> None:
        """Notes a finished epoch."""
        done = self.epochs.get(spec.key, 0)
        self.epochs[spec.key] = max(done, int(entry["epoch"]))
        if self.bar is not None:
            self.bar.update(self.epochs[spec.key] - done)
            self.bar.set_postfix_str(f"{spec.method} seed {spec.seed} loss {entry['loss']:.4g}")
        elif time.monotonic() - self.last >= self.every:
            self.last = time.monotonic()
            done = f"{sum(self.epochs.values())} of {self.total_epochs} epochs, {self.runs} of {self.total_runs} runs"
            text = f"{done}; {spec.label}: epoch {entry['epoch']}, loss {entry['loss']:.4g}"
            print(f"{self.last - self.start:7.0f} s  {text}", file=sys.stderr, flush=True)

    def finished(self, spec: RunSpec, reason: str | None) -> None:
        """Notes the end of a run; ``reason`` says why it failed."""
        self.runs += 1
        text = f"[{self.runs}/{self.total_runs}] {spec.label}: {reason or 'recorded'}"
        if self.bar is not None:
            self.bar.write(text, file=sys.stderr)
        else:
            print(f"{time.monotonic() - self.start:7.0f} s  {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Ends the bar."""
        if self.bar is not None:
            self.bar.close()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _worker(connection: Connection, root: str, device: str) -> None:
    """Carries out the runs that arrive, one at a time, on one thread."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides; it terminates its workers
    threading.Thread(target=_die_with_parent, daemon=True).start()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    import torch

    torch.set_num_threads(1)
    store = RunStore(Path(root))
    while True:
        try:
            spec = RunSpec.from_dict(connection.recv())
        except EOFError:
            return
        try:
            execute(spec, store, device=device, on_epoch=lambda entry: connection.send(("epoch", entry)))
            connection.send(("done", None))
        except EXPECTED_ERRORS as error:
            connection.send(("failed", one_line(error)))


class _Pool:
    def __init__(self, workers: int, store: RunStore, device: str) -> None:
        self.context = multiprocessing.get_context("spawn")
        self.store, self.device = store, device
        self.busy: dict[Connection, RunSpec] = {}
        self.processes: dict[Connection, Any] = {}
        self.idle = [self._start() for _ in range(workers)]

    def _start(self) -> Connection:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(target=_worker, args=(theirs, str(self.store.root), self.device), daemon=True)
        process.start()
        theirs.close()
        self.processes[ours] = process
        return ours

    def submit(self, spec: RunSpec) -> None:
        connection = self.idle.pop()
        connection.send(spec.to_dict())
        self.busy[connection] = spec

    def events(self) -> list[tuple[RunSpec, str, Any]]:
        """Waits for messages; a worker that died is replaced and its run reported as failed."""
        out = []
        for connection in wait(list(self.busy)):
            assert isinstance(connection, Connection)
            spec = self.busy[connection]
            try:
                kind, value = connection.recv()
            except (EOFError, OSError):
                process = self.processes.pop(connection)
                process.join()
                del self.busy[connection]
                self.idle.append(self._start())
                out.append((spec, "failed", f"its process ended with code {process.exitcode}; run again to continue"))
                continue
            if kind in ("done", "failed"):
                del self.busy[connection]
                self.idle.append(connection)
            out.append((spec, kind, value))
        return out

    def close(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.join()


@contextmanager
def _one_thread(device: str) -> Iterator[None]:
    """The workers' number of threads, so that a CPU run is the same here as there."""
    import torch

    threads = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def run_all(
    specs: Sequence[RunSpec],
    store: RunStore,
    *,
    workers: int | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> list[Failure]:
    """Carries out all runs that have no record yet; a failure stops none of the others.

    Arguments:
        specs: The runs, in the order in which they are started.
        store: Where run directories live.
        workers: Processes, each on one thread; as many as cores if None, one on a GPU. One means this process.
        device: Where models are trained.
        progress: Told of every epoch and every end.

    Returns:
        The runs that failed.

    Raises:
        KeyboardInterrupt: After the workers have been stopped; each run continues from its last epoch.
    """
    specs = list(dict.fromkeys(specs))
    failures: list[Failure] = []

    def finish(spec: RunSpec, reason: str | None) -> None:
        if reason is not None:
            failures.append(Failure(spec, reason))
        if progress is not None:
            progress.finished(spec, reason)

    workers = min(workers or (1 if device.startswith("cuda") else available_cores()), len(specs))
    if workers <= 1:
        with _one_thread(device):
            for spec in specs:
                try:
                    report = None if progress is None else (lambda entry, s=spec: progress.epoch(s, entry))
                    execute(spec, store, device=device, on_epoch=report)
                    finish(spec, None)
                except EXPECTED_ERRORS as error:
                    finish(spec, one_line(error))
        return failures
    pool = _Pool(workers, store, device)
    waiting = specs[::-1]
    try:
        while waiting or pool.busy:
            while waiting and pool.idle:
                pool.submit(waiting.pop())
            for spec, kind, value in pool.events():
                if kind == "epoch":
                    if progress is not None:
                        progress.epoch(spec, value)
                else:
                    finish(spec, value if kind == "failed" else None)
    finally:
        pool.close()
    return failures
