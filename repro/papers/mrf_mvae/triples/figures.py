"""MRF MVAE's figures of MNIST triples: Figures 6 to 9, as functions of images.

Images are bytes of shape ``(N, 28, 28)``, the rows of a block; columns are samples, chosen by a rule and not by eye.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from repro.experiment import Results, Rows, artifact
from repro.papers.mrf_mvae.triples.experiment import LABELS, figure9_runs, reading_rows, readings, table4_runs
from repro.report.plotting import new_figure, use_style

__all__ = ["conditional", "conditional_samples", "figure9", "image_blocks", "unconditional", "unconditional_samples"]

Images = NDArray[np.uint8]
Samples = Mapping[str, Mapping[str, Images]]

SIDE = 28
CELL = 0.36  # inches an image
SYMBOLS = {"m0": r"$\mathbf{x}_1$", "m1": r"$\mathbf{x}_2$", "m2": r"$\mathbf{x}_3$"}


def image_blocks(blocks: Mapping[str, Mapping[str, Images]], columns: str = "") -> Figure:
    """Draws blocks of rows of grey images, one below the other.

    Arguments:
        blocks: Title of a block to label of a row to its images, ``(N, 28, 28)`` bytes, N alike everywhere.
        columns: What the columns are, under the last block.

    Raises:
        ValueError: If there is nothing to draw, or images have another shape or type.
    """
    shapes = {(i.shape, i.dtype.name) for rows in blocks.values() for i in map(np.asarray, rows.values())}
    if len(shapes) != 1 or next(iter(shapes))[0][1:] != (SIDE, SIDE) or next(iter(shapes))[1] != "uint8":
        raise ValueError(f"images of all rows need one shape (N, {SIDE}, {SIDE}) of bytes, got {sorted(shapes)}")
    number = next(iter(shapes))[0][0]
    left, right, top, gap, bottom = 0.95, 0.08, 0.1, 0.3, 0.32 if columns else 0.08
    heights = [len(rows) * CELL for rows in blocks.values()]
    width = left + number * CELL + right
    height = top + sum(heights) + gap * len(blocks) + bottom
    with use_style():
        figure = new_figure(width, height)
        upper = height - top
        for (title, rows), inner in zip(blocks.items(), heights, strict=True):
            upper -= gap + inner
            axes = figure.add_axes((left / width, upper / height, number * CELL / width, inner / height))
            axes.imshow(_mosaic(list(rows.values())), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.set_title(title, loc="left", pad=3)
            size = SIDE + 2
            axes.set_yticks([(k + 0.5) * size - 0.5 for k in range(len(rows))], list(rows))
            axes.set_xticks([])
            axes.tick_params(length=0)
            for spine in axes.spines.values():
                spine.set_visible(False)
        if columns:
            figure.text((left + number * CELL / 2) / width, 0.1 / height, columns, ha="center", fontsize="small")
    return figure


def _mosaic(rows: list[Images]) -> Images:
    """The rows as one image with grey lines between."""
    padded = np.pad(np.stack(rows), ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=96)
    count, number, size, _ = padded.shape
    return padded.swapaxes(1, 2).reshape(count * size, number * size)


def unconditional_samples(samples: Mapping[str, Samples]) -> Figure:
    """Draws Figure 6: the first ten samples of each variant's prior, decoded; a column is one sample of all three.

    Arguments:
        samples: Variant's label to the group ``"prior"`` to modality to images.

    Source: MRF MVAE, Figure 6.
    """
    blocks = {label: {SYMBOLS[m]: x for m, x in groups["prior"].items()} for label, groups in samples.items()}
    return image_blocks(blocks, "the first ten samples of each prior; a column is one sample of the three modalities")


def conditional_samples(samples: Mapping[str, Samples], observed: str) -> Figure:
    """Draws Figures 7 and 8: test triples, and what each variant makes of one of their modalities.

    Arguments:
        samples: Variant's label to the groups ``"true"`` and ``observed`` to modality to images.
        observed: The observed modality; its row shows its reconstruction.

    Source: MRF MVAE, Figures 7 and 8.
    """
    first = next(iter(samples.values()))
    blocks = {"Test triples": {SYMBOLS[m]: x for m, x in first["true"].items()}}
    for label, groups in samples.items():
        blocks[f"{label}, given {SYMBOLS[observed]}"] = {
            f"{SYMBOLS[m]} ({'rec.' if m == observed else 'gen.'})": x for m, x in groups[observed].items()
        }
    return image_blocks(blocks, "the first test triple of each digit; rec.: reconstructed, gen.: generated")


GIVEN = {"fig7": "m0", "fig8": "m1"}


def _grouped(samples: Mapping[str, Images]) -> dict[str, dict[str, Images]]:
    """``"<group>.<modality>"`` to group to modality."""
    found: dict[str, dict[str, Images]] = {}
    for name, images in samples.items():
        group, modality = name.split(".")
        found.setdefault(group, {})[modality] = images
    return found


def _first_runs(profile: str, seeds: int | None) -> Rows:
    first = reading_rows(table4_runs(profile, seeds), readings(profile)[0])
    return {v: specs[:1] for v, specs in first.items()}


def _variants(results: Results) -> dict[str, dict[str, dict[str, Images]]]:
    return {LABELS[v]: _grouped(results.samples(v)) for v in results.runs}


@artifact("fig6", runs=_first_runs)
def unconditional(results: Results) -> Figure:
    """Unconditional samples of the three variants."""
    return unconditional_samples(_variants(results))


@artifact("fig7", runs=_first_runs)
@artifact("fig8", runs=_first_runs)
def conditional(results: Results) -> Figure:
    """Samples of the three variants given the first or the second modality."""
    return conditional_samples(_variants(results), GIVEN[results.id])


@artifact("fig9", runs=figure9_runs)
def figure9(results: Results) -> Figure:
    """The neural variant at the beta of Figure 9."""
    ((row, (record,)),) = results
    groups = _grouped(results.samples(row))
    own = [record.metric(f"test/{task}/coherence").value for task in ("unconditional", "conditional")]
    blocks = {"Test triples": {SYMBOLS[m]: x for m, x in groups["true"].items()}}
    for observed in GIVEN.values():
        rows = {f"{SYMBOLS[m]} ({'rec.' if m == observed else 'gen.'})": x for m, x in groups[observed].items()}
        blocks[f"Given {SYMBOLS[observed]}"] = rows
    text = f"NN-MRF MVAE, beta 0.0085, seed 0: coherence {own[0]:.2f} unconditional, {own[1]:.2f} conditional"
    return image_blocks(blocks, text)
