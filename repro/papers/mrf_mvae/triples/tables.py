"""MRF MVAE's Table 4 on MNIST triples, the search for its FID's features, and the choice of beta, from records."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean, geometric_mean
from typing import Any

from repro.datasets.card import load_card
from repro.experiment import Results, artifact
from repro.metrics.inception import unavailable_reason
from repro.papers import paper
from repro.papers.mrf_mvae.triples.experiment import (
    FIGURE9,
    LABELS,
    ablation_runs,
    chosen_betas,
    reading_rows,
    readings,
    sweep_betas,
    sweep_profile,
    sweep_runs,
    table4_runs,
)
from repro.papers.mrf_mvae.triples.readings import ALIKE, reading
from repro.records import Record, RunSpec, provenance
from repro.report.cells import Cell, Claim, Shown
from repro.report.evidence import mixing_caveat
from repro.report.plain_tables import NONE, PlainTable, make_command
from repro.report.tables import Column, Row, RowGroup, Table

__all__ = ["ablations", "choose_betas", "features", "sweep", "table4"]

TASKS = {"uncond": "unconditional", "cond": "conditional"}
NOT_CONDITIONED = "its samples of the prior are those above"
NOT_STARTED = "its conditional samples are those above"
DIGITS = "test/unconditional/digits"
CEILINGS = {"reconstructed": "reconstructions of what is observed", "nearest": "latents of the nearest training triple"}
NO_CEILING = "of the variant's own row"

# MNIST's own mean and deviation, as images are often standardised by: an affine map of pixels scales the distance.
STANDARD_DEVIATION = 0.3081
SPACES: dict[str, tuple[str, float]] = {
    "hidden activations of the package's MNIST classifier (128)": ("classifier", 1.0),
    "logits of the package's MNIST classifier (10)": ("logits", 1.0),
    "pixels in [0, 1] (784)": ("pixels", 1.0),
    "pixels in [-1, 1]: x 4": ("pixels", 4.0),
    "pixels standardised by MNIST's deviation: x 10.5": ("pixels", STANDARD_DEVIATION**-2),
    "pixels in [0, 255]: x 65,025": ("pixels", 255.0**2),
    "Inception, 2048 features (the FID)": ("inception", 1.0),
    "Inception, [0, 1] fed as if it were bytes": ("inception-unit-as-bytes", 1.0),
    "Inception, 1008 logits": ("inception-logits", 1.0),
}
DEFINITION = (
    "Coherence: without conditions, the share of samples whose first two modalities show the same digit; conditional, "
    "the share of test triples for which the second, given the first, or the first, given the second, shows the "
    "observed digit, mean of both directions. The third modality is free and does not enter. Frechet distances: mean "
    "over the three modalities, or over the two that are generated from each of the first two."
)


READINGS = (
    "The paper calls the first two modalities similar: the same image twice, or two images of one digit (erratum M7). "
    "The caption says which the table's own rows take; the other reading stands below, where the profile has it."
)


def _published(table: str) -> Mapping[str, Any]:
    return paper("mrf_mvae").published[table]


def _printed(label: str) -> dict[str, float]:
    table = _published("table4")
    return dict(zip(table["columns"], table["rows"][label], strict=True))


def _columns() -> list[Column]:
    found = []
    for task, group in (("uncond", "Unconditional"), ("cond", "Conditional")):
        found.append(Column(f"{task}_coherence", "coherence", "higher", 3, group))
        found.append(Column(f"{task}_frechet", "Frechet distance, classifier features", "lower", 1, group))
        found.append(Column(f"{task}_fid", "FID", "lower", 2, group))
    return found + [Column(name, label, None, 3, "Ceilings of coherence") for name, label in CEILINGS.items()]


def _values(records: Sequence[Record], name: str) -> list[float]:
    return [m.value for r in records for m in r.metrics if m.name == name]


def _cells(
    records: Sequence[Record],
    tasks: Mapping[str, str | None],
    published: Mapping[str, float] | None = None,
    split: str = "test",
    missing: str = "not run",
    generated: bool = True,
) -> dict[str, Cell]:
    metrics = {"coherence": "coherence", "frechet": "frechet/classifier/mean", "fid": "frechet/inception/mean"}
    cells, caveat = {}, mixing_caveat(records, f"{split}/unconditional") if generated else ""
    for task, name in tasks.items():
        for column, metric in metrics.items():
            key = f"{task}_{column}"
            known = (published or {}).get(key)
            values = [] if name is None else _values(records, f"{split}/{name}/{metric}")
            reason = (
                (NOT_CONDITIONED if task == "uncond" else NOT_STARTED)
                if name is None
                else unavailable_reason()
                if column == "fid"
                else missing
            )
            cells[key] = Cell(known, values, caveat=caveat) if values else Cell(known, (), reason)
    return cells | _ceilings(records, split, missing if not records else "not measured")


def _ceilings(records: Sequence[Record], split: str, missing: str) -> dict[str, Cell]:
    """What bounds a model's coherence: digits that are lost in reconstructions, or already in its latents."""
    names = [f"{split}/conditional/reconstructed/{m}" for m in ("m0", "m1")]
    both = zip(*(_values(records, name) for name in names), strict=True)
    found = {
        "reconstructed": [fmean(pair) for pair in both],
        "nearest": _values(records, f"{split}/neighbour/coherence"),
    }
    return {k: Cell(None, values, "" if values else missing) for k, values in found.items()}


