"""The tables: one structure a row, its quality beside the seconds of its fit and of its draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from repro.experiment import Results, Rows, artifact
from repro.papers.compare.best import best_note
from repro.papers.compare.priors.advice import advice
from repro.papers.compare.priors.settings import LABELS, ORACLE, POLYMNIST, PROFILES, RHOS, priors_spec
from repro.papers.mrf_mvae.triples.readings import ALIKE
from repro.records import Record, canonical_json, of_profile, provenance
from repro.report.cells import Cell, Claim
from repro.report.evidence import by_chains, mixing_caveat
from repro.report.tables import Column, Row, Table

__all__ = [
    "by_data",
    "priors_copula",
    "priors_correlated",
    "priors_digits",
    "priors_polymnist",
    "priors_table",
    "priors_triples",
    "runs_of",
]

GUIDED = "prior_score_guided"
SECONDS = {
    "fit/seconds": ("Seconds", "of the fit", None, 2),
    "sampling/joint/seconds": ("Seconds", "of 1,000 joint samples", None, 3),
    "sampling/conditional/seconds": ("Seconds", "of 1,000 given one modality", None, 3),
}
# Metric to (group, heading, what is better, decimals), by dataset.
COLUMNS: Mapping[str, Mapping[str, tuple[str, str, str | None, int]]] = {
    "copula": {
        "test/unconditional/mean/histogram/mean": ("Joint", "Table I's distance", "lower", 3),
        "test/unconditional/mean/sliced/mean": ("Joint", "sliced", "lower", 1),
        "test/unconditional/mean/transport/mean": ("Joint", "exact", "lower", 1),
        "test/conditional/mean/histogram/mean": ("Given one modality", "Table I's distance", "lower", 3),
        "test/conditional/mean/sliced/mean": ("Given one modality", "sliced", "lower", 1),
        "test/conditional/mean/transport/mean": ("Given one modality", "exact", "lower", 1),
        **SECONDS,
    },
    "mnist_triples": {
        "test/unconditional/coherence": ("Joint", "coherence", "higher", 3),
        "test/unconditional/frechet/classifier/mean": ("Joint", "Fréchet distance", "lower", 1),
        "test/conditional/coherence": ("Given one modality", "coherence", "higher", 3),
        "test/conditional/frechet/classifier/mean": ("Given one modality", "Fréchet distance", "lower", 1),
        **SECONDS,
    },
    "correlated_mnist3": {
        "test/images/joint": ("Correlation read from images", "joint", None, 3),
        "test/images/given-one": ("Correlation read from images", "given one", None, 3),
        "test/images/given-two": ("Correlation read from images", "given two", None, 3),
        "test/frechet/joint": ("Fréchet distance", "joint", "lower", 1),
        "test/frechet/given-one": ("Fréchet distance", "given one", "lower", 1),
        "test/mae/given-one": ("MAE", "given one", "lower", 4),
        "test/mae/given-two": ("MAE", "given two", "lower", 4),
        **SECONDS,
    },
    POLYMNIST: {
        "test/unconditional/coherence": ("Joint", "coherence", "higher", 3),
        "test/unconditional/frechet/classifier/mean": ("Joint", "Fréchet distance", "lower", 1),
        "test/given-one/coherence": ("Given one modality", "coherence", "higher", 3),
        "test/given-one/frechet/classifier/mean": ("Given one modality", "Fréchet distance", "lower", 1),
        "test/given-rest/coherence": ("Given the rest", "coherence", "higher", 3),
        "test/given-rest/frechet/classifier/mean": ("Given the rest", "Fréchet distance", "lower", 1),
        **SECONDS,
    },
}


def _shown(name: str) -> dict[str, str]:
    """Which metric of reconstructions or true images stands under which one of generated images of digits."""
    found = {"test/unconditional/coherence": f"test/{name}/coherence"}
    found |= {f"test/{task}/coherence": f"test/{name}/accuracy" for task in ("given-one", "given-rest")}
    tasks = ("unconditional", "given-one", "given-rest")
    return found | {f"test/{t}/frechet/classifier/mean": f"test/{name}/frechet/classifier/mean" for t in tasks}


# Rows that are no structure, of one set of metrics in every task: label, and the metric in a column's place.
REFERENCES: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "copula": {
        "Reconstructions": {
            k: k.replace("/unconditional/", "/reconstruction/").replace("/conditional/", "/reconstruction/")
            for k in COLUMNS["copula"]
            if k not in SECONDS
        },
        "Two true samples": {k: f"test/floor/true/{k.split('/', 3)[3]}" for k in COLUMNS["copula"] if k not in SECONDS},
    },
    "mnist_triples": {
        "True images": {
            "test/unconditional/coherence": "test/true/coherence",
            "test/unconditional/frechet/classifier/mean": "test/true/frechet/classifier/mean",
        }
    },
    "correlated_mnist3": {
        "True images": {
            k: f"test/{k.split('/')[1]}/data"
            for k in COLUMNS["correlated_mnist3"]
            if k not in SECONDS and not k.startswith("test/mae/")
        },
        "Mean training image": {k: "test/mae/data" for k in COLUMNS["correlated_mnist3"] if k.startswith("test/mae/")},
    },
    POLYMNIST: {
        label: _shown(name) for label, name in (("Reconstructions", "reconstruction"), ("True images", "true"))
    },
}
READING = {
    "copula": "Distances are Table I's: decoder means clipped to [0, 1], mean over pairs of modalities and coordinates "
    "and over which modality is given. The first does not see where mass lies: read it with the exact one.",
    "mnist_triples": "Coherence: the first two modalities show the same digit, or the one that is generated shows the "
    "observed one's digit. Fréchet distance: features of the digit classifier of MNIST.",
    "correlated_mnist3": "Correlation read from images: a ridge regression on true training images reads the latents "
    "that an image was drawn from; the mean correlation between what it reads from two generated images, or from an "
    "observed and a generated one. Its own error lowers it for true images too: near theirs is good, above it no "
    "better. Fréchet distance: features of the digit classifier of MNIST, against true test images. MAE: absolute "
    "error of the mean of several samples, intensities in [0, 1].",
    POLYMNIST: "The first three modalities of Extended PolyMNIST. Coherence: all modalities of a joint sample show the "
    "same digit, or what is generated shows the observed one's digit, as the classifier of Extended PolyMNIST sees "
    "them; reconstructions and true images likewise, in the place of conditional samples the share that shows its own "
    "digit. Fréchet distance: features of that classifier, mean over what is generated, against the true test images; "
    "of true images, of the validation split.",
}


def _title(data: Mapping[str, Any]) -> str:
    """Of the data of a run."""
    if "alike" in data:
        return f"MNIST triples, the first two modalities {ALIKE[data['alike']]}"
    if "rho" in data:
        return f"correlated MNIST of three modalities, ρ = {data['rho']:g} between every two"
    if "modalities" in data:
        return "the first three modalities of Extended PolyMNIST"
    return "the Gaussian copula; distances x 1000"


def runs_of(dataset: str, profile: str, seeds: int | None, **data: Any) -> Rows:
    """Each structure's runs on a dataset, with what it takes, as :func:`priors_spec`."""
    number = of_profile(PROFILES[dataset], profile)["seeds"] if seeds is None else seeds
    return {label: [priors_spec(m, s, profile, dataset, **data) for s in range(number)] for m, label in LABELS.items()}


