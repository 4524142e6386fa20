"""What the pages hold: the papers' equations with their code and errata, sheets of samples, links to other packages."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repro.datasets import load_dataset
from repro.datasets.card import card_names
from tests.docs.pages import Page
from tests.support.sheets import FOLDER, MAX_BYTES, MINIATURE, drawn

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs" / "_ext"))  # as Sphinx's configuration does

import errata  # noqa: E402
import inventories  # noqa: E402
import reference  # noqa: E402

# How many equations each paper numbers.
EQUATIONS = {"GMRF MCVAE": 19, "MRF MVAE": 38, "SBM-VAE": 11, "CoVAE": 10}
NUMBERS = re.compile(r"(?:eq\.|equations?)\s+(\d+(?!\.?\d)(?:(?:,\s*|\s+and\s+|\s+to\s+)\d+(?!\.?\d))*)")


def _page(pages: dict[str, Page], paper: str) -> Page:
    return pages[f"maths/{paper.lower().replace(' ', '_').replace('-', '_')}.html"]


def _numbers(text: str) -> set[int]:
    """The equations that a text names: ``eq. 8, 9``, ``equations 2 to 4``."""
    found: set[int] = set()
    for match in NUMBERS.finditer(text):
        for part in re.split(r",\s*|\s+and\s+", match[1]):
            first, _, last = part.partition(" to ")
            found |= set(range(int(first), int(last or first) + 1))
    return found


def _links(page: Page) -> dict[int, str]:
    """The line of links under each numbered equation, empty where there is none."""
    text = page.path.read_text(encoding="utf-8")
    found = {}
    for part in re.split(r'(?=<div class="[^"]*\bequation\b[^"]*")', text)[1:]:
        if number := re.search(r'id="eq-(\d+)"', part):
            line = re.search(r'<p class="equation-links">.*?</p>', part, re.DOTALL)
            found[int(number[1])] = line[0] if line else ""
    return found


@pytest.mark.parametrize("paper", EQUATIONS)
def test_every_equation_of_a_paper_stands_under_its_number(pages: dict[str, Page], paper: str):
    found = _links(_page(pages, paper))
    assert sorted(found) == list(range(1, EQUATIONS[paper] + 1))
    assert sum("api/" in line for line in found.values()) > 0.6 * len(found)


def test_every_equation_that_a_docstring_names_leads_to_code(pages: dict[str, Page]):
    named: dict[str, set[int]] = {paper: set() for paper in EQUATIONS}
    for path in (ROOT / "repro").rglob("*.py"):
        for source in re.findall(r"Source: (.*?)(?:\n\s*\n|\"\"\")", path.read_text(encoding="utf-8"), re.DOTALL):
            for part in " ".join(source.split()).split("; "):
                if paper := next((p for p in sorted(EQUATIONS, key=len, reverse=True) if part.startswith(p)), None):
                    named[paper] |= _numbers(part)
    assert sum(map(len, named.values())) > 25
    for paper, numbers in named.items():
        links = _links(_page(pages, paper))
        assert [n for n in numbers if "api/" not in links[n]] == [], paper


def test_every_equation_with_an_erratum_is_linked_to_it(pages: dict[str, Page]):
    checked = 0
    for number, where, _, _, _ in errata.table(ROOT)[1]:
        paper = next((p for p in sorted(EQUATIONS, key=len, reverse=True) if where.startswith(p)), None)
        if paper is not None:
            for equation in _numbers(where):
                assert f"errata.html#{number.lower()}" in _links(_page(pages, paper))[equation], (number, equation)
                checked += 1
    assert checked > 10


def test_every_dataset_has_its_sheet(pages: dict[str, Page]):
    for name in card_names():
        page = pages[f"generated/datasets/{name}.html"]
        assert f"{name}.png" in "".join(page.loads), name
        assert 0 < (FOLDER / f"{name}.png").stat().st_size < MAX_BYTES
    assert set(reference.MINIATURES) == set(MINIATURE)


@pytest.mark.parametrize("name", ["copula", "skewed_copula"])
def test_sheets_are_of_the_data(name: str):
    """Of what can be made without a download; tests/support/sheets.py makes all."""
    with Image.open(FOLDER / f"{name}.png") as committed:
        shown = np.asarray(committed.convert("RGB"))
    assert np.abs(shown.astype(int) - np.asarray(drawn(load_dataset(name, split="test")).convert("RGB"))).max() <= 8


def test_other_packages_classes_lead_to_their_documentation(pages: dict[str, Page]):
    links = {a for n, p in pages.items() if n.startswith("generated/api/") for a in p.links if a.startswith("https:")}
    for base, known in inventories.PACKAGES.values():
        assert links & {base + address for address in known.values()}, base
    assert "https://docs.pytorch.org/docs/stable/tensors.html#torch.Tensor" in links


def test_formulas_leave_no_latex_in_what_is_shown(pages: dict[str, Page]):
    left, shown = [], 0
    for name, page in pages.items():
        text = page.path.read_text(encoding="utf-8")
        shown += text.count("<math")
        left += [(name, m[0]) for m in re.finditer(r"<m[ion][^>]*>(?:&(?:amp;)?|[^<]*\\[^<]*)</m[ion]>", text)]
        left += [(name, "code instead of a formula")] * len(re.findall(r'class="math(?:-block)?"[^>]*><code>', text))
    assert shown > 300
    assert left == []
