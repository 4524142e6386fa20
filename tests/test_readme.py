"""The code of the README and of the page on using the package runs, its table is the records', links lead on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from huggingface_hub import constants

from repro.artifacts.gallery import readme, targets_page
from repro.papers import papers
from tests.support.models import same_tensors

if TYPE_CHECKING:
    from tests.support.hub import ModelHub

pytest_plugins = ["tests.support.hub"]

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
USING = (ROOT / "docs" / "using.md").read_text(encoding="utf-8")


def _run(page: str, text: str) -> dict[str, object]:
    """The names that a page's Python code leaves, its blocks run in order, as they build on one another."""
    space: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, page, "exec"), space)
    return space


def test_readme_code_runs():
    space = _run("README.md", TEXT)
    assert space["joint"]["m0"].shape == (1000, 2)
    assert space["conditional"]["m0"].shape == (5, 8, 2)
    assert space["nats"].shape == (8,)


def test_readme_is_one_screen_before_its_first_picture():
    before, picture, _ = re.split(r"!\[[^\]]+\]\(([^)]+)\)", TEXT, maxsplit=1)
    assert len(before.splitlines()) < 30
    assert (ROOT / picture).stat().st_size < 300_000


def test_python_code_of_the_page_on_using_runs_in_order(
    model_hub: ModelHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a Hub of this machine, which the models of the last block are shared on."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    model_hub.cards_of_users = True
    space = _run("using.md", USING)
    assert space["joint"]["m0"].shape == (1000, 2)
    assert space["conditional"]["m0"].shape == (5, 8, 2)
    assert space["nats"].shape == (8,)
    assert space["protein"].shape == (3, 4, 5)
    draws = [space[k].generate(3, generator=torch.Generator().manual_seed(0)) for k in ("model", "again", "shared")]
    assert same_tensors(draws[0], draws[1])
    assert same_tensors(draws[0], draws[2])


def test_table_is_rendered_from_the_committed_records():
    assert readme(TEXT, ROOT / "figures") == TEXT


def test_list_of_targets_is_made_from_what_the_papers_state() -> None:
    assert (ROOT / "figures/targets.md").read_text() == targets_page(ROOT / "figures")


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/using.md", "docs/contributing.md"])
def test_links_and_commands_exist(page: str):
    text = (ROOT / page).read_text(encoding="utf-8")
    for link, anchor in re.findall(r"\]\(([^)#]+)(#[^)]*)?\)", text):
        to = (ROOT / page).parent / link
        assert link.startswith("http") or to.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)", to.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor[1:] in {h.lower().replace(" ", "-") for h in headings}, link + anchor
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:`|^)make ([a-z0-9-]+)", text, re.MULTILINE):
        known = re.search(rf"^{target}:", makefile, re.MULTILINE) or target.split("-")[0] in {
            p.prefix for p in papers().values()
        }
        assert known, target


def test_make_asks_for_the_python_that_readme_names() -> None:
    (named,) = re.findall(r"With Python ([\d.]+) or later", TEXT)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"sys.version_info < ({named.replace('.', ', ')})" in makefile
    assert f"Python {named} or later is needed" in makefile
