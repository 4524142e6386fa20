"""MRF MVAE's Table 4 on MNIST triples, the search for its FID's features, and the choice of beta, from records."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from statistics import fmean, geometric_mean
from typing import Any

from repro.metrics.inception import unavailable_reason
from repro.papers.mrf_mvae.triples import BETAS, FIGURE9, LABELS, chosen_betas, plan
from repro.records import Record, RunSpec, provenance
from repro.tables import Cell, Claim, Column, Row, RowGroup, Shown, Table, make_command
from repro.tables_plain import NONE, PlainTable

__all__ = ["ablations", "choose_betas", "features", "sweep", "table4"]

Lookup = Callable[[RunSpec], Record | None]
TASKS = {"uncond": "unconditional", "cond": "conditional"}
NOT_CONDITIONED = "its samples of the prior are those above"
DIGITS = "test/unconditional/digits"

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


@cache
def _published(table: str) -> Mapping[str, Any]:
    return tomllib.loads((files("repro.papers.mrf_mvae") / "published.toml").read_text())[table]


def _printed(label: str) -> dict[str, float]:
    table = _published("table4")
    return dict(zip(table["columns"], table["rows"][label], strict=True))


def _columns() -> list[Column]:
    found = []
    for task, group in (("uncond", "Unconditional"), ("cond", "Conditional")):
        found.append(Column(f"{task}_coherence", "coherence", "higher", 3, group))
        found.append(Column(f"{task}_frechet", "Frechet distance, classifier features", "lower", 1, group))
        found.append(Column(f"{task}_fid", "FID", "lower", 2, group))
    return found


def _values(records: Sequence[Record], name: str) -> list[float]:
    return [m.value for r in records for m in r.metrics if m.name == name]


def _cells(
    records: Sequence[Record],
    tasks: Mapping[str, str | None],
    published: Mapping[str, float] | None = None,
    split: str = "test",
    missing: str = "not run",
) -> dict[str, Cell]:
    metrics = {"coherence": "coherence", "frechet": "frechet/classifier/mean", "fid": "frechet/inception/mean"}
    cells = {}
    for task, name in tasks.items():
        for column, metric in metrics.items():
            key = f"{task}_{column}"
            known = (published or {}).get(key)
            values = [] if name is None else _values(records, f"{split}/{name}/{metric}")
            reason = NOT_CONDITIONED if name is None else unavailable_reason() if column == "fid" else missing
            cells[key] = Cell(known, values) if values else Cell(known, (), reason)
    return cells


def _found(specs: Sequence[RunSpec], lookup: Lookup) -> list[Record]:
    return [r for s in specs if (r := lookup(s)) is not None]


def _changed_rows(profile: str, lookup: Lookup) -> list[Row]:
    """Rows of the variants with one setting changed; Figure 9 prints two values of the first."""
    known = {k: _published("figure9")[k] for k in ("uncond_coherence", "cond_coherence")}
    rows = plan("table4-ablations", profile)
    missing = f"not run: {make_command('mrf-table4-ablations', profile)}"
    return [
        Row(name, _cells(_found(specs, lookup), TASKS, known if name == FIGURE9 else None, missing=missing))
        for name, specs in rows.items()
    ]


def ablations(profile: str, lookup: Lookup) -> Table:
    """The variants with one setting changed, one seed (MRF MVAE, Figure 9; erratum E2)."""
    found = [r for specs in plan("table4-ablations", profile).values() for r in _found(specs, lookup)]
    return Table(
        caption="Table 4, ablations. MNIST triples: one setting of a variant changed",
        provenance=provenance(found),
        columns=_columns(),
        rows=_changed_rows(profile, lookup),
        notes=[DEFINITION, _settings(found)],
    )


def table4(profile: str, seeds: int | None, lookup: Lookup) -> Table:
    """Table 4: coherence and Frechet distances of the three variants.

    Arguments:
        profile: The profile.
        seeds: Number of seeds; the profile's if None.
        lookup: A run's record, None if there is none.

    Source: MRF MVAE, Table 4 and Figure 9; errata E2 to E6.
    """
    main = {v: _found(specs, lookup) for v, specs in plan("table4", profile, seeds).items()}
    records = [r for found in main.values() for r in found]
    exact = Row(
        "ALMRF MVAE, the exact generalised hyperbolic conditional (erratum E3)",
        _cells(main["almrf"], {"uncond": None, "cond": "conditional-exact"}),
    )
    number = records[0].spec.params["evaluation"]["num_samples"]
    floor = Row(
        f"True triples against as many of training, N = {number:,}", _cells(records[:1], dict.fromkeys(TASKS, "true"))
    )
    return Table(
        caption="Table 4. MNIST triples: the three variants of MRF MVAE",
        provenance=provenance(records),
        columns=_columns(),
        rows=[Row(LABELS[v], _cells(found, TASKS, _printed(LABELS[v]))) for v, found in main.items()],
        floors=[floor],
        groups=[RowGroup("Other settings, seed 0 unless stated", [exact, *_changed_rows(profile, lookup)])],
        notes=[DEFINITION, _settings(records), _chains(main["nnmrf"]), _reconstructions(main), Claim(_order(main))],
        published_seeds=3,
    )


def _settings(records: Sequence[Record]) -> str:
    params = records[0].spec.params
    betas = dict.fromkeys(f"{LABELS[r.spec.method]} {r.spec.params['model']['beta']:g}" for r in records)
    model, training = params["model"], params["training"]
    return (
        f"Encoders and decoders of {model['layers']} hidden layers of {model['width']} (the paper: 4 of 1024), latent "
        f"{model['latent_dim']}; {training['epochs']} epochs (the paper: 100) of {params['data']['train_samples']:,} "
        f"triples, batch {training['batch_size']}, Adam at {training['learning_rate']:g}. Beta, on a Gaussian "
        f"likelihood of unit scale summed over pixels: {', '.join(betas)}; NN-MRF's 0.0078 and 0.0085 are the paper's, "
        "the others were chosen on held-out triples."
    )


def _chains(records: Sequence[Record]) -> str:
    names = ("acceptance_rate", "effective_sample_size", "r_hat")
    found = {n: [r.metric(f"test/unconditional/{n}").value for r in records] for n in names}
    chains = records[0].spec.params["model"]["chains"]
    steps = chains["burn_in"] + chains["thinning"] * chains["num_kept"]
    return (
        f"NN-MRF's prior is sampled by Metropolis-Hastings over blocks, {chains['num_chains']:,} chains of at least "
        f"{steps:,} steps: acceptance {fmean(found['acceptance_rate']):.2f}, least effective sample size "
        f"{min(found['effective_sample_size']):,.0f}, largest split R-hat {max(found['r_hat']):.2f}."
    )


def _reconstructions(rows: Mapping[str, Sequence[Record]]) -> str:
    shares = {}
    for v, records in rows.items():
        values = [x for m in ("m0", "m1") for x in _values(records, f"test/conditional/reconstructed/{m}")]
        shares[LABELS[v]] = fmean(values)
    listed = ", ".join(f"{label} {share:.3f}" for label, share in shares.items())
    return (
        f"Share of reconstructions of the observed modality that show its own digit, a ceiling of coherence: {listed}."
    )


def _order(rows: Mapping[str, Sequence[Record]]) -> str:
    """Whether the published order of conditional coherence holds, and what the latents would allow."""
    found = {v: fmean(_values(records, "test/conditional/coherence")) for v, records in rows.items()}
    allowed = {v: fmean(_values(records, "test/neighbour/coherence")) for v, records in rows.items()}
    holds = min(found["gmrf"], found["almrf"]) > found["nnmrf"]
    listed = ", ".join(f"{LABELS[v]} {share:.3f} (through the prior {found[v]:.3f})" for v, share in allowed.items())
    text = f"Conditional coherence if the unobserved latents are those of the nearest training triple: {listed}."
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


def features(profile: str, seeds: int | None, lookup: Lookup) -> PlainTable:
    """The published FIDs beside Frechet distances in every space of features that may explain them.

    A space explains them if published over obtained is the same number in all six cells, and that number is 1. The
    table gives the geometric mean of the six ratios, and the largest over the smallest of them.
    """
    rows = {v: _found(specs, lookup) for v, specs in plan("table4-features", profile, seeds).items()}
    records = [r for found in rows.values() for r in found]
    printed = [_printed(LABELS[v])[f"{task}_fid"] for v in LABELS for task in TASKS]
    lines = [("published", *(f"{x:,.2f}" for x in printed), NONE, NONE)]
    spreads = {}
    for label, (space, factor) in SPACES.items():
        values = _means(rows, space, factor)
        if len(values) < len(printed):
            lines.append((label, *[NONE] * 6, "not measured", NONE))
            continue
        ratios = [p / x for p, x in zip(printed, values, strict=True)]
        spreads[label] = (geometric_mean(ratios), max(ratios) / min(ratios))
        cells = (Shown(f"{x:,.1f}" if x >= 10 else f"{x:.2f}", Cell(None, [x])) for x in values)
        lines.append((label, *cells, f"{spreads[label][0]:.3g}", f"{spreads[label][1]:.2f}"))
    nearest = min(spreads, key=lambda k: abs(math.log(spreads[k][0])))
    within = [k for k, (ratio, spread) in spreads.items() if abs(math.log(ratio)) + math.log(spread) < math.log(1.5)]
    heads = [f"{LABELS[v].split()[0]} {task}" for v in LABELS for task in ("uncond.", "cond.")]
    verdict = f"explains the published values: {', '.join(within)}" if within else "explains the published values: none"
    notes = (
        Claim(
            f"Of the spaces that could be measured, what {verdict}. Nearest in scale: {nearest}, with published over "
            f"obtained {spreads[nearest][0]:.3g}."
        ),
        "Ratio: geometric mean of published over obtained in the six cells. Spread: the largest of the six ratios over "
        "the smallest; a space that differs from the paper's by a factor alone has 1. Samples of this package's own "
        "models enter, so that neither can be 1 exactly.",
        f"{unavailable_reason()}. Code that takes Inception's 1008 logits for features is a candidate that cannot be "
        "tested without them.",
        provenance(records),
    )
    columns = ("features", *heads, "ratio", "spread")
    return PlainTable("Table 4: which features give FIDs in the thousands?", columns, tuple(lines), notes)


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


def choose_betas(profile: str, lookup: Lookup) -> dict[str, float]:
    """Variant to the beta with the lowest score on the held-out triples."""
    scores: dict[str, dict[float, float]] = {}
    for (spec,) in plan("table4-sweep", profile).values():
        if (record := lookup(spec)) is not None:
            scores.setdefault(spec.method, {})[spec.params["model"]["beta"]] = _score(record)
    return {v: min(found, key=found.__getitem__) for v, found in scores.items()}


def sweep(profile: str, lookup: Lookup) -> PlainTable:
    """What the betas of GMRF and ALMRF MVAE were chosen from, on held-out training triples, one seed."""
    lines, records = [], []
    for name, (spec,) in plan("table4-sweep", profile).items():
        record = lookup(spec)
        if record is None:
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
        lines.append((LABELS[spec.method], name.split()[1], *cells, f"{score:.0f}" if math.isfinite(score) else NONE))
    chosen = choose_betas(profile, lookup)
    agree = chosen == {v: chosen_betas()[v] for v in BETAS}
    settings = records[0].spec.params
    notes = (
        f"Measured on {settings['data']['held_out']:,} training triples that were not trained on; their images occur "
        f"in other triples, in another modality. {settings['training']['epochs']} epochs, one seed.",
        Claim(
            "Score: geometric mean over both tasks of the Frechet distance (classifier features) over coherence; none "
            "where samples show fewer than ten digits. Chosen: "
            f"{', '.join(f'{LABELS[v]} {b:g}' for v, b in chosen.items())}; this {'agrees' if agree else 'DISAGREES'} "
            "with the package's betas.toml. No test data enters."
        ),
        provenance(records),
    )
    columns = ("variant", "beta", "uncond. coherence", "uncond. Frechet", "cond. coherence", "cond. Frechet", "digits")
    return PlainTable("Table 4: choice of beta", (*columns, "score"), tuple(lines), notes, ("variant", "beta"))
