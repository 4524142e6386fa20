"""Cells of obtained against published values, and what a table's verdict says of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "Cell",
    "CellVerdict",
    "Claim",
    "ColumnVerdict",
    "Number",
    "Shown",
    "Verdict",
    "agreement",
    "rank_correlation",
]


class Claim(str):
    """A note under a table that is a verdict on a claim; left out where the runs cannot bear one."""

    __slots__ = ()


@dataclass(frozen=True)
class Cell:
    """The obtained values of one metric over seeds, or why there are none, beside the published value.

    Arguments:
        published: The published value, None where the source has none.
        obtained: One value a seed.
        reason: Why the metric could not be measured; given exactly where ``obtained`` is empty.
        caveat: Why the values cannot be set against others, such as chains that do not mix; empty where they can. They
            are shown with it, and are never the best of a column.

    Raises:
        ValueError: If there are both values and a reason or neither, a caveat without values, or a value is not finite.
    """

    published: float | None = None
    obtained: Sequence[float] = ()
    reason: str | None = None
    caveat: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "obtained", tuple(float(value) for value in self.obtained))
        if self.caveat and not self.obtained:
            raise ValueError(f"a cell without values has a reason, not the caveat {self.caveat!r}")
        if bool(self.obtained) == bool(self.reason):
            raise ValueError(f"a cell has obtained values or a reason, got {self.obtained} and {self.reason!r}")
        for value in (*self.obtained, 0.0 if self.published is None else self.published):
            if not math.isfinite(value):
                raise ValueError(f"cell value {value} is not finite; give a reason instead")

    @property
    def n(self) -> int:
        """Number of seeds."""
        return len(self.obtained)

    @property
    def mean(self) -> float | None:
        """Mean over seeds, None where nothing was measured."""
        return statistics.fmean(self.obtained) if self.obtained else None

    @property
    def std(self) -> float | None:
        """Standard deviation over seeds with n - 1 in the denominator, None for fewer than two."""
        return statistics.stdev(self.obtained) if self.n > 1 else None

    @property
    def difference(self) -> float | None:
        """Mean minus published, None where either is missing."""
        return None if self.mean is None or self.published is None else self.mean - self.published

    def agrees(self, published_seeds: int | None = None) -> bool | None:
        r"""Whether the published value lies within two standard errors of the obtained mean.

        .. math:: |\bar x - p| \leq 2 s \sqrt{1/n + 1/m}

        with s the standard deviation over the n seeds. A published value that averages m runs is taken to vary as
        these runs do; without m it is taken as exact. A yardstick rather than a test: n is small.

        Arguments:
            published_seeds: The number m of runs that the published value averages.

        Returns:
            None where the difference or the standard deviation does not exist.
        """
        if self.difference is None or self.std is None:
            return None
        variance = 1.0 / self.n + (0.0 if published_seeds is None else 1.0 / published_seeds)
        return abs(self.difference) <= 2.0 * self.std * math.sqrt(variance)


def agreement(recorded: Cell | None, yours: Cell | None) -> bool | None:
    r"""Whether two means over seeds are within two standard errors of their difference.

    .. math:: |\bar y - \bar r| \leq 2 \sqrt{s_y^2 / n_y + s_r^2 / n_r}

    with s the standard deviation over each side's n seeds; a side of one seed takes the other side's. A yardstick
    rather than a test: n is small.

    Arguments:
        recorded: The recorded values.
        yours: The values to compare with them.

    Returns:
        None where a side has no value, or both have one seed, which tells of no spread.
    """
    if recorded is None or yours is None or recorded.mean is None or yours.mean is None:
        return None
    spreads = [s for s in (recorded.std, yours.std) if s is not None]
    if not spreads:
        return None
    s_recorded, s_yours = spreads[0], spreads[-1]
    return abs(yours.mean - recorded.mean) <= 2.0 * math.sqrt(s_yours**2 / yours.n + s_recorded**2 / recorded.n)


class Shown(str):
    """The text of a cell of a :class:`~repro.report.plain_tables.PlainTable`, with the numbers that it was made from.

    Arguments:
        text: What is printed.
        cell: The numbers.
    """

    cell: Cell

    def __new__(cls, text: str, cell: Cell) -> Shown:
        """Makes the text, which carries its numbers."""
        shown = super().__new__(cls, text)
        shown.cell = cell
        return shown


@dataclass(frozen=True)
class Number:
    """A measured or published cell of a table, and where it stands.

    Arguments:
        place: Caption of the table, title of the block of rows, label of the row, key of the column.
        heading: The column's heading, with that of its group.
        decimals: Digits after the point, None where the table does not say.
        cell: The numbers.
    """

    place: tuple[str, str, str, str]
    heading: str
    decimals: int | None
    cell: Cell


@dataclass(frozen=True)
class CellVerdict:
    """One cell, where it stands, and whether it agrees with its published value; see :meth:`Cell.agrees`."""

    row: str
    column: str
    cell: Cell
    agrees: bool | None


@dataclass(frozen=True)
class ColumnVerdict:
    """One column's ordering, over the rows that have a published and an obtained value.

    Arguments:
        column: The column's key.
        published_winners: Labels of the rows with the best published value, several in a tie.
        obtained_winners: Labels of the rows with the best obtained mean.
        same_winner: Whether every obtained winner is a published one; None without a direction or under two rows.
        rank_correlation: Spearman's, over those of these rows without a caveat; None under three or where one side is
            constant.
        num_rows: How many rows were compared.
    """

    column: str
    published_winners: tuple[str, ...]
    obtained_winners: tuple[str, ...]
    same_winner: bool | None
    rank_correlation: float | None
    num_rows: int


@dataclass(frozen=True)
class Verdict:
    """A table's verdict, cell by cell and column by column."""

    cells: tuple[CellVerdict, ...]
    columns: tuple[ColumnVerdict, ...]


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Returns Spearman's rank correlation, ties sharing their mean rank; None under three values or for a constant.

    Raises:
        ValueError: If the lengths differ.
    """
    if len(a) != len(b):
        raise ValueError(f"rank correlation of {len(a)} and {len(b)} values")
    if len(a) < 3 or len(set(a)) == 1 or len(set(b)) == 1:
        return None
    ranks = [[sum(y < x for y in values) + (values.count(x) + 1) / 2 for x in values] for values in (list(a), list(b))]
    return statistics.correlation(*ranks)