def copula_runs(profile: str, seeds: int | None) -> Rows:
    """Each structure on the copula."""
    return runs_of("copula", profile, seeds)


def triples_runs(profile: str, seeds: int | None) -> Rows:
    """Each structure on MNIST triples."""
    return runs_of("mnist_triples", profile, seeds)


def digits_runs(profile: str, seeds: int | None) -> Rows:
    """Each structure on MNIST triples by the other reading."""
    return runs_of("mnist_triples", profile, seeds, alike="digit")


def polymnist_runs(profile: str, seeds: int | None) -> Rows:
    """Each structure on three modalities of Extended PolyMNIST."""
    return runs_of(POLYMNIST, profile, seeds)


def correlated_runs(profile: str, seeds: int | None) -> Rows:
    """Each structure on correlated MNIST, at each correlation."""
    return {
        f"{label}, rho {rho:g}": specs
        for rho in RHOS
        for label, specs in runs_of("correlated_mnist3", profile, seeds, rho=rho).items()
    }


def _cell(records: Sequence[Record], name: str) -> Cell:
    if not records:
        return Cell(None, (), "not run")
    values = [m.value for r in records for m in r.metrics if m.name == name]
    if not values:
        return Cell(None, (), "guidance acts where something is observed: joint samples are those without it")
    return Cell(None, values, caveat=mixing_caveat(records) if by_chains(name) else "")


def _reference(records: Sequence[Record], names: Mapping[str, str], columns: Sequence[str]) -> dict[str, Cell]:
    cells = {}
    for key in columns:
        values = [m.value for r in records for m in r.metrics if m.name == names.get(key)]
        constant = len(set(values)) == 1  # of the data alone, whatever the seed
        cells[key] = Cell(None, values[:1] if constant else values) if values else Cell(None, (), "no such thing")
    return cells


