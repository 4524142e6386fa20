"""Tables of obtained against published values, their verdict, and their rendering to Markdown and LaTeX."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from repro.report import markdown
from repro.report.cells import Cell, CellVerdict, Claim, ColumnVerdict, Number, Verdict, rank_correlation
from repro.report.latex import HEADER, escaped, floating
from repro.report.plain_tables import PlainTable

__all__ = ["Column", "Row", "RowGroup", "Table", "join_tables", "latex_parts"]

_ARROWS = {"lower": " ↓", "higher": " ↑", None: ""}

_Line = list[tuple[str, bool]]  # text and whether it is bold, for every column of the printed table


@dataclass(frozen=True)
class Column:
    """One metric of a table.

    Arguments:
        key: The name that rows refer to it by.
        label: The heading.
        better: ``"lower"`` or ``"higher"``; None where neither is better, and then there is no winner.
        decimals: Digits after the point of obtained values; published ones are shown as they were printed.
        group: A heading above neighbouring columns of the same group; empty for none.

    Raises:
        ValueError: If ``better`` is unknown or ``decimals`` is negative.
    """

    key: str
    label: str
    better: str | None = None
    decimals: int = 2
    group: str = ""

    def __post_init__(self) -> None:
        if self.better not in _ARROWS:
            raise ValueError(f"column {self.key!r}: better is {self.better!r}, must be 'lower', 'higher' or None")
        if self.decimals < 0:
            raise ValueError(f"column {self.key!r}: decimals is {self.decimals}, must not be negative")


@dataclass(frozen=True)
class Row:
    """A labelled row: one cell for each column key."""

    label: str
    cells: Mapping[str, Cell]


@dataclass(frozen=True)
class RowGroup:
    """Further rows under a title below the table's own; they take no part in winners and ranks."""

    title: str
    rows: Sequence[Row]


