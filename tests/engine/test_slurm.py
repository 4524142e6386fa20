"""SLURM, a real one on the loopback interface: arrays, signals, kills, node crashes, full disks; what is refused."""

from __future__ import annotations

import json
import os
import shlex
import signal
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from repro.cli.main import main
from repro.engine import status
from repro.engine.execute import execute
from repro.engine.slurm import Cluster, Task, check_cluster, minutes, queue, submissions, submit
from repro.engine.status import states, summary
from repro.engine.store import RunStore
from repro.errors import RunError, StoppedError
from repro.records import Record, RunSpec
from tests.support.slurm import until
from tests.support.toy import fill, lines_of_log, same_result, small_disk, toy_spec

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.support.slurm import Slurm

pytest_plugins = ["tests.support.cluster"]

Capture = pytest.CaptureFixture[str]
HERE = Cluster(partition="debug", time=30)


@pytest.fixture
def store(tmp_path: Path, toy_paper: None) -> RunStore:
    return RunStore(tmp_path / "runs")


@pytest.fixture
def hurry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that ends the pauses of all toy runs: they last until the faults are done, and no longer."""
    monkeypatch.setenv("TOY_HURRY", str(tmp_path / "hurry"))
    return tmp_path / "hurry"


def submitted(specs: list[RunSpec], store: RunStore) -> dict[str, str]:
    """Key to task of what was submitted."""
    found, _ = submit(specs, store, HERE)
    assert found is not None
    return found.tasks


def state(spec: RunSpec, store: RunStore) -> status.RunState:
    return states([spec], store)[0]


def recorded(specs: list[RunSpec], store: RunStore) -> bool:
    return all(store.record(s) is not None for s in specs)


def process_of(spec: RunSpec, store: RunStore) -> int:
    """The process that holds the run's lock."""
    from repro.engine.locks import holder

    until(lambda: holder(store.directory(spec)).get("pid"), "the run's lock")
    return int(holder(store.directory(spec))["pid"])


def uninterrupted(spec: RunSpec, tmp_path: Path) -> Record:
    return execute(spec, RunStore(tmp_path / "uninterrupted"))


# The real one


def test_two_arrays_of_one_artifact_at_once_run_everything_once(slurm: Slurm, store: RunStore, tmp_path: Path) -> None:
    specs = [toy_spec(s, epochs=4) for s in range(3)]
    with ThreadPoolExecutor(2) as both:
        found = list(both.map(lambda _: submit(specs, store, HERE), range(2)))
    arrays = [f for f, _ in found if f is not None]
    assert len(arrays) == 1
    assert set(arrays[0].tasks) == {s.key for s in specs}
    assert sorted(len(queued) for _, queued in found) == [0, 3]
    numbers = {task.split("_")[0] for task in arrays[0].tasks.values()}
    assert len(numbers) == 1  # one array
    assert {s.state for s in states(specs, store)} <= {"queued", "running", "done"}
    until(lambda: recorded(specs, store), "the array")
    for spec in specs:
        assert same_result(store.record(spec), uninterrupted(spec, tmp_path))
    assert summary(states(specs, store)) == "3 runs: 3 done"
    until(lambda: not queue(), "the queue's end")
    assert submit(specs, store, HERE) == (None, [])
    # What lacks a record is submitted again, alone; what the engine thinks of it does not matter.
    (store.directory(specs[1]) / "record.json").unlink()
    assert set(submitted(specs, store)) == {specs[1].key}
    until(lambda: recorded(specs, store), "the second array")
    assert same_result(store.record(specs[1]), uninterrupted(specs[1], tmp_path))


def test_run_goes_on_after_a_signal_a_requeue_and_a_node_s_crash(
    slurm: Slurm, store: RunStore, tmp_path: Path, hurry: Path
) -> None:
    spec = toy_spec(7, epochs=400, pause=0.02)
    task = submitted([spec], store)[spec.key]
    log = store.directory(spec) / "log.jsonl"

    def more(epochs: int) -> None:
        reached = lines_of_log(spec, store) + epochs
        until(lambda: lines_of_log(spec, store) >= reached or recorded([spec], store), f"epoch {reached}")
        assert not recorded([spec], store), "the run ended before the fault"

    more(3)
    assert state(spec, store).state == "running"
    assert state(spec, store).log.startswith("encode, epoch ")
    # What SLURM sends before a time limit or a pre-emption: the task saves within the epoch and is queued again.
    slurm.call("scancel", "--signal=USR2", task)
    until(lambda: '"stopped": "stopped in stage' in log.read_text() or '"stopped after' in log.read_text(), "the stop")
    until(lambda: state(spec, store).state == "queued" or lines_of_log(spec, store) > 5, "the queue")
    more(5)
    slurm.call("scontrol", "requeue", task)
    until(lambda: "running" not in queue().get(task, ""), "the requeue")
    more(5)
    slurm.crash_node()
    at_crash = lines_of_log(spec, store)
    hurry.touch()
    slurm.start_node()
    until(lambda: recorded([spec], store), "the record")
    assert same_result(store.record(spec), uninterrupted(spec, tmp_path))
    entries = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
    saved = next(i for i, e in enumerate(entries) if "stopped" in e)
    done = [(e["stage"], e["epoch"]) for e in entries[: saved + 2] if "epoch" in e]
    assert len(set(done)) == len(done) > 3  # the signal cost no epoch
    assert at_crash >= 13
    assert summary(states([spec], store)) == "1 run: 1 done"


