"""Many runs at once: failures and deaths are reported, the rest finishes, and results are those of one process."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from repro import executors
from repro.executors import Failure, Progress, available_cores, run_all
from repro.papers.gmrf_mcvae.experiments import copula_spec
from repro.records import RunSpec
from repro.runs import RunStore

if TYPE_CHECKING:
    from helpers_runs import Smoke

pytest_plugins = ["helpers_runs"]


def wrong_value() -> RunSpec:
    return copula_spec("gmrf_mcvae", 0, "smoke", posterior="full")


def unknown_setting() -> RunSpec:
    spec = copula_spec("gmrf_mcvae", 0, "smoke")
    return RunSpec.from_dict(spec.to_dict() | {"params": spec.params | {"model": {**spec.params["model"], "depth": 3}}})


class Told(Progress):
    """Keeps what it is told; ``kill`` is called at every epoch."""

    def __init__(self, kill: Any = None) -> None:
        super().__init__(1, 1)
        self.ends: list[tuple[str, str | None]] = []
        self.kill = kill

    def epoch(self, spec: RunSpec, entry: dict[str, Any]) -> None:
        super().epoch(spec, entry)
        if self.kill is not None:
            self.kill(spec, entry)

    def finished(self, spec: RunSpec, reason: str | None) -> None:
        super().finished(spec, reason)
        self.ends.append((spec.key, reason))


def test_workers_survive_failures_and_kills_and_agree_with_one_process(
    tmp_path: Path, smoke: Smoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers, seven runs: one is killed, two fail, four end as they do in this process."""
    victim = copula_spec("mvae", 0, "smoke", epochs=100_000)
    good = [smoke.record(m).spec for m in ("gmrf_mcvae", "mmvae", "mopoe", "mvae")]
    pools: list[Any] = []

    class Pool(executors._Pool):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            pools.append(self)

    def kill(spec: RunSpec, entry: dict[str, Any]) -> None:
        if spec == victim and entry["epoch"] == 2:
            (connection,) = (c for c, s in pools[0].busy.items() if s == victim)
            os.kill(pools[0].processes[connection].pid, signal.SIGKILL)

    monkeypatch.setattr(executors, "_Pool", Pool)
    progress, store = Told(kill), RunStore(tmp_path)
    specs = [victim, wrong_value(), unknown_setting(), *good, good[0]]
    failures = {f.spec: f.reason for f in run_all(specs, store, workers=2, progress=progress)}
    assert set(failures) == {victim, wrong_value(), unknown_setting()}
    assert failures[victim] == "its process ended with code -9; run again to continue"
    assert failures[wrong_value()].startswith("posterior is 'full', must be one of")
    assert "depth" in failures[unknown_setting()]
    assert not any("\n" in reason for reason in failures.values())
    assert sorted(progress.ends) == sorted((s.key, failures.get(s)) for s in dict.fromkeys(specs))
    for spec in good:
        found, expected = store.record(spec), smoke.record(spec.method)
        assert found is not None
        assert list(found.metrics) == list(expected.metrics)
        assert found.weights_sha256 == expected.weights_sha256
        assert list(found.history) == list(expected.history)
        assert found.environment["threads"] == expected.environment["threads"] == 1
    assert all(store.record(s) is None for s in failures)
    assert (store.directory(victim) / "checkpoint.safetensors").exists()
    assert multiprocessing.active_children() == []


def test_failures_in_this_process_stop_none_of_the_others(tmp_path: Path, smoke: Smoke) -> None:
    progress, threads = Told(), torch.get_num_threads()
    good = smoke.record("gmrf_mcvae").spec
    failures = run_all([wrong_value(), unknown_setting(), good], smoke.store, workers=1, progress=progress)
    assert [f.spec for f in failures] == [wrong_value(), unknown_setting()]
    assert failures[0] == Failure(wrong_value(), failures[0].reason)
    assert "posterior is 'full'" in failures[0].reason
    assert "depth" in failures[1].reason
    assert [reason is None for _, reason in progress.ends] == [False, False, True]
    assert torch.get_num_threads() == threads


def test_interrupt_reaches_the_caller(tmp_path: Path) -> None:
    def interrupt(spec: RunSpec, entry: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    spec, threads = copula_spec("gmrf_mcvae", 7, "smoke"), torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        run_all([spec], RunStore(tmp_path), workers=2, progress=Told(interrupt))
    assert torch.get_num_threads() == threads
    assert RunStore(tmp_path).record(spec) is None


def test_nothing_to_do(tmp_path: Path) -> None:
    assert run_all([], RunStore(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


def test_plain_lines_say_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    one, other = copula_spec("mvae", 0, "smoke"), copula_spec("mmvae", 0, "smoke")
    progress = Progress(4, 2, every=0.0)
    entry = {"epoch": 1, "loss": 1.23456}
    progress.epoch(one, entry)
    progress.epoch(one, entry)  # an epoch that is repeated after an interruption counts once
    progress.epoch(other, entry | {"epoch": 2})
    progress.finished(one, None)
    progress.finished(other, "the disk is full")
    progress.close()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert "1 of 4 epochs, 0 of 2 runs; gmrf_mcvae/mvae seed 0 (smoke" in lines[1]
    assert "3 of 4 epochs" in lines[2]
    assert "loss 1.235" in lines[2]
    assert lines[3].endswith("recorded")
    assert lines[4].endswith("the disk is full")
    quiet = Progress(4, 2, every=1000.0)
    quiet.epoch(one, entry)
    assert capsys.readouterr().err == ""


def test_cores() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)