def _without_ceilings(cells: Mapping[str, Cell], reason: str = NO_CEILING) -> dict[str, Cell]:
    return dict(cells) | {k: Cell(None, (), reason) for k in CEILINGS}


def _found(specs: Sequence[RunSpec], results: Results) -> list[Record]:
    return [r for s in specs if (r := results.record(s)) is not None]


def _changed_rows(results: Results, alike: str = "") -> list[Row]:
    """Rows of the variants with one setting changed, of one reading; Figure 9 prints two values of the first."""
    known = {k: _published("figure9")[k] for k in ("uncond_coherence", "cond_coherence")}
    rows = {n: s for n, s in ablation_runs(results.profile).items() if alike in ("", reading(s[0]))}
    missing = f"not run: {make_command('mrf-table4-ablations', results.profile)}"
    return [
        Row(name, _cells(_found(specs, results), TASKS, known if name == FIGURE9 else None, missing=missing))
        for name, specs in rows.items()
    ]


@artifact("table4-ablations", runs=ablation_runs)
def ablations(results: Results) -> Table:
    """The variants with one setting changed, one seed (MRF MVAE, Figure 9; erratum E2)."""
    found = [r for _, records in results for r in records]
    return Table(
        caption="Table 4, ablations. MNIST triples: one setting of a variant changed",
        provenance=provenance(found),
        columns=_columns(),
        rows=_changed_rows(results),
        notes=[DEFINITION, _settings(found, results)],
    )


@artifact("table4", runs=table4_runs)
def table4(results: Results) -> Table:
    """Table 4: coherence and Frechet distances of the three variants.

    Source: MRF MVAE, Table 4 and Figure 9; errata E2 to E6, M7.
    """
    rows, read = results.runs, readings(results.profile)
    found = {a: {v: _found(s, results) for v, s in reading_rows(rows, a).items()} for a in read}
    records = {a: [r for some in main.values() for r in some] for a, main in found.items()}
    printed = {v: _printed(LABELS[v]) for v in LABELS}
    groups, floors, notes = [], [], [DEFINITION, READINGS]
    for alike, main in found.items():
        if not records[alike]:
            continue
        own = [] if alike == read[0] else [Row(LABELS[v], _cells(r, TASKS, printed[v])) for v, r in main.items()]
        if started := _from_posteriors(main["nnmrf"]):
            own.append(started)
        if main["almrf"]:
            own.append(
                Row(
                    "ALMRF MVAE, the exact generalised hyperbolic conditional (erratum E3)",
                    _without_ceilings(_cells(main["almrf"], {"uncond": None, "cond": "conditional-exact"})),
                )
            )
        title = "Other settings" if alike == read[0] else f"The first two show {ALIKE[alike]}"
        groups.append(RowGroup(title, [*own, *_changed_rows(results, alike)]))
        number = records[alike][0].spec.params["evaluation"]["num_samples"]
        label = f"True triples ({ALIKE[alike]}) against as many of training, N = {number:,}"
        truth = _cells(records[alike][:1], dict.fromkeys(TASKS, "true"), generated=False)
        floors.append(Row(label, _without_ceilings(truth, "of models alone")))
        notes += [f"{ALIKE[alike].capitalize()}: {text}" for text in _notes(main, results)]
        notes.append(Claim(f"{ALIKE[alike].capitalize()}: {_order(main)}"))
    changed = [s for (s,) in ablation_runs(results.profile).values() if records[reading(s)]]
    if below := _found(changed, results):
        notes.append(f"The rows with one setting changed have records of their own: {provenance(below)}")
    missing = f"not run: {make_command('mrf-table4', results.profile)}"
    return Table(
        caption=f"Table 4. MNIST triples, of which the first two show {ALIKE[read[0]]}: the three variants of MRF MVAE",
        provenance=provenance([r for some in records.values() for r in some]),
        columns=_columns(),
        rows=[Row(LABELS[v], _cells(r, TASKS, printed[v], missing=missing)) for v, r in found[read[0]].items()],
        floors=floors,
        groups=groups,
        notes=notes,
        published_seeds=3,
    )


