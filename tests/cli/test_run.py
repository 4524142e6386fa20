"""``repro run`` with a limit, by key, by signals, and in several processes; ``repro status``."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest

import repro
from repro.artifacts import render as artifacts
from repro.artifacts.inventory import find
from repro.cli import executing
from repro.cli.executing import StopRequest
from repro.cli.main import main, parser
from repro.engine.execute import execute
from repro.engine.local import note_failure
from repro.engine.locks import RunLock
from repro.engine.progress import Progress
from repro.engine.status import states, summary
from repro.engine.store import RunStore, check_spec_file, read_spec, write_atomically
from repro.errors import UsageError
from repro.records import RunSpec
from repro.training.checkpoints import load_checkpoint
from tests.support.slurm import until
from tests.support.toy import environment, lines_of_log, repro_command, same_result, toy_spec

pytest_plugins = ["tests.support.cluster"]

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[RunSpec]:
    """Makes an artifact need two toy runs, and its rendering nothing."""
    specs = [toy_spec(s, epochs=4, pause=0.002) for s in range(2)]
    monkeypatch.setattr(
        artifacts, "plan", lambda artifact, profile, seeds=None, precision=None, device=None: {"row": specs}
    )
    monkeypatch.setattr(artifacts, "render", lambda *arguments, **options: [])
    monkeypatch.setattr(artifacts, "export_records", lambda *arguments: None)
    monkeypatch.setattr(artifacts, "tables", lambda *arguments: [])
    return specs


def run(tmp_path: Path, *options: str) -> int:
    command = ["run", "gmrf-table1", "--executor", "inline", "--device", "cpu", "--runs", str(tmp_path / "runs")]
    return main([*command, "--results", str(tmp_path / "results"), *options])


def test_minutes_are_kept_and_the_same_command_continues(
    planned: list[RunSpec], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, asked = RunStore(tmp_path / "runs"), []

    def late(self: StopRequest) -> bool:
        asked.append(1)
        return len(asked) > 31  # the first run takes 24 steps, and more questions than those

    with monkeypatch.context() as patch:
        patch.setattr(StopRequest, "__call__", late)
        assert run(tmp_path, "--max-minutes", "1.5") == 75
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "repro: stopped after 1.5 minutes: 1 of 2 runs recorded; the same command continues"
    assert store.record(planned[0]) is not None
    kept = load_checkpoint(store.directory(planned[1]) / "checkpoint.safetensors", planned[1].key)
    assert kept.step > 0  # within an epoch
    assert run(tmp_path) == 0
    for spec in planned:
        assert same_result(store.record(spec), execute(spec, RunStore(tmp_path / "whole")))
    assert run(tmp_path, "--max-minutes", "1") == 0  # nothing is left to stop


def test_no_minutes_at_all_still_get_further(planned: list[RunSpec], tmp_path: Path, capsys: Capture) -> None:
    store = RunStore(tmp_path / "runs")
    assert run(tmp_path, "--max-minutes", "0.000001") == 75
    assert "0 of 2 runs recorded" in capsys.readouterr().err
    assert run(tmp_path, "--max-minutes", "0.000001", "--force") == 75
    assert capsys.readouterr().err.splitlines()[-1].endswith("; the same command without --force continues")
    assert store.record(planned[0]) is None


def test_stop_request_of_time_and_of_signals() -> None:
    assert StopRequest()() is False
    assert StopRequest(1e-9)() is True
    assert StopRequest(1.0).reason == "after 1 minute"
    assert StopRequest(2.5).reason == "after 2.5 minutes"
    before = signal.getsignal(signal.SIGTERM)
    for name in (signal.SIGTERM, signal.SIGUSR2):
        with StopRequest() as stop:
            assert not stop()
            os.kill(os.getpid(), name)
            os.kill(os.getpid(), name)  # SLURM sends it more than once
            assert stop()
        assert stop.reason == f"by {name.name}"
    assert signal.getsignal(signal.SIGTERM) is before


THREADS = "--threads is for runs that this machine's CPU trains whole, one process each"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-minutes", "0"], "--max-minutes is 0.0, must be positive"),
        (["--max-minutes", "nan"], "--max-minutes is nan, must be positive"),
        (["--runs-per-gpu", "0"], "--runs-per-gpu is 0, must be at least 1"),
        (["--processes", "-1"], "--processes is -1, must be at least 1"),
        (["--threads", "0"], "--threads is 0, must be at least 1"),
        (["--threads", "2", "--executor", "slurm"], THREADS),
        (["--threads", "2", "--processes", "2"], THREADS),
        (["--threads", "2", "--from-weights"], THREADS),
        (["--threads", "2", "--share-stages"], THREADS),
        (["--shards", "0"], "--shards is 0, must be at least 1"),
        (["--shards", "3", "--processes", "2"], "--shards is 3, must be a multiple of --processes, 2"),
        (["--gpus", "1"], "--gpus is for --executor slurm; here --processes says how many GPUs train one run"),
        (["--gpus", "-1", "--executor", "slurm"], "--gpus is -1, must be at least 0"),
        (["--time", "soon"], "--time is 'soon'; such as 2h, 90m, 1d or 01:30:00"),
        (["--max-jobs", "0"], "--max-jobs is 0, must be at least 1"),
        (["--key", "0123456789abcdef", "--profile", "smoke"], "no run has the key '0123456789abcdef' in "),
        (["--key", "../../etc"], "no run has the key '../../etc' in "),
    ],
)
def test_wrong_calls(options: list[str], message: str, tmp_path: Path, capsys: Capture) -> None:
    code = main(["run", "gmrf-fig6", "--runs", str(tmp_path), *options])
    out, error = capsys.readouterr()
    assert (code, out) == (2, "")
    assert error.startswith(f"repro: {message}")
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_what_to_run_must_be_said(capsys: Capture) -> None:
    assert main(["run"]) == 2
    assert capsys.readouterr().err == "repro: which table or figure? `repro list` shows all\n"


def test_key_of_a_plan_and_key_of_a_folder(planned: list[RunSpec], tmp_path: Path, capsys: Capture) -> None:
    """A task knows its run from its folder; a person may name the artifact."""
    store = RunStore(tmp_path / "runs")
    options = ["--device", "cpu", "--runs", str(store.root)]
    assert main(["run", "gmrf-table1", "--key", planned[1].key, *options]) == 0
    assert store.record(planned[1]) is not None
    assert store.record(planned[0]) is None
    check_spec_file(store.directory(planned[0]), planned[0])
    assert main(["run", "--key", planned[0].key, *options]) == 0
    assert store.record(planned[0]) is not None
    assert main(["run", "--key", planned[0].key, *options]) == 0  # again, nothing happens
    out, error = capsys.readouterr()
    assert out == ""
    ended = [line.split(" s  ")[-1] for line in error.splitlines()]
    first, other = (f"[1/1] {s.label}: recorded" for s in (planned[1], planned[0]))
    assert ended == [first, other, f"{planned[0].label}: recorded already"]


def test_a_key_tells_its_epochs_and_the_time_left(
    planned: list[RunSpec], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executing, "Progress", partial(Progress, every=0.0))
    assert main(["run", "gmrf-table1", "--key", planned[0].key, "--device", "cpu", "--runs", str(tmp_path)]) == 0
    error = capsys.readouterr().err
    assert re.search(r"\d+% of the work, .* elapsed, .* left, 0 of 1 runs done\n", error)
    assert re.search(rf"  {re.escape(planned[0].label)}: .*epoch 1 of \d+, loss ", error)


def test_a_key_is_planned_and_begun_anew(planned: list[RunSpec], tmp_path: Path, capsys: Capture) -> None:
    store, spec = RunStore(tmp_path / "runs"), planned[0]
    command = ["run", "gmrf-table1", "--key", spec.key, "--device", "cpu", "--runs", str(store.root)]
    assert main([*command, "--dry-run"]) == 0
    assert store.record(spec) is None
    assert not store.directory(spec).exists()
    assert main(command) == 0
    first = store.directory(spec).stat().st_ino
    assert main([*command, "--dry-run"]) == main([*command, "--dry-run", "--force"]) == 0
    assert store.directory(spec).stat().st_ino == first
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[:3] for line in lines] == [
        [spec.key, spec.label, left] for left in ("to run", "recorded", "to run")
    ]
    before = store.record(spec)
    (store.directory(spec) / "left").touch()
    assert main([*command, "--force"]) == 0
    assert not (store.directory(spec) / "left").exists()
    assert same_result(store.record(spec), before)
    capsys.readouterr()
    for other in ("--all", "--from-weights"):
        assert main([*command, other]) == 2
        assert capsys.readouterr().err == f"repro: --key is one run: not with {other}\n"


def test_folder_of_another_run_is_refused(planned: list[RunSpec], tmp_path: Path, capsys: Capture) -> None:
    store = RunStore(tmp_path / "runs")
    folder = store.directory(planned[0])
    check_spec_file(folder, planned[0])
    (folder / "spec.json").write_text(json.dumps(planned[1].to_dict()))
    assert main(["run", "--key", planned[0].key, "--runs", str(store.root)]) == 1
    assert "spec.json: holds toy/autoencoder seed 1" in capsys.readouterr().err
    (folder / "spec.json").write_text("{")
    assert main(["run", "--key", planned[0].key, "--runs", str(store.root)]) == 1
    assert "cannot be read" in capsys.readouterr().err
    assert read_spec(store, "no such key") is None


def test_failure_of_a_key_is_noted(planned: list[RunSpec], tmp_path: Path, capsys: Capture) -> None:
    store, spec = RunStore(tmp_path / "runs"), toy_spec(batch_size=-1)
    check_spec_file(store.directory(spec), spec)
    assert main(["run", "--key", spec.key, "--device", "cpu", "--runs", str(store.root)]) == 1
    error = capsys.readouterr().err
    assert error == f"repro: {spec.label}: batch_size is -1, must be positive\n"
    assert states([spec], store)[0].detail == "batch_size is -1, must be positive"
    with_owner = RunLock(store.directory(planned[0]))
    with_owner.directory.mkdir(parents=True)
    with_owner.acquire()
    check_spec_file(with_owner.directory, planned[0])
    assert main(["run", "--key", planned[0].key, "--device", "cpu", "--runs", str(store.root)]) == 1
    assert "is being executed by another process" in capsys.readouterr().err
    assert not (with_owner.directory / "failure.json").exists()
    with_owner.release()


@pytest.mark.slow
def test_sigterm_saves_and_a_key_goes_on(tmp_path: Path, toy_paper: None) -> None:
    spec, store = toy_spec(3, epochs=4000, pause=0.02), RunStore(tmp_path)
    check_spec_file(store.directory(spec), spec)
    command = repro_command("run", "--key", spec.key, "--device", "cpu", "--runs", str(tmp_path))
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment())
    until(lambda: lines_of_log(spec, store) >= 2, "the second epoch")
    child.send_signal(signal.SIGTERM)
    _, error = child.communicate(timeout=300)
    assert child.returncode == 75
    *told, last = error.splitlines()
    assert last == f"repro: stopped by SIGTERM: {spec.label}; the same command continues"
    assert all(" of the work, " in line or line.strip().startswith(f"{spec.label}: ") for line in told)
    assert states([spec], store)[0].state == "stopped"
    before = load_checkpoint(store.directory(spec) / "checkpoint.safetensors", spec.key)
    assert before.epoch >= 2


def test_status_of_every_kind(planned: list[RunSpec], tmp_path: Path, capsys: Capture) -> None:
    store = RunStore(tmp_path / "runs")
    done, running, stopped, failed, edited, dead, new = (toy_spec(s, epochs=2) for s in range(7))
    execute(done, store)
    for spec in (running, stopped, failed, dead):
        check_spec_file(store.directory(spec), spec)
    owner = RunLock(store.directory(running))
    owner.acquire()
    entry = {"stage": "encode", "epoch": 3, "epochs": 9, "loss": 1.23456, "seconds": 0.1}
    write_atomically(store.directory(running) / "log.jsonl", json.dumps(entry) + '\n{"stage": "enc')
    write_atomically(store.directory(stopped) / "checkpoint.safetensors", b"")
    write_atomically(store.directory(stopped) / "log.jsonl", json.dumps(entry) + "\n")
    note_failure(failed, store, "the disk is full")
    execute(edited, store)
    path = store.directory(edited) / "record.json"
    path.write_text(path.read_text().replace('"value": ', '"value": 1', 1))
    gone = {"machine": owner_machine(store, running), "host": "here", "pid": 2**22 - 3}  # no such process
    write_atomically(store.directory(dead) / "lock.1", json.dumps(gone))
    found = {s.spec.seed: s for s in states([done, running, stopped, failed, edited, dead, new], store)}
    owner.release()
    kinds = ["done", "running", "stopped", "failed", "failed", "to run", "to run"]
    assert [found[i].state for i in range(7)] == kinds
    assert found[1].detail.startswith(f"process {os.getpid()} on ")
    assert found[1].log == ""  # the last line was cut off
    assert found[2].log == "encode, epoch 3 of 9, loss 1.235"
    assert found[3].detail == "the disk is full"
    assert "content does not match its digest" in found[4].detail
    assert summary(list(found.values())) == "7 runs: 1 done, 1 running, 1 stopped, 2 failed, 2 to run"
    assert main(["status", "gmrf-table1", "--runs", str(store.root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "gmrf_mcvae/table1, profile paper: 2 runs: 0 done, 2 to run"
    assert len(lines) == 3
    assert main(["status", "gmrf-tabel1"]) == 2
    assert "did you mean gmrf_mcvae/table1" in capsys.readouterr().err


def owner_machine(store: RunStore, spec: RunSpec) -> str:
    return json.loads((store.directory(spec) / "lock.1").read_text())["machine"]


def test_status_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from repro.cli.main import main\n"
        f"main(['status', 'gmrf-table1', '--runs', {str(tmp_path)!r}])\n"
        "assert not {'torch', 'numpy', 'submitit'} & set(sys.modules)"
    )
    done = subprocess.run([*repro_command()[:1], "-c", code], capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(" to run\n")


def test_processes_of_a_local_run(planned: list[RunSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command line hands to the executor."""
    seen: list[dict[str, object]] = []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr("repro.cli.executing.run_all", lambda specs, store, **options: seen.append(options) or [])
    command = ["--executor", "local", "--processes", "2", "--shards", "4", "--runs-per-gpu", "3", "--device", "cuda"]
    assert run(tmp_path, *command) == 0
    options = seen[0]
    assert {k: options[k] for k in ("processes", "shards", "runs_per_gpu", "device", "workers")} == {
        "processes": 2,
        "shards": 4,
        "runs_per_gpu": 3,
        "device": "cuda",
        "workers": None,
    }


