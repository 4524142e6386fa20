"""GMRF MCVAE's Table I and what belongs under it, from records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, geometric_mean
from typing import Any

from repro.experiment import Results, Rows, artifact
from repro.papers import paper
from repro.papers.gmrf_mcvae.copula.experiment import (
    BASELINE_VARIANTS,
    BETAS,
    FINALIST_SEEDS,
    LABELS,
    METHODS,
    PROFILES,
    RUNG_EPOCHS,
    VARIANTS,
    chosen_betas,
    copula_spec,
    finalist_betas,
)
from repro.records import Record, of_profile, provenance
from repro.report.cells import Cell, Claim
from repro.report.plain_tables import make_command
from repro.report.tables import Column, Row, RowGroup, Table

__all__ = [
    "ablations",
    "baselines",
    "choose_betas",
    "finalists",
    "headline",
    "lowest_note",
    "mean_notes",
    "outputs_note",
    "sweep",
    "table1",
]

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


def table1_runs(profile: str, seeds: int | None) -> Rows:
    """Each method with the beta that was chosen for it."""
    number = of_profile(PROFILES, profile)["seeds"] if seeds is None else seeds
    return {m: [copula_spec(m, s, profile) for s in range(number)] for m in METHODS}


def sweep_runs(profile: str, seeds: int | None = None) -> Rows:
    """Every beta for some epochs, and the finalists for more, on the validation split with one seed."""
    candidates = (dict.fromkeys(METHODS, BETAS), finalist_betas())
    return {
        f"{m} {b:g}, {epochs} epochs": [copula_spec(m, 0, profile, beta=b, epochs=epochs, splits=("validation",))]
        for epochs, betas in zip(of_profile(RUNG_EPOCHS, profile), candidates, strict=True)
        for m in METHODS
        for b in betas[m]
    }


def finalist_runs(profile: str, seeds: int | None = None) -> Rows:
    """The finalists with several seeds, of which the first is the sweep's run."""
    epochs = of_profile(RUNG_EPOCHS, profile)[1]
    number = FINALIST_SEEDS if seeds is None else seeds
    return {
        f"{m} {b:g}": [copula_spec(m, s, profile, beta=b, epochs=epochs, splits=("validation",)) for s in range(number)]
        for m, betas in finalist_betas().items()
        for b in betas
    }


def baseline_runs(profile: str, seeds: int | None = None) -> Rows:
    """Baselines with one setting changed."""
    return {
        name: [copula_spec(m, s, profile, **changes) for s in range(own if seeds is None else min(own, seeds))]
        for name, (m, changes, own) in BASELINE_VARIANTS.items()
    }


def ablation_runs(profile: str, seeds: int | None = None) -> Rows:
    """GMRF MCVAE with one setting changed, one seed."""
    of_profile(PROFILES, profile)
    return {name: [copula_spec(m, 0, profile, **changes)] for name, (m, changes) in VARIANTS.items()}


def published_table1() -> Mapping[str, Any]:
    """What the paper prints."""
    return paper("gmrf_mcvae").published["table1"]


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
    table = published_table1()
    show = distance == "histogram" and output == "mean"
    found = []
    for m in METHODS:
        printed = table["rows"].get(LABELS[m]) if show else None  # a baseline may be one that the paper has not
        published = None if printed is None else dict(zip(table["columns"], printed, strict=True))
        found.append(Row(LABELS[m], _cells(rows[m], distance, output=output, published=published)))
    return found


def _floor(record: Record, distance: str) -> Row:
    number = record.metric(f"test/floor/true/{distance}/mean").num_samples
    cells = _cells([record], distance, output="true", tasks=dict.fromkeys(TASKS, "floor"))
    return Row(f"Noise floor: two true samples, N = {number:,}", cells)


def _closest(record_row: Sequence[Record]) -> str:
    target = published_table1()["rows"]["GMRF MCVAE"][5]
    means = {}
    for label, task in PROTOCOLS.items():
        values = _values(record_row, f"test/{task}/mean/histogram/mean")
        means[label] = sum(values) / len(values)
    best = min(means, key=lambda k: abs(means[k] - target))
    listed = "; ".join(f"{label}: {value:.2f}" for label, value in means.items())
    return f"Conditional mean by protocol: {listed}. Closest to the published {target}: {best}."


