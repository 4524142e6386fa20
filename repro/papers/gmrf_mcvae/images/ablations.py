"""GMRF MCVAE on PolyMNIST with settings changed, and what its latents hold, from records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from repro.papers.gmrf_mcvae.images.experiment import plan
from repro.papers.gmrf_mcvae.images.tables import record_cells, records_of, settings_note
from repro.records import Record, RunSpec, provenance
from repro.report.tables import Column, Row, Table

__all__ = ["ABLATIONS", "ablations", "sweep"]

Lookup = Callable[[RunSpec], Record | None]

ABLATIONS: dict[str, tuple[Column, str]] = {
    "reconstruction": (Column("reconstruction", "Reconstructions", "higher", 3), "reconstruction/coherence"),
    "nearest": (Column("nearest", "Latents of the nearest training sample", "higher", 3), "latents-nearest/coherence"),
    "mean": (Column("mean", "mean", "higher", 3, "Gaussian of the aggregate posterior"), "latents-mean/coherence"),
    "sample": (
        Column("sample", "sample", "higher", 3, "Gaussian of the aggregate posterior"),
        "latents-sample/coherence",
    ),
    "conditional": (Column("conditional", "conditional", "higher", 3, "Learned prior"), "conditional/coherence"),
    "prior_mean": (
        Column("prior_mean", "its conditional's mean", "higher", 3, "Learned prior"),
        "conditional-mean/coherence",
    ),
    "tempered": (
        Column("tempered", "temperature 0.5", "higher", 3, "Learned prior"),
        "conditional-temperature-0.5/coherence",
    ),
    "unconditional": (
        Column("unconditional", "unconditional", "higher", 3, "Learned prior"),
        "unconditional/coherence",
    ),
}


def _measured(records: Sequence[Record], split: str) -> dict[str, tuple[Column, str]]:
    """The columns that some record has a value for: records of before a protocol was there lack it."""
    names = {m.name for r in records for m in r.metrics}
    return {k: v for k, v in ABLATIONS.items() if f"{split}/{v[1]}" in names}


def _table(caption: str, rows: Mapping[str, Sequence[Record]], split: str, notes: Sequence[str]) -> Table:
    records = [r for found in rows.values() for r in found]
    columns = _measured(records, split)
    metrics = {k: name for k, (_, name) in columns.items()}
    number = records[0].metric(f"{split}/latents-nearest/coherence").protocol.removeprefix(f"{split}: ")
    return Table(
        caption=caption,
        provenance=provenance(records),
        columns=[c for c, _ in columns.values()],
        rows=[Row(label, record_cells(found, metrics, split=split)) for label, found in rows.items()],
        notes=[
            settings_note(records[:1]),
            *notes,
            "Reconstructions: all modalities observed. The other columns but the last: one modality observed, its "
            "latents drawn from its own encoder, the other four generated, over all pairs. Unconditional: all five "
            "modalities agree.",
            f"Nearest: {number}. Gaussian of the aggregate posterior: the full covariance of the encodings in the "
            "place of the learned prior's, the conditional's mean or a draw. Where that mean has the digits and the "
            "draw has not, the dependence is there but its scatter is wide; where the learned prior has less than the "
            "draw, the prior or its mask loses it.",
        ],
    )


def ablations(profile: str, seeds: int | None, lookup: Lookup) -> Table:
    """What GMRF MCVAE's latents hold on PolyMNIST, and what its prior makes of it, with settings changed.

    Arguments:
        profile: The profile.
        seeds: Number of seeds; the profile's if None.
        lookup: A run's record, None if there is none.
    """
    rows = records_of("table2-ablations", profile, seeds, lookup)
    return _table("Table II, GMRF MCVAE: share of right digits, by what gives the unobserved latents", rows, "test", [])


def sweep(profile: str, lookup: Lookup) -> Table:
    """The same for other settings of GMRF MCVAE after a few epochs, on training images that were held out.

    Arguments:
        profile: The profile.
        lookup: A run's record, None if there is none.

    Source: GMRF MCVAE, sections III-C5 and -C1; the settings of the author's later code.
    """
    rows = records_of("table2-sweep", profile, None, lookup)
    held_out = next(iter(plan("table2-sweep", profile).values()))[0].params["data"]["held_out"]
    text = (
        f"Measured on the last {held_out:,} training images, which were not trained on. No test data enters. One seed."
    )
    return _table("Table II, GMRF MCVAE: pilots on held-out images, share of right digits", rows, "validation", [text])
