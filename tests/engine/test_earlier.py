"""A run begins with stages that another has trained, and is bit for bit what it is when it trains them itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from repro.artifacts.inventory import find
from repro.artifacts.render import plan, unique
from repro.engine.earlier import shared_stages
from repro.engine.environment import environment
from repro.engine.execute import execute
from repro.engine.store import RunStore
from repro.model import Stage
from repro.papers import experiment_of
from repro.records import Record, RunSpec
from repro.training import TrainingStopped


def _spec(artifact: str, method: str) -> RunSpec:
    return next(s for s in unique(plan(find(artifact), "smoke", None)) if s.method == method)


def _with(spec: RunSpec, **stages: dict[str, Any]) -> RunSpec:
    training = spec.params["training"]
    own = {name: {**training.get("stages", {}).get(name, {}), **changed} for name, changed in stages.items()}
    return replace(
        spec, params={**spec.params, "training": {**training, "stages": {**training.get("stages", {}), **own}}}
    )


def _trained_by(record: Record) -> dict[str, str]:
    return {e["stage"]: e.get("trained_by", "") for e in record.history}


def _weights(store: RunStore, spec: RunSpec) -> dict[str, Any]:
    return load_file(store.directory(spec) / "weights.safetensors")


@pytest.mark.parametrize(
    ("artifact", "method", "last"),
    [
        ("sbm-table5", "sbm_vae", "energy"),
        ("sbm-table5", "sbm_rae", "energy"),
        ("compare-copula", "mld", "score"),
    ],
)
def test_the_second_run_is_what_it_is_when_it_trains_everything(
    artifact: str, method: str, last: str, tmp_path: Path
) -> None:
    first = _spec(artifact, method)
    stages = list(experiment_of(first).build(first).stages())
    assert stages[-1].name == last
    second = _with(first, **{last: {"epochs": experiment_of(first).training(first).for_stage(last).epochs + 1}})
    alone, both = RunStore(tmp_path / "alone"), RunStore(tmp_path / "both")
    expected = execute(second, alone)
    execute(first, both)
    found = execute(second, both)
    assert {k for k, v in _trained_by(found).items() if v == first.key} == {s.name for s in stages[:-1]}
    assert not any(_trained_by(expected).values())
    ours, theirs = _weights(both, second), _weights(alone, second)
    assert set(ours) == set(theirs)
    assert all(ours[name].equal(theirs[name]) for name in theirs)
    values = [[(m.name, m.value) for m in r.metrics if "seconds" not in m.name] for r in (found, expected)]
    assert values[0] == values[1]


def test_covae_s_encoders_are_trained_further_and_so_not_shared() -> None:
    first = _spec("covae-fig5", "covae")
    stages = list(experiment_of(first).build(first).stages())
    longer = replace(first, params={**first.params, "training": {**first.params["training"], "epochs": 2}})
    assert [s.name for s in stages] == ["deep_cca", "train"]
    assert shared_stages(first, longer, stages) == 0


def test_what_is_measured_otherwise_is_not_trained_again(tmp_path: Path) -> None:
    first = _spec("gmrf-table1", "mvae")
    evaluation = {**first.params["evaluation"], "num_samples": first.params["evaluation"]["num_samples"] + 1}
    second = replace(first, params={**first.params, "evaluation": evaluation})
    store = RunStore(tmp_path)
    execute(first, store)
    found = execute(second, store)
    assert _trained_by(found) == {"train": first.key}
    assert all(value.equal(_weights(store, first)[name]) for name, value in _weights(store, second).items())


def test_other_data_is_trained_on_anew(tmp_path: Path) -> None:
    """A card's dataset can be made anew under one name, with other hashes."""
    first = _spec("sbm-table5", "sbm_vae")
    store = RunStore(tmp_path)
    execute(first, store)
    path = store.directory(first) / "record.json"
    record = Record.from_json(path.read_text())
    other = {name: "0" * 64 if name.endswith("/train") else sha for name, sha in record.data.items()}
    path.write_text(replace(record, data=other).to_json())
    assert not any(_trained_by(execute(_with(first, energy={"epochs": 2}), store)).values())


