"""CoVAE's figures on correlated MNIST: curves against the true correlation, the likelihood's terms, images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from scipy.stats import gaussian_kde

from repro import datasets
from repro.experiment import Results, Rows, artifact
from repro.papers.covae.correlated_mnist.experiment import RHOS, VARIANTS, figure_methods, image_rows, number_of_seeds
from repro.papers.covae.correlated_mnist.tables import model_runs
from repro.papers.covae.settings import LABELS
from repro.records import Record
from repro.report.plotting import PALETTE, new_figure, use_style

__all__ = [
    "COLOURS",
    "against_rho",
    "calibration",
    "decomposition",
    "figure1",
    "figure4",
    "figure5",
    "figure6",
    "figure7",
    "figure8",
    "figure10_and_11",
    "figure14_and_15",
    "figure16",
    "figure17",
    "image_grid",
    "posterior_example",
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
FURTHER = (PALETTE[3], PALETTE[0], PALETTE[4], PALETTE[2], PALETTE[6])  # of variants, whose lines are dashed

# Panels of the figures of curves: title to metric.
CORRELATIONS = {"Joint": "test/correlation/joint", "Conditional": "test/correlation/conditional"}
NLLS = {"Joint": "test/nll/joint", "Conditional (predictive)": "CONDITIONAL"}

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
    # So that equal curves are seen; the one of the paper's own model, read against the line of equal values, stays.
    own = next((i for i, k in enumerate(series) if k == LABELS["covae"]), (len(series) - 1) / 2)
    shift = {k: (i - own) * 0.004 for i, k in enumerate(series)}
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


def _value(record: Record, metric: str) -> float:
    if metric != "CONDITIONAL":
        return record.metric(metric).value
    names = ("m1-given-m0", "m0-given-m1")
    return sum(record.metric(f"test/nll/{n}/posterior-predictive").value for n in names) / 2


def _label(row: str) -> str:
    """The legend's entry of a row ``"<method>, rho <value>[, <variant>]"``."""
    method, _, *variant = row.split(", ")
    return ", ".join([LABELS[method], *variant])


def _rho(results: Results, row: str) -> float:
    return results.runs[row][0].params["data"]["rho"]


def _panels(results: Results, metrics: Mapping[str, str]) -> dict[str, dict[str, dict[float, list[float]]]]:
    """Title to legend's entry to true correlation to one value a seed."""
    panels: dict[str, dict[str, dict[float, list[float]]]] = {title: {} for title in metrics}
    for row, records in results:
        for title, metric in metrics.items():
            for record in records:
                values = panels[title].setdefault(_label(row), {}).setdefault(_rho(results, row), [])
                values.append(_value(record, metric))
    return panels


def _nearest(profile: str, *wanted: float) -> list[float]:
    """The profile's correlations that come nearest to the wanted ones, each once."""
    return list(dict.fromkeys(min(RHOS[profile], key=lambda r, w=w: abs(r - w)) for w in wanted))


def _figure7_runs(profile: str, seeds: int | None) -> Rows:
    methods = [m for m in ("mvae", "dmvae", "covae") if m in figure_methods(profile)]
    return image_rows(methods, _nearest(profile, 0.9, 0.6), profile, 1)


def _picture_runs(profile: str, seeds: int | None) -> Rows:
    return image_rows(figure_methods(profile), _nearest(profile, 0.05, 0.6, 0.99), profile, 1)


def _flow_runs(profile: str, seeds: int | None) -> Rows:
    methods = [m for m in ("dmvae", "mmvae_plus", "covae") if m in figure_methods(profile)]
    return image_rows(methods, RHOS[profile], profile, number_of_seeds(profile, seeds), flow=True)


def _variant_runs(profile: str, seeds: int | None) -> Rows:
    number = number_of_seeds(profile, seeds)
    rows = image_rows(("covae",), RHOS[profile], profile, number)
    for name, changes in VARIANTS.items():
        found = image_rows(("covae",), RHOS[profile], profile, number, **changes)
        rows |= {f"{row}, {name}": specs for row, specs in found.items()}
    return rows


def _figure14_runs(profile: str, seeds: int | None) -> Rows:
    rhos, name = _nearest(profile, 0.9, 0.3), "cross-diagonal posterior"
    rows = image_rows(("jmvae", "mvae", "covae"), rhos, profile, 1)
    found = image_rows(("covae",), rhos, profile, 1, **VARIANTS[name])
    return rows | {f"{row}, {name}": specs for row, specs in found.items()}


def _figure15_runs(profile: str, seeds: int | None) -> Rows:
    rhos = _nearest(profile, 0.9)
    rows = image_rows(("jmvae", "mvae", "covae"), rhos, profile, 1)
    found = image_rows(("jmvae", "mvae"), rhos, profile, 1, latents=10)
    return rows | {f"{row}, 10 latents": specs for row, specs in found.items()}


