"""Tables and figures: the runs that each needs, how it is rendered, and where its files lie."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from repro.artifacts.inventory import KINDS, Artifact, artifacts, find, nearest
from repro.datasets.former import changes, changes_of
from repro.engine.cost import cost, expected
from repro.engine.environment import has_bfloat16
from repro.engine.speed import REFERENCE, cached_speed
from repro.engine.store import RunStore, read_divergence, read_record, write_atomically
from repro.errors import NoProfileError, NotOfferedError, RunError, UsageError
from repro.experiment import Results, not_diverged
from repro.papers import paper
from repro.records import PRECISIONS, PROFILES, Record, RunSpec, precision_of, with_precision
from repro.report.cells import Shown
from repro.report.names import named, titled
from repro.report.plain_tables import PlainTable
from repro.report.tables import Table, join_tables

__all__ = [
    "NO_VERDICT",
    "UsageError",
    "artifacts",
    "divergence_path",
    "estimate",
    "export_records",
    "find",
    "is_unrecorded",
    "latex_label",
    "left_out",
    "missing_runs",
    "plan",
    "record_path",
    "render",
    "state",
    "tables",
]


# Shares of right digits in reconstructions: below this no model can show what a table of samples is about.
CEILINGS = ("test/reconstruction/coherence", "test/reconstruction/coherence/mean", "test/conditional/reconstructed/m0")
LEAST_CEILING = 0.9
MOST_SEEDS = 10_000  # of a plan that can be printed
TABLES = (Table, PlainTable)
NO_VERDICT = "No verdict: runs of the smoke profile train for an epoch or two, which only shows that everything works."


def check_profile(profile: str) -> str:
    """The profile itself.

    Raises:
        UsageError: If it is unknown.
    """
    if profile not in PROFILES:
        raise UsageError(f"unknown profile {profile!r}; one of {', '.join(PROFILES)}{nearest(profile, PROFILES)}")
    return profile


def output_folder(artifact: Artifact, profile: str, figures: Path, precision: str | None = None) -> Path:
    """Where an artifact's files lie: the paper profile's at the top, others' in folders of their own."""
    folder = figures / artifact.paper if profile == "paper" else figures / artifact.paper / profile
    return folder if precision in (None, "auto", "float32") else folder / str(precision)


def state(artifact: Artifact, figures: Path) -> str:
    """A word or two on where the artifact stands."""
    if artifact.kind in "DX":
        return KINDS[artifact.kind] + (f": {artifact.reason}" if artifact.reason else "")
    if not artifact.built:
        return "not built yet"
    done = [p for p in PROFILES if any(output_folder(artifact, p, figures).glob(f"{artifact.id}.*"))]
    if artifact.unrecorded and done:
        done = [p for p in done if not is_unrecorded(artifact, p, Sources(None, figures))]
    return f"rendered ({', '.join(done)})" if done else "ready"


def _source(artifact: Artifact) -> Artifact:
    """The artifact itself, or the one of another paper that it repeats."""
    return find(artifact.same_as) if artifact.same_as else artifact


def plan(
    artifact: Artifact,
    profile: str,
    seeds: int | None = None,
    precision: str | None = None,
    device: str | None = None,
) -> dict[str, list[RunSpec]]:
    """The runs that an artifact needs, by row.

    Arguments:
        artifact: The table or figure.
        profile: The profile.
        seeds: Number of seeds; the profile's if None.
        precision: Of the hidden layers, ``"float32"`` or ``"bfloat16"``; the specifications' own if None; ``"auto"``
            for those, but float32 instead of bfloat16 where the device has no units for it.
        device: The device that ``"auto"`` asks, as :func:`repro.engine.environment.has_bfloat16` takes it.

    Raises:
        UsageError: If it is not computed from runs here, the precision is unknown, or it has none to choose, and why.
        NotOfferedError: If its experiment has no settings of the profile.
    """
    if artifact.kind == "D":
        raise UsageError(f"{artifact.name} is a drawing of the method, not computed")
    if artifact.kind == "X":
        raise UsageError(f"{artifact.name} cannot be computed: {artifact.reason}")
    if not artifact.built:
        raise UsageError(f"{artifact.name} is not built yet; `repro list` shows what is")
    if seeds is not None and seeds < 1:
        raise UsageError(f"--seeds is {seeds}, must be at least 1")
    if seeds is not None and seeds > MOST_SEEDS:
        raise UsageError(f"--seeds is {seeds}, must be at most {MOST_SEEDS}")
    source, known = _source(artifact), ("auto", *PRECISIONS)
    try:
        rows = paper(source.paper).plan(source.id, check_profile(profile), seeds)
    except NoProfileError as error:
        raise NotOfferedError(f"{artifact.name} {error}") from None
    if precision not in (None, *known):
        raise UsageError(f"unknown precision {precision!r}; one of {', '.join(known)}")
    if precision == "auto":
        return {row: [resolved(s, device) for s in specs] for row, specs in rows.items()}
    try:
        return {row: [with_precision(s, precision) for s in specs] for row, specs in rows.items()}
    except ValueError as error:
        raise UsageError(str(error)) from None


