"""The commands `repro weights`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from repro.cli.main import main
from repro.hub.config import FILES, PICTURE
from repro.hub.manifest import read_manifest, write_manifest
from repro.hub.registry import models
from repro.weights.folder import package_folder
from repro.weights.shipped import manifest
from tests.support.weights import NAME, REPO, pinned

if TYPE_CHECKING:
    from tests.support.hub import ModelHub
    from tests.support.weights import Shelf

pytest_plugins = ["tests.support.hub"]

Capture = pytest.CaptureFixture[str]
WITHOUT_TORCH = """
import sys
from repro.cli.main import main
for arguments in (["list"], ["path", "vaegan-decoder"], ["verify"], ["pull", "vaegan-decoder"]):
    print(main(["weights", *arguments]))
heavy = {"torch", "numpy", "datasets", "matplotlib", "multivae"} & set(sys.modules)
assert not heavy, heavy
"""


def call(capsys: Capture, *arguments: str) -> tuple[int, str, str]:
    """Exit code and what was printed to stdout and stderr."""
    capsys.readouterr()
    try:
        code = main(["weights", *arguments])
    except SystemExit as end:
        code = int(end.code or 0)
    return code, *capsys.readouterr()


def failed(capsys: Capture, code: int, *arguments: str) -> str:
    """The one line of a failed call."""
    found, out, error = call(capsys, *arguments)
    lines = [line for line in error.splitlines() if not line.startswith("fetching ")]
    assert (found, out, len(lines)) == (code, "", 1), error
    return lines[0]


def test_list_and_verify(capsys: Capture) -> None:
    code, out, _ = call(capsys, "list")
    listed, _, absent = out.partition("\n\n")
    lines = listed.splitlines()
    assert code == 0
    assert lines[0].split() == ["weights", "size", "profile", "metric", "value", "record", "where"]
    assert {line.split()[0] for line in lines[1:]} == set(manifest()) | set(read_manifest())
    missing = set(models()) - set(manifest()) - set(read_manifest())
    assert absent.startswith(f"{len(missing)} further models have no weights here; `repro weights missing`")
    code, out, _ = call(capsys, "missing")
    unnamed = [line for line in out.splitlines() if line.startswith("recorded, published under no name; `repro run ")]
    states = [line.rpartition(": ") for line in out.splitlines() if line not in unnamed]
    rows = {line.split("`")[1]: line.partition(" trains: ")[2].split("; ") for line in unnamed}
    assert "mvae 2.5, 20 epochs" in rows["repro run gmrf_mcvae/table1-sweep --seeds 1"]
    assert "Score model, energy guidance" in rows["repro run compare/priors-copula --seeds 1"]
    assert all(labels for labels in rows.values())
    assert {name for _, _, names in states for name in names.split(", ")} == missing
    assert all("its weights are gone; `repro run " in state for state, _, _ in states)
    code, out, _ = call(capsys, "verify")
    assert code == 0
    for name in manifest():
        assert f"{name}  package: sound" in out
        assert call(capsys, "path", name)[1] == f"{package_folder() / name}\n"


def test_light_commands_import_no_torch(cache: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert [line for line in answer.stdout.splitlines() if line.isdigit()] == ["0", "0", "0", "1"]


def test_from_the_hub_to_the_cache(model_hub: ModelHub, shelf: Shelf, capsys: Capture) -> None:
    entry = pinned(shelf, model_hub)
    assert f"{REPO}@{entry.revision[:7]}" in call(capsys, "list")[1].splitlines()[1]
    assert call(capsys, "verify")[1] == f"{NAME}  not available\n"
    assert f"{NAME} is not in the cache; `repro weights pull {NAME}` fetches it" in failed(capsys, 1, "path", NAME)
    code, out, error = call(capsys, "pull", NAME)
    assert code == 0, error
    folder = Path(out.strip())
    assert folder.is_relative_to(shelf.root / "cache")
    assert {f.name for f in folder.iterdir()} == set(FILES)
    assert call(capsys, "path", NAME)[1] == out
    assert call(capsys, "pull", "--all") == (0, out, "")
    assert call(capsys, "verify", NAME)[1] == f"{NAME}  cache: sound\n"
    assert "cache, user/models@" in call(capsys, "list")[1]
    model_hub.repos[REPO].tags["v1"] = entry.revision
    assert call(capsys, "pull", NAME, "--revision", "v1")[1] == out
    record = folder / "record.json"
    record.write_bytes(record.read_bytes().replace(b"paper", b"quick"))
    code, out, error = call(capsys, "verify")
    assert code == 1
    assert f"{NAME}  cache: record.json has hash" in out
    assert "1 of these are not sound" in error


def test_ship_and_verify(shelf: Shelf, capsys: Capture) -> None:
    shelf.record()
    code, out, error = call(capsys, "ship", NAME)
    assert (code, out) == (0, f"{shelf.weights / NAME}\n"), error
    assert {f.name for f in (shelf.weights / NAME).iterdir()} == {*FILES, PICTURE}
    before = shelf.manifest.read_bytes()
    assert call(capsys, "ship", NAME)[0] == 0
    assert shelf.manifest.read_bytes() == before
    assert call(capsys, "verify")[1] == f"{NAME}  package: sound\n"
    (shelf.weights / NAME / "weights.safetensors").write_bytes(b"else")
    code, out, _ = call(capsys, "verify", NAME)
    assert (code, out) == (1, f"{NAME}  package: weights.safetensors not what the manifest states\n")


def test_wrong_calls(shelf: Shelf, capsys: Capture, tmp_path: Path) -> None:
    entry = shelf.ship()
    assert "unknown weights 'classifier-mnits'; did you mean classifier-mnist" in failed(
        capsys, 2, "ship", "classifier-mnits"
    )
    assert "has no record in" in failed(capsys, 1, "ship", "classifier-mnist", "--runs", str(tmp_path / "none"))
    assert f"unknown weights 'copula'; did you mean {NAME}?" in failed(capsys, 2, "pull", "copula")
    assert "name the models to pull, or --all" in failed(capsys, 2, "pull")
    assert "name the models to pull, or --all" in failed(capsys, 2, "pull", NAME, "--all")
    assert "no model is on the Hub" in failed(capsys, 2, "pull", "--all")
    assert f"{NAME} is not on the Hub: the manifest gives no repository" in failed(capsys, 1, "pull", NAME)
    assert "unknown weights 'x'" in failed(capsys, 2, "verify", "x")
    assert "unknown weights 'x'" in failed(capsys, 2, "path", "x")
    write_manifest({NAME: entry})
    shelf.manifest.write_text(shelf.manifest.read_text().replace(f'["{NAME}"]', '["../copula"]'))
    assert "manifest.toml: '../copula' is no name of weights" in failed(capsys, 1, "list")
