"""The figures: quality of a structure's samples against the seconds that they cost."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from matplotlib.figure import Figure

from repro.experiment import Results, Rows, artifact
from repro.papers.compare.priors.settings import POLYMNIST
from repro.papers.compare.priors.tables import copula_runs, digits_runs, polymnist_runs, runs_of, triples_runs
from repro.report.evidence import by_chains, mixing_caveat
from repro.report.plotting import PALETTE, new_figure, use_style

__all__ = [
    "priors_copula_cost",
    "priors_correlated_cost",
    "priors_digits_cost",
    "priors_polymnist_cost",
    "priors_triples_cost",
    "quality_against_cost",
]

MARKERS = "osD^vPX*"
UNMIXED = "hollow: chains not known to mix"
# Task to (title, metric, metric of what reconstructions or true images have, axis), by dataset.
PANELS: Mapping[str, Mapping[str, tuple[str, str, str, str]]] = {
    "copula": {
        "joint": (
            "joint samples",
            "test/unconditional/mean/transport/mean",
            "test/reconstruction/mean/transport/mean",
            "exact distance x 1000",
        ),
        "conditional": (
            "given one modality",
            "test/conditional/mean/transport/mean",
            "test/reconstruction/mean/transport/mean",
            "exact distance x 1000",
        ),
    },
    "mnist_triples": {
        "joint": ("joint samples", "test/unconditional/coherence", "test/true/coherence", "coherence"),
        "conditional": ("given one modality", "test/conditional/coherence", "test/true/accuracy", "coherence"),
    },
    "correlated_mnist3": {
        "joint": ("joint samples, ρ = 0.9", "test/images/joint", "test/images/data", "correlation read from images"),
        "conditional": (
            "given one modality, ρ = 0.9",
            "test/images/given-one",
            "test/images/data",
            "correlation read from images",
        ),
    },
    POLYMNIST: {
        "joint": ("joint samples", "test/unconditional/coherence", "test/reconstruction/coherence", "coherence"),
        "conditional": (
            "given one modality",
            "test/given-one/coherence",
            "test/reconstruction/accuracy",
            "coherence",
        ),
    },
}
CEILING = {
    "copula": "reconstructions",
    "mnist_triples": "true images",
    "correlated_mnist3": "true images",
    POLYMNIST: "reconstructions",
}


def quality_against_cost(dataset: str, results: Results) -> Figure:
    """A panel a task, a point a structure: the mean over seeds, with a bar from the lowest to the highest seed.

    Joint samples from Markov chains that are not known to mix have a hollow marker.

    Arguments:
        dataset: One of ``PANELS``.
        results: Of the structures' runs.

    Raises:
        ValueError: If there is no record at all.
    """
    records = dict(results)
    if not any(records.values()):
        raise ValueError(f"no records of structures on {dataset} in the profile {results.profile!r}")
    with use_style():
        figure = new_figure(7.0, 3.4)
        axes = figure.subplots(1, 2)
        for panel, (task, (title, metric, ceiling, label)) in zip(axes, PANELS[dataset].items(), strict=True):
            for row, marker, colour in zip(records, MARKERS, PALETTE, strict=True):
                values, seconds = results.values(row, metric), results.values(row, f"sampling/{task}/seconds")
                if not values:
                    continue
                mean, cost = fmean(values), fmean(seconds)
                error = [[mean - min(values)], [max(values) - mean]]
                unmixed = by_chains(metric) and bool(mixing_caveat(records[row]))
                panel.errorbar(
                    cost,
                    mean,
                    yerr=error,
                    fmt=marker,
                    color=colour,
                    markerfacecolor="none" if unmixed else colour,
                    markersize=5,
                    capsize=2,
                    label=f"{row} ({UNMIXED})" if unmixed else row,
                    linewidth=0.9,
                )
            reference = [v for row in records for v in results.values(row, ceiling)]
            panel.axhline(fmean(reference), color="0.5", linewidth=0.8, linestyle="--", label=CEILING[dataset])
            panel.set(xscale="log", title=title, xlabel="seconds of 1,000 samples' latents", ylabel=label)
        handles, labels = axes[0].get_legend_handles_labels()
        more = dict(zip(*reversed(axes[1].get_legend_handles_labels()), strict=True))
        shown = dict(zip(labels, handles, strict=True)) | more
        figure.subplots_adjust(left=0.09, right=0.98, top=0.92, bottom=0.36, wspace=0.28)
        figure.legend(shown.values(), shown.keys(), loc="lower center", ncols=3, frameon=False)
    return figure


@artifact("priors-copula-cost", runs=copula_runs)
def priors_copula_cost(results: Results) -> Figure:
    """The structures on the copula."""
    return quality_against_cost("copula", results)


@artifact("priors-triples-cost", runs=triples_runs)
def priors_triples_cost(results: Results) -> Figure:
    """The structures on MNIST triples."""
    return quality_against_cost("mnist_triples", results)


@artifact("priors-digits-cost", runs=digits_runs)
def priors_digits_cost(results: Results) -> Figure:
    """The structures on MNIST triples whose first two modalities are two images of one digit."""
    return quality_against_cost("mnist_triples", results)


def most_correlated_runs(profile: str, seeds: int | None) -> Rows:
    """Each structure on correlated MNIST at the largest correlation."""
    return runs_of("correlated_mnist3", profile, seeds, rho=0.9)


@artifact("priors-correlated-cost", runs=most_correlated_runs)
def priors_correlated_cost(results: Results) -> Figure:
    """The structures on correlated MNIST at the largest correlation."""
    return quality_against_cost("correlated_mnist3", results)


@artifact("priors-polymnist-cost", runs=polymnist_runs)
def priors_polymnist_cost(results: Results) -> Figure:
    """The structures on three modalities of Extended PolyMNIST."""
    return quality_against_cost(POLYMNIST, results)
