"""A fifth paper from a folder of its own, through the command line to a rendered table, figure and claim."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import repro

FOLDER = Path(__file__).parents[1] / "support" / "fifth_paper"


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """An environment in which a distribution is installed whose entry point names the folder of the paper."""
    site = tmp_path / "site"
    metadata = site / "fifth_papers-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: fifth-papers\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[repro.papers]\nfifth = fifth_paper\n")
    (site / "fifth_paper").symlink_to(FOLDER)
    path = os.pathsep.join([str(site), str(Path(repro.__file__).parents[1])])
    folders = {"REPRO_RUNS": str(tmp_path / "runs"), "REPRO_RESULTS": str(tmp_path / "results")}
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | folders


def call(environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "-m", "repro", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_listed_run_drawn_and_cited_as_the_others_are(installed: dict[str, str], tmp_path: Path) -> None:
    assert "fifth/table1" in call(installed, "list", "fifth")
    assert "to run" in call(installed, "run", "fifth-table1", "--dry-run")
    call(installed, "run", "fifth-table1", "--workers", "2", "--device", "cpu")
    call(installed, "run", "fifth-fig1", "--device", "cpu")  # of the same runs
    folder = tmp_path / "results" / "fifth"
    assert {p.name for p in folder.iterdir() if p.is_file()} == {
        f"{n}" for n in ("table1.md", "table1.tex", "fig1.pdf", "fig1.png")
    }
    text = (folder / "table1.md").read_text()
    assert "seeds 0, 1; 2 records" in text
    assert "| 0.5" in text
    assert "Regression to the mean" in call(installed, "cite", "fifth-table1")
    assert "less than one apart" in call(installed, "claims", "fifth")
    assert len(list((tmp_path / "runs" / "fifth").glob("*/record.json"))) == 2


def test_a_table_on_its_runs_takes_two_files(installed: dict[str, str], tmp_path: Path) -> None:
    """An entry in paper.toml and a function in tables.py."""
    (tmp_path / "site" / "fifth_paper").unlink()
    folder = tmp_path / "site" / "fifth_paper" / "fifth"
    shutil.copytree(FOLDER / "fifth", folder, ignore=shutil.ignore_patterns("__pycache__"))
    entry = '[[artifact]]\nid = "table2"\nkind = "T"\ntitle = "Again"\ndata = ["pairs"]\ncost = "with table1"\n\n'
    stated = (folder / "paper.toml").read_text()
    (folder / "paper.toml").write_text(stated.replace("[published.table1]", entry + "[published.table1]"))
    with open(folder / "regression" / "tables.py", "a") as file:
        file.write(
            '\n\n@artifact("table2", runs=runs)\ndef table2(results: Results) -> Table:\n'
            '    cell = Cell(None, results.values("Regression", "test/distance"))\n'
            '    column = Column("distance", "Distance", "lower")\n'
            '    return Table("Again", results.provenance(), [column], [Row("Regression", {"distance": cell})])\n'
        )
    planned = [call(installed, "run", f"fifth-table{n}", "--dry-run").splitlines()[:2] for n in (1, 2)]
    assert planned[0] == planned[1]
    call(installed, "run", "fifth-table2", "--seeds", "1", "--workers", "1", "--device", "cpu")
    assert "| Regression |" in (tmp_path / "results" / "fifth" / "table2.md").read_text()


def test_a_baseline_in_table_1_takes_two_files(tmp_path: Path) -> None:
    """Its key and cost in experiment.py, its betas in paper.toml: it is planned, and drawn, with nothing published."""
    package = tmp_path / "repro"
    leave = shutil.ignore_patterns("__pycache__", "*.safetensors", "record.json")
    shutil.copytree(Path(repro.__file__).parent, package, ignore=leave)
    (tmp_path / "data_cards").symlink_to(Path(repro.__file__).parents[1] / "data_cards")
    paper = package / "papers" / "gmrf_mcvae"
    replaced(paper / "paper.toml", "mmvae_plus = [0.05, 0.001]", "mvtcae = [0.05, 0.001]")
    replaced(paper / "paper.toml", "mmvae_plus = 0.001", "mvtcae = 0.001")
    replaced(paper / "copula" / "experiment.py", 'METHODS = ("mvae", "mmvae", "mopoe", "mmvae_plus",', '    "mvtcae",')
    replaced(paper / "copula" / "experiment.py", 'EPOCH_SECONDS = {"mvae": 0.7,', '    "mvtcae": 1.0,')
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1", "REPRO_CACHE": str(tmp_path)}
    planned = call(
        environment, "run", "gmrf-table1", "--profile", "smoke", "--dry-run", "--runs", str(tmp_path / "runs")
    )
    assert "mvtcae, seed 1" in planned
    assert "smoke: 12 runs" in planned
    code = "from repro.papers.gmrf_mcvae.copula.tables import METHODS, _rows\n"
    code += "row = _rows(dict.fromkeys(METHODS, ()), 'histogram')[4]\n"
    code += "print(row.label, {c.published for c in row.cells.values()})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "MVTCAE {None}", done.stderr


def replaced(path: Path, line: str, further: str) -> None:
    """Puts a line behind the first one that is or begins as the given one."""
    text = path.read_text(encoding="utf-8")
    assert text.count(line) == 1
    path.write_text(text.replace(line, f"{line}\n{further}"), encoding="utf-8")


def test_it_is_added_without_touching_the_package() -> None:
    """Six files of its own, and none of the package names it."""
    own = sorted(
        p.relative_to(FOLDER / "fifth").as_posix() for p in FOLDER.rglob("*") if p.is_file() and p.suffix != ".pyc"
    )
    assert own == [
        "citation.bib",
        "model.py",
        "paper.toml",
        "regression/experiment.py",
        "regression/figures.py",
        "regression/tables.py",
    ]
    package = Path(repro.__file__).parent
    assert not [p for p in package.rglob("*.py") if "papers.fifth" in p.read_text(encoding="utf-8")]