def test_options_have_defaults_that_change_nothing() -> None:
    options = parser().parse_args(["run", "gmrf-table1"])
    assert (options.processes, options.shards, options.runs_per_gpu, options.max_minutes) == (1, None, 1, None)
    assert find("gmrf-table1").name == "gmrf_mcvae/table1"
    assert time.monotonic() < StopRequest(options.max_minutes).end


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--device", "gpu"), "device is 'gpu', must be cpu, cuda or cuda:<index>"),
        (("--device", "cuda:99"), "device is cuda:99, "),
        (("--device", "mps", "--from-weights"), "device is 'mps', must be cpu, cuda or cuda:<index>"),
        (("--runs", "/proc/none"), "cannot write runs to /proc/none: "),
        (("--executor", "local", "--workers", "0"), "--workers is 0, must be at least 1"),
        (("--runs-per-gpu", "0"), "--runs-per-gpu is 0, must be at least 1"),
        (("--executor", "slurm", "--time", "soon"), ""),
        (("--executor", "slurm", "--partition", "nowhere"), ""),
    ],
)
def test_a_call_that_cannot_be_answered_discards_nothing(
    options: tuple[str, ...], message: str, planned: list[RunSpec], tmp_path: Path, capsys: Capture
) -> None:
    assert run(tmp_path) == 0
    capsys.readouterr()
    kept = {p: p.read_bytes() for p in (tmp_path / "runs").rglob("*") if p.is_file() and "lock" not in p.name}
    assert run(tmp_path, "--force", *options) in (1, 2)
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith(f"repro: {message}")
    assert not any("tried once more" in line for line in said)
    assert {p: p.read_bytes() for p in kept} == kept


