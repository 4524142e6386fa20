"""The rows of a reader's own methods under a table's own.

A table's function knows how its cells are made from a run's metrics. So it is asked for the table twice, once as it is
and once with the records of one of its rows exchanged for the method's: what differs is the method's row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from repro.artifacts import render as a
from repro.artifacts.inventory import Artifact
from repro.engine.environment import environment
from repro.errors import RunError, UsageError
from repro.experiment import not_diverged
from repro.methods.runs import differences, measured_as, protocol
from repro.records import Metric, Record, RunSpec, provenance
from repro.report.cells import Cell, Claim, Shown
from repro.report.names import named
from repro.report.plain_tables import PlainTable
from repro.report.tables import Column, Row, RowGroup, Table

__all__ = ["Chosen", "Lookup", "check_shown", "method_tables"]

Lookup = Callable[[RunSpec], Record | None]
Chosen = Mapping[str, Sequence[RunSpec]]  # method's name to its runs
NUDGE = 1.0 + 1e-6  # a change of every value that tells a row's cells from all others


class _Filler(Record):
    """Stands for a record that a table cannot be drawn without, in a row that is not shown."""

    def metric(self, name: str) -> Metric:
        """The metric of that name, or some metric under that name."""
        return next((m for m in self.metrics if m.name == name), replace(self.metrics[0], name=name))


def _filler(record: Record, spec: RunSpec) -> Record:
    return _Filler(**{f.name: getattr(record, f.name) for f in fields(record)} | {"spec": spec})


def _exchanged(lookup: Lookup, runs: Sequence[RunSpec], records: Mapping[str, Record], *, everywhere: bool) -> Lookup:
    """Records in which a method's stand for those of the row that it is measured as.

    Arguments:
        lookup: The table's own records.
        runs: The method's.
        records: Key of a run of the method to its record.
        everywhere: Whether they also stand for the missing records of all other rows.
    """
    stand_ins = {protocol(s): records[s.key] for s in runs}

    def found(spec: RunSpec) -> Record | None:
        if (own := stand_ins.get(protocol(spec))) is not None:
            return replace(own, spec=spec)
        known = lookup(spec)
        if known is None and everywhere:
            alike = [s for s in runs if (s.dataset, s.seed) == (spec.dataset, spec.seed)]
            alike = [s for s in alike if s.params.get("data") == spec.params.get("data")] or alike
            return _filler(records[alike[0].key], spec) if alike else None
        return known

    return found


def _drawn(
    artifact: Artifact, profile: str, lookup: Lookup, seeds: int | None, lost: Callable[[RunSpec], str] = not_diverged
) -> list[Table | PlainTable]:
    class _Records(a.Sources):
        def record(self, spec: RunSpec) -> Record | None:
            return lookup(spec)

        def diverged(self, spec: RunSpec) -> str:
            return lost(spec) if lookup(spec) is None else ""

    return a.tables(artifact, profile, _Records(None, Path()), seeds)


def method_tables(
    artifact: Artifact,
    profile: str,
    chosen: Chosen,
    lookup: Lookup,
    seeds: int | None = None,
    diverged: Callable[[RunSpec], str] = not_diverged,
) -> list[Table | PlainTable]:
    """The artifact's tables with a row for each method under their own.

    A table whose own runs have no records has the methods' rows alone, and says so.

    Arguments:
        artifact: The table.
        profile: Its profile.
        chosen: Method's name to its runs.
        lookup: A run's record, the methods' and the table's own; None if there is none.
        seeds: Number of seeds; the profile's if None.
        diverged: Why a run of the table's own has no record and never will, empty for others; the table says so itself.

    Raises:
        RunError: If a run of a method has no record, or the table cannot be made of the method's metrics.
    """
    specs = a.unique(a.plan(artifact, profile, seeds, "auto"))
    absent = [s for s in specs if lookup(s) is None and not diverged(s)]
    whole = not absent or (artifact.partial and len(absent) < len(specs))
    found: list[Table | PlainTable | None] | None = None
    for name, runs in chosen.items():
        records: dict[str, Record] = {}
        for s in runs:
            if (record := lookup(s)) is None:
                raise RunError(f"{s.label} has no record")
            records[s.key] = record
        theirs = _exchanged(lookup, runs, records, everywhere=not whole)
        nudged = {
            k: replace(r, metrics=[replace(m, value=m.value * NUDGE or NUDGE - 1.0) for m in r.metrics])
            for k, r in records.items()
        }
        # Of its values and no others: ranks of the other rows change too where it stands for one of them.
        parts = [_exchanged(theirs, some, nudged, everywhere=False) for some in [runs, *_apart(runs)]]
        try:
            ours, *others = (_drawn(artifact, profile, x, seeds, diverged) for x in (theirs, *parts))
            before = _drawn(artifact, profile, lookup, seeds, diverged) if whole else others[0]
            changed = [_changed(was, table) for was, table in zip(zip(*others, strict=True), ours, strict=True)]
        except (KeyError, ValueError) as error:  # statistics of no values are errors of value
            reason = str(error.args[0] if error.args else error).split("; it has")[0]
            raise RunError(f"{artifact.name} cannot show {name}: {reason}") from None
        first = found is None and not whole
        note = _note(name, runs, list(records.values()))
        like = named(measured_as(runs[0]).method)
        missing = "" if whole else f"The table's own rows are not recorded: `{artifact.command(profile)}` makes them."
        if found is None:
            found = before if whole else [_emptied(t) for t in ours]
        found = [
            None if f is None else _with_row(f, b, c, name, like, note, missing, first=first)
            for f, b, c in zip(found, before, changed, strict=True)
        ]
    shown = [t for t in found or [] if t is not None and t.rows]
    if not shown:
        raise RunError(
            f"{artifact.name} shows nothing of {', '.join(chosen)}: its rows are no models, or are of what "
            "`loss`, `generate` and `log_likelihood` do not give"
        )
    return shown


def check_shown(artifact: Artifact, name: str, runs: Sequence[RunSpec], metrics: Sequence[Metric]) -> None:
    """Refuses a method that the table has no row for, by what an untrained model's evaluation gives.

    Arguments:
        artifact: The table.
        name: The method's name.
        runs: Its runs of the smoke profile.
        metrics: Of the first of them; the others are taken to have whatever the table asks for.

    Raises:
        UsageError: If the table asks for a metric that is not among them, or shows none of them.
    """
    # A table's rows are told by their values, and of an untrained model many are 0.
    made = [replace(x, value=x.value or 0.5) for x in metrics]
    first = Record(runs[0], made, environment("cpu"), {}, "0" * 64, 0.0, 0.0)
    records = {runs[0]: first, **{s: _filler(first, s) for s in runs[1:]}}
    try:
        method_tables(artifact, runs[0].profile, {name: runs}, records.get, 1)
    except RunError as error:
        raise UsageError(f"method {name}: {error}") from None


def _note(name: str, runs: Sequence[RunSpec], records: Sequence[Record]) -> str:
    model = runs[0].params["model"]
    version = f", version {model['version']}" if model["version"] else ""
    settings = "".join(f", {k} {v}" for k, v in model["settings"].items())
    said = [f"{k} {new} instead of {old}" for run in runs for k, (old, new) in differences(run).items()]
    changed = "".join(f"; {text}" for text in dict.fromkeys(said))
    origin = f"{model['module']}:{model['function']}{version}, source {model['sha256'][:12]}{settings}"
    like = f"data, seeds, training and evaluation of {measured_as(runs[0]).method}'s row{changed}"
    return f"{name}: {origin}; {like}. {provenance(records)}"


def _emptied(table: Table | PlainTable) -> Table | PlainTable:
    """A table drawn from stand-ins, without what is said of rows that have no records."""
    if isinstance(table, PlainTable):
        return replace(table, rows=(), notes=())
    return replace(table, groups=(), notes=(), provenance="Own rows alone.")


def _apart(runs: Sequence[RunSpec]) -> list[list[RunSpec]]:
    """A method's runs by what they are of, each with all of its seeds; nothing where that is the same for all."""
    found: dict[RunSpec, list[RunSpec]] = {}
    for spec in runs:
        found.setdefault(replace(protocol(spec), seed=0), []).append(spec)
    return list(found.values()) if len(found) > 1 else []


