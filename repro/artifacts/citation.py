"""What to cite: BibTeX of the paper, of the data and of this package."""

from __future__ import annotations

from collections.abc import Sequence

from repro import __version__
from repro.datasets.card import card_names, load_card
from repro.papers import paper as paper_of

__all__ = ["bibtex"]


def bibtex(papers: str | Sequence[str], datasets: Sequence[str], commit: str, *, classic: bool = False) -> str:
    """BibTeX entries of papers, of datasets, and of this package, each once.

    Arguments:
        papers: Paper packages; the pretrained networks' has no paper.
        datasets: Names of datasets; those without a card are left out.
        commit: What is stated beside the package's version, empty for nothing.
        classic: Whether the package is a ``@misc``, which every style knows, instead of biblatex's ``@software``.
    """
    entries: dict[str, str] = {}
    for paper in [papers] if isinstance(papers, str) else papers:
        source = paper_of(paper).folder / "citation.bib"
        if source.is_file():
            text = source.read_text(encoding="utf-8")
            entries[text.split("{", 1)[1].split(",", 1)[0]] = text
    for dataset in datasets:
        if dataset in card_names():
            # A synthetic dataset's citation may be the paper itself.
            entries |= {k: e for k, e in load_card(dataset).citations.items() if k not in entries}
    note = f"version {__version__}" + (f", commit {commit}" if commit else "")
    kind, stated = ("misc", "howpublished = {Software}") if classic else ("software", f"version = {{{__version__}}}")
    own = (
        f"@{kind}{{repro,\n  title = {{repro: structured latent spaces of multimodal VAEs, reproduced}},\n"
        f"  author = {{{{The repro authors}}}},\n  year = {{2026}},\n  {stated},\n  note = {{{note}}}\n}}"
    )
    return "\n\n".join([*(e.strip() for e in entries.values()), own]) + "\n"
