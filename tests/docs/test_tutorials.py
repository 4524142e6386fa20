"""The tutorials run as they are printed, and what they say of the outcome holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from repro.cli.main import main

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "tutorials"


def _ran(name: str) -> dict[str, Any]:
    """The names that a tutorial's code leaves, its blocks run in order."""
    blocks = re.findall(r"```python\n(.*?)```", (FOLDER / name).read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) > 1
    names: dict[str, Any] = {"__name__": "tutorial"}
    for block in blocks:
        exec(compile(block, name, "exec"), names)
    return names


def test_every_tutorial_is_listed_and_tested():
    listed = set(re.findall(r"\]\(([a-z0-9-]+\.md)\)", (FOLDER / "index.md").read_text(encoding="utf-8")))
    assert listed == {p.name for p in FOLDER.glob("*.md")} - {"index.md"}
    assert all(f'"{name}"' in Path(__file__).read_text(encoding="utf-8") for name in listed)


def test_intervals_hold_what_they_claim_and_two_modalities_tell_more_than_one():
    names = _ran("condition.md")
    assert names["drawn"]["m0"].shape == (100, 500, 2)
    assert abs(names["covered"] - 0.9) < 0.05
    assert names["error_both"] < names["error_one"]


@pytest.mark.slow
def test_own_dataset_is_learned():
    names = _ran("dataset.md")
    assert set(names["errors"]) == {"GMRF MCVAE", "MoPoE-VAE"}
    assert all(error < 0.7 * names["spread"] for error in names["errors"].values())


def test_own_method_learns_and_is_a_row_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names = _ran("method.md")
    assert names["error"] < 0.6 * names["spread"]
    assert names["conditional"] > names["model"].log_likelihood(names["rest"]).mean()
    text = (FOLDER / "method.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    Path("joint.py").write_text(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1], encoding="utf-8")
    (command,) = re.findall(r"```bash\nrepro (.*?)\n```", text)
    words = command.replace("--profile quick", "--profile smoke --only-methods --seeds 1 --executor inline").split()
    assert main([*words, "--runs", "runs", "--results", "results"]) == 0
    (table,) = Path("results/own").rglob("table1.md")
    assert "joint" in table.read_text(encoding="utf-8")


@pytest.mark.slow
def test_structures_are_told_apart():
    names = _ran("structure.md")
    distances = names["distances"]
    assert set(distances) == {"independent", "gaussian", "laplace", "canonical", "score"}
    assert names["floor"] < min(distances.values())
    assert max(distances, key=distances.get) == "independent"
    assert distances["gaussian"] < 0.5 * distances["independent"]


@pytest.mark.slow
def test_table_one_is_run_and_its_cell_follows_from_the_records(capsys: pytest.CaptureFixture[str]):
    names = _ran("table1.md")
    assert all(path.exists() for path in names["files"])
    said = re.search(r"unconditional: (\S+ ± \S+)", capsys.readouterr().out)
    assert said is not None
    table = (FOLDER.parents[1] / "figures" / "gmrf_mcvae" / "table1.md").read_text(encoding="utf-8")
    assert said[1] in table
