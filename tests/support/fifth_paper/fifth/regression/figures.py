"""Figure 1, from samples."""

from __future__ import annotations

from matplotlib.figure import Figure
from repro.papers.fifth.regression.experiment import runs  # type: ignore[import-not-found]

from repro.experiment import Results, artifact
from repro.report.plotting import new_figure


@artifact("fig1", runs=runs)
def figure1(results: Results) -> Figure:
    drawn = results.samples("Regression")
    figure = new_figure(2.0, 2.0)
    figure.subplots().scatter(drawn["a"], drawn["b"], s=3)
    return figure
