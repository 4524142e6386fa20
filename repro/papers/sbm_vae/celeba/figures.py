"""SBM-VAE's Figures 10 and 33 to 37: pages of images beside lists of attributes, or the reason why there are none."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from repro.datasets.card import load_card
from repro.experiment import Results, Rows, artifact
from repro.papers.sbm_vae.celeba.tables import absent, face_runs
from repro.report.plotting import new_figure, use_style

__all__ = ["SHOWN", "attribute_names", "faces", "sample_pages"]

Panel = NDArray[np.uint8] | Sequence[str] | str
# Figure to where its samples come from, what it shows, and in words what is given.
SHOWN: Mapping[str, tuple[str, tuple[str, ...], str]] = {
    "fig10": ("joint", ("image", "mask", "attributes"), "Joint samples"),
    "fig33": ("joint", ("image", "mask", "attributes"), "Joint samples"),
    "fig34": ("given-image", ("mask", "attributes"), "Given the image of the first test face"),
    "fig35": ("given-mask", ("image", "attributes"), "Given the mask of the first test face"),
    "fig36": ("given-attributes", ("image", "mask"), "Given the attributes of the first test face"),
    "fig37": ("given-attributes", ("image", "mask"), "Given the attributes of the first test face"),
}
GUIDED = ("SBM-RAE-C", "SBM-RAE-T", "SBM-VAE-C", "SBM-VAE-T", "MoPoE")
CELL, TEXT_SIZE, MOST_LINES = 0.62, 4.2, 6


def attribute_names(values: NDArray[np.uint8], names: Sequence[str], between: str = " ") -> str:
    """The attributes that a sample has, in words.

    Arguments:
        values: 0 and 1, ``(K,)``.
        names: The K attributes.
        between: What stands between two of them.

    Raises:
        ValueError: If there are not as many values as names.
    """
    if values.shape != (len(names),):
        raise ValueError(f"attributes of shape {values.shape} for {len(names)} names")
    return between.join(name for name, value in zip(names, values, strict=True) if value) or "none"


def _images(axes: Axes, images: NDArray[np.uint8]) -> None:
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"a panel has images of shape {images.shape}, expected (samples, 1 or 3, H, W)")
    page = np.concatenate([np.pad(x, ((0, 0), (1, 1), (1, 1)), constant_values=255) for x in images], 2)
    shown = page[0] if len(page) == 1 else page.transpose(1, 2, 0)
    axes.imshow(shown, cmap="gray", vmin=0, vmax=255, interpolation="nearest", aspect="auto")


def _words(axes: Axes, texts: Sequence[str]) -> None:
    for k, text in enumerate(texts):
        lines = textwrap.wrap(text, 20)
        size = TEXT_SIZE * min(1.0, MOST_LINES / len(lines))
        axes.text((k + 0.5) / len(texts), 0.5, "\n".join(lines), fontsize=size, ha="center", va="center")


def sample_pages(
    rows: Mapping[str, Mapping[str, Panel]],
    *,
    title: str,
    cell: float = CELL,
    wide: Mapping[str, float] | None = None,
    margin: float = 0.85,
) -> Figure:
    """Draws a row of panels a model: images, lists of words, or a reason why there is nothing.

    Arguments:
        rows: Model's label to titles of panels, to images ``(samples, C, H, W)`` in bytes, to one text a sample, or to
            the reason why there are none. All rows have the same panels.
        title: What is shown, above all.
        cell: Height of a sample in inches.
        wide: Title of a panel to the width of its samples over their height, 1 where it is not named.
        margin: Room for the models' labels in inches.

    Raises:
        ValueError: If there is no row or panel, rows have other panels, numbers of samples differ or shapes are others.

    Source: SBM-VAE, figures 10 and 33 to 37.
    """
    heads = [list(panels) for panels in rows.values()]
    if not heads or not heads[0] or any(h != heads[0] for h in heads):
        raise ValueError(f"rows {list(rows)} of panels {heads}, expected the same ones in each, at least one")
    counts = {len(p) for panels in rows.values() for p in panels.values() if not isinstance(p, str)}
    if len(counts) > 1 or counts == {0}:
        raise ValueError(f"panels of {sorted(counts)} samples, expected the same positive number in all")
    number = counts.pop() if counts else 6
    left, top = margin, 0.5
    widths = [number * cell * (wide or {}).get(head, 1.0) for head in heads[0]]
    with use_style():
        size = (left + sum(widths) + 0.1 * len(widths) + 0.05, top + len(rows) * (cell + 0.06) + 0.05)
        figure = new_figure(*size)
        for r, (label, panels) in enumerate(rows.items()):
            bottom = size[1] - top - (r + 1) * (cell + 0.06)
            for c, (head, panel) in enumerate(panels.items()):
                width = widths[c]
                place = (left + sum(widths[:c]) + 0.1 * c, bottom, width, cell)
                axes = figure.add_axes([v / size[k % 2] for k, v in enumerate(place)])
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
                if isinstance(panel, str):
                    lines = textwrap.fill(panel, int(26 * width), break_long_words=True)
                    axes.text(0.02, 0.5, lines, fontsize=TEXT_SIZE, va="center", transform=axes.transAxes)
                elif isinstance(panel, np.ndarray):
                    _images(axes, panel)
                else:
                    _words(axes, panel)
                if r == 0:
                    axes.set_title(head, fontsize=7, pad=3)
            figure.text(
                (left - 0.06) / size[0], (bottom + cell / 2) / size[1], label, ha="right", va="center", fontsize=6
            )
        figure.text(0.5, 1 - 0.05 / size[1], title, ha="center", va="top", fontsize=6.5)
    return figure


def _first_runs(profile: str, seeds: int | None, *, rows: Sequence[str]) -> Rows:
    return face_runs(profile, 1, rows=rows)


@artifact("fig10", runs=partial(_first_runs, rows=("SBM-VAE",)))
@artifact("fig33", runs=partial(_first_runs, rows=("SBM-RAE", "SBM-VAE", "MoPoE")))
@artifact("fig34", runs=partial(_first_runs, rows=GUIDED))
@artifact("fig35", runs=partial(_first_runs, rows=GUIDED))
@artifact("fig36", runs=partial(_first_runs, rows=("SBM-RAE-C", "SBM-RAE-T", "SBM-VAE-C")))
@artifact("fig37", runs=partial(_first_runs, rows=("SBM-VAE-T", "MoPoE")))
def faces(results: Results) -> Figure:
    """Samples of seed 0, joint or given one modality; a model without a record says why it has none."""
    source, wanted, title = SHOWN[results.id]
    names = list(load_card("celebamask_hq").generation["attributes"])
    recorded = {row: bool(records) for row, records in results}
    reason = absent("celebamask_hq", results.id, results.profile, recorded=any(recorded.values()))
    rows: dict[str, dict[str, Any]] = {}
    given = ""
    for row in recorded:
        rows[row] = dict.fromkeys(wanted, reason)
        if recorded[row]:
            stored = results.samples(row)
            given = attribute_names(stored["true/attributes"], names, " + ")
            for m in wanted:
                x = stored[f"{source}/{m}"]
                rows[row][m] = [attribute_names(a, names) for a in x] if m == "attributes" else x
    if source == "given-attributes" and given:
        title = f"{title}: {given}"
    return sample_pages(rows, title=f"{title}; the first samples drawn")
