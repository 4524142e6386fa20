"""SBM-VAE's Table 8, on MHD, from records; without records every cell says why."""

from __future__ import annotations

from collections.abc import Sequence

from repro.experiment import Results, Rows, artifact
from repro.papers.sbm_vae.celeba.tables import absent, published_cells
from repro.papers.sbm_vae.mhd.experiment import MHD_METHODS, MHD_PROFILES, mhd_spec
from repro.papers.sbm_vae.polymnist.tables import metric_values
from repro.records import Record, of_profile, provenance
from repro.report.cells import Cell
from repro.report.tables import Column, Row, Table

__all__ = ["mhd_runs", "table8"]

METRICS = {
    "audio_to_image": "test/audio-to-image/coherence",
    "image_to_audio": "test/image-to-audio/coherence",
    "unconditional": "test/joint/coherence",
}
FLOORS = {"audio_to_image": "test/floor/image", "image_to_audio": "test/floor/audio"}
COLUMNS = [
    Column("audio_to_image", "Image given audio", "higher", 3),
    Column("image_to_audio", "Audio given image", "higher", 3),
    Column("unconditional", "Joint, digits agree", "higher", 3),
]


def _cell(records: Sequence[Record], metric: str, known: float | None, missing: str) -> Cell:
    values = metric_values(records, metric)
    return Cell(known, values) if values else Cell(known, (), missing)


def mhd_runs(profile: str, seeds: int | None) -> Rows:
    """Every method on MHD."""
    p = of_profile(MHD_PROFILES, profile)
    number = p["seeds"] if seeds is None else seeds
    return {row: [mhd_spec(method, s, profile) for s in range(number)] for row, method in MHD_METHODS.items()}


@artifact("table8", runs=mhd_runs)
def table8(results: Results) -> Table:
    """Table 8: coherence of images and spoken digits; without records every cell says how the data is to be had.

    Source: SBM-VAE, Table 8.
    """
    rows = dict(results)
    records = results.all_records()
    missing = absent("mhd", results.id, results.profile, recorded=bool(records))
    body = []
    for row, found in rows.items():
        known = published_cells(results.published, row)
        body.append(Row(row, {k: _cell(found, metric, known.get(k), missing) for k, metric in METRICS.items()}))
    floor = {k: _cell(records[:1], metric, None, missing) for k, metric in FLOORS.items()}
    floor["unconditional"] = Cell(None, (), "true pairs agree by construction")
    notes = [
        "Measured with a digit classifier of each modality, trained on the training split beside each model; the paper "
        "does not say which classifiers. Networks are this package's residual ones, where the paper has those of Vasco "
        "et al. (2022); the baselines' betas are those of Extended PolyMNIST. The data has no validation split."
    ]
    if records and results.profile != "paper":
        notes.append("A reduced profile's values are no attempt at the published ones.")
    return Table(
        caption="Table 8. MHD: coherence of images and spoken digits",
        provenance=provenance(records),
        columns=COLUMNS,
        rows=body,
        floors=[Row("True samples (the classifiers' accuracy)", floor)],
        notes=notes,
        published_seeds=3,
    )