def headline(results: Results) -> str:
    """Table I's means in Markdown, obtained, published, difference and seeds, for the README."""
    main, exact = table1(results)[:2]

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


@artifact("table1", runs=table1_runs, short=headline)
def table1(results: Results) -> list[Table]:
    """Table I with its ablations, and the same experiment by the exact and by the sliced distance.

    Source: GMRF MCVAE, Table I (MRF MVAE, Table 2); errata, "The copula metric" and E17.
    """
    rows = dict(results)
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
            notes += _edge_notes({m: found[0].spec.params["model"]["beta"] for m, found in rows.items() if found})
            notes.append(_closest(rows["gmrf_mcvae"]))
            notes.append(outputs_note({m: rows[m] for m in METHODS if m != "gmrf_mcvae"}))
            notes += mean_notes(published_table1())
            notes.append(_subsampling_note(rows["mvae"], results))
        if distance != "transport":
            groups.append(RowGroup("Decoder means that are not clipped to [0, 1]", _rows(rows, distance, "unclipped")))
            label = "Samples of the likelihood, clipped to [0, 1], instead of decoder means"
            groups.append(RowGroup(label, _rows(rows, distance, "sample")))
            protocol_rows = [
                Row(label, _cells(rows["gmrf_mcvae"], distance, tasks={"uncond": None, "cond": task}))
                for label, task in PROTOCOLS.items()
            ]
            groups.append(RowGroup("GMRF MCVAE, how unobserved components are drawn", protocol_rows))
        notes += _variants_note(results)
        variants = _variant_rows(results, distance, "table1-ablations")
        groups.append(RowGroup("GMRF MCVAE with one setting changed", variants))
        others = _variant_rows(results, distance, "table1-baselines")
        if any(cell.n for row in others for cell in row.cells.values()):
            groups.append(RowGroup("Baselines with one setting changed", others))
        tables.append(
            Table(
                caption=f"Table I. {title} (x 1000)",
                provenance=provenance(records),
                columns=_columns(),
                rows=_rows(rows, distance),
                floors=[_floor(records[0], distance)],
                groups=groups,
                notes=notes,
                published_seeds=3,
            )
        )
    return tables


def _settings_note(records: Sequence[Record]) -> str:
    training = records[0].spec.params["training"]
    betas = {LABELS[r.spec.method]: r.spec.params["model"]["beta"] for r in records}
    return (
        f"{training['epochs']} epochs, batch {training['batch_size']}, Adam at {training['learning_rate']:g}; beta, "
        f"chosen on validation data: {', '.join(f'{m} {b:g}' for m, b in betas.items())}. Latents a modality: 2 (GMRF "
        "MCVAE, capacity 44), 6 (MVAE, MMVAE, MoPoE-VAE) and 3 shared + 3 private (MMVAE+), capacity 48."
        f"{_covariances(records)}"
    )


def _covariances(records: Sequence[Record]) -> str:
    """How the Gaussian field's covariances are constructed, where they are all alike."""
    fields = [r.spec.params["model"] for r in records if "posterior" in r.spec.params["model"]]
    if not fields or any(f["posterior"] != "cholesky" or f["prior"] != "cholesky" for f in fields):
        return ""
    return (
        f" Posterior and prior of {LABELS['gmrf_mcvae']} have full Cholesky factors; rows with the block-wise "
        "construction of covariances say so (erratum E17)."
    )


def _printed(value: float) -> float:
    """Half a unit of the last digit that a published value is printed with."""
    return 0.5 * 10.0 ** -len(str(value).partition(".")[2])


def mean_notes(table: Mapping[str, Any]) -> list[str]:
    """Published means that are not the mean of the two published dimensions, whatever was rounded.

    Arguments:
        table: Of paper.toml, with columns ``<task>_dim1``, ``<task>_dim2`` and ``<task>_mean``.
    """
    notes, names = [], {"uncond": "unconditional", "cond": "conditional"}
    for label, row in table["rows"].items():
        values = dict(zip(table["columns"], row, strict=True))
        for key, task in names.items():
            dims, printed = [values[f"{key}_dim{k}"] for k in (1, 2)], values[f"{key}_mean"]
            mean = fmean(dims)
            if abs(mean - printed) > fmean(map(_printed, dims)) + _printed(printed) + 1e-9:
                notes.append(
                    f"Published {label}, {task}: the mean is printed as {printed:g}; that of {dims[0]:g} and "
                    f"{dims[1]:g} is {mean:.4g}."
                )
    return notes


