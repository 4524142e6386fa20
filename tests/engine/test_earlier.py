"""A run begins with stages that another has trained, and is bit for bit what it is when it trains them itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from repro.artifacts.inventory import find
from repro.artifacts.render import plan, unique
from repro.cli.main import main
from repro.engine.earlier import begin_with_earlier_stages, shared_stages
from repro.engine.environment import environment
from repro.engine.execute import execute
from repro.engine.store import RunStore
from repro.model import Stage
from repro.papers import experiment_of
from repro.records import Record, RunSpec, provenance
from repro.training import TrainingStopped
from repro.training.checkpoints import CheckpointError


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


def _shared(spec: RunSpec, store: RunStore) -> Record:
    begin_with_earlier_stages(spec, store)
    return execute(spec, store)


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Runs of a clean commit, whatever the checkout is."""
    found = {**environment("cpu"), "dirty": False}
    for module in ("execute", "earlier"):
        monkeypatch.setattr(f"repro.engine.{module}.environment", lambda device: dict(found))
    return found


@pytest.mark.parametrize(
    ("artifact", "method", "last"),
    [
        ("sbm-table5", "sbm_vae", "energy"),
        ("sbm-table5", "sbm_rae", "energy"),
        ("sbm-fig3", "sbm_vae_t", "score"),
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
    found = _shared(second, both)
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
    found = _shared(second, store)
    assert _trained_by(found) == {"train": first.key}
    assert all(value.equal(_weights(store, first)[name]) for name, value in _weights(store, second).items())


def test_without_being_asked_for_nothing_is_shared(tmp_path: Path) -> None:
    first = _spec("sbm-table5", "sbm_vae")
    store = RunStore(tmp_path)
    execute(first, store)
    assert not any(_trained_by(execute(_with(first, energy={"epochs": 2}), store)).values())


def test_a_chain_names_who_trained_each_stage_and_provenance_their_commits(
    tmp_path: Path, clean: dict[str, Any]
) -> None:
    first = _spec("sbm-table5", "sbm_vae")
    store = RunStore(tmp_path)
    clean["commit"] = "a" * 40
    execute(first, store)
    clean["commit"] = "b" * 40
    second = _with(first, energy={"epochs": 2})
    _shared(second, store)
    clean["commit"] = "c" * 40
    evaluation = {**second.params["evaluation"], "steps_samples": 7}
    third = _shared(replace(second, params={**second.params, "evaluation": evaluation}), store)
    assert _trained_by(third) == {"autoencoders": first.key, "score": first.key, "energy": second.key}
    assert "commit aaaaaaa, bbbbbbb, ccccccc;" in provenance([third])
    assert "1 record; with stages that other runs have trained in 1 of 1;" in provenance([third])
    bare = [{k: v for k, v in e.items() if k != "commit"} for e in third.history]
    assert "commit ccccccc, unknown;" in provenance([replace(third, history=bare)])


def test_a_record_with_stages_of_changed_code_is_one_with_changes(tmp_path: Path, clean: dict[str, Any]) -> None:
    first = _spec("sbm-table5", "sbm_vae")
    store = RunStore(tmp_path)
    clean["dirty"] = True
    execute(first, store)
    second = _with(first, energy={"epochs": 2})
    assert begin_with_earlier_stages(second, store) == first.key
    clean["dirty"] = False  # committed, or put aside, before it goes on
    found = execute(second, store)
    assert found.environment["training"]["dirty"] is True
    assert {e["dirty"] for e in found.history if "trained_by" in e} == {True}
    assert "with changes" in provenance([found])


def test_what_another_process_has_trained_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _spec("gmrf-table1", "mvae")
    evaluation = {**first.params["evaluation"], "num_samples": first.params["evaluation"]["num_samples"] + 1}
    second, store = replace(first, params={**first.params, "evaluation": evaluation}), RunStore(tmp_path)
    execute(first, store)

    @contextmanager
    def after_another(spec: RunSpec, store: RunStore) -> Iterator[None]:
        execute(spec, store)
        yield

    monkeypatch.setattr("repro.engine.earlier.acquired", after_another)
    assert begin_with_earlier_stages(second, store) == ""
    assert not (store.directory(second) / "checkpoint.safetensors").exists()
    record = store.record(second)
    assert record is not None
    assert not any(_trained_by(record).values())


def test_a_log_has_no_epochs_that_the_checkpoint_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _spec("sbm-table5", "sbm_vae")
    second, store = _with(first, energy={"epochs": 2}), RunStore(tmp_path)
    execute(first, store)

    def full(*arguments: Any) -> None:
        raise CheckpointError("no space left on device")

    monkeypatch.setattr("repro.engine.earlier.save_checkpoint", full)
    with pytest.raises(CheckpointError):
        begin_with_earlier_stages(second, store)
    assert not (store.directory(second) / "log.jsonl").exists()


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

    assert begin_with_earlier_stages(second, both) == first.key
    with pytest.raises(TrainingStopped, match=r"stage 'energy'"):
        execute(second, both, stop=stop)
    assert begin_with_earlier_stages(second, both) == ""
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


def test_stages_that_later_ones_train_further_are_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    first = _spec("sbm-table5", "sbm_vae")
    other = _with(first, energy={"epochs": 9})
    tuned = [Stage("autoencoders", ("autoencoders.",)), Stage("score", ("score.",))]
    assert shared_stages(first, other, [*tuned, Stage("energy", ("autoencoders.decoders.",))]) == 0
    assert shared_stages(first, other, [*tuned, Stage("energy")]) == 0
    assert shared_stages(first, other, [*tuned, Stage("energy", ("score.average.",))]) == 1
    assert shared_stages(first, other, [*tuned, Stage("energy", ("energy.",))]) == 2
    monkeypatch.setattr(type(experiment_of(first)), "foreign", True)  # a reader's own model
    assert shared_stages(first, other, [*tuned, Stage("energy", ("energy.",))]) == 0


def _changed_record(folder: Path, **fields: Any) -> None:
    path = folder / "record.json"
    path.write_text(replace(Record.from_json(path.read_text()), **fields).to_json())


def _changed_note(folder: Path, **fields: Any) -> None:
    path = folder / "training.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def _other_weights(folder: Path) -> None:
    path = folder / "weights.safetensors"
    save_file({k: v + 1 for k, v in load_file(path).items()}, path)


def _other_data(folder: Path) -> None:
    record = Record.from_json((folder / "record.json").read_text())
    _changed_record(folder, data={n: "0" * 64 if n.endswith("/train") else sha for n, sha in record.data.items()})


def _trained_in(folder: Path, **changed: Any) -> None:
    note = json.loads((folder / "training.json").read_text())
    _changed_note(folder, environment={**note["environment"], **changed})


def _measured_in(folder: Path, **changed: Any) -> None:
    record = Record.from_json((folder / "record.json").read_text())
    _changed_record(folder, environment={**record.environment, **changed})


DAMAGES: dict[str, Callable[[Path], object]] = {
    "none": lambda folder: None,
    "other weights": _other_weights,
    "no weights": lambda folder: (folder / "weights.safetensors").unlink(),
    "other data": _other_data,
    "another device": lambda folder: _trained_in(folder, device_name="another"),
    "seeds together": lambda folder: _trained_in(folder, stacked=3),
    "changes": lambda folder: _trained_in(folder, dirty=True),
    "a wheel": lambda folder: _trained_in(folder, dirty=None),
    "another torch": lambda folder: _measured_in(folder, versions={"torch": "1.0"}),
    "more threads": lambda folder: _measured_in(folder, threads=8),
    "half a note": lambda folder: (folder / "training.json").write_text("{"),
    "no history": lambda folder: _changed_note(folder, history=[{"seconds": 0.0}]),
    "no environment": lambda folder: _changed_note(folder, environment=None),
    "half a record": lambda folder: (folder / "record.json").write_text("{"),
    "a foreign specification": lambda folder: (folder / "spec.json").write_text('{"paper": 1}'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_run_that_was_altered_or_trained_otherwise_is_passed_over(damage: str, tmp_path: Path) -> None:
    first = _spec("sbm-table5", "sbm_vae")
    store = RunStore(tmp_path)
    execute(first, store)
    DAMAGES[damage](store.directory(first))
    found = begin_with_earlier_stages(_with(first, energy={"epochs": 2}), store)
    assert found == (first.key if damage == "none" else "")


def test_a_neighbour_of_another_version_s_settings_is_passed_over(tmp_path: Path) -> None:
    first = _spec("sbm-table5", "sbm_vae")
    second = _with(first, energy={"epochs": 2})
    store = RunStore(tmp_path)
    execute(first, store)
    odd = replace(first, params={**first.params, "training": {"momentum": 1, "stages": None}})
    folder = tmp_path / first.paper / odd.key
    shutil.copytree(store.directory(first), folder)
    (folder / "spec.json").write_text(json.dumps(odd.to_dict()))
    assert begin_with_earlier_stages(second, store) == first.key


def test_the_command_shares_where_it_is_asked_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = _spec("gmrf-table1", "mvae")
    evaluation = {**first.params["evaluation"], "num_samples": first.params["evaluation"]["num_samples"] + 1}
    earlier = replace(first, params={**first.params, "evaluation": evaluation})
    execute(earlier, RunStore(tmp_path))
    command = ["run", "gmrf-table1", "--profile", "smoke", "--key", first.key, "--runs", str(tmp_path)]
    for refused in (["--force"], ["--shards", "2"], ["--processes", "2"]):
        assert main([*command, "--share-stages", *refused]) == 2
        assert "one process each, and not with --force" in capsys.readouterr().err
    assert main([*command, "--share-stages"]) == 0
    assert f"begins with stages that {earlier.key} has trained" in capsys.readouterr().err
    record = RunStore(tmp_path).record(first)
    assert record is not None
    assert _trained_by(record) == {"train": earlier.key}


def test_the_command_says_why_nothing_is_shared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _spec("gmrf-table1", "mvae")
    command = [
        "run",
        "gmrf-table1",
        "--profile",
        "smoke",
        "--key",
        first.key,
        "--runs",
        str(tmp_path),
        "--share-stages",
    ]
    monkeypatch.setenv("WORLD_SIZE", "2")  # torchrun's, started by hand
    assert main(command) == 2
    assert "one process each, and not with --force" in capsys.readouterr().err
    monkeypatch.delenv("WORLD_SIZE")

    def full(*arguments: Any) -> str:
        raise CheckpointError("no space left on device")

    monkeypatch.setattr("repro.cli.executing.begin_with_earlier_stages", full)
    assert main(command) == 0
    said = capsys.readouterr().err
    assert f"{first.label}: shares no stages: no space left on device\n" in said
    assert "no further run begins with stages that another has trained" in said


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("one", [True, False])
def test_the_command_shares_only_where_it_is_asked_to(
    asked: bool, one: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = _spec("gmrf-fig6", "mvae")
    evaluation = {**first.params["evaluation"], "num_samples": first.params["evaluation"]["num_samples"] + 1}
    earlier, store = replace(first, params={**first.params, "evaluation": evaluation}), RunStore(tmp_path / "runs")
    execute(earlier, store)
    command = ["run", "gmrf-fig6", "--profile", "smoke", "--executor", "inline", "--seeds", "1"]
    command += ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    command += ["--key", first.key] * one + ["--share-stages"] * asked
    assert main(command) == 0
    assert ("begins with stages that" in capsys.readouterr().err) is asked
    record = store.record(first)
    assert record is not None
    assert _trained_by(record) == {"train": earlier.key if asked else ""}
