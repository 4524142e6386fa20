"""SBM-VAE's tables on Extended PolyMNIST, from records, and the tables of settings, from the specifications."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Any, TypeAlias

from repro.datasets.card import load_card
from repro.experiment import Results, Rows, artifact
from repro.papers import paper
from repro.papers.sbm_vae.settings import (
    ABLATIONS,
    ALPHA,
    DEFAULT_ALPHA,
    GUIDED_ABLATIONS,
    LABELS,
    PROFILES,
    ROW_CHANGES,
    ROWS,
    sbm_spec,
)
from repro.records import Record, RunSpec, provenance
from repro.report.cells import Cell
from repro.report.plain_tables import PlainTable, make_command
from repro.report.tables import Column, Row, RowGroup, Table

__all__ = [
    "SETTINGS_COLUMNS",
    "average_note",
    "beta_runs",
    "comparison_runs",
    "count_runs",
    "metric_values",
    "number_of_seeds",
    "table4",
    "table5",
    "table5_ablations",
    "table6",
    "table7",
]

Ways: TypeAlias = Mapping[str, Mapping[str, Any]]
PLAIN_WAY: Ways = {"": {}}
# Numbers of trained modalities.
COUNTS = {"paper": tuple(range(2, 11)), "overnight": (2, 3, 4, 5), "quick": (2, 3), "smoke": (2, 3)}
COHERENCE, FID = "rest/{how}/coherence/mean", "rest/{how}/fid/mean"
FRECHET = "rest/{how}/frechet/mean"
COLUMNS = [
    Column("coherence", "Coherence", "higher", 3, "Given all others"),
    Column("fid", "FID", "lower", 2, "Given all others"),
    Column("frechet", "Fréchet, classifier", "lower", 2, "Given all others"),
]
JOINT = [
    Column("agree", "Coherence, all agree", "higher", 3, "Joint samples"),
    Column("joint_fid", "FID", "lower", 2, "Joint samples"),
    Column("joint_frechet", "Fréchet, classifier", "lower", 2, "Joint samples"),
]
METRICS = {"coherence": COHERENCE, "fid": FID, "frechet": FRECHET, "agree": "unconditional/plain/agree/{most}"}
METRICS |= {f"joint_{k}": f"unconditional/plain/{k}/mean" for k in ("fid", "frechet")}
NO_GUIDANCE = "the same joint samples as without guidance"
ONE_LATENT = "its modalities share one latent; the paper does not say which latents are compared"
STAGES = {
    "autoencoders": "Autoencoders",
    "contrastive": "Contrastive encoders",
    "score": "Score model",
    "energy": "Energy",
    "train": "Multimodal VAEs",
}
SETTINGS_COLUMNS = ("model", "beta_min", "beta_max", "N", "LD per step", "EBM scale", "batch size", "gamma a sample")


def _changed(row: str, number: int, profile: str, **changes: Any) -> list[RunSpec]:
    return [sbm_spec(ROWS[row][0], seed, profile, **changes, **ROW_CHANGES.get(row, {})) for seed in range(number)]


def number_of_seeds(profile: str, seeds: int | None) -> int:
    """How many seeds are asked for."""
    return PROFILES[profile]["seeds"] if seeds is None else seeds


def comparison_runs(profile: str, seeds: int | None) -> Rows:
    """Every row of the comparison; rows of one run, with and without guidance, name the same one."""
    return {row: _changed(row, number_of_seeds(profile, seeds), profile) for row in PROFILES[profile]["rows"]}


def count_runs(profile: str, seeds: int | None) -> Rows:
    """The comparison by the number of trained modalities."""
    rows = PROFILES[profile].get("count_rows", PROFILES[profile]["rows"])
    number = number_of_seeds(profile, seeds)
    return {
        f"{row}, {count} modalities": _changed(row, number, profile, modalities=count)
        for count in COUNTS[profile]
        for row in rows
    }


def beta_runs(
    profile: str, seeds: int | None, *, method: str, betas: Sequence[float], ways: Ways = PLAIN_WAY, **changes: Any
) -> Rows:
    """A method at several betas.

    Arguments:
        profile: The profile.
        seeds: Number of seeds; the profile's if None.
        method: The method.
        betas: The betas.
        ways: End of a row's label to further changes of its runs.
        changes: Changes of all runs.
    """
    number = number_of_seeds(profile, seeds)
    return {
        f"{b:g}{way}": [sbm_spec(method, s, profile, beta=b, **changes, **more) for s in range(number)]
        for way, more in ways.items()
        for b in betas
    }


def _ablation_runs(profile: str, seeds: int | None) -> Rows:
    rows = {**ABLATIONS, **GUIDED_ABLATIONS.get(profile, {})}
    return {row: [sbm_spec(m, 0, profile, **changed)] for row, (m, changed) in rows.items()}


def _latent_runs(profile: str, seeds: int | None) -> Rows:
    return {"SBM-VAE-C": [sbm_spec("sbm_vae", s, profile) for s in range(number_of_seeds(profile, seeds))]}


def metric_values(records: Sequence[Record], name: str) -> list[float]:
    return [m.value for r in records for m in r.metrics if m.name == name]


def _reason(records: Sequence[Record], metric: str) -> str:
    said = [m.protocol for r in records for m in r.metrics if m.name == "test/fid/available"]
    return said[0] if "fid" in metric and said else "not measured"


def _cell(records: Sequence[Record], metric: str, published: float | None = None) -> Cell:
    values = metric_values(records, f"test/{metric}")
    return Cell(published, values) if values else Cell(published, (), _reason(records, metric))


def _cells(
    records: Sequence[Record],
    how: str,
    published: Mapping[str, float],
    columns: Sequence[Column],
    missing: str = "not run",
) -> dict[str, Cell]:
    if not records:
        return {c.key: Cell(published.get(c.key), (), missing) for c in columns}
    most = records[0].spec.params["data"]["modalities"]
    cells = {}
    for column in columns:
        known = published.get(column.key)
        if how == "guided" and column in JOINT:
            cells[column.key] = Cell(known, (), NO_GUIDANCE)
        else:
            cells[column.key] = _cell(records, METRICS[column.key].format(how=how, most=most), known)
    return cells


def _floor(records: Sequence[Record], columns: Sequence[Column]) -> Row:
    names = {"coherence": "floor/coherence/mean", "fid": "floor/fid/mean", "frechet": "floor/frechet/mean"}
    names |= {f"joint_{k}": names[k] for k in ("fid", "frechet")}
    cells = {
        c.key: _cell(records[:1], names[c.key])
        if c.key in names
        else Cell(None, (), "true images agree by construction")
        for c in columns
    }
    return Row("True images (classifier's accuracy; validation against test split)", cells)


def _settings(records: Sequence[Record]) -> list[str]:
    spec, stated = records[0].spec, paper("sbm_vae").published["settings"]["sampling"]
    data, sampling = spec.params["data"], spec.params["evaluation"]["sampling"]
    images = data["train_samples"] or load_card(spec.dataset).splits["train"].count
    every = "all " * (data["train_samples"] is None)
    number = records[0].metric("test/floor/coherence/mean").num_samples
    steps = _beside(*(f"{s['sampler'].replace('_', '-')}, {s['num_steps']} steps" for s in (sampling, stated)))
    notes = [
        f"{data['modalities']} modalities, {every}{images:,} training images of each, {number:,} test images; "
        f"score-based models sample with {steps}.",
        _training(records),
    ]
    if data["modalities"] != 10:
        notes.append("The published values are of ten modalities: a reduced profile's are no attempt at them.")
    return notes


def _training(records: Sequence[Record]) -> str:
    """How the models shown were trained, with what the paper states of it: networks, epochs, batches, rates, betas."""
    stated = paper("sbm_vae").published["settings"]
    parts: list[str] = []
    waits: set[int] = set()
    for stage, name in STAGES.items():
        shown = [(LABELS[r.spec.method], r.spec.params["model"], s) for r in records if (s := _stage(r.spec, stage))]
        if not shown:
            continue
        printed = stated.get(stage, {})
        patience = {s["patience"] for _, _, s in shown if s.get("patience")}
        waits |= patience
        network = _by_model((m, _network(stage, model)) for m, model, _ in shown)
        said = ["at most " * bool(patience) + _by_model((m, f"{s['epochs']}") for m, _, s in shown) + " epochs"]
        for key, words in (("batch_size", "batch"), ("learning_rate", "learning rate")):
            own = _by_model((m, f"{s[key]:g}") for m, _, s in shown)
            said.append(f"{words} {_beside(own, f'{printed[key]:g}' if key in printed else '')}")
        parts.append(f"{name}: {network}; {', '.join(said)}.")
    if waits:
        number = " or ".join(map(str, sorted(waits)))
        parts.append(f"Each training ends once its validation loss has not improved for {number} epochs.")
    end = "Adam throughout. The paper states neither epochs nor widths."
    return " ".join([*parts, *_betas(records, stated["beta"]), end])


def _betas(records: Sequence[Record], stated: Mapping[str, float]) -> list[str]:
    """The betas of the models shown, but of those that are shown with several, each in a row of its own."""
    found: dict[str, set[float]] = {}
    for r in records:
        if r.spec.params["model"].get("kind") != "rae":  # which weighs a norm instead
            found.setdefault(r.spec.method, set()).add(r.spec.params["model"]["beta"])
    known = {m: min(betas) for m, betas in found.items() if len(betas) == 1}
    own, printed = (_by_model((LABELS[m], f"{x[m]:g}") for m in known) for x in (known, stated))
    return [f"Beta of the VAEs: {_beside(own, printed)}."] if known else []


def _stage(spec: RunSpec, stage: str) -> dict[str, Any]:
    """How a run trains a stage; nothing where it has none of that name."""
    training = spec.params["training"]
    own = training.get("stages", {"train": {}}).get(stage)
    return {} if own is None else {**training, **own}


def _network(stage: str, model: Mapping[str, Any]) -> str:
    if stage == "energy":
        return f"layers of {', '.join(map(str, model['energy']))}"
    if stage == "score":
        return f"channels {', '.join(str(model['score']['width'] * k) for k in model['score']['multipliers'])}"
    return f"channels {', '.join(map(str, model['widths']))}"


def _by_model(values: Iterable[tuple[str, str]]) -> str:
    """A setting in words, with the models in brackets where they differ in it.

    Arguments:
        values: Model and setting, of every record.
    """
    found: dict[str, dict[str, None]] = {}
    for model, text in values:
        found.setdefault(model, {})[text] = None
    models: dict[str, list[str]] = {}
    for model, texts in found.items():
        models.setdefault(" or ".join(texts), []).append(model)
    if len(models) < 2:
        return "".join(models)
    return ", ".join(f"{text} ({', '.join(names)})" for text, names in models.items())


def _beside(own: str, printed: str) -> str:
    """A setting beside the paper's, which is empty where it states none."""
    return f"{own} ({'as in the paper' if own == printed else f'the paper: {printed}'})" if printed else own


