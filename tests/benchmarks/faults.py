"""The fault campaign: kills, full disks, damaged files, clocks, second machines, want of memory; ``make faults``.

Every fault is done to a run of the tests' toy paper, which must then come to the record that the run has without a
fault, or be refused where a file was altered. The table says how many faults were tried, survived and lost.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from repro.engine import execute as runs
from repro.engine import locks
from repro.engine.execute import execute
from repro.engine.status import states
from repro.engine.store import RunStore
from repro.errors import BusyError, OutOfMemoryError, RecordError, RunError
from repro.records import Record, RunSpec
from repro.training.checkpoints import CheckpointError, previous_path
from repro.training.distributed import Parallel
from tests.support.toy import fill, lines_of_log, same_result, small_disk, toy_spec

CODES = {"done": 0, BusyError: 3, CheckpointError: 4, RecordError: 5, OutOfMemoryError: 6, RunError: 7}


@dataclass
class Campaign:
    """Where runs lie, the records without a fault, and what became of the faults."""

    folder: Path
    random: random.Random
    references: dict[str, Record] = field(default_factory=dict)
    rows: dict[str, list[int]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    told: bool = False

    def store(self) -> RunStore:
        return RunStore(Path(tempfile.mkdtemp(dir=self.folder)))

    @contextlib.contextmanager
    def slowly(self) -> Iterator[None]:
        """Within the block runs pause as they say, so that no run is over before its fault comes; elsewhere none does.

        What ends a pause is a file, so that how long a fault takes to come is for no clock to decide.
        """
        hurry = self.folder / "hurry"
        hurry.unlink()
        try:
            yield
        finally:
            hurry.touch()

    def reference(self, spec: RunSpec) -> Record:
        """The record of the run without a fault."""
        if spec.key not in self.references:
            self.references[spec.key] = execute(spec, RunStore(self.folder / "references"))
        return self.references[spec.key]

    def trial(self, name: str, attempt: Callable[[], bool]) -> None:
        """One fault: ``attempt`` says whether nothing was lost."""
        row = self.rows.setdefault(name, [0, 0])
        row[0] += 1
        try:
            begin = time.monotonic()
            row[1] += (survived := attempt())
            if self.told:
                print(f"{name}: {time.monotonic() - begin:.1f} s", file=sys.stderr, flush=True)
            if not survived:
                self.errors.append(f"{name}: not the record of the run without a fault")
        except Exception as error:
            self.errors.append(f"{name}: {type(error).__name__}: {error}")

    def table(self) -> str:
        """Faults tried, survived, lost."""
        lines = [f"{'fault':58s} tried  survived  lost"]
        total = [sum(row[i] for row in self.rows.values()) for i in (0, 1)]
        for name, (tried, survived) in [*self.rows.items(), ("all", total)]:
            lines.append(f"{name:58s} {tried:5d}  {survived:8d}  {tried - survived:4d}")
        return "\n".join(lines)


def start(spec: RunSpec, store: RunStore, before: Callable[[], Any] | None = None, **options: Any) -> int:
    """Executes a run in a process of its own, whose code says how it ended; ``before`` is called in it first."""
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        warnings.simplefilter("ignore")
        if before is not None:
            before()
        execute(spec, store, **options)
        code = CODES["done"]
    except tuple(k for k in CODES if isinstance(k, type)) as error:
        code = next(c for k, c in CODES.items() if isinstance(k, type) and isinstance(error, k))
        with contextlib.suppress(OSError):  # the fault may be that nothing can be written
            (store.root / f"said.{os.getpid()}").write_text(str(error))
    finally:
        os._exit(code)


def end(pid: int) -> int:
    """How a process ended: its code, or the signal's number with a minus."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def go(spec: RunSpec, store: RunStore, before: Callable[[], Any] | None = None, **options: Any) -> int:
    """Executes a run in a process of its own to its end."""
    return end(start(spec, store, before, **options))


def whole(spec: RunSpec, store: RunStore, reference: Record) -> bool:
    """Whether the run, continued, ends in the record without a fault and leaves no partial file."""
    if go(spec, store) != CODES["done"]:
        return False
    partial = list(store.directory(spec).glob(".*.partial"))
    return same_result(store.record(spec), reference) and not partial


# The faults


