"""What `make test` leaves out is what carries the marker `slow`, and `make test-all` leaves out nothing."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def recipe(target: str) -> str:
    """The line that a target of the Makefile runs."""
    text = (ROOT / "Makefile").read_text()
    return re.search(rf"^{target}:[^\n]*\n\t([^\n]*)", text, re.M)[1]


def test_the_two_targets_differ_by_the_marker_alone() -> None:
    fast, whole = recipe("test"), recipe("test-all")
    assert fast.replace(' -m "not slow"', "") == whole
    assert " -m " not in whole.split("pytest", 1)[1]


def test_nothing_else_deselects() -> None:
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert options["addopts"] == "-ra"
    assert options["testpaths"] == ["tests"]
    assert [m.split(":")[0] for m in options["markers"] if m.startswith("slow")] == ["slow"]
    text = "".join(p.read_text() for p in sorted((ROOT / "tests").rglob("conftest.py")))
    assert "collect_ignore" not in text
    assert "pytest_ignore_collect" not in text


def test_continuous_integration_runs_both_parts() -> None:
    text = (ROOT / ".ci" / "run").read_text()
    commands = ["make table1 PROFILE=smoke", "make test", 'make test-all ARGS="-m slow"']
    places = [text.index(f"\n{c}\n") for c in commands]
    assert places == sorted(places)


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    """Two tests, one of them slow, through the package's own conftest."""
    (tmp_path / "test_two.py").write_text(
        "import pytest\n\ndef test_fast(): pass\n\n@pytest.mark.slow\ndef test_slow(): pass\n"
    )
    conftest = (ROOT / "tests" / "conftest.py").read_text().split("@pytest.fixture", 1)[0]
    own = conftest[conftest.index("# Tests with the marker") :]
    (tmp_path / "conftest.py").write_text(f"from typing import Any\nimport pytest\n\n{own}")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    slow: takes long\n")
    for expression, said in (("not slow", "left out: 1 slow tests"), ("", "2 passed")):
        options = ["-m", expression] if expression else []
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        assert said in done.stdout
        assert ("left out" in done.stdout) == bool(expression)