@artifact("fig1")
def figure1(results: Results) -> Figure:
    """The posteriors of an observed and of a missing modality."""
    return posterior_example()


@artifact("fig4")
def figure4(results: Results) -> Figure:
    """The first eight test pairs at three correlations, the first modality above the second."""
    rows = {}
    for rho in (0.99, 0.7, 0.05):
        data = datasets.load_dataset("correlated_mnist", split="test", rho=rho, num_samples=8).data
        rows |= {f"ρ = {rho:g}, {name}": list(data[m].numpy()) for m, name in (("m0", "first"), ("m1", "second"))}
    return image_grid(rows, [""] * 8)


@artifact("fig5", runs=model_runs)
def figure5(results: Results) -> Figure:
    """Correlations of what reaches the decoders against the true one."""
    panels, labels = _panels(results, CORRELATIONS), ["correlation at the decoders' input"] * 2
    true = {_rho(results, row): r.metric("test/correlation/true").value for row, records in results for r in records}
    return against_rho(panels, labels, identity=tuple(panels), reference=true, limits=(-0.05, 1.05))


@artifact("fig6", runs=model_runs)
def figure6(results: Results) -> Figure:
    """Standard deviations of latents of an observed and of a missing modality."""
    names = {"Conditioning modality": "test/deviation/conditioning", "Missing modality": "test/deviation/missing"}
    return against_rho(_panels(results, names), ["standard deviation of a latent"] * 2)


@artifact("fig8", runs=model_runs)
def figure8(results: Results) -> Figure:
    """Negative log-likelihoods."""
    return against_rho(_panels(results, NLLS), ["NLL (nats)"] * 2)


@artifact("calibration", runs=model_runs)
def calibration(results: Results) -> Figure:
    """Coverage of intervals."""
    names = {"Latents of the missing modality": "test/coverage/latent", "Its mean intensity": "test/coverage/mean"}
    labels = ["coverage of 90% intervals"] * 2
    return against_rho(_panels(results, names), labels, level=0.9, limits=(0, 1.02))


@artifact("fig10", runs=_flow_runs)
@artifact("fig11", runs=_variant_runs)
def figure10_and_11(results: Results) -> Figure:
    """Correlations and likelihoods with a flow in the data, and with one of CoVAE's choices changed."""
    correlations = {f"{k} correlation": v for k, v in CORRELATIONS.items()}
    panels = _panels(results, correlations | {f"{k} NLL": v for k, v in NLLS.items()})
    return against_rho(panels, ["correlation"] * 2 + ["NLL (nats)"] * 2, identity=tuple(correlations))


@artifact("fig14", runs=_figure14_runs)
@artifact("fig15", runs=_figure15_runs)
def figure14_and_15(results: Results) -> Figure:
    """The terms of the importance weights; in Figure 15 the posterior's alone."""
    terms = ("posterior",) if results.id == "fig15" else ("reconstruction", "prior", "posterior")
    rows: dict[str, dict[str, dict[str, ArrayLike]]] = {}
    for row in results.runs:
        kept = results.samples(row)
        for term in terms:
            panel = rows.setdefault(f"ρ = {_rho(results, row):g}", {}).setdefault(term, {})
            panel[_label(row)] = kept[f"terms/{term}"]
    return decomposition(rows)


def _pictures(results: Results) -> Iterator[tuple[str, Mapping[str, np.ndarray]]]:
    """Label of a row to the images that its run keeps, of which the first test pair's are shown."""
    for row in results.runs:
        yield f"{_label(row)}, ρ = {_rho(results, row):g}", results.samples(row)


@artifact("fig7", runs=_figure7_runs)
def figure7(results: Results) -> Figure:
    """Three samples of the given modality and five of the other."""
    rows = {
        label: [*kept["given_m0/m0"][:3, 0], kept["true/m1"][0], *kept["given_m0/m1"][:, 0]]
        for label, kept in _pictures(results)
    }
    heads = [*["given's own"] * 3, "true other", *[f"sample {i}" for i in range(1, 6)]]
    return image_grid(rows, heads, gaps=(3, 4))


@artifact("fig16", runs=_picture_runs)
def figure16(results: Results) -> Figure:
    """Five samples given the first modality."""
    rows = {
        label: [kept["true/m0"][0], kept["true/m1"][0], *kept["given_m0/m1"][:, 0]]
        for label, kept in _pictures(results)
    }
    return image_grid(rows, ["given", "true", *[f"sample {i}" for i in range(1, 6)]], gaps=(1, 2))


@artifact("fig17", runs=_picture_runs)
def figure17(results: Results) -> Figure:
    """Five joint reconstructions of both modalities."""
    rows = {
        label: [x for m in ("m0", "m1") for x in (kept[f"true/{m}"][0], *kept[f"joint/{m}"][:, 0])]
        for label, kept in _pictures(results)
    }
    return image_grid(rows, ["first", *[""] * 5, "second", *[""] * 5], gaps=(1, 6, 7))
