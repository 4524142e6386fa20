"""What was measured of the VAEGAN, with a page of its samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from repro.experiment import Results, Rows, artifact
from repro.papers.pretrained.digits.experiment import DRAWS, VAEGAN_SEED, vaegan_spec
from repro.papers.pretrained.digits.tables import measured
from repro.records import Record, provenance
from repro.report.plain_tables import PlainTable
from repro.report.plotting import use_style

__all__ = ["vaegan"]


def _page(images: np.ndarray) -> Figure:
    """100 images of 28 x 28 bytes in ten rows."""
    with use_style():
        figure = Figure(figsize=(4.0, 4.2), layout="constrained")
        axes = figure.subplots()
        page = np.pad(images.reshape(10, 10, 28, 28), ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=96)
        axes.imshow(page.swapaxes(1, 2).reshape(300, 300), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set(xticks=[], yticks=[], title="VAEGAN: the first 100 samples, not selected")
    return figure


def _vaegan(records: Sequence[Record]) -> PlainTable:
    rows = [measured(r, m) for r in records for m in r.metrics]
    epochs = records[0].spec.params["training"]["epochs"]
    decay = records[0].spec.params["training"].get("decay")
    rate = f", the learning rate multiplied by {decay:g} after each (the paper has no schedule)" if decay else ""
    drawn = vaegan_spec(DRAWS).params["training"]["epochs"]
    notes = (
        f"Trained for {epochs} epochs on the 60,000 training images (the paper: 50){rate}. Correlated MNIST is drawn "
        f"by the one of {drawn} epochs, profile {DRAWS}.",
        "Seeds 0 and 1 were started and given up early, without a record: the discriminator rested in nearly every "
        "step and samples were patterns of dots.",
        provenance(records),
    )
    return PlainTable("VAEGAN on MNIST", ("seed", "value", "what"), tuple(rows), notes, ("seed", "what"))


def _vaegan_runs(profile: str, seeds: int | None) -> Rows:
    return {"vaegan": [vaegan_spec(profile, VAEGAN_SEED + s) for s in range(seeds or 1)]}


@artifact("vaegan", runs=_vaegan_runs)
def vaegan(results: Results) -> list[PlainTable | Figure]:
    """What was measured of the VAEGAN, and its first samples."""
    found: list[PlainTable | Figure] = [_vaegan(results.records("vaegan"))]
    return [*found, _page(results.samples("vaegan")["samples"])]