def resolved(spec: RunSpec, device: str | None = None) -> RunSpec:
    """The run itself, or in float32 where it is planned in bfloat16 and the device has no units for that."""
    if precision_of(spec) != "bfloat16" or has_bfloat16(device):
        return spec
    return with_precision(spec, "float32")


def left_out(artifact: Artifact, profile: str) -> str:
    """``"without <methods>"`` of those that the paper profile has and another one leaves out; empty without any."""
    try:
        whole, own = (unique(plan(artifact, p)) for p in ("paper", profile))
    except (NotOfferedError, UsageError):
        return ""
    found = sorted({s.method for s in whole} - {s.method for s in own})
    return f"without {', '.join(map(named, found))}" if found else ""


def unique(rows: Mapping[str, Sequence[RunSpec]]) -> list[RunSpec]:
    """All runs of a plan, each once, in order."""
    return list(dict.fromkeys(s for specs in rows.values() for s in specs))


def missing_runs(specs: Sequence[RunSpec], store: RunStore) -> list[RunSpec]:
    """The runs without a record of today's data, the longest first so that the last workers end together."""
    absent = [s for s in specs if store.current(s) is None]
    machine = cached_speed() or REFERENCE
    return sorted(absent, key=lambda s: -expected(s, machine)[0])


def estimate(specs: Sequence[RunSpec], workers: int) -> tuple[float, float]:
    """Seconds on that many cores of this machine, as far as it was measured, and peak megabytes of runs."""
    machine = cached_speed() or REFERENCE
    costs = [expected(s, machine) for s in specs]
    loads = [0.0] * max(1, workers)
    for seconds, _ in sorted(costs, reverse=True):
        loads[loads.index(min(loads))] += seconds
    largest = sorted((m for _, m in costs), reverse=True)[: max(1, workers)]
    return max(loads), sum(largest)


def operations(specs: Sequence[RunSpec]) -> float | None:
    """Floating point operations of the trainings of runs; None where those of some are not known."""
    found = [None if (known := cost(s)) is None else known.flops for s in specs]
    return None if None in found else sum(x for x in found if x is not None)


def record_path(spec: RunSpec, figures: Path, suffix: str = "json") -> Path:
    return figures / spec.paper / "records" / f"{spec.key}.{suffix}"


def divergence_path(spec: RunSpec, figures: Path) -> Path:
    """Where the note of a training that diverged lies: not among the records, which all hold values."""
    return figures / spec.paper / "diverged" / f"{spec.key}.json"


def export_records(specs: Sequence[RunSpec], store: RunStore, figures: Path) -> None:
    """Copies records, the samples that figures are drawn from, and notes of what diverged, beside the figures.

    Raises:
        RecordError: If a file there is not that of its run; nothing is written then.
    """
    for spec in specs:
        read_record(record_path(spec, figures), spec)
        read_divergence(divergence_path(spec, figures), spec)
    for spec in specs:
        if (diverged := store.divergence(spec)) is not None:
            write_atomically(divergence_path(spec, figures), diverged.to_json())
            if (known := read_record(record_path(spec, figures), spec)) is not None and changes(known.data):
                record_path(spec, figures).unlink()  # of former data, on which it had not diverged
                record_path(spec, figures, "safetensors").unlink(missing_ok=True)
        if (record := store.record(spec)) is not None:
            known = read_record(record_path(spec, figures), spec)
            if known is not None and changes(record.data) and not changes(known.data):
                continue  # what lies there is of today's data
            divergence_path(spec, figures).unlink(missing_ok=True)
            write_atomically(record_path(spec, figures), record.to_json())
            samples = store.directory(spec) / "samples.safetensors"
            if samples.exists() and _is_shown(spec):
                write_atomically(record_path(spec, figures, "safetensors"), samples.read_bytes())


def _is_shown(spec: RunSpec) -> bool:
    """Whether a figure of the run's paper is drawn from its samples, in the precision that figures have."""
    known = _shown(spec.paper, spec.profile)
    if precision_of(spec) != "float32":
        return spec in known
    return spec in known or with_precision(spec, "bfloat16") in known  # what a machine without its units ran instead


