"""The guide to one's own data runs as it is printed, is short, and its models have learned what the data hold."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

TEXT = (Path(__file__).resolve().parent.parent / "docs/extending.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def space() -> dict[str, Any]:
    """What the guide's code leaves."""
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(block, "extending.md", "exec"), names)
    return names


@pytest.mark.slow
def test_the_code_is_short() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len([line for line in block.splitlines() if line.strip()]) < 40


@pytest.mark.slow
def test_every_model_generates_all_three_modalities(space: dict[str, Any]) -> None:
    shapes = {m: s.shape for m, s in space["specs"].items()}
    assert len(shapes) == 3
    assert "GMRF MCVAE" in space["models"]
    for model in space["models"].values():
        joint = model.generate(10, generator=torch.Generator().manual_seed(0))
        assert {m: tuple(x.shape) for m, x in joint.items()} == {m: (10, *s) for m, s in shapes.items()}
        given = model.generate(5, given={"rna": space["own"]["rna"][:3]})
        assert {m: tuple(x.shape) for m, x in given.items()} == {m: (5, 3, *s) for m, s in shapes.items()}


@pytest.mark.slow
def test_every_model_predicts_a_modality_from_another(space: dict[str, Any]) -> None:
    """Images given the profile are nearer to the true ones than the mean image is: under 60% of its squared error."""
    image = space["own"]["image"]
    for name, model in space["models"].items():
        drawn = model.generate(1, given={"rna": space["own"]["rna"]}, generator=torch.Generator().manual_seed(0))
        error = (drawn["image"][0] - image).square().mean()
        assert error < 0.6 * (image - image.mean(0)).square().mean(), name


@pytest.mark.slow
def test_links_exist() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (Path(__file__).resolve().parent.parent / "docs" / link).exists(), link
