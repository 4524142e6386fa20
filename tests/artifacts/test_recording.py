"""Putting runs on record: what is written, what is redrawn, and what is refused."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from repro.artifacts.gallery import gallery, readme
from repro.artifacts.inventory import find
from repro.artifacts.render import plan, record_path, unique
from repro.cli.main import main
from repro.engine.store import RunStore, read_record, write_atomically
from repro.records import Metric, Record, RunSpec

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ROOT / "figures"
WEIGHTS = b"weights of a run"

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what is recorded, with the README beside it; the folder of figures."""
    shutil.copytree(FIGURES, tmp_path / "figures")
    shutil.copy(ROOT / "README.md", tmp_path / "README.md")
    return tmp_path / "figures"


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


def again(spec: RunSpec, store: RunStore, factor: float = 2.0, **environment: object) -> None:
    """A run directory of a recorded run whose metrics came out otherwise."""
    record = read_record(record_path(spec, FIGURES), spec)
    assert record is not None
    known = {**record.environment, **environment}
    changed: Record = replace(
        record,
        metrics=[Metric(**{**vars(m), "value": factor * m.value}) for m in record.metrics],
        environment=known,
        weights_sha256=hashlib.sha256(WEIGHTS).hexdigest(),
    )
    folder = store.directory(spec)
    write_atomically(folder / "weights.safetensors", WEIGHTS)
    write_atomically(folder / "record.json", changed.to_json())
    samples = record_path(spec, FIGURES, "safetensors")
    if samples.exists():
        write_atomically(folder / "samples.safetensors", samples.read_bytes())


def tree(folder: Path) -> dict[Path, bytes]:
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def record(checkout: Path, store: RunStore, name: str = "gmrf-table1", *options: str) -> int:
    return main(["record", name, "--runs", str(store.root), "--figures", str(checkout), *options])


@pytest.mark.slow
def test_what_the_records_feed_is_redrawn_and_nothing_else(checkout: Path, store: RunStore, capsys: Capture) -> None:
    before, page = tree(checkout), (checkout.parent / "README.md").read_text()
    specs = unique(plan(find("gmrf-table1"), "paper"))
    again(specs[0], store)  # one run alone; the others are on record
    assert record(checkout, store) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "1 record of gmrf_mcvae/table1 (paper)"
    assert out[1] == "gmrf_mcvae/table1 (paper): table1.md, table1.tex"
    after = tree(checkout)
    assert set(after) == set(before)
    changed = {p for p in after if after[p] != before[p]}
    tables = {Path(p) for f in ("gmrf_mcvae/table1", "mrf_mvae/table2") for p in (f"{f}.md", f"{f}.tex")}
    pictures = {Path(f"gmrf_mcvae/overview.{kind}") for kind in ("png", "pdf")}  # with the table's distances
    assert changed - {Path("claims.md")} == tables | pictures | {record_path(specs[0], Path())}
    assert after[record_path(specs[0], Path())] == (store.directory(specs[0]) / "record.json").read_bytes()
    text = (checkout.parent / "README.md").read_text()
    assert text != page
    assert text == readme(text, checkout)
    assert (checkout / "README.md").read_text() == gallery(checkout)


@pytest.mark.slow
def test_ablations_are_quoted_in_the_table_above_them(checkout: Path, store: RunStore, capsys: Capture) -> None:
    before = tree(checkout)
    again(unique(plan(find("gmrf-table1-ablations"), "paper"))[0], store)
    assert record(checkout, store, "gmrf-table1-ablations") == 0
    changed = {p.stem for p in before if tree(checkout)[p] != before[p] and p.suffix == ".md"}
    assert {"table1-ablations", "table1", "table2"} <= changed


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"dirty": True}, "was run from a checkout with changes; run it from a clean commit"),
        ({"dirty": None, "commit": None}, "was run from a checkout with changes"),
        ({"commit": None}, "does not say of which commit it is"),
        ({"training": {"dirty": True}}, "was run from a checkout with changes"),
    ],
)
def test_runs_that_are_of_no_clean_commit_are_refused(
    environment: dict[str, object], message: str, checkout: Path, store: RunStore, capsys: Capture
) -> None:
    specs = unique(plan(find("gmrf-table1"), "paper"))
    before = tree(checkout.parent)
    again(specs[0], store)
    again(specs[1], store, **environment)
    assert record(checkout, store) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert specs[1].label in error
    assert message in error
    assert {p: b for p, b in tree(checkout.parent).items() if p.parts[0] != "runs"} == before


def test_other_weights_damaged_records_and_no_runs_are_refused(
    checkout: Path, store: RunStore, capsys: Capture
) -> None:
    before = tree(checkout)
    assert record(checkout, store) == 1
    assert "has no run of gmrf_mcvae/table1 (paper) to record; they are on record already" in capsys.readouterr().err
    assert record(checkout, store, "gmrf-table2") == 1
    assert "lacks the record of" in capsys.readouterr().err
    assert record(checkout, store, "gmrf-table1", "--profile", "smoke") == 2
    assert "nothing of the smoke profile is recorded" in capsys.readouterr().err
    spec = unique(plan(find("gmrf-table1"), "paper"))[0]
    again(spec, store)
    (store.directory(spec) / "weights.safetensors").write_bytes(b"others")
    assert record(checkout, store) == 1
    assert "not what the record of" in capsys.readouterr().err
    again(spec, store)
    assert tree(checkout) == before
    path = record_path(spec, checkout)
    path.write_text(path.read_text().replace("seconds", "Seconds", 1))
    altered = tree(checkout)
    assert record(checkout, store) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert tree(checkout) == altered
