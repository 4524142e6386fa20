"""The built site in headless Chromium, opened from a file path."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import Page

pytestmark = pytest.mark.slow

WIDTHS = (390, 820, 1440)
RESULTS = "generated/results/gmrf_mcvae.html"
HEAVIEST_START = 300_000  # bytes without pictures


def _looked_at(pages: dict[str, Page]) -> list[str]:
    """Every page but those of records, which are of one kind, and three of these."""
    records = [n for n in pages if n.startswith("generated/results/records/")]
    chosen = [*records[:2], *[n for n in records if "/set-" in n][:1]]
    return [n for n in pages if n not in records] + chosen


@contextmanager
def _open(browser: Any, width: int = 1440, scheme: str = "light") -> Iterator[tuple[Any, list[str]]]:
    """A page and what went wrong on it."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page, wrong = context.new_page(), []
    page.on("console", lambda m: wrong.append(f"console: {m.text}") if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda e: wrong.append(f"error: {e}"))
    page.on("requestfailed", lambda r: wrong.append(f"failed: {r.url}"))
    page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else wrong.append(f"elsewhere: {r.url}"))
    yield page, wrong
    context.close()


def test_every_page_loads_without_an_error_or_a_request_elsewhere(browser, site: Path, pages: dict[str, Page]):
    found = {}
    with _open(browser) as (page, wrong):
        for name in pages:
            page.goto((site / name).as_uri(), wait_until="load")
            if wrong:
                found[name] = list(wrong)
                wrong.clear()
    assert found == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_scrolls_sideways_at_any_width(browser, site: Path, pages: dict[str, Page], scheme: str):
    wide = []
    with _open(browser, scheme=scheme) as (page, _):
        for name in _looked_at(pages):
            page.goto((site / name).as_uri())
            for width in WIDTHS:
                page.set_viewport_size({"width": width, "height": 900})
                if (got := page.evaluate("document.documentElement.scrollWidth")) > width:
                    wide.append((name, width, got))
    assert wide == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(browser, site: Path, pages: dict[str, Page], axe: str, scheme: str):
    """Every rule in the light; in the dark, where the page is the same but for its colours, the rules on colours."""
    options = {"resultTypes": ["violations"]}
    if scheme == "dark":
        options |= {"runOnly": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}}
    faults = []
    with _open(browser, scheme=scheme) as (page, _):
        for name in _looked_at(pages):
            page.goto((site / name).as_uri())
            page.evaluate(axe)
            result = page.evaluate("options => axe.run(document, options)", options)
            assert len(result["passes"]) > (0 if scheme == "dark" else 10), name
            found = result["violations"]
            faults += [
                (name, v["id"], v["nodes"][0]["html"][:200]) for v in found if v["impact"] in ("serious", "critical")
            ]
    assert faults == []


def test_start_page_is_light_and_soon_there(browser, site: Path):
    loaded: set[str] = set()
    with _open(browser) as (page, wrong):
        page.on("request", lambda r: loaded.add(r.url))
        seconds: list[float] = []
        while len(seconds) < 20 and min(seconds, default=1.0) >= 1.0:  # others may keep the processor busy just then
            page.goto((site / "index.html").as_uri())
            seconds.append(page.evaluate("performance.getEntriesByType('navigation')[0].domInteractive") / 1000)
        assert wrong == []
    files = [Path(u.removeprefix("file://").split("?")[0]) for u in loaded]
    assert sum(f.stat().st_size for f in files if f.suffix not in (".png", ".svg")) < HEAVIEST_START
    assert min(seconds) < 1.0


def test_tables_sort_by_what_is_obtained_in_both_directions(browser, site: Path):
    with _open(browser) as (page, _):
        page.goto((site / RESULTS).as_uri())
        table = page.locator("figure.results-table table:has(tfoot)").first
        values = "t => [...t.tBodies[0].rows].map(r => Number(r.querySelector('.part-obtained').dataset.value))"
        floors = table.locator("tbody.floors tr").count()
        before = table.evaluate(values)
        sorter = table.locator("thead th.part-obtained button").first
        sorter.click()
        assert table.evaluate(values) == sorted(before)
        assert table.locator("[aria-sort=ascending]").count() == 1
        sorter.press("Enter")
        assert table.evaluate(values) == sorted(before, reverse=True)
        assert before not in (sorted(before), sorted(before, reverse=True))
        assert table.locator("tbody.floors tr").count() == floors > 0


def test_hidden_columns_stay_hidden_after_a_reload_and_on_other_pages(browser, site: Path):
    with _open(browser) as (page, _):
        page.goto((site / RESULTS).as_uri())
        box = page.locator("input[data-part=published]").first
        cells = page.locator("td.part-published:visible")
        assert cells.count() > 50
        box.uncheck()
        assert cells.count() == 0
        heads = "() => [...document.querySelectorAll('table:has(tfoot)')].every(t => { const cells = r => [...r.cells]"
        heads += ".filter(c => getComputedStyle(c).display !== 'none').reduce((n, c) => n + c.colSpan, 0); "
        heads += "return cells(t.tHead.rows[0]) === cells(t.tBodies[0].rows[0]); })"
        assert page.evaluate(heads)
        page.reload()
        assert cells.count() == 0
        assert page.evaluate(heads)
        page.goto((site / "generated/results/covae.html").as_uri())
        assert page.locator("td.part-obtained:visible").count() > 50
        assert cells.count() == 0
        page.locator("input[data-part=published]").first.check()
        assert cells.count() > 0


