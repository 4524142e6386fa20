"""The README's code runs, its table is the records', and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

from repro.artifacts.gallery import readme, targets_page
from repro.papers import papers

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text()


def test_python_code_runs_in_order():
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) >= 2
    space: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), space)  # README's blocks build on one another
    assert space["joint"]["m0"].shape == (1000, 2)
    assert space["conditional"]["m0"].shape == (5, 8, 2)
    assert space["nats"].shape == (8,)
    assert space["protein"].shape == (3, 4, 5)


def test_table_is_rendered_from_the_committed_records():
    assert readme(TEXT, ROOT / "figures") == TEXT


def test_list_of_targets_is_made_from_what_the_papers_state() -> None:
    assert (ROOT / "figures/targets.md").read_text() == targets_page(ROOT / "figures")


def test_links_and_commands_exist():
    for link in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert link.startswith("http") or (ROOT / link).exists(), link
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make ([a-z0-9-]+)", TEXT):
        known = re.search(rf"^{target}:", makefile, re.MULTILINE) or target.split("-")[0] in {
            p.prefix for p in papers().values()
        }
        assert known, target
