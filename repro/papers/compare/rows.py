"""What the tables of all models on one dataset share: cells, the choice of weights, the budget, and costs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from repro.experiment import Results, Rows
from repro.papers.compare.best import best_note
from repro.papers.compare.methods import (
    LABELS,
    LATENT_DIM,
    PRIVATE,
    REGULARISED,
    SCORE,
    SHARED,
    chosen_weights,
    weights,
)
from repro.papers.sbm_vae.settings import ALPHA
from repro.records import Record, RunSpec, provenance
from repro.report.cells import Cell, Claim
from repro.report.evidence import by_chains, mixing_caveat
from repro.report.plain_tables import make_command
from repro.report.tables import Column, Row, Table

__all__ = [
    "NLL_BOUND",
    "OF_MODELS",
    "Caveats",
    "Heading",
    "chosen_by",
    "compared_tables",
    "epochs_in_all",
    "shared_notes",
    "sweep_table",
    "weight_of",
]

Heading = tuple[str, str, str | None, int]  # group, label, what is better, decimals
Caveats = Callable[[Sequence[Record]], Mapping[str, str]]  # a row's records to metric to why its values rank with none
LIKELIHOOD = "test/log_likelihood"
# Which of their forms the models have in all comparisons.
OF_MODELS = (
    f"MVAE with the ELBO of each modality alone (erratum B4), MVTCAE at alpha {ALPHA:.2g} (erratum B3), JMVAE's alpha "
    "a tenth of its weight (erratum B5), ALMRF without a location (erratum E2)"
)
# How all comparisons draw and reconstruct.
OF_SAMPLES = (
    "Joint samples are of each model's own prior; CoVAE's paper shows none, and names a mixture of Gaussians or a flow "
    "that is fitted to latents as the usual way. Given all modalities the Markov random fields draw from the joint "
    "posterior (erratum E19), other models from theirs; score-based ones take means of encodings for what is given, "
    "and draw the rest."
)
NO_LIKELIHOOD = dict.fromkeys(REGULARISED, "a regularised autoencoder has no likelihood")
SIGNS = "the random signs of the divergences raise it in the mean: no bound"  # of a score model's density
NORMALISER = "the estimate of the prior's normaliser raises it in the mean: no bound"  # of a neural field's density
SURROGATE = "its scale's square is a penalty's weight, not that of an ELBO's divergence"
# Methods to why their likelihoods rank with none.
UNBOUNDED = {**dict.fromkeys(SCORE, SIGNS), "nnmrf": NORMALISER, "almrf": SURROGATE}
BOUND = (
    "Log-likelihood: at the scale at which the loss is a negative ELBO, by importance samples (1,000 in the paper "
    "profile, 32 of SBM-VAE), low in the mean but for NN-MRF's, whose normaliser is an estimate too, and SBM-VAE's, "
    "whose density is of divergences by random signs. That scale's square is the weight; of ALMRF, whose surrogate "
    "loss is no ELBO, it is the penalty's weight all the same."
)
NLL_BOUND = (
    "NLL in nats, at the scale at which the loss is a negative ELBO, by importance samples (1,000 a point in the paper "
    "profile, 4 of SBM-VAE), high in the mean but for NN-MRF's, whose normaliser is an estimate too, and SBM-VAE's, "
    "whose density is of divergences by random signs. That scale's square is the weight, so that NLLs of models of "
    "unequal weights differ by it too, and none is called the best; of ALMRF, whose surrogate loss is no ELBO, it is "
    "the penalty's weight all the same."
)
CONDITIONAL_DIGITS = re.compile(r"validation/(conditional|given-[a-z]+)/coherence")
NEAR_CHANCE = 0.2  # a coherence under which a model has hardly begun to show the right one of ten digits
COSTS: Mapping[str, Heading] = {
    "model/parameters": ("", "Parameters", None, 0),
    "training": ("Seconds", "of training", None, 0),
    "sampling/joint/seconds": ("Seconds", "of 1,000 joint samples", None, 3),
    "sampling/conditional/seconds": ("Seconds", "of 1,000 given one modality", None, 3),
}


def weight_of(spec: RunSpec) -> float:
    """The weight of a run's KL term, or of what it has in its place."""
    model = spec.params["model"]
    return model["regularisation"] if spec.method in REGULARISED else model["beta"]