@cache
def _shown(paper: str, profile: str) -> frozenset[RunSpec]:
    found: set[RunSpec] = set()
    for artifact in artifacts().values():
        if artifact.built and artifact.paper == paper and artifact.kind in "FQ" and not artifact.same_as:
            with suppress(NotOfferedError):
                found |= set(unique(plan(artifact, profile)))
    return frozenset(found)


@cache
def _planned(paper: str, profile: str) -> frozenset[RunSpec]:
    """Every run that a table of a paper plans in a profile; figures show runs of these, and take longer to import."""
    found: set[RunSpec] = set()
    for artifact in artifacts().values():
        if (
            artifact.built
            and artifact.paper == paper
            and artifact.kind == "T"
            and artifact.data
            and not artifact.same_as
        ):
            with suppress(NotOfferedError):
                found |= set(unique(plan(artifact, profile)))
    return frozenset(found)


class Sources:
    """Records and samples, from the run directories first and from those beside the figures after.

    What is of data that have changed since gives way to what is not.

    Arguments:
        store: The run directories, None for exported records alone.
        figures: Where exported records lie.
        precision: What :func:`repro.records.with_precision` makes of what is asked for.
    """

    def __init__(self, store: RunStore | None, figures: Path, precision: str | None = None) -> None:
        self.store, self.figures, self.precision = store, figures, precision

    def _variants(self, spec: RunSpec) -> list[RunSpec]:
        """What may answer: what is asked for, then, where no precision was chosen, a bfloat16 run's float32 twin.

        Not a twin that is planned itself: then precision is what the two are compared by.
        """
        if self.precision not in (None, "auto"):
            return [with_precision(spec, self.precision)]
        if precision_of(spec) != "bfloat16":
            return [spec]
        twin = with_precision(spec, "float32")
        return [spec] if twin in _planned(spec.paper, spec.profile) else [spec, twin]

    def record(self, spec: RunSpec) -> Record | None:
        for one in self._variants(spec):
            if (found := self._own(one) or read_record(record_path(one, self.figures), one)) is not None:
                return found
        return None

    def _own(self, spec: RunSpec) -> Record | None:
        """The record in the run's directory, unless its data have changed since and the one beside the figures' not."""
        found = None if self.store is None else self.store.record(spec)
        if found is None or not changes(found.data):
            return found
        exported = read_record(record_path(spec, self.figures), spec)
        return found if exported is None or changes(exported.data) else None

    def is_current(self, spec: RunSpec) -> bool:
        """Whether a run has a record, of data that are still what their dataset is."""
        return (found := self.record(spec)) is not None and not changes(found.data)

    def diverged(self, spec: RunSpec) -> str:
        """Where and by what the run's training diverged, in one line; empty where there is a record, or no such note.

        Raises:
            RecordError: If the note was altered.
        """
        for one in self._variants(spec):
            found = None if self.store is None else self.store.divergence(one)
            if (found := found or read_divergence(divergence_path(one, self.figures), one)) is not None:
                return found.reason if self.record(spec) is None else ""
        return ""

    def samples(self, spec: RunSpec) -> dict[str, Any]:
        from safetensors.numpy import load_file

        paths = []
        for one in self._variants(spec):
            exported = record_path(one, self.figures, "safetensors")
            own = [] if self.store is None else [self.store.directory(one) / "samples.safetensors"]
            paths += [*own, exported] if self._own(one) is not None else [exported, *own]
        for path in paths:
            if path.exists():
                return dict(sorted(load_file(path).items()))
        raise RunError(f"no samples of {spec.label} in {' or '.join(map(str, paths))}")


def is_unrecorded(artifact: Artifact, profile: str, sources: Sources) -> bool:
    """Whether no run of an artifact has a record, although it needs some."""
    specs = unique(plan(artifact, profile))
    return bool(specs) and all(sources.record(s) is None for s in specs)