@artifact("table5", runs=comparison_runs)
def table5(results: Results) -> Table:
    """Table 5: each modality given all others, beside joint samples.

    Source: SBM-VAE, Table 5; the joint columns are figures 5 and 6 at their last number of modalities.
    """
    rows, printed = dict(results), results.published
    records = results.all_records()
    columns = [*COLUMNS, *JOINT]
    missing = f"not run: {make_command('sbm-table5', results.profile)}"
    body = []
    for row, found in rows.items():
        known: dict[str, float] = {}
        if row in printed["rows"]:
            known = {k: v[0] for k, v in zip(printed["columns"], printed["rows"][row], strict=True)}
        body.append(Row(row, _cells(found, ROWS[row][1], known, columns, missing)))
    return Table(
        caption="Table 5. Extended PolyMNIST: conditional and joint generation",
        provenance=provenance(records),
        columns=columns,
        rows=body,
        floors=[_floor(records, columns)],
        groups=_ceilings(rows, columns),
        notes=[*_settings(records), *_baseline_notes(records)],
        published_seeds=3,
    )


def _baseline_notes(records: Sequence[Record]) -> list[str]:
    """How MVTCAE weighs its terms and whether MVAE is trained on single modalities, from the runs shown."""
    notes = []
    alphas = {r.spec.params["model"].get("alpha", DEFAULT_ALPHA) for r in records if r.spec.method == "mvtcae"}
    if alphas:
        listed = ", ".join(f"{a:.3g}" for a in sorted(alphas, reverse=True))
        notes.append(
            f"MVTCAE's alpha: {listed}. The paper has none; {ALPHA:.3g} is that of the baseline library's PolyMNIST "
            f"script, {DEFAULT_ALPHA:g} its default (erratum B3)."
        )
    subsampled = {r.spec.params["model"].get("subsampling", False) for r in records if r.spec.method == "mvae"}
    if subsampled:
        how = " and ".join("with" if s else "without" for s in sorted(subsampled, reverse=True))
        notes.append(f"MVAE: {how} the ELBO of each modality alone, its own paper's sub-sampling (erratum B4).")
    return notes