def _from_posteriors(records: Sequence[Record]) -> Row | None:
    """The neural variant's prior by chains that start at draws of posteriors, where that was measured."""
    name = "unconditional-from-posteriors"
    if not _values(records, f"test/{name}/coherence"):
        return None
    cells = _without_ceilings(_cells(records, {"uncond": name, "cond": None}, generated=False))
    if caveat := mixing_caveat(records, f"test/{name}"):
        cells = {k: replace(c, caveat=caveat) if c.n else c for k, c in cells.items()}
    return Row("NN-MRF MVAE, chains of the prior started at draws of posteriors", cells)


def _notes(main: Mapping[str, Sequence[Record]], results: Results) -> list[str]:
    """What is said of the runs of one reading: settings and chains."""
    records = [r for found in main.values() for r in found]
    return [_settings(records, results), *([_chains(main["nnmrf"])] if main["nnmrf"] else [])]


def _origin(results: Results, alike: str) -> str:
    """Where the betas that the paper does not name come from."""
    profile = sweep_profile(results.profile, alike)
    swept = [s for (s,) in sweep_runs(profile).values() if reading(s) == alike]
    if all(results.record(s) is not None for s in swept):
        return "the others were chosen on held-out triples"
    command = make_command("mrf-table4-sweep", profile)
    return f"the others are taken over from shorter trials, until {command} has chosen them on held-out triples"


def _settings(records: Sequence[Record], results: Results) -> str:
    params = records[0].spec.params
    data, held_out = params["data"], params["data"]["held_out"]
    betas = dict.fromkeys(f"{LABELS[r.spec.method]} {r.spec.params['model']['beta']:g}" for r in records)
    model, training = params["model"], params["training"]
    neural = [r.spec.params["model"] for r in records if r.spec.method == "nnmrf"]
    potentials = f"; NN-MRF's potentials of {_potentials(neural[0])}" if neural else ""
    kept_back = f" ({held_out:,} more are held out)" if held_out else ""
    rules: dict[str, dict[str, None]] = {}  # of epochs, with the variants that they are of
    for r in records:
        rules.setdefault(_epochs(r.spec.params["training"]), {})[LABELS[r.spec.method]] = None
    epochs = "; ".join(f"{rule} ({', '.join(of)})" if len(rules) > 1 else rule for rule, of in rules.items())
    return (
        f"Encoders and decoders of {model['layers']} hidden layers of {model['width']} (the paper: 4 of 1024), latent "
        f"{model['latent_dim']}{potentials}; {epochs} (the paper: 100) of "
        f"{data['train_samples'] - held_out:,} triples{kept_back}, batch {training['batch_size']}, Adam at "
        f"{training['learning_rate']:g}. Beta, on a Gaussian "
        f"likelihood of unit scale summed over pixels: {', '.join(betas)}; NN-MRF's 0.0078 and 0.0085 are the paper's, "
        f"{_origin(results, reading(records[0].spec))}."
    )


