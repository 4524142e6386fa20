"""Runs of several seeds trained together, and steps that are not taken operation by operation: what is recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from repro.engine import execute as runs
from repro.engine.execute import alike, execute, execute_stacked
from repro.engine.local import RunsStopped, run_all
from repro.engine.locks import RunLock
from repro.engine.store import RunStore
from repro.errors import BusyError
from repro.papers.gmrf_mcvae.copula.experiment import copula_spec
from repro.records import Record
from repro.training import TrainingStopped
from tests.support.graphs import capturing
from tests.support.pretend import pretend, pretending

DEVICE = pretend()  # before any gradient is computed: torch counts devices then
SHORT: dict[str, Any] = {"splits": ("validation",)}
SPECS = [copula_spec("gmrf_mcvae", s, "smoke", epochs=4, **SHORT) for s in range(3)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """Each seed's record."""
    store = RunStore(tmp_path_factory.mktemp("alone"))
    found = [execute(s, store) for s in SPECS]
    return found


def assert_close(found: Record | Exception, expected: Record) -> None:
    assert isinstance(found, Record)
    assert found.spec == expected.spec
    for a, b in zip(found.metrics, expected.metrics, strict=True):
        assert (a.name, a.num_samples) == (b.name, b.num_samples)
        assert a.value == pytest.approx(b.value, rel=0.02, abs=1e-3)
    assert [e["loss"] for e in found.history] == pytest.approx([e["loss"] for e in expected.history], rel=1e-3)


def test_seeds_trained_together_have_the_records_of_each(tmp_path: Path, alone: list[Record]) -> None:
    store, epochs = RunStore(tmp_path), []
    found = execute_stacked(SPECS, store, on_epoch=lambda spec, entry: epochs.append((spec.seed, entry["epoch"])))
    for record, expected in zip(found, alone, strict=True):
        assert_close(record, expected)
        assert record.environment["training"]["stacked"] == 3
        assert "stacked" not in expected.environment["training"]
        assert store.record(record.spec) == record
    assert sorted(epochs) == [(s, e) for s in range(3) for e in range(1, 5)]
    assert execute_stacked(SPECS, store) == found  # nothing is run again


def test_stopped_seeds_are_continued_together_or_alone(tmp_path: Path, alone: list[Record]) -> None:
    store, asked = RunStore(tmp_path), []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 8

    with pytest.raises(TrainingStopped):
        execute_stacked(SPECS, store, stop=stop)
    assert all((store.directory(s) / "checkpoint.safetensors").exists() for s in SPECS)
    assert all("stopped" in (store.directory(s) / "log.jsonl").read_text() for s in SPECS)
    assert_close(execute(SPECS[0], store), alone[0])
    for record, expected in zip(execute_stacked(SPECS, store), alone, strict=True):
        assert_close(record, expected)


def test_only_seeds_of_one_model_are_stacked(tmp_path: Path) -> None:
    other = copula_spec("mvae", 0, "smoke", epochs=4, **SHORT)
    assert alike(*SPECS[:2])
    assert not alike(SPECS[0], other)
    with pytest.raises(ValueError, match="are not seeds of one model"):
        execute_stacked([SPECS[0], other], RunStore(tmp_path))


def test_a_seed_of_another_process_is_left_to_it(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store.directory(SPECS[1]).mkdir(parents=True)
    lock = RunLock(store.directory(SPECS[1]))
    lock.acquire()
    try:
        with pytest.raises(BusyError):
            execute_stacked(SPECS, store)
    finally:
        lock.release(finished=False)
    assert isinstance(execute(SPECS[0], store), Record)  # its lock was released


def test_all_runs_of_a_table_are_stacked_by_model(tmp_path: Path, alone: list[Record]) -> None:
    wrong = copula_spec("gmrf_mcvae", 0, "smoke", epochs=4, posterior="full", **SHORT)
    others = [copula_spec("mvae", s, "smoke", epochs=2, **SHORT) for s in range(2)]
    store = RunStore(tmp_path)
    failures = run_all([SPECS[0], others[0], wrong, *SPECS[1:], others[1]], store, stacked=True)
    assert [f.spec for f in failures] == [wrong]
    for spec, expected in zip(SPECS, alone, strict=True):
        assert_close(store.record(spec), expected)
        assert store.record(spec).environment["training"]["stacked"] == 3
    assert [store.record(s).environment["training"]["stacked"] for s in others] == [2, 2]
    with pytest.raises(ValueError, match="one process with one shard"):
        run_all(SPECS, store, stacked=True, shards=2)


def test_stopped_stacks_say_so(tmp_path: Path) -> None:
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 4

    with pytest.raises(RunsStopped):
        run_all(SPECS, RunStore(tmp_path), stacked=True, stop=stop)


def test_a_record_says_how_steps_were_taken(
    tmp_path: Path, alone: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert all("step" not in e for e in alone[0].history)
    with pytest.warns(UserWarning, match="captured on cuda, not on cpu"):
        found = execute(SPECS[0], RunStore(tmp_path / "cpu"), step="captured")
    assert found.weights_sha256 == alone[0].weights_sha256
    assert {e["step"] for e in found.history} == {"eager"}
    monkeypatch.setattr(runs, "environment", lambda device: {"commit": "0" * 40, "dirty": True, "device_name": "none"})
    with pretending(), capturing():
        found = execute(SPECS[0], RunStore(tmp_path / "pretend"), device=DEVICE, step="captured")
    assert {e["step"] for e in found.history} == {"captured"}
    assert_close(found, alone[0])
