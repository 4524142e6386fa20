"""CoVAE's figures on omics data: features' correlations, samples in the plane, classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from repro.datasets.card import load_card
from repro.experiment import Results, Rows, artifact
from repro.papers.covae.omics.experiment import omics_spec
from repro.papers.covae.omics.tables import omics_runs
from repro.papers.covae.settings import LABELS, METHODS
from repro.report.plotting import PALETTE, new_figure, use_style

__all__ = ["bars", "figure9", "figure12", "figure13", "scatter_classes", "violins"]

FEW, COLUMNS = 8, 8  # classes that a legend within a panel holds, and columns of one below the panels


def violins(panels: Mapping[str, Mapping[str, Mapping[str, ArrayLike]]]) -> Figure:
    """Draws the distributions of the features' Spearman coefficients, a panel a task, two violins a model.

    Arguments:
        panels: Title to modality to model's label to coefficients.

    Raises:
        ValueError: If there is no panel.

    Source: CoVAE, Figure 9.
    """
    if not panels:
        raise ValueError("no panels to draw")
    with use_style():
        figure = new_figure(6.5, 2.5 * len(panels))
        for i, (title, sides) in enumerate(panels.items()):
            axes = figure.add_subplot(len(panels), 1, i + 1)
            for k, (modality, models) in enumerate(sides.items()):
                places = np.arange(len(models)) + (k - 0.5) * 0.38
                parts = axes.violinplot([np.asarray(v) for v in models.values()], places, widths=0.36, showmedians=True)
                for body in parts["bodies"]:
                    body.set(facecolor=PALETTE[k], alpha=0.6)
                for name in ("cmins", "cmaxes", "cbars", "cmedians"):
                    parts[name].set(color=PALETTE[k], linewidth=0.8)
                axes.plot([], [], color=PALETTE[k], linewidth=5, alpha=0.6, label=modality)
            axes.axhline(0, color="0.6", linewidth=0.6)
            labels = list(next(iter(sides.values())))
            axes.set_xticks(range(len(labels)), labels)
            axes.set(ylabel="Spearman's coefficient", title=title, ylim=(-0.8, 1.05))
            axes.legend(loc="lower right", ncols=2, fontsize=7)
        figure.tight_layout()
    return figure


def scatter_classes(panels: Mapping[str, ArrayLike], labels: ArrayLike, names: Sequence[str]) -> Figure:
    """Draws points in the plane by class, a panel a modality.

    More than eight classes have their legend below the panels.

    Arguments:
        panels: Title to points, ``(N, 2)``.
        labels: Classes, ``(N,)``.
        names: Of the classes.

    Source: CoVAE, Figure 12.
    """
    labels = np.asarray(labels)
    with use_style():
        many = len(names) > FEW
        below = 0.16 * -(-len(names) // COLUMNS) + 0.1 if many else 0.0  # inches
        figure = new_figure(3.1 * len(panels), 3.2 + below)
        for i, (title, points) in enumerate(panels.items()):
            axes = figure.add_subplot(1, len(panels), i + 1)
            for c, name in enumerate(names):
                chosen = np.asarray(points)[labels == c]
                style = {"s": 10, "color": PALETTE[c % 8], "marker": "osv^DPX*"[c // 8 % 8], "linewidths": 0}
                axes.scatter(chosen[:, 0], chosen[:, 1], label=name, **style)
            axes.set(title=title, xlabel="first component", ylabel="second component")
        if many:
            handles, labels_ = figure.axes[0].get_legend_handles_labels()
            figure.legend(handles, labels_, loc="lower center", ncols=COLUMNS, fontsize=6, handletextpad=0.1)
            figure.tight_layout(rect=(0, below / figure.get_size_inches()[1], 1, 1))
        else:
            figure.axes[0].legend(fontsize=7)
            figure.tight_layout()
    return figure


def bars(counts: Mapping[str, int], unit: str) -> Figure:
    """Draws a bar for each class, with its number above it.

    Arguments:
        counts: Class to number, in the order of the bars.
        unit: What is counted.

    Raises:
        ValueError: If there is no class.

    Source: CoVAE, Figure 13.
    """
    if not counts:
        raise ValueError("no classes to draw")
    with use_style():
        width = max(3.1, 0.26 * len(counts) + 0.8)
        figure = new_figure(width, 2.6)
        axes = figure.add_subplot()
        drawn = axes.bar(range(len(counts)), list(counts.values()), color=PALETTE[0], width=0.8)
        axes.bar_label(drawn, fontsize=5, padding=1)
        many = len(counts) > FEW
        axes.set_xticks(range(len(counts)), list(counts), rotation=90 if many else 0, fontsize=6 if many else 8)
        total = sum(counts.values())
        axes.set(ylabel=unit, title=f"{total:,} {unit} of {len(counts)} classes", xlim=(-0.7, len(counts) - 0.3))
        figure.tight_layout()
    return figure


def _first_runs(profile: str, seeds: int | None, *, dataset: str) -> Rows:
    return {m: omics_runs(profile, seeds, dataset=dataset)[m][:1] for m in METHODS}


def _covae_run(profile: str, seeds: int | None, *, dataset: str) -> Rows:
    return {"covae": [omics_spec("covae", 0, profile, dataset)]}


@artifact("fig9", runs=partial(_first_runs, dataset="mlomics"))
@artifact("fig9-tcga", runs=partial(_first_runs, dataset="tcga_brca"))
def figure9(results: Results) -> Figure:
    """Violins of the features' Spearman coefficients, of one run of each model."""
    kept = {LABELS[m]: results.samples(m) for m in results.runs}
    names = {
        "Joint": {"mRNA": "joint/mrna", "miRNA": "joint/mirna"},
        "Conditional on the other modality": {"mRNA": "mirna-to-mrna", "miRNA": "mrna-to-mirna"},
    }
    return violins(
        {
            title: {side: {k: v[f"spearman/{name}"] for k, v in kept.items()} for side, name in sides.items()}
            for title, sides in names.items()
        }
    )


@artifact("fig12", runs=partial(_covae_run, dataset="mlomics"))
@artifact("fig12-tcga", runs=partial(_covae_run, dataset="tcga_brca"))
def figure12(results: Results) -> Figure:
    """The test split in the plane by PCA, and by UMAP where it was available to the run."""
    kept, card = results.samples("covae"), load_card(results.runs["covae"][0].dataset)
    methods = ["PCA"] + (["UMAP"] if "umap/mrna" in kept else [])
    titles = {"mrna": "mRNA", "mirna": "miRNA"}
    panels = {f"{k} of {t}": kept[f"{k.lower()}/{m}"] for k in methods for m, t in titles.items()}
    return scatter_classes(panels, kept["labels"], [str(n) for n in card.labels])


@artifact("fig13")
@artifact("fig13-tcga")
def figure13(results: Results) -> Figure:
    """How many samples of each class the cohort has, both splits together."""
    from repro.datasets.omics_labels import class_counts

    return bars(class_counts("tcga_brca" if results.id.endswith("-tcga") else "mlomics"), "tumours")