def _potentials(model: Mapping[str, Any]) -> str:
    """Hidden layers of the neural variant's potentials in words, and the paper's."""
    own, printed = (m["potential_widths"] for m in (model, table4_runs("paper", 1)["nnmrf"][0].params["model"]))
    return f"{len(own)} hidden layers of {own[0]} (the paper: {len(printed)} of {printed[0]})"


def _epochs(training: Mapping[str, Any]) -> str:
    """Epochs in words, with the rule that ends training where there is one."""
    if training.get("patience") is None:
        return f"{training['epochs']} epochs"
    return (
        f"until the held-out loss has not improved by {100 * training['min_improvement']:g}% for "
        f"{training['patience']} epochs, at most {training['epochs']}"
    )


def _chains(records: Sequence[Record]) -> str:
    names = ("acceptance_rate", "effective_sample_size", "r_hat")
    found = {n: _values(records, f"test/unconditional/{n}") for n in names}
    if not all(found.values()):
        return "NN-MRF's prior: nothing is known of its Markov chains."
    params = records[0].spec.params
    chains, asked = params["model"]["chains"], params["evaluation"]["num_samples"]
    number = min(chains["num_chains"], asked)
    kept = max(math.ceil(asked / number), chains["num_kept"])
    steps = chains["burn_in"] + chains["thinning"] * kept
    blocks = len(load_card(records[0].spec.dataset).modalities)
    return (
        f"NN-MRF's prior is sampled by Metropolis-Hastings over blocks, {number:,} chains of {steps:,} steps, each the "
        f"proposal of one of {blocks} blocks; {kept} draws a chain are kept. Acceptance "
        f"{fmean(found['acceptance_rate']):.2f}, largest split R-hat {max(found['r_hat']):.2f}, least effective sample "
        f"size {min(found['effective_sample_size']):,.0f} (as many chains that never move: "
        f"{_least_size(kept, number):,.0f})."
    )


def _least_size(num_draws: int, num_chains: int) -> float:
    """The effective sample size of chains that never move, which is the least that the estimate can come to.

    Of half chains of n draws it takes the autocorrelations in pairs, all of them 1 here: 2 (n - n mod 2) - 1.
    """
    half = num_draws // 2
    return 2 * num_chains * half / (2 * (half - half % 2) - 1)


def _order(rows: Mapping[str, Sequence[Record]]) -> str:
    """Whether the published order of conditional coherence holds, and what the latents would allow."""
    rows = {v: records for v, records in rows.items() if records}
    found = {v: fmean(_values(records, "test/conditional/coherence")) for v, records in rows.items()}
    known = {v: _values(records, "test/neighbour/coherence") for v, records in rows.items()}
    allowed = {v: fmean(values) for v, values in known.items() if values}
    if len(found) < len(LABELS):
        return f"{len(found)} of the {len(LABELS)} variants are recorded, so that their order is open."
    unmixed = mixing_caveat(rows["nnmrf"])
    holds = min(found["gmrf"], found["almrf"]) > found["nnmrf"]
    listed = ", ".join(f"{LABELS[v]} {share:.3f} (through the prior {found[v]:.3f})" for v, share in allowed.items())
    text = f"Conditional coherence if the unobserved latents are those of the nearest training triple: {listed}."
    if above := [LABELS[v] for v, share in allowed.items() if found[v] > share]:
        text += f" {' and '.join(above)} exceed{'s' * (len(above) == 1)} it: it is a reference, not a bound."
    if unmixed:
        return f"NN-MRF is from {unmixed}; its place among the variants is open. {text}"
    if holds:
        return f"GMRF and ALMRF are above NN-MRF in conditional coherence, as published. {text}"
    return (
        f"GMRF and ALMRF are not both above NN-MRF in conditional coherence, as was published. {text} Where the first "
        "number is the larger one, digit and dependence are in the latents, and it is the prior's conditional, linear "
        "in the mean for the Gaussian, that has not learned them."
    )


def _means(rows: Mapping[str, Sequence[Record]], space: str, factor: float) -> list[float]:
    """Mean Frechet distances of the variants in Table 4's order, both tasks each; fewer where not measured."""
    values = []
    for v in LABELS:
        for task in TASKS.values():
            found = _values(rows[v], f"test/{task}/frechet/{space}/mean")
            values += [factor * fmean(found)] if found else []
    return values