def _columns(headings: Mapping[str, Heading]) -> list[Column]:
    return [Column(k, label, better, n, group) for k, (group, label, better, n) in headings.items()]


def _value(record: Record, name: str) -> float | None:
    if name == "training":
        return record.training_seconds
    return next((m.value for m in record.metrics if m.name == name), None)


def _cell(records: Sequence[Record], name: str, reason: str, missing: str = "not run") -> Cell:
    """One value a seed: of a dataset in several variants, the mean over them."""
    values: dict[int, list[float]] = {}
    for r in records:
        if (v := _value(r, name)) is not None:
            values.setdefault(r.spec.seed, []).append(v)
    means = [fmean(found) for found in values.values()]
    return Cell(None, means) if means else Cell(None, (), reason if records else missing)


def _rows(
    results: Results, names: Sequence[str], reasons: Mapping[str, str], caveats: Caveats | None = None
) -> list[Row]:
    found = []
    for method, records in results:
        none = {
            k: "the model offers none that is finite"
            if "/nll/" in k or k == LIKELIHOOD
            else "the model does not offer it"
            for k in names
        }
        missing = "diverged" if any(results.diverged(s) for s in results.runs[method]) else "not run"
        cells = {k: _cell(records, k, reasons.get(method, none[k]), missing) for k in names}
        if caveat := mixing_caveat(records):
            cells |= {k: replace(c, caveat=caveat) for k, c in cells.items() if by_chains(k) and c.n}
        if method in UNBOUNDED and LIKELIHOOD in cells and cells[LIKELIHOOD].n:
            cells[LIKELIHOOD] = replace(cells[LIKELIHOOD], caveat=UNBOUNDED[method])
        for k, own in (caveats(records) if caveats else {}).items():
            if cells[k].n and not cells[k].caveat:
                cells[k] = replace(cells[k], caveat=own)
        found.append(Row(LABELS[method], cells))
    return found


def epochs_in_all(spec: RunSpec) -> int:
    """The epochs of all stages of a run together."""
    training = spec.params["training"]
    return training["epochs"] + sum(s["epochs"] for s in training.get("stages", {}).values())