def test_killed_task_is_told_and_submitted_again(slurm: Slurm, store: RunStore, tmp_path: Path, hurry: Path) -> None:
    victim, other = toy_spec(1, epochs=400, pause=0.03), toy_spec(2, epochs=2)
    submitted([victim, other], store)
    until(lambda: lines_of_log(victim, store) >= 2, "the second epoch")
    os.kill(process_of(victim, store), signal.SIGKILL)
    until(lambda: state(victim, store).state == "failed", "the failure")
    until(lambda: recorded([other], store), "the other run")
    told = state(victim, store)
    assert told.detail.startswith("its process was killed (SIGKILL), perhaps for want of memory: submit again")
    assert told.log.startswith(f"repro: {victim.key}: its process was killed (SIGKILL)")
    hurry.touch()
    until(lambda: not queue(), "the queue's end")
    assert set(submitted([victim, other], store)) == {victim.key}
    until(lambda: recorded([victim], store), "the record")
    assert same_result(store.record(victim), uninterrupted(victim, tmp_path))
    assert state(victim, store).state == "done"


def test_full_scratch_folder(slurm: Slurm, tmp_path: Path, toy_paper: None) -> None:
    spec = toy_spec(3, epochs=3, width=3000)
    with small_disk(tmp_path / "scratch", 4000) as disk:
        store = RunStore(disk / "runs")
        store.root.mkdir()
        filling = fill(disk, leave=200)
        submitted([spec], store)
        until(lambda: state(spec, store).state == "failed", "the failure")
        told = state(spec, store)
        assert "No space left on device" in told.detail
        assert told.log.startswith("repro: ")
        assert "cannot write checkpoint" in told.log
        until(lambda: not queue(), "the queue's end")
        filling.unlink()
        submitted([spec], store)
        until(lambda: recorded([spec], store), "the record")
        assert same_result(store.record(spec), uninterrupted(spec, tmp_path))


def test_command_line(slurm: Slurm, tmp_path: Path, capsys: Capture) -> None:
    """What the cluster refuses, in one line each; and an array that waits, because its tasks are held."""
    command = ["run", "gmrf-fig6", "--profile", "smoke", "--executor", "slurm", "--runs", str(tmp_path / "runs")]

    def refused(*options: str) -> str:
        assert main([*command, *options]) == 1
        out, error = capsys.readouterr()
        assert out == ""
        assert error.count("\n") == 1
        return error

    assert "the cluster has no partition 'dbug'; did you mean debug?" in refused("--partition", "dbug")
    assert "the cluster has no partition 'zz'; one of debug, gpu" in refused("--partition", "zz")
    assert "SLURM refuses the array: " in refused("--mem", "900G")
    assert "SLURM refuses the array: " in refused("--gpus", "4")
    slurm.call("scontrol", "update", "PartitionName=gpu", "State=DOWN")
    try:
        assert main([*command, "--partition", "gpu", "--time", "2h", "--max-jobs", "2"]) == 0
        said = capsys.readouterr().out
        status = ["status", "gmrf-fig6", "--profile", "smoke", "--runs", str(tmp_path / "runs")]
        assert said.endswith(f"3 runs submitted; `repro {shlex.join(status)}` shows how they stand\n")
        job = said.split()[1].rstrip(":")
        shown = slurm.call("scontrol", "show", "job", job)
        assert "TimeLimit=02:00:00" in shown
        assert "ArrayTaskThrottle=2" in shown
        assert "Requeue=1" in shown
        assert main([*command, "--partition", "gpu"]) == 0
        assert capsys.readouterr().out == "nothing to submit, 3 are waiting or running already\n"
        assert main(status) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 4
        assert all(" queued " in line and "pending (Partition" in line for line in lines[:3])
        assert lines[-1] == "gmrf_mcvae/fig6, profile smoke: 3 runs: 0 done, 3 queued"
        slurm.call("scancel", job)
        until(lambda: not queue(), "the queue's end")
        assert main(status) == 0
        assert capsys.readouterr().out.count("failed   gmrf_mcvae/mvae") == 3
    finally:
        slurm.call("scontrol", "update", "PartitionName=gpu", "State=UP")


