"""CoVAE's figures against the true correlation, and of the likelihood's terms, as functions of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from scipy.stats import gaussian_kde

from repro.report.plotting import PALETTE, new_figure, use_style

__all__ = [
    "COLOURS",
    "against_rho",
    "bars",
    "decomposition",
    "image_grid",
    "posterior_example",
    "scatter_classes",
    "violins",
]

# One colour and marker for each model throughout; CoVAE in black, over the others.
COLOURS = {
    "MVAE": PALETTE[0],
    "MVTCAE": PALETTE[5],
    "MMVAE": PALETTE[1],
    "MoPoE": PALETTE[6],
    "JMVAE": PALETTE[2],
    "DMVAE": PALETTE[4],
    "MMVAE+": PALETTE[3],
    "CoVAE": PALETTE[7],
}
MARKERS = dict(zip(COLOURS, "osv^DPX*", strict=True))
FEW, COLUMNS = 8, 8  # classes that a legend within a panel holds, and columns of one below the panels
FURTHER = (PALETTE[3], PALETTE[0], PALETTE[4], PALETTE[2], PALETTE[6])  # of variants, whose lines are dashed

Series = Mapping[str, Mapping[float, Sequence[float]]]


def _look(labels: Sequence[str]) -> dict[str, tuple[str, str, str]]:
    """Colour, marker and line style of each label; a variant's colour is none of the models beside it."""
    taken = {COLOURS[k] for k in labels if k in COLOURS}
    free = [c for c in FURTHER if c not in taken] or FURTHER
    others = zip(cycle(free), cycle("sD^vPX"))
    return {k: (COLOURS[k], MARKERS[k], "-") if k in COLOURS else (*next(others), "--") for k in labels}