def lowest_note(table: Mapping[str, Any], columns: Sequence[str], claimed: str, text: str) -> list[str]:
    """What the published table says where another row than the claimed one is the lowest in a column.

    Arguments:
        table: Of paper.toml.
        columns: Its columns that the claim is about.
        claimed: The row that the paper's text calls the lowest.
        text: The claim.
    """
    lowest = {}
    for column in columns:
        values = {label: row[table["columns"].index(column)] for label, row in table["rows"].items()}
        best = min(values, key=values.__getitem__)
        if best != claimed:
            lowest[column] = f"{best} {values[best]:g} against {values[claimed]:g}"
    return [f"{text}; in its table the lowest are {'; '.join(lowest.values())}."] if lowest else []


def outputs_note(rows: Mapping[str, Sequence[Record]]) -> str:
    """Whether the published means of the baselines are nearer to decoder means or to samples of the likelihood.

    Arguments:
        rows: Baseline to its records; those that the paper has not are left out.
    """
    outputs = {"mean": "decoder means", "sample": "samples of the likelihood"}
    table = published_table1()
    nearest: dict[str, list[str]] = {o: [] for o in outputs}
    for m, records in rows.items():
        if LABELS[m] not in table["rows"]:
            continue
        for key, task in TASKS.items():
            printed = table["rows"][LABELS[m]][table["columns"].index(f"{key}_mean")]
            means = {o: fmean(_values(records, f"test/{task}/{o}/histogram/mean")) for o in outputs}
            best = min(means, key=lambda o: abs(means[o] - printed))
            nearest[best].append(f"{LABELS[m]} {task} {means[best]:.2f} for {printed:g}")
    parts = [f"{outputs[o]} ({len(found)}): {', '.join(found)}" for o, found in nearest.items() if found]
    return f"Nearest to the published means of the baselines, both tasks: {'; '.join(parts)}."


def _subsampling_note(records: Sequence[Record], results: Results) -> str:
    """How the table's MVAE was trained, and where the other way is."""
    on = {r.spec.params["model"].get("subsampling", False) for r in records}
    shown = "with" if on == {True} else "without"
    name = "MVAE, sub-sampling"
    runs = baseline_runs(results.profile)[name]
    found = [r for s in runs if (r := results.record(s)) is not None]
    text = (
        f"The table's MVAE was trained {shown} the ELBO of each modality alone, on which its conditional samples rest; "
        f"MVAE's own paper and all other tables of this package train with it (erratum B4). "
    )
    if len(found) < len(runs):
        return text + f'The row "{name}" is not recorded yet: {make_command("gmrf-table1-baselines", results.profile)}.'
    means = {t: fmean(_values(found, f"test/{task}/mean/histogram/mean")) for t, task in TASKS.items()}
    return text + f"With it: unconditional {means['uncond']:.2f}, conditional {means['cond']:.2f}."


VARIANT_RUNS = {"table1-ablations": ablation_runs, "table1-baselines": baseline_runs}


def _variants_note(results: Results) -> list[str]:
    """What the rows with one setting changed were measured with: other records than those of the table's own rows."""
    own = {s for specs in results.runs.values() for s in specs}
    specs = {s for runs in VARIANT_RUNS.values() for found in runs(results.profile).values() for s in found}
    records = [r for s in specs - own if (r := results.record(s)) is not None]
    return [f"The rows with one setting changed are of further records: {provenance(records)}"] if records else []


def _variant_rows(results: Results, distance: str, id: str) -> list[Row]:
    rows, missing = [], f"not run: {make_command(f'gmrf-{id}', results.profile)}"
    for name, specs in VARIANT_RUNS[id](results.profile).items():
        records = [r for s in specs if (r := results.record(s)) is not None]
        rows.append(Row(name, _cells(records, distance, reason=missing)))
    return rows