def test_run_from_python_checks_before_it_discards(planned: list[RunSpec], tmp_path: Path) -> None:
    paths = {"runs": tmp_path / "runs", "results": tmp_path / "results"}
    assert run(tmp_path) == 0
    for options, message in (
        ({"device": "gpu"}, "device is 'gpu', must be cpu, cuda or cuda:<index>"),
        ({"device": 3}, "device is 3, must be cpu, cuda or cuda:<index>"),
        ({"workers": 0}, "--workers is 0, must be at least 1"),
    ):
        with pytest.raises(UsageError, match=f"^{message}$"):
            repro.run("gmrf-table1", force=True, **paths, **options)  # type: ignore[arg-type]
        assert all(RunStore(paths["runs"]).record(s) is not None for s in planned)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("run gmrf-table1 --seeds 99999999 --dry-run", "--seeds is 99999999, must be at most 10000"),
        ("run --all --dry-run --device gpu", "device is 'gpu', must be cpu, cuda or cuda:<index>"),
        ("show GMRF-TABLE1", "unknown artifact 'GMRF-TABLE1'; did you mean gmrf_mcvae/table1 or "),
        ("show gmrf-tabel1", "unknown artifact 'gmrf-tabel1'; did you mean gmrf_mcvae/table1"),
        ("list GMRF", "unknown paper 'GMRF'; did you mean gmrf or "),
    ],
)
def test_slips_are_told_at_once(command: str, message: str, capsys: Capture) -> None:
    assert main(command.split()) == 2
    out, said = capsys.readouterr()
    assert said.startswith(f"repro: {message}")
    assert (out, said.count("\n")) == ("", 1)
