"""The command ``repro cite``: BibTeX of a paper, artifact or model, its data and this package."""

from __future__ import annotations

import argparse

from repro.hub.cite import cite

__all__ = ["print_citations"]


def print_citations(options: argparse.Namespace) -> None:
    """Prints the entries."""
    print(cite(options.id, classic=not options.biblatex), end="")
