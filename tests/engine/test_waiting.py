"""Two processes that want the same runs: the second waits, says so, and reads what the first one has recorded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from repro.engine import local as executors
from repro.engine.execute import execute
from repro.engine.local import RunsStopped, run_all
from repro.engine.locks import RunLock
from repro.engine.progress import Progress
from repro.engine.store import RunStore
from repro.records import RunSpec
from tests.support.slurm import until
from tests.support.toy import environment, lines_of_log, repro_command, same_result, toy_spec

pytest_plugins = ["tests.support.cluster"]


class Told(Progress):
    """Keeps why it is to wait, and calls ``then`` each time."""

    def __init__(self, specs: Sequence[RunSpec], then: Callable[[], None]) -> None:
        super().__init__(specs)
        self.reasons: list[str] = []
        self.then = then

    def waits(self, spec: RunSpec, reason: str) -> None:
        super().waits(spec, reason)
        self.reasons.append(reason)
        self.then()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SECONDS_UNTIL_ASKED_AGAIN", "SECONDS_BETWEEN_QUESTIONS"):
        monkeypatch.setattr(executors, name, 0.01)


def held(spec: RunSpec, store: RunStore) -> RunLock:
    lock = RunLock(store.directory(spec))
    lock.directory.mkdir(parents=True, exist_ok=True)
    lock.acquire()
    return lock


def test_the_second_reads_the_record_of_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = RunStore(tmp_path / "one"), RunStore(tmp_path / "two")
    first, second = toy_spec(0, epochs=2), toy_spec(1, epochs=2)
    execute(first, other)
    lock, trained = held(first, store), []

    def recorded() -> None:
        if store.record(second) is not None and lock.path is not None:  # the others do not wait for it
            record = store.directory(first) / "record.json"
            record.write_bytes((other.directory(first) / "record.json").read_bytes())
            lock.release(finished=True)

    whole = execute

    def counted(spec: RunSpec, *arguments: Any, **options: Any) -> Any:
        before = store.record(spec)
        found = whole(spec, *arguments, **options)
        if before is None:
            trained.append(spec)
        return found

    monkeypatch.setattr("repro.engine.execute.execute", counted)
    progress = Told([first, second], recorded)
    assert run_all([first, second], store, workers=1, progress=progress) == []
    assert trained == [second]
    assert same_result(store.record(first), other.record(first))
    assert progress.ended == {first, second}
    said = [line for line in capsys.readouterr().err.splitlines() if "waiting" in line]
    assert len(said) == 1  # however often it was asked for
    assert len(progress.reasons) > 1
    assert said[0].endswith(f"lock {store.directory(first) / 'lock'}); waiting for its record")
    assert not (store.directory(first) / "failure.json").exists()


def test_a_holder_that_goes_without_a_record_leaves_the_run_to_the_second(tmp_path: Path) -> None:
    store, spec = RunStore(tmp_path), toy_spec(2, epochs=2)
    lock = held(spec, store)
    assert run_all([spec], store, workers=1, progress=Told([spec], lock.release)) == []
    assert store.record(spec) is not None


def test_waiting_can_be_stopped(tmp_path: Path) -> None:
    store, spec, asked = RunStore(tmp_path), toy_spec(3), threading.Event()
    lock = held(spec, store)
    with pytest.raises(RunsStopped):
        run_all([spec], store, workers=1, progress=Told([spec], asked.set), stop=asked.is_set)
    lock.release()


@pytest.mark.slow
def test_a_killed_holder_does_not_block(tmp_path: Path) -> None:
    store, spec = RunStore(tmp_path), toy_spec(4, epochs=150, pause=0.03)
    code = (
        "from pathlib import Path; from repro.engine.execute import execute; from repro.engine.store import RunStore; "
        "from tests.support.toy import toy_spec; "
        f"execute(toy_spec(4, epochs=150, pause=0.03), RunStore(Path({str(tmp_path)!r})))"
    )
    child = subprocess.Popen([sys.executable, "-c", code], env=environment())
    until(lambda: lines_of_log(spec, store) >= 2, "the second epoch")
    os.kill(child.pid, signal.SIGSTOP)  # it holds its run however long this process takes to ask for it
    killed: list[bool] = []

    def kill() -> None:
        if not killed:
            killed.append(True)
            os.kill(child.pid, signal.SIGKILL)
            child.wait()

    assert run_all([spec], store, workers=1, progress=Told([spec], kill)) == []
    assert killed == [True]
    assert store.record(spec) is not None


@pytest.mark.slow
def test_two_workers_wait_too(tmp_path: Path, toy_paper: None) -> None:
    store, specs = RunStore(tmp_path), [toy_spec(s, epochs=2) for s in (5, 6)]
    lock = held(specs[0], store)

    def release() -> None:
        if store.record(specs[1]) is not None and lock.path is not None:
            lock.release()

    assert run_all(specs, store, workers=2, progress=Told(specs, release)) == []
    assert all(store.record(s) is not None for s in specs)


@pytest.mark.slow
def test_two_commands_at_once_end_alike_and_train_each_run_once(tmp_path: Path) -> None:
    command = repro_command("run", "gmrf-table1", "--profile", "smoke", "--seeds", "1", "--device", "cpu")
    command += ["--workers", "1", "--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    children = []
    for _ in range(2):
        children.append(subprocess.Popen(command, env=environment(), **options))
        time.sleep(0.05)
    ended = [child.communicate(timeout=300) for child in children]
    assert [child.returncode for child in children] == [0, 0], ended
    assert ended[0][0] == ended[1][0]
    logs = list((tmp_path / "runs").glob("*/*/log.jsonl"))
    assert len(logs) == 5
    for log in logs:
        lines = log.read_text().splitlines()
        assert len(lines) == len(set(lines)) == len({line.split('"epoch": ')[1].split(",")[0] for line in lines})
