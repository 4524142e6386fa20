"""Runs as one array of SLURM tasks, through submitit: each task is ``repro run --key KEY``, and can be repeated.

What is finished is what has a record; the queue is only asked what waits and what runs.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from filelock import FileLock

from repro.engine.store import RunStore, check_spec_file, read_spec, write_atomically
from repro.engine.torchrun import process_environment
from repro.errors import RunError, StoppedError, suggestion
from repro.records import RunSpec

__all__ = ["Cluster", "Submission", "Task", "check_cluster", "minutes", "queue", "submissions", "submit"]

# A task that was stopped by its time limit is requeued as often as it takes.
MOST_TIMEOUTS = 1_000_000
SECONDS_TO_ANSWER = 30
UNITS = {"": 1.0, "m": 1.0, "min": 1.0, "h": 60.0, "d": 1440.0}


@dataclass(frozen=True)
class Cluster:
    """What every task of an array asks for.

    Arguments:
        partition: The partition; the cluster's default if empty.
        gpus: GPUs of a task, which train one run together.
        processes: Processes of a task on the CPU.
        time: Minutes after which a task writes its checkpoint and is queued again.
        max_jobs: Tasks at once.
        memory: Such as ``"16G"``; the cluster's default if empty.
        account: Whom the time is charged to; the default if empty.
    """

    partition: str = ""
    gpus: int = 0
    processes: int = 1
    time: int = 60
    max_jobs: int = 64
    memory: str = ""
    account: str = ""


@dataclass(frozen=True)
class Submission:
    """An array that was submitted: the task of every run's key."""

    tasks: dict[str, str]
    folder: Path


def minutes(text: str) -> int:
    """Whole minutes of ``"2h"``, ``"90m"``, ``"1d"``, ``"45"`` or ``"01:30:00"``.

    Raises:
        ValueError: If it is none of these, or under a minute.
    """
    clock = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d)(?::(\d\d))?", text)
    plain = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if clock:
        days, hours, mins, seconds = (int(x or 0) for x in clock.groups())
        value = 1440 * days + 60 * hours + mins + seconds / 60
    elif plain and plain[2] in UNITS:
        value = float(plain[1]) * UNITS[plain[2]]
    else:
        raise ValueError(f"--time is {text!r}; such as 2h, 90m, 1d or 01:30:00")
    if value < 1:
        raise ValueError(f"--time is {text!r}, must be at least a minute")
    return int(value)


def _ask(*arguments: str) -> str:
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=SECONDS_TO_ANSWER)
    except FileNotFoundError:
        raise RunError(
            f"no SLURM on this machine ({arguments[0]} is not installed); --executor local runs here"
        ) from None
    except subprocess.TimeoutExpired:
        raise RunError(f"SLURM does not answer ({arguments[0]}, {SECONDS_TO_ANSWER} s); try again later") from None
    if done.returncode:
        reason = " ".join((done.stderr or done.stdout).split()) or f"code {done.returncode}"
        raise RunError(f"SLURM refuses {arguments[0]}: {reason}")
    return done.stdout


def _submitit() -> ModuleType:
    try:
        import submitit  # an optional dependency
    except ImportError:
        raise RunError("--executor slurm needs submitit; pip install 'repro[slurm]'") from None
    return submitit


def check_cluster(cluster: Cluster) -> None:
    """Makes sure that there is a SLURM with that partition, and submitit.

    Raises:
        RunError: If not; it says what to do.
    """
    if shutil.which("sbatch") is None:
        raise RunError(
            "no SLURM on this machine (sbatch is not installed); call it on a login node of the cluster, or use "
            "--executor local"
        )
    _submitit()
    known = sorted({name.rstrip("*") for name in _ask("sinfo", "--noheader", "--format=%R").split()})
    if cluster.partition and cluster.partition not in known:
        raise RunError(f"the cluster has no partition {cluster.partition!r}; {suggestion(cluster.partition, known)}")


def queue() -> dict[str, str]:
    """Task to its state and, where it waits, why: what the cluster has in its queue now.

    Raises:
        RunError: If there is no SLURM, or it does not answer.
    """
    found = {}
    for line in _ask("squeue", "--noheader", "--array", "--format=%i|%T|%r").splitlines():
        task, state, reason = line.strip().split("|", 2)
        found[task] = state.lower() + (f" ({reason})" if state == "PENDING" and reason != "None" else "")
    return found


def _ledger(store: RunStore) -> Path:
    return store.root.resolve() / ".slurm"


def submissions(store: RunStore) -> list[Submission]:
    """What was submitted for this folder of runs, the latest last."""
    folder = _ledger(store)
    paths = [p for p in folder.glob("array.*.json") if p.name.split(".")[1].isdigit()]
    found = []
    for path in sorted(paths, key=lambda p: int(p.name.split(".")[1])):
        with suppress(OSError, ValueError):  # one that is just being removed
            found.append(Submission(json.loads(path.read_text(encoding="utf-8")), folder))
    return found