def kills(c: Campaign, number: int) -> None:
    """SIGKILL at random moments, from the first file to the record, of a run that is then continued."""
    hits = seed = 0
    spec = toy_spec(10_000, epochs=4, pause=0.002)
    c.reference(spec)  # so that all modules are loaded before time is taken
    begin = time.monotonic()
    go(spec, c.store())
    duration = time.monotonic() - begin
    while hits < number:
        seed += 1
        spec, store = toy_spec(seed, epochs=4, pause=0.002), c.store()
        reference = c.reference(spec)
        pid = start(spec, store, every_epoch if seed % 2 else None)
        time.sleep(c.random.uniform(0, duration))
        os.kill(pid, signal.SIGKILL)
        if end(pid) != -signal.SIGKILL:
            continue  # it had ended before
        hits += 1

        def attempt(spec: RunSpec = spec, store: RunStore = store, reference: Record = reference) -> bool:
            found = store.record(spec)  # there whole, or not at all
            return (found is None or same_result(found, reference)) and whole(spec, store, reference)

        c.trial("SIGKILL at a random moment", attempt)


def full_disks(c: Campaign, number: int) -> None:
    """A disk of 4 MB with ever less room: checkpoint, weights, log or record cannot be written; then there is room."""
    for i in range(number):
        spec = toy_spec(100 + i, epochs=3, width=3000)
        reference = c.reference(spec)
        size = len(reference.to_json()) // 1024 + 400
        with small_disk(c.folder / f"disk{i}", 4000) as disk:
            store = RunStore(disk / "runs")
            store.root.mkdir()
            filling = fill(disk, leave=int(size * (i + 0.5) / number))

            def attempt(spec: RunSpec = spec, store: RunStore = store, filling: Path = filling) -> bool:
                code = go(spec, store)
                refused = code in (CODES[CheckpointError], CODES[RunError])
                filling.unlink()
                return refused and store.record(spec) is None and whole(spec, store, c.reference(spec))

            c.trial("full disk during checkpoint", attempt)


def full_disk_at_the_record(c: Campaign, number: int) -> None:
    """Training is done and the disk is full when the record is to be written."""
    for i in range(number):
        spec = toy_spec(150 + i, epochs=2)
        c.reference(spec)
        with small_disk(c.folder / f"record{i}", 2000) as disk:
            store = RunStore(disk / "runs")

            def stop_after_training(store: RunStore = store, spec: RunSpec = spec) -> bool:
                return (store.directory(spec) / "training.json").exists()

            def attempt(spec: RunSpec = spec, store: RunStore = store, stop: Any = stop_after_training) -> bool:
                go(spec, store, stop=stop)
                filling = fill(store.root.parent, leave=0)
                refused = go(spec, store) == CODES[RunError]
                filling.unlink()
                return refused and store.record(spec) is None and whole(spec, store, c.reference(spec))

            c.trial("full disk during record", attempt)


def read_only_folder(c: Campaign, number: int) -> None:
    """The results' folder cannot be written to, from the start or in the middle of the run."""
    for i in range(number):
        spec = toy_spec(200 + i, epochs=6, pause=0.1)
        c.reference(spec)
        with small_disk(c.folder / f"ro{i}", 2000) as disk:
            store = RunStore(disk / "runs")
            store.root.mkdir()
            mount = ["mount", "-o", "remount", str(disk)]

            def attempt(
                spec: RunSpec = spec, store: RunStore = store, mount: list[str] = mount, late: bool = i % 2 == 1
            ) -> bool:
                read_only = [*mount[:2], "remount,ro", mount[3]]
                if late:  # the lock and the log are open for writing, so that the run has to end first
                    killed(c, spec, store)
                subprocess.run(read_only, check=True)
                refused = go(spec, store) == CODES[RunError]
                subprocess.run([*mount[:2], "remount,rw", mount[3]], check=True)
                return refused and whole(spec, store, c.reference(spec))

            c.trial("read-only results folder", attempt)


def reach(spec: RunSpec, store: RunStore, epochs: int) -> None:
    """Waits until a run has logged so many epochs.

    Raises:
        TimeoutError: If it does not.
    """
    last = time.monotonic() + 120
    while lines_of_log(spec, store) < epochs:
        if time.monotonic() > last:
            raise TimeoutError(f"{spec.label} has not come to epoch {epochs}")
        time.sleep(0.002)