def render(
    artifact: Artifact,
    profile: str,
    figures: Path,
    *,
    store: RunStore | None = None,
    seeds: int | None = None,
    precision: str | None = None,
) -> list[Path]:
    """Renders an artifact from records, without training anything.

    Arguments:
        artifact: What to render.
        profile: The profile of its records.
        figures: Where files go and where exported records lie.
        store: Run directories to look in first, None for exported records alone.
        seeds: Number of seeds; the profile's if None.
        precision: Of the hidden layers, as :func:`plan` takes it.

    Returns:
        The files.

    Raises:
        RunError: If a run that the artifact needs has no record; it names the runs. Not where no run has one, or only
            some have, and the artifact is rendered even so; nor where all that have none diverged, and it can be
            rendered without them.
    """
    sources = Sources(store, figures, precision)
    specs = unique(plan(artifact, profile, seeds, None if precision == "auto" else precision))
    absent = [s for s in specs if sources.record(s) is None]
    lost = [s for s in absent if sources.diverged(s)]
    some = len(absent) < len(specs)
    shown = (artifact.unrecorded and not some) or (artifact.partial and some) or (len(lost) == len(absent) and some)
    if absent and not shown:
        labels = [s.label + " (diverged)" * (s in lost) for s in absent]
        more = "" if len(labels) <= 3 else f" and {len(labels) - 3} more"
        raise RunError(
            f"{artifact.name} lacks the records of {', '.join(labels[:3])}{more}; `{artifact.command(profile)}`"
        )
    files = contents(artifact, profile, sources.record, sources.samples, seeds, sources.diverged)
    folder = output_folder(artifact, profile, figures, precision)
    paths = []
    for suffix, content in files.items():
        paths.append(folder / f"{artifact.id}.{suffix}")
        write_atomically(paths[-1], content)
    return paths


def results(
    artifact: Artifact,
    profile: str,
    record: Callable[[RunSpec], Record | None],
    samples: Callable[[RunSpec], Mapping[str, Any]],
    seeds: int | None = None,
    diverged: Callable[[RunSpec], str] = not_diverged,
) -> Results:
    """What an artifact's function takes.

    Arguments:
        artifact: What is made of them.
        profile: The profile of the runs.
        record: A run's record, None if there is none.
        samples: A run's figure samples.
        seeds: Number of seeds; the profile's if None.
        diverged: How a run's training diverged; empty if it did not.
    """
    source = _source(artifact)
    known = paper(source.paper)
    rows = known.plan(source.id, profile, seeds)
    published, rename = known.published.get(source.id, {}), renamed(artifact)
    return Results(source.id, profile, seeds, rows, record, samples, published, rename, diverged)


def renamed(artifact: Artifact) -> dict[str, str]:
    """What the paper of an artifact that repeats another's calls that one's models, by their names there."""
    tables = paper(artifact.paper).published.values() if artifact.same_as else ()
    return {old: new for table in tables for old, new in table.get("rename", {}).items()}


