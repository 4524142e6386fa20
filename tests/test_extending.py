"""The guide to one's own data runs as it is printed, and its models have learned what the data hold."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "extending.md"
TEXT = PAGE.read_text(encoding="utf-8")
JOURNEY, LOADING, KINDS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def run(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(code, PAGE.name, "exec"), names)
    return names


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the first part leaves, and its folder."""
    folder, before = tmp_path_factory.mktemp("own data"), Path.cwd()
    os.chdir(folder)
    try:
        return {**run(JOURNEY), "folder": folder}
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def kinds() -> dict[str, Any]:
    """What the last part leaves."""
    return run(KINDS)


@pytest.mark.slow
def test_imputation_is_near_ridge_regression(journey: dict[str, Any]) -> None:
    assert list(journey["imputed"]) == list(journey["by_ridge"]) == ["mean", "error", "worst"]
    for group, ridge in journey["by_ridge"].items():
        assert journey["imputed"][group] <= 1.3 * ridge, group


@pytest.mark.slow
def test_beta_is_chosen_on_the_validation_split_alone(journey: dict[str, Any]) -> None:
    splits = [journey[s] for s in ("train", "validation", "test")]
    assert [s.split for s in splits] == ["train", "validation", "test"]
    assert sum(map(len, splits)) == 569
    scores = {
        beta: sum(journey["imputation"](m, journey["validation"]).values()) for beta, m in journey["models"].items()
    }
    assert len(scores) > 1
    assert scores == journey["scores"]
    assert min(scores, key=lambda b: scores[b]) == journey["chosen"]
    before = JOURNEY[: JOURNEY.index("is chosen;")]
    assert before.count("test") == 2  # the split's name and its share: nothing looks at it until then


@pytest.mark.slow
def test_another_process_loads_the_model_and_draws_the_same(journey: dict[str, Any]) -> None:
    code = LOADING + "\ntorch.save(drawn, 'drawn.pt')\n"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=journey["folder"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "plus or minus" in done.stdout
    drawn = torch.load(journey["folder"] / "drawn.pt", weights_only=True)
    patients = journey["table"].iloc[:3]
    seen = journey["train"].standardised({"mean": patients.iloc[:, :10], "error": patients.iloc[:, 10:20]})
    generator = torch.Generator().manual_seed(0)
    again = journey["model"].generate(200, given=seen, generator=generator, sample_likelihood=True)
    assert all(torch.equal(drawn[m], again[m]) for m in again)
    # What is drawn is in the features' own units, and the truth lies within what the draws spread over.
    worst = journey["train"].restored(again)["worst"]
    truth = torch.tensor(patients.iloc[:, 20:].to_numpy())
    assert ((worst.mean(0) - truth).abs() < 4 * worst.std(0)).float().mean() > 0.9


@pytest.mark.slow
def test_every_model_generates_all_three_modalities(kinds: dict[str, Any]) -> None:
    shapes = {m: s.shape for m, s in kinds["specs"].items()}
    assert len(shapes) == 3
    assert "GMRF MCVAE" in kinds["models"]
    for model in kinds["models"].values():
        joint = model.generate(10, generator=torch.Generator().manual_seed(0))
        assert {m: tuple(x.shape) for m, x in joint.items()} == {m: (10, *s) for m, s in shapes.items()}
        given = model.generate(5, given={"rna": kinds["own"]["rna"][:3]})
        assert {m: tuple(x.shape) for m, x in given.items()} == {m: (5, 3, *s) for m, s in shapes.items()}


@pytest.mark.slow
def test_every_model_predicts_a_modality_from_another(kinds: dict[str, Any]) -> None:
    """Images given the profile are nearer to the true ones than the mean image is: under 60% of its squared error."""
    image = kinds["own"]["image"]
    for name, model in kinds["models"].items():
        drawn = model.generate(1, given={"rna": kinds["own"]["rna"]}, generator=torch.Generator().manual_seed(0))
        error = (drawn["image"][0] - image).square().mean()
        assert error < 0.6 * (image - image.mean(0)).square().mean(), name


def test_the_last_part_is_short() -> None:
    assert len([line for line in KINDS.splitlines() if line.strip()]) < 40


def test_links_exist() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (PAGE.parent / link).exists(), link
