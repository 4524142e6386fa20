"""SBM-VAE's artifacts as files: Markdown and LaTeX for tables, PDF and PNG for figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from repro.papers.sbm_vae.celeba import experiment as celeba
from repro.papers.sbm_vae.celeba import rendering as celeba_rendering
from repro.papers.sbm_vae.experiments import BETAS, COUNTS, PLAIN, SAMPLE_FIGURES, plan
from repro.papers.sbm_vae.mhd import experiment as mhd
from repro.papers.sbm_vae.settings import ROWS
from repro.papers.sbm_vae.timing import tables as timing_tables
from repro.papers.sbm_vae.timing.experiment import ARTIFACT
from repro.records import Record, RunSpec
from repro.report.plain_tables import PlainTable
from repro.report.tables import Table, join_tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy import ndarray

__all__ = ["WITHOUT_RECORDS", "render", "tables"]

Lookup = Callable[[RunSpec], Record | None]
Samples = Callable[[RunSpec], Mapping[str, "ndarray"]]
MEASURES = {"coherence": "share of right digits", "frechet": "Fréchet distance, classifier's features", "fid": "FID"}
# On CelebAMask-HQ and MHD, which are placed by hand: these render without records too, and say why they are empty.
WITHOUT_RECORDS = (*celeba.ARTIFACTS, *mhd.ARTIFACTS)
# Figures of conditional samples: the modality, counted from 0.
GIVEN = {"fig3": 2, "fig23": 2, "fig24": 0, "fig25": 5}


def _seeds(records: Sequence[Record], name: str) -> list[float]:
    return [m.value for r in records for m in r.metrics if m.name == name]


def _points(records: Sequence[Record], names: Mapping[float, str]) -> dict[float, list[float]]:
    """Horizontal value to the seeds' values, where there are any."""
    found = {x: _seeds(records, name) for x, name in names.items()}
    return {x: values for x, values in found.items() if values}


def _records(artifact: str, profile: str, seeds: int | None, lookup: Lookup) -> dict[str, list[Record]]:
    rows = plan(artifact, profile, seeds)
    return {row: [r for s in specs if (r := lookup(s)) is not None] for row, specs in rows.items()}


def _size(records: Sequence[Record]) -> int:
    return records[0].spec.params["data"]["modalities"]


def _agreement(rows: Mapping[str, Sequence[Record]]) -> Figure:
    from repro.papers.sbm_vae.polymnist.figures import curves

    models = {
        row: _points(r, {k: f"test/unconditional/plain/agree/{k}" for k in range(2, _size(r) + 1)})
        for row, r in rows.items()
        if ROWS[row][1] == "plain"
    }
    return curves({"share of joint samples": models}, horizontal="number of modalities that agree, at least")


def _observed(rows: Mapping[str, Sequence[Record]], measure: str, last: bool) -> Figure:
    """The last or the first modality by the number of observed ones; all others is among the metrics of the rest."""
    from repro.papers.sbm_vae.polymnist.figures import curves

    models = {}
    for row, records in rows.items():
        how = ROWS[row][1]
        number = _size(records)
        target = f"m{number - 1 if last else 0}"
        names = {n: f"test/observed/{how}/{measure}/{target}/{n}" for n in range(1, number - 1)}
        models[row] = _points(records, names | {number - 1: f"test/rest/{how}/{measure}/{target}"})
    return curves({f"{MEASURES[measure]} of {target}": models}, horizontal="number of observed modalities")


def _by_steps(rows: Mapping[str, Sequence[Record]]) -> Figure:
    """The last modality by the number of observed ones, a curve a model and number of predictor-corrector steps."""
    from repro.papers.sbm_vae.polymnist.figures import curves

    models = {}
    for row, records in rows.items():
        last, steps = _size(records) - 1, records[0].spec.params["evaluation"]["steps"]
        for n in steps:
            each = {k: f"test/steps/{ROWS[row][1]}/{n}/coherence/m{last}/{k}" for k in range(1, last + 1)}
            models[f"{row}, N = {n}"] = _points(records, each)
    return curves({f"{MEASURES['coherence']} of m{last}": models}, horizontal="number of observed modalities")


def _each(rows: Mapping[str, Sequence[Record]], measure: str) -> Figure:
    from repro.papers.sbm_vae.polymnist.figures import curves

    models = {
        row: _points(r, {k: f"test/rest/{ROWS[row][1]}/{measure}/m{k}" for k in range(_size(r))})
        for row, r in rows.items()
    }
    return curves({MEASURES[measure]: models}, horizontal="modality, given all others")