@dataclass(frozen=True)
class Table:
    """Obtained against published values.

    Arguments:
        caption: What the table shows, and of which paper.
        provenance: What it was measured with: profile, number of seeds, commits, device.
        columns: The metrics.
        rows: The methods that are compared; winners and ranks are taken over these.
        floors: Rows of the noise floor: the metrics between two true samples.
        groups: Rows under the table, such as ablations.
        notes: Sentences under the table.
        published_seeds: Runs that each published value averages, None if unknown.
        no_verdict: Why the table says nothing of agreement, of winners or of claims; empty where it does.
        unsettled: Why the runs do not settle which model is the best; empty where they do.
        derived: Whether its cells are made of another table's rows together, as ranks are: no model is added to it.

    Raises:
        ValueError: If a caption is empty, a key or label is repeated, or a row's cells are not the columns'.
    """

    caption: str
    provenance: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    floors: Sequence[Row] = ()
    groups: Sequence[RowGroup] = ()
    notes: Sequence[str] = ()
    published_seeds: int | None = None
    no_verdict: str = ""
    unsettled: str = ""
    derived: bool = False

    def __post_init__(self) -> None:
        if not self.caption.strip() or not self.provenance.strip():
            raise ValueError("a table needs a caption and its provenance (profile, seeds, commits, device)")
        keys = self._keys
        blocks = [("columns", keys), ("rows", [row.label for row in self.rows])]
        blocks += [(group.title, [row.label for row in group.rows]) for group in self.groups]
        for name, labels in blocks:
            repeated = sorted({label for label in labels if labels.count(label) > 1})
            if repeated or not labels:
                raise ValueError(
                    f"table {self.caption!r}: {name} " + (f"repeat {repeated}" if repeated else "is empty")
                )
        for row in self._all_rows():
            if set(row.cells) != set(keys):
                raise ValueError(f"table {self.caption!r}, row {row.label!r}: cells {sorted(row.cells)}, not {keys}")

    def not_settled(self, reason: str) -> Table:
        """The same numbers, which do not settle which model is the best, and why; empty changes nothing."""
        return replace(self, unsettled=reason)

    def without_verdict(self, reason: str) -> Table:
        """The same numbers without any verdict, and why."""
        return replace(self, no_verdict=reason)

    @property
    def _keys(self) -> list[str]:
        return [column.key for column in self.columns]

    def _all_rows(self) -> list[Row]:
        return [*self.rows, *self.floors, *(row for group in self.groups for row in group.rows)]

    @property
    def measured_with(self) -> str:
        """What its numbers were measured with."""
        return self.provenance

    def numbers(self) -> Iterator[Number]:
        """Every cell, and where it stands: the table's own rows in a block without a title."""
        blocks = [("", self.rows), ("floors", self.floors), *((group.title, group.rows) for group in self.groups)]
        for block, rows in blocks:
            for row in rows:
                for c in self.columns:
                    heading = f"{c.group} {c.label}".strip()
                    yield Number((self.caption, block, row.label, c.key), heading, c.decimals, row.cells[c.key])

    def winners(self, key: str, *, published: bool, comparable: bool = False) -> tuple[str, ...]:
        """Returns the labels of the rows with the best value of a column, published or obtained.

        Arguments:
            key: The column's key.
            published: Whether to take published values rather than obtained means.
            comparable: Whether to leave out rows that lack either value.
        """
        better = next(column.better for column in self.columns if column.key == key)
        pairs = [(row.label, row.cells[key]) for row in self.rows]
        if comparable:
            pairs = [(label, cell) for label, cell in pairs if cell.difference is not None]
        if not published:
            pairs = [(label, cell) for label, cell in pairs if not cell.caveat]
        values = {label: cell.published if published else cell.mean for label, cell in pairs}
        known = {label: value for label, value in values.items() if value is not None}
        if better is None or not known:
            return ()
        best = (min if better == "lower" else max)(known.values())
        return tuple(label for label, value in known.items() if value == best)

    def _has_rivals(self, key: str) -> bool:
        """Whether several rows have values of a column, of which the best is set in bold."""
        return bool(self.winners(key, published=False)) and sum(row.cells[key].n > 0 for row in self.rows) > 1

    def verdict(self) -> Verdict:
        """Compares every cell with its published value, and every column's order with the published order."""
        columns = []
        for column in self.columns:
            cells = [cell for row in self.rows if (cell := row.cells[column.key]).difference is not None]
            published = self.winners(column.key, published=True, comparable=True)
            obtained = self.winners(column.key, published=False, comparable=True)
            same = set(obtained) <= set(published) if column.better and len(cells) > 1 else None
            ranked = [cell for cell in cells if not cell.caveat]
            correlation = rank_correlation([cell.published for cell in ranked], [cell.mean for cell in ranked])
            columns.append(ColumnVerdict(column.key, published, obtained, same, correlation, len(cells)))
        cells = tuple(
            CellVerdict(row.label, key, row.cells[key], row.cells[key].agrees(self.published_seeds))
            for row in self._all_rows()
            for key in self._keys
        )
        return Verdict(cells, tuple(columns))

    def to_markdown(self) -> str:
        """Returns the table in GitHub's Markdown, ending in a newline."""

        def line(texts: _Line) -> str:
            cells = [markdown.escaped(text) for text, _ in texts]
            marked = [f"**{cell}**" if bold else cell for cell, (_, bold) in zip(cells, texts, strict=True)]
            return "| " + " | ".join(marked) + " |"

        header = [("Model", False), ("", False)]
        header += [(f"{c.group} {c.label}".strip() + _ARROWS[c.better], False) for c in self.columns]
        lines = [f"**{markdown.escaped(self.caption)}**", "", markdown.escaped(self.provenance), "", line(header)]
        lines.append("|:--|:--|" + "--:|" * len(self.columns))
        for title, block in self._blocks():
            if title:
                lines.append(f"| *{markdown.escaped(title)}* |" + " |" * (len(self.columns) + 1))
            lines += [line(texts) for texts in block]
        lines += [part for note in self.all_notes() for part in ("", markdown.escaped(note))]
        return "\n".join(lines) + "\n"

    def to_latex(self, label: str | None = None) -> str:
        r"""Returns the table as a LaTeX float, for a document that loads booktabs and graphicx, ending in a newline.

        Arguments:
            label: The key for ``\ref``; no label if None.
        """

        def line(texts: _Line) -> str:
            cells = [escaped(text) for text, _ in texts]
            marked = [rf"\textbf{{{cell}}}" if bold else cell for cell, (_, bold) in zip(cells, texts, strict=True)]
            return " & ".join(marked) + r" \\"

        lines = []
        spans = [(group, len(list(columns))) for group, columns in groupby(self.columns, key=lambda c: c.group)]
        if any(group for group, _ in spans):
            heads = [rf"\multicolumn{{{n}}}{{c}}{{{escaped(group)}}}" for group, n in spans]
            ends = [2 + sum(n for _, n in spans[: k + 1]) for k in range(len(spans))]
            rules = [rf"\cmidrule(lr){{{e - n + 1}-{e}}}" for (g, n), e in zip(spans, ends, strict=True) if g]
            lines += [" & ".join(["", "", *heads]) + r" \\", " ".join(rules)]
        lines.append(
            line([("Model", False), ("", False), *((c.label + _ARROWS[c.better], False) for c in self.columns)])
        )
        for title, block in self._blocks():
            lines.append(r"\midrule")
            if title:
                lines.append(rf"\multicolumn{{{len(self.columns) + 2}}}{{l}}{{\textit{{{escaped(title)}}}}} \\")
            lines += [line(texts) for texts in block]
        caption = f"{escaped(self.caption)}. {escaped(self.provenance)}"
        notes = [escaped(note) for note in self.all_notes()]
        return floating(caption, label, "ll" + "r" * len(self.columns), lines, notes)

    def _all_cells(self) -> list[Cell]:
        return [row.cells[key] for row in self._all_rows() for key in self._keys]

    def reasons(self) -> dict[str, int]:
        """The distinct reasons and caveats of its cells, numbered in the order in which they appear."""
        distinct = dict.fromkeys(text for cell in self._all_cells() if (text := cell.reason or cell.caveat))
        return {reason: number for number, reason in enumerate(distinct, 1)}

    def _common_n(self) -> int:
        return statistics.mode([cell.n for cell in self._all_cells() if cell.n] or [0])

    def _blocks(self) -> list[tuple[str, list[_Line]]]:
        """Returns the printed lines in blocks: the rows, the floors, the verdict, and the groups with their titles."""
        measured = {c.key: sum(row.cells[c.key].n > 0 for row in self.rows) for c in self.columns}
        best = {key: self.winners(key, published=False) if measured[key] > 1 else () for key in self._keys}
        blocks = [("", [line for row in self.rows for line in self._lines(row, best)])]
        blocks += [("", [line for row in self.floors for line in self._lines(row, {})])] if self.floors else []
        columns = self.verdict().columns
        if any(column.num_rows > 1 for column in columns) and not self.no_verdict:
            expected = sum(any(cell.published is not None for cell in row.cells.values()) for row in self.rows)
            suffix = [f" ({c.num_rows} of {expected} rows)" if 0 < c.num_rows < expected else "" for c in columns]
            said = {True: "yes", False: "no", None: "—"}
            if self.unsettled:
                said |= dict.fromkeys((True, False), "not settled")
            same = [said[c.same_winner] for c in columns]
            rank = ["—" if c.rank_correlation is None else _number(c.rank_correlation, 2) for c in columns]
            verdict = []
            for name, values in (("Best model as published", same), ("Rank correlation with published", rank)):
                if len(set(suffix)) == 1:
                    verdict.append([(text, False) for text in (name + suffix[0], "", *values)])
                    continue
                texts = [value + ("" if value == "—" else s) for value, s in zip(values, suffix, strict=True)]
                verdict.append([(text, False) for text in (name, "", *texts)])
            blocks.append(("", verdict))
        groups = [(group.title, [line for row in group.rows for line in self._lines(row, {})]) for group in self.groups]
        return blocks + groups

    def _lines(self, row: Row, best: Mapping[str, Sequence[str]]) -> list[_Line]:
        """Returns a row's line of obtained values and, where the source has any, its line of published ones."""
        obtained: _Line = [(row.label, False), ("obtained", False)]
        published: _Line = [("", False), ("published", False)]
        for column in self.columns:
            cell, digits = row.cells[column.key], column.decimals
            if cell.mean is None:
                text = f"— [{self.reasons()[cell.reason]}]"
            else:
                text = _number(cell.mean, digits)
                if cell.std is not None:
                    tiny = 0 < cell.std < 0.5 * 10**-digits
                    text += f" ± {'<' if tiny else ''}{_number(10**-digits if tiny else cell.std, digits)}"
                text += "" if cell.n == self._common_n() else f" (n = {cell.n})"
                text += f" [{self.reasons()[cell.caveat]}]" if cell.caveat else ""
            obtained.append((text, row.label in best.get(column.key, ())))
            text = "—" if cell.published is None else str(cell.published).replace("-", "−")
            if cell.difference is not None:
                marked = not self.no_verdict and cell.agrees(self.published_seeds)
                text += f" ({_number(cell.difference, digits, sign='+')})" + "†" * bool(marked)
            published.append((text, False))
        has_published = any(cell.published is not None for cell in row.cells.values())
        return [obtained, published] if has_published else [obtained]

    def all_notes(self, apart: bool = False) -> list[str]:
        """How to read the table, the reasons of what is missing, and the table's own notes.

        Arguments:
            apart: Whether differences stand in columns of their own with their verdicts as words, not in brackets.
        """
        cells, n, notes = self._all_cells(), self._common_n(), []
        if n and not self.derived:
            spread = "mean ± standard deviation over" if n > 1 else "the value of"
            bold = "; best mean in bold" * any(column.better is not None for column in self.columns)
            notes.append(f"Obtained: {spread} n = {n} seed{'s' * (n > 1)} unless stated{bold}.")
        if any(cell.difference is not None for cell in cells):
            m = self.published_seeds
            error = "s/√n" if m is None else f"s √(1/n + 1/{m})"
            note = "Difference: obtained − published" if apart else "In brackets: obtained − published"
            if any(cell.agrees(m) is not None for cell in cells) and not self.no_verdict:
                mark = "agrees where" if apart else "†"
                note += f"; {mark} it is within two standard errors, 2 {error} with s the standard deviation over seeds"
            notes.append(note + ".")
        notes += [f"[{number}] {reason}" for reason, number in self.reasons().items()]
        if self.no_verdict:
            return [*notes, *(n for n in self.notes if not isinstance(n, Claim)), self.no_verdict]
        if self.unsettled and any(self._has_rivals(column.key) for column in self.columns):
            notes.append(f"Which model is the best is not settled: {self.unsettled}.")
        return [*notes, *self.notes]