def test_it_can_be_interrupted_and_continued(tmp_path: Path) -> None:
    first = _spec("sbm-table5", "sbm_vae")
    second = _with(first, energy={"epochs": 3})
    alone, both = RunStore(tmp_path / "alone"), RunStore(tmp_path / "both")
    execute(second, alone)
    execute(first, both)
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) == 3

    with pytest.raises(TrainingStopped, match=r"stage 'energy'"):
        execute(second, both, stop=stop)
    found = execute(second, both)
    assert _trained_by(found)["score"] == first.key
    assert all(value.equal(_weights(alone, second)[name]) for name, value in _weights(both, second).items())


def test_what_is_shared() -> None:
    first = _spec("sbm-table5", "sbm_vae")
    stages = list(experiment_of(first).build(first).stages())
    assert [s.name for s in stages] == ["autoencoders", "score", "energy"]
    assert shared_stages(first, _with(first, energy={"epochs": 9}), stages) == 2
    assert shared_stages(first, _with(first, score={"epochs": 9}), stages) == 1
    assert shared_stages(first, _with(first, autoencoders={"epochs": 9}), stages) == 0
    assert shared_stages(first, replace(first, seed=1), stages) == 0
    model = {**first.params["model"], "gamma": 1.0}
    assert shared_stages(first, replace(first, params={**first.params, "model": model}), stages) == 0
    faster = {**first.params["training"], "optimizer": "adamw"}
    assert shared_stages(first, replace(first, params={**first.params, "training": faster}), stages) == 0


def test_stages_that_later_ones_train_further_are_not_shared() -> None:
    first = _spec("sbm-table5", "sbm_vae")
    other = _with(first, energy={"epochs": 9})
    tuned = [Stage("autoencoders", ("autoencoders.",)), Stage("score", ("score.",))]
    assert shared_stages(first, other, [*tuned, Stage("energy", ("autoencoders.decoders.",))]) == 0
    assert shared_stages(first, other, [*tuned, Stage("energy")]) == 0
    assert shared_stages(first, other, [*tuned, Stage("energy", ("score.average.",))]) == 1
    own = [replace(s, params={**s.params, "model": {**s.params["model"], "module": "mine"}}) for s in (first, other)]
    assert shared_stages(*own, [*tuned, Stage("energy", ("energy.",))]) == 0
    assert shared_stages(first, other, [*tuned, Stage("energy", ("energy.",))]) == 2


@pytest.mark.parametrize("damage", ["none", "weights", "other device", "stacked", "note", "changes", "torch"])
def test_a_run_that_was_altered_or_trained_otherwise_is_passed_over(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _spec("sbm-table5", "sbm_vae")
    second = _with(first, energy={"epochs": 2})
    store = RunStore(tmp_path)
    clean = {**environment("cpu"), "dirty": False}
    monkeypatch.setattr("repro.engine.execute.environment", lambda device: dict(clean))
    execute(first, store)
    folder = store.directory(first)
    note = json.loads((folder / "training.json").read_text())
    if damage == "weights":
        weights = load_file(folder / "weights.safetensors")
        save_file({k: v + 1 for k, v in weights.items()}, folder / "weights.safetensors")
    elif damage == "note":
        (folder / "training.json").write_text("{")
    elif damage == "torch":
        path = folder / "record.json"
        record = Record.from_json(path.read_text())
        path.write_text(replace(record, environment={**record.environment, "versions": {"torch": "1.0"}}).to_json())
    elif damage != "none":
        changed = {"other device": {"device_name": "another"}, "stacked": {"stacked": 3}, "changes": {"dirty": True}}
        note["environment"] |= changed[damage]
        (folder / "training.json").write_text(json.dumps(note))
    assert any(_trained_by(execute(second, store)).values()) is (damage == "none")
