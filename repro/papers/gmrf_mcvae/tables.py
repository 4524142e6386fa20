"""GMRF MCVAE's Table I and what belongs under it, from records."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from statistics import geometric_mean
from typing import Any

from repro.papers.gmrf_mcvae.experiments import (
    BETAS,
    LABELS,
    METHODS,
    RUNG_EPOCHS,
    VARIANTS,
    chosen_betas,
    finalist_betas,
    plan,
)
from repro.records import Record, RunSpec, provenance
from repro.tables import Cell, Claim, Column, Row, RowGroup, Table, make_command

__all__ = ["ablations", "choose_betas", "headline", "sweep", "table1"]

Lookup = Callable[[RunSpec], Record | None]
TASKS = {"uncond": "unconditional", "cond": "conditional"}
DIMS = ("dim1", "dim2", "mean")
PROTOCOLS = {
    "joint, from the prior's conditional (the default)": "conditional",
    "one component at a time, eq. 9": "conditional-componentwise",
    "the same, z_j's variance as its scale (released code)": "conditional-componentwise-covariance-as-scale",
}
READING = (
    "Distance: the 1-D Wasserstein distance between the values of normalised 10 x 10 histograms of the pairs of "
    "coordinates, x 1000, the one reading of the paper's sentence that has the published scale. It does not see where "
    "mass lies: read it with the exact distance. Generated values are decoder means, clipped to [0, 1]."
)


@cache
def _published(table: str) -> Mapping[str, Any]:
    return tomllib.loads((files("repro.papers.gmrf_mcvae") / "published.toml").read_text())[table]


def _columns() -> list[Column]:
    names = {"uncond": "Unconditional", "cond": "Conditional"}
    labels = {"dim1": "Dim 1", "dim2": "Dim 2", "mean": "Mean"}
    return [Column(f"{t}_{d}", labels[d], "lower", group=names[t]) for t in TASKS for d in DIMS]


def _values(records: Sequence[Record | None], name: str) -> list[float]:
    return [r.metric(name).value for r in records if r is not None]


def _cells(
    records: Sequence[Record | None],
    distance: str,
    *,
    output: str = "mean",
    tasks: Mapping[str, str | None] = TASKS,
    published: Mapping[str, float] | None = None,
    split: str = "test",
    reason: str = "not run",
) -> dict[str, Cell]:
    """One row's cells; a task that is None has no value under this row."""
    cells = {}
    for key, task in tasks.items():
        for dim in DIMS:
            known = None if published is None else published[f"{key}_{dim}"]
            values = [] if task is None else _values(records, f"{split}/{task}/{output}/{distance}/{dim}")
            why = "the same samples as above" if task is None else reason
            cells[f"{key}_{dim}"] = Cell(known, values) if values else Cell(known, (), why)
    return cells


def _rows(rows: Mapping[str, Sequence[Record]], distance: str, output: str = "mean") -> list[Row]:
    table = _published("table1")
    show = distance == "histogram" and output == "mean"
    found = []
    for m in METHODS:
        published = dict(zip(table["columns"], table["rows"][LABELS[m]], strict=True)) if show else None
        found.append(Row(LABELS[m], _cells(rows[m], distance, output=output, published=published)))
    return found


def _floor(record: Record, distance: str) -> Row:
    number = record.metric(f"test/floor/true/{distance}/mean").num_samples
    cells = _cells([record], distance, output="true", tasks=dict.fromkeys(TASKS, "floor"))
    return Row(f"Noise floor: two true samples, N = {number:,}", cells)


def _closest(record_row: Sequence[Record]) -> str:
    target = _published("table1")["rows"]["GMRF MCVAE"][5]
    means = {}
    for label, task in PROTOCOLS.items():
        values = _values(record_row, f"test/{task}/mean/histogram/mean")
        means[label] = sum(values) / len(values)
    best = min(means, key=lambda k: abs(means[k] - target))
    listed = "; ".join(f"{label}: {value:.2f}" for label, value in means.items())
    return f"Conditional mean by protocol: {listed}. Closest to the published {target}: {best}."