@artifact("table1-ablations", runs=ablation_runs)
def ablations(results: Results) -> Table:
    """GMRF MCVAE with one setting changed at a time, by the paper's distance (errata E17; section -C2)."""
    records = [r for _, found in results for r in found]
    return Table(
        caption="Table I, ablations. Copula dataset: one setting of GMRF MCVAE changed, the paper's distance (x 1000)",
        provenance=provenance(records),
        columns=_columns(),
        rows=_variant_rows(results, "histogram", "table1-ablations"),
        floors=[_floor(records[0], "histogram")],
        notes=[f"Changed settings: {'; '.join(f'{n}: {_listed(c)}' for n, (_, c) in VARIANTS.items())}."],
    )


@artifact("table1-baselines", runs=baseline_runs)
def baselines(results: Results) -> Table:
    """Table I's baselines with one setting changed, by the paper's distance (errata B4 and M18; section -C2)."""
    records = [r for _, found in results for r in found]
    changed = "; ".join(f"{n}: {_listed(c)}" for n, (_, c, _) in BASELINE_VARIANTS.items())
    return Table(
        caption="Table I, baselines. Copula dataset: one setting of a baseline changed, the paper's distance (x 1000)",
        provenance=provenance(records),
        columns=_columns(),
        rows=_variant_rows(results, "histogram", "table1-baselines"),
        floors=[_floor(records[0], "histogram")],
        notes=[
            f"Changed settings: {changed}. Betas are those chosen for the table's own rows.",
            "Factorised latents: the baseline library has them for MoPoE-VAE; MMVAE's with them is nearest to MMVAE+, "
            "and MVAE's is not built.",
        ],
    )


@artifact("table1-finalists", runs=finalist_runs)
def finalists(results: Results) -> Table:
    """The second rung of the choice of beta with further seeds beside the sweep's, on the validation split."""
    epochs = RUNG_EPOCHS[results.profile][1]
    found = dict(results)
    records = [r for own in found.values() for r in own]
    distances = {"both": ("histogram", "sliced"), "histogram": ("histogram",), "sliced": ("sliced",)}
    labels = {"both": "Both distances", "histogram": "The paper's", "sliced": "Sliced"}
    rows = [
        Row(
            f"{LABELS[own[0].spec.method]}, beta {own[0].spec.params['model']['beta']:g}",
            {k: Cell(None, [_score(r, d) for r in own]) for k, d in distances.items()},
        )
        for own in found.values()
    ]
    means: dict[str, dict[float, float]] = {}
    for own in found.values():
        spec = own[0].spec
        means.setdefault(spec.method, {})[spec.params["model"]["beta"]] = fmean(_score(r) for r in own)
    chosen = {m: min(scores, key=scores.__getitem__) for m, scores in means.items()}
    listed = ", ".join(f"{LABELS[m]} {b:g}" for m, b in chosen.items())
    agree = "agrees" if chosen == dict(chosen_betas()) else "DISAGREES"
    return Table(
        caption="Choice of beta, validation split, several seeds: geometric means of both tasks (x 1000)",
        provenance=provenance(records),
        columns=[Column(k, label) for k, label in labels.items()],
        rows=rows,
        notes=[
            Claim(
                f"{epochs} epochs, decoder means. Lowest by both distances: {listed}; this {agree} "
                "with the package's paper.toml, which one seed chose. No test data enters."
            ),
            *_edge_notes(chosen),
        ],
    )


def _edge_notes(chosen: Mapping[str, float]) -> list[str]:
    """That betas chosen at the lower end of the paper's grid could be smaller still."""
    least, following = sorted(BETAS)[:2]
    edge = [LABELS[m] for m, b in chosen.items() if b == least]
    if not edge:
        return []
    return [
        f"{least:g} is the lower edge of the paper's grid, {following / least:g} times under the next value, and is "
        f"chosen for {len(edge)} of {len(chosen)} models: {', '.join(edge)}. None smaller or between was tried."
    ]


