"""What became of runs: their records say what is done; notes, locks and the queue say the rest."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repro.engine.locks import holder, this_machine
from repro.engine.slurm import queue, submissions
from repro.engine.store import RunStore
from repro.errors import RecordError, RunError
from repro.records import RunSpec

__all__ = ["RunState", "states", "summary"]

ORDER = ("done", "running", "queued", "stopped", "failed", "to run")
BYTES_OF_A_TAIL = 8192
# States of SLURM that say of a task that it has ended, and how.
ENDINGS = {
    "OUT_OF_MEMORY": "killed for want of memory; submit again with a larger --mem",
    "NODE_FAIL": "its node failed; submit again",
    "TIMEOUT": "its time was over before it could write a checkpoint; submit again with a longer --time",
    "CANCELLED": "cancelled; submit again",
    "FAILED": "its task ended before a record; submit again",
    "PREEMPTED": "pre-empted; submit again",
}


@dataclass(frozen=True)
class RunState:
    """Where one run stands.

    Arguments:
        spec: The run.
        state: One of done, running, queued, stopped, failed, to run.
        detail: Why, or where, in one line.
        log: The last line of its log; empty where there is none.
    """

    spec: RunSpec
    state: str
    detail: str = ""
    log: str = ""


@dataclass
class _Cluster:
    """What is known of the runs' tasks; the queue is asked once."""

    store: RunStore
    tasks: dict[str, tuple[str, Path]] = field(default_factory=dict)
    alive: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for past in submissions(self.store):
            self.tasks |= {key: (task, past.folder) for key, task in past.tasks.items()}
        if self.tasks and shutil.which("squeue"):
            with suppress(RunError):  # it does not answer: what is known without it is told
                self.alive = queue()

    def of(self, key: str) -> tuple[str, str]:
        """The run's last task and its state in the queue; both empty where there is none."""
        task = self.tasks.get(key, ("", Path()))[0]
        return task, self.alive.get(task, "")

    def log(self, key: str) -> str:
        """The last line that says something in the task's log."""
        task, folder = self.tasks.get(key, ("", Path()))
        return _last_line(folder / f"{task}_0_log.err", "repro: ") if task else ""

    def ending(self, task: str) -> str:
        """What SLURM remembers of a task that is no longer in its queue."""
        if not shutil.which("scontrol"):
            return "its task is not in the queue any more; submit again"
        try:
            done = subprocess.run(["scontrol", "-o", "show", "job", task], capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return "SLURM does not answer"
        words = dict(w.split("=", 1) for w in done.stdout.split() if "=" in w)
        state = words.get("JobState", "")
        return ENDINGS.get(state, f"its task {task} is gone; submit again") + (f" (task {task})" if state else "")


def _last_line(path: Path, prefer: str = "") -> str:
    try:
        with open(path, "rb") as handle:
            handle.seek(max(0, os.fstat(handle.fileno()).st_size - BYTES_OF_A_TAIL))
            lines = [x.strip() for x in handle.read().decode(errors="replace").splitlines() if x.strip()]
    except OSError:
        return ""
    said = [x for x in lines if prefer and x.startswith(prefer)]
    return (said or lines or [""])[-1]


def _training_log(directory: Path) -> str:
    """The last epoch of log.jsonl, for people."""
    try:
        entry: dict[str, Any] = json.loads(_last_line(directory / "log.jsonl"))
    except ValueError:
        return ""  # none yet, or a line that a kill cut off
    if "stopped" in entry:
        return str(entry["stopped"])
    if "epoch" not in entry:
        return ""
    return f"{entry['stage']}, epoch {entry['epoch']} of {entry['epochs']}, loss {entry['loss']:.4g}"


def _owner(directory: Path) -> str:
    """Who executes the run now, as far as can be told without touching its lock."""
    owner = holder(directory)
    if not owner:
        return ""
    if owner.get("machine") == this_machine():
        try:
            os.kill(int(owner["pid"]), 0)
        except (ProcessLookupError, KeyError, ValueError):
            return ""
        except PermissionError:
            pass
        return f"process {owner['pid']} on {platform.node()}"
    return f"process {owner.get('pid', '?')} on {owner.get('host', '?')}"


def _state(spec: RunSpec, store: RunStore, cluster: _Cluster) -> RunState:
    try:
        if store.current(spec) is not None:
            return RunState(spec, "done")
    except RecordError as error:
        return RunState(spec, "failed", f"its record is refused: {error}; move it away to measure again")
    directory = store.directory(spec)
    if not directory.is_dir():
        return RunState(spec, "to run")
    task, queued = cluster.of(spec.key)
    trained = _training_log(directory)
    if queued.startswith(("running", "completing")):
        return RunState(spec, "running", f"task {task}", trained)
    owner = _owner(directory)
    if owner:
        return RunState(spec, "running", owner, trained)
    if queued:
        return RunState(spec, "queued", f"task {task}, {queued}", trained)
    with suppress(OSError, ValueError, KeyError):
        reason = json.loads((directory / "failure.json").read_text(encoding="utf-8"))["reason"]
        return RunState(spec, "failed", reason, cluster.log(spec.key) or trained)
    if task:
        return RunState(spec, "failed", cluster.ending(task), cluster.log(spec.key) or trained)
    begun = any(directory.glob("checkpoint*.safetensors")) or (directory / "training.json").exists()
    return RunState(spec, "stopped" if begun else "to run", "the same command continues" if begun else "", trained)


def states(specs: Sequence[RunSpec], store: RunStore) -> list[RunState]:
    """Where each run stands."""
    cluster = _Cluster(store)
    return [_state(spec, store, cluster) for spec in specs]


def summary(found: Sequence[RunState]) -> str:
    """How many runs are in each state, in one line."""
    counts = {s: sum(x.state == s for x in found) for s in ORDER}
    return f"{len(found)} run{'s' * (len(found) != 1)}: " + ", ".join(
        f"{n} {s}" for s, n in counts.items() if n or s == "done"
    )
