"""Tables as HTML: published, obtained and difference as columns of their own, which sort and can be hidden."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from html import escape
from importlib.resources import files

from repro.report.cells import Cell, Shown
from repro.report.plain_tables import PlainTable
from repro.report.tables import Column, Row, Table

__all__ = ["Link", "Place", "asset", "badge", "inline", "page", "places", "table_html"]

Place = tuple[str, str, str, str]  # of a cell: caption of its table, title of its block, label of its row, its column
Link = Callable[[Place], str]

PARTS = ("published", "obtained", "difference")
_ARROWS = {"lower": " ↓", "higher": " ↑", None: ""}
_SAID = {True: "yes", False: "no", None: "—"}


def asset(name: str) -> str:
    """The text of ``results.css`` or ``results.js``, which every page of tables needs."""
    return (files("repro.report") / "assets" / name).read_text(encoding="utf-8")


def inline(text: str) -> str:
    """Text for HTML, with code between backticks."""
    parts = escape(" ".join(text.split()), quote=False).split("`")
    if len(parts) % 2 == 0:  # a backtick without its partner
        return "`".join(parts)
    return "".join(f"<code>{p}</code>" if i % 2 else p for i, p in enumerate(parts))


def badge(word: str, kind: str) -> str:
    """A verdict as text and colour.

    Arguments:
        word: What is said.
        kind: ``"good"``, ``"bad"``, ``"open"`` or ``"none"``.
    """
    return f'<span class="verdict {kind}">{escape(word)}</span>'


def places(table: Table | PlainTable) -> Mapping[Place, tuple[object, ...]]:
    """Where every cell stands, and what it shows: obtained numbers, or text."""
    if isinstance(table, Table):
        return {n.place: (*n.cell.obtained, n.cell.reason) for n in table.numbers()}
    found: dict[Place, tuple[object, ...]] = {}
    for row in table.rows:
        for heading, text in zip(table.columns, row, strict=True):
            numbers = text.cell.obtained if isinstance(text, Shown) else ()
            found[_plain_place(table, row, heading)] = (*numbers, str(text))
    return found


def _plain_place(table: PlainTable, row: tuple[str, ...], heading: str) -> Place:
    parts = dict(zip(table.columns, row, strict=True))
    return table.title, "", ", ".join(parts[name] for name in table.named_by or table.columns[:1]), heading


def table_html(table: Table | PlainTable, link: Link = lambda place: "") -> str:
    """A table with its notes.

    Arguments:
        table: What is shown.
        link: The address of the records behind a cell, empty where there are none.
    """
    return _measured(table, link) if isinstance(table, Table) else _plain(table, link)


def _frame(caption: str, bar: str, table: str, notes: Iterable[str]) -> str:
    said = "".join(f"<li>{inline(note)}</li>" for note in notes)
    return (
        f'<figure class="results-table"><figcaption>{inline(caption)}</figcaption>{bar}'
        f'<div class="results-scroll" role="region" tabindex="0" aria-label="{escape(caption, quote=True)}">'
        f"{table}</div>" + (f'<ul class="results-notes">{said}</ul>' if said else "") + "</figure>"
    )


def _sorter(text: str) -> str:
    return f'<button type="button" class="sorter">{inline(text)}</button>'


def _linked(text: str, address: str) -> str:
    return f'<a href="{escape(address, quote=True)}">{text}</a>' if address else text


def _plain(table: PlainTable, link: Link) -> str:
    head = "".join(f'<th scope="col">{_sorter(c or "row")}</th>' for c in table.columns)
    lines = []
    for row in table.rows:
        cells = []
        for i, (heading, text) in enumerate(zip(table.columns, row, strict=True)):
            shown = _linked(inline(text), link(_plain_place(table, row, heading)) if text else "")
            value = f' data-value="{text.cell.mean}"' if isinstance(text, Shown) and text.cell.n else ""
            cells.append(f'<th scope="row">{shown}</th>' if i == 0 else f"<td{value}>{shown}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    body = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    caption = f"{table.title}. {table.status}" if table.status else table.title
    return _frame(caption, "", body, [note for note in table.notes if note != table.status])


def _measured(table: Table, link: Link) -> str:
    rows = [*table.rows, *table.floors, *(row for group in table.groups for row in group.rows)]
    parts = {}
    for column in table.columns:
        cells = [row.cells[column.key] for row in rows]
        published = any(c.published is not None for c in cells)
        parts[column.key] = PARTS if published else ("obtained",)
    some = {part for shown in parts.values() for part in shown}
    boxes = "".join(
        f'<label><input type="checkbox" data-part="{part}" checked> {part}</label>' for part in PARTS if part in some
    )
    bar = f'<div class="results-bar" role="group" aria-label="Columns that are shown">{boxes}</div>'
    bar = bar if len(some) > 1 else ""
    upper = f'<th scope="col" rowspan="2">{_sorter("model")}</th>'
    lower = ""
    for column in table.columns:
        label = f"{column.group} {column.label}".strip() + _ARROWS[column.better]
        shown = parts[column.key]
        upper += f'<th scope="colgroup" data-parts="{" ".join(shown)}" colspan="{len(shown)}">{inline(label)}</th>'
        for part in shown:
            lower += f'<th scope="col" class="part-{part}">{_sorter(part)}</th>'
    bodies = [_body(table, "", table.rows, parts, link)]
    if table.floors:
        bodies.append(_body(table, "floors", table.floors, parts, link, "Reference rows, such as the noise floor"))
    bodies += [_body(table, group.title, group.rows, parts, link, group.title) for group in table.groups]
    html = f"<table><thead><tr>{upper}</tr><tr>{lower}</tr></thead>{''.join(bodies)}{_foot(table, parts)}</table>"
    return _frame(f"{table.caption}. {table.provenance}", bar, html, table.all_notes(apart=True))


def _body(
    table: Table, block: str, rows: Iterable[Row], parts: Mapping[str, tuple[str, ...]], link: Link, title: str = ""
) -> str:
    lines = []
    if title:
        everything = " ".join(part for shown in parts.values() for part in shown)
        span = 1 + sum(map(len, parts.values()))
        lines.append(
            f'<tr class="block"><th scope="rowgroup" data-parts="{everything}" data-more="1" colspan="{span}">'
            f"{inline(title)}</th></tr>"
        )
    best = {c.key: table.winners(c.key, published=False) if not block else () for c in table.columns}
    for row in rows:
        cells = "".join(
            _part(table, column, row.cells[column.key], part, row.label in best[column.key], address)
            for column in table.columns
            for address in (link((table.caption, block, row.label, column.key)),)
            for part in parts[column.key]
        )
        lines.append(f'<tr><th scope="row">{inline(row.label)}</th>{cells}</tr>')
    return f"<tbody{' class=floors' if block == 'floors' else ''}>{''.join(lines)}</tbody>"


def _part(table: Table, column: Column, cell: Cell, part: str, best: bool, address: str) -> str:
    value, text = None, ""
    if part == "published":
        value = cell.published
        text = "—" if value is None else str(value).replace("-", "−")
    elif part == "obtained":
        value = cell.mean
        mark = cell.reason or cell.caveat
        note = f'<sup title="{escape(mark, quote=True)}">[{table.reasons()[mark]}]</sup>' if mark else ""
        shown = "—" if value is None else _obtained(cell, column.decimals)
        shown = f"<strong>{shown}</strong>" if best and value is not None else shown
        text = _linked(shown, address if value is not None else "") + note
    elif cell.difference is not None:
        value = cell.difference
        text = f"{value:+.{column.decimals}f}".replace("-", "−")
        agrees = None if table.no_verdict else cell.agrees(table.published_seeds)
        if agrees is not None:
            text += " " + (badge("agrees", "good") if agrees else badge("differs", "bad"))
    number = "" if value is None else f' data-value="{value}"'
    return f'<td class="part-{part}"{number}>{text}</td>'


def _obtained(cell: Cell, decimals: int) -> str:
    text = f"{cell.mean:.{decimals}f}"
    if cell.std is not None:
        tiny = 0 < cell.std < 0.5 * 10**-decimals
        text += f" ± {'&lt;' if tiny else ''}{10**-decimals if tiny else cell.std:.{decimals}f}"
    return text.replace("-", "−") + f' <span class="seeds">n = {cell.n}</span>'


def _foot(table: Table, parts: Mapping[str, tuple[str, ...]]) -> str:
    verdicts = {v.column: v for v in table.verdict().columns}
    if table.no_verdict or all(v.num_rows < 2 for v in verdicts.values()):
        return ""
    lines = []
    for name in ("Best model as published", "Rank correlation with published"):
        cells = ""
        for key, shown in parts.items():
            v = verdicts[key]
            if name.startswith("Rank"):
                text = "—" if v.rank_correlation is None else f"{v.rank_correlation:.2f}".replace("-", "−")
            elif table.unsettled and v.same_winner is not None:
                text = badge("not settled", "open")
            else:
                text = badge(_SAID[v.same_winner], {True: "good", False: "bad", None: "none"}[v.same_winner])
            if v.num_rows and v.num_rows < len(table.rows):
                text += f' <span class="seeds">{v.num_rows} rows</span>'
            cells += f'<td data-parts="{" ".join(shown)}" colspan="{len(shown)}">{text}</td>'
        lines.append(f'<tr><th scope="row">{name}</th>{cells}</tr>')
    return f"<tfoot>{''.join(lines)}</tfoot>"


def page(title: str, body: str) -> str:
    """A page that stands alone: no other file, no other host.

    Arguments:
        title: Plain text.
        body: HTML.
    """
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{asset('results.css')}</style></head>"
        f'<body class="results-page"><main>{body}</main><script>{asset("results.js")}</script></body></html>\n'
    )
