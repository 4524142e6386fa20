"""Many runs at once: failures and deaths are reported, the rest finishes, and results are those of one process."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

import repro.engine.devices
from repro.engine import local as executors
from repro.engine.devices import available_cores, device_slots, visible
from repro.engine.local import Failure, RunsStopped, describe, run_all
from repro.engine.progress import Progress, count_epochs
from repro.engine.store import RunStore
from repro.errors import OutOfMemoryError, RecordError, RunError
from repro.papers.gmrf_mcvae.copula.experiment import copula_spec
from repro.records import RunSpec

if TYPE_CHECKING:
    from tests.support.runs import Smoke

pytest_plugins = ["tests.support.runs"]


def wrong_value() -> RunSpec:
    return copula_spec("gmrf_mcvae", 0, "smoke", posterior="full")


def unknown_setting() -> RunSpec:
    spec = copula_spec("gmrf_mcvae", 0, "smoke")
    return RunSpec.from_dict(spec.to_dict() | {"params": spec.params | {"model": {**spec.params["model"], "depth": 3}}})


class Told(Progress):
    """Keeps what it is told; ``kill`` is called at every epoch."""

    def __init__(self, kill: Any = None) -> None:
        super().__init__([])
        self.ends: list[tuple[str, str | None]] = []
        self.retries: list[tuple[str, str]] = []
        self.kill = kill

    def epoch(self, spec: RunSpec, entry: dict[str, Any]) -> None:
        super().epoch(spec, entry)
        if self.kill is not None:
            self.kill(spec, entry)

    def finished(self, spec: RunSpec, reason: str | None) -> None:
        super().finished(spec, reason)
        self.ends.append((spec.key, reason))

    def retried(self, spec: RunSpec, reason: str) -> None:
        super().retried(spec, reason)
        self.retries.append((spec.key, reason))


@pytest.mark.slow
def test_workers_survive_failures_and_kills_and_agree_with_one_process(
    tmp_path: Path, smoke: Smoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers, seven runs: one is killed twice, two fail twice, four end as they do in this process."""
    victim = copula_spec("mvae", 0, "smoke", epochs=100_000)
    good = [smoke.record(m).spec for m in ("gmrf_mcvae", "mmvae", "mopoe", "mvae")]
    pools: list[Any] = []

    class Pool(executors._Pool):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            pools.append(self)

    def kill(spec: RunSpec, entry: dict[str, Any]) -> None:
        if spec == victim and entry["epoch"] >= 2:
            (connection,) = (c for c, s in pools[0].busy.items() if s == spec)
            os.kill(pools[0].processes[connection].pid, signal.SIGKILL)

    monkeypatch.setattr(executors, "_Pool", Pool)
    progress, store = Told(kill), RunStore(tmp_path)
    specs = [victim, wrong_value(), unknown_setting(), *good, good[0]]
    failures = {f.spec: f.reason for f in run_all(specs, store, workers=2, progress=progress)}
    assert set(failures) == {victim, wrong_value(), unknown_setting()}
    reason = "its process ended with code -9 (killed, for want of memory?); run again to continue"
    assert failures[victim] == reason
    assert failures[wrong_value()].startswith("posterior is 'full', must be one of")
    assert "depth" in failures[unknown_setting()]
    assert not any("\n" in reason for reason in failures.values())
    assert sorted(progress.ends) == sorted((s.key, failures.get(s)) for s in dict.fromkeys(specs))
    assert {key for key, _ in progress.retries} == {s.key for s in failures}
    assert len(progress.retries) == 3  # each once
    for spec in good:
        found, expected = store.record(spec), smoke.record(spec.method)
        assert found is not None
        assert list(found.metrics) == list(expected.metrics)
        assert found.weights_sha256 == expected.weights_sha256
        assert list(found.history) == list(expected.history)
        assert found.environment["threads"] == expected.environment["threads"] == 1
    assert all(store.record(s) is None for s in failures)
    assert json.loads((store.directory(victim) / "failure.json").read_text()) == {"reason": reason}
    assert (store.directory(victim) / "checkpoint.safetensors").exists()
    assert multiprocessing.active_children() == []


@pytest.fixture
def two_threads() -> Iterator[None]:
    """More than the runs take, which are on one."""
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.mark.usefixtures("two_threads")
def test_failures_in_this_process_stop_none_of_the_others(tmp_path: Path, smoke: Smoke) -> None:
    progress = Told()
    good = smoke.record("gmrf_mcvae").spec
    failures = run_all([wrong_value(), unknown_setting(), good], smoke.store, workers=1, progress=progress)
    assert [f.spec for f in failures] == [wrong_value(), unknown_setting()]
    assert failures[0] == Failure(wrong_value(), failures[0].reason)
    assert "posterior is 'full'" in failures[0].reason
    assert "depth" in failures[1].reason
    assert [reason is None for _, reason in progress.ends] == [True, False, False]  # a second attempt comes last
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_interrupt_reaches_the_caller(tmp_path: Path) -> None:
    def interrupt(spec: RunSpec, entry: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    spec = copula_spec("gmrf_mcvae", 7, "smoke")
    with pytest.raises(KeyboardInterrupt):
        run_all([spec], RunStore(tmp_path), workers=2, progress=Told(interrupt))
    assert torch.get_num_threads() == 2
    assert RunStore(tmp_path).record(spec) is None


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_stopped_runs_continue_and_are_those_of_one_go(workers: int, tmp_path: Path, smoke: Smoke) -> None:
    specs = [smoke.record(m).spec for m in ("gmrf_mcvae", "mvae")]
    store, progress, asked = RunStore(tmp_path), Told(), []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > (1 if workers == 1 else 0)

    with pytest.raises(RunsStopped) as stopped:
        run_all([*specs, wrong_value()], store, workers=workers, progress=progress, stop=stop)
    assert stopped.value.failures == []
    assert progress.ends == []
    assert [store.record(s) for s in specs] == [None, None]
    assert multiprocessing.active_children() == []
    assert run_all(specs, store, workers=workers) == []
    for spec in specs:
        found, expected = store.record(spec), smoke.record(spec.method)
        assert found is not None
        assert list(found.metrics) == list(expected.metrics)
        assert found.weights_sha256 == expected.weights_sha256


def test_stop_says_what_had_failed_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "ATTEMPTS", 1)
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 2

    specs = [wrong_value(), copula_spec("mvae", 0, "smoke")]
    with pytest.raises(RunsStopped) as stopped:
        run_all(specs, RunStore(tmp_path), workers=1, stop=stop)
    assert [f.spec for f in stopped.value.failures] == [wrong_value()]