def test_profiles_are_filtered(browser, site: Path):
    with _open(browser) as (page, _):
        page.goto((site / RESULTS).as_uri())
        profiles = "() => [...new Set([...document.querySelectorAll('.result')].filter(x => x.checkVisibility())"
        profiles += ".map(x => x.dataset.profile))].sort()"
        assert page.evaluate(profiles) == ["overnight", "paper", "quick"]
        page.select_option("select[data-filter]", "quick")
        assert page.evaluate(profiles) == ["quick"]
        page.reload()
        assert page.evaluate(profiles) == ["quick"]


def test_picker_changes_its_pictures(browser, site: Path):
    sources = "() => [...document.querySelectorAll('#image-rows img')].map(i => [i.getAttribute('src'), i.alt])"
    loaded = "() => [...document.querySelectorAll('#image-rows img')].every(i => i.complete && i.naturalWidth > 0)"
    with _open(browser) as (page, wrong):
        page.goto((site / "samples.html").as_uri())
        seen = []
        for name in page.eval_on_selector_all("#image-dataset option", "x => x.map(o => o.value)"):
            page.select_option("#image-dataset", name)
            for observed in page.eval_on_selector_all("#image-observed option", "x => x.map(o => o.value)"):
                page.select_option("#image-observed", observed)
                for model in page.eval_on_selector_all("#image-model option", "x => x.map(o => o.value)"):
                    page.select_option("#image-model", model)
                    page.wait_for_function(loaded)
                    seen.append(str(page.evaluate(sources)))
        assert len(seen) > 50
        assert all(seen)
        assert len(set(seen)) == len(seen)
        assert wrong == []


def test_scatter_and_correlations_can_be_switched(browser, site: Path):
    drawn = "() => document.getElementById('scatter-canvas').toDataURL()"
    with _open(browser) as (page, _):
        page.goto((site / "samples.html").as_uri())
        pictures = [page.evaluate(drawn)]
        for name in page.eval_on_selector_all("#scatter-model option", "x => x.map(o => o.value)")[1:]:
            page.select_option("#scatter-model", name)
            pictures.append(page.evaluate(drawn))
        for box in ("#scatter-true", "#scatter-generated"):
            page.uncheck(box)
            pictures.append(page.evaluate(drawn))
        assert len(set(pictures)) == len(pictures) > 5
        tables = []
        for name in page.eval_on_selector_all("#correlation-measure option", "x => x.map(o => o.value)"):
            page.select_option("#correlation-measure", name)
            tables.append(page.inner_text("#correlation-table"))
        assert len(set(tables)) == len(tables) == 3


@pytest.mark.parametrize("name", ["generated/results/sbm_vae.html", "samples.html"])
def test_keyboard_alone_reaches_everything(browser, site: Path, name: str):
    wanted = "() => [...document.querySelectorAll('article a[href], article button, article input, article select,"
    wanted += " article [tabindex]')].filter(e => e.checkVisibility({visibilityProperty: true}) && e.tabIndex >= 0)"
    with _open(browser) as (page, _):
        page.goto((site / name).as_uri())
        count = page.evaluate(f"() => {{ window.wanted = ({wanted})(); return window.wanted.length; }}")
        assert count > 10
        page.evaluate(
            "() => { window.reached = new Set(); document.addEventListener('focusin', e => reached.add(e.target)); }"
        )
        for _ in range(count + 150):
            page.keyboard.press("Tab")
        missed = page.evaluate("() => window.wanted.filter(e => !reached.has(e)).map(e => e.outerHTML.slice(0, 120))")
        assert missed == []


def test_without_scripts_nothing_is_shown_that_needs_one(browser, site: Path):
    """Tables and figures are there; what only a script answers is not, and is said where it is the page's matter."""
    parts = "article select, article input, article canvas"
    dead = f"[...document.querySelectorAll('{parts}')].filter(e => e.checkVisibility()).length"
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    for name in (RESULTS, "samples.html", "index.html"):
        page.goto((site / name).as_uri())
        assert page.evaluate(dead) == 0, name
        if name == RESULTS:
            assert page.locator("td.part-obtained:visible").count() > 50
        if name == "samples.html":
            assert page.locator("noscript:visible").count() == 3
    context.close()


def test_no_id_is_given_twice(browser, site: Path, pages: dict[str, Page]):
    twice = "[...document.querySelectorAll('[id]')].map(e => e.id).filter((x, i, all) => all.indexOf(x) !== i)"
    found = {}
    with _open(browser) as (page, _):
        for name in _looked_at(pages):
            page.goto((site / name).as_uri())
            if ids := page.evaluate(twice):
                found[name] = ids
    assert found == {}