def join_tables(tables: Sequence[Table | PlainTable], label: str) -> dict[str, str]:
    """Files of several tables of one artifact, one below the other: ``md`` and ``tex``, labels counted from the second.

    Arguments:
        tables: From the first on the page; no file where there are none.
        label: Of the first in LaTeX.
    """
    if not tables:
        return {}
    return {"md": "\n".join(t.to_markdown() for t in tables), "tex": latex_parts(tables, label)}


def latex_parts(tables: Sequence[Table | PlainTable], label: str, part: int | None = None) -> str:
    """One float a table, under a comment that names the packages; labels are counted from the second part.

    Arguments:
        tables: The parts of an artifact.
        label: The first part's; the second part's ends in ``-2``.
        part: The number of the only part that is wanted, from 1; all if None.

    Raises:
        ValueError: If there is no such part.
    """
    if part is not None and not 1 <= part <= len(tables):
        raise ValueError(f"part is {part}, there are {len(tables)}")
    floats = [t.to_latex(label if i == 0 else f"{label}-{i + 1}") for i, t in enumerate(tables)]
    return HEADER + "\n".join(floats if part is None else [floats[part - 1]])


def _number(value: float, decimals: int, sign: str = "") -> str:
    return f"{value:{sign}.{decimals}f}".replace("-", "−")
