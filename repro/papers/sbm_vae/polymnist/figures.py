"""SBM-VAE's figures on Extended PolyMNIST: curves, bars and pages of samples, and which of them each figure is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from repro.datasets import load_dataset
from repro.datasets.base import first_of_each_class
from repro.experiment import Results, Rows, artifact
from repro.papers.sbm_vae.polymnist.tables import (
    beta_runs,
    comparison_runs,
    count_runs,
    metric_values,
    number_of_seeds,
)
from repro.papers.sbm_vae.settings import LABELS, ROW_CHANGES, ROWS, sbm_spec
from repro.records import Record
from repro.report.plotting import PALETTE, new_figure, use_style

__all__ = ["bars", "curves", "pages"]

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "h", "p")
MEASURES = {"coherence": "share of right digits", "frechet": "Fréchet distance, classifier's features", "fid": "FID"}
# Figures of conditional samples: the modality, counted from 0.
GIVEN = {"fig3": 2, "fig23": 2, "fig24": 0, "fig25": 5}
BETAS = (0.1, 0.5, 1.0, 2.5, 5.0)  # figures 16 to 19
ALPHAS = {"": {}, ", alpha 0.1": ROW_CHANGES["MVTCAE, alpha 0.1"]}
DROPS = (0.3, 0.5, 0.7)  # figures 21 and 22
SAMPLERS = {
    "predictor_corrector": "predictor-corrector",
    "heun": "Heun, probability flow",
    "dpm_solver": "multistep, with noise (c = 8)",
    "dpm_solver_ode": "multistep, probability flow",
}
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
            if from_zero:  # the margin above is a share of the whole axis then, so that no marker is cut
                axis.update_datalim([(axis.dataLim.x0, 0.0)])
                axis.autoscale_view()
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
    """Draws images in a grid for each model, side by side.

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


def _points(records: Sequence[Record], names: Mapping[float, str]) -> dict[float, list[float]]:
    """Horizontal value to the seeds' values, where there are any."""
    found = {x: metric_values(records, name) for x, name in names.items()}
    return {x: values for x, values in found.items() if values}


def _size(records: Sequence[Record]) -> int:
    return records[0].spec.params["data"]["modalities"]


def _observed_points(records: Sequence[Record], how: str, measure: str, target: str) -> dict[float, list[float]]:
    """A modality by the number of observed ones; all others is among the metrics of the rest."""
    number = _size(records)
    names = {n: f"test/observed/{how}/{measure}/{target}/{n}" for n in range(1, number - 1)}
    return _points(records, names | {number - 1: f"test/rest/{how}/{measure}/{target}"})


@artifact("fig2")
def dataset(results: Results) -> Figure:
    """The first test sample of each digit."""
    test = load_dataset("extended_polymnist", split="test")
    assert test.labels is not None
    rows = first_of_each_class(test.labels)
    images = np.stack([[test.data[m][i].numpy() for i in rows] for m in test.modalities])
    title = "Extended PolyMNIST: the first test sample of each digit"
    return pages({"": images}, rows=list(test.modalities), title=title)


def _first_runs(profile: str, seeds: int | None) -> Rows:
    return comparison_runs(profile, 1)


@artifact("fig3", runs=_first_runs)
@artifact("fig23", runs=_first_runs)
@artifact("fig24", runs=_first_runs)
@artifact("fig25", runs=_first_runs)
def conditional_samples(results: Results) -> Figure:
    """A modality given all others; the energy guides where there is one."""
    found = {}
    for row, (spec,) in results.runs.items():
        if ROWS[row][1] == "guided" or f"{row}-C" not in results.runs:
            m = f"m{min(GIVEN[results.id], spec.params['data']['modalities'] - 1)}"
            stored = results.samples(row)
            m = m if f"given/{m}" in stored else "m0"
            found[row] = stored[f"given/{m}"]
    labels = [f"sample {k + 1}" for k in range(len(next(iter(found.values()))))]
    text = f"{m} given all other modalities; columns: first test sample of each digit"
    return pages(found, rows=labels, title=text)


