"""Tables of text: settings and architectures, printed as Markdown or LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from repro.report import markdown
from repro.report.cells import Claim, Number, Shown
from repro.report.latex import escaped, floating

__all__ = ["NONE", "PlainTable", "make_command", "yes_no"]

NONE = "—"  # a cell with nothing to say


def yes_no(value: bool) -> str:
    """The cell of a column of truth values."""
    return "yes" if value else "no"


def make_command(target: str, profile: str) -> str:
    """What makes an artifact in a profile: ``make gmrf-table1``, ``make gmrf-table1 PROFILE=quick``.

    The profile that a CPU takes nights for says so itself (``ARGS=--long``), without which it is asked there.
    """
    chosen = "" if profile == "paper" else f" PROFILE={profile}"
    return f"make {target}{chosen}" + (" ARGS=--long" if profile == "overnight" else "")


@dataclass(frozen=True)
class PlainTable:
    """A table whose cells are text.

    Arguments:
        title: One line.
        columns: Headings.
        rows: Cells, as many in each row as there are headings; measured ones are :class:`~repro.report.cells.Shown`.
        notes: Sentences printed under the table.
        named_by: Headings of the columns that tell a row from the others; the first if empty.

    Raises:
        ValueError: If a row has another number of cells.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    named_by: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{self.title}: row {row} has {len(row)} cells for {len(self.columns)} columns")

    def not_settled(self, reason: str) -> PlainTable:
        """The table itself: it names no best model."""
        return self

    def without_verdict(self, reason: str) -> PlainTable:
        """The same cells without the notes that are verdicts, and why."""
        kept = tuple(note for note in self.notes if not isinstance(note, Claim))
        return replace(self, notes=(*kept, reason)) if kept != self.notes else self

    @property
    def measured_with(self) -> str:
        """What its numbers were measured with: the last note, by this package's custom."""
        return self.notes[-1] if self.notes else ""

    @property
    def status(self) -> str:
        """The note that says of which runs the table is, which is printed first; empty of tables of no runs."""
        return self.measured_with if "Profile " in self.measured_with else ""

    def numbers(self) -> Iterator[Number]:
        """Every cell that carries its numbers, and where it stands."""
        named = self.named_by or self.columns[:1]
        for row in self.rows:
            parts = dict(zip(self.columns, row, strict=True))
            label = ", ".join(parts[name] for name in named)
            for heading, text in parts.items():
                if isinstance(text, Shown):
                    yield Number((self.title, "", label, heading), heading, None, text.cell)

    def column(self, name: str) -> tuple[str, ...]:
        """The cells of one column, from the top.

        Raises:
            ValueError: If there is no such column.
        """
        if name not in self.columns:
            raise ValueError(f"{self.title}: no column {name!r}, one of {', '.join(self.columns)}")
        index = self.columns.index(name)
        return tuple(row[index] for row in self.rows)

    def to_markdown(self) -> str:
        """The title in bold, what it was measured with, a pipe table, and the other notes as a list."""
        lines = [[markdown.escaped(cell) for cell in line] for line in (self.columns, *self.rows)]
        lines.insert(1, ["---"] * len(self.columns))
        table = ["| " + " | ".join(line) + " |" for line in lines]
        status = self.status
        under = [note for note in self.notes if note != status]
        notes = ["", *(f"- {markdown.escaped(note)}" for note in under)] if under else []
        head = [f"**{markdown.escaped(self.title)}**", "", *([markdown.escaped(status), ""] if status else [])]
        return "\n".join([*head, *table, *notes]) + "\n"

    def to_csv(self) -> str:
        """Headings and rows as comma-separated text."""
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([self.columns, *self.rows])
        return out.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """Title, headings, rows and notes as plain JSON values."""
        return {"table": self.title, "columns": self.columns, "rows": self.rows, "notes": self.notes}

    def to_latex(self, label: str | None = None) -> str:
        """The table as a LaTeX float, for a document that loads booktabs and graphicx.

        Arguments:
            label: Label to refer to the table by, none if None.
        """
        first, *others = [" & ".join(escaped(cell) for cell in line) + r" \\" for line in (self.columns, *self.rows)]
        notes = [escaped(note) for note in self.notes]
        return floating(escaped(self.title), label, "l" * len(self.columns), [first, r"\midrule", *others], notes)
