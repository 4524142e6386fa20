"""What stands beside CoVAE's figures on correlated MNIST: the likelihoods that multivae itself computes."""

from __future__ import annotations

from repro.experiment import Results, Rows, artifact
from repro.papers.covae.correlated_mnist.experiment import RHOS, figure_methods, image_rows, number_of_seeds
from repro.papers.covae.omics.tables import library_table
from repro.papers.covae.settings import LABELS
from repro.records import Record
from repro.report.tables import Table

__all__ = ["model_runs", "multivae_nll"]


def model_runs(profile: str, seeds: int | None) -> Rows:
    """Each model of the figures at each correlation."""
    return image_rows(figure_methods(profile), RHOS[profile], profile, number_of_seeds(profile, seeds))


@artifact("multivae-nll", runs=model_runs)
def multivae_nll(results: Results) -> Table:
    """Joint NLL by this package's estimator and by multivae's own, one row for each method and correlation."""
    rows: dict[str, list[Record]] = {}
    for row, records in results:
        spec = results.runs[row][0]
        if records and spec.method != "covae":
            rows[f"{LABELS[spec.method]}, ρ = {spec.params['data']['rho']:g}"] = records
    return library_table(rows, "correlated MNIST", "the first image")
