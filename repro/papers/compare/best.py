"""Which row of a column is the best, and whether by more than two standard errors."""

from __future__ import annotations

from collections.abc import Sequence

from repro.report.cells import Claim, agreement
from repro.report.tables import Column, Row

__all__ = ["best_note"]

FINER = 4  # numbers of decimals tried, the column's own first


def best_note(column: Column, rows: Sequence[Row]) -> Claim | None:
    """Whether a column's best row differs from the second by more than two standard errors; None for under two rows.

    Values with a caveat, such as those from chains that do not mix, take no part. Where several rows share the best
    mean to three decimals more than are printed, none of them is the best, and all are named.

    Arguments:
        column: With a direction.
        rows: The rows that compete.
    """
    known = [(row.label, cell) for row in rows if (cell := row.cells[column.key]).mean is not None and not cell.caveat]
    if len(known) < 2:
        return None
    (first, best), (second, other) = sorted(known, key=lambda x: x[1].mean, reverse=column.better == "higher")[:2]
    finest = [*range(column.decimals, column.decimals + FINER)]  # unequal means are not printed as equal ones
    decimals = next((n for n in finest if f"{best.mean:.{n}f}" != f"{other.mean:.{n}f}"), None)
    if decimals is None:
        alike = f"{best.mean:.{finest[-1]}f}"
        *others, last = [label for label, cell in known if f"{cell.mean:.{finest[-1]}f}" == alike]
        shared = f"{', '.join(others)} and {last} share the best mean, {best.mean:.{column.decimals}f}"
        return Claim(f"{column.group}, {column.label}: {shared}.")
    numbers = f"{best.mean:.{decimals}f} against {other.mean:.{decimals}f}"
    text = f"{column.group}, {column.label}: {first} is the best, {numbers} of {second}"
    same = agreement(best, other)
    if same is None:
        return Claim(f"{text}; one seed, which tells of no spread.")
    if same:
        return Claim(f"{text}, from which it does not differ by more than two standard errors.")
    return Claim(f"{text}, by more than two standard errors.")
