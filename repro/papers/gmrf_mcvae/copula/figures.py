"""GMRF MCVAE's figures of the copula experiment: Figures 2, 5 and 6, as functions of samples.

Samples are mappings from a modality to an array of shape ``(N, 2)``; the modalities are numbered from 1 in their order,
as in the paper. Values have no unit. True samples are orange, generated ones blue.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import ArrayLike, NDArray

from repro import datasets
from repro.experiment import Results, Rows, artifact
from repro.papers.gmrf_mcvae.copula.experiment import LABELS, copula_spec
from repro.papers.gmrf_mcvae.copula.tables import table1, table1_runs
from repro.report.cells import Cell
from repro.report.plotting import GENERATED, TRUE, draw_points, new_figure, use_style

__all__ = ["figure2", "figure5", "figure6", "joint_scatter", "marginals", "mvae_seeds", "overview", "overview_panels"]

Samples = Mapping[str, ArrayLike]
Arrays = dict[str, NDArray[np.floating[Any]]]

LIMITS = (-0.1, 1.1)  # a tenth beyond the data's range on either side
NUM_BINS = 24  # of width 0.05, so that 0 and 1 are edges


def joint_scatter(true: Samples, generated: Mapping[str, Samples], *, max_points: int = 800) -> Figure:
    """Draws Figure 2: the joint distribution of every pair of modalities, for both coordinates and each model.

    A block a model, with a row a coordinate and a column a pair; generated samples lie over the true ones. The share
    of generated samples outside the axes, which run from -0.1 to 1.1, is printed in the panel.

    Arguments:
        true: Modality to true samples of shape ``(N, 2)``.
        generated: Model's label to generated samples of the same modalities.
        max_points: How many of the first samples of each side are drawn.

    Raises:
        ValueError: If there is no model, the modalities or shapes do not fit, or a value is not finite.

    Source:
        GMRF MCVAE, Figure 2.
    """
    if max_points < 1:
        raise ValueError(f"max_points is {max_points}, must be at least 1")
    truth, models = _check(true, generated)
    pairs = list(combinations(truth, 2))
    number = {m: i for i, m in enumerate(truth, 1)}
    with use_style():
        panel, gap, left, right, top, bottom = 0.92, 0.22, 0.8, 0.08, 0.62, 0.52
        width = left + len(pairs) * panel + right
        height = top + len(models) * 2 * panel + (len(models) - 1) * gap + bottom
        figure = new_figure(width, height)
        for row, (label, samples) in enumerate(models.items()):
            upper = height - top - row * (2 * panel + gap)
            grid = _grid(figure, 2, len(pairs), left, width - right, upper - 2 * panel, upper, space=0.1)
            _block_label(figure, label, 0.14, upper - panel)
            for c in (0, 1):
                for column, (i, j) in enumerate(pairs):
                    axes = figure.add_subplot(grid[c, column])
                    sides = [[side[i][:, c], side[j][:, c]] for side in (truth, samples)]
                    _scatter(axes, *sides, panel, max_points)
                    bottom_row = row == len(models) - 1 and c == 1
                    _ticks(axes, x=bottom_row, y=column == 0)
                    if row == 0 and c == 0:
                        axes.set_title(rf"$(\mathbf{{x}}_{number[i]},\, \mathbf{{x}}_{number[j]})$", pad=4)
                    if column == 0:
                        axes.set_ylabel(f"coordinate {c + 1}", labelpad=3)
        figure.text((left + width - right) / 2 / width, 0.12 / height, _PAIR_AXES, ha="center", va="bottom")
        _legend(figure, height, (left + width - right) / 2 / width, markers=True)
    return figure


def mvae_seeds(true: Samples, generated: Mapping[int, Samples], *, max_points: int = 800) -> Figure:
    """Draws Figure 6: the joint distributions of MVAE for several seeds, laid out as :func:`joint_scatter` does.

    Arguments:
        true: Modality to true samples of shape ``(N, 2)``.
        generated: Seed to generated samples of the same modalities.
        max_points: How many of the first samples of each side are drawn.

    Raises:
        ValueError: As :func:`joint_scatter` does.

    Source:
        GMRF MCVAE, Figure 6.
    """
    return joint_scatter(true, {f"MVAE, seed {s}": x for s, x in generated.items()}, max_points=max_points)


def marginals(true: Samples, generated: Mapping[str, Samples]) -> Figure:
    """Draws Figure 5: the marginal densities of every modality and coordinate, for each model.

    A row a model, the first coordinate of all modalities on the left and the second on the right. Bins are 0.05 wide
    from -0.1 to 1.1; densities count all samples, those outside the bins too. The share of generated samples outside
    [0, 1], the range of the data, is printed in the panel.

    Arguments:
        true: Modality to true samples of shape ``(N, 2)``.
        generated: Model's label to generated samples of the same modalities.

    Raises:
        ValueError: If there is no model, the modalities or shapes do not fit, or a value is not finite.

    Source:
        GMRF MCVAE, Figure 5.
    """
    truth, models = _check(true, generated)
    edges = np.linspace(*LIMITS, NUM_BINS + 1)
    with use_style():
        panel, row_height, half_gap, left, right, top, bottom = 0.86, 0.95, 0.22, 0.8, 0.08, 0.82, 0.52
        half = len(truth) * panel
        width = left + 2 * half + half_gap + right
        height = top + len(models) * row_height + bottom
        figure = new_figure(width, height)
        for row, (label, samples) in enumerate(models.items()):
            upper = height - top - row * row_height
            _block_label(figure, label, 0.14, upper - 0.45 * row_height)
            densities = {(c, m): [_density(x[m][:, c], edges) for x in (truth, samples)] for c in (0, 1) for m in truth}
            ceiling = 1.4 * max(d.max() for pair in densities.values() for d in pair)
            for c in (0, 1):
                start = left + c * (half + half_gap)
                grid = _grid(figure, 1, len(truth), start, start + half, upper - 0.9 * row_height, upper, space=0.1)
                for column, m in enumerate(truth):
                    axes = figure.add_subplot(grid[0, column])
                    for density, colour, alpha in zip(densities[c, m], (TRUE, GENERATED), (0.45, 0.12), strict=True):
                        axes.stairs(density, edges, fill=True, color=colour, alpha=alpha, linewidth=0)
                        axes.stairs(density, edges, color=colour, linewidth=0.9)
                    axes.set(xlim=LIMITS, ylim=(0, ceiling))
                    outside = np.mean((samples[m][:, c] < 0) | (samples[m][:, c] > 1))
                    _note(axes, f"{_percent(outside)} out")
                    _ticks(axes, x=row == len(models) - 1)
                    axes.set_yticks(_density_ticks(ceiling))
                    axes.tick_params(labelleft=c == 0 and column == 0)
                    if row == 0:
                        axes.set_title(rf"$\mathbf{{x}}_{column + 1}^{{\,{c + 1}}}$", pad=4)
                    if c == 0 and column == 0:
                        axes.set_ylabel("density", labelpad=3)
                if row == 0:
                    centre = (start + half / 2) / width
                    figure.text(centre, 1 - 0.55 / height, f"coordinate {c + 1}", ha="center", va="bottom")
        text = r"value of $\mathbf{x}_i^{\,c}$ (no unit);  “out”: share of generated samples outside [0, 1]"
        figure.text((left + width - right) / 2 / width, 0.12 / height, text, ha="center", va="bottom")
        _legend(figure, height, (left + width - right) / 2 / width, markers=False)
    return figure


def overview_panels(
    true: Samples, generated: Mapping[str, Samples], distances: Mapping[str, Cell], *, max_points: int = 800
) -> Figure:
    """Draws the first pair of modalities in their first coordinate, a panel a model, with Table I's distance under it.

    Arguments:
        true: Modality to true samples of shape ``(N, 2)``.
        generated: Model's label to generated samples of the same modalities.
        distances: Model's label to its unconditional distance, obtained and published.
        max_points: How many of the first samples of each side are drawn.

    Raises:
        ValueError: As :func:`joint_scatter` does, and if there are fewer than two modalities.

    Source:
        GMRF MCVAE, Figure 2 and Table I.
    """
    truth, models = _check(true, generated)
    if len(truth) < 2:
        raise ValueError(f"a pair of modalities is drawn, there is {list(truth)}")
    i, j = list(truth)[:2]
    with use_style():
        panel, left, right, top, bottom = 1.3, 0.55, 0.1, 0.62, 1.0
        space = 0.12
        width = left + (len(models) + (len(models) - 1) * space) * panel + right
        figure = new_figure(width, top + panel + bottom)
        height = top + panel + bottom
        grid = _grid(figure, 1, len(models), left, width - right, bottom, height - top, space=space)
        for column, (label, samples) in enumerate(models.items()):
            axes = figure.add_subplot(grid[0, column])
            _scatter(axes, *([side[i][:, 0], side[j][:, 0]] for side in (truth, samples)), panel, max_points)
            _ticks(axes, x=True, y=column == 0)
            axes.set_title(label, pad=4, weight="bold")
            if column == 0:
                axes.set_ylabel(r"$\mathbf{x}_2$", labelpad=1)
            cell = distances[label]
            spread = "" if cell.std is None else f" ± {cell.std:.2f}"
            lines = [r"$\mathbf{x}_1$", "not run" if cell.mean is None else f"obtained {cell.mean:.2f}{spread}"]
            lines.append(f"published {'—' if cell.published is None else cell.published}")
            for k, line in enumerate(lines):
                axes.text(0.5, -0.17 - 0.13 * k, line, transform=axes.transAxes, ha="center", va="top", fontsize=8)
        centre = (left + width - right) / 2 / width
        said = "Table I, unconditional: distance × 1000 from the true distribution, lower is better"
        figure.text(centre, 0.1 / height, said, ha="center", va="bottom", fontsize=8)
        _legend(figure, height, centre, markers=True)
    return figure


_PAIR_AXES = (
    r"horizontal: $\mathbf{x}_i^{\,c}$,  vertical: $\mathbf{x}_j^{\,c}$ "
    r"of pair $(\mathbf{x}_i, \mathbf{x}_j)$, coordinate $c$ (no unit);  “off”: generated samples beyond the axes"
)


def _check(true: Samples, generated: Mapping[str, Samples]) -> tuple[Arrays, dict[str, Arrays]]:
    """Returns true and generated samples as arrays, after checking modalities, shapes and values."""
    if not generated:
        raise ValueError("no generated samples to draw")
    sides = {"true samples": true, **{f"samples of {label!r}": samples for label, samples in generated.items()}}
    arrays: list[Arrays] = []
    for side, samples in sides.items():
        if list(samples) != list(true):
            raise ValueError(f"{side} have modalities {list(samples)}, expected {list(true)}")
        arrays.append({m: np.asarray(x, dtype=np.float64) for m, x in samples.items()})
        for m, x in arrays[-1].items():
            if x.ndim != 2 or x.shape[1] != 2 or len(x) == 0:
                raise ValueError(f"{side}: modality {m!r} has shape {x.shape}, expected (N, 2)")
            if not np.isfinite(x).all():
                raise ValueError(f"{side}: modality {m!r} has values that are not finite")
        if len({len(x) for x in arrays[-1].values()}) != 1:
            raise ValueError(f"{side} have unequal lengths {[len(x) for x in arrays[-1].values()]}")
    return arrays[0], dict(zip(generated, arrays[1:], strict=True))


def _grid(
    figure: Figure, rows: int, columns: int, left: float, right: float, bottom: float, top: float, space: float
) -> GridSpec:
    """Returns a grid of panels at a place given in inches."""
    width, height = figure.get_size_inches()
    place = {"left": left / width, "right": right / width, "bottom": bottom / height, "top": top / height}
    return figure.add_gridspec(rows, columns, **place, wspace=space, hspace=space)


def _block_label(figure: Figure, label: str, x: float, y: float) -> None:
    """Writes a model's name along the left edge, at a place given in inches."""
    width, height = figure.get_size_inches()
    figure.text(x / width, y / height, label, rotation=90, ha="center", va="center", weight="bold")