def _trained(rows: Mapping[str, Sequence[Record]], profile: str, artifact: str) -> Figure:
    from repro.papers.sbm_vae.polymnist.figures import curves

    task, part = ("unconditional", "mean") if artifact == "fig6" else ("rest", "m0")
    measures = ("frechet",) if artifact == "fig6" else ("frechet", "coherence")
    panels: dict[str, dict[str, dict[float, list[float]]]] = {}
    for measure in measures:
        for label, records in rows.items():
            row = label.rpartition(", ")[0]
            how = "plain" if task == "unconditional" else ROWS[row][1]
            if task == "unconditional" and ROWS[row][1] == "guided":
                continue
            points = panels.setdefault(MEASURES[measure], {}).setdefault(row, {})
            points |= _points(records, {_size(records): f"test/{task}/{how}/{measure}/{part}"})
    if not COUNTS[profile]:
        raise ValueError(f"profile {profile!r} trains no number of modalities")
    return curves(panels, horizontal="number of trained modalities")


def _evaluations(rows: Mapping[str, Sequence[Record]]) -> Figure:
    from repro.papers.sbm_vae.polymnist.figures import curves

    titles = {
        "predictor_corrector": "predictor-corrector",
        "heun": "Heun, probability flow",
        "dpm_solver": "multistep, with noise (c = 8)",
        "dpm_solver_ode": "multistep, probability flow",
    }
    labels = {"joint": "joint samples: all digits agree", "given": "m0 given the rest: right digit"}
    (records,) = rows.values()
    panels, references = {}, {}
    for part, label in labels.items():
        found: dict[str, dict[float, list[float]]] = {}
        for record in records:
            for m in record.metrics:
                words = m.name.split("/")
                if words[1] == "nfe" and words[4] == part:
                    points = found.setdefault(titles[words[2]], {})
                    points.setdefault(float(words[3]), []).append(m.value)
        panels[label] = found
        paper = found.get(titles["predictor_corrector"], {}).get(200.0)
        if paper:
            references[label] = (sum(paper) / len(paper), "100 predictor-corrector steps")
    return curves(panels, horizontal="evaluations of the score", logarithmic=True, references=references)


def _digits(rows: Mapping[str, Sequence[Record]]) -> Figure:
    from repro.papers.sbm_vae.polymnist.figures import bars

    shares = {}
    for row, records in rows.items():
        if ROWS[row][1] == "plain":
            each = [_seeds(records, f"test/unconditional/plain/digit/{d}") for d in range(10)]
            shares[row] = [sum(v) / len(v) for v in each]
    return bars(shares, horizontal="digit", vertical="share of joint samples", expected=0.1)


def _variants(rows: Mapping[str, Sequence[Record]], measure: str, name: str) -> Figure:
    """The last modality by the number of observed ones, a curve a setting."""
    from repro.papers.sbm_vae.polymnist.figures import curves

    models = {}
    for label, records in rows.items():
        number = _size(records)
        target = f"m{number - 1}"
        names = {n: f"test/observed/plain/{measure}/{target}/{n}" for n in range(1, number - 1)}
        points = _points(records, names | {number - 1: f"test/rest/plain/{measure}/{target}"})
        models[f"{name}{label}"] = points
    return curves({f"{MEASURES[measure]} of {target}": models}, horizontal="number of observed modalities")


def _image_figure(artifact: str, profile: str, samples: Samples) -> Figure:
    import numpy as np

    from repro.papers.sbm_vae.polymnist.figures import pages

    rows = {row: specs[0] for row, specs in plan(artifact, profile).items()}
    number = next(iter(rows.values())).params["data"]["modalities"]
    found = {}
    for row, spec in rows.items():
        if artifact in ("fig4", "fig26"):
            if ROWS[row][1] == "plain" and (artifact == "fig26" or row == "SBM-VAE"):
                found[row] = np.stack([samples(spec)[f"joint/m{k}"] for k in range(number)])
        elif ROWS[row][1] == "guided" or f"{row}-C" not in rows:  # the energy guides where there is one
            m = f"m{min(GIVEN[artifact], number - 1)}"
            stored = samples(spec)
            m = m if f"given/{m}" in stored else "m0"
            found[row] = stored[f"given/{m}"]
    if artifact in ("fig4", "fig26"):
        labels = [f"m{k}" for k in range(number)]
        return pages(found, rows=labels, title="Joint samples, a column each: the first ones drawn")
    labels = [f"sample {k + 1}" for k in range(len(next(iter(found.values()))))]
    text = f"{m} given all other modalities; columns: first test sample of each digit"
    return pages(found, rows=labels, title=text)


