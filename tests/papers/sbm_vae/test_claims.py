"""Evidence for the claims on faces, whose metrics are named by how a row is sampled."""

from __future__ import annotations

import pytest

from repro.papers import paper
from repro.papers.sbm_vae import claims
from repro.papers.sbm_vae.celeba.experiment import FACE_ROWS
from repro.records import Metric, Record
from repro.report.evidence import Evidence


def evidence(table: str, name: str, values: dict[str, float]) -> Evidence:
    """Records of all rows of a table; a row without a value has 50."""
    rows = {}
    for row, specs in paper("sbm_vae").plan(table, "smoke", 2).items():
        named = name.format(how=FACE_ROWS[row][1])
        metrics = [Metric(named, values.get(row, 50.0), "1", 10, "given")]
        rows[row] = [Record(s, metrics, {"commit": "0" * 40}, {}, "0" * 64, 1.0, 1.0) for s in specs]
    return Evidence(f"sbm_vae/{table}", "smoke", rows)


@pytest.mark.parametrize(
    ("function", "table", "name", "row"),
    [
        (claims.best_images, "table2", "test/nothing/{how}/fid/image", "SBM-VAE"),
        (claims.least_lost, "table3", "test/attacked/{how}/drop/attributes", "SBM-VAE-C"),
    ],
)
def test_a_row_of_faces_is_set_against_the_best_other(function, table: str, name: str, row: str) -> None:
    (best,) = function(evidence(table, name, {row: 10.0}))
    assert best.holds
    assert best.seeds == 2
    (worse,) = function(evidence(table, name, {row: 10.0, "MoPoE": 5.0}))
    assert worse.holds is False
    assert "MoPoE" in worse.text