def _scatter(axes: Axes, truth: list[np.ndarray], samples: list[np.ndarray], size: float, max_points: int) -> None:
    """Draws true and generated points, and notes the share of generated ones outside the axes."""
    layers = [(x[:max_points], y[:max_points], c) for (x, y), c in ((truth, TRUE), (samples, GENERATED))]
    draw_points(axes, layers, LIMITS, size=size)
    outside = np.mean(np.any([(v < LIMITS[0]) | (v > LIMITS[1]) for v in samples], axis=0))
    if outside >= 0.005:
        # The corner that the data leaves free.
        _note(axes, f"{_percent(outside)} off", lower=float(np.corrcoef(*truth)[0, 1]) > 0)


def _density(x: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Returns the density in each bin; it integrates to the share of samples inside the bins."""
    return np.histogram(x, bins=edges)[0] / (len(x) * np.diff(edges))


def _density_ticks(ceiling: float) -> list[float]:
    """Returns two ticks: zero and the largest of 1, 2, 5 times a power of ten under seven tenths of the ceiling."""
    scale = 10.0 ** np.floor(np.log10(0.7 * ceiling))
    return [0.0, float(max(f * scale for f in (1, 2, 5) if f * scale <= 0.7 * ceiling))]


def _percent(share: float) -> str:
    return "0%" if share == 0 else "<1%" if share < 0.01 else f"{share:.0%}"


def _note(axes: Axes, text: str, *, lower: bool = False) -> None:
    """Writes a short text into the upper or the lower right corner."""
    box = {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.8}
    y, side = (0.05, "bottom") if lower else (0.95, "top")
    axes.text(0.96, y, text, transform=axes.transAxes, ha="right", va=side, fontsize=6.5, bbox=box)


def _ticks(axes: Axes, *, x: bool, y: bool | None = None) -> None:
    """Puts ticks at 0 and 1 of the axes that hold values, with labels only where asked."""
    axes.set_xticks([0, 1])
    axes.tick_params(labelbottom=x)
    if y is not None:
        axes.set_yticks([0, 1])
        axes.tick_params(labelleft=y)


def _legend(figure: Figure, height: float, centre: float, *, markers: bool) -> None:
    """Adds the legend of the two colours above the panels."""
    entries = ((TRUE, "true"), (GENERATED, "generated"))
    if markers:
        options = {"linestyle": "none", "marker": "o", "markersize": 4.5}
        handles = [Line2D([], [], color=colour, label=label, **options) for colour, label in entries]
    else:
        handles = [Patch(facecolor=colour, alpha=0.5, edgecolor=colour, label=label) for colour, label in entries]
    figure.legend(handles=handles, loc="upper center", ncols=2, bbox_to_anchor=(centre, 1 - 0.04 / height))


def _first_runs(profile: str, seeds: int | None) -> Rows:
    return {m: specs[:1] for m, specs in table1_runs(profile, seeds).items()}


def _mvae_runs(profile: str, seeds: int | None) -> Rows:
    return {"mvae": [copula_spec("mvae", s, profile) for s in range(3)]}


def _truth() -> dict[str, np.ndarray]:
    return {m: x.numpy() for m, x in datasets.load_dataset("copula", split="test").data.items()}


@artifact("fig2", runs=_first_runs)
def figure2(results: Results) -> Figure:
    """Joint scatter of every pair of coordinates, of one run of each model."""
    return joint_scatter(_truth(), {results.rename.get(LABELS[m], LABELS[m]): results.samples(m) for m in results.runs})


@artifact("fig5", runs=_first_runs)
def figure5(results: Results) -> Figure:
    """Marginal densities of one run of each model."""
    return marginals(_truth(), {results.rename.get(LABELS[m], LABELS[m]): results.samples(m) for m in results.runs})


@artifact("fig6", runs=_mvae_runs)
def figure6(results: Results) -> Figure:
    """The same for three seeds of MVAE."""
    return mvae_seeds(_truth(), {spec.seed: results.stored(spec) for spec in results.runs["mvae"]})


@artifact("overview", runs=table1_runs)
def overview(results: Results) -> Figure:
    """One pair of coordinates of one run of each model, with its row of Table I."""
    rows = {row.label: row.cells["uncond_mean"] for row in table1(results)[0].rows}
    return overview_panels(_truth(), {LABELS[m]: results.samples(m) for m in results.runs}, rows)
