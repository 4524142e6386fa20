"""GMRF MCVAE's figures of the image experiments, Figures 3 and 4, as functions of samples.

Which samples are drawn is decided before any is seen: the first test sample of each class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from repro.experiment import Results, Rows, artifact
from repro.papers.gmrf_mcvae.copula.experiment import LABELS
from repro.papers.gmrf_mcvae.images.tables import image_runs
from repro.report.plotting import PALETTE, new_figure, use_style

__all__ = ["bicycles", "conditional_digits", "figure3", "figure4"]

Images = Mapping[str, NDArray[np.uint8]]  # "true/<modality>", "generated/<modality>": (classes, channels, H, W)

GREY = 200


def conditional_digits(models: Mapping[str, Images], condition: str) -> Figure:
    """Draws Figure 3: for each model, the other modalities generated from one.

    A block a model, a column a class; the first row holds what is observed, the rows below the generated modalities.

    Arguments:
        models: Model's label to its images.
        condition: The observed modality.

    Raises:
        ValueError: If there is no model, or a model's images lack one or differ in shape.

    Source: GMRF MCVAE, Figure 3 (MRF MVAE, Figure 2).
    """
    names = _check(models, condition)
    rows = [condition, *(m for m in names if m != condition)]
    first = next(iter(models.values()))[f"true/{condition}"]
    classes = len(first)
    with use_style():
        cell, left, top, gap, columns = 0.27, 0.78, 0.42, 0.12, 2
        block_width, block_height = left + classes * cell + 0.12, len(rows) * cell + gap
        lines = -(-len(models) // columns)
        width, height = columns * block_width, top + lines * block_height
        figure = new_figure(width, height)
        for block, (label, pictures) in enumerate(models.items()):
            line, column = divmod(block, columns)
            upper, start = height - top - line * block_height, column * block_width
            images = [pictures[f"true/{condition}"], *(pictures[f"generated/{m}"] for m in rows[1:])]
            axes = _axes(figure, start + left, upper - len(rows) * cell, classes * cell, len(rows) * cell)
            axes.imshow(_page(images), interpolation="nearest", extent=(0, classes, len(rows), 0), aspect="auto")
            axes.axhline(1, color=PALETTE[3], linewidth=1.2)
            axes.set(xticks=[], yticks=[i + 0.5 for i in range(len(rows))])
            axes.set_yticklabels(["given " + condition, *rows[1:]], fontsize=6)
            _side_label(figure, label, start + 0.14, upper - len(rows) * cell / 2)
        text = (
            f"First row of a block: {condition}, observed. Below: one sample of the others, given it. A column a digit."
        )
        figure.text(0.5, 1 - 0.1 / height, text, ha="center", va="top", fontsize=7)
    return figure


def bicycles(models: Mapping[str, Images], condition: str, components: Sequence[str]) -> Figure:
    """Draws Figure 4: whole bicycles, the observed component overlaid with those that each model generates from it.

    A row a class; columns are the observed component, the true bicycle and each model's. What is observed is drawn in
    blue over the generated components in grey.

    Arguments:
        models: Model's label to its images.
        condition: The observed component.
        components: All components.

    Raises:
        ValueError: If there is no model, or a model's images lack one or differ in shape.

    Source: GMRF MCVAE, Figure 4.
    """
    names = _check(models, condition)
    if set(names) != set(components):
        raise ValueError(f"generated components are {names}, expected {list(components)}")
    pictures = next(iter(models.values()))
    given, whole = pictures[f"true/{condition}"], pictures["true/whole"]
    classes = len(given)
    columns = {f"given: {condition}": _tinted(given, np.full_like(given, 255)), "true": _tinted(given, whole)}
    for label, own in models.items():
        others = np.minimum.reduce([own[f"generated/{m}"] for m in components if m != condition])
        columns[label] = _tinted(own[f"true/{condition}"], others)
    with use_style():
        cell, left, top = 0.8, 0.08, 0.42
        width, height = 2 * left + len(columns) * cell, top + classes * cell + 0.12
        figure = new_figure(width, height)
        for column, (label, images) in enumerate(columns.items()):
            axes = _axes(figure, left + column * cell, 0.1, cell * 0.98, classes * cell)
            page = np.concatenate([np.pad(x, ((0, 1), (0, 0), (0, 0)), constant_values=GREY) for x in images])
            axes.imshow(page, interpolation="nearest", aspect="auto")
            axes.set_title(label, fontsize=7, pad=3)
        text = "Blue: observed. Grey: generated (second column: true). Rows: first test sample of each class"
        figure.text(0.5, 1 - 0.08 / height, text, ha="center", va="top", fontsize=7)
    return figure


def _check(models: Mapping[str, Images], condition: str) -> list[str]:
    """The generated modalities, after checking that all models have the same."""
    if not models:
        raise ValueError("no models to draw")
    expected: dict[str, Any] = {}
    for label, pictures in models.items():
        shapes = {name: x.shape for name, x in pictures.items()}
        expected = expected or shapes
        if shapes != expected or f"true/{condition}" not in shapes:
            raise ValueError(f"images of {label!r} are {shapes}, expected {expected} with 'true/{condition}'")
    return [name.removeprefix("generated/") for name in expected if name.startswith("generated/")]


def _page(rows: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Rows of ``(classes, channels, H, W)`` as one image with a margin of a pixel around each."""
    lines = []
    for images in rows:
        colour = np.repeat(images, 3 // images.shape[1], axis=1).transpose(0, 2, 3, 1)
        lines.append(np.concatenate([np.pad(x, ((1, 1), (1, 1), (0, 0)), constant_values=255) for x in colour], axis=1))
    return np.concatenate(lines)


def _tinted(given: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Ink of the observed component in blue over the grey of the others, ``(classes, H, W, 3)``."""
    ink = 1.0 - given[:, 0, :, :, None] / 255.0
    blue = np.array([int(PALETTE[0][i : i + 2], 16) for i in (1, 3, 5)], dtype=np.float64)
    return ((1 - ink) * others[:, 0, :, :, None] + ink * blue).round().astype(np.uint8)


def _axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Any:
    """Axes without ticks and frame at a place in inches."""
    w, h = figure.get_size_inches()
    axes = figure.add_axes((left / w, bottom / h, width / w, height / h))
    axes.set(xticks=[], yticks=[])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return axes


def _side_label(figure: Figure, text: str, x: float, y: float) -> None:
    """A model's name along the left edge, at a place in inches."""
    w, h = figure.get_size_inches()
    figure.text(x / w, y / h, text, rotation=90, ha="center", va="center", weight="bold", fontsize=7)


def _first_runs(profile: str, seeds: int | None, *, dataset: str) -> Rows:
    return image_runs(profile, 1, dataset=dataset)


def _pictures(results: Results) -> tuple[dict[str, Images], str]:
    """Model's label to its images, and the modality that they are given."""
    condition = next(iter(results.runs.values()))[0].params["evaluation"]["condition"]
    return {results.rename.get(LABELS[m], LABELS[m]): results.samples(m) for m in results.runs}, condition


@artifact("fig3", runs=partial(_first_runs, dataset="polymnist"))
def figure3(results: Results) -> Figure:
    """Conditional digits of PolyMNIST."""
    return conditional_digits(*_pictures(results))


@artifact("fig4", runs=partial(_first_runs, dataset="biked_rendered"))
@artifact("fig4-biked", runs=partial(_first_runs, dataset="biked"))
def figure4(results: Results) -> Figure:
    """Conditional bicycles."""
    models, condition = _pictures(results)
    generated = (n for n in next(iter(models.values())) if n.startswith("generated/"))
    return bicycles(models, condition, [n.removeprefix("generated/") for n in generated])
