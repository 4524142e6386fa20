"""Runs that are started by scripts without a main guard, from standard input and in notebooks."""

from __future__ import annotations

import multiprocessing.spawn
import subprocess
import sys
from pathlib import Path

import pytest

import repro
from repro.engine.local import _without_script
from repro.errors import UsageError
from tests.support.toy import environment

TOY = """
print("called")
from pathlib import Path
from repro.engine.local import run_all
from repro.engine.store import RunStore
from tests.support.toy import toy_spec
specs = [toy_spec(s, epochs=2) for s in range(2)]
store = RunStore(Path("runs"))
failures = run_all(specs, store, workers=2)
print([f.reason for f in failures], [store.record(s) is not None for s in specs])
"""
NOTEBOOK = """
import sys, types
kernel = types.ModuleType("__main__")
kernel.__file__ = "/no/such/folder/ipykernel_launcher.py"
sys.modules["__main__"] = kernel
exec(compile({code!r}, "<cell 1>", "exec"), vars(kernel))
"""


def called(how: str, code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Executes code as a script, from standard input, or in a cell of a kernel whose own script is not there."""
    folder.mkdir()
    command, typed = [sys.executable, "-"], code
    if how == "script":
        (folder / "script.py").write_text(code)
        command, typed = [sys.executable, "script.py"], ""
    elif how == "notebook":
        command, typed = [sys.executable, "-c", NOTEBOOK.format(code=code)], ""
    return subprocess.run(command, input=typed, capture_output=True, text=True, cwd=folder, env=environment())


@pytest.mark.slow
@pytest.mark.parametrize("how", ["script", "standard input", "notebook"])
def test_workers_do_not_import_what_calls_them(how: str, tmp_path: Path) -> None:
    done = called(how, TOY, tmp_path / "a folder")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "called\n[] [True, True]\n"
    assert "Error" not in done.stderr


@pytest.mark.slow
def test_an_artifact_is_run_in_one_line(tmp_path: Path) -> None:
    options = "profile='smoke', workers=2, seeds=1, runs='r', results='my results', device='cpu'"
    line = f"import repro; print([p.name for p in repro.run('gmrf-table1', {options})])"
    done = called("standard input", line, tmp_path / "a folder")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['table1.md', 'table1.tex']\n"
    assert (tmp_path / "a folder" / "my results" / "gmrf_mcvae" / "smoke" / "table1.md").exists()


def test_what_a_worker_is_told_of_its_caller_is_nothing() -> None:
    with _without_script():
        told = multiprocessing.spawn.get_preparation_data("worker")
    assert not [name for name in told if name.startswith("init_main")]
    assert sys.modules["__main__"].__name__ == "__main__"
    assert sys.modules["__main__"] is not None


def test_folders_are_checked_before_anything_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(*arguments: object, **options: object) -> None:
        raise AssertionError("it trains")

    monkeypatch.setattr("repro.artifacts.running.run_all", train)
    file = tmp_path / "file"
    file.write_text("")
    fine = str(tmp_path / "fine")
    for options, message in (
        ({"runs": 3}, "^runs is 3, must be a path$"),
        ({"runs": fine, "results": ["x"]}, r"^results is \['x'\], must be a path$"),
        ({"runs": fine, "results": str(file)}, "^cannot write results to .*file: "),
        ({"runs": f"{file}/runs", "results": fine}, "^cannot write runs to .*runs: .*file is no folder$"),
    ):
        with pytest.raises(UsageError, match=message):
            repro.run("gmrf-table1", profile="smoke", **options)  # type: ignore[arg-type]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]
