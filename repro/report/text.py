"""Text for a terminal: columns, and sizes of files."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["columns", "size_text"]


def columns(rows: Sequence[Sequence[str]], *, numbers: bool = False, most: int | None = None) -> list[str]:
    """Lines of equally wide columns, two spaces apart; one where they would be too wide.

    Arguments:
        rows: Cells, as many in each row.
        numbers: Whether all columns but the first are flush right.
        most: Characters of a line beyond which columns are one space apart; None for no limit.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    gap = "  " if most is None or sum(widths) + 2 * (len(widths) - 1) <= most else " "
    lines = []
    for row in rows:
        cells = [c.rjust(w) if numbers and i else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append(gap.join(cells).rstrip())
    return lines


def size_text(count: int) -> str:
    """A number of bytes in GB, MB, kB or B, each a thousand of the next."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"
