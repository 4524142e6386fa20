"""Yours, recorded, published: when two cells agree, and the joined table in every form."""

from __future__ import annotations

import csv
import io
import json
import math
import random
from statistics import fmean, stdev

import pytest

from repro.report.cells import Cell, Claim, Shown, agreement
from repro.report.joined import Joint, join
from repro.report.plain_tables import PlainTable
from repro.report.tables import Column, Row, RowGroup, Table

COLUMNS = (Column("d", "Dim 1", "lower", group="Uncond."), Column("c", "Coherence", "higher", decimals=3))


def table(*rows: tuple[str, list[float], list[float]], provenance: str = "three seeds") -> Table:
    cells = [
        Row(label, {"d": Cell(2.5, d), "c": Cell(None, c) if c else Cell(None, (), "no weights")})
        for label, d, c in rows
    ]
    floor = Row("Floor", {k: Cell(None, [0.1]) for k in ("d", "c")})
    group = RowGroup("Ablations", [Row("A", {k: Cell(None, [1.0, 1.2]) for k in ("d", "c")})])
    return Table("Table I", provenance, COLUMNS, cells, floors=[floor], groups=[group])


RECORDED = table(("A", [1.0, 1.1, 1.2], [0.5, 0.6, 0.7]), ("B", [2.0, 2.1, 2.2], []))


def joined(recorded: Table | None, yours: Table | None, no_verdict: str = "") -> Joint:
    found = join(*([t] if t is not None else None for t in (recorded, yours)), no_verdict)
    assert found is not None
    return found


def test_agreement_is_two_standard_errors_of_both_means() -> None:
    draw = random.Random(0)
    answers = set()
    for _ in range(300):
        n, m = draw.randint(1, 6), draw.randint(1, 6)
        a, b = ([draw.gauss(mu, s) for _ in range(k)] for mu, s, k in ((0, 1, n), (draw.uniform(-2, 2), 0.5, m)))
        found = agreement(Cell(None, a), Cell(None, b))
        if n == m == 1:
            assert found is None
            continue
        s_a = stdev(a) if n > 1 else stdev(b)
        s_b = stdev(b) if m > 1 else stdev(a)
        assert found == (abs(fmean(a) - fmean(b)) <= 2 * math.sqrt(s_a**2 / n + s_b**2 / m))
        answers.add(found)
    assert answers == {True, False}


def test_agreement_needs_values_on_both_sides() -> None:
    some, none = Cell(1.0, [1.0, 2.0]), Cell(1.0, (), "not run")
    assert agreement(some, none) is agreement(none, some) is agreement(None, some) is agreement(some, None) is None
    assert agreement(some, some) is True
    assert agreement(Cell(None, [2.0, 2.0]), Cell(None, [2.0])) is True
    assert agreement(Cell(None, [2.0, 2.0]), Cell(None, [2.1])) is False


def test_rows_are_joined_by_their_place_and_not_by_their_order() -> None:
    yours = table(("C", [9.0, 9.1], [0.1, 0.2]), ("A", [5.0, 5.1], [0.5, 0.7]), provenance="mine")
    found = joined(RECORDED, yours)
    cells = {(c.block, c.row, c.column): c for c in found.cells}
    one = cells["", "A", "Uncond. Dim 1"]
    assert (one.published, one.recorded.mean, one.yours.mean, one.agrees) == (2.5, pytest.approx(1.1), 5.05, False)
    assert cells["", "A", "Coherence"].agrees is True
    assert cells["", "B", "Uncond. Dim 1"].yours is None
    assert cells["", "C", "Uncond. Dim 1"].recorded is None
    assert ("", "B", "Coherence") not in cells  # nothing published, nothing measured
    assert cells["Ablations", "A", "Coherence"].agrees is True
    assert cells["floors", "Floor", "Coherence"].agrees is None  # one value each


def test_text_ends_in_the_verdict() -> None:
    yours = table(("A", [5.0], [0.5]), ("B", [2.1], [0.3]), provenance="mine")
    lines = joined(RECORDED, yours).to_text().splitlines()
    assert lines[2].split() == ["model", "metric", "published", "recorded", "yours", "agrees"]
    assert lines[3].split("  ")[0] == "A"
    assert "1.10 ± 0.10 (n = 3)" in lines[3]
    assert lines[3].split("  ")[-1].strip() == "no"
    assert "5.00 (n = 1)" in lines[3]
    assert lines[6].split() == ["Coherence", "—", "—", "0.300", "(n", "=", "1)", "—"]
    text = "\n".join(lines)
    assert "Recorded: three seeds" in text
    assert "Yours: mine" in text
    assert (
        "Yours agrees with the recorded value in 2 of 3 cells, within two standard errors: |yours − recorded| ≤" in text
    )
    assert "Not: A, Uncond. Dim 1.\n" in text
    assert lines[-1] == "Its other rows and tables, which `repro show` writes with --csv: 2 of 2."


