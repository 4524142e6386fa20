"""What to cite: BibTeX of the paper, of the data and of this package."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from repro import __version__
from repro.datasets.card import card_names, load_card
from repro.inventory import ROOMS, artifacts, find
from repro.runs import git, room_package

__all__ = ["bibtex", "cite"]


def cite(name: str) -> str:
    """BibTeX of the paper, of the datasets used, and of this package with its version and commit.

    Arguments:
        name: A paper, an artifact or published weights, such as ``"gmrf_mcvae"``, ``"gmrf_mcvae/table1"`` or
            ``"gmrf_mcvae/copula"``.

    Raises:
        UsageError: If there is no such paper, artifact or model.
    """
    commit = git("rev-parse", "--short", "HEAD") or ""
    if name in ROOMS:
        used = {d for a in artifacts().values() if a.paper == name for d in a.data}
        return bibtex(name, sorted(used), commit)
    from repro.hub_models import models

    if name in models():
        spec = models()[name].spec()
        return bibtex(spec.paper, [spec.dataset], commit)
    artifact = find(name)
    return bibtex(artifact.paper, artifact.data, commit)


def bibtex(papers: str | Sequence[str], datasets: Sequence[str], commit: str) -> str:
    """BibTeX entries of papers, of datasets, and of this package, each once.

    Arguments:
        papers: Rooms; the pretrained networks' has no paper.
        datasets: Names of datasets; those without a card are left out.
        commit: What is stated beside the package's version, empty for nothing.
    """
    entries: dict[str, str] = {}
    for paper in [papers] if isinstance(papers, str) else papers:
        source = files(room_package(paper)) / "citation.bib"
        if source.is_file():
            text = source.read_text(encoding="utf-8")
            entries[text.split("{", 1)[1].split(",", 1)[0]] = text
    for dataset in datasets:
        if dataset in card_names():
            # A synthetic dataset's citation may be the paper itself.
            entries |= {k: e for k, e in load_card(dataset).citations.items() if k not in entries}
    note = f"version {__version__}" + (f", commit {commit}" if commit else "")
    own = (
        "@software{repro,\n  title = {repro: structured latent spaces of multimodal VAEs, reproduced},\n"
        "  author = {{The repro authors}},\n  year = {2026},\n"
        f"  version = {{{__version__}}},\n  note = {{{note}}}\n}}"
    )
    return "\n\n".join([*(e.strip() for e in entries.values()), own]) + "\n"