@artifact("table4-features", runs=table4_runs)
def features(results: Results) -> PlainTable:
    """The published FIDs beside Frechet distances in every space of features that may explain them.

    A space explains them if published over obtained is the same number in all cells, and that number is 1. The table
    gives the geometric mean of these ratios and the largest over the smallest, of the cells without a caveat.
    """
    for alike in readings(results.profile):  # the first that is recorded
        rows = {v: _found(specs, results) for v, specs in reading_rows(results.runs, alike).items()}
        if all(rows.values()):
            break
    records = [r for found in rows.values() for r in found]
    printed = [_printed(LABELS[v])[f"{task}_fid"] for v in LABELS for task in TASKS]
    caveats = [mixing_caveat(rows[v]) for v in LABELS for _ in TASKS]
    marks = {caveat: f" [{n}]" for n, caveat in enumerate(dict.fromkeys(filter(None, caveats)), 1)}
    lines = [("published", *(f"{x:,.2f}" for x in printed), NONE, NONE)]
    spreads = {}
    for label, (space, factor) in SPACES.items():
        values = _means(rows, space, factor)
        if len(values) < len(printed):
            lines.append((label, *[NONE] * 6, "not measured", NONE))
            continue
        ratios = [p / x for p, x, caveat in zip(printed, values, caveats, strict=True) if not caveat]
        spreads[label] = (geometric_mean(ratios), max(ratios) / min(ratios))
        cells = (
            Shown((f"{x:,.1f}" if x >= 10 else f"{x:.2f}") + marks.get(caveat, ""), Cell(None, [x], caveat=caveat))
            for x, caveat in zip(values, caveats, strict=True)
        )
        lines.append((label, *cells, f"{spreads[label][0]:.3g}", f"{spreads[label][1]:.2f}"))
    nearest = min(spreads, key=lambda k: abs(math.log(spreads[k][0])))
    within = [k for k, (ratio, spread) in spreads.items() if abs(math.log(ratio)) + math.log(spread) < math.log(1.5)]
    heads = [f"{LABELS[v].split()[0]} {task}" for v in LABELS for task in ("uncond.", "cond.")]
    verdict = f"explains the published values: {', '.join(within)}" if within else "explains the published values: none"
    used = "the cells without a caveat" if marks else "all cells"
    notes = (
        Claim(
            f"Of the spaces that could be measured, what {verdict}. Nearest in scale: {nearest}, with published over "
            f"obtained {spreads[nearest][0]:.3g}. This is by {used}, {_samples_of(rows)}"
        ),
        *(f"{mark.strip()} {caveat}." for caveat, mark in marks.items()),
        f"Ratio: geometric mean of published over obtained in {used}. Spread: the largest of these ratios over the "
        "smallest; a space that differs from the paper's by a factor alone has 1. Samples of this package's own "
        "models enter, so that neither can be 1 exactly.",
        f"{unavailable_reason()}. Code that takes Inception's 1008 logits for features is a candidate that cannot be "
        "tested without them.",
        f"Triples whose first two show {ALIKE[reading(records[0].spec)]}. {provenance(records)}",
    )
    columns = ("features", *heads, "ratio", "spread")
    return PlainTable("Table 4: which features give FIDs in the thousands?", columns, tuple(lines), notes)


def _samples_of(rows: Mapping[str, Sequence[Record]]) -> str:
    """What the samples behind the distances are of, and how coherent they are beside the published ones."""
    first = next(r for records in rows.values() for r in records).spec
    found = {v: _values(r, "test/conditional/coherence") for v, r in rows.items() if not mixing_caveat(r)}
    shares = (f"{LABELS[v]} {fmean(x):.3f} ({_printed(LABELS[v])['cond_coherence']})" for v, x in found.items())
    whole = table4_runs("paper", 1)["nnmrf"][0].params["training"]["epochs"]
    return (
        f"of models of triples whose first two show {ALIKE[reading(first)]}, one of two readings (erratum M7). "
        f"Training: {_epochs(first.params['training'])} (the paper: {whole}). A space is ruled out only as far as "
        f"these models are like the paper's; their conditional coherence (published): {', '.join(shares)}."
    )