@artifact("fig4", runs=_first_runs)
@artifact("fig26", runs=_first_runs)
def joint_samples(results: Results) -> Figure:
    """Joint samples, of SBM-VAE (figure 4) or of all models (figure 26)."""
    found = {}
    for row, (spec,) in results.runs.items():
        number = spec.params["data"]["modalities"]
        if ROWS[row][1] == "plain" and (results.id == "fig26" or row == "SBM-VAE"):
            found[row] = np.stack([results.samples(row)[f"joint/m{k}"] for k in range(number)])
    labels = [f"m{k}" for k in range(number)]
    return pages(found, rows=labels, title="Joint samples, a column each: the first ones drawn")


@artifact("fig5", runs=comparison_runs)
def agreement(results: Results) -> Figure:
    """Share of joint samples in which at least so many modalities agree."""
    models = {
        row: _points(r, {k: f"test/unconditional/plain/agree/{k}" for k in range(2, _size(r) + 1)})
        for row, r in results
        if ROWS[row][1] == "plain"
    }
    return curves({"share of joint samples": models}, horizontal="number of modalities that agree, at least")


@artifact("fig6", runs=count_runs)
@artifact("fig7", runs=count_runs)
def trained(results: Results) -> Figure:
    """Joint samples (figure 6) or the first modality given the rest (figure 7) by the number of trained modalities."""
    joint = results.id == "fig6"
    panels: dict[str, dict[str, dict[float, list[float]]]] = {}
    for measure in ("frechet",) if joint else ("frechet", "coherence"):
        for label, records in results:
            row = label.rpartition(", ")[0]
            how = ROWS[row][1]
            if joint and how == "guided":
                continue
            name = f"test/unconditional/plain/{measure}/mean" if joint else f"test/rest/{how}/{measure}/m0"
            points = panels.setdefault(MEASURES[measure], {}).setdefault(row, {})
            points |= _points(records, {_size(records): name})
    return curves(panels, horizontal="number of trained modalities")


def _observed(results: Results, measure: str, last: bool) -> Figure:
    """The last or the first modality by the number of observed ones."""
    models = {}
    for row, records in results:
        target = f"m{_size(records) - 1 if last else 0}"
        models[row] = _observed_points(records, ROWS[row][1], measure, target)
    return curves({f"{MEASURES[measure]} of {target}": models}, horizontal="number of observed modalities")


@artifact("fig8", runs=comparison_runs)
@artifact("fig12", runs=comparison_runs)
def observed_frechet(results: Results) -> Figure:
    """Fréchet distance of the last (figure 8) or the first modality (figure 12) by the number of observed ones."""
    return _observed(results, "frechet", results.id == "fig8")


@artifact("fig9", runs=comparison_runs)
@artifact("fig13", runs=comparison_runs)
def observed_coherence(results: Results) -> Figure:
    """Coherence of the last (figure 9) or the first modality (figure 13) by the number of observed ones."""
    return _observed(results, "coherence", results.id == "fig9")


def _stepped_runs(profile: str, seeds: int | None) -> Rows:
    """The models of the comparison that are sampled with the energy's guidance, with and without it."""
    rows = comparison_runs(profile, seeds)
    return {row: specs for row, specs in rows.items() if ROWS[row][1] == "guided" or f"{row}-C" in rows}


@artifact("fig11", runs=_stepped_runs)
def by_steps(results: Results) -> Figure:
    """The last modality by the number of observed ones, a curve a model and number of predictor-corrector steps.

    Score-based models with and without the energy's guidance.
    """
    models = {}
    for row, records in results:
        how = ROWS[row][1]
        last, steps = _size(records) - 1, records[0].spec.params["evaluation"]["steps"]
        for n in steps:
            each = {k: f"test/steps/{how}/{n}/coherence/m{last}/{k}" for k in range(1, last + 1)}
            models[f"{row}, N = {n}"] = _points(records, each)
    return curves({f"{MEASURES['coherence']} of m{last}": models}, horizontal="number of observed modalities")


