"""What of the real files is at hand."""

from __future__ import annotations

from repro.datasets import load_card
from repro.datasets.places import mirror_root

__all__ = ["at_hand"]


def at_hand(name: str) -> bool:
    """Whether the mirror has every file that a card names with a digest and without a substitute."""
    root = mirror_root()
    card = load_card(name)
    stand_ins = {s.filename.replace(".substitute.", ".") for s in card.sources if s.group == "substitute"}
    needed = [s for s in card.sources if s.hashes and s.filename not in stand_ins]
    return root is not None and bool(needed) and all((root / s.filename).is_file() for s in needed)