def _score(record: Record) -> float:
    """Geometric mean over both tasks of the classifier's Frechet distance over coherence; a collapse is none."""
    prefix = "validation"
    if record.metric(f"{prefix}/unconditional/digits").value < 10:
        return math.inf
    ratios = []
    for task in TASKS.values():
        distance = record.metric(f"{prefix}/{task}/frechet/classifier/mean").value
        ratios.append(distance / max(record.metric(f"{prefix}/{task}/coherence").value, 1e-3))
    return geometric_mean(ratios)


def choose_betas(results: Results) -> dict[str, dict[str, float]]:
    """Reading to variant to the beta with the lowest score on the held-out triples, where all of its runs ended."""
    scores: dict[str, dict[str, dict[float, float]]] = {alike: {} for alike in readings(results.profile)}
    for (spec,) in results.runs.values():
        if (record := results.record(spec)) is not None:
            found = scores[reading(spec)].setdefault(spec.method, {})
            found[spec.params["model"]["beta"]] = _score(record)
    left = {(reading(s), s.method) for (s,) in results.runs.values() if not (results.record(s) or results.diverged(s))}
    return {
        alike: {v: min(found, key=found.__getitem__) for v, found in by_variant.items() if (alike, v) not in left}
        for alike, by_variant in scores.items()
    }


def _agreement(profile: str, alike: str, chosen: Mapping[str, float]) -> str:
    """What was chosen for one reading, and whether it is what the package has."""
    rest = [LABELS[v] for v in sweep_betas(profile, alike) if v not in chosen]
    waiting = f"not run in full: {', '.join(rest)}"
    if not chosen:
        return f"{ALIKE[alike]}: {waiting}"
    agree = all(chosen_betas(profile, alike)[v] == b for v, b in chosen.items())
    listed = ", ".join(f"{LABELS[v]} {b:g}" for v, b in chosen.items())
    said = f"{ALIKE[alike]}: {listed}, which {'agrees' if agree else 'DISAGREES'} with the package's paper.toml"
    return f"{said} ({waiting})" if rest else said


@artifact("table4-sweep", runs=sweep_runs)
def sweep(results: Results) -> PlainTable:
    """What the betas of GMRF and ALMRF MVAE were chosen from, on held-out training triples, one seed."""
    lines, records = [], []
    for (spec,) in results.runs.values():
        named = (ALIKE[reading(spec)], LABELS[spec.method], f"{spec.params['model']['beta']:g}")
        record = results.record(spec)
        if record is None:
            lines.append((*named, "diverged" if results.diverged(spec) else "not run", *[NONE] * 5))
            continue
        records.append(record)
        own = [
            record.metric(f"validation/{task}/{metric}").value
            for task in TASKS.values()
            for metric in ("coherence", "frechet/classifier/mean")
        ]
        digits, score = record.metric("validation/unconditional/digits").value, _score(record)
        texts = (f"{own[0]:.3f}", f"{own[1]:.1f}", f"{own[2]:.3f}", f"{own[3]:.1f}", f"{digits:.0f}")
        cells = [Shown(text, Cell(None, [v])) for text, v in zip(texts, (*own, digits), strict=True)]
        lines.append((*named, *cells, f"{score:.0f}" if math.isfinite(score) else NONE))
    chosen = choose_betas(results)
    settings = records[0].spec.params
    listed = "; ".join(_agreement(results.profile, alike, found) for alike, found in chosen.items())
    notes = (
        f"Measured on {settings['data']['held_out']:,} training triples that were not trained on; their images occur "
        f"in other triples, in another modality. {settings['training']['epochs']} epochs, one seed.",
        Claim(
            "Score: geometric mean over both tasks of the Frechet distance (classifier features) over coherence; none "
            f"where samples show fewer than ten digits. Chosen, {listed}. No test data enters."
        ),
        provenance(records),
    )
    columns = ("the first two show", "variant", "beta")
    measures = ("uncond. coherence", "uncond. Frechet", "cond. coherence", "cond. Frechet", "digits", "score")
    return PlainTable("Table 4: choice of beta", (*columns, *measures), tuple(lines), notes, columns)