def _in_roman(id: str) -> str:
    """A table as a paper of Roman numbers names it: ``"Table IV"`` of ``"table4"``; the id itself without a number."""
    if not re.fullmatch(r"table\d+", id):
        return id
    number, text = int(id.removeprefix("table")), "Table "
    for value, letters in {10: "X", 9: "IX", 5: "V", 4: "IV", 1: "I"}.items():
        text, number = text + letters * (number // value), number % value
    return text


def _repeated(artifact: Artifact, made: list[Any]) -> list[Any]:
    """Tables of another paper with the names, numbers and Make targets that its own paper has; said under the first.

    Numbers are Roman there and Arabic here. A text that names both papers' models keeps the names.
    """
    source, names = _source(artifact), renamed(artifact)
    alike = [(a, _source(a)) for a in artifacts().values() if a.paper == artifact.paper and a.same_as]
    words = {other.target: own.target for own, other in alike}
    words |= {_in_roman(o.id): own.id.replace("table", "Table ") for own, o in alike if _in_roman(o.id) != o.id}

    def text(value: str) -> str:
        both = any(re.search(rf"\b{re.escape(new)}\b", value) for new in names.values())
        known = words if both else words | names
        found = "|".join(map(re.escape, sorted(known, key=len, reverse=True)))
        return re.sub(rf"\b({found})(?![\w-])", lambda match: known[match[0]], value)

    def changed(value: Any) -> Any:
        if isinstance(value, str):
            return value if isinstance(value, Shown) else type(value)(text(value))
        if isinstance(value, Mapping):
            return {k: changed(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(map(changed, value))
        if is_dataclass(value) and not isinstance(value, type):
            return replace(value, **{f.name: changed(getattr(value, f.name)) for f in fields(value)})
        return value

    what = "The runs are shared with" if artifact.data else "Made by the same code as"
    said = f"{what} {titled(source.paper)}'s {_in_roman(source.id)} ({source.name})"
    said += "".join(f", where {new} is called {old}" for old, new in names.items()) + "."
    first, *others = map(changed, made)
    return [replace(first, notes=type(first.notes)([said, *first.notes])), *others]


def _drawn(artifact: Artifact, found: Results) -> list[Any]:
    """Tables and figures of an artifact.

    Tables are without verdicts in the smoke profile; where :func:`unsettled` has a reason they do not name the best
    model. What diverged is said under the first of them. Those of another paper have the names of the artifact's own.

    Raises:
        RunError: If a run diverged, and nothing can be drawn without it.
    """
    source, lost = _source(artifact), found.divergences()
    try:
        made = paper(source.paper).rendering(source.id).draw(found)
    except (LookupError, ValueError, ArithmeticError, TypeError):
        if not lost:
            raise
        raise RunError(f"{artifact.name} cannot be drawn without what diverged. {lost}") from None
    made = list(made) if isinstance(made, Sequence) else [made]
    if lost and isinstance(made[0], TABLES):
        made[0] = replace(made[0], notes=[*made[0].notes, lost])
    if found.profile == "smoke":
        made = [m.without_verdict(NO_VERDICT) if isinstance(m, TABLES) else m for m in made]
    else:
        reason = unsettled(found.profile, found.all_records())
        made = [m.not_settled(reason) if isinstance(m, TABLES) else m for m in made]
    return _repeated(artifact, made) if artifact.same_as and artifact.kind in "TS" else made


def latex_label(artifact: Artifact, profile: str) -> str:
    """The label of an artifact's first part in LaTeX, which no other artifact and no other profile has."""
    return f"tab:{artifact.target}" + ("" if profile == "paper" else f"-{profile}")


def contents(
    artifact: Artifact,
    profile: str,
    record: Callable[[RunSpec], Record | None],
    samples: Callable[[RunSpec], Mapping[str, Any]],
    seeds: int | None = None,
    diverged: Callable[[RunSpec], str] = not_diverged,
) -> dict[str, str | bytes]:
    """An artifact's files, suffix to content: Markdown and LaTeX for tables, PDF and PNG for a figure.

    Arguments as :func:`results`'s.
    """
    made = _drawn(artifact, results(artifact, profile, record, samples, seeds, diverged))
    found: dict[str, str | bytes] = {}
    if shown := [m for m in made if isinstance(m, TABLES)]:
        found |= join_tables(shown, latex_label(artifact, profile))
    if figures := [m for m in made if not isinstance(m, TABLES)]:
        from repro.report.plotting import render as draw

        (figure,) = figures  # an artifact has one page
        found |= {suffix: draw(figure, suffix) for suffix in ("pdf", "png")}
    return found


def tables(artifact: Artifact, profile: str, sources: Sources, seeds: int | None = None) -> list[Table | PlainTable]:
    """An artifact's tables from records, none for one that is a figure.

    Arguments:
        artifact: What to tabulate.
        profile: The profile of its records.
        sources: Where they lie; all that the artifact's plan names are there.
        seeds: Number of seeds; the profile's if None.
    """
    if paper(_source(artifact).paper).modules[_source(artifact).id].endswith(".figures"):
        return []
    found = results(artifact, profile, sources.record, sources.samples, seeds, sources.diverged)
    made = _drawn(artifact, found)
    return [m for m in made if isinstance(m, TABLES)]


def unsettled(profile: str, records: Sequence[Record]) -> str:
    """Why runs do not settle which of their models is the best; empty where they do.

    Runs of the paper profile do, and those of the overnight profile that have converged and whose reconstructions are
    right in at least 0.9 of the cases; and none on data that have changed since.
    """
    changed = changes_of(r.data for r in records)
    return " and ".join(filter(None, (_reduced(profile, records), changed)))


def _reduced(profile: str, records: Sequence[Record]) -> str:
    """What a profile's runs lack that would settle it."""
    if profile == "paper":
        return ""
    if profile != "overnight":
        return f"the profile {profile} trains for minutes"
    open_ends = sum(r.converged is False for r in records)
    reasons = [f"{open_ends} of {len(records)} runs have not converged"] if open_ends else []
    if fixed := sum(r.converged is None for r in records):
        reasons.append(f"{fixed} of {len(records)} runs have no rule that says whether they converged")
    found: dict[tuple[str, str], list[float]] = {}
    for record in records:
        for m in record.metrics:
            if m.name in CEILINGS:
                found.setdefault((record.spec.method, m.name), []).append(m.value)
    ceilings = {key: fmean(values) for key, values in found.items()}
    if ceilings and min(ceilings.values()) < LEAST_CEILING:
        lowest = min(ceilings, key=ceilings.__getitem__)
        reasons.append(f"only {ceilings[lowest]:.2f} of {named(lowest[0])}'s reconstructions show the right digit")
    return " and ".join(reasons)