def _changed(others: Sequence[Table | PlainTable], ours: Table | PlainTable) -> list[Any]:
    """The rows in which a table differs from others; of text, without the measured cells in which it does not.

    Arguments:
        others: The table with all of the method's values changed, then with those of some of its runs at a time.
        ours: The table.

    Returns:
        Rows of cells of a table of text; else rows with the title of their group, which the table's own have not, and
        which of the method's runs they are of. Those of groups are of runs of which the table's own rows show nothing.
    """
    before = others[0]
    if isinstance(ours, PlainTable):
        pairs = [(old, new) for old, new in zip(before.rows, ours.rows, strict=False) if _shown(old) != _shown(new)]
        return [[_own(*cells) for cells in zip(old, new, strict=True)] for old, new in pairs]
    if ours.derived:
        return []
    found: dict[tuple[str, str], tuple[str, Row, set[int]]] = {}
    for i, other in enumerate(others[1:] or others):
        rows = _different(other, ours)
        own = [(title, row) for title, row in rows if not title]
        for title, row in own or rows:
            found.setdefault((title, row.label), (title, row, set()))[2].add(i)
    return list(found.values())


def _different(before: Table, ours: Table) -> list[tuple[str, Row]]:
    """Rows whose numbers are others in another drawing of the same table, with the titles of their groups."""
    former = {title: {row.label: _numbers(row) for row in rows} for title, rows in _blocks(before)}
    return [
        (title, row)
        for title, rows in _blocks(ours)
        for row in rows
        if former.get(title, {}).get(row.label) != _numbers(row)
    ]


