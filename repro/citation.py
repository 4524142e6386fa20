"""What to cite: BibTeX of the paper, of the data and of this package."""

from __future__ import annotations

from importlib.resources import files

from repro import __version__
from repro.artifacts import PAPERS, artifacts, find
from repro.datasets.card import card_names, load_card
from repro.runs import git

__all__ = ["cite"]


def cite(name: str) -> str:
    """BibTeX of the paper, of the datasets used, and of this package with its version and commit.

    Arguments:
        name: A paper or an artifact, such as ``"gmrf_mcvae"`` or ``"gmrf_mcvae/table1"``.

    Raises:
        UsageError: If there is no such paper or artifact.
    """
    if name in PAPERS:
        paper, data = name, sorted({d for a in artifacts().values() if a.paper == name for d in a.data})
    else:
        artifact = find(name)
        paper, data = artifact.paper, list(artifact.data)
    entries = {paper: (files(f"repro.papers.{paper}") / "citation.bib").read_text().strip()}
    for dataset in data:
        if dataset in card_names():
            entries |= load_card(dataset).citations
    commit = git("rev-parse", "--short", "HEAD")
    note = f"version {__version__}" + (f", commit {commit}" if commit else "")
    own = (
        "@software{repro,\n  title = {repro: structured latent spaces of multimodal VAEs, reproduced},\n"
        "  author = {{The repro authors}},\n  year = {2026},\n"
        f"  version = {{{__version__}}},\n  note = {{{note}}}\n}}"
    )
    return "\n\n".join([*(e.strip() for e in entries.values()), own]) + "\n"
