"""What to cite of a paper, an artifact or published weights."""

from __future__ import annotations

from repro.artifacts.citation import bibtex
from repro.artifacts.inventory import artifacts, find, find_paper
from repro.engine.environment import git
from repro.hub.registry import models
from repro.papers import papers

__all__ = ["cite"]


def cite(name: str, *, classic: bool = True) -> str:
    """BibTeX of the paper, of the datasets used, and of this package with its version and commit.

    Arguments:
        name: A paper, an artifact or published weights, such as ``"gmrf_mcvae"`` or ``"gmrf"`` for short,
            ``"gmrf_mcvae/table1"`` or ``"gmrf_mcvae/copula"``.
        classic: Whether this package is a ``@misc``, which every style knows, instead of biblatex's ``@software``.

    Raises:
        UsageError: If there is no such paper, artifact or model.
    """
    commit = git("rev-parse", "--short", "HEAD") or ""
    if any(name in (p.name, p.prefix) for p in papers().values()):
        paper = find_paper(name)
        used = {d for a in artifacts().values() if a.paper == paper for d in a.data}
        return bibtex(paper, sorted(used), commit, classic=classic)
    if name in models():
        spec = models()[name].spec()
        return bibtex(spec.paper, [spec.dataset], commit, classic=classic)
    artifact = find(name)
    return bibtex(artifact.paper, artifact.data, commit, classic=classic)
