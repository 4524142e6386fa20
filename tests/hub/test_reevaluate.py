"""From weights to results: cells measured anew from published weights, beside the record that came with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from repro.cli.main import main
from repro.engine.execute import execute
from repro.engine.store import file_sha256, read_record, write_atomically
from repro.hub import package as hub_package
from repro.hub import reevaluate as reevaluation
from repro.hub import registry as hub_models
from repro.hub.manifest import read_manifest, write_manifest
from repro.hub.package import contents_of
from repro.hub.reevaluate import compare
from repro.papers.gmrf_mcvae.copula.experiment import copula_spec
from repro.records import Metric, Record
from tests.support.weights import NAME

if TYPE_CHECKING:
    from tests.support.weights import Shelf

pytest_plugins = ["tests.support.hub"]

Capture = pytest.CaptureFixture[str]
COMMAND = ["run", "gmrf-fig2", "--profile", "smoke", "--from-weights", "--executor", "inline", "--device", "cpu"]


@pytest.fixture
def smoke(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> Record:
    """A model of the smoke profile, executed for good and put into the package; the other rows have records alone."""
    known = {m: copula_spec(m, 0, "smoke") for m in ("gmrf_mcvae", "mvae", "mmvae", "mopoe", "mmvae_plus")}
    models = {NAME: replace(hub_models.models()[NAME], spec=lambda: known["gmrf_mcvae"])}
    for module in (hub_models, hub_package):
        monkeypatch.setattr(module, "models", lambda: models)
    monkeypatch.setattr("repro.hub.package.sound_record", lambda spec, store: store.record(spec))
    record = execute(known["gmrf_mcvae"], shelf.store)
    contents, entry = contents_of(NAME, shelf.store, shelf.figures)
    for file, content in contents.items():
        write_atomically(shelf.weights / NAME / file, content if isinstance(content, bytes) else content.read_bytes())
    write_manifest({NAME: entry})
    samples = (shelf.store.directory(record.spec) / "samples.safetensors").read_bytes()
    for method, spec in known.items():
        if method != "gmrf_mcvae":
            path = shelf.figures / "gmrf_mcvae" / "records" / f"{spec.key}.json"
            write_atomically(path, replace(record, spec=spec).to_json())
            write_atomically(path.with_suffix(".safetensors"), samples)
    return record


@pytest.mark.slow
def test_a_table_is_measured_anew(
    smoke: Record, shelf: Shelf, monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    monkeypatch.setenv("REPRO_RESULTS", str(results))
    recorded = {p: p.read_bytes() for p in shelf.figures.rglob("*") if p.is_file()}
    trained = {p: p.read_bytes() for p in shelf.store.directory(smoke.spec).iterdir()}
    monkeypatch.setattr("repro.engine.execute.train", None)  # nothing is trained
    assert main(COMMAND) == 0
    printed = capsys.readouterr()
    count = len(smoke.metrics)
    assert (
        f"{NAME}: {count} metrics equal to their record within 0.001 of the value + 0.001 of its unit\n" in printed.out
    )
    assert printed.out.count("its weights are not published, its record was taken over") == 4
    folder = results / "from-weights" / "gmrf_mcvae" / "smoke"
    assert sorted(p.name for p in folder.iterdir()) == ["fig2.pdf", "fig2.png"]
    assert not (results / "gmrf_mcvae").exists()
    assert {p: p.read_bytes() for p in shelf.figures.rglob("*") if p.is_file()} == recorded
    again = read_record(shelf.store.root / "from-weights" / "gmrf_mcvae" / smoke.spec.key / "record.json", smoke.spec)
    assert again is not None
    assert (again.weights_sha256, again.training_seconds) == (smoke.weights_sha256, smoke.training_seconds)
    assert {p: p.read_bytes() for p in shelf.store.directory(smoke.spec).iterdir()} == trained

    # A record that says something else is found out.
    entry = read_manifest()[NAME]
    changed = [replace(m, value=2 * m.value) if "sliced/mean" in m.name else m for m in smoke.metrics]
    path = shelf.weights / NAME / "record.json"
    path.write_text(replace(smoke, metrics=changed).to_json())
    write_manifest({NAME: replace(entry, sha256={**entry.sha256, "record.json": file_sha256(path)})})
    assert main(COMMAND) == 1
    printed = capsys.readouterr()
    assert f"{NAME}: DIFFERS from its record by more than" in printed.out
    assert f"1 of 1 models differ from their records: {NAME}" in printed.err
    path.write_text(smoke.to_json().replace("smoke", "quick"))
    assert main(COMMAND) == 1
    assert f"weights/{NAME}/record.json is not what the manifest states" in capsys.readouterr().err


def test_what_cannot_be_measured_anew(shelf: Shelf, capsys: Capture) -> None:
    assert main(["run", "gmrf-table1", "--from-weights"]) == 1
    assert "no weights of gmrf_mcvae/table1 (paper) are published" in capsys.readouterr().err
    assert main(["run", "gmrf-table1", "--from-weights", "--force"]) == 2
    assert "--force has no meaning with --from-weights, which trains nothing" in capsys.readouterr().err
    assert main(["run", "gmrf-tabel1", "--from-weights"]) == 2
    assert "did you mean" in capsys.readouterr().err


def record(values: dict[str, float], device: str = "cpu") -> Record:
    metrics = [Metric(name, value, "1", 1, "p") for name, value in values.items()]
    return Record(copula_spec("mvae", 0, "smoke"), metrics, {"device": device}, {}, "0" * 64, 1.0, 1.0)


def test_the_tolerance() -> None:
    old = record({"a": 2.0, "b": 0.0})
    assert reevaluation.RELATIVE == reevaluation.ABSOLUTE == 1e-3
    assert compare("x", record({"a": 2.0 + 2.9e-3, "b": -0.9e-3}), old).equal
    assert not compare("x", record({"a": 2.0 + 3.1e-3, "b": 0.0}), old).equal
    found = compare("x", record({"a": 2.0, "b": 1.1e-3}), old)
    assert not found.equal
    assert "b is 0.0011, not 0" in str(found)
    for values in ({"a": 2.0}, {"a": 2.0, "b": 0.0, "c": 1.0}):
        found = compare("x", record(values), old)
        assert not found.equal
        assert "metrics in one of them only" in str(found)
    assert "recorded on cpu, whose draws are others" in str(compare("x", record({"a": 2.0, "b": 0.0}, "cuda:0"), old))


@pytest.mark.slow
def test_all_that_ship_are_measured_anew(
    smoke: Record, monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path
) -> None:
    monkeypatch.setenv("REPRO_RESULTS", str(tmp_path / "results"))
    own = replace(hub_models.models()[NAME], artifact="gmrf_mcvae/fig2")
    monkeypatch.setattr(reevaluation, "models", lambda: {NAME: own})
    assert reevaluation.published_artifacts() == [("gmrf_mcvae/fig2", "smoke")]
    command = ["run", "--from-weights", "--all", "--executor", "inline", "--device", "cpu"]
    assert main(command) == 0
    assert f"{NAME}: {len(smoke.metrics)} metrics equal to their record" in capsys.readouterr().out
    assert main([*command[:3], "gmrf-fig2"]) == 2
    assert "--all or gmrf-fig2, not both" in capsys.readouterr().err
    assert main(["run", "gmrf-table2", "--from-weights"]) == 1
    assert "no weights of gmrf_mcvae/table2 (paper) are published; `repro weights list`" in capsys.readouterr().err
