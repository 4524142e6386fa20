"""The table of BIKED's bicycles: geometry in millimetres and degrees, one row a bike."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from repro.datasets.card import Card
from repro.datasets.fetch import FetchError, fetch, unpack_gzip

__all__ = ["STYLE", "BikeTable", "plausible", "read_designs", "read_table", "table_bytes"]

STYLE = "General info|Style"


class BikeTable:
    """Columns of the table.

    Arguments:
        columns: Column to its cells, as text, empty where a bike has no such value.
    """

    def __init__(self, columns: Mapping[str, Sequence[str]]) -> None:
        self.columns = dict(columns)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def text(self, column: str) -> list[str]:
        """Cells of a column.

        Raises:
            ValueError: If there is no such column.
        """
        if column not in self.columns:
            raise ValueError(f"the bicycle table has no column {column!r}")
        return list(self.columns[column])

    def numbers(self, column: str) -> np.ndarray:
        """Cells of a column as float64, NaN where empty.

        Raises:
            ValueError: If a cell is no number; it names bike and column.
        """
        out = np.empty(len(self))
        for n, cell in enumerate(self.text(column)):
            try:
                out[n] = float(cell) if cell else np.nan
            except ValueError:
                bike = self.text("bike")[n]
                raise ValueError(f"bicycle {bike}: {column!r} is {cell!r}, which is no number") from None
        return out

    def take(self, rows: np.ndarray) -> BikeTable:
        """The table of some rows."""
        return BikeTable({name: [cells[n] for n in rows] for name, cells in self.columns.items()})


def read_table(content: bytes, where: str) -> BikeTable:
    """Reads the CSV with the columns ``bike`` and ``Category|Dimension``.

    Raises:
        ValueError: If there is no column ``bike``, or a row has another length.
    """
    header, *rows = csv.reader(io.StringIO(content.decode("utf-8-sig").rstrip()))
    if header[:1] != ["bike"]:
        raise ValueError(f"{where}: the first column is {header[:1]}, expected 'bike'")
    for n, row in enumerate(rows):
        if len(row) != len(header):
            raise ValueError(f"{where}: row {n + 2} has {len(row)} cells, the header {len(header)}")
    return BikeTable({name: [row[c] for row in rows] for c, name in enumerate(header)})


def read_designs(archive: Path, columns: Sequence[str]) -> bytes:
    """Builds the CSV from the archive of BIKED's repository, which has one file ``(N).csv`` a bike.

    Of rows that share category and dimension the first counts; ``N/A`` becomes empty.

    Arguments:
        archive: The zip file of the repository.
        columns: The columns ``Category|Dimension`` to be taken.

    Raises:
        ValueError: If the archive has no such file.
    """
    with zipfile.ZipFile(archive) as file:
        names = {int(m[1]): m[0] for m in (re.fullmatch(r".*/\((\d+)\)\.csv", n) for n in file.namelist()) if m}
        if not names:
            raise ValueError(f"{archive.name} has no file (N).csv")
        lines = [",".join(["bike", *columns])]
        for bike, name in sorted(names.items()):
            found: dict[str, str] = {}
            for row in csv.reader(io.StringIO(file.read(name).decode("utf-8"))):
                if len(row) > 3:
                    found.setdefault(f"{row[0]}|{row[1]}", "" if row[3] == "N/A" else row[3])
            lines.append(",".join([str(bike), *(found.get(c, "") for c in columns)]))
    return ("\n".join(lines) + "\n").encode()


def table_bytes(card: Card) -> tuple[bytes, str]:
    """The CSV, and the file it came from: the table itself, or the designs that it is built from.

    Raises:
        FetchError: If neither can be had.
        ValueError: If what was built has another digest than the table.
    """
    (table,) = card.sources_of("table")
    try:
        return unpack_gzip(fetch(table)), table.filename
    except FetchError as error:
        (designs,) = card.sources_of("designs")
        try:
            archive = fetch(designs)
        except FetchError as other:
            raise FetchError(f"{error} | {other}") from other
    content = read_designs(archive, card.generation["columns"])
    if (digest := hashlib.sha256(content).hexdigest()) != table.hashes["raw_sha256"]:
        raise ValueError(
            f"{designs.filename}: builds a table of sha256 {digest}, expected {table.hashes['raw_sha256']}"
        )
    return content, designs.filename


def plausible(table: BikeTable, limits: Mapping[str, Sequence[float]], excluded: Sequence[str]) -> np.ndarray:
    """Rows of bicycles whose geometry can be drawn.

    Arguments:
        table: The bicycles.
        limits: Column to the open interval that its value must lie in.
        excluded: Styles that are left out.
    """
    keep = np.array([style != "" and style not in excluded for style in table.text(STYLE)])
    for column, (low, high) in limits.items():
        values = table.numbers(column)
        keep &= (values > low) & (values < high)
    return np.flatnonzero(keep)