def _energy_note(rows: Mapping[str, Sequence[Record]], profile: str) -> list[str]:
    """How the loss of energies still fell that were trained for fewer epochs than Table 5's may be, by row."""
    most, falls = PROFILES[profile]["epochs"]["energy"], []
    for row, records in rows.items():
        ends = [e for r in records[:1] for e in r.history if e["stage"] == "energy" and "validation_loss" in e][-2:]
        if len(ends) == 2 and ends[1]["epochs"] < most:
            (start, before), (end, after) = ((e["epoch"], e["validation_loss"]) for e in ends)
            if (rate := (before - after) / (end - start)) > 0:
                falls.append(f"{row}: {rate:.2g} an epoch at the end of {end}")
    if not falls:
        return []
    return [f"By how much the energies' validation loss still fell: {'; '.join(falls)}. Table 5's have up to {most}."]


@artifact("table5-ablations", runs=_ablation_runs)
def table5_ablations(results: Results) -> Table:
    """Table 5's columns with settings that the paper leaves open changed, one seed (errata B3, B4, M8, M9 and M24)."""
    records = results.all_records()
    columns = [*COLUMNS, *JOINT]
    guided = GUIDED_ABLATIONS.get(results.profile, {})
    shown = {row: found for row, found in dict(results).items() if row in guided}
    missing = f"not run: {make_command('sbm-table5-ablations', results.profile)}"
    caption = "Table 5, ablations. Extended PolyMNIST: settings that the paper leaves open, without guidance"
    return Table(
        caption=caption + (" but in the last rows" if guided else ""),
        provenance=provenance(records),
        columns=columns,
        rows=[
            Row(row, _cells(found, "guided" if row in guided else "plain", {}, columns, missing))
            for row, found in dict(results).items()
        ],
        floors=[_floor(records, columns)],
        notes=[*_settings(records), *_energy_note(shown, results.profile)],
    )


