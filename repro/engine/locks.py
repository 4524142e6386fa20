"""One owner for each run directory, on one machine and on many that share a file system.

Two locks stand behind one another. The operating system's (``flock``) ends with its owner, whatever kills it, but some
network file systems do not carry it from machine to machine. So the owner also holds a numbered file that it touches
every few seconds. Whoever finds the file of another machine watches it: while it is touched, the run has an owner; when
it stands still for long enough by the watcher's own monotonic clock, the watcher makes the file of the next number.
Only one can make it, and an owner that finds a file of a higher number than its own knows that it has lost the run. No
two clocks are ever compared.

The operating system's lock is filelock's; its lease does not stand in for the numbered files, since its token names a
claim and fences none: an owner that was cut off and comes back learns of its loss at its next beat, after it may have
written, where here it looks before it writes.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import time
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

__all__ = ["LockError", "RunLock", "holder", "this_machine"]

SECONDS_BETWEEN_BEATS, SECONDS_UNTIL_STALE = 10.0, 60.0


class LockError(RuntimeError):
    """A run that has another owner; the message says who, and what to do."""


def this_machine() -> str:
    """What tells this machine, since it was last started, from every other."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        boot = ""  # not on Linux; the host's name has to do
    return f"{platform.node()}/{boot}"


def _numbered(directory: Path) -> list[tuple[int, Path]]:
    found = [(p.suffix[1:], p) for p in directory.glob("lock.*")]
    return sorted((int(number), path) for number, path in found if number.isdigit())


def _content(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # just made, or just removed
    return found if isinstance(found, dict) else {}


def _stamp(path: Path) -> tuple[int, bool] | None:
    """When the file was last touched, by its own file system's clock, and whether its owner gave it up."""
    try:
        with open(path, encoding="utf-8") as handle:  # opening makes a network file system look again
            stamp = os.fstat(handle.fileno()).st_mtime_ns
    except OSError:
        return None
    return stamp, bool(_content(path).get("released"))


def holder(directory: Path) -> dict[str, Any]:
    """What the newest numbered file says of its owner (machine, host, process, job); empty where there is none."""
    files = _numbered(directory)
    found = _content(files[-1][1]) if files else {}
    return {} if found.get("released") else found


class RunLock:
    """The lock of one run directory.

    Arguments:
        directory: The run's directory; it must exist.
        beat: Seconds between two touches; 10 if None.
        stale: Seconds without a touch after which an owner on another machine is taken for dead; 60 if None.
    """

    def __init__(self, directory: Path, *, beat: float | None = None, stale: float | None = None) -> None:
        self.directory = directory
        self.beat = SECONDS_BETWEEN_BEATS if beat is None else beat
        self.stale = SECONDS_UNTIL_STALE if stale is None else stale
        self.path: Path | None = None
        self._flock: FileLock | None = None
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> None:
        """Takes the lock, waiting only for as long as it takes to tell a dead owner on another machine.

        Raises:
            LockError: If the run has a living owner.
            OSError: If the directory cannot be written to.
        """
        flock = FileLock(self.directory / "lock")
        try:
            flock.acquire(blocking=False)
            self._flock = flock
        except Timeout:
            raise LockError(f"is being executed by another process (lock {flock.lock_file})") from None
        except NotImplementedError:
            pass  # a file system without flock: the numbered files alone
        try:
            self._take_number()
        except BaseException:
            self._unflock()
            raise
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def _take_number(self) -> None:
        files = _numbered(self.directory)
        number = 0
        if files:
            number, path = files[-1]
            self._wait_for_end(path)
        path = self.directory / f"lock.{number + 1}"
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            raise LockError(f"was taken by another process just now (lock {path})") from None
        job = os.environ.get("SLURM_JOB_ID", "")
        known = {"machine": this_machine(), "host": platform.node(), "pid": os.getpid(), "job": job}
        try:
            os.write(handle, json.dumps(known).encode())
        except OSError:
            path.unlink()
            raise
        finally:
            os.close(handle)
        self.path = path
        for _, old in files:
            old.unlink(missing_ok=True)

    def _wait_for_end(self, path: Path) -> None:
        """Returns once the file's owner is known to be gone."""
        owner = _content(path)
        job = os.environ.get("SLURM_JOB_ID")
        if owner.get("released") or (job and owner.get("job") == job):
            return  # given up; or this very job before it was requeued, which ended it
        if owner.get("machine") == this_machine():
            if self._flock is not None or not _alive(owner.get("pid")):
                return  # a living owner on this machine would hold the operating system's lock
            raise LockError(f"is being executed by process {owner['pid']} (lock {path})")
        start, first = time.monotonic(), _stamp(path)
        while first is not None and time.monotonic() - start < self.stale:
            time.sleep(min(0.2, self.stale / 10))
            now = _stamp(path)
            if now is None or now[1]:
                return
            if now != first:
                raise LockError(
                    f"is being executed on {owner.get('host', 'another machine')} by process {owner.get('pid', '?')} "
                    f"(lock {path}); wait for it, or delete that file to take the run away from it"
                )

    def _beat(self) -> None:
        while not self._end.wait(self.beat):
            with contextlib.suppress(OSError):  # a touch needs no room on the disk; one that fails is made up for
                if self.path is not None:
                    os.utime(self.path)

    def check(self) -> None:
        """Makes sure that the lock is still this one's.

        Raises:
            LockError: If another machine took this one for dead and went on with the run.
        """
        files = _numbered(self.directory)
        if self.path is None or (files and files[-1][1] == self.path):
            return
        other = _content(files[-1][1]).get("host", "another machine") if files else "somebody who deleted its lock"
        raise LockError(f"was taken over by {other}, which continues it; nothing more is written here")

    def release(self, *, finished: bool = False) -> None:
        """Gives the lock up; the numbered file goes where the run is finished, and is marked where it is not."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()
        if self.path is not None and self.path.exists():
            with contextlib.suppress(OSError):  # then it stands still, and is taken over
                if finished:
                    self.path.unlink()
                else:
                    _give_up(self.path)
        self.path = None
        self._unflock()

    def _unflock(self) -> None:
        if self._flock is not None:
            self._flock.release()
            self._flock = None


def _give_up(path: Path) -> None:
    """Marks a numbered file, in one step, so that no watcher takes half of it for a touch by a living owner."""
    partial = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.partial")
    partial.write_text(json.dumps({"released": True}), encoding="utf-8")
    os.replace(partial, path)


def _alive(pid: Any) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, TypeError, ValueError):
        return False
    except PermissionError:
        pass
    return True
