"""The plan past this machine: makespans, measured times, and what is not known."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from pathlib import Path

import pytest

from repro.artifacts import planning
from repro.artifacts.inventory import Artifact, find
from repro.artifacts.planning import Cost, Measured, all_runs, model_bytes, read_measured, render_plan
from repro.artifacts.render import plan, unique
from repro.cli.main import main
from repro.engine.cost import expected
from repro.engine.progress import makespan
from repro.engine.speed import REFERENCE, cached_speed
from repro.engine.store import RunStore, write_atomically
from repro.errors import UsageError
from repro.records import Metric, Record, RunSpec
from tests.support.toy import toy_spec

Capture = pytest.CaptureFixture[str]


def record(spec: RunSpec, seconds: float, *, evaluation: float = 1.0, device: str = "cpu") -> Record:
    return Record(spec, [Metric("m", 1.0, "1", 1, "p")], {"device": device}, {}, "0" * 64, seconds, evaluation)


def with_samples(spec: RunSpec, samples: int) -> RunSpec:
    return replace(spec, params={**spec.params, "data": {"seed": 0, "train_samples": samples}})


def test_makespan_of_known_cases() -> None:
    assert makespan([3, 3, 2, 2, 2], 1) == 12
    assert makespan([3, 3, 2, 2, 2], 2) == 7  # the longest first; the best would be 6
    assert makespan([3, 3, 2, 2, 2], 5) == 3
    assert makespan([3, 3, 2, 2, 2], 64) == 3
    assert makespan([], 8) == 0


def test_makespan_is_within_graham_s_bound_of_the_best() -> None:
    generator = random.Random(0)
    for _ in range(30):
        seconds = [generator.uniform(0.1, 5) for _ in range(6)]
        workers = generator.randint(1, 3)
        best = min(
            max(sum(s for s, w in zip(seconds, who, strict=True) if w == k) for k in range(workers))
            for who in itertools.product(range(workers), repeat=len(seconds))
        )
        assert best - 1e-9 <= makespan(seconds, workers) <= (4 / 3 - 1 / (3 * workers)) * best + 1e-9


def test_times_are_measured_where_they_can_be() -> None:
    base = toy_spec(0, epochs=10, pause=1.0)
    own, other, larger = (with_samples(replace(base, seed=s), n) for s, n in ((1, 160), (2, 160), (3, 1600)))
    known = Measured([record(own, 200.0), record(other, 100.0, evaluation=3.0)])
    assert known.cost(own) == Cost(201.0, 100.0, "own record", False)
    # 10 epochs of 10 steps took 200 and 100 s, and now there are 100 steps an epoch: 1.5 s a step, and 2 s at the end.
    assert known.cost(larger) == Cost(pytest.approx(1.5 * 1000 + 2.0), 100.0, "records of its method", False)
    # A GPU's times go before a core's.
    faster = Measured([record(own, 200.0), record(other, 10.0, device="cuda:0")])
    assert faster.cost(larger) == Cost(pytest.approx(0.1 * 1000 + 1.0), 100.0, "records of its method", True)
    assert faster.cost(own).on_gpu is False
    # Without the number of samples, epochs are what is counted.
    twice = toy_spec(5, epochs=20, pause=1.0)
    assert Measured([record(base, 50.0)]).cost(twice) == Cost(101.0, 100.0, "records of its method", False)
    assert Measured([]).cost(twice) == Cost(120.0, 100.0, "estimate", False)
    assert Measured([record(own, 50.0)]).cost(twice).source == "estimate"


def test_a_record_that_other_work_lengthened_is_no_measure_of_a_core() -> None:
    (spec,) = unique(plan(find("gmrf-table1"), "quick", 1))[:1]
    estimated = expected(spec, cached_speed() or REFERENCE)[0]
    for times, source in ((0.5, "own record"), (1.4, "own record"), (3, "estimate")):
        found = Measured([record(spec, times * estimated, evaluation=0.0)]).cost(spec)
        assert (found.seconds, found.source) == (pytest.approx(min(times, 1.5) * estimated), source)
    assert Measured([record(spec, 3 * estimated, device="cuda:0")]).cost(spec).source == "own record"


def test_model_is_measured_without_its_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPRO_OFFLINE", "0")
    assert model_bytes(toy_spec(width=4)) == 4 * (5 * 4 + 4 + 4 * 5 + 5 + 4)
    bad = replace(toy_spec(), params={**toy_spec().params, "model": {"depth": 3}})
    assert model_bytes(bad) == 0
    assert planning.os.environ["REPRO_OFFLINE"] == "0"


def test_plan_as_text(tmp_path: Path) -> None:
    store, specs = RunStore(tmp_path), [toy_spec(s, epochs=10, pause=60.0, width=100) for s in range(4)]
    write_atomically(store.directory(specs[0]) / "record.json", record(specs[0], 7200.0, device="cuda").to_json())
    write_atomically(store.directory(specs[0]) / "weights.safetensors", b"\0" * 5_000_000)
    write_atomically(store.directory(specs[3]) / "record.json", "{}")  # refused, and of no account here
    measured = read_measured(store, tmp_path / "figures")
    assert list(measured.own) == [specs[0].key]
    odd = replace(specs[3], method="unknown", params={**specs[3].params, "model": {"depth": 3, "pause": 60.0}})
    lines = render_plan({"toy/one": specs[:3], "toy/two": [odd]}, store, measured).splitlines()
    cells = [line.split() for line in lines]
    assert cells[1] == ["toy/one", "3", "1", "6.0", "-", "100", "MB", "5", "MB"]
    assert cells[2][:5] == ["toy/two", "1", "0", "-", "1.0"]
    assert cells[3][:5] == ["all", "4", "1", "6.0", "1.0"]
    assert lines[4] == "makespan: 7.0 h on 1, 2.0 h on 8, 2.0 h on 64 GPUs, one run a GPU (the longest takes 2.0 h)"
    assert "times: 1 runs by their own record, 2 by the seconds a step of records of their method, 1 by" in lines[6]
    assert lines[7].startswith("1 runs have no time of a GPU: each")
    assert lines[8].startswith("storage of 1 runs is unknown")


def test_runs_of_several_artifacts_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Artifact, "built", True)
    known = {n: Artifact("gmrf_mcvae", n, "T", n) for n in ("a", "b", "c")}
    known["d"] = Artifact("gmrf_mcvae", "d", "D", "a drawing")
    plans = {"a": [0, 1], "b": [1, 2], "c": [0]}
    monkeypatch.setattr(planning, "artifacts", lambda: known)
    monkeypatch.setattr(planning, "plan", lambda a, profile, seeds: {"row": [toy_spec(s) for s in plans[a.id]]})
    found = all_runs("paper")
    assert {name: [s.seed for s in specs] for name, specs in found.items()} == {
        "gmrf_mcvae/a": [0, 1],
        "gmrf_mcvae/b": [2],
    }
    monkeypatch.setattr(planning, "artifacts", dict)
    with pytest.raises(UsageError, match="no artifact has runs of profile paper"):
        all_runs("paper")


def test_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Capture) -> None:
    monkeypatch.setattr(
        "repro.cli.executing.all_runs", lambda profile, seeds: {"toy/one": [toy_spec(s) for s in range(3)]}
    )
    monkeypatch.setenv("REPRO_FIGURES", str(tmp_path / "figures"))
    folders = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    assert main(["run", "--all", "--dry-run", *folders]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-5].split()[:3] == ["all", "3", "0"]
    assert list(tmp_path.iterdir()) == []
    assert main(["run", "--all", *folders]) == 2
    assert "--all takes long; see its --dry-run" in capsys.readouterr().err
    assert main(["run", "gmrf-table1", "--all", "--dry-run"]) == 2
    assert "--all or gmrf-table1, not both" in capsys.readouterr().err
    assert main(["run", "--all", "--long", "--executor", "inline", "--device", "cpu", *folders]) == 0
    assert capsys.readouterr().out == "3 runs recorded; `repro run ID` renders each table and figure\n"
