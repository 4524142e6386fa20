"""Half precision where a measurement allows it, stated in the manifest and on the card; else weights as they are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file

from repro.engine.store import RunStore, file_sha256, write_atomically
from repro.errors import RunError
from repro.hub.load import load_model
from repro.hub.manifest import read_manifest
from repro.hub.package import ship
from repro.hub.registry import models
from repro.hub.rounding import Rounded, rounded, tolerance
from repro.records import Record, RunSpec
from tests.support.experiments import build_model
from tests.support.weights import NAME

if TYPE_CHECKING:
    from tests.support.weights import Shelf

pytest_plugins = ["tests.support.hub"]

METRIC = models()[NAME].headline


class Measure:
    """Evaluates a run directory: the headline metric is what is said of the weights' type."""

    def __init__(self, record: Record, **values: float) -> None:
        self.record, self.values = record, values
        self.asked: list[str] = []

    def __call__(self, spec: RunSpec, store: RunStore, *, device: str) -> Record:
        path = store.directory(spec) / "weights.safetensors"
        note = json.loads((path.parent / "training.json").read_text())
        assert (note["key"], note["weights_sha256"], device) == (spec.key, file_sha256(path), "cpu")
        (dtype,) = {str(t.dtype).removeprefix("torch.") for t in load_file(path).values()}
        self.asked.append(dtype)
        metrics = [replace(m, value=self.values[dtype]) if m.name == METRIC else m for m in self.record.metrics]
        return replace(self.record, metrics=metrics, weights_sha256=file_sha256(path))


def trained(shelf: Shelf, value: float = 1.0) -> Record:
    """A run directory whose headline metric has a value, with the note of its training."""
    record = shelf.record()
    metrics = [replace(m, value=value) if m.name == METRIC else m for m in record.metrics]
    record = replace(record, metrics=metrics)
    folder = shelf.store.directory(record.spec)
    (folder / "record.json").write_text(record.to_json())
    note = {"key": record.spec.key, "weights_sha256": record.weights_sha256, "history": [], "environment": {}}
    (folder / "training.json").write_text(json.dumps(note))
    return record


def found(shelf: Shelf, measure: Measure) -> Rounded | None:
    return rounded(measure.record, METRIC, shelf.store, shelf.figures, measure=measure)


def test_the_first_type_that_keeps_the_metric_is_taken(shelf: Shelf) -> None:
    record = trained(shelf)
    for values, expected, asked in (
        ({"float16": 1.004, "bfloat16": 1.0}, "float16", ["float16"]),
        ({"float16": 1.006, "bfloat16": 0.996}, "bfloat16", ["float16", "bfloat16"]),
        ({"float16": 1.006, "bfloat16": 0.99}, None, ["float16", "bfloat16"]),
    ):
        measure = Measure(record, **values)
        lower = found(shelf, measure)
        assert measure.asked == asked
        assert (lower and lower.dtype) == expected
        if lower is not None:
            assert lower.fields() == {"dtype": expected, "exact": 1.0, "tolerance": 0.005}
            assert lower.record.metric(METRIC).value == values[lower.dtype]
    assert sorted(p.name for p in shelf.store.directory(record.spec).iterdir()) == [
        "record.json",
        "training.json",
        "weights.safetensors",
    ]


def test_seeds_that_differ_by_more_allow_more(shelf: Shelf) -> None:
    record = trained(shelf)
    assert tolerance(record, METRIC, shelf.figures) == 0.005
    for seed, value in enumerate((1.0, 1.1, 1.2)):
        spec = replace(record.spec, seed=seed)
        metrics = [replace(m, value=value) if m.name == METRIC else m for m in record.metrics]
        path = shelf.figures / spec.paper / "records" / f"{spec.key}.json"
        write_atomically(path, replace(record, spec=spec, metrics=metrics).to_json())
    assert tolerance(record, METRIC, shelf.figures) == pytest.approx(0.1)
    assert found(shelf, Measure(record, float16=1.09)) is not None


def shipped(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, **values: float) -> Path:
    record = trained(shelf)
    known = shelf.figures / record.spec.paper / "records" / f"{record.spec.key}.json"
    write_atomically(known, record.to_json())
    measure = Measure(record, **values)

    def measured(*arguments: Any) -> Rounded | None:
        return rounded(*arguments, measure=measure)

    monkeypatch.setattr("repro.hub.package.rounded", measured)
    return ship(NAME, shelf.store, figures=shelf.figures, half=True)


