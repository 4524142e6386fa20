"""Terminals of few characters, users without a home directory, variables that are empty, locales that are not UTF-8."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from repro.cli.main import main
from repro.cli.terminal import plain
from repro.datasets import places
from repro.engine.store import default_results_root, default_runs_root, figures_root
from tests.support.toy import environment

# Those that read every record take half a minute.
SLOW = [pytest.param(c, marks=pytest.mark.slow) for c in ("claims", "claims --json")]
COMMANDS = [
    "",
    "--help",
    "list",
    "list gmrf",
    "list --json",
    "cite gmrf_mcvae/table1",
    "data list",
    "weights list",
    "show gmrf-table1",
    "show gmrf-table1 --latex",
    "show gmrf-table1 --csv",
    "show gmrf-table1 --json",
    "show sbm-table5 --profile quick",
    "show covae-table2-tcga",
    "run gmrf-table1 --dry-run",
    "status gmrf-table1",
    "show no-such-table",
]


def printed(command: str, encoding: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """What a command ends with, and all that it writes to a terminal of that encoding."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", streams[0])
        patch.setattr(sys, "stderr", streams[1])
        try:
            code = main(command.split())
        except SystemExit as ended:
            code = int(ended.code or 0)
        for stream in streams:
            stream.flush()
    return code, "".join(stream.buffer.getvalue().decode(encoding) for stream in streams)  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", [*COMMANDS, *SLOW])
def test_every_command_prints_in_every_encoding(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = printed(command, "utf-8", monkeypatch)
    assert code == (2 if "no-such" in command else 0)
    for encoding in ("ascii", "latin-1"):
        other, found = printed(command, encoding, monkeypatch)
        assert other == code
        assert plain(found) == plain(text)
        assert encoding == "latin-1" or found.isascii()
        assert "codec" not in found
        if command.endswith("--json"):
            assert json.loads(found) == json.loads(text)


def test_signs_have_words() -> None:
    assert plain("β = −0.5 ± 0.1 × 10²; Δ ≤ é → ≥") == "beta = -0.5 +- 0.1 x 10^2; Delta <= e -> >="
    assert plain("漢") == "?"


@pytest.mark.parametrize("value", ["", None])
def test_an_empty_variable_is_none(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("REPRO_RUNS", "REPRO_RESULTS", "REPRO_FIGURES", "REPRO_CACHE", "REPRO_MIRROR")
    for name in names:
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    found = default_runs_root(), default_results_root(), figures_root().name, places.cache_root(), places.mirror_root()
    assert found == (Path("runs"), Path("results"), "figures", Path.home() / ".cache" / "repro", None)


def test_home_is_expanded_in_every_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    where = {
        "REPRO_RUNS": default_runs_root,
        "REPRO_RESULTS": default_results_root,
        "REPRO_FIGURES": figures_root,
        "REPRO_CACHE": places.cache_root,
        "REPRO_MIRROR": places.mirror_root,
    }
    for name, root in where.items():
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, f"~/{name}")
        assert root() == tmp_path / name


def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(self: Path) -> Path:
        if str(self).startswith("~"):
            raise RuntimeError("Could not determine home directory.")
        return self

    monkeypatch.setattr(Path, "expanduser", nowhere)
    monkeypatch.delenv("REPRO_CACHE", raising=False)


@pytest.mark.parametrize(
    "command", [c for c in COMMANDS if "data" not in c and "weights" not in c and "no-such" not in c]
)
def test_without_a_home_directory(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    homeless(monkeypatch)
    assert printed(command, "utf-8", monkeypatch)[0] == 0


@pytest.mark.parametrize("name", ["REPRO_RUNS", "REPRO_RESULTS"])
def test_a_home_that_is_not_there_is_said_in_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    homeless(monkeypatch)
    with pytest.raises(
        places.NoHomeError, match=r"^~/.cache/repro is below a home directory, and this user has none; R"
    ):
        places.cache_root()
    monkeypatch.setenv(name, "~/mine")
    code, text = printed("show gmrf-table1", "utf-8", monkeypatch)
    assert (code, text.count("\n")) == (1, 1)
    assert text == "repro: ~/mine is below a home directory, and this user has none; name the whole path\n"


def test_files_are_read_as_utf_8_whatever_the_locale() -> None:
    code = """
import warnings, sys
warnings.filterwarnings("error", category=EncodingWarning, module=r"repro\\.")
from repro.cli.main import main
for command in ("list", "show gmrf-table1", "show covae-fig5 --profile quick", "cite covae", "weights list"):
    assert main(command.split()) == 0, command
"""
    done = subprocess.run(
        [sys.executable, "-X", "warn_default_encoding", "-c", code], capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0, done.stderr
