"""The two readings of the paper's "similar" modalities (erratum M7)."""

from __future__ import annotations

from repro.records import RunSpec

__all__ = ["ALIKE", "reading"]

# What the first two modalities, which the paper calls similar, are taken to show: the same image (Table 4's own rows)
# or two images of one digit (rows under it); erratum M7.
ALIKE = {"image": "the same image", "digit": "two images of one digit"}


def reading(spec: RunSpec) -> str:
    """What a run takes the first two modalities to show, one of ``ALIKE``."""
    return spec.params["data"].get("alike", "digit")
