"""Tables as HTML: every number is there, text is escaped, verdicts are words, and links lead from values."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from repro.report.cells import Cell, Shown
from repro.report.html import badge, inline, page, table_html
from repro.report.plain_tables import PlainTable
from repro.report.tables import Column, Row, RowGroup, Table

COLUMNS = [Column("a", "A <b>", better="lower"), Column("b", "B", better="higher", decimals=1)]
TABLE = Table(
    "A caption & more",
    "Profile paper.",
    COLUMNS,
    [
        Row("one", {"a": Cell(2.0, (1.9, 2.1)), "b": Cell(obtained=(3.0,))}),
        Row("two", {"a": Cell(9.0, (1.0, 1.2)), "b": Cell(reason="not run <yet>")}),
    ],
    floors=[Row("floor", {"a": Cell(obtained=(0.5,)), "b": Cell(obtained=(0.1,))})],
    groups=[RowGroup("Further", [Row("one", {"a": Cell(obtained=(7.0,)), "b": Cell(obtained=(-7.0,))})])],
    notes=["Made by `repro run`."],
)


class _Parsed(HTMLParser):
    """Tags in order, and the text of every cell."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attrs)))
        if tag not in ("input", "img", "meta"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def test_every_number_stands_in_its_column_and_every_tag_is_closed():
    found = _Parsed(table_html(TABLE))
    assert found.open == []
    assert found.rows[0] == ["model", "A <b> ↓", "B ↑"]
    assert found.rows[1] == ["published", "obtained", "difference", "obtained"]  # nothing is published of B
    assert found.rows[2] == ["one", "2.0", "2.00 ± 0.14 n = 2", "+0.00 agrees", "3.0 n = 1"]
    assert found.rows[3] == ["two", "9.0", "1.10 ± 0.14 n = 2", "−7.90 differs", "—[1]"]
    assert found.rows[5][0] == "floor"
    assert found.rows[6] == ["Further"]
    assert found.rows[7][-1] == "−7.0 n = 1"


def test_values_sort_as_numbers_and_the_best_is_bold():
    text = table_html(TABLE)
    values = [float(a["data-value"]) for tag, a in _Parsed(text).attributes if tag == "td" and "data-value" in a]
    assert values[:3] == pytest.approx([2.0, 2.0, 0.0])
    assert "<strong>1.10" in text
    assert "<strong>2.00" not in text


def test_links_lead_from_obtained_values_alone():
    asked = []
    text = table_html(TABLE, lambda place: asked.append(place) or f"records/{place[2]}?a=1&b=2")
    links = [a["href"] for tag, a in _Parsed(text).attributes if tag == "a"]
    assert (
        links
        == ["records/one?a=1&b=2"] * 2
        + ["records/two?a=1&b=2"]
        + ["records/floor?a=1&b=2"] * 2
        + ["records/one?a=1&b=2"] * 2
    )
    assert (TABLE.caption, "Further", "one", "b") in asked


def test_without_a_verdict_none_is_said():
    text = table_html(TABLE.without_verdict("These runs show that everything works."))
    assert "agrees</span>" not in text
    assert "differs" not in text
    assert "<tfoot>" not in text
    assert "These runs show that everything works." in text


def test_reasons_and_notes_are_said_with_code_and_nothing_is_taken_for_a_tag():
    text = table_html(TABLE)
    assert "[1] not run &lt;yet&gt;" in text
    assert "Made by <code>repro run</code>." in text
    assert "<yet>" not in text
    assert "†" not in text


def test_plain_tables_link_from_cells_that_say_something():
    cell = Shown("2.0 ± 0.1", Cell(obtained=(1.9, 2.1)))
    table = PlainTable("Title", ("name", "value", "empty"), (("x | <y>", cell, ""),), ("A note",))
    found = _Parsed(table_html(table, lambda place: f"records/{place[3]}"))
    assert found.rows[-1] == ["x | <y>", "2.0 ± 0.1", ""]
    assert [a["href"] for tag, a in found.attributes if tag == "a"] == ["records/name", "records/value"]


def test_a_page_stands_alone_and_its_title_is_text():
    found = _Parsed(page("<script>", table_html(TABLE)).removeprefix("<!doctype html>"))
    assert not [a for _, a in found.attributes if "src" in a or "href" in a]
    assert "&lt;script&gt;" in page("<script>", "")


def test_inline_code_and_lone_backticks():
    assert inline("a `b<c>` d") == "a <code>b&lt;c&gt;</code> d"
    assert inline("a ` b & c") == "a ` b &amp; c"
    assert badge("not run", "none") == '<span class="verdict none">not run</span>'