class Task:
    """One run as submitit calls it: a child process that can be stopped and repeated.

    Arguments:
        key: The run.
        root: The folder of the run directories.
        arguments: Further arguments of ``repro run``.
        device: ``"cpu"`` or ``"cuda"``.
        processes: Processes that train the run together.
    """

    def __init__(self, key: str, root: str, arguments: Sequence[str], device: str, processes: int) -> None:
        self.key, self.root, self.arguments = key, root, list(arguments)
        self.device, self.processes = device, processes
        self._child = 0

    def __call__(self) -> None:
        """Carries the run out; ends this process with the child's code where it did not come to a record."""
        command = [sys.executable, "-m", "repro.cli", "run", "--key", self.key, "--runs", self.root, *self.arguments]
        child = subprocess.Popen(command, env=process_environment(self.device, self.processes))
        self._child = child.pid
        while (code := child.poll()) is None:
            time.sleep(0.1)
        if code == StoppedError.code:
            # Stopped by a signal that came to the child alone: SLURM ends this task, and queues it again or not.
            sys.exit(StoppedError.code)
        if code < 0:
            name = signal.Signals(-code).name
            reason = f"its process was killed ({name})"
            if name == "SIGKILL":
                reason += ", perhaps for want of memory: submit again, with a larger --mem if so"
            print(f"repro: {self.key}: {reason}", file=sys.stderr, flush=True)
            store = RunStore(Path(self.root))
            with suppress(RunError, ValueError):  # a disk that refuses keeps no note; the log has it
                if (spec := read_spec(store, self.key)) is not None:
                    note = json.dumps({"reason": reason}) + "\n"
                    write_atomically(store.directory(spec) / "failure.json", note)
        if code:
            sys.exit(code if code > 0 else 128 - code)

    def checkpoint(self, *arguments: Any) -> Any:
        """What submitit calls before a task is queued again: the child writes its checkpoint and ends."""
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(self._child, signal.SIGUSR2)
            # Not Popen.wait, which this interrupts: the child is left for it to collect.
            os.waitid(os.P_PID, self._child, os.WEXITED | os.WNOWAIT)
        return _submitit().helpers.DelayedSubmission(
            Task(self.key, self.root, self.arguments, self.device, self.processes)
        )


@contextmanager
def _one_submission_at_a_time(store: RunStore) -> Iterator[None]:
    folder = _ledger(store)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock")
    except OSError as error:
        raise RunError(f"cannot write to {folder}: {error.strerror or error}") from None
    with suppress(NotImplementedError):  # a file system without flock: the runs' own locks leave one owner each
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def submit(
    specs: Sequence[RunSpec], store: RunStore, cluster: Cluster, *, shards: int | None = None
) -> tuple[Submission | None, list[RunSpec]]:
    """Submits one array with a task for each run that has no record and no task yet.

    Arguments:
        specs: The runs.
        store: Where run directories live; the cluster's machines must see it under the same path.
        cluster: What every task asks for.
        shards: Parts that every batch is divided into; as many as processes if None.

    Returns:
        The array, None where nothing was left to submit; and the runs that were waiting or running already.

    Raises:
        RunError: If there is no SLURM, it refuses the array, or the folder cannot be written to.
    """
    check_cluster(cluster)
    with _one_submission_at_a_time(store):
        alive = queue()
        taken = {key for past in submissions(store) for key, task in past.tasks.items() if task in alive}
        queued = [s for s in specs if s.key in taken]
        todo = [s for s in specs if s.key not in taken and store.current(s) is None]
        if not todo:
            return None, queued
        for spec in todo:
            directory = store.directory(spec)
            check_spec_file(directory, spec)
            (directory / "failure.json").unlink(missing_ok=True)
        processes = cluster.gpus or cluster.processes
        device = "cuda" if cluster.gpus else "cpu"
        arguments = ["--device", device, "--processes", str(processes)]
        arguments += [] if shards is None else ["--shards", str(shards)]
        root = str(store.root.resolve())
        tasks = [Task(s.key, root, arguments, device, processes) for s in todo]
        errors = _submitit().core.utils
        executor = _submitit().SlurmExecutor(folder=_ledger(store), max_num_timeout=MOST_TIMEOUTS)
        options: dict[str, Any] = {"job_name": "repro", "time": cluster.time, "cpus_per_task": processes}
        options |= {"array_parallelism": cluster.max_jobs, "additional_parameters": {"requeue": True}}
        named = {"partition": cluster.partition, "mem": cluster.memory, "account": cluster.account}
        options |= {name: value for name, value in named.items() if value}
        if cluster.gpus:
            options["gpus_per_node"] = cluster.gpus
        executor.update_parameters(**options)
        try:
            with redirect_stderr(io.StringIO()):  # what sbatch says is in the error too
                jobs = executor.submit_array(tasks)
        except (errors.FailedJobError, errors.FailedSubmissionError) as error:
            reason = " ".join(str(error).split()).replace("sbatch: error: ", "")
            raise RunError(f"SLURM refuses the array: {reason}; `sinfo` shows what the cluster offers") from None
        found = {spec.key: job.job_id for spec, job in zip(todo, jobs, strict=True)}
        number = jobs[0].job_id.split("_")[0]
        write_atomically(_ledger(store) / f"array.{number}.json", json.dumps(found) + "\n")
        return Submission(found, _ledger(store)), queued
