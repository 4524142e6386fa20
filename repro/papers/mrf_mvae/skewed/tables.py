"""The tables of the comparison on the asymmetric Laplace copula, from records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import geometric_mean

from repro.experiment import Results, artifact
from repro.metrics.tails import CORNERS
from repro.papers.mrf_mvae.skewed.experiment import BETAS, LABELS, chosen_betas, sweep_runs, tails_runs
from repro.records import Record, provenance
from repro.report.cells import Cell, Claim, Shown
from repro.report.evidence import mixing_caveat
from repro.report.plain_tables import PlainTable
from repro.report.tables import Column, Row, RowGroup, Table

__all__ = ["choose_betas", "sweep", "tails"]

# Column to metric: of joint samples and of conditional ones.
MEASURES = {
    "tail": ("tails", "tail-true/mean"),
    "own": ("tails by own ranks", "tail-own/mean"),
    "sliced": ("sliced distance", "sliced"),
}
SCORED = ("tail-true/mean", "sliced")


def _columns() -> list[Column]:
    return [
        Column(f"{task}_{key}", label, "lower", 4 if key != "sliced" else 1, group)
        for task, group in (("unconditional", "Unconditional"), ("conditional", "Conditional"))
        for key, (label, _) in MEASURES.items()
    ]


def _cells(records: Sequence[Record], prefixes: Mapping[str, str | None], *, generated: bool = True) -> dict[str, Cell]:
    cells, caveat = {}, mixing_caveat(records) if generated else ""
    for task, prefix in prefixes.items():
        for key, (_, metric) in MEASURES.items():
            values = [] if prefix is None else [r.metric(f"{prefix}/{metric}").value for r in records]
            missing = Cell(None, (), "measured on decoder means alone")
            cells[f"{task}_{key}"] = Cell(None, values, caveat=caveat) if values else missing
    return cells


def _corners(rows: Mapping[str, Sequence[Record]]) -> str:
    parts = []
    for method, records in rows.items():
        names = [f"test/unconditional/mean/tail-true/{c}" for c in CORNERS]
        means = [sum(r.metric(n).value for r in records) / len(records) for n in names]
        parts.append(f"{LABELS[method]} {', '.join(f'{m:.3f}' for m in means)}")
    order = ", ".join(c.replace("_", "-") for c in CORNERS)
    return f"Errors of the unconditional tails by corner ({order}): {'; '.join(parts)}."


def _verdict(rows: Mapping[str, Sequence[Record]]) -> str:
    """What the table says of the claim, in one sentence made from its numbers."""

    def mean(method: str) -> float:
        return sum(r.metric("test/unconditional/mean/tail-true/mean").value for r in rows[method]) / len(rows[method])

    mixed = [m for m, records in rows.items() if not mixing_caveat(records)]
    best, aside = min(mixed, key=mean), "" if len(mixed) == len(rows) else ", chains aside that are not known to mix,"
    ratio = mean("almrf") / mean("gmrf")
    words = "lower" if ratio < 1 else "higher"
    return (
        "The claim that the asymmetric Laplace variant handles heavy, skewed tails: its error of the unconditional "
        f"tails is {words} than the Gaussian variant's by a factor of {max(ratio, 1 / ratio):.2f}; the lowest"
        f"{aside} is that of {LABELS[best]}."
    )


@artifact("tails", runs=tails_runs)
def tails(results: Results) -> Table:
    """The variants on data with heavy, skewed joint tails: errors of the tails, and distances of all pairs.

    Source: the test that MRF MVAE recommends (appendix D.2); the paper has no such table.
    """
    rows = dict(results)
    records = [r for found in rows.values() for r in found]
    means = {"unconditional": "test/unconditional/mean", "conditional": "test/conditional/mean"}
    drawn = {"unconditional": "test/unconditional/sample", "conditional": None}
    floor = dict.fromkeys(means, "test/floor/true")
    params = records[0].spec.params
    training, level = params["training"], params["evaluation"]["level"]
    betas = {LABELS[m]: found[0].spec.params["model"]["beta"] for m, found in rows.items()}
    notes = [
        f"Tails: absolute error of the coefficients of tail dependence at level {level:g}, mean over pairs, "
        "coordinates and the four corners, tails beyond the true sample's quantiles; by own ranks: by the generated "
        "sample's ranks, which leaves its marginals out. Sliced Wasserstein distance x 1000. Conditional: given each "
        "modality in turn; ALMRF by its exact conditional.",
        Claim(_verdict(rows)),
        "Samples of the likelihood: of the scale at which the objective is an ELBO. ALMRF's surrogate is none at any "
        "scale; the unit scale of its reconstruction term is taken, wide against data in [0, 1].",
        _corners(rows),
        f"{training['epochs']} epochs, batch {training['batch_size']}, Adam at {training['learning_rate']:g}; two "
        f"latents a modality. Beta, chosen on validation data: {', '.join(f'{m} {b:g}' for m, b in betas.items())}.",
    ]
    return Table(
        caption="Heavy, skewed tails: the variants of MRF MVAE on the asymmetric Laplace copula",
        provenance=provenance(records),
        columns=_columns(),
        rows=[Row(LABELS[m], _cells(found, means)) for m, found in rows.items()],
        floors=[
            Row(
                f"Noise floor: two true samples, N = {params['evaluation']['num_samples']:,}",
                _cells(records[:1], floor, generated=False),
            )
        ],
        groups=[
            RowGroup(
                "Samples of the likelihood instead of decoder means",
                [Row(LABELS[m], _cells(found, drawn)) for m, found in rows.items()],
            )
        ],
        notes=notes,
    )


def _score(record: Record) -> float:
    """Geometric mean over both tasks of the error of tails and of the sliced distance, on validation data."""
    return geometric_mean(
        max(record.metric(f"validation/{task}/mean/{m}").value, 1e-6)
        for task in ("unconditional", "conditional")
        for m in SCORED
    )


def choose_betas(results: Results) -> dict[str, float]:
    """Method to the beta with the lowest score on the validation split."""
    scores: dict[str, dict[float, float]] = {}
    for _, records in results:
        for record in records:
            spec = record.spec
            scores.setdefault(spec.method, {})[spec.params["model"]["beta"]] = _score(record)
    return {m: min(found, key=found.__getitem__) for m, found in scores.items()}


@artifact("tails-sweep", runs=sweep_runs)
def sweep(results: Results) -> PlainTable:
    """What the betas of the comparison were chosen from, on the validation split, one seed."""
    lines, records = [], []
    for name, found in results:
        if not found:
            continue
        (record,) = found
        records.append(record)
        values = [
            record.metric(f"validation/{task}/mean/{m}").value
            for task in ("unconditional", "conditional")
            for m in SCORED
        ]
        cells = [Shown(f"{v:.4f}" if k % 2 == 0 else f"{v:.1f}", Cell(None, [v])) for k, v in enumerate(values)]
        score = Shown(f"{_score(record):.3f}", Cell(None, [_score(record)]))
        lines.append((LABELS[record.spec.method], name.rsplit(" ", 1)[1], *cells, score))
    chosen = choose_betas(results)
    agree = chosen == {m: chosen_betas()[m] for m in BETAS}
    notes = (
        Claim(
            f"{records[0].spec.params['training']['epochs']} epochs, one seed, decoder means. Score: geometric mean of "
            f"the four. Chosen: {', '.join(f'{LABELS[m]} {b:g}' for m, b in chosen.items())}; this "
            f"{'agrees' if agree else 'DISAGREES'} with the package's paper.toml. No test data enters."
        ),
        provenance(records),
    )
    columns = ("variant", "beta", "uncond. tails", "uncond. sliced", "cond. tails", "cond. sliced", "score")
    named = ("variant", "beta")
    return PlainTable("Asymmetric Laplace copula: choice of beta", columns, tuple(lines), notes, named)
