"""Tables that repeat another paper's have their own paper's names, numbers and Make targets, from committed records."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from repro.artifacts.inventory import artifacts, find
from repro.artifacts.render import Sources, contents, renamed, tables
from repro.records import Record, RunSpec

FIGURES = Path(__file__).resolve().parents[2] / "figures"
SOURCES = Sources(None, FIGURES)
CASES = [("table1", "quick", 1, "II"), ("table1", "overnight", 1, "II"), ("table2", "paper", 2, "I")]
CASES += [("table3", "paper", 3, "IV")]


@pytest.mark.parametrize(("id", "profile", "number", "numeral"), CASES)
def test_a_repeated_table_is_wholly_its_own_paper_s(id: str, profile: str, number: int, numeral: str) -> None:
    artifact = find(f"mrf_mvae/{id}")
    found = tables(artifact, profile, SOURCES)
    text = "\n".join(t.to_markdown() for t in found).replace("\\_", "_")
    title = re.compile(r"^\*\*(Table \w+)", re.MULTILINE)
    assert set(title.findall(text)) == {f"Table {number}"}
    shared = f"GMRF MCVAE's Table {numeral} ({artifact.same_as}), where MRF MVAE is called GMRF MCVAE."
    assert text.count(shared) == 1
    rest = [line for line in text.replace(shared, "").splitlines() if "GMRF MCVAE and MRF MVAE print" not in line]
    assert not [line for line in rest if "GMRF MCVAE" in line or re.search(r"Table [IVX]+\b|section -", line)]
    assert f"make {find(artifact.same_as).target} " not in text
    original = "\n".join(t.to_markdown() for t in tables(find(artifact.same_as), profile, SOURCES))
    assert re.findall(r"errat\w+ \w+", text) == re.findall(r"errat\w+ \w+", original)
    assert [n.cell.mean for t in found for n in t.numbers()] == [
        n.cell.mean for t in tables(find(artifact.same_as), profile, SOURCES) for n in t.numbers()
    ]


def test_what_is_not_run_is_asked_for_under_its_own_target() -> None:
    def lookup(spec: RunSpec) -> Record | None:
        return SOURCES.record(spec) if spec.method == "gmrf_mcvae" else None

    found = contents(find("mrf_mvae/table1"), "quick", lookup, SOURCES.samples)["md"]
    assert "not run: make mrf-table1 PROFILE=quick" in str(found)


def test_other_papers_tables_keep_their_texts() -> None:
    own = [a for a in artifacts().values() if a.built and not a.same_as]
    assert all(renamed(a) == {} for a in own)
    assert renamed(find("mrf_mvae/fig3")) == {"GMRF MCVAE": "MRF MVAE"}
    (table,) = (a for a in own if a.name == "gmrf_mcvae/table1")
    assert all("are shared with" not in n for t in tables(table, "paper", SOURCES) for n in t.notes)
