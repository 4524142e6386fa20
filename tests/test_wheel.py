"""A wheel installed outside of a checkout, in a folder with a space in its name, does what README and its pages say."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
USING = (ROOT / "docs" / "using.md").read_text(encoding="utf-8")
# What a wheel alone cannot be asked here, each with why: it fetches from the Hub, or takes minutes of processor time.
ELSEWHERE = {
    "weights pull gmrf_mcvae/copula": "tests/hub",
    "run gmrf_mcvae/table1 --from-weights": "tests/hub/test_reevaluate.py",
    "data build polymnist --option source=generated": "tests/datasets/test_real.py",
    "data show biked_rendered": "tests/cli/test_data.py",
    "data verify": "tests/cli/test_data.py",
}
FURTHER = (
    ["run", "gmrf-table1", "--profile", "smoke", "--workers", "2"],
    ["show", "gmrf-table1", "--profile", "smoke"],
    ["list"],
    ["claims"],
    ["doctor"],
    ["status", "gmrf-table1", "--profile", "smoke"],
    ["data", "show", "copula"],
    ["run", "gmrf-table1", "--dry-run", "--profile", "quick"],
)


Installed = tuple[Path, Path, dict[str, str]]


def commands() -> list[list[str]]:
    """Every `repro` command of the page on using the package."""
    lines = (line for block in re.findall(r"```sh\n(.*?)```", USING, re.DOTALL) for line in block.splitlines())
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith(".venv/bin/repro ")]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The commands of a new environment that has the wheel, an empty folder, and variables to call them with."""
    top = tmp_path_factory.mktemp("a b")
    python, folder = top / "my env" / "bin" / "python", top / "my work"
    folder.mkdir()
    wheels = top / "wheels"
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = wheels.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(top / "my env")], check=True)
    # The dependencies are this environment's; path files in it, such as that of an editable install, are not read.
    (site,) = (top / "my env" / "lib").glob("python3*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("REPRO_") and k != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": "1", "REPRO_CACHE": str(top / "my cache"), "REPRO_OFFLINE": "1"}
    return python.parent, folder, environment


def call(installed: Installed, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    commands, folder, variables = installed
    words = (str(commands / name), *words)
    return subprocess.run(words, cwd=folder, env=variables, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_it_is_the_wheel_that_is_imported(installed: Installed) -> None:
    code = "import repro, repro.engine.store as s; print(repro.__file__); print(s.figures_root())"
    paths = call(installed, "python", "-c", code).stdout.splitlines()
    assert len(paths) == 2
    for path in paths:
        assert Path(path).is_relative_to(installed[0].parent), path


@pytest.mark.slow
@pytest.mark.parametrize("words", [*commands(), *FURTHER], ids=" ".join)
def test_the_pages_commands_run(installed: Installed, words: list[str]) -> None:
    if " ".join(words) in ELSEWHERE:
        assert (ROOT / ELSEWHERE[" ".join(words)]).exists()
        return
    done = call(installed, "repro", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.slow
def test_tables_are_shown_with_what_was_recorded(installed: Installed) -> None:
    shown = call(installed, "repro", "show", "gmrf-table1").stdout
    assert "0.74" in shown  # as README's table has it
    assert "0.74 ± 0.02" in README
    assert r"\caption{Table I." in call(installed, "repro", "show", "gmrf-table1", "--latex").stdout
    part = call(installed, "repro", "show", "gmrf-table1", "--latex", "--part", "1").stdout
    assert part == (ROOT / "figures" / "gmrf_mcvae" / "table1.tex").read_text(encoding="utf-8")[: len(part)]
    assert part.count(r"\end{table}") == 1


@pytest.mark.slow
def test_readmes_code_runs_and_nothing_is_written_into_the_installation(installed: Installed) -> None:
    site, folder, _ = installed[0].parent, *installed[1:]

    def files() -> set[Path]:
        return {p for p in site.rglob("*") if p.suffix != ".pyc" and p.name != "__pycache__"}

    before = files()
    code = "\n".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL)) + "\nprint(nats.shape)\n"
    done = call(installed, "python", "-c", code)
    assert done.returncode == 0, done.stderr
    assert "torch.Size([8])" in done.stdout
    shutil.rmtree(folder / "results", ignore_errors=True)
    assert call(installed, "repro", "run", "gmrf-table1", "--profile", "smoke", "--workers", "1").returncode == 0
    assert files() == before
    assert (folder / "results" / "gmrf_mcvae").is_dir()
