"""The page on adding a model: its table of multivae's models is measured, its commands run from an empty folder."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from repro.baselines.named import NOT_OFFERED, build_named, named_models
from repro.methods.checks import check_method
from repro.methods.models import built
from repro.model import isolated_rng
from repro.papers.gmrf_mcvae.copula.experiment import Copula, copula_spec

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "add-your-model.md").read_text(encoding="utf-8")


def test_the_table_of_multivaes_models_is_what_is_measured() -> None:
    lines = ["| model | works | likelihood |", "|:--|:--|:--|"]
    for name in named_models():
        if name in NOT_OFFERED:
            lines.append(f"| {name} | no: {NOT_OFFERED[name]} | |")
            continue
        with isolated_rng(0):
            like = Copula().build(copula_spec("mvae", 0, "smoke"))
            model = built(name, build_named, like.modalities, {"name": name, "like": like})
        lines.append(f"| {name} | yes | {'no' if 'a likelihood' in check_method(name, model) else 'yes'} |")
    assert "\n".join(lines) in PAGE


def commands() -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


def test_the_pages_commands_are_the_packages() -> None:
    assert [c[:2] for c in commands()] == [["repro", "new"], ["repro", "run"], ["repro", "run"]]


@pytest.mark.slow
def test_the_pages_commands_run_from_an_empty_folder_with_the_wheel(tmp_path: Path) -> None:
    """The wheel alone is imported, not the checkout; the first row stands within three minutes of processor time."""
    wheels, site, folder = tmp_path / "wheels", tmp_path / "site", tmp_path / "empty"
    folder.mkdir()
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = wheels.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    left_out = ("REPRO_RUNS", "REPRO_RESULTS", "REPRO_FIGURES", "REPRO_MIRROR")
    environment = {k: v for k, v in os.environ.items() if k not in left_out}
    environment |= {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1", "REPRO_CACHE": str(tmp_path / "cache")}
    start = os.times()
    for words in commands():
        call = [sys.executable, "-m", "repro", *words[1:]]
        done = subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        if "mine=mine.py:build" in words:
            spent = os.times()
            # Two cores do it in half of that; wall-clock time says what else the machine does.
            assert spent.children_user - start.children_user < 2 * 180
            assert "| mine | obtained |" in done.stdout
            assert "mine − best of the table's rows" in done.stdout
            assert "Rank of mine" in done.stdout
    assert {p.name for p in (folder / "results" / "own").iterdir()} == {"mine", "a", "b"}