def test_a_model_ships_in_half_precision(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shipped(shelf, monkeypatch, float16=1.001)
    entry, spec = read_manifest()[NAME], models()[NAME].spec()
    assert entry.value == 1.001
    assert entry.rounded == {"dtype": "float16", "exact": 1.0, "tolerance": 0.005}
    assert entry.committed == {"weights": "rounded", "value": 1.0}
    assert entry.profile == "paper"
    before = load_file(shelf.store.directory(spec) / "weights.safetensors")
    model = load_model(NAME)
    assert all(torch.equal(v, before[k].half().float()) for k, v in model.state_dict().items())
    assert (
        entry.bytes["weights.safetensors"] < 0.6 * (shelf.store.directory(spec) / "weights.safetensors").stat().st_size
    )
    card = " ".join((folder / "README.md").read_text().split())
    assert "The weights are stored in float16, and all metrics here were measured with them so." in card
    assert "the first is 1; a change of up to 0.005 was allowed" in card
    assert "another training" not in card
    record = Record.from_json((folder / "record.json").read_text(), "record.json")
    assert record.weights_sha256 == file_sha256(folder / "weights.safetensors")
    load_model(folder)


def test_a_model_that_half_precision_changes_ships_as_it_is(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shipped(shelf, monkeypatch, float16=1.1, bfloat16=0.9)
    entry = read_manifest()[NAME]
    assert (entry.value, entry.rounded, entry.committed["weights"]) == (1.0, {}, "same")
    assert "stored in" not in (folder / "README.md").read_text()


def test_a_measurement_from_a_changed_checkout_does_not_ship(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    dirty = replace(trained(shelf), environment=trained(shelf).environment | {"dirty": True})
    lower = Rounded(dirty, b"x", "float16", 1.0, 0.1)
    monkeypatch.setattr("repro.hub.package.rounded", lambda *arguments: lower)
    with pytest.raises(RunError, match="the checkout has changes"):
        ship(NAME, shelf.store, figures=shelf.figures, half=True)
    assert not shelf.weights.exists() or list(shelf.weights.iterdir()) == []


def test_the_package_stays_small(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.ship()
    other = "gmrf_mcvae/copula-mvae"
    monkeypatch.setattr("repro.hub.package.MOST_BYTES_IN_ALL", 3_000_000)
    with pytest.raises(RunError, match=r"the package's models have 4\.\d MB, at most 3 MB ship"):
        shelf.ship(other)
    assert other not in read_manifest()
    shelf.ship()  # itself again takes no more


@pytest.mark.parametrize("name", ["mrf_mvae/skewed_copula-almrf", "covae/tcga_brca-jmvae"])
def test_any_recorded_row_ships_and_loads(shelf: Shelf, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repro.hub.package.MOST_BYTES", 20_000_000)  # networks of the paper's size
    shelf.record(name)
    module = ship(name, shelf.store, figures=shelf.figures)
    assert json.loads((module / "config.json").read_text())["format"] == "repro-weights/2"
    model, spec = load_model(name), models()[name].spec()
    before = load_file(shelf.store.directory(spec) / "weights.safetensors")
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    first = next(iter(model.modalities))
    joint = model.generate(2, generator=torch.Generator().manual_seed(0))
    assert set(model.generate(1, given={first: joint[first]})) == set(model.modalities)


def test_what_is_not_published_says_what_trains_it(shelf: Shelf) -> None:
    with pytest.raises(ValueError, match=r"gmrf_mcvae/polymnist does not ship yet; `repro run gmrf_mcvae/"):
        load_model("gmrf_mcvae/polymnist")


def test_what_does_not_ship_is_read_from_the_reader_s_own_run(shelf: Shelf) -> None:
    name = "gmrf_mcvae/copula-sigmoid"
    with pytest.raises(
        ValueError, match=r"copula-sigmoid does not ship yet; `repro run gmrf_mcvae/table1-ablations --"
    ):
        load_model(name)
    shelf.record(name)
    path = shelf.store.directory(models()[name].spec()) / "weights.safetensors"
    stored, model = load_file(path), load_model(name)
    assert not model.training
    assert all(torch.equal(v, stored[k]) for k, v in model.state_dict().items())
    with pytest.raises(ValueError, match="copula-sigmoid does not ship yet"):
        load_model(name, revision="main")
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"copula-sigmoid: .* has sha256 \w+, its record says"):
        load_model(name)
    path.unlink()
    with pytest.raises(ValueError, match=r"copula-sigmoid: .* cannot be read \(No such file"):
        load_model(name)


def test_what_is_too_large_to_ship_says_so_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path))
    name = next(n for n, m in models().items() if m.half_megabytes)
    with pytest.raises(ValueError, match=rf"^{name} has [0-9.]+ MB in half precision, more than ships") as caught:
        load_model(name)
    assert "make push-weights HF_REPO=user/name" in str(caught.value)
    assert "repro run " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n, m in models().items() if not m.block])
def test_the_registry_states_the_size_of_what_is_too_large_to_ship(name: str) -> None:
    model = models()[name]
    for spec in [s for s in model.offered() if s.profile != "paper"] or [model.spec()]:
        state = build_model(spec).state_dict().values()
        size = sum(v.numel() * (2 if v.is_floating_point() else v.element_size()) for v in state) / 1e6
        if size > 4:
            assert model.half_megabytes.get(spec.profile) == pytest.approx(size, abs=0.005)
        else:
            assert spec.profile not in model.half_megabytes