def _legend(figure: Figure, columns: int) -> None:
    """One legend for all panels below them, of at most so many columns."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=min(columns, len(labels)), fontsize=7)
    below = 0.1 + 0.18 * -(-len(labels) // columns)  # inches
    figure.tight_layout(rect=(0, below / figure.get_size_inches()[1], 1, 1))


def _curves(axes: Axes, series: Series) -> None:
    """Mean over seeds with a band of one standard deviation, where there are several seeds."""
    look = _look(list(series))
    shift = {k: (i - (len(series) - 1) / 2) * 0.004 for i, k in enumerate(series)}  # so that equal curves are seen
    for label, values in series.items():
        rhos = sorted(values)
        mean = np.array([np.mean(values[r]) for r in rhos])
        spread = np.array([np.std(values[r], ddof=1) if len(values[r]) > 1 else 0.0 for r in rhos])
        colour, marker, line = look[label]
        x = np.array(rhos) + shift[label]
        axes.plot(x, mean, line, color=colour, marker=marker, markersize=4, linewidth=1.2, label=label)
        if spread.any():
            axes.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.2, linewidth=0)


def against_rho(
    panels: Mapping[str, Series],
    ylabels: Sequence[str],
    *,
    identity: Sequence[str] = (),
    level: float | None = None,
    reference: Mapping[float, float] | None = None,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Draws measured values against the true correlation, a panel a measure, a curve a model.

    Arguments:
        panels: Title to label to true correlation to one value a seed.
        ylabels: Of each panel, with units.
        identity: Titles of the panels with the line of equal values.
        level: A horizontal line, None for none.
        reference: True correlation of the parameters to that measured on the data, drawn as crosses.
        limits: Of the vertical axes.

    Raises:
        ValueError: If there is no panel, or the labels are not as many.

    Source: CoVAE, Figures 5, 6, 8, 10 and 11.
    """
    if not panels or len(panels) != len(ylabels):
        raise ValueError(f"{len(panels)} panels and {len(ylabels)} labels of axes; needs as many, at least one")
    with use_style():
        columns = min(2, len(panels))
        lines = -(-len(panels) // columns)
        figure = new_figure(3.1 * columns, 2.7 * lines + 0.6)
        for i, ((title, series), ylabel) in enumerate(zip(panels.items(), ylabels, strict=True)):
            axes = figure.add_subplot(lines, columns, i + 1)
            _curves(axes, series)
            if title in identity:
                axes.plot([0, 1], [0, 1], color="0.5", linestyle="--", linewidth=1, label="equal to the true one")
            if level is not None:
                axes.axhline(level, color="0.5", linestyle="--", linewidth=1, label=f"{level:g}")
            if reference:
                axes.plot(*zip(*sorted(reference.items()), strict=True), "x", color="0.4", label="measured on the data")
            axes.set(xlabel="true correlation ρ", ylabel=ylabel, title=title, xlim=(-0.02, 1.02))
            if limits is not None:
                axes.set_ylim(limits)
        _legend(figure, 5 if columns > 1 else 3)
    return figure


def _densities(axes: Axes, values: Mapping[str, ArrayLike]) -> None:
    arrays = {k: np.asarray(v, dtype=np.float64).ravel() for k, v in values.items()}
    low = min(np.quantile(v, 0.002) for v in arrays.values())
    high = max(np.quantile(v, 0.998) for v in arrays.values())
    grid = np.linspace(low, high, 200)
    for (label, v), (colour, _, line) in zip(arrays.items(), _look(list(arrays)).values(), strict=True):
        density = gaussian_kde(v)(grid)
        axes.fill_between(grid, density, color=colour, alpha=0.2, linewidth=0)
        axes.plot(grid, density, line, color=colour, linewidth=1.2, label=label)
    axes.set_ylim(bottom=0)


def decomposition(rows: Mapping[str, Mapping[str, Mapping[str, ArrayLike]]]) -> Figure:
    """Draws the distributions of the terms of the importance weights, a row of panels for each dataset.

    Arguments:
        rows: Title of a row to term to model's label to values in nats.

    Raises:
        ValueError: If there is no row.

    Source: CoVAE, equation 10, Figures 14 and 15.
    """
    if not rows:
        raise ValueError("no rows to draw")
    names = {
        "reconstruction": "ln p(x | z)",
        "prior": "ln p(z)",
        "posterior": "−ln q(z | x)",
    }
    with use_style():
        columns = max(len(terms) for terms in rows.values())
        figure = new_figure(2.6 * columns, 2.3 * len(rows) + 0.5)
        for i, (title, terms) in enumerate(rows.items()):
            for j, (term, values) in enumerate(terms.items()):
                axes = figure.add_subplot(len(rows), columns, i * columns + j + 1)
                _densities(axes, values)
                axes.set(xlabel=f"{names[term]} (nats)", title=title if columns == 1 else f"{title}: {term}")
                if j == 0:
                    axes.set_ylabel("density")
        _legend(figure, 5 if columns > 1 else 2)
    return figure


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


def image_grid(rows: Mapping[str, Sequence[ArrayLike]], heads: Sequence[str], *, gaps: Sequence[int] = ()) -> Figure:
    """Draws rows of small images, a model a row.

    Arguments:
        rows: Label to images of shape ``(28, 28)``, bytes.
        heads: A heading for each column, empty for none.
        gaps: Columns before which a line is drawn.

    Raises:
        ValueError: If there is no row, or rows differ in length from the headings.
    """
    if not rows or {len(r) for r in rows.values()} != {len(heads)}:
        raise ValueError(f"{ {k: len(r) for k, r in rows.items()} } images a row for {len(heads)} headings")
    with use_style():
        size, left, top = 0.5, 1.0, 0.35
        width, height = left + size * len(heads), top + size * len(rows) + 0.05
        figure = new_figure(width, height)
        axes = figure.add_axes((left / width, 0.05 / height, size * len(heads) / width, size * len(rows) / height))
        page = np.concatenate(
            [np.concatenate([np.asarray(x).reshape(28, 28) for x in images], 1) for images in rows.values()], 0
        )
        axes.imshow(page, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        for g in gaps:
            axes.axvline(28 * g - 0.5, color=PALETTE[1], linewidth=1.5)
        axes.set_xticks(14 + 28 * np.arange(len(heads)) - 0.5, heads, fontsize=6)
        axes.set_yticks(14 + 28 * np.arange(len(rows)) - 0.5, list(rows), fontsize=7)
        axes.tick_params(length=0, labeltop=True, labelbottom=False)
    return figure


def posterior_example(rho: float = 0.5, scale: float = 0.3, observed: float = 1.0) -> Figure:
    """Draws the latent posteriors of an observed and of a missing modality, by a product of experts and by CoVAE.

    One latent a modality, prior N(0, [[1, ρ], [ρ, 1]]), and an encoder of standard deviation ``scale`` at ``observed``.
    With one shared latent both modalities have the posterior of the observed one. CoVAE's for the missing modality is
    N(ρ m, 1 − ρ² + ρ² s²).

    Arguments:
        rho: Correlation.
        scale: s.
        observed: m.

    Source: CoVAE, Figure 1.
    """
    grid = np.linspace(-2.5, 3.0, 400)

    def density(mean: float, deviation: float) -> np.ndarray:
        return np.exp(-0.5 * ((grid - mean) / deviation) ** 2) / (deviation * np.sqrt(2 * np.pi))

    missing = density(rho * observed, float(np.sqrt(1 - rho**2 + rho**2 * scale**2)))
    own = density(observed, scale)
    with use_style():
        figure = new_figure(6.2, 2.6)
        for i, (title, other) in enumerate({"Product of experts": own, "CoVAE": missing}.items()):
            axes = figure.add_subplot(1, 2, i + 1)
            axes.fill_between(grid, own, color=PALETTE[0], alpha=0.35, linewidth=0, label="observed modality")
            axes.plot(grid, other, color=PALETTE[3], linestyle="--", linewidth=1.6, label="missing modality")
            axes.set(xlabel="latent", ylabel="posterior density", title=title, ylim=(0, 1.05 * own.max()))
            axes.legend(fontsize=7)
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