def _closeness_notes(results: Results) -> list[str]:
    """The model whose finalists are nearest, and where the paper's distance alone prefers another beta."""
    both, own = (_scores(results, rung=1, distances=d) for d in (("histogram", "sliced"), ("histogram",)))
    gaps = {m: sorted(scores.items(), key=lambda x: x[1])[:2] for m, scores in both.items() if len(scores) > 1}
    if not gaps:
        return []
    m = min(gaps, key=lambda k: gaps[k][1][1] / gaps[k][0][1])
    (best, value), (other, second) = gaps[m]
    notes = [
        f"The nearest choice is {LABELS[m]}'s, {value:.2f} at {best:g} against {second:.2f} at {other:g}, with one "
        f"seed; {FINALIST_SEEDS} seeds: {make_command('gmrf-table1-finalists', results.profile)}."
    ]
    differ = {k: min(v, key=v.__getitem__) for k, v in own.items() if v}
    differ = {k: b for k, b in differ.items() if b != gaps[k][0][0]}
    if differ:
        listed = ", ".join(f"{LABELS[k]} {b:g}" for k, b in differ.items())
        notes.append(f"The paper's distance alone would choose otherwise: {listed}.")
    return notes


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in settings.items())


def _score(record: Record, distances: Sequence[str] = ("histogram", "sliced")) -> float:
    """Geometric mean over both tasks and the distances on the validation split: equal weight whatever the scales."""
    return geometric_mean(
        record.metric(f"validation/{task}/mean/{d}/mean").value for task in TASKS.values() for d in distances
    )


def _scores(results: Results, *, rung: int, distances: Sequence[str]) -> dict[str, dict[float, float]]:
    """Method to beta to score, of one of the sweep's two rungs."""
    scores: dict[str, dict[float, float]] = {m: {} for m in METHODS}
    for name, (spec,) in sweep_runs(results.profile).items():
        record = results.record(spec)
        if record is not None and name.endswith(f" {RUNG_EPOCHS[results.profile][rung]} epochs"):
            scores[spec.method][spec.params["model"]["beta"]] = _score(record, distances)
    return scores


def choose_betas(results: Results) -> tuple[dict[str, list[float]], dict[str, float]]:
    """The finalists and the chosen beta of each method, by the lowest score on the validation split.

    The score is the geometric mean, over both tasks, of the paper's and of the sliced distance on decoder means. The
    paper's alone does not see where mass lies, and ranks models whose decoders ignore their latents among the best.

    Returns:
        Method to the best beta of the first rung and the next smaller one, which converges more slowly (the next
        larger where there is none smaller), and method to the best of these in the second rung.
    """
    both = ("histogram", "sliced")
    first, second = (_scores(results, rung=rung, distances=both) for rung in (0, 1))
    finalists = {}
    for m in METHODS:
        index = BETAS.index(min(first[m], key=first[m].__getitem__))
        index = min(index, len(BETAS) - 2)
        finalists[m] = list(BETAS[index : index + 2])
    return finalists, {m: min(second[m], key=second[m].__getitem__) for m in METHODS if second[m]}


@artifact("table1-sweep", runs=sweep_runs)
def sweep(results: Results) -> list[Table]:
    """What beta was chosen from, on the validation split with one seed (section -C2), and each distance by itself."""
    records = [r for _, found in results for r in found]
    finalists, chosen = choose_betas(results)
    agree = finalists == {m: list(b) for m, b in finalist_betas().items()} and chosen == dict(chosen_betas())
    rungs = RUNG_EPOCHS[results.profile]

    def rows(distances: Sequence[str], rung: int) -> list[Row]:
        scores = _scores(results, rung=rung, distances=distances)
        reason = "neither the best of the first rung nor its neighbour" if rung else "not run"
        found = []
        for m in METHODS:
            cells = {b: Cell(None, [scores[m][b]]) if b in scores[m] else Cell(None, (), reason) for b in BETAS}
            found.append(Row(LABELS[m], {f"{b:g}": cell for b, cell in cells.items()}))
        return found

    note = Claim(
        f"First rows: {rungs[0]} epochs. One seed, decoder means. Chosen by the first of these tables: "
        f"{', '.join(f'{LABELS[m]} {b:g}' for m, b in chosen.items())}; this {'agrees' if agree else 'DISAGREES'} with "
        "the package's paper.toml. No test data enters."
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
                notes=[note, *([] if tables else [*_edge_notes(chosen), *_closeness_notes(results)])],
            )
        )
    return tables
