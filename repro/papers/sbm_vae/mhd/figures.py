"""Images and spectrograms of spoken digits, joint and one given the other, or the reason why there are none."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from repro.experiment import Results, Rows, artifact
from repro.papers.sbm_vae.celeba.figures import sample_pages
from repro.papers.sbm_vae.celeba.tables import absent
from repro.papers.sbm_vae.mhd.tables import mhd_runs

__all__ = ["digits"]

SOURCES = {
    "joint": {"image": "joint/image", "audio": "joint/audio"},
    "given the other": {"image": "given-audio/image", "audio": "given-image/audio"},
}


def _first_runs(profile: str, seeds: int | None) -> Rows:
    return mhd_runs(profile, 1)


@artifact("fig-mhd", runs=_first_runs)
def digits(results: Results) -> Figure:
    """Samples of seed 0; a model without a record says why it has none."""
    recorded = {row: bool(records) for row, records in results}
    reason = absent("mhd", results.id, results.profile, recorded=any(recorded.values()))
    rows: dict[str, dict[str, Any]] = {}
    for row in recorded:
        stored = results.samples(row) if recorded[row] else {}
        for how, names in SOURCES.items():
            rows[f"{row}, {how}"] = {head: stored.get(name, reason) for head, name in names.items()}
    text = "Digits and spectrograms of spoken ones (time to the right); given: the first test sample of each digit"
    return sample_pages(rows, title=text, cell=0.3, wide={"audio": 2.0}, margin=1.25)
