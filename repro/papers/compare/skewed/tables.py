"""All models on the asymmetric Laplace copula: the comparison, what its runs take, and the sweep of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import geometric_mean

from repro.experiment import Results, Rows, artifact
from repro.papers.compare.methods import compared_runs, sweep_runs
from repro.papers.compare.rows import Heading, compared_tables, sweep_table
from repro.papers.compare.skewed.experiment import skewed_spec
from repro.papers.mrf_mvae.skewed.experiment import DATASET, LEVEL
from repro.records import Record
from repro.report.tables import Table

__all__ = ["skewed", "sweep"]

MEASURES = {
    "tail-true/mean": ("tails", 4),
    "tail-own/mean": ("tails by own ranks", 4),
    "sliced": ("sliced", 1),
    "transport/mean": ("exact", 1),
}
TASKS = {"unconditional": "Joint", "conditional": "Given one modality"}
HEADINGS: Mapping[str, Heading] = {
    **{
        f"test/{task}/mean/{name}": (group, label, "lower", n)
        for task, group in TASKS.items()
        for name, (label, n) in MEASURES.items()
    },
    "test/reconstruction/mean/transport/mean": ("Reconstruction", "exact", "lower", 1),
    "test/log_likelihood": ("Log-likelihood", "nats", "higher", 2),
}
FLOORS = {
    "Nearest training points": {f"test/conditional/mean/{name}": f"test/neighbour/{name}" for name in MEASURES},
    "True data": {f"test/{task}/mean/{name}": f"test/floor/true/{name}" for task in TASKS for name in MEASURES},
}
READING = (
    f"Tails: absolute error of the coefficients of tail dependence at level {LEVEL:g}, mean over pairs, coordinates "
    "and the four corners, tails beyond the true sample's quantiles; by own ranks: by the generated sample's ranks, "
    "which leaves its marginals out. Distances x 1000, mean over pairs and coordinates. Decoder means clipped to "
    "[0, 1]; given each modality in turn. Reconstruction: test points decoded given all of their modalities. Nearest "
    "training points: the one nearest in what is given. True data: a second sample."
)
SCORED = tuple(
    f"validation/{task}/mean/{name}"
    for task in ("unconditional", "conditional")
    for name in ("tail-true/mean", "sliced")
)
LEAST = 1e-6  # an error of tails may be 0, which would hide all else in a geometric mean


def runs(profile: str, seeds: int | None) -> Rows:
    """Each model with the weight that was chosen for it."""
    return compared_runs(skewed_spec, profile, seeds)


def weights_runs(profile: str, seeds: int | None) -> Rows:
    """Every weight on validation data, seed 0."""
    return sweep_runs(skewed_spec, profile, seeds)


def score(record: Record) -> float:
    """Geometric mean over both tasks of the error of tails and of the sliced distance on the validation split."""
    return geometric_mean(max(record.metric(name).value, LEAST) for name in SCORED)


@artifact("skewed", runs=runs)
def skewed(results: Results) -> list[Table]:
    """All models on the asymmetric Laplace copula by tails, distances and likelihood, and what their runs take."""
    title, target = "All models on the asymmetric Laplace copula", "compare-skewed-sweep"
    return compared_tables(
        results,
        title,
        HEADINGS,
        FLOORS,
        READING,
        sweep=target,
        planned=weights_runs,
        score=score,
        origin="are those that the sweep of the profile paper chose",
    )


@artifact("skewed-sweep", runs=weights_runs)
def sweep(results: Results) -> Table:
    """What the weights on the asymmetric Laplace copula are chosen from."""
    what = "Geometric mean over both tasks of the error of tails and of the sliced distance (x 1000), validation split"
    return sweep_table(results, DATASET, "All models on the asymmetric Laplace copula: choice of weight", score, what)
