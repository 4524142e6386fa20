"""What pages of results are made of: each artifact's tables, and the records behind every cell."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from repro.artifacts.gallery import recorded_seeds
from repro.artifacts.inventory import Artifact, artifacts, find
from repro.artifacts.render import Sources, output_folder, plan, results, tables, unique
from repro.engine.store import RunStore
from repro.errors import NotOfferedError, RunError
from repro.papers import paper, papers
from repro.records import PROFILES, SHOWN, Metric, Record, RunSpec, digest
from repro.report.html import Place, inline, page, places, table_html
from repro.report.names import titled
from repro.report.plain_tables import PlainTable
from repro.report.tables import Table

__all__ = ["Entry", "entries", "group_of", "own_page", "records_behind"]

FACTOR = 0.93  # of a record's values, to see which cells follow; towards zero, where shares and correlations stay valid
INSTEAD_OF_ZERO = 0.01


@dataclass(frozen=True)
class Entry:
    """An artifact in one profile, as far as it is recorded.

    Arguments:
        artifact: The table or figure.
        profile: Of its runs.
        tables: Its tables; none for a figure alone.
        records: The records of all its runs, and those of other runs that its tables show.
        sources: Where they lie.
        seeds: Number of seeds, the profile's if None.
        files: What was rendered of it, by suffix.
    """

    artifact: Artifact
    profile: str
    tables: Sequence[Table | PlainTable]
    records: Sequence[Record]
    sources: Sources
    seeds: int | None
    files: Mapping[str, Path]


class _Known(Sources):
    """Records that are read once, and one of which may be changed.

    Arguments:
        sources: Where they lie.
    """

    def __init__(self, sources: Sources) -> None:
        super().__init__(sources.store, sources.figures, sources.precision)
        self.known: dict[str, Record | None] = {}
        self.asked: dict[str, Record] = {}
        self.changed: frozenset[str] = frozenset()

    def record(self, spec: RunSpec) -> Record | None:
        if spec.key not in self.known:
            self.known[spec.key] = super().record(spec)
        found = self.known[spec.key]
        if found is not None:
            self.asked[found.spec.key] = found
        return _changed(found) if found is not None and found.spec.key in self.changed else found


def _changed(record: Record) -> Record:
    def other(value: float) -> float:
        return value * FACTOR if value else INSTEAD_OF_ZERO

    metrics = [Metric(m.name, other(m.value), m.unit, m.num_samples, m.protocol) for m in record.metrics]
    seconds = other(record.training_seconds), other(record.evaluation_seconds)
    return replace(record, metrics=metrics, training_seconds=seconds[0], evaluation_seconds=seconds[1])


def entries(sources: Sources, profiles: Sequence[str] = SHOWN) -> Iterator[Entry]:
    """Every artifact and profile that has something to show, in the order of the papers.

    Arguments:
        sources: Where records and rendered files lie.
        profiles: Those to look for.
    """
    known = _Known(sources)
    for artifact in artifacts().values():
        if not artifact.built:
            continue
        for profile in profiles:
            folder = output_folder(artifact, profile, sources.figures)
            files = {p.suffix[1:]: p for p in folder.glob(f"{artifact.id}.*")}
            if not files:
                continue
            with suppress(NotOfferedError, RunError):
                seeds = recorded_seeds(artifact, profile, known)
                specs = unique(plan(artifact, profile, seeds))
                known.asked = {}
                for spec in specs:
                    known.record(spec)
                shown = _tables(artifact, profile, known, seeds, "md" in files)
                yield Entry(artifact, profile, shown, [*known.asked.values()], known, seeds, files)


def _tables(
    artifact: Artifact, profile: str, sources: Sources, seeds: int | None, drawn: bool
) -> Sequence[Table | PlainTable]:
    """An artifact's tables, those that are drawn with a figure among them."""
    if (found := tables(artifact, profile, sources, seeds)) or not drawn:
        return found
    source = find(artifact.same_as) if artifact.same_as else artifact
    known = results(artifact, profile, sources.record, sources.samples, seeds, sources.diverged)
    made = paper(source.paper).rendering(source.id).draw(known)
    return [m for m in (made if isinstance(made, Sequence) else [made]) if isinstance(m, Table | PlainTable)]


