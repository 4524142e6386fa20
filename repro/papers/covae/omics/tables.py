"""CoVAE's Tables 1 to 3: omics data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean

from repro.datasets.card import not_available
from repro.experiment import Results, Rows, artifact
from repro.papers import paper
from repro.papers.covae.omics.experiment import CONFIGURATIONS, PROFILES, omics_spec
from repro.papers.covae.settings import LABELS, METHODS
from repro.records import Record, of_profile, provenance
from repro.report.cells import Cell
from repro.report.plain_tables import make_command
from repro.report.tables import Column, Row, RowGroup, Table

__all__ = ["NAMES", "library_table", "omics_runs", "omics_tables"]

NAMES = {"tcga": "TCGA breast tumours (220, a stand-in: no published values)", "": "MLOmics pan-cancer"}

# Column key to (heading, what is better, decimals, metric); keys are the published tables' own where they have them.
COLUMNS: dict[str, dict[str, tuple[str, str, int, str]]] = {
    "table1": {
        "precision": ("Accuracy (the paper's precision)", "higher", 3, "test/classes/accuracy"),
        "nmi": ("NMI", "higher", 3, "test/classes/nmi"),
        "ari": ("ARI", "higher", 3, "test/classes/ari"),
        "joint_nll": ("Joint NLL", "lower", 2, "test/nll/joint"),
    },
    "table2": {
        "mrna_to_mirna_mae": ("mRNA→miRNA MAE", "lower", 3, "test/mae/mrna-to-mirna"),
        "mirna_to_mrna_mae": ("miRNA→mRNA MAE", "lower", 3, "test/mae/mirna-to-mrna"),
        "mrna_to_mirna_cls": ("mRNA→miRNA accuracy", "higher", 3, "test/transfer/mrna-to-mirna"),
        "mirna_to_mrna_cls": ("miRNA→mRNA accuracy", "higher", 3, "test/transfer/mirna-to-mrna"),
        "nll_given_mrna": ("NLL of miRNA, predictive", "lower", 2, "test/nll/mirna-given-mrna/posterior-predictive"),
        "nll_given_mirna": ("NLL of mRNA, predictive", "lower", 2, "test/nll/mrna-given-mirna/posterior-predictive"),
        "ratio_given_mrna": ("NLL of miRNA, ratio", "lower", 2, "test/nll/mirna-given-mrna/ratio"),
        "ratio_given_mirna": ("NLL of mRNA, ratio", "lower", 2, "test/nll/mrna-given-mirna/ratio"),
    },
    "table3": {
        "mrna_to_mirna": ("mRNA→miRNA", "higher", 3, "test/spearman/mrna-to-mirna"),
        "mirna_to_mrna": ("miRNA→mRNA", "higher", 3, "test/spearman/mirna-to-mrna"),
        "joint_mrna": ("Joint mRNA", "higher", 3, "test/spearman/joint/mrna"),
        "joint_mirna": ("Joint miRNA", "higher", 3, "test/spearman/joint/mirna"),
    },
}
CAPTIONS = {
    "table1": "Table 1. Joint tasks",
    "table2": "Table 2. Conditional tasks",
    "table3": "Table 3. Spearman's coefficient of each feature, mean over features",
}


def omics_runs(profile: str, seeds: int | None, *, dataset: str) -> Rows:
    """Each method on a dataset, and CoVAE's other configurations."""
    number = of_profile(PROFILES, profile)["seeds"] if seeds is None else seeds
    rows = {m: [omics_spec(m, s, profile, dataset) for s in range(number)] for m in METHODS}
    for name, changes in CONFIGURATIONS.items():
        rows[name] = [omics_spec("covae", s, profile, dataset, **changes) for s in range(number)]
    return rows


def _published(results: Results, label: str, key: str) -> float | None:
    """The published mean of a cell, None where the paper has none."""
    columns, rows = results.published.get("columns", ()), results.published.get("rows", {})
    pair = rows[label][columns.index(key)] if label in rows and key in columns else ()
    return pair[0] if pair else None


def _row(results: Results, row: str, missing: str) -> Row:
    label, cells = LABELS.get(row, row), {}
    for key, (_, _, _, metric) in COLUMNS[_table(results)].items():
        records, known = results.records(row), _published(results, label, key)
        values = _values(records, metric)
        reason = "the model does not offer it" if records else missing
        cells[key] = Cell(known, values) if values else Cell(known, (), reason)
    return Row(label, cells)


