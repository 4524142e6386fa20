"""One owner for each run: on this machine by the operating system, on many by files that stand still without it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from repro.engine import locks
from repro.engine.locks import LockError, RunLock, holder, this_machine


class NoFlock:
    """A file system whose locks are not the operating system's."""

    lock_file = "lock"

    def __init__(self, *arguments: Any) -> None: ...

    def acquire(self, **options: Any) -> None:
        raise NotImplementedError


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A network file system without flock; ``this_machine`` is patched to be others."""
    monkeypatch.setattr(locks, "FileLock", NoFlock)
    return monkeypatch


def on(machine: str, shared: pytest.MonkeyPatch) -> None:
    shared.setattr(locks, "this_machine", lambda: machine)


def lock(folder: Path, **options: float) -> RunLock:
    return RunLock(folder, **{"beat": 0.05, "stale": 0.4, **options})


def numbers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("lock."))


def test_one_owner_on_this_machine(tmp_path: Path) -> None:
    first, second = lock(tmp_path), lock(tmp_path)
    first.acquire()
    assert holder(tmp_path)["pid"] == os.getpid()
    assert holder(tmp_path)["machine"] == this_machine()
    with pytest.raises(LockError, match=r"^is being executed by another process \(lock .*lock\)$"):
        second.acquire()
    first.check()
    first.release()
    assert holder(tmp_path) == {}
    second.acquire()
    assert numbers(tmp_path) == ["lock.2"]  # numbers are not used twice
    second.release(finished=True)
    assert numbers(tmp_path) == []


def test_killed_owner_on_this_machine_holds_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from repro.engine.locks import RunLock\n"
        "RunLock(Path(sys.argv[1])).acquire(); print('held', flush=True); time.sleep(600)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"held\n"
    with pytest.raises(LockError):
        lock(tmp_path).acquire()
    child.send_signal(signal.SIGKILL)
    child.wait()
    again = lock(tmp_path, stale=1000)  # this machine's dead are known at once
    again.acquire()
    again.release()


def test_living_owner_on_another_machine_is_left_alone(tmp_path: Path, shared: pytest.MonkeyPatch) -> None:
    on("one", shared)
    first = lock(tmp_path)
    first.acquire()
    on("two", shared)
    with pytest.raises(
        LockError, match=r"is being executed on .* by process \d+ \(lock .*lock.1\); wait for it, or del"
    ):
        lock(tmp_path, stale=30).acquire()
    first.check()
    first.release()


def test_owner_that_stands_still_is_replaced_and_knows_it(tmp_path: Path, shared: pytest.MonkeyPatch) -> None:
    on("one", shared)
    first = lock(tmp_path, beat=1000)  # cut off: it touches nothing
    first.acquire()
    on("two", shared)
    second = lock(tmp_path)
    second.acquire()
    assert numbers(tmp_path) == ["lock.2"]
    with pytest.raises(LockError, match=r"^was taken over by .*, which continues it; nothing more is written here$"):
        first.check()
    first.release()
    second.check()  # the first one's end takes nothing from the second
    assert holder(tmp_path)["machine"] == "two"
    second.release()


def test_released_lock_of_another_machine_is_free_at_once(tmp_path: Path, shared: pytest.MonkeyPatch) -> None:
    on("one", shared)
    first = lock(tmp_path)
    first.acquire()
    first.release()
    on("two", shared)
    second = lock(tmp_path, stale=1000)
    second.acquire()
    second.release()


def test_owner_that_ends_while_it_is_watched(tmp_path: Path, shared: pytest.MonkeyPatch) -> None:
    on("one", shared)
    first = lock(tmp_path, beat=1000)
    first.acquire()
    on("two", shared)
    threading.Timer(0.2, first.release).start()
    second = lock(tmp_path, stale=1000)
    second.acquire()
    second.release()


def test_the_same_job_requeued_elsewhere_goes_on_at_once(tmp_path: Path, shared: pytest.MonkeyPatch) -> None:
    shared.setenv("SLURM_JOB_ID", "17")
    on("one", shared)
    lock(tmp_path, beat=1000).acquire()
    on("two", shared)
    second = lock(tmp_path, stale=1000)
    second.acquire()
    second.release()


def test_of_many_that_find_a_stale_lock_one_takes_it(tmp_path: Path, shared: pytest.MonkeyPatch) -> None:
    (tmp_path / "lock.41").write_text(json.dumps({"machine": "gone", "host": "gone", "pid": 1}))
    contenders = [lock(tmp_path, beat=1000) for _ in range(8)]
    refusals: list[str] = []

    def contend(which: RunLock) -> None:
        try:
            which.acquire()
        except LockError as error:
            refusals.append(str(error))

    threads = [threading.Thread(target=contend, args=(c,)) for c in contenders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [c for c in contenders if c.path is not None]
    assert len(winners) == 1
    assert len(refusals) == 7
    assert numbers(tmp_path) == ["lock.42"]
    winners[0].check()
    winners[0].release()


def test_deleted_lock_is_lost(tmp_path: Path) -> None:
    held = lock(tmp_path)
    held.acquire()
    (tmp_path / "lock.1").unlink()
    with pytest.raises(LockError, match="was taken over by somebody who deleted its lock"):
        held.check()
    held.release()


def test_half_written_and_foreign_files(tmp_path: Path, shared: pytest.MonkeyPatch) -> None:
    (tmp_path / "lock.3").write_text('{"machine": "o')  # its owner was killed as it wrote it
    (tmp_path / "lock.old").write_text("not a number")
    assert holder(tmp_path) == {}
    taken = lock(tmp_path)
    taken.acquire()
    assert taken.path == tmp_path / "lock.4"
    taken.release(finished=True)
    assert numbers(tmp_path) == ["lock.old"]


def test_no_clock_is_asked(tmp_path: Path, shared: pytest.MonkeyPatch) -> None:
    """Files dated in the far future or past neither free a lock nor keep it."""
    shared.setattr(time, "time", lambda: pytest.fail("the clock was asked"))
    for year in (0, 2**33):
        on("one", shared)
        first = lock(tmp_path)
        first.acquire()
        assert first.path is not None
        os.utime(first.path, (year, year))
        on("two", shared)
        with pytest.raises(LockError):
            lock(tmp_path, stale=30).acquire()
        first.release()


def test_folder_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(locks.os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            lock(tmp_path).acquire()
    assert numbers(tmp_path) == []
    again = lock(tmp_path)
    again.acquire()  # nothing was left held
    again.release()
