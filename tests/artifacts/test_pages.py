"""What pages of results are made of: which records each cell follows from."""

from __future__ import annotations

from pathlib import Path

import pytest

from repro.artifacts.pages import Entry, entries, group_of, records_behind
from repro.artifacts.render import Sources
from repro.records import Record

FIGURES = Path(__file__).resolve().parents[2] / "figures"


@pytest.fixture(scope="module")
def found() -> dict[tuple[str, str], Entry]:
    """Every recorded artifact."""
    return {(e.artifact.name, e.profile): e for e in entries(Sources(None, FIGURES))}


def test_a_cell_follows_from_the_records_of_its_own_model_and_of_no_other(found):
    entry = found["gmrf_mcvae/table1", "paper"]
    behind = records_behind(entry)
    labels = {
        "MVAE": "mvae",
        "MMVAE": "mmvae",
        "MoPoE-VAE": "mopoe",
        "MMVAE+": "mmvae_plus",
        "GMRF MCVAE": "gmrf_mcvae",
    }
    caption = entry.tables[0].caption
    for label, method in labels.items():
        records = behind[caption, "", label, "uncond_dim1"]
        assert {r.spec.method for r in records} == {method}
        assert sorted(r.spec.seed for r in records) == [0, 1, 2]
        assert len({group_of(r) for r in records}) == 1
    changed = behind[caption, "GMRF MCVAE with one setting changed", "block-dominant prior", "uncond_dim1"]
    assert [r.spec.params["model"]["prior"] for r in changed] != ["cholesky"]


def test_asking_leaves_the_tables_as_they_were(found):
    entry = found["gmrf_mcvae/table1", "paper"]
    spec = entry.records[0].spec
    before = entry.sources.record(spec)
    records_behind(entry)
    assert entry.sources.record(spec) == before


def test_figures_that_come_with_a_table_have_it(found):
    for key in (("gmrf_mcvae/scaling", "quick"), ("sbm_vae/fig27", "quick")):
        assert found[key].tables, key
        assert "png" in found[key].files


def test_every_rendered_table_is_among_them(found):
    shown = {(e.artifact.paper, e.profile, e.artifact.id) for e in found.values() if e.tables}
    for path in FIGURES.glob("*/**/*.md"):
        if path.parent.name == "records" or path.parent == FIGURES or path.name == "README.md":
            continue
        parts = path.relative_to(FIGURES).parts
        profile = parts[1] if len(parts) == 3 else "paper"
        assert (parts[0], profile, path.stem) in shown, path


def test_records_that_differ_in_their_seeds_alone_are_a_group():
    first, *_ = (FIGURES / "gmrf_mcvae" / "records").glob("*.json")
    record = Record.from_json(first.read_text())
    from dataclasses import replace

    other = replace(record, spec=replace(record.spec, seed=record.spec.seed + 1))
    changed = replace(record, spec=replace(record.spec, method="another"))
    assert group_of(other) == group_of(record) != group_of(changed)
