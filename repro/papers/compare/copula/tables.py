"""All models on the Gaussian copula: the comparison, what its runs take, and the sweep of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import geometric_mean

from repro.experiment import Results, Rows, artifact
from repro.papers.compare.copula.experiment import DATASET, copula_spec
from repro.papers.compare.methods import compared_runs, sweep_runs
from repro.papers.compare.rows import Heading, compared_tables, sweep_table
from repro.records import Record
from repro.report.tables import Table

__all__ = ["copula", "sweep"]

DISTANCES = {"histogram": ("Table I's distance", 3), "sliced": ("sliced", 1), "transport": ("exact", 1)}
TASKS = {"unconditional": "Joint", "conditional": "Given one modality", "reconstruction": "Reconstruction"}
HEADINGS: Mapping[str, Heading] = {
    **{
        f"test/{task}/mean/{d}/mean": (group, label, "lower", n)
        for task, group in TASKS.items()
        for d, (label, n) in DISTANCES.items()
        if task != "reconstruction" or d == "transport"
    },
    "test/log_likelihood": ("Log-likelihood", "nats", "higher", 2),
}
DATA = {
    f"test/{task}/mean/{d}/mean": f"test/floor/true/{d}/mean"
    for task in ("unconditional", "conditional")
    for d in DISTANCES
}
FLOORS = {
    "Nearest training points": {f"test/conditional/mean/{d}/mean": f"test/neighbour/{d}/mean" for d in DISTANCES},
    "True data": {**DATA, "test/log_likelihood": "test/log_density"},
}
READING = (
    "Distances x 1000, Table I's: decoder means clipped to [0, 1], mean over pairs of modalities and coordinates, and "
    "over which modality is given. The first does not see where mass lies: read it with the exact one. "
    "Reconstruction: test points decoded given all of their modalities. Nearest training points: the one nearest in "
    "what is given. True data: a second sample, and the density that the data were drawn from."
)
SCORED = tuple(
    f"validation/{task}/mean/{d}/mean" for task in ("unconditional", "conditional") for d in ("histogram", "sliced")
)


def runs(profile: str, seeds: int | None) -> Rows:
    """Each model with the weight that was chosen for it."""
    return compared_runs(copula_spec, profile, seeds)


def weights_runs(profile: str, seeds: int | None) -> Rows:
    """Every weight on validation data, seed 0."""
    return sweep_runs(copula_spec, profile, seeds)


def score(record: Record) -> float:
    """Geometric mean over both tasks of Table I's and of the sliced distance on the validation split."""
    return geometric_mean(record.metric(name).value for name in SCORED)


@artifact("copula", runs=runs)
def copula(results: Results) -> list[Table]:
    """All models on the copula by Table I's three distances and their likelihood, and what their runs take."""
    return compared_tables(
        results,
        "All models on the Gaussian copula",
        HEADINGS,
        FLOORS,
        READING,
        sweep="compare-copula-sweep",
        planned=weights_runs,
        score=score,
        origin="are those that the sweep of the profile paper chose",
    )


@artifact("copula-sweep", runs=weights_runs)
def sweep(results: Results) -> Table:
    """What the weights on the copula are chosen from."""
    what = "Geometric mean over both tasks of Table I's and of the sliced distance (x 1000), validation split"
    return sweep_table(results, DATASET, "All models on the Gaussian copula: choice of weight", score, what)