def _ceilings(rows: Mapping[str, Sequence[Record]], columns: Sequence[Column]) -> list[RowGroup]:
    """What each model's own encoders and decoders keep, and what the nearest training points have without a model."""
    none = {c.key: Cell(None, (), "not part of this row") for c in columns}
    found = [
        Row(row, none | {k: _cell(records, f"reconstruction/{k}/mean") for k in ("coherence", "fid", "frechet")})
        for row, records in rows.items()
        if records and ROWS[row][1] == "plain"
    ]
    everything = [r for records in rows.values() for r in records]
    measured = [r for r in everything if metric_values([r], "test/nearest/coherence/mean")] or everything
    near = Row("Nearest training point", none | {"coherence": _cell(measured[:1], "nearest/coherence/mean")})
    return [
        RowGroup("Ceilings: every modality given, decoded again", found),
        RowGroup("Reference: all others given, without a model", [near]),
    ]


@artifact("table6", runs=partial(beta_runs, method="sbm_vae", betas=(0.1, 0.5, 1.0), modalities=2))
def table6(results: Results) -> Table:
    """Table 6: the unimodal VAEs' beta, two modalities."""
    rows, printed = dict(results), results.published
    records = results.all_records()
    body = []
    for row, found in rows.items():
        known = {k: v[0] for k, v in zip(printed["columns"], printed["rows"][row], strict=True)}
        body.append(Row(f"beta = {row}", _cells(found, "plain", known, COLUMNS)))
    return Table(
        caption="Table 6. Extended PolyMNIST, first two modalities: effect of the VAEs' beta on SBM-VAE",
        provenance=provenance(records),
        columns=COLUMNS,
        rows=body,
        floors=[_floor(records, COLUMNS)],
        notes=_settings(records)[:2],  # the published values are of two modalities too
        published_seeds=3,
    )


