"""Yours beside recorded beside published: the tables of two sources of records, joined cell by cell."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from repro.report.cells import Cell, agreement
from repro.report.plain_tables import NONE, PlainTable
from repro.report.tables import Table
from repro.report.text import columns

__all__ = ["FORMULA", "JoinedCell", "Joint", "join"]

FORMULA = (
    "|yours − recorded| ≤ 2 √(s_y²/n_y + s_r²/n_r), s the standard deviation over each side's n seeds; a side of one "
    "seed takes the other side's s"
)
MOST_NAMED = 8  # cells that do not agree, before the rest are counted only


@dataclass(frozen=True)
class JoinedCell:
    """One metric of one row: what is published, what is recorded, and yours.

    Arguments:
        table: The caption of its table.
        block: The title of the rows that it stands among; empty for the table's own, ``"floors"`` for noise floors.
        row: The row's label.
        column: The column's heading.
        recorded: The recorded values, None where there is no such record.
        yours: Your values, None where there is no such run.
        decimals: Digits after the point, None for four significant ones.
    """

    table: str
    block: str
    row: str
    column: str
    recorded: Cell | None
    yours: Cell | None
    decimals: int | None = None

    @property
    def published(self) -> float | None:
        """The published value, None where the source has none."""
        return next(
            (c.published for c in (self.recorded, self.yours) if c is not None and c.published is not None), None
        )

    @property
    def agrees(self) -> bool | None:
        """See :func:`repro.report.cells.agreement`."""
        return agreement(self.recorded, self.yours)

    @property
    def name(self) -> str:
        """Row and column, to tell the cell by."""
        return f"{self.row}, {self.column}"


@dataclass(frozen=True)
class Joint:
    """The joined tables of an artifact.

    Arguments:
        cells: Every measured or published cell, table by table.
        recorded: What the recorded side was measured with; None without one.
        yours: What your side was measured with; None without one.
        no_verdict: Why nothing is said of agreement; empty where it is.
    """

    cells: Sequence[JoinedCell]
    recorded: str | None
    yours: str | None
    no_verdict: str = ""

    @property
    def head(self) -> list[JoinedCell]:
        """The cells of the first table's own rows, which are printed."""
        return [c for c in self.cells if c.table == self.cells[0].table and not c.block]

    def counts(self, cells: Sequence[JoinedCell]) -> tuple[int, int]:
        """In how many cells yours agrees with the recorded value, and how many could be compared."""
        known = [c.agrees for c in cells if c.agrees is not None]
        return sum(known), len(known)

    def verdict(self) -> list[str]:
        """What is to be said of agreement: of the printed cells first, of all others of the artifact after."""
        if self.no_verdict:
            return [self.no_verdict]
        if self.recorded is None or self.yours is None:
            return []
        agree, known = self.counts(self.head)
        if known == 0:
            lines = ["Yours and the recorded values cannot be compared: one seed on each side tells of no spread."]
        else:
            lines = [
                f"Yours agrees with the recorded value in {agree} of {known} cells, within two standard errors: "
                f"{FORMULA}."
            ]
            lines += self._differing(self.head)
            lone = [c for c in self.head if c.agrees is None and _values(c.yours) and _values(c.recorded)]
            lines += [f"Not compared, with one seed on each side: {len(lone)} cells."] if lone else []
        printed = {id(c) for c in self.head}
        others = [c for c in self.cells if id(c) not in printed]
        agree, known = self.counts(others)
        if known:
            lines.append(f"Its other rows and tables, which `repro show` writes with --csv: {agree} of {known}.")
        return lines

    def _differing(self, cells: Sequence[JoinedCell]) -> list[str]:
        names = [c.name for c in cells if c.agrees is False]
        more = f"; and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        return [f"Not: {'; '.join(names[:MOST_NAMED])}{more}."] if names else []

    def table(self) -> PlainTable:
        """The printed cells as one table with its verdict."""
        both = self.recorded is not None and self.yours is not None and not self.no_verdict
        sides = [("recorded", self.recorded), ("yours", self.yours)]
        columns = ["model", "metric", "published", *(name for name, there in sides if there is not None)]
        rows, before = [], ""
        for c in self.head:
            row = ["" if c.row == before else c.row, c.column]
            row.append(NONE if c.published is None else f"{c.published:g}".replace("-", "−"))
            cells = {"recorded": c.recorded, "yours": c.yours}
            row += [_shown(cells[name], c.decimals) for name, there in sides if there is not None]
            row += [{True: "yes", False: "no", None: NONE}[c.agrees]] * both
            rows.append(tuple(row))
            before = c.row
        notes = [f"{name.capitalize()}: {there}" for name, there in sides if there is not None]
        title = self.head[0].table
        return PlainTable(title, (*columns, *["agrees"] * both), tuple(rows), (*notes, *self.verdict()))

    def to_text(self) -> str:
        """The printed cells in aligned columns, and the verdict below."""
        table = self.table()
        body = columns([table.columns, *table.rows])
        return "\n".join([table.title, "", *body, "", *table.notes]) + "\n"

    def to_csv(self) -> str:
        """Every cell of every table, a line each."""
        out = io.StringIO()
        lines = [_flat(c) for c in self.cells]
        writer = csv.DictWriter(out, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
        return out.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """Every cell of every table, as plain JSON values."""
        both = self.recorded is not None and self.yours is not None and not self.no_verdict
        agree, known = self.counts(self.cells)
        return {
            "recorded": self.recorded,
            "yours": self.yours,
            "verdict": {"agree": agree, "compared": known, "formula": FORMULA} if both else None,
            "no_verdict": self.no_verdict or None,
            "cells": [
                {
                    "table": c.table,
                    "block": c.block,
                    "row": c.row,
                    "column": c.column,
                    "published": c.published,
                    "recorded": _numbers(c.recorded),
                    "yours": _numbers(c.yours),
                    "agree": None if self.no_verdict else c.agrees,
                }
                for c in self.cells
            ],
        }


def _values(cell: Cell | None) -> bool:
    return cell is not None and cell.n > 0


def _shown(cell: Cell | None, decimals: int | None) -> str:
    if cell is None or cell.mean is None:
        return NONE

    def number(value: float) -> str:
        return f"{value:.4g}" if decimals is None else f"{value:.{decimals}f}"

    text = number(cell.mean)
    if cell.std is not None:
        least = 10.0 ** -(decimals or 0)
        tiny = decimals is not None and 0 < cell.std < 0.5 * least
        text += f" ± {'<' if tiny else ''}{number(least if tiny else cell.std)}"
    return f"{text} (n = {cell.n})".replace("-", "−")


def _numbers(cell: Cell | None) -> dict[str, Any]:
    if cell is None or cell.mean is None:
        return {"mean": None, "std": None, "n": 0, "missing": None if cell is None else cell.reason}
    return {"mean": cell.mean, "std": cell.std, "n": cell.n}


def _flat(c: JoinedCell) -> dict[str, Any]:
    found: dict[str, Any] = {"table": c.table, "block": c.block, "row": c.row, "column": c.column}
    found["published"] = c.published
    for name, cell in (("recorded", c.recorded), ("yours", c.yours)):
        found |= {f"{name}_{k}": v for k, v in _numbers(cell).items() if k != "missing"}
    return found | {"agree": {True: "yes", False: "no", None: ""}[c.agrees]}


def join(
    recorded: Sequence[Table | PlainTable] | None, yours: Sequence[Table | PlainTable] | None, no_verdict: str = ""
) -> Joint | None:
    """Joins the tables of recorded runs with the same tables of your own.

    Arguments:
        recorded: Tables of the recorded runs; None if there are none.
        yours: Tables of your runs; None if there are none.
        no_verdict: Why nothing is to be said of agreement; empty if it is.

    Returns:
        None where no table holds numbers.
    """
    first, second = ({n.place: n for t in side or () for n in t.numbers()} for side in (recorded, yours))
    cells = []
    for place in dict.fromkeys([*first, *second]):
        one, other = first.get(place), second.get(place)
        shown = one or other
        assert shown is not None  # the place is one side's
        pair = [None if n is None else n.cell for n in (one, other)]
        cell = JoinedCell(*place[:3], shown.heading, *pair, shown.decimals)
        if cell.published is not None or any(map(_values, pair)):
            cells.append(cell)
    if not cells:
        return None
    return Joint(cells, *(side[0].measured_with if side else None for side in (recorded, yours)), no_verdict)
