"""The command ``repro claims``: each claim of the papers, its evidence and its verdict."""

from __future__ import annotations

import argparse
import json
import textwrap

from repro.artifacts.claims import Verdict, all_verdicts, counts
from repro.engine.store import figures_root

__all__ = ["print_claims"]

WIDTH = 100


def print_claims(options: argparse.Namespace) -> None:
    """Prints every claim with its verdict, from recorded runs.

    Raises:
        UsageError: If there is no such paper.
    """
    verdicts = all_verdicts(options.figures or figures_root(), options.paper)
    if options.json:
        print(json.dumps([_entry(v) for v in verdicts], indent=1))
        return
    for v in verdicts:
        print(f"{v.verdict.upper():13s} {v.claim.name}")
        _wrapped(v.claim.text + f" ({v.claim.place})")
        if v.evidence:
            published = f"; published {v.published}" if v.published else ""
            runs = f" [{v.artifact}, {v.profile}, {v.seeds or 'no'} seed{'s' * (v.seeds != 1)}]" if v.profile else ""
            _wrapped(f"evidence: {'; '.join(v.evidence)}{published}{runs}")
        if v.reasons:
            _wrapped(f"because: {'; '.join(v.reasons)}")
        print()
    print(counts(verdicts))


def _wrapped(text: str) -> None:
    print(textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False))


def _entry(v: Verdict) -> dict[str, object]:
    return {
        "claim": v.claim.name,
        "text": v.claim.text,
        "place": v.claim.place,
        "headline": v.claim.headline,
        "verdict": v.verdict,
        "reasons": list(v.reasons),
        "evidence": list(v.evidence),
        "published": v.published,
        "artifact": v.artifact,
        "profile": v.profile,
        "seeds": v.seeds,
    }