@artifact("table7", runs=_latent_runs)
def table7(results: Results) -> Table:
    """Table 7: cosine similarity of encoded and generated latents, a column a modality of the runs."""
    records, printed = results.records("SBM-VAE-C"), results.published
    number = records[0].spec.params["data"]["modalities"]
    columns = [Column(f"m{k}", f"{k}", "higher", 3, "Modality") for k in range(number)]
    columns.append(Column("mean", "Mean", "higher", 3))
    published = {}
    for j, model in enumerate(printed["columns"]):
        values = [printed["rows"][f"{k}"][j][0] for k in range(number)]
        published[model] = {c.key: v for c, v in zip(columns, [*values, round(fmean(values), 3)], strict=True)}
    own = {"SBM-VAE-C": "guided", "SBM-VAE": "plain"}
    body = [
        Row(m, {c.key: _cell(records, f"rest/{how}/cosine/{c.key}", published.get(m, {}).get(c.key)) for c in columns})
        for m, how in own.items()
    ]
    body.append(Row("MVTCAE", {k: Cell(v, (), ONE_LATENT) for k, v in published["MVTCAE"].items()}))
    return Table(
        caption="Table 7. Cosine similarity of the encoded latents and those generated given the rest, by modality",
        provenance=provenance(records),
        columns=columns,
        rows=body,
        notes=[
            *_settings(records),
            "Mean: over the modalities shown, of the published values too.",
            *average_note(printed),
        ],
        published_seeds=3,
    )


def average_note(table: Mapping[str, Any]) -> list[str]:
    """What the published averages of a table are where they are not the mean of its published rows, as printed.

    Arguments:
        table: Of paper.toml, with the row ``Avg`` and cells that begin with a mean.
    """
    notes = []
    for k, column in enumerate(table["columns"]):
        printed = table["rows"]["Avg"][k][0]
        values = [row[k][0] for label, row in table["rows"].items() if label != "Avg"]
        if abs(fmean(values) - printed) > 0.001:  # rounding of the rows and of their mean, each to three decimals
            notes.append(
                f"The published average of {column} is {printed:.3f}; the mean of its {len(values)} published rows is "
                f"{fmean(values):.3f}."
            )
    return notes


@artifact("table4")
def table4(results: Results) -> PlainTable:
    """Table 4 as the specifications of the paper profile have it, beside what is printed."""
    rows = []
    for name, number in {"SBM 10mod": 10, "SBM below 10mod": 9}.items():
        params = sbm_spec("sbm_vae", 0, "paper", modalities=number).params
        model, steps = params["model"], params["evaluation"]["sampling"]["num_steps"]
        batch = params["training"]["batch_size"]
        numbers = (*(f"{v:g}" for v in model["sde"]), str(steps), "1", f"{model['gamma'] * batch:g}", str(batch))
        rows.append((name, *numbers, f"{model['gamma']:.2f}"))
    epochs = ", ".join(f"{PROFILES['paper']['epochs'][s]} of the {s}" for s in ("autoencoders", "score", "energy"))
    notes = (
        "The guidance's gradient is each sample's own here; the released code takes that of the batch's mean, so that "
        "the printed scale is divided by the batch size.",
        f"Not printed in the paper and this package's own: epochs, {epochs}; a moving average of the score's weights "
        f"with decay {PROFILES['paper']['score']['decay']}.",
    )
    return PlainTable("Table 4. Score hyper-parameters, Extended PolyMNIST", SETTINGS_COLUMNS, tuple(rows), notes)
