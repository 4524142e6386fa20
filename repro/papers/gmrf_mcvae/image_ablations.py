"""GMRF MCVAE on PolyMNIST with settings changed, and what its latents hold, from records."""

from __future__ import annotations

from collections.abc import Callable

from repro.papers.gmrf_mcvae.image_tables import _cells, _records, _settings_note
from repro.records import Record, RunSpec, provenance
from repro.tables import Column, Row, Table

__all__ = ["ABLATIONS", "ablations"]

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
    "unconditional": (
        Column("unconditional", "unconditional", "higher", 3, "Learned prior"),
        "unconditional/coherence",
    ),
}


def ablations(profile: str, seeds: int | None, lookup: Lookup) -> Table:
    """What GMRF MCVAE's latents hold on PolyMNIST, and what its prior makes of it, with settings changed.

    Arguments:
        profile: The profile.
        seeds: Number of seeds; the profile's if None.
        lookup: A run's record, None if there is none.
    """
    rows = _records("table2-ablations", profile, seeds, lookup)
    records = [r for found in rows.values() for r in found]
    metrics = {k: name for k, (_, name) in ABLATIONS.items()}
    number = records[0].metric("test/latents-nearest/coherence").protocol
    return Table(
        caption="Table II, GMRF MCVAE: share of right digits, by what gives the unobserved latents",
        provenance=provenance(records),
        columns=[c for c, _ in ABLATIONS.values()],
        rows=[Row(label, _cells(found, metrics)) for label, found in rows.items()],
        notes=[
            _settings_note(records[:1]),
            "Reconstructions: all modalities observed. The other columns but the last: one modality observed, its "
            "latents drawn from its own encoder, the other four generated, over all pairs. Unconditional: all five "
            "modalities agree.",
            f"Nearest: {number}. Gaussian of the aggregate posterior: the full covariance of the encodings in the "
            "place of the learned prior's, the conditional's mean or a draw. Where that mean has the digits and the "
            "draw has not, the dependence is there but its scatter is wide; where the learned prior has less than the "
            "draw, the prior or its mask loses it.",
        ],
    )
