"""A fifth paper from a folder of its own, through the command line to a rendered table, figure and claim."""

from __future__ import annotations

import os
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