def killed(
    c: Campaign, spec: RunSpec, store: RunStore, before: Callable[[], Any] | None = None, *, epochs: int = 3
) -> None:
    """Begins a run and kills it after some epochs."""
    with c.slowly():
        pid = start(spec, store, before)
        reach(spec, store, epochs)
        os.kill(pid, signal.SIGKILL)
        end(pid)


def every_epoch() -> None:
    """Checkpoints after every epoch, so that there is one before the latest."""
    runs.CHECKPOINT_SHARE = float("inf")


def damaged_checkpoints(c: Campaign, number: int) -> None:
    """The latest checkpoint is cut off, emptied or has a flipped byte; the one before is taken."""
    for i in range(number):
        spec, store = toy_spec(300 + i, epochs=8, pause=0.1), c.store()
        reference = c.reference(spec)
        killed(c, spec, store, every_epoch, epochs=4)
        path = store.directory(spec) / "checkpoint.safetensors"
        content = bytearray(path.read_bytes())
        if i % 3 == 0:
            content = content[: c.random.randrange(len(content))]
        else:
            content[-1 - c.random.randrange(len(content) // 4)] ^= 1 << c.random.randrange(8)
        path.write_bytes(content)
        c.trial("damaged checkpoint", lambda s=spec, t=store, r=reference: whole(s, t, r))
    spec, store = toy_spec(399, epochs=8, pause=0.1), c.store()
    reference = c.reference(spec)
    killed(c, spec, store, every_epoch, epochs=4)
    path = store.directory(spec) / "checkpoint.safetensors"
    both = (path, previous_path(path))
    for damaged in both:
        damaged.write_bytes(b"")

    def attempt() -> bool:
        refused = go(spec, store) == CODES[CheckpointError]
        for damaged in both:  # what the message advises
            damaged.unlink()
        return refused and whole(spec, store, reference)

    c.trial("both checkpoints damaged (refused, then begun anew)", attempt)


def edited_records(c: Campaign, number: int) -> None:
    """A digit of the record is edited by hand: it is refused, told, and left as it is."""
    spec = toy_spec(400, epochs=2)
    c.reference(spec)
    for _ in range(number):
        store = c.store()
        go(spec, store)
        path = store.directory(spec) / "record.json"
        text = path.read_text()
        digits = [k for k in range(text.index('"metrics"'), len(text)) if text[k].isdigit()]
        place = c.random.choice(digits)
        altered = text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :]
        path.write_text(altered)

        def attempt(store: RunStore = store, path: Path = path, altered: str = altered) -> bool:
            told = states([spec], store)[0]
            kept = go(spec, store) == CODES[RecordError] and path.read_text() == altered
            return kept and told.state == "failed" and "refused" in told.detail

        c.trial("record edited by hand (refused)", attempt)


def jumping_clocks(c: Campaign, number: int) -> None:
    """The clock jumps by days at every look, forth and back, and files are dated in other years."""
    for i in range(number):
        spec, store = toy_spec(500 + i, epochs=3, pause=0.1), c.store()
        reference, jumps = c.reference(spec), random.Random(i)

        def jump(jumps: random.Random = jumps) -> None:
            now, now_ns = time.time, time.time_ns
            time.time = lambda: now() + jumps.uniform(-1e6, 1e6)
            time.time_ns = lambda: now_ns() + jumps.randrange(-(10**15), 10**15)

        def attempt(
            spec: RunSpec = spec, store: RunStore = store, reference: Record = reference, jump: Any = jump
        ) -> bool:
            killed(c, spec, store, jump, epochs=2)
            for path in store.directory(spec).iterdir():
                os.utime(path, (c.random.randrange(4 * 10**9), c.random.randrange(4 * 10**9)))
            done = go(spec, store, jump) == CODES["done"]
            record = store.record(spec)
            sane = record is not None and 0 < record.training_seconds < 100 and 0 < record.evaluation_seconds < 100
            return done and sane and same_result(record, reference)

        c.trial("clock that jumps", attempt)


class NoFlock:
    """The operating system's lock on a file system that has none."""

    lock_file = "lock"

    def __init__(self, *arguments: Any) -> None: ...

    def acquire(self, **options: Any) -> None:
        raise NotImplementedError


def machine(name: str) -> Callable[[], None]:
    """Makes a process one of another machine, which shares files and nothing else."""

    def become() -> None:
        locks.this_machine = lambda: name  # type: ignore[assignment]
        locks.FileLock = NoFlock  # type: ignore[assignment,misc]
        locks.SECONDS_BETWEEN_BEATS, locks.SECONDS_UNTIL_STALE = 0.05, 5.0

    return become


def second_machines(c: Campaign, number: int) -> None:
    """Two machines on one run: at once; one while the other lives; one after the other was lost, which comes back."""
    for i in range(number):
        spec, store = toy_spec(600 + i, epochs=10, pause=0.004), c.store()
        reference = c.reference(spec)

        def at_once(spec: RunSpec = spec, store: RunStore = store, reference: Record = reference) -> bool:
            with c.slowly():
                codes = sorted(map(end, [start(spec, store, machine(name)) for name in ("one", "two")]))
            return codes in ([0, CODES[BusyError]], [0, 0]) and same_result(store.record(spec), reference)

        c.trial("two machines on one run at once", at_once)
        spec, store = toy_spec(700 + i, epochs=30, pause=0.1), c.store()
        reference = c.reference(spec)

        def lost_and_back(spec: RunSpec = spec, store: RunStore = store, reference: Record = reference) -> bool:
            with c.slowly():
                first = start(spec, store, machine("one"))
                reach(spec, store, 3)
                busy = go(spec, store, machine("two")) == CODES[BusyError]
                os.kill(first, signal.SIGSTOP)  # cut off: it neither works nor touches its lock
            done = go(spec, store, machine("two")) == CODES["done"]
            path = store.directory(spec) / "record.json"
            before = path.read_bytes()
            os.kill(first, signal.SIGCONT)
            fenced = end(first) == CODES[BusyError]
            return (
                busy and done and fenced and path.read_bytes() == before and same_result(store.record(spec), reference)
            )

        c.trial("machine lost, its run taken over, and back", lost_and_back)


def want_of_memory(c: Campaign, number: int) -> None:
    """Memory for half of the batch: half is proposed and not taken, and taken when it is asked for."""
    for i in range(number):
        spec, store = toy_spec(800 + i, epochs=2, appetite=80_000_000), c.store()

        def limit() -> None:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            most = pages * resource.getpagesize() + 1_000_000_000  # of the 1.28 GB that a batch of 16 takes
            resource.setrlimit(resource.RLIMIT_AS, (most, most))

        def attempt(spec: RunSpec = spec, store: RunStore = store, limit: Any = limit) -> bool:
            refused = go(spec, store, limit) == CODES[OutOfMemoryError]
            said = next(store.root.glob("said.*")).read_text()
            proposed = "with 16 samples at once; --shards 2 takes 8 at once of the same batch of 16" in said
            untouched = store.record(spec) is None
            done = go(spec, store, limit, parallel=Parallel(shards=2)) == CODES["done"]
            record = store.record(spec)
            return (
                refused and proposed and untouched and done and record is not None and record.environment["shards"] == 2
            )

        c.trial("out of memory (half the batch is proposed, not taken)", attempt)


def main() -> int:
    """Runs the campaign; returns 1 if something was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, metavar="N", help="runs that are killed (50)")
    parser.add_argument("--others", type=int, default=6, metavar="N", help="faults of every other kind (6)")
    parser.add_argument("--verbose", action="store_true", help="print every fault's seconds")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and places")
    options = parser.parse_args()
    torch.set_num_threads(1)  # no thread that a fork would lose
    torch.set_num_interop_threads(1)
    start_time = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="faults"))
    c = Campaign(folder, random.Random(options.seed), told=options.verbose)
    os.environ["TOY_HURRY"] = str(folder / "hurry")
    (folder / "hurry").touch()
    try:
        with c.slowly():
            kills(c, options.kills)
        for fault in (
            full_disks,
            full_disk_at_the_record,
            read_only_folder,
            damaged_checkpoints,
            edited_records,
            jumping_clocks,
            second_machines,
            want_of_memory,
        ):
            fault(c, options.others)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(c.table())
    for error in c.errors:
        print(error, file=sys.stderr)
    print(f"{time.monotonic() - start_time:.0f} s", file=sys.stderr)
    return 1 if c.errors else 0


if __name__ == "__main__":
    sys.exit(main())