def test_what_a_second_attempt_cannot_change_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = [OutOfMemoryError("too large"), RecordError("altered"), RunError("disk")]
    calls: list[int] = []

    def execute(spec: RunSpec, store: RunStore, **options: Any) -> None:
        calls.append(spec.seed)
        raise errors[spec.seed]

    monkeypatch.setattr("repro.engine.execute.execute", execute)
    store, specs = RunStore(tmp_path), [copula_spec("mvae", s, "smoke") for s in range(3)]
    failures = run_all(specs, store, workers=1)
    assert calls == [0, 1, 2, 2]
    assert [f.reason for f in failures] == ["too large", "altered", "disk"]
    assert all((store.directory(s) / "failure.json").exists() for s in specs)


def test_seats_are_cores_and_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repro.engine.devices, "available_cores", lambda: 6)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3,5,7")
    assert len(device_slots("cpu")) == 6
    assert len(device_slots("cpu", processes=4)) == 1
    assert len(device_slots("cpu", threads=2)) == 3
    assert len(device_slots("cpu", threads=7)) == 1
    assert len(device_slots("cpu", workers=3)) == 3
    assert len(device_slots("cpu", workers=3, threads=6)) == 3
    assert device_slots("cuda") == ["2", "3", "5", "7"]
    assert device_slots("cuda", runs_per_gpu=2) == ["2", "3", "5", "7"] * 2
    assert device_slots("cuda", workers=5) == ["2", "3", "5", "7", "2"]
    assert device_slots("cuda", processes=2) == ["2,3", "5,7"]
    assert device_slots("cuda", processes=3, runs_per_gpu=2) == ["2,3,5"] * 2
    assert device_slots("cuda:1", runs_per_gpu=3) == ["2,3,5,7"] * 3
    with pytest.raises(ValueError, match=r"a run wants 5 GPUs, 4 are visible"):
        device_slots("cuda", processes=5)
    for name in ("workers", "runs_per_gpu", "processes"):
        with pytest.raises(ValueError, match=f"--{name.replace('_', '-')} is 0, must be at least 1"):
            device_slots("cpu", **{name: 0})


def test_each_worker_sees_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable as worker processes inherit it; no GPU is touched."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    seen = []
    for place in device_slots("cuda", runs_per_gpu=2):
        with visible(place):
            code = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"
            seen.append(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip())
    assert seen == ["4", "6", "4", "6"]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,6"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    with visible("1"):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_epochs_of_stages_are_counted() -> None:
    spec = copula_spec("mvae", 0, "smoke", epochs=7)
    assert count_epochs(spec) == 7
    training = {**spec.params["training"], "stages": {"one": {"epochs": 3}, "two": {"batch_size": 5}}}
    staged = RunSpec.from_dict(spec.to_dict() | {"params": {**spec.params, "training": training}})
    assert count_epochs(staged) == 10


@pytest.mark.parametrize("apart", [False, True], ids=["here", "apart"])
def test_a_run_on_two_threads_says_so_and_leaves_this_process_as_it_was(
    tmp_path: Path, smoke: Smoke, apart: bool
) -> None:
    alone, store = smoke.record("mvae"), RunStore(tmp_path)
    assert run_all([alone.spec], store, workers=1, threads=2, apart=apart) == []
    assert torch.get_num_threads() == 1
    found = store.record(alone.spec)
    assert found is not None
    assert (found.environment["threads"], alone.environment["threads"]) == (2, 1)
    losses = [[e["loss"] for e in r.history] for r in (found, alone)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    with pytest.raises(ValueError, match="several threads are of a run in one process"):
        run_all([alone.spec], store, threads=2, processes=2)


def test_nothing_to_do(tmp_path: Path) -> None:
    assert run_all([], RunStore(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


def test_cores() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)


def test_data_that_is_not_placed_is_told_once_and_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from repro.datasets.fetch import NotPlacedError
    from repro.papers.gmrf_mcvae.copula.experiment import Copula

    def not_placed(self: Copula, spec: object) -> None:
        raise NotPlacedError("it is placed by hand")

    monkeypatch.setattr(Copula, "load", not_placed)
    specs = [copula_spec(m, 0, "smoke") for m in ("mvae", "mmvae")]
    failures = run_all(specs, RunStore(tmp_path), workers=1, progress=Progress(specs))
    assert [f.reason for f in failures] == ["it is placed by hand"] * 2
    assert "tried once more" not in capsys.readouterr().err
    text = describe(failures, 5)
    assert text == f"2 of 5 runs failed: {specs[0].label}, {specs[1].label}: it is placed by hand"
