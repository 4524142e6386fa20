"""The variants' joint samples beside true ones, on the asymmetric Laplace copula."""

from __future__ import annotations

from matplotlib.figure import Figure

from repro import datasets
from repro.experiment import Results, Rows, artifact
from repro.papers.gmrf_mcvae.copula.figures import joint_scatter
from repro.papers.mrf_mvae.skewed.experiment import LABELS, tails_runs

__all__ = ["figure"]


def _first_runs(profile: str, seeds: int | None) -> Rows:
    return {m: specs[:1] for m, specs in tails_runs(profile, seeds).items()}


@artifact("tails-fig", runs=_first_runs)
def figure(results: Results) -> Figure:
    """Joint scatter of every pair of coordinates, of one run of each variant."""
    truth = {m: x.numpy() for m, x in datasets.load_dataset("skewed_copula", split="test").data.items()}
    return joint_scatter(truth, {LABELS[m]: results.samples(m) for m in results.runs}, max_points=1500)