@artifact("fig14", runs=comparison_runs)
@artifact("fig15", runs=comparison_runs)
def each_modality(results: Results) -> Figure:
    """Coherence (figure 14) or Fréchet distance (figure 15) of each modality given all others."""
    measure = "coherence" if results.id == "fig14" else "frechet"
    models = {
        row: _points(r, {k: f"test/rest/{ROWS[row][1]}/{measure}/m{k}" for k in range(_size(r))}) for row, r in results
    }
    return curves({MEASURES[measure]: models}, horizontal="modality, given all others")


def _tuning_runs(profile: str, seeds: int | None) -> Rows:
    """The decoders fine-tuned with latents left out at several rates, and not at all."""
    number = number_of_seeds(profile, seeds)
    none = {"SBM-VAE": [sbm_spec("sbm_vae", s, profile, beta=0.5) for s in range(number)]}
    tuned = {
        f"SBM-VAE-p{p:g}".replace(".", ""): [
            sbm_spec("sbm_vae", s, profile, beta=0.5, finetune_drop=p) for s in range(number)
        ]
        for p in DROPS
    }
    return none | tuned


def _variants(results: Results, measure: str, name: str) -> Figure:
    """The last modality by the number of observed ones, a curve a setting."""
    models = {}
    for label, records in results:
        target = f"m{_size(records) - 1}"
        models[f"{name}{label}"] = _observed_points(records, "plain", measure, target)
    return curves({f"{MEASURES[measure]} of {target}": models}, horizontal="number of observed modalities")


@artifact("fig16", runs=partial(beta_runs, method="mmvae_plus", betas=BETAS))
@artifact("fig18", runs=partial(beta_runs, method="mvtcae", betas=BETAS, ways=ALPHAS))
def betas_coherence(results: Results) -> Figure:
    """Coherence of MMVAE+ (figure 16) or MVTCAE (figure 18) at several betas."""
    return _variants(results, "coherence", "beta ")


@artifact("fig17", runs=partial(beta_runs, method="mmvae_plus", betas=BETAS))
@artifact("fig19", runs=partial(beta_runs, method="mvtcae", betas=BETAS, ways=ALPHAS))
def betas_frechet(results: Results) -> Figure:
    """Fréchet distance of MMVAE+ (figure 17) or MVTCAE (figure 19) at several betas."""
    return _variants(results, "frechet", "beta ")


@artifact("fig21", runs=_tuning_runs)
@artifact("fig22", runs=_tuning_runs)
def fine_tuned(results: Results) -> Figure:
    """Fréchet distance (figure 21) or coherence (figure 22) with fine-tuned decoders."""
    return _variants(results, "frechet" if results.id == "fig21" else "coherence", "")


@artifact("fig20", runs=comparison_runs)
def digits(results: Results) -> Figure:
    """Shares of the digits among joint samples."""
    shares = {}
    for row, records in results:
        if ROWS[row][1] == "plain":
            each = [metric_values(records, f"test/unconditional/plain/digit/{d}") for d in range(10)]
            shares[row] = [sum(v) / len(v) for v in each]
    return bars(shares, horizontal="digit", vertical="share of joint samples", expected=0.1)


def _evaluation_runs(profile: str, seeds: int | None) -> Rows:
    return {LABELS["sbm_vae"]: [sbm_spec("sbm_vae", s, profile) for s in range(number_of_seeds(profile, seeds))]}


@artifact("fig-nfe", runs=_evaluation_runs)
def evaluations(results: Results) -> Figure:
    """Coherence against evaluations of the score, a curve a sampler."""
    labels = {"joint": "joint samples: all digits agree", "given": "m0 given the rest: right digit"}
    ((_, records),) = results
    panels, references = {}, {}
    for part, label in labels.items():
        found: dict[str, dict[float, list[float]]] = {}
        for record in records:
            for m in record.metrics:
                words = m.name.split("/")
                if words[1] == "nfe" and words[4] == part:
                    points = found.setdefault(SAMPLERS[words[2]], {})
                    points.setdefault(float(words[3]), []).append(m.value)
        panels[label] = found
        paper = found.get(SAMPLERS["predictor_corrector"], {}).get(200.0)
        if paper:
            references[label] = (sum(paper) / len(paper), "100 predictor-corrector steps")
    return curves(panels, horizontal="evaluations of the score", logarithmic=True, references=references)