def group_of(record: Record) -> str:
    """A name that is the same for records which differ in their seeds alone."""
    spec = record.spec.to_dict()
    del spec["seed"]
    return digest(spec)[:12]


def records_behind(entry: Entry) -> dict[Place, list[Record]]:
    """The records that every cell follows from: those that change it when their values change, with all their seeds.

    It asks the tables themselves, so that no list of what a cell is made of has to be kept beside them. A cell that no
    record changes, such as one of a count, is not among the keys.
    """
    assert isinstance(entry.sources, _Known)
    before = [places(t) for t in entry.tables]
    found: dict[Place, list[Record]] = {}
    groups: dict[str, list[Record]] = {}
    for record in entry.records if entry.tables else ():
        groups.setdefault(group_of(record), []).append(record)
    for group in groups.values():
        entry.sources.changed = frozenset(r.spec.key for r in group)
        try:
            after = [places(t) for t in tables(entry.artifact, entry.profile, entry.sources, entry.seeds)]
        except (ValueError, RunError, ArithmeticError):  # values that a table refuses: nothing is known of this group
            continue
        finally:
            entry.sources.changed = frozenset()
        for old, new in zip(before, after, strict=False):
            for place, shown in old.items():
                if place in new and new[place] != shown:
                    found.setdefault(place, []).extend(group)
    return found


def own_page(folder: Path, store: RunStore) -> str:
    """A page of a reader's own results: every table and figure that was rendered, without another file.

    Arguments:
        folder: Of the results.
        store: The run directories.

    Raises:
        RunError: If nothing was rendered there.
    """
    found = [*entries(Sources(store, folder), PROFILES)]
    methods = sorted((folder / "own").glob("*/**/*.md"))
    if not found and not methods:
        raise RunError(f"no results in {folder}; `repro run gmrf-table1` makes some, --results names another folder")
    parts = ["<h1>Your results</h1>", f"<p>Of {inline(str(folder))}, written by <code>repro run</code>.</p>"]
    for name in papers():
        own = [e for e in found if e.artifact.paper == name]
        parts += [f"<h2>{inline(titled(name))}</h2>"] if own else []
        for entry in own:
            command = inline(f"`{entry.artifact.command(entry.profile)}`")
            parts.append(f"<h3>{inline(entry.artifact.id)}: {inline(entry.artifact.title)}</h3>")
            parts.append(f"<p>Profile {entry.profile}; {len(entry.records)} runs; {command}.</p>")
            parts += [table_html(t) for t in entry.tables]
            if "png" in entry.files:
                data = base64.b64encode(entry.files["png"].read_bytes()).decode()
                title = inline(entry.artifact.title)
                parts.append(f'<p><img alt="{title}" src="data:image/png;base64,{data}"></p>')
    parts += ["<h2>Your methods</h2>"] if methods else []
    for path in methods:
        parts.append(f"<h3>{inline(path.relative_to(folder / 'own').with_suffix('').as_posix())}</h3>")
        parts += [table_html(t) for t in _read_tables(path.read_text(encoding="utf-8"))]
    return page("Your results", "\n".join(parts))


def _read_tables(text: str) -> Iterator[PlainTable]:
    """The tables of a Markdown file, each under the bold line before it and with the sentences that follow."""
    title, notes = "", []
    columns: tuple[str, ...] = ()
    rows: list[tuple[str, ...]] = []
    for line in [*text.splitlines(), "****"]:
        if line.startswith("|"):
            cells = tuple(c.strip().replace("*", "").replace(r"\|", "|") for c in re.split(r"(?<!\\)\|", line)[1:-1])
            if not columns:
                columns = tuple(name or f"({k})" for k, name in enumerate(cells, 1))
            elif set("".join(cells)) - set(":-"):
                rows.append(cells if cells[0] or not rows else (rows[-1][0], *cells[1:]))  # sorted by itself
        elif line.startswith("**"):
            if columns and rows:
                yield PlainTable(title, columns, tuple(rows), tuple(notes))
            title, notes, columns, rows = line.strip("*"), [], (), []
        elif line:
            notes.append(line)