def _blocks(table: Table) -> list[tuple[str, Sequence[Row]]]:
    """The rows of a table, under no title, and of its groups under theirs."""
    return [("", table.rows), *((group.title, group.rows) for group in table.groups)]


def _own(old: str, new: str) -> str:
    """A cell, or a dash for a value that another model's records give: some tables have models side by side."""
    measured = isinstance(old, Shown) and isinstance(new, Shown)
    return "—" if measured and new.cell.obtained and old.cell.obtained == new.cell.obtained else new


def _with_row(
    table: Table | PlainTable,
    before: Table | PlainTable,
    changed: Sequence[Any],
    name: str,
    like: str,
    note: str,
    missing: str,
    *,
    first: bool,
) -> Table | PlainTable | None:
    """A table with a method's rows added; where it is ``first`` in a table of stand-ins, its rows alone or nothing."""
    if isinstance(table, PlainTable):
        return _with_plain_row(table, changed, name, like, [note, missing] if missing else [note])
    assert isinstance(before, Table)
    main, under = _own_rows(name, changed)
    rows = [*main, *under]
    if not rows:
        return None if first else table
    if missing:
        known = [] if missing in table.notes else [missing]
        return replace(table, rows=[*(() if first else table.rows), *rows], notes=[*table.notes, note, *known])
    lines, ranks = [], []
    for row in main:
        differences = _differences(row, table.columns, before)
        lines.append(row)
        if any(cell.obtained for cell in differences.values()):
            lines.append(Row(f"{row.label} − best of the table's rows", differences))
            if not before.no_verdict:
                ranks.append(Claim(_ranks(row, before)))
    lines += under
    return replace(
        table, groups=[*table.groups, RowGroup(f"Your method {name}", lines)], notes=[*table.notes, note, *ranks]
    )


