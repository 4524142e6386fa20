"""The pretrained networks' artifacts as files: a page of samples, and tables of what was measured."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from repro.papers.pretrained.experiments import CLASSIFIERS, plan
from repro.records import Metric, Record, RunSpec, provenance
from repro.report.cells import Cell, Shown
from repro.report.plain_tables import NONE, PlainTable
from repro.report.tables import join_tables

if TYPE_CHECKING:
    from numpy import ndarray

__all__ = ["render", "tables"]

Lookup = Callable[[RunSpec], Record | None]


def _page(images: ndarray) -> Any:
    """100 images of 28 x 28 bytes in ten rows."""
    import numpy as np
    from matplotlib.figure import Figure

    from repro.report.plotting import use_style

    with use_style():
        figure = Figure(figsize=(4.0, 4.2), layout="constrained")
        axes = figure.subplots()
        page = np.pad(images.reshape(10, 10, 28, 28), ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=96)
        axes.imshow(page.swapaxes(1, 2).reshape(300, 300), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set(xticks=[], yticks=[], title="VAEGAN: the first 100 samples, not selected")
    return figure


def _row(record: Record, metric: Metric) -> tuple[str, str, str]:
    text = f"{metric.value:.4g}" + ("" if metric.unit == "1" else f" {metric.unit}")
    return str(record.spec.seed), Shown(text, Cell(None, [metric.value])), metric.protocol


def _flow(records: Sequence[Record]) -> PlainTable:
    rows = [_row(r, m) for r in records for m in r.metrics]
    title = "Masked autoregressive flow on the VAEGAN's encodings of MNIST"
    return PlainTable(title, ("seed", "value", "what"), tuple(rows), (provenance(records),), ("seed", "what"))


def _vaegan(records: Sequence[Record]) -> PlainTable:
    rows = [_row(r, m) for r in records for m in r.metrics]
    epochs = records[0].spec.params["training"]["epochs"]
    notes = (
        f"Trained for {epochs} epochs on the 60,000 training images (the paper: 50).",
        "Seeds 0 and 1 were started and given up early, without a record: the discriminator rested in nearly every "
        "step and samples were patterns of dots.",
        provenance(records),
    )
    return PlainTable("VAEGAN on MNIST", ("seed", "value", "what"), tuple(rows), notes, ("seed", "what"))


def _classifiers(records: Mapping[str, Sequence[Record]]) -> PlainTable:
    published = tomllib.loads((files("repro.papers.pretrained") / "published.toml").read_text())["classifiers"]
    rows = []
    for name, found in records.items():
        for record in found:
            prefix = "test/accuracy/"
            own = {m.name.removeprefix(prefix): m.value for m in record.metrics if m.name.startswith(prefix)}
            mean = own.pop("mean")
            networks = "one for all" if CLASSIFIERS[name]["shared"] else "one each"
            stated = f"{published[name]:.3f}" if name in published else NONE
            each = ", ".join(f"{m} {v:.4f}" for m, v in own.items()) if len(own) > 1 else NONE
            shown = Shown(f"{mean:.4f}", Cell(published.get(name), [mean]))
            rows.append((name, networks, shown, stated, each, str(record.spec.params["training"]["epochs"])))
    columns = ("dataset", "networks", "test accuracy, mean", "published", "by modality", "epochs")
    notes = (
        "Share of right digits on the test split, weights rounded to float16 as they ship with the package.",
        "PolyMNIST and Extended PolyMNIST are generated from MNIST and the backgrounds; see their cards.",
        provenance([r for found in records.values() for r in found]),
    )
    return PlainTable("Digit classifiers", columns, tuple(rows), notes)


def tables(
    artifact: str, profile: str, *, seeds: int | None, lookup: Lookup, rename: Mapping[str, str] | None = None
) -> Sequence[PlainTable]:
    """An artifact's table from records; arguments as :func:`render`'s.

    Raises:
        KeyError: If the paper has no such artifact.
    """
    rows = plan(artifact, profile, seeds)
    records = {name: [r for s in specs if (r := lookup(s)) is not None] for name, specs in rows.items()}
    if artifact == "classifiers":
        return [_classifiers(records)]
    if artifact not in ("flow", "vaegan"):
        raise KeyError(artifact)
    return [(_flow if artifact == "flow" else _vaegan)(records[artifact])]


def render(
    artifact: str,
    profile: str,
    *,
    seeds: int | None,
    lookup: Lookup,
    samples: Callable[[RunSpec], Mapping[str, ndarray]],
    rename: Mapping[str, str] | None = None,
) -> Mapping[str, str | bytes]:
    """An artifact's files, suffix to content.

    Arguments:
        artifact: ``"vaegan"``, ``"flow"`` or ``"classifiers"``.
        profile: The profile of the records.
        seeds: Number of seeds; the profile's if None.
        lookup: A run's record.
        samples: A run's stored samples.
        rename: Not used; no other paper repeats these.

    Raises:
        KeyError: If the paper has no such artifact.
    """
    found = join_tables(tables(artifact, profile, seeds=seeds, lookup=lookup), f"tab:pretrained-{artifact}")
    if artifact != "vaegan":
        return dict(found)
    from repro.report.plotting import render as draw

    figure = _page(samples(plan("vaegan", profile, seeds)["vaegan"][0])["samples"])
    return found | {suffix: draw(figure, suffix) for suffix in ("pdf", "png")}