# Without one


def test_no_slurm_and_no_submitit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    command = ["run", "gmrf-fig6", "--profile", "smoke", "--executor", "slurm", "--runs", str(tmp_path / "runs")]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(command) == 1
    error = capsys.readouterr().err
    assert error.startswith("repro: no SLURM on this machine (sbatch is not installed); call it on a login node")
    assert error.count("\n") == 1
    program(tmp_path / "sbatch", "exit 0")
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(RunError, match=r"--executor slurm needs submitit; pip install 'repro\[slurm\]'"):
        check_cluster(HERE)
    with pytest.raises(RunError, match=r"no SLURM on this machine \(squeue is not installed\)"):
        queue()


def program(path: Path, text: str) -> None:
    """A command that stands in for one of SLURM's."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.mark.parametrize(
    ("ending", "told"),
    [
        ("OUT_OF_MEMORY", "killed for want of memory; submit again with a larger --mem (task 12_0)"),
        ("NODE_FAIL", "its node failed; submit again (task 12_0)"),
        ("TIMEOUT", "its time was over before it could write a checkpoint; submit again with a longer --time (task"),
        ("", "its task 12_0 is gone; submit again"),
    ],
)
def test_how_a_task_ended(ending: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, spec = RunStore(tmp_path / "runs"), toy_spec()
    store.directory(spec).mkdir(parents=True)
    (store.root / ".slurm").mkdir()
    (store.root / ".slurm" / "array.12.json").write_text(json.dumps({spec.key: "12_0"}))
    (store.root / ".slurm" / "array.9.json").write_text(json.dumps({spec.key: "9_5"}))
    (store.root / ".slurm" / "12_0_0_log.err").write_text("a line\nslurmstepd: error: Detected 1 oom_kill event\n\n")
    assert [s.tasks[spec.key] for s in submissions(store)] == ["9_5", "12_0"]
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    program(tmp_path / "squeue", "exit 0")
    program(tmp_path / "scontrol", f"echo JobId=12 JobState={ending} ExitCode=0:9" if ending else "exit 1")
    found = state(spec, store)
    assert found.state == "failed"
    assert found.detail.startswith(told)
    assert found.log == "slurmstepd: error: Detected 1 oom_kill event"
    program(tmp_path / "squeue", "echo '12_0|PENDING|Priority'")
    assert (state(spec, store).state, state(spec, store).detail) == ("queued", "task 12_0, pending (Priority)")
    program(tmp_path / "squeue", "echo '12_0|RUNNING|None'")
    assert (state(spec, store).state, state(spec, store).detail) == ("running", "task 12_0")
    program(tmp_path / "squeue", "echo slurm_load_jobs error >&2; exit 1")
    assert state(spec, store).state == "failed"
    with pytest.raises(RunError, match=r"^SLURM refuses squeue: slurm_load_jobs error$"):
        queue()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2h", 120), ("90m", 90), ("1d", 1440), ("45", 45), ("1.5h", 90), ("01:30:00", 90), ("2-00:00:00", 2880)],
)
def test_times(text: str, expected: int) -> None:
    assert minutes(text) == expected


@pytest.mark.parametrize("text", ["", "2x", "-1h", "h", "0", "20s", "1:2", "nan"])
def test_times_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="--time is "):
        minutes(text)


@pytest.fixture
def task(store: RunStore) -> tuple[RunSpec, Task]:
    """A task of a run, called in this process."""
    spec = toy_spec(epochs=2000, pause=0.02)
    folder = store.directory(spec)
    folder.mkdir(parents=True)
    (folder / "spec.json").write_text(json.dumps(spec.to_dict()))
    return spec, Task(spec.key, str(store.root), ["--device", "cpu"], "cpu", 1)


def test_checkpoint_of_a_task_waits_for_its_child(store: RunStore, task: tuple[RunSpec, Task]) -> None:
    spec, called = task

    def code() -> object:
        with pytest.raises(SystemExit) as ended:
            called()
        return ended.value.code

    with ThreadPoolExecutor(1) as thread:
        ending = thread.submit(code)
        until(lambda: lines_of_log(spec, store) >= 2, "the second epoch")
        again = called.checkpoint()
        assert '"stopped' in (store.directory(spec) / "log.jsonl").read_text().splitlines()[-1]
        assert ending.result() == StoppedError.code
    assert (again.function.key, again.function.root) == (spec.key, str(store.root))