@pytest.mark.parametrize(("recorded", "yours"), [(RECORDED, None), (None, RECORDED)])
def test_one_side_alone_has_no_verdict(recorded: Table | None, yours: Table | None) -> None:
    found = joined(recorded, yours)
    text = found.to_text()
    assert ("recorded" in text.splitlines()[2]) == (recorded is not None)
    assert "agree" not in text
    assert found.to_dict()["verdict"] is None


def test_single_seeds_and_profiles_without_a_verdict_say_why() -> None:
    lone = table(("A", [1.0], [0.5]))
    assert "cannot be compared: one seed on each side tells of no spread" in joined(lone, lone).to_text()
    found = joined(RECORDED, RECORDED, "No verdict: too short.")
    assert found.to_text().endswith("No verdict: too short.\n")
    assert "agrees" not in found.to_text()
    value = found.to_dict()
    assert (value["verdict"], value["no_verdict"]) == (None, "No verdict: too short.")
    assert {c["agree"] for c in value["cells"]} == {None}


def test_many_that_differ_are_counted() -> None:
    rows = [(f"M{i}", [1.0, 1.1], [0.5, 0.6]) for i in range(9)]
    far = [(label, [9.0, 9.1], [5.0, 5.1]) for label, _, _ in rows]
    text = joined(table(*rows), table(*far)).to_text()
    assert "in 0 of 18 cells" in text
    assert "; and 10 more." in text


def test_every_format_has_every_number() -> None:
    found = joined(RECORDED, table(("A", [5.0, 5.2], [0.5, 0.7])))
    value = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    first = value["cells"][0]
    assert first["recorded"] == {"mean": pytest.approx(1.1), "std": pytest.approx(0.1), "n": 3}
    assert first["yours"] == {"mean": pytest.approx(5.1), "std": pytest.approx(stdev([5.0, 5.2])), "n": 2}
    assert (first["published"], first["agree"]) == (2.5, False)
    assert value["verdict"]["compared"] == sum(c["agree"] is not None for c in value["cells"])
    rows = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert len(rows) == len(value["cells"])
    for row, cell in zip(rows, value["cells"], strict=True):
        assert [row[k] for k in ("table", "block", "row", "column")] == [
            cell[k] for k in ("table", "block", "row", "column")
        ]
        for side in ("recorded", "yours"):
            assert row[f"{side}_mean"] == ("" if cell[side]["mean"] is None else str(cell[side]["mean"]))
            assert int(row[f"{side}_n"]) == cell[side]["n"]
    latex = found.table().to_latex("tab:x")
    assert latex.isascii()
    assert r"1.10 $\pm$ 0.10 (n = 3)" in latex
    assert latex.count("{") == latex.count("}")


def test_tables_of_text_are_joined_by_the_numbers_that_they_carry() -> None:
    def plain(value: float, note: str) -> PlainTable:
        rows = (("beta 1", Shown(f"{value:.1f}", Cell(0.5, [value])), "text"), ("beta 2", "not measured", "text"))
        return PlainTable("Sweep", ("row", "score", "what"), rows, ("a note", note))

    found = join([plain(1.0, "theirs")], [plain(2.0, "mine")])
    assert found is not None
    ((cell),) = found.cells
    assert (cell.row, cell.column, cell.published, cell.yours.mean) == ("beta 1", "score", 0.5, 2.0)
    assert (found.recorded, found.yours) == ("theirs", "mine")
    assert join([PlainTable("t", ("a",), (("1",),))], None) is None


def test_a_table_without_verdict_keeps_its_numbers_and_drops_claims() -> None:
    rows = [
        Row(m, {"d": Cell(p, [v, v + 0.1]), "c": Cell(p, [v, v])}) for m, p, v in (("A", 1.0, 1.0), ("B", 2.0, 2.0))
    ]
    notes = ["N = 10.", Claim("A is better, as was claimed.")]
    with_classifier = Table("Table I", "two seeds", COLUMNS, rows, notes=notes)
    for text in (with_classifier.to_markdown(), with_classifier.to_latex()):
        assert "as was claimed" in text
        assert "Best model as published" in text
    for text in (t for u in [with_classifier.without_verdict("Too short.")] for t in (u.to_markdown(), u.to_latex())):
        assert "N = 10." in text
        assert "Too short." in text
        assert "1.05" in text
        for word in ("claimed", "Best model", "Rank correlation", "†", "dagger", "standard errors"):
            assert word not in text
    plain = PlainTable("t", ("a",), (("1",),), ("kept", Claim("it agrees")))
    assert plain.without_verdict("short").notes == ("kept", "short")