def table1(profile: str, seeds: int | None, lookup: Lookup, rename: Mapping[str, str] | None = None) -> list[Table]:
    """Table I with its ablations, and the same experiment by the exact and by the sliced distance.

    Arguments:
        profile: The profile.
        seeds: Number of seeds; the profile's if None.
        lookup: A run's record, None if there is none.
        rename: Method label to the label under which another paper prints the same numbers.

    Source: GMRF MCVAE, Table I (MRF MVAE, Table 2); errata, "The copula metric" and E17.
    """
    rows = {
        m: [r for s in specs if (r := lookup(s)) is not None] for m, specs in plan("table1", profile, seeds).items()
    }
    records = [r for found in rows.values() for r in found]
    tables = []
    for distance, title in {
        "histogram": "Copula dataset: the paper's distance",
        "transport": "Copula dataset: exact 2-D optimal transport distance",
        "sliced": "Copula dataset: sliced Wasserstein distance",
    }.items():
        first = distance == "histogram"
        groups, notes = [], [READING] if first else []
        if first:
            notes.append(_settings_note(records))
            notes.append(_closest(rows["gmrf_mcvae"]))
        if distance != "transport":
            groups.append(RowGroup("Decoder means that are not clipped to [0, 1]", _rows(rows, distance, "unclipped")))
            label = "Samples of the likelihood, clipped to [0, 1], in the place of decoder means"
            groups.append(RowGroup(label, _rows(rows, distance, "sample")))
            protocol_rows = [
                Row(label, _cells(rows["gmrf_mcvae"], distance, tasks={"uncond": None, "cond": task}))
                for label, task in PROTOCOLS.items()
            ]
            groups.append(RowGroup("GMRF MCVAE, how unobserved components are drawn", protocol_rows))
        variants = _variant_rows(profile, lookup, distance)
        groups.append(RowGroup("GMRF MCVAE with one setting changed", variants))
        tables.append(
            Table(
                caption=f"Table I. {title} (x 1000)",
                provenance=provenance(records),
                columns=_columns(),
                rows=[_renamed(r, rename) for r in _rows(rows, distance)],
                floors=[_floor(records[0], distance)],
                groups=groups,
                notes=notes,
                published_seeds=3,
            )
        )
    return tables


def headline(seeds: int | None, lookup: Lookup) -> str:
    """Table I's means in Markdown, obtained, published, difference and seeds, for the README."""
    main, exact = table1("paper", seeds, lookup)[:2]

    def number(cell: Cell) -> str:
        return f"{cell.mean:.2f}" + ("" if cell.std is None else f" ± {cell.std:.2f}")

    lines = [
        "| model | unconditional: obtained | published | difference | conditional: obtained | published | difference "
        "| exact distance, unconditional | seeds |",
        "|:--|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row, other in zip(main.rows, exact.rows, strict=True):
        cells = [row.cells[f"{t}_mean"] for t in TASKS]
        parts = [p for c in cells for p in (number(c), str(c.published), f"{c.difference:+.2f}".replace("-", "−"))]
        lines.append(f"| {' | '.join([row.label, *parts, number(other.cells['uncond_mean']), str(cells[0].n)])} |")
    floors = [t.floors[0].cells for t in (main, exact)]
    parts = [number(floors[0]["uncond_mean"]), "", "", number(floors[0]["cond_mean"]), "", ""]
    lines.append(f"| two true samples | {' | '.join(parts)} | {number(floors[1]['uncond_mean'])} | |")
    text = "Distances x 1000, mean of both dimensions, mean ± standard deviation over seeds; lower is better."
    return "\n".join([*lines, "", f"{text} {main.provenance}"]) + "\n"


def _renamed(row: Row, rename: Mapping[str, str] | None) -> Row:
    return Row((rename or {}).get(row.label, row.label), row.cells)


def _settings_note(records: Sequence[Record]) -> str:
    training = records[0].spec.params["training"]
    betas = {LABELS[r.spec.method]: r.spec.params["model"]["beta"] for r in records}
    return (
        f"{training['epochs']} epochs, batch {training['batch_size']}, Adam at {training['learning_rate']:g}; beta, "
        f"chosen on validation data: {', '.join(f'{m} {b:g}' for m, b in betas.items())}. Latents a modality: 2 (GMRF "
        "MCVAE, capacity 44), 6 (MVAE, MMVAE, MoPoE-VAE) and 3 shared + 3 private (MMVAE+), capacity 48."
    )


def _variant_rows(profile: str, lookup: Lookup, distance: str) -> list[Row]:
    rows, missing = [], f"not run: {make_command('gmrf-table1-ablations', profile)}"
    for name, specs in plan("table1-ablations", profile).items():
        records = [r for s in specs if (r := lookup(s)) is not None]
        rows.append(Row(name, _cells(records, distance, reason=missing)))
    return rows


def ablations(profile: str, lookup: Lookup) -> Table:
    """GMRF MCVAE with one setting changed at a time, by the paper's distance (errata E17; section -C2)."""
    specs = plan("table1-ablations", profile)
    records = [r for found in specs.values() for s in found if (r := lookup(s)) is not None]
    return Table(
        caption="Table I, ablations. Copula dataset: one setting of GMRF MCVAE changed, the paper's distance (x 1000)",
        provenance=provenance(records),
        columns=_columns(),
        rows=_variant_rows(profile, lookup, "histogram"),
        floors=[_floor(records[0], "histogram")],
        notes=[f"Changed settings: {'; '.join(f'{n}: {_listed(c)}' for n, (_, c) in VARIANTS.items())}."],
    )


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in settings.items())


