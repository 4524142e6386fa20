"""The tests' toy paper, in this process and in those that it starts."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import repro
import repro.papers
from repro.engine.store import RunStore
from repro.records import Record, RunSpec

__all__ = [
    "PAPERS_FOLDER",
    "call",
    "environment",
    "fill",
    "lines_of_log",
    "repro_command",
    "same_result",
    "small_disk",
    "toy_spec",
]

PAPERS_FOLDER = Path(__file__).parent / "papers"
if str(PAPERS_FOLDER) not in repro.papers.__path__:
    repro.papers.__path__.append(str(PAPERS_FOLDER))


def toy_spec(seed: int = 0, **changes: Any) -> RunSpec:
    """A run of the toy paper, see tests/support/papers/toy/autoencoding/experiment.py."""
    from repro.papers.toy.autoencoding.experiment import toy_spec as make  # type: ignore[import-not-found]

    return make(seed, **changes)


def environment(**changes: str) -> dict[str, str]:
    """An environment whose Python processes know the toy paper and this checkout."""
    path = os.pathsep.join([str(PAPERS_FOLDER), str(Path(repro.__file__).parent.parent)])
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", **changes}


def repro_command(*arguments: str) -> list[str]:
    """The command line of ``repro``, by this interpreter."""
    return [sys.executable, "-m", "repro.cli", *arguments]


def call(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Calls ``repro`` in a process of its own."""
    return subprocess.run(repro_command(*arguments), capture_output=True, text=True, env=environment(**changes))


def lines_of_log(spec: RunSpec, store: RunStore) -> int:
    """How many epochs of a run are logged."""
    path = store.directory(spec) / "log.jsonl"
    if not path.exists():
        return 0
    return sum("epoch" in json.loads(line) for line in path.read_text().splitlines() if line.endswith("}"))


def same_result(one: Record | None, other: Record | None) -> bool:
    """Whether two records hold the same measured and trained values."""
    assert one is not None
    assert other is not None
    left, right = ((list(r.metrics), r.weights_sha256, list(r.history), dict(r.data), r.spec) for r in (one, other))
    return left == right


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A disk of so many kilobytes, mounted on a new folder; needs root, as on a machine of continuous integration."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.fail(f"NO FULL DISK IS TESTED HERE: {done.stderr.strip()}; run the tests as root, in a container")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, *, leave: int) -> Path:
    """Fills a disk but for so many kilobytes; removing the file makes room again."""
    free = os.statvfs(folder)
    path = folder / "filling"
    path.write_bytes(b"\0" * (free.f_bavail * free.f_frsize - 1024 * leave))
    return path