def shared_notes(spec: RunSpec) -> list[str]:
    """What all models on a generated dataset have alike, and what differs.

    Arguments:
        spec: One of the runs.
    """
    first, epochs = spec.params, epochs_in_all(spec)
    training = first["training"]
    steps = epochs * -(-first["data"]["train_samples"] // training["batch_size"])
    return [
        f"The same for all: fully connected encoders and decoders of the same hidden layers, {SHARED} latents in all, "
        f"{first['data']['train_samples']:,} samples, {epochs} epochs of all stages together ({steps:,} steps of "
        f"{training['batch_size']}), Adam at {training['learning_rate']:g}, Gaussian likelihood of unit scale in the "
        "loss. No paper compares these models, so nothing is published.",
        f"Latents: {LATENT_DIM} a modality where each has its own, {SHARED} shared ones else; MMVAE+ and DMVAE "
        f"{PRIVATE['latent_dim']} shared and {PRIVATE['specific_dim']} of each modality. Of their epochs, score-based "
        f"models train autoencoders for half, CoVAE its Deep CCA for a tenth. {OF_MODELS}, score models without "
        "guidance.",
    ]


def _weight_notes(results: Results, sweep: str, found: Mapping[str, float], origin: str) -> list[str]:
    """The weights, and how they were chosen.

    Arguments:
        results: Of the comparison's runs.
        sweep: The sweep's Make target.
        found: The weights that the sweep's records choose, for the methods of which all are there.
        origin: Where weights come from that no record of the sweep tells of.
    """
    used = {m: weight_of(specs[0]) for m, specs in results.runs.items()}
    listed = ", ".join(f"{LABELS[m]} {w:g}" for m, w in used.items())
    notes = [
        f"Weight of the KL term; of ALMRF's penalty, and of the latents' norm in regularised autoencoders: {listed}."
    ]
    command = make_command(sweep, results.profile)
    if not found:
        return [
            *notes,
            f"The sweep on validation data is not recorded: {command}; these weights {origin}.",
        ]
    other = {m: w for m, w in found.items() if w != used[m]}
    agree = "agrees" if not other else f"DISAGREES for {', '.join(f'{LABELS[m]} ({w:g})' for m, w in other.items())}"
    rest = [LABELS[m] for m in used if m not in found]
    dataset = next(iter(results.runs.values()))[0].dataset
    edges = [LABELS[m] for m, w in found.items() if w in (weights(m, dataset)[0], weights(m, dataset)[-1])]
    if edges:
        notes.append(f"At an edge of the weights that were tried: {', '.join(edges)}.")
    text = f"The choice on validation data, seed 0, {agree}" + (f"; not recorded for {', '.join(rest)}" if rest else "")
    return [*notes, Claim(f"{text} ({command}).")]


def compared_tables(
    results: Results,
    caption: str,
    headings: Mapping[str, Heading],
    floors: Mapping[str, Mapping[str, str]],
    reading: str,
    *,
    sweep: str,
    planned: Callable[[str, int | None], Rows],
    score: Callable[[Record], float],
    bound: str = BOUND,
    shared: Callable[[RunSpec], list[str]] = shared_notes,
    origin: str = "are taken from papers, or lie in the middle of what is tried where none has one",
    parts: Mapping[str, Rows] | None = None,
    caveats: Caveats | None = None,
) -> list[Table]:
    """All models on one dataset, with how their weights were chosen; and what their runs take.

    Of a dataset in several variants there is one table for each of which there are records, the notes on all under the
    first, and what runs take is over all variants.

    Arguments:
        results: Of the comparison's runs.
        caption: The first table's.
        headings: Metric to its column.
        floors: Label of a row of the data alone to the metric that it has in a column's place.
        reading: How to read the columns.
        sweep: The sweep's Make target.
        planned, score: The sweep's runs, and what they are chosen by, as :func:`chosen_by` takes them.
        bound: How likelihoods are estimated.
        shared: From a run to what all models have alike, and what differs.
        origin: Where weights come from that no record of the sweep tells of.
        parts: What a variant's caption has after the dataset's, to method to its runs on that variant; the rows of the
            results, which are then methods, if None.
        caveats: From a row's records to metric to why its values are not set against others; those of chains that do
            not mix are there anyway.

    Raises:
        ValueError: If there is no record at all.
    """
    if not results.all_records():
        raise ValueError(f"no records of {caption!r} in the profile {results.profile!r}")
    parts = {"": results.runs} if parts is None else parts
    runs = {m: [s for part in parts.values() for s in part.get(m, ())] for m in LABELS}
    every = replace(results, runs={m: specs for m, specs in runs.items() if specs})
    chosen = chosen_by(results, planned(results.profile, None), score)[1]
    first = results.all_records()[0].spec
    notes = [reading, OF_SAMPLES, bound, *shared(first), *_weight_notes(every, sweep, chosen, origin)]
    found = []
    for variant, runs in parts.items():
        if (own := replace(results, runs=runs)).all_records():
            found.append(_compared_table(own, caption + variant, headings, floors, notes, caveats))
            notes = [f"To be read as the table {found[0].caption!r}, whose notes are of all."]
    return [*found, _cost_table(every, f"{caption}: what they take")]


def _compared_table(
    results: Results,
    caption: str,
    headings: Mapping[str, Heading],
    floors: Mapping[str, Mapping[str, str]],
    notes: Sequence[str],
    caveats: Caveats | None = None,
) -> Table:
    """One row a model; under each column with a direction, whether its best differs from its second.

    Arguments:
        results: Of the comparison's runs.
        caption: The table's.
        headings: Metric to its column.
        floors: Label of a row of the data alone to the metric that it has in a column's place.
        notes: Under those on the best.
        caveats: As :func:`compared_tables` takes them.
    """
    records = results.all_records()
    columns, rows = _columns(headings), _rows(results, list(headings), NO_LIKELIHOOD, caveats)
    best = [note for c in columns if c.better and (note := best_note(c, rows)) is not None]
    alone = [
        Row(n, {k: _cell(records[:1], own.get(k, ""), "no such thing") for k in headings}) for n, own in floors.items()
    ]
    return Table(caption, provenance(records), columns, rows, floors=alone, notes=[*best, *notes])


def _cost_table(results: Results, caption: str) -> Table:
    """Parameters, and seconds of training and of samples."""
    records = results.all_records()
    devices = "Seconds of training: wall clock, of a machine that may have had other work; of samples: processor time "
    note = devices + "of one core, or the wall clock where the devices say GPU. Epochs are the same for all models."
    runs = max(Counter((r.spec.method, r.spec.seed) for r in records).values(), default=0)
    note += f" Of the up to {runs} runs of a model and a seed, the mean." if runs > 1 else ""
    return Table(caption, provenance(records), _columns(COSTS), _rows(results, list(COSTS), {}), notes=[note])


def chosen_by(
    results: Results, runs: Rows, score: Callable[[Record], float]
) -> tuple[dict[str, dict[float, float]], dict[str, float]]:
    """Method to weight to score, and the weight of the lowest one of each method of which all have been run.

    A weight at which training diverges has been run, has no score, and is never chosen.
    """
    scores: dict[str, dict[float, float]] = {m: {} for m in LABELS}
    dataset = next(iter(runs.values()))[0].dataset
    tried = dict.fromkeys(LABELS, 0)
    for (spec,) in runs.values():
        if (record := results.record(spec)) is not None:
            scores[spec.method][weight_of(spec)] = score(record)
        tried[spec.method] += record is not None or bool(results.diverged(spec))
    whole = {m: found for m, found in scores.items() if found and tried[m] == len(weights(m, dataset))}
    return scores, {m: min(found, key=found.__getitem__) for m, found in whole.items()}


def sweep_table(
    results: Results, dataset: str, caption: str, score: Callable[[Record], float], what: str, decimals: int = 2
) -> Table:
    """What the weights of a comparison are chosen from.

    Arguments:
        results: Of the sweep's runs.
        dataset: Whose weights.
        caption: The table's.
        score: Of a record, lower is better.
        what: The score in words.
        decimals: Of the scores.
    """
    records = results.all_records()
    scores, chosen = chosen_by(results, results.runs, score)
    tried = {m: weights(m, dataset) for m in LABELS}
    diverged = {(s.method, weight_of(s)) for (s,) in results.runs.values() if results.diverged(s)}
    caveats = {(r.spec.method, weight_of(r.spec)): mixing_caveat([r], "validation/unconditional") for r in records}
    every = sorted({w for found in tried.values() for w in found}, reverse=True)
    rows = []
    for m, found in scores.items():
        cells = {}
        for w in every:
            reason = ("diverged" if (m, w) in diverged else "not run") if w in tried[m] else "not tried"
            known = w in found
            cells[f"{w:g}"] = Cell(None, [found[w]], caveat=caveats[m, w]) if known else Cell(None, (), reason)
        rows.append(Row(LABELS[m], cells))
    used = chosen_weights(dataset)
    agree = "agrees" if all(used[m] == w for m, w in chosen.items()) else "DISAGREES"
    said = f"{', '.join(f'{LABELS[m]} {w:g}' for m, w in chosen.items())}; this {agree} with the package's paper.toml"
    edge = [LABELS[m] for m, w in chosen.items() if w in (tried[m][0], tried[m][-1])]
    notes: list[str] = [
        Claim(f"{what}, seed 0. Chosen: {said if chosen else 'none yet'}. No test data enters."),
        "The weight is beta; of ALMRF's penalty, and of the latents' norm in regularised autoencoders "
        f"({', '.join(LABELS[m] for m in SCORE if m in REGULARISED)}).",
    ]
    if records:
        notes.append(f"Runs of up to {epochs_in_all(records[0].spec)} epochs of all stages together.")
    digits = [m.value for r in records for m in r.metrics if CONDITIONAL_DIGITS.fullmatch(m.name)]
    if digits and max(digits) < NEAR_CHANCE:
        notes.append(
            f"No coherence given a modality is above {max(digits):.2f}, where chance has 0.10: these runs are too "
            "short for it, and what they choose by are Fréchet distances and whether ten digits are shown."
        )
    if edge:
        notes.append(f"At an edge of what was tried: {', '.join(edge)}.")
    if rest := [LABELS[m] for m in scores if m not in chosen]:
        notes.append(
            f"Nothing is chosen before all weights of a method have been run; some are not of {', '.join(rest)}."
        )
    return Table(
        caption, provenance(records), [Column(f"{w:g}", f"{w:g}", decimals=decimals) for w in every], rows, notes=notes
    )
