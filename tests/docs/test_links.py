"""The built site without a browser: every link and anchor exists, nothing is asked of another host, and from the start
page to the record behind any number it is three clicks."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from repro.artifacts.pages import entries
from repro.artifacts.render import Sources
from repro.papers import paper as paper_package
from repro.papers import papers
from repro.report.plain_tables import PlainTable
from tests.docs.pages import Page, clicks, target

pytestmark = pytest.mark.slow

FIGURES = Path(__file__).resolve().parents[2] / "figures"


def test_every_link_and_anchor_exists(pages: dict[str, Page]):
    anchors = {p.path: p.anchors for p in pages.values()}
    broken = []
    for name, page in pages.items():
        for address in [*page.links, *page.loads]:
            to = target(page, address)
            if to is None:
                continue
            if not to[0].exists() or (to[1] and to[0].suffix == ".html" and to[1] not in anchors[to[0]]):
                broken.append(f"{name}: {address}")
    assert len(pages) > 100
    assert broken == []


def test_nothing_is_loaded_from_another_host(pages: dict[str, Page]):
    assert [a for p in pages.values() for a in p.loads if target(p, a) is None] == []


def test_every_erratum_has_its_anchor(pages: dict[str, Page]):
    text = (FIGURES.parent / "docs" / "errata.md").read_text(encoding="utf-8")
    numbers = {
        line.split("|")[1].strip().lower() for line in text.splitlines() if line.startswith(("| E", "| M", "| B"))
    }
    assert len(numbers) > 30
    assert numbers <= pages["errata.html"].anchors


def test_every_published_and_obtained_number_is_shown(pages: dict[str, Page]):
    wanted: dict[str, dict[str, list[float]]] = {}
    for entry in entries(Sources(None, FIGURES)):
        kinds = wanted.setdefault(entry.artifact.paper, {"published": [], "obtained": [], "text": []})
        for table in entry.tables:
            cells = [n.cell for n in table.numbers()]
            if isinstance(table, PlainTable):
                kinds["text"] += [c.mean for c in cells if c.n]
            else:
                kinds["published"] += [c.published for c in cells if c.published is not None]
                kinds["obtained"] += [c.mean for c in cells if c.mean is not None]
    assert sum(len(k["published"]) for k in wanted.values()) > 500
    assert sum(len(k["text"]) for k in wanted.values()) > 100
    for paper, kinds in wanted.items():
        page = pages[f"generated/results/{paper}.html"]
        for kind, numbers in kinds.items():
            found = [n.value for n in page.numbers if n.kind == kind]
            if kind == "published":  # and those that nothing is measured beside
                assert Counter(numbers) <= Counter(found)
            else:
                assert sorted(found) == pytest.approx(sorted(numbers))


def test_three_clicks_lead_from_the_start_page_to_the_record_of_every_number(pages: dict[str, Page], site: Path):
    away = clicks(pages, site)
    walked: Counter[str] = Counter()
    for page in pages.values():
        for number in page.numbers:
            name = page.path.relative_to(site.resolve()).as_posix()
            assert away[name] <= 2, name
            if number.kind in ("obtained", "text"):
                to = target(page, number.link)
                assert number.link, f"{name}: {number.value} leads to no record"
                assert to is not None
                behind = pages[to[0].relative_to(site.resolve()).as_posix()]
                assert away[to[0].relative_to(site.resolve()).as_posix()] <= 3
                assert "commit" in behind.text
                walked[number.kind] += 1
    assert walked["obtained"] > 500
    assert walked["text"] > 100


def _printed(table: Mapping[str, Any]) -> list[float]:
    """The numbers that a paper prints in a table: means, not their deviations."""
    cells = [c for row in table.get("rows", {}).values() for c in row]
    return [float(v) for c in cells for v in (c[:1] if isinstance(c, list) else [c]) if isinstance(v, int | float)]


@pytest.mark.parametrize("paper", [p.name for p in papers().values() if p.title])
def test_every_number_that_a_paper_prints_is_on_its_page(pages: dict[str, Page], paper: str):
    """As a cell of published values, or, where nothing is measured to compare it with, as text."""
    page = pages[f"generated/results/{paper}.html"]
    cells = Counter(n.value for n in page.numbers if n.kind == "published")
    text = Counter(re.findall(r"\d+(?:\.\d+)?", page.text))
    missing = []
    for name, table in paper_package(paper).published.items():
        source = table
        if "same_as" in table:
            other, _, there = table["same_as"].partition(".")
            source = paper_package(other).published[there]
        numbers = Counter(_printed(source))
        missing += [f"{name}: {n:g}" for n, times in numbers.items() if cells[n] < times and not text[f"{n:g}"]]
    assert missing == []


def test_records_say_what_was_run(pages: dict[str, Page], site: Path):
    """Seeds, commit, device, data and settings of every record that a page of records shows."""
    shown = 0
    for name, page in pages.items():
        if not name.startswith("generated/results/records/") or "/set-" in name:
            continue
        records = [to[0] for a in page.links if (to := target(page, a)) is not None and to[0].suffix == ".json"]
        assert records, name
        for path in records:
            record = json.loads(path.read_text(encoding="utf-8"))
            for text in (record["key"], record["environment"]["commit"][:12], record["environment"]["device_name"]):
                assert text in page.text, f"{name}: {text}"
            for value in record["data"].values():
                assert value in page.text
            assert all(metric["name"] in page.text for metric in record["metrics"])
            shown += 1
    assert shown > 100
