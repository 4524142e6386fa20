"""SBM-VAE's figures as functions of numbers and of stored samples.

Write them with :func:`repro.report.plotting.render`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from repro.report.plotting import PALETTE, new_figure, use_style

__all__ = ["bars", "curves", "pages"]

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "h", "p")
Points = Mapping[float, Sequence[float]]  # horizontal value to the seeds' values


def curves(
    panels: Mapping[str, Mapping[str, Points]],
    *,
    horizontal: str,
    logarithmic: bool = False,
    from_zero: bool = False,
    references: Mapping[str, tuple[float, str]] | None = None,
) -> Figure:
    """Draws curves with bands of one standard deviation over seeds: a panel a measure, a curve a model.

    All curves over the number of observed, trained or agreeing modalities, and over evaluations, are drawn here.

    Arguments:
        panels: Label of the vertical axis to models, to points; models without points are left out.
        horizontal: Label of the horizontal axis.
        logarithmic: Whether the horizontal axis is.
        from_zero: Whether vertical axes begin at zero.
        references: Panel to a horizontal line and its label.

    Raises:
        ValueError: If there is nothing to draw, or a value is not finite.

    Source: SBM-VAE, figures 5 to 9, 11 to 19, 21, 22 and 27, and this package's figure of quality against evaluations.
    """
    known = {m: p for models in panels.values() for m, p in models.items() if p}
    values = [v for models in panels.values() for p in models.values() for seeds in p.values() for v in seeds]
    if not values or not np.isfinite(values).all():
        raise ValueError(f"curves over {horizontal!r} have {len(values)} values, which must be finite and at least one")
    order = list(known)
    with use_style():
        figure = new_figure(3.1 * len(panels) + 1.7, 2.7)
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axis, (label, models) in zip(axes, panels.items(), strict=True):
            for name, points in models.items():
                if not points:
                    continue
                k = order.index(name)
                x = np.array(sorted(points))
                mean = np.array([np.mean(points[v]) for v in x])
                spread = np.array([np.std(points[v], ddof=1) if len(points[v]) > 1 else 0.0 for v in x])
                line = PALETTE[k % len(PALETTE)]
                style = "-" if k < len(PALETTE) else "--"
                axis.plot(x, mean, style, color=line, marker=MARKERS[k % len(MARKERS)], markersize=3.5, label=name)
                axis.fill_between(x, mean - spread, mean + spread, color=line, alpha=0.2, linewidth=0)
            if references and label in references:
                height, text = references[label]
                axis.axhline(height, color="0.45", linewidth=0.8, linestyle=":")
                axis.text(0.98, height, text, transform=axis.get_yaxis_transform(), ha="right", va="bottom", fontsize=6)
            axis.set(xlabel=horizontal, ylabel=label)
            if from_zero:
                axis.set_ylim(bottom=0)
            if logarithmic:
                axis.set_xscale("log")
            elif all(float(v).is_integer() for p in known.values() for v in p):
                axis.set_xticks(sorted({int(v) for p in known.values() for v in p}))
        handles = {h.get_label(): h for axis in axes for h in axis.get_lines() if not h.get_label().startswith("_")}
        figure.legend([handles[n] for n in order], order, loc="center right", fontsize=6.5, frameon=False)
        figure.subplots_adjust(left=0.62 / figure.get_figwidth(), right=1 - 1.5 / figure.get_figwidth(), bottom=0.2)
        figure.subplots_adjust(top=0.93, wspace=0.32)
    return figure


def bars(shares: Mapping[str, Sequence[float]], *, horizontal: str, vertical: str, expected: float) -> Figure:
    """Draws bars, a panel a model, and a line at the value that all should have.

    Arguments:
        shares: Model to values, one a class.
        horizontal: Label of the horizontal axis.
        vertical: Label of the vertical one.
        expected: Height of the line.

    Raises:
        ValueError: If there is no model.

    Source: SBM-VAE, figure 20.
    """
    if not shares:
        raise ValueError("no shares to draw")
    with use_style():
        figure = new_figure(1.65 * len(shares) + 0.6, 2.2)
        axes = figure.subplots(1, len(shares), squeeze=False, sharey=True)[0]
        for axis, (name, values) in zip(axes, shares.items(), strict=True):
            axis.bar(np.arange(len(values)), values, color=PALETTE[0])
            axis.axhline(expected, color=PALETTE[3], linewidth=1)
            axis.set(title=name, xlabel=horizontal, xticks=np.arange(len(values)))
            axis.tick_params(labelsize=6)
        axes[0].set_ylabel(vertical)
        figure.subplots_adjust(left=0.62 / figure.get_figwidth(), right=0.98, bottom=0.22, top=0.86, wspace=0.12)
    return figure


def pages(models: Mapping[str, NDArray[np.uint8]], *, rows: Sequence[str], title: str) -> Figure:
    """Draws pictures in a grid for each model, side by side.

    Arguments:
        models: Model's label to bytes ``(rows, columns, channels, height, width)``.
        rows: Labels of the rows.
        title: What is shown, above all.

    Raises:
        ValueError: If there is no model or the shapes differ or are not those.

    Source: SBM-VAE, figures 2 to 4 and 23 to 26.
    """
    shapes = {x.shape for x in models.values()}
    if len(shapes) != 1 or len(shape := next(iter(shapes))) != 5 or shape[0] != len(rows):
        raise ValueError(f"pages of shapes {sorted(shapes)}, expected one ({len(rows)}, columns, channels, H, W)")
    cell = 0.22
    with use_style():
        block, left = cell * shape[1], 0.55
        figure = new_figure(left + len(models) * (block + 0.12) + 0.05, cell * shape[0] + 0.55)
        width, height = figure.get_size_inches()
        for k, (label, images) in enumerate(models.items()):
            place = ((left + k * (block + 0.12)) / width, 0.08 / height, block / width, cell * shape[0] / height)
            axes = figure.add_axes(place)
            page = np.pad(images, ((0, 0), (0, 0), (0, 0), (1, 1), (1, 1)), constant_values=255)
            page = page.transpose(0, 3, 1, 4, 2).reshape(shape[0] * (shape[3] + 2), shape[1] * (shape[4] + 2), shape[2])
            shown = page[..., 0] if shape[2] == 1 else page
            axes.imshow(shown, cmap="gray", vmin=0, vmax=255, interpolation="nearest", aspect="auto")
            axes.set_title(label, fontsize=7, pad=3)
            axes.set(xticks=[], yticks=[])
            if k == 0:
                axes.set_yticks((np.arange(shape[0]) + 0.5) * (shape[3] + 2), labels=rows, fontsize=6)
                axes.tick_params(length=0)
        figure.text(0.5, 1 - 0.04 / height, title, ha="center", va="top", fontsize=6.5)
    return figure