def _table(results: Results) -> str:
    """``"table1"``, ``"table2"`` or ``"table3"``, of whichever data."""
    return results.id.partition("-")[0]


def _ranks(values: Mapping[str, float], better: str) -> dict[str, int]:
    """The rank of every label, 1 for the best; equal values share the better rank, as the paper does."""
    sign = 1 if better == "lower" else -1
    return {k: 1 + sum(sign * other < sign * v for other in values.values()) for k, v in values.items()}


def _rank_table(table: str, rows: Sequence[Row], caption: str, records: Sequence[Record], missing: str) -> Table:
    ranked: dict[str, dict[str, Cell]] = {row.label: {} for row in rows}
    for key, (_, better, _, _) in COLUMNS[table].items():
        ours = _ranks({r.label: r.cells[key].mean for r in rows if r.cells[key].mean is not None}, better)
        printed = {r.label: r.cells[key].published for r in rows if r.cells[key].published is not None}
        theirs = _ranks(printed, better)
        for label, cells in ranked.items():
            known = theirs.get(label)
            cells[key] = Cell(known, [ours[label]]) if label in ours else Cell(known, (), missing)
    columns = [Column(k, c[0], "lower", 0) for k, c in COLUMNS[table].items()]
    note = "Ranks of the means over seeds, 1 for the best."
    lines = [Row(k, v) for k, v in ranked.items()]
    return Table(caption, provenance(records), columns, lines, notes=[note], derived=True)


def _notes(table: str, records: Sequence[Record]) -> list[str]:
    if not records:
        return []
    first = records[0]
    training, evaluation = first.spec.params["training"], first.spec.params["evaluation"]
    notes = [
        f"{training['epochs']} epochs, batch {training['batch_size']}, AdamW at {training['learning_rate']:g}, the "
        f"rate falling after {training['plateau']} epochs without progress; 32 latents; Gaussian likelihood of unit "
        "variance."
    ]
    if table == "table1":
        notes.append(f"Classes: {first.metric('test/classes/accuracy').protocol}.")
        notes.append(f"Joint NLL: {first.metric('test/nll/joint').protocol}, the same estimator for every model.")
    if table == "table2":
        notes.append(
            "Predictive: the log of the mean of p(x_m | z) over what is inferred from the other modality, as the "
            "paper; ratio: ln p(x) - ln p(x_o), the model's true conditional (erratum E16). "
            f"MAE: decoder means of {evaluation['draws']} samples, averaged. Accuracy: the classifier of Table 1 "
            "trained on latents given one modality and tested on latents given the other."
        )
    return notes


def _prior_note(rows: Mapping[str, Sequence[Record]]) -> str:
    """The correlation of CoVAE's prior and of Deep CCA, row by row; empty without records of them.

    Arguments:
        rows: CoVAE and its other configurations, each with a record a seed.
    """
    names = {"prior/correlation": "prior", "deep-cca/held-out": "held out", "deep-cca/fitted": "on the fit"}
    names |= {"deep-cca/bias": "on the fit without any dependence"}
    found = []
    for row, records in rows.items():
        values = {text: _values(records, n) for n, text in names.items()}
        if means := [f"{text} {fmean(v):.2f}" for text, v in values.items() if v and len(v) == len(records)]:
            found.append(f"{row}: {', '.join(means)}")
    if not found:
        return ""
    return f"Mean correlation between modalities (the paper's prior on MLOmics: 0.78). {'; '.join(found)}."


MLOMICS, TCGA = (partial(omics_runs, dataset=d) for d in ("mlomics", "tcga_brca"))