def _own_rows(name: str, changed: Sequence[tuple[str, Row, set[int]]]) -> tuple[list[Row], list[Row]]:
    """A method's rows among the table's own and under it, each set of runs once.

    Rows that differ in their own model's settings alone are of the same runs, or of some of their seeds: of these the
    first with all of them stays. Where it alone stands for several, it has the method's name and no more.
    """
    kept: list[tuple[str, Row]] = []
    several: list[Row] = []
    for i, (title, row, of) in enumerate(changed):
        same = [(j, other) for j, (_, other, theirs) in enumerate(changed) if j != i and theirs == of]
        if any(_within(row, other) and (j < i or not _within(other, row)) for j, other in same):
            continue
        kept.append((title, row))
        if not title and any(_within(other, row) for _, other in same):
            several.append(row)
    number = {title: sum(t == title for t, _ in kept) for title, _ in kept}
    found: tuple[list[Row], list[Row]] = [], []
    for title, row in kept:
        if not title:
            label = name if number[""] == 1 or several == [row] else f"{name} ({row.label})"
        else:
            label = f"{name} ({title})" if number[title] == 1 else f"{name} ({title}, {row.label})"
        found[bool(title)].append(Row(label, {k: _unpublished(c) for k, c in row.cells.items()}))
    return found


def _within(row: Row, other: Row) -> bool:
    """Whether a row has no value that the other has not."""
    return all(set(cell.obtained) <= set(other.cells[k].obtained) for k, cell in row.cells.items())


def _numbers(row: Row) -> list[object]:
    return [(k, c.obtained, c.reason) for k, c in row.cells.items()]


def _unpublished(cell: Cell) -> Cell:
    return replace(cell, published=None)


def _others(column: Column, table: Table) -> list[float]:
    cells = [row.cells[column.key] for row in table.rows]
    return [c.mean for c in cells if c.mean is not None and not c.caveat]


def _differences(row: Row, columns: Sequence[Column], table: Table) -> dict[str, Cell]:
    """Each seed's value minus the best mean of the table's own rows."""
    found = {}
    for column in columns:
        cell, others = row.cells[column.key], _others(column, table)
        if cell.obtained and others and column.better:
            best = min(others) if column.better == "lower" else max(others)
            found[column.key] = Cell(None, [x - best for x in cell.obtained])
        else:
            why = cell.reason or ("no value of the table's own" if not others else "neither direction is better")
            found[column.key] = Cell(None, (), why)
    return found


def _ranks(row: Row, table: Table) -> str:
    """Its place among the table's rows in each column, by means over seeds; 1 is the best."""
    places = []
    for column in table.columns:
        cell, others = row.cells[column.key], _others(column, table)
        mean = cell.mean
        if mean is not None and not cell.caveat and others and column.better:
            ahead = sum(x < mean if column.better == "lower" else x > mean for x in others)
            places.append(f"{f'{column.group} {column.label}'.strip()} {1 + ahead} of {1 + len(others)}")
    return f"Rank of {row.label} by its mean, with the table's rows: {'; '.join(places) or 'none'}."


def _with_plain_row(
    table: PlainTable, changed: Sequence[Any], name: str, like: str, notes: Sequence[str]
) -> PlainTable:
    """Under a table of text: what differs, with the method's name where the row has its label.

    Rows of the same values that differ in their own model's settings alone, such as a weight, are one, without these,
    and without the name of the model that the row is ``like``.
    """
    if not changed:
        return table
    alike: dict[str, list[Sequence[Any]]] = {}
    for row in changed:
        values = [(x.cell.obtained, x.cell.reason) for x in row if isinstance(x, Shown)]
        alike.setdefault(repr((str(row[0]), values)) if values else repr(row), []).append(row)
    changed = [
        [
            x if isinstance(x, Shown) or (len({str(r[i]) for r in same}) == 1 and (i == 0 or x != like)) else ""
            for i, x in enumerate(same[0])
        ]
        for same in alike.values()
    ]
    rows = [(f"{name} ({row[0]})" if len(changed) > 1 else name, *row[1:]) for row in changed]
    last = table.notes[-1:]  # what it was measured with stays last
    new = [n for n in notes if n not in table.notes]
    return replace(table, rows=(*table.rows, *rows), notes=(*table.notes[:-1], *new, *last))


def _shown(row: Sequence[str]) -> list[object]:
    return [(x.cell.obtained, x.cell.reason) if isinstance(x, Shown) else x for x in row]