def _notes(dataset: str, records: Mapping[str, Sequence[Record]], columns: Sequence[Column]) -> list[str]:
    first = next(found[0] for found in records.values() if found)
    model, training, data = (first.spec.params[k] for k in ("model", "training", "data"))
    widths = " and ".join(map(str, model["widths"]))
    numbers = [f"{label} {found[0].metric('fit/numbers').value:,.0f}" for label, found in records.items() if found]
    most = "at most " if training.get("patience") else ""
    widths = f"residual networks of {widths} channels" if "networks" in model else f"fully connected layers of {widths}"
    notes = [
        f"The same for all rows of a seed: unimodal VAEs of {model['latent_dim']} latents a modality, {widths}, "
        f"beta {model['beta']:g}, {most}{training['epochs']} epochs on {data['train_samples']:,} "
        f"samples, batch {training['batch_size']}, Adam at {training['learning_rate']:g}. Each structure is then "
        "fitted to their encodings, draws of q(z | x) standardised by coordinate. No paper shows this, so nothing is "
        "published.",
        f"Free numbers: {'; '.join(numbers)} (encodings that are kept, not fitted).",
        READING[dataset],
    ]
    if trained := [f[0] for f in records.values() if f and "training" in f[0].spec.params["structure"]]:
        fit = trained[0].spec.params["structure"]["training"]
        notes.append(
            f"Gaussians have the encodings' mean and covariance. Fits by gradient: {fit['epochs']} epochs, batch "
            f"{fit['batch_size']}, Adam at {fit['learning_rate']:g}. The asymmetric Laplace distribution is fitted by "
            "its likelihood and the neural field by an estimate of it, not by their paper's objectives, which serve a "
            "posterior too. CoVAE's prior: linear canonical coordinates, since Deep CCA would train the encoders."
        )
    notes.append(
        f"{LABELS[ORACLE]}: encodings of training samples as they are; it keeps the training data and takes no part in "
        "the comparison. Seconds: of one core of the processor, or of a GPU where the devices say so; of the latents "
        "alone, decoding costs the same for all."
    )
    return notes


def by_data(results: Results) -> list[dict[str, list[Record]]]:
    """Label of a structure to its records, for each of the data that the results are of and have a record of."""
    found: dict[str, dict[str, list[Record]]] = {}
    for record in results.all_records():
        own = found.setdefault(canonical_json(record.spec.params["data"]), {label: [] for label in LABELS.values()})
        own[LABELS[record.spec.method]].append(record)
    return list(found.values())


def priors_table(dataset: str, results: Results, records: Mapping[str, Sequence[Record]] | None = None) -> Table:
    """The table of a dataset.

    Arguments:
        dataset: One of ``COLUMNS``.
        results: Of the structures' runs.
        records: Label to the records that the table is of; all of the results if None.

    Raises:
        ValueError: If there is no record at all.
    """
    columns = [Column(k, label, better, n, group) for k, (group, label, better, n) in COLUMNS[dataset].items()]
    keys = [c.key for c in columns]
    records = dict(results) if records is None else records
    every = [r for found in records.values() for r in found]
    if not every:
        raise ValueError(f"no records of structures on {dataset} in the profile {results.profile!r}")
    rows = {label: Row(label, {k: _cell(found, k) for k in keys}) for label, found in records.items()}
    oracle = rows.pop(LABELS[ORACLE])
    # What is of the autoencoders and the data alone is the same in every row.
    reference = next(found for found in records.values() if found)
    floors = [Row(label, _reference(reference, names, keys)) for label, names in REFERENCES[dataset].items()]
    best = [note for c in columns if c.better and (note := best_note(c, list(rows.values()))) is not None]
    return Table(
        caption=f"One latent structure at a time on the same autoencoders: {_title(every[0].spec.params['data'])}",
        provenance=provenance(every),
        columns=columns,
        rows=list(rows.values()),
        floors=[oracle, *floors],
        notes=[*best, *map(Claim, advice(dataset, records)), *_notes(dataset, records, columns)],
    )


@artifact("priors-copula", runs=copula_runs)
def priors_copula(results: Results) -> Table:
    """The structures on the copula, by Table I's three distances."""
    return priors_table("copula", results)


@artifact("priors-triples", runs=triples_runs)
def priors_triples(results: Results) -> Table:
    """The structures on MNIST triples, by coherence and Fréchet distance."""
    return priors_table("mnist_triples", results)


@artifact("priors-digits", runs=digits_runs)
def priors_digits(results: Results) -> Table:
    """The structures on MNIST triples whose first two modalities are two images of one digit."""
    return priors_table("mnist_triples", results)


@artifact("priors-correlated", runs=correlated_runs)
def priors_correlated(results: Results) -> list[Table]:
    """The structures on correlated MNIST, one table for each correlation."""
    found = by_data(results)
    if not found:
        raise ValueError(f"no records of structures on correlated images in the profile {results.profile!r}")
    return [priors_table("correlated_mnist3", results, records) for records in found]


@artifact("priors-polymnist", runs=polymnist_runs)
def priors_polymnist(results: Results) -> Table:
    """The structures on three modalities of Extended PolyMNIST, by coherence and Fréchet distance."""
    return priors_table(POLYMNIST, results)