def _score(record: Record, distances: Sequence[str] = ("histogram", "sliced")) -> float:
    """Geometric mean over both tasks and the distances on the validation split: equal weight whatever the scales."""
    return geometric_mean(
        record.metric(f"validation/{task}/mean/{d}/mean").value for task in TASKS.values() for d in distances
    )


def _scores(profile: str, lookup: Lookup, *, rung: int, distances: Sequence[str]) -> dict[str, dict[float, float]]:
    """Method to beta to score, of one of the sweep's two rungs."""
    scores: dict[str, dict[float, float]] = {m: {} for m in METHODS}
    for name, (spec,) in plan("table1-sweep", profile).items():
        record = lookup(spec)
        if record is not None and name.endswith(f" {RUNG_EPOCHS[profile][rung]} epochs"):
            scores[spec.method][spec.params["model"]["beta"]] = _score(record, distances)
    return scores


def choose_betas(profile: str, lookup: Lookup) -> tuple[dict[str, list[float]], dict[str, float]]:
    """The finalists and the chosen beta of each method, by the lowest score on the validation split.

    The score is the geometric mean, over both tasks, of the paper's and of the sliced distance on decoder means. The
    paper's alone does not see where mass lies, and ranks models whose decoders ignore their latents among the best.

    Returns:
        Method to the best beta of the first rung and the next smaller one, which converges more slowly (the next
        larger where there is none smaller), and method to the best of these in the second rung.
    """
    both = ("histogram", "sliced")
    first, second = (_scores(profile, lookup, rung=rung, distances=both) for rung in (0, 1))
    finalists = {}
    for m in METHODS:
        index = BETAS.index(min(first[m], key=first[m].__getitem__))
        index = min(index, len(BETAS) - 2)
        finalists[m] = list(BETAS[index : index + 2])
    return finalists, {m: min(second[m], key=second[m].__getitem__) for m in METHODS if second[m]}


def sweep(profile: str, lookup: Lookup) -> list[Table]:
    """What beta was chosen from, on the validation split with one seed (section -C2), and each distance by itself."""
    specs = plan("table1-sweep", profile)
    records = [r for found in specs.values() for s in found if (r := lookup(s)) is not None]
    finalists, chosen = choose_betas(profile, lookup)
    agree = finalists == {m: list(b) for m, b in finalist_betas().items()} and chosen == dict(chosen_betas())
    rungs = RUNG_EPOCHS[profile]

    def rows(distances: Sequence[str], rung: int) -> list[Row]:
        scores = _scores(profile, lookup, rung=rung, distances=distances)
        reason = "neither the best of the first rung nor its neighbour" if rung else "not run"
        found = []
        for m in METHODS:
            cells = {b: Cell(None, [scores[m][b]]) if b in scores[m] else Cell(None, (), reason) for b in BETAS}
            found.append(Row(LABELS[m], {f"{b:g}": cell for b, cell in cells.items()}))
        return found

    note = Claim(
        f"First rows: {rungs[0]} epochs. One seed, decoder means. Chosen by the first of these tables: "
        f"{', '.join(f'{LABELS[m]} {b:g}' for m, b in chosen.items())}; this {'agrees' if agree else 'DISAGREES'} with "
        "the package's betas.toml. No test data enters."
    )
    tables = []
    for distances, title in {
        ("histogram", "sliced"): "geometric mean of both tasks and of the paper's and the sliced distance",
        ("histogram",): "geometric mean of both tasks, the paper's distance alone",
        ("sliced",): "geometric mean of both tasks, the sliced distance alone",
    }.items():
        label = f"The best of each model and its neighbour, after {rungs[1]} epochs"
        tables.append(
            Table(
                caption=f"Choice of beta on the validation split: {title} (x 1000)",
                provenance=provenance(records),
                columns=[Column(f"{b:g}", f"beta {b:g}") for b in BETAS],
                rows=rows(distances, 0),
                groups=[RowGroup(label, rows(distances, 1))],
                notes=[note],
            )
        )
    return tables