@artifact("table1", runs=MLOMICS)
@artifact("table2", runs=MLOMICS)
@artifact("table3", runs=MLOMICS)
@artifact("table1-tcga", runs=TCGA)
@artifact("table2-tcga", runs=TCGA)
@artifact("table3-tcga", runs=TCGA)
def omics_tables(results: Results) -> list[Table]:
    """One of Tables 1 to 3 and its ranks, and below Table 1 the likelihoods that multivae itself computes.

    Where no run has a record, every cell says how the data is to be had.
    """
    table, _, where = results.id.partition("-")
    records = [r for m in METHODS for r in results.records(m)]
    changed = {name: results.records(name) for name in CONFIGURATIONS}
    command = f"`{make_command(f'covae-{results.id}', results.profile)}`"
    missing = f"not run: {command}" if records or where else f"{not_available('mlomics')} Then {command}"
    rows = [_row(results, m, missing) for m in METHODS]
    columns = [Column(k, label, better, decimals) for k, (label, better, decimals, _) in COLUMNS[table].items()]
    configurations = [_row(results, name, missing) for name in CONFIGURATIONS]
    caption = f"{CAPTIONS[table]}, {NAMES[where]}"
    notes = _notes(table, results.records("covae") or records)
    if table == "table1" and (note := _prior_note({LABELS["covae"]: results.records("covae"), **changed})):
        notes.append(note)
    if below := [r for found in changed.values() for r in found]:
        notes.append(f"CoVAE's other configurations have records of their own: {provenance(below)}")
    tables = [
        Table(
            caption,
            provenance(records),
            columns,
            rows,
            groups=[RowGroup("CoVAE's other configurations", configurations)],
            notes=notes,
            published_seeds=5,
        ),
        _rank_table(table, rows, f"{CAPTIONS[table]}: ranks", records, missing),
    ]
    if table == "table1":
        named = {LABELS[m]: results.records(m) for m in METHODS}
        tables.append(library_table(named, NAMES[where], "mRNA", missing, PAPERS_NLL.format(**_published_nll())))
    return tables


# What the paper's Table 1 has where the library's estimate is of one modality.
PAPERS_NLL = "on MLOmics the paper has {own:.0f} beside {least:.0f} to {most:.0f} of the others"
# What multivae does to the models whose value of its own is far from this package's, or hangs on chance.
LIBRARY = {
    ("DMVAE",): "{0} adds up over points and chunks, which explains the paper's empty cells.",
    ("MMVAE+",): "{0} drops the last modality, so that it is near the NLL of {first} alone{beside}.",
    ("MMVAE", "MoPoE"): "{0} samples are all of one expert taken at random.",
}


def _published_nll() -> dict[str, float]:
    """MMVAE+'s joint NLL on MLOmics as the paper prints it, and the least and the most of the other models'."""
    table = paper("covae").published["table1"]
    pairs = {label: row[table["columns"].index("joint_nll")] for label, row in table["rows"].items()}
    values = {label: pair[0] for label, pair in pairs.items() if pair}
    own = values.pop(LABELS["mmvae_plus"])
    return {"own": own, "least": min(values.values()), "most": max(values.values())}


def library_table(
    rows: Mapping[str, Sequence[Record]], where: str, first: str, missing: str = "not run", published: str = ""
) -> Table:
    """Joint NLL by this package's estimator and by multivae's own, on the same points.

    Arguments:
        rows: Label, a method's name before any comma, to a record a seed.
        where: What the data is called.
        first: What the first of its two modalities is called.
        missing: Why a row has no values.
        published: What the paper has where one modality is left out; empty where it has none.
    """
    metrics = {"own": "test/nll/joint-of-those-points", "multivae": "test/nll/joint-multivae"}
    reasons = {"CoVAE": "not a model of multivae"}
    cells = {
        label: {
            k: Cell(None, v) if (v := _values(records, name)) else Cell(None, (), reasons.get(label, missing))
            for k, name in metrics.items()
        }
        for label, records in rows.items()
    }
    columns = [Column("own", "this package", None, 2), Column("multivae", "multivae 1.0.3", None, 2)]
    shown, parts = {label.partition(",")[0] for label in rows}, ["The first test points, 100 importance samples."]
    for methods, text in LIBRARY.items():
        if who := " and ".join(f"{m}'s" for m in methods if m in shown):
            parts.append(text.format(who, first=first, beside=f": {published}" if published else ""))
    known = [r for records in rows.values() for r in records]
    caption = f"Joint NLL by this package's estimator and by multivae's own, {where}"
    return Table(caption, provenance(known), columns, [Row(k, v) for k, v in cells.items()], notes=[" ".join(parts)])


def _values(records: Sequence[Record], name: str) -> list[float]:
    return [m.value for r in records for m in r.metrics if m.name == name]
