"""Putting runs on record: what is written, what is redrawn, and what is refused."""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from repro.artifacts.gallery import gallery, readme
from repro.artifacts.inventory import find
from repro.artifacts.render import divergence_path, plan, record_path, unique
from repro.cli.main import main
from repro.engine.local import Failure
from repro.engine.store import RunStore, read_record, write_atomically
from repro.records import Divergence, Metric, Record, RunSpec

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


def diverges(spec: RunSpec, store: RunStore, dirty: bool = False) -> None:
    """A run directory of a run whose training diverged."""
    found = Divergence(
        spec, "epoch 1 of 40: the loss is not finite ({'kl': nan})", {"commit": "a" * 40, "dirty": dirty}
    )
    write_atomically(store.directory(spec) / "diverged.json", found.to_json())


def test_that_a_training_diverged_is_recorded_and_said_in_its_cells_until_it_has_a_record(
    checkout: Path, store: RunStore, capsys: Capture
) -> None:
    (spec,) = plan(find("compare-polymnist"), "quick")["mvae"]
    record_path(spec, checkout).unlink()
    diverges(spec, store, dirty=True)
    before = tree(checkout)
    assert record(checkout, store, "compare-polymnist", "--profile", "quick") == 1
    assert "diverged in a checkout with changes; run it from a clean commit" in capsys.readouterr().err
    assert tree(checkout) == before
    diverges(spec, store)
    assert record(checkout, store, "compare-polymnist", "--profile", "quick") == 0
    assert capsys.readouterr().out.startswith(
        "0 records of compare/polymnist (quick), and of 1 that training diverged\n"
    )
    note = divergence_path(spec, checkout)
    assert note.read_bytes() == (store.directory(spec) / "diverged.json").read_bytes()
    text = (checkout / "compare" / "quick" / "polymnist.md").read_text()
    assert "Training diverged, so that there are no values: mvae, seed 0 (epoch 1 of 40: the loss is not finite" in text
    row = next(line for line in text.splitlines() if line.startswith("| MVAE "))
    (footnote,) = set(re.findall(r"\[\d+\]", row))
    assert f"{footnote} diverged" in text.replace("\\", "")
    again(spec, store)  # another version of the package trains it
    (store.directory(spec) / "diverged.json").unlink()
    assert record(checkout, store, "compare-polymnist", "--profile", "quick") == 0
    assert not note.exists()
    assert "diverged" not in (checkout / "compare" / "quick" / "polymnist.md").read_text()


def test_a_table_with_a_run_that_diverges_is_written_and_the_command_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    specs, store = unique(plan(find("compare-polymnist"), "quick", None, "auto")), RunStore(tmp_path / "runs")
    victim = next(s for s in specs if s.method == "mvae")
    known = unique(plan(find("compare-polymnist"), "quick"))
    for planned, spec in zip(known, specs, strict=True):
        if spec != victim:
            again(planned, store, 1.0)
            if spec != planned:  # float32 in place of bfloat16, on a machine without its units
                found = store.record(planned)
                assert found is not None
                write_atomically(store.directory(spec) / "record.json", replace(found, spec=spec).to_json())

    def diverging(specs: list[RunSpec], store: RunStore, **options: object) -> list[Failure]:
        assert list(specs) == [victim]
        diverges(victim, store)
        return [Failure(victim, "epoch 1 of 40: the loss is not finite ({'kl': nan})")]

    monkeypatch.setattr("repro.cli.executing.run_all", diverging)
    where = ["--runs", str(store.root), "--results", str(tmp_path / "results"), "--device", "cpu", "--long"]
    assert main(["run", "compare-polymnist", "--profile", "quick", *where]) == 1
    said = capsys.readouterr()
    assert "Training diverged, so that there are no values: mvae, seed 0" in said.out
    assert said.err.rstrip().endswith("epoch 1 of 40: the loss is not finite ({'kl': nan})")
    assert (tmp_path / "results" / "compare" / "diverged" / f"{victim.key}.json").exists()


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