def _dataset() -> Figure:
    import numpy as np

    from repro.datasets import load_dataset
    from repro.datasets.base import first_of_each_class
    from repro.papers.sbm_vae.polymnist.figures import pages

    test = load_dataset("extended_polymnist", split="test")
    assert test.labels is not None
    rows = first_of_each_class(test.labels)
    images = np.stack([[test.data[m][i].numpy() for i in rows] for m in test.modalities])
    title = "Extended PolyMNIST: the first test sample of each digit"
    return pages({"": images}, rows=list(test.modalities), title=title)


def _figure(artifact: str, profile: str, seeds: int | None, lookup: Lookup, samples: Samples) -> Figure:
    if artifact == "fig2":
        return _dataset()
    if artifact in WITHOUT_RECORDS:
        return celeba_rendering.draw(artifact, profile, lookup, samples)
    if artifact in SAMPLE_FIGURES:
        return _image_figure(artifact, profile, samples)
    rows = _records(artifact, profile, seeds, lookup)
    draw: dict[str, Callable[[], Figure]] = {
        "fig5": lambda: _agreement(rows),
        "fig6": lambda: _trained(rows, profile, artifact),
        "fig7": lambda: _trained(rows, profile, artifact),
        "fig8": lambda: _observed(rows, "frechet", True),
        "fig9": lambda: _observed(rows, "coherence", True),
        "fig11": lambda: _by_steps(_guided(rows)),
        "fig12": lambda: _observed(rows, "frechet", False),
        "fig13": lambda: _observed(rows, "coherence", False),
        "fig14": lambda: _each(rows, "coherence"),
        "fig15": lambda: _each(rows, "frechet"),
        "fig16": lambda: _variants(rows, "coherence", "beta "),
        "fig17": lambda: _variants(rows, "frechet", "beta "),
        "fig18": lambda: _variants(rows, "coherence", "beta "),
        "fig19": lambda: _variants(rows, "frechet", "beta "),
        "fig20": lambda: _digits(rows),
        "fig21": lambda: _variants(rows, "frechet", ""),
        "fig22": lambda: _variants(rows, "coherence", ""),
        "fig-nfe": lambda: _evaluations(rows),
    }
    return draw[artifact]()


def _guided(rows: Mapping[str, Sequence[Record]]) -> dict[str, Sequence[Record]]:
    """The rows of figure 11: score-based models with and without the energy's guidance."""
    return {row: r for row, r in rows.items() if f"{row}-C" in rows or ROWS[row][1] == "guided"}


def tables(
    artifact: str, profile: str, *, seeds: int | None, lookup: Lookup, rename: Mapping[str, str] | None = None
) -> Sequence[Table | PlainTable]:
    """An artifact's tables from records, none for what is drawn alone; arguments as :func:`render`'s.

    Raises:
        KeyError: If the room has no such table.
    """
    if artifact == ARTIFACT:
        return [timing_tables.timing_table(_records(artifact, profile, seeds, lookup)["seconds"])]
    if artifact.startswith("fig"):
        return ()
    if artifact in WITHOUT_RECORDS:
        return [celeba_rendering.table(artifact, profile, seeds, lookup)]
    from repro.papers.sbm_vae.polymnist import tables as digits

    if artifact in PLAIN:
        return [digits.settings_table(artifact)]
    if artifact not in BETAS and artifact not in ("table5", "table5-ablations", "table7"):
        raise KeyError(artifact)
    return [getattr(digits, artifact.replace("-", "_"))(profile, seeds, lookup)]


def render(
    artifact: str,
    profile: str,
    *,
    seeds: int | None,
    lookup: Lookup,
    samples: Samples,
    rename: Mapping[str, str] | None = None,
) -> Mapping[str, str | bytes]:
    """An artifact's files, suffix to content.

    Arguments:
        artifact: Its id within the paper.
        profile: The profile of the records.
        seeds: Number of seeds; the profile's if None.
        lookup: A run's record.
        samples: A run's stored samples.
        rename: Not used; no other paper repeats these.

    Raises:
        KeyError: If the paper has no such artifact.
    """
    files = join_tables(tables(artifact, profile, seeds=seeds, lookup=lookup), f"tab:sbm-{artifact}")
    if artifact.startswith("fig"):
        from repro.report.plotting import render as draw

        if artifact == ARTIFACT:
            figure = timing_tables.draw_timing(_records(artifact, profile, seeds, lookup)["seconds"])
        else:
            figure = _figure(artifact, profile, seeds, lookup, samples)
        return files | {suffix: draw(figure, suffix) for suffix in ("pdf", "png")}
    return dict(files)
