"""What is cited: papers, data and this package, in BibTeX and in CITATION.cff."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from repro import __version__
from repro.artifacts.citation import bibtex
from repro.datasets.card import load_card
from repro.engine.environment import git
from repro.errors import UsageError
from repro.hub.cite import cite
from repro.hub.registry import models
from repro.papers import papers

PAPERS = [p.name for p in papers().values() if p.title]

ROOT = Path(__file__).resolve().parents[2]
FIELDS = {"title", "author", "year"}


def entries(text: str) -> dict[str, str]:
    """Key to entry; fails on unbalanced braces."""
    found = {}
    for entry in re.split(r"\n\n(?=@)", text.strip()):
        match = re.match(r"@\w+\{([^,\s]+),", entry)
        assert match is not None, entry
        assert entry.count("{") == entry.count("}"), entry
        assert set(re.findall(r"^\s*(\w+)\s*=", entry, re.MULTILINE)) >= FIELDS, entry
        found[match[1]] = entry
    assert text.count("@") == len(found), "a key is there twice"
    return found


@pytest.mark.parametrize("name", [*PAPERS, "gmrf_mcvae/table1", "gmrf_mcvae/copula", "gmrf_mcvae/copula-mopoe"])
def test_a_paper_a_table_and_a_model_are_cited(name: str) -> None:
    found = entries(cite(name))
    own = found.pop("repro")
    assert own.startswith("@misc{")  # which classic styles know
    assert f"note = {{version {__version__}" in own
    commit = git("rev-parse", "--short", "HEAD")
    assert commit is None or f"commit {commit}" in own
    paper = name.partition("/")[0]
    text = (ROOT / "repro" / "papers" / paper / "citation.bib").read_text().strip()
    assert text in found.values()
    if "copula" in name or "table1" in name:
        assert set(load_card("copula").citations) <= set(found)


def test_building_blocks_have_no_paper_but_data() -> None:
    found = entries(cite("classifier-polymnist"))
    assert set(load_card("polymnist").citations) <= set(found)
    assert "repro" in found


def test_several_papers_and_datasets_are_cited_once() -> None:
    found = entries(bibtex(list(PAPERS), ["copula", "mnist", "unknown"], ""))
    assert len(found) == len({*found})
    assert "commit" not in found["repro"]
    assert {"oubari2025multicomponent", "lecun1998gradient"} <= set(found)


def test_unknown_names() -> None:
    with pytest.raises(UsageError, match="has no artifact 'tabel1'; did you mean"):
        cite("gmrf_mcvae/tabel1")
    assert "gmrf_mcvae/copula" in models()


def test_the_citation_file_is_valid() -> None:
    """What version 1.2.0 of the format requires, of every part that the file has."""
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    value = yaml.safe_load(text)
    allowed = {"cff-version", "title", "message", "type", "authors", "version", "license", "keywords", "references"}
    assert {"cff-version", "title", "message", "authors"} <= set(value) <= allowed
    assert value["cff-version"] == "1.2.0"
    assert (value["type"], value["license"], str(value["version"])) == ("software", "MIT", __version__)
    assert isinstance(value["keywords"], list)
    assert len(set(value["keywords"])) == len(value["keywords"])
    for part in (value, *value["references"]):
        assert part["authors"]
        assert all(set(a) <= {"name"} or set(a) == {"family-names", "given-names"} for a in part["authors"])
        assert isinstance(part["title"], str)
    for reference in value["references"]:
        assert {"type", "title", "authors"} <= set(reference) <= {"type", "title", "authors", "journal", "year"}
        assert reference["type"] == "article"
        assert isinstance(reference["year"], int)


def test_the_citation_file_names_the_papers_as_bibtex_does() -> None:
    references = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["references"]
    titles = {re.sub(r"[{}]", "", r["title"]).lower() for r in references}
    for paper in PAPERS:
        entry = (ROOT / "repro" / "papers" / paper / "citation.bib").read_text()
        match = re.search(r"title\s*=\s*\{(.*)\}", entry)
        assert match is not None
        assert re.sub(r"[{}]", "", match[1]).lower() in titles
