"""Cells, verdicts and both renderings of tables."""

from __future__ import annotations

import math
import re
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import spearmanr

from repro.report.cells import Cell, rank_correlation
from repro.report.tables import Column, Row, RowGroup, Table

COLUMNS = (
    Column("w", "Dim 1", "lower", group="Uncond."),
    Column("c", "Coherence", "higher", decimals=3, group="Uncond."),
    Column("n", "Epochs", decimals=0),
)


def row(label: str, w: Cell, c: Cell, n: float = 5.0) -> Row:
    return Row(label, {"w": w, "c": c, "n": Cell(None, [n] * 3)})


def table(**changes: object) -> Table:
    rows = (
        row("A", Cell(0.7, [0.8, 0.9, 1.0]), Cell(0.869, [0.5, 0.5, 0.5])),
        row("B_1", Cell(2.7, [2.0, 2.5, 3.0]), Cell(0.448, [0.6, 0.7, 0.8])),
        row("C & D", Cell(5.0, [0.1, 0.1, 0.1]), Cell(0.517, reason="no classifier|weights")),
    )
    fields = {"caption": "Table I", "provenance": "profile quick, 3 seeds, commit 0123abc, CPU", "columns": COLUMNS}
    return Table(**{**fields, "rows": rows, "published_seeds": 3, **changes})


def body(markdown: str) -> list[list[str]]:
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [[text.strip() for text in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_cell_statistics() -> None:
    cell = Cell(0.7, np.array([0.8, 0.9, 1.0]))
    assert (cell.n, cell.mean) == (3, pytest.approx(0.9))
    assert cell.std == pytest.approx(np.std([0.8, 0.9, 1.0], ddof=1))
    assert cell.difference == pytest.approx(0.2)
    assert Cell(0.7, [0.8]).std is None
    assert Cell(None, [0.8]).difference is None
    empty = Cell(0.7, reason="no weights")
    assert (empty.mean, empty.std, empty.n, empty.difference, empty.agrees()) == (None, None, 0, None, None)


@pytest.mark.parametrize(("seeds", "variance"), [(None, 1 / 3), (3, 2 / 3), (5, 1 / 3 + 1 / 5)])
def test_agreement_is_within_two_standard_errors(seeds: int | None, variance: float) -> None:
    bound = 2 * 0.1 * math.sqrt(variance)  # the standard deviation of the three values is 0.1
    assert Cell(0.9 - 0.99 * bound, [0.8, 0.9, 1.0]).agrees(seeds) is True
    assert Cell(0.9 + 1.01 * bound, [0.8, 0.9, 1.0]).agrees(seeds) is False
    assert Cell(0.9, [0.9]).agrees(seeds) is None


def test_a_cell_has_values_or_a_reason() -> None:
    for bad in ({}, {"obtained": [1.0], "reason": "x"}, {"published": 1.0}):
        with pytest.raises(ValueError, match="obtained values or a reason"):
            Cell(**bad)
    for bad in ({"obtained": [1.0, math.nan]}, {"published": math.inf, "obtained": [1.0]}):
        with pytest.raises(ValueError, match="not finite"):
            Cell(**bad)


def test_rank_correlation_is_scipys() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        a, b = generator.integers(0, 4, size=(2, 7)).astype(float).tolist()
        assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert rank_correlation([1.0, 2.0], [1.0, 2.0]) is None
    assert rank_correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) is None
    with pytest.raises(ValueError, match="3 and 2 values"):
        rank_correlation([1.0, 2.0, 3.0], [1.0, 2.0])


def test_verdict_of_columns() -> None:
    w, c, n = table().verdict().columns
    assert (w.published_winners, w.obtained_winners, w.same_winner, w.num_rows) == (("A",), ("C & D",), False, 3)
    assert w.rank_correlation == pytest.approx(spearmanr([0.7, 2.7, 5.0], [0.9, 2.5, 0.1]).statistic)
    # The row without a measurement is not compared, and two rows have no rank correlation.
    assert (c.published_winners, c.obtained_winners, c.same_winner, c.num_rows) == (("A",), ("B_1",), False, 2)
    assert c.rank_correlation is None
    assert (n.published_winners, n.same_winner, n.num_rows) == ((), None, 0)


def test_a_winner_among_tied_published_ones_is_the_same() -> None:
    tied = (row("A", Cell(0.995, [3.0]), Cell(None, [0.0])), row("B", Cell(0.995, [2.0]), Cell(None, [0.0])))
    assert table(rows=tied).verdict().columns[0].same_winner is True


def test_verdict_of_cells_covers_every_row() -> None:
    floor = row("Floor", Cell(None, [0.37]), Cell(None, reason="not defined"))
    verdict = table(floors=(floor,), groups=(RowGroup("Ablation", (floor,)),)).verdict()
    assert len(verdict.cells) == 5 * 3
    first = verdict.cells[0]
    assert (first.row, first.column, first.cell.published, first.agrees) == ("A", "w", 0.7, False)
    assert verdict.cells[3].agrees is True


def test_markdown() -> None:
    floor = row("Noise floor", Cell(None, [0.37]), Cell(None, reason="not defined"))
    group = RowGroup("Ablation", (row("A, β = 1", Cell(None, [15.9, 16.0, 16.1]), Cell(None, [0.1] * 3)),))
    text = table(floors=(floor,), groups=(group,), notes=("N = 10,000.",)).to_markdown()
    lines = text.splitlines()
    assert lines[0] == "**Table I**"
    assert lines[2] == "profile quick, 3 seeds, commit 0123abc, CPU"
    rows = body(text)
    assert {len(cells) for cells in rows} == {5}
    assert rows[0] == ["Model", "", "Uncond. Dim 1 ↓", "Uncond. Coherence ↑", "Epochs"]
    assert rows[2] == ["A", "obtained", "0.90 ± 0.10", "0.500 ± 0.000", "5 ± 0"]
    assert rows[3] == ["", "published", "0.7 (+0.20)", "0.869 (−0.369)", "—"]
    assert rows[4] == [r"B\_1", "obtained", "2.50 ± 0.50", "**0.700 ± 0.100**", "5 ± 0"]
    assert rows[5] == ["", "published", "2.7 (−0.20)†", "0.448 (+0.252)", "—"]
    assert rows[6] == ["C & D", "obtained", "**0.10 ± 0.00**", "— [1]", "5 ± 0"]
    assert rows[7] == ["", "published", "5.0 (−4.90)", "0.517", "—"]
    assert rows[8] == ["Noise floor", "obtained", "0.37 (n = 1)", "— [2]", "5 ± 0"]
    assert rows[9] == ["Best model as published", "", "no", "no (2 of 3 rows)", "—"]
    assert rows[10] == ["Rank correlation with published", "", "−0.50", "—", "—"]
    assert rows[11][0] == "*Ablation*"
    assert rows[12] == ["A, β = 1", "obtained", "16.00 ± 0.10", "0.100 ± 0.000", "5 ± 0"]
    assert r"[1] no classifier\|weights" in lines
    assert lines[-1] == "N = 10,000."
    assert any("n = 3 seeds" in line for line in lines)
    assert any("2 s √(1/n + 1/3)" in line for line in lines)


def test_a_small_spread_is_not_printed_as_none() -> None:
    rows = (row("A", Cell(0.7, [0.900, 0.901]), Cell(None, [0.5])), row("B", Cell(2.0, [2.0]), Cell(None, [0.5])))
    assert body(table(rows=rows).to_markdown())[2][2] == "**0.90 ± &lt;0.01 (n = 2)**"


def test_one_measured_row_is_not_bold() -> None:
    rows = (row("A", Cell(0.7, [0.8]), Cell(None, [0.5])), row("B", Cell(2.0, reason="no data"), Cell(None, [0.4])))
    lines = body(table(rows=rows).to_markdown())
    assert lines[2][2:4] == ["0.80", "**0.500**"]
    assert not any("Rank correlation" in cells[0] for cells in lines)


def test_latex() -> None:
    text = table(notes=("100% & more",)).to_latex("tab:one")
    lines = text.splitlines()
    assert r"\caption{Table I. profile quick, 3 seeds, commit 0123abc, CPU}" in lines
    assert r"\label{tab:one}" in lines
    assert r"\begin{tabular}{llrrr}" in lines
    assert r" &  & \multicolumn{2}{c}{Uncond.} & \multicolumn{1}{c}{} \\" in lines
    assert r"\cmidrule(lr){3-4}" in lines
    assert r"Model &  & Dim 1 $\downarrow$ & Coherence $\uparrow$ & Epochs \\" in lines
    assert r"B\_1 & obtained & 2.50 $\pm$ 0.50 & \textbf{0.700 $\pm$ 0.100} & 5 $\pm$ 0 \\" in lines
    assert r" & published & 2.7 ($-$0.20)$^{\dagger}$ & 0.448 (+0.252) & --- \\" in lines
    assert r"C \& D & obtained & \textbf{0.10 $\pm$ 0.00} & --- {[}1] & 5 $\pm$ 0 \\" in lines
    assert r"100\% \& more\par" in lines
    cells = [line for line in lines if line.endswith(r"\\") and "multicolumn" not in line]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in cells} == {4}
    assert text.count("{") == text.count("}")
    assert text.isascii()
    assert table().to_latex().count(r"\label") == 0


def test_markdown_escapes_outside_of_code_alone() -> None:
    text = table(
        caption="a_b | `repro data fetch x_y` and `c_d`", notes=["`make a_b` or a lone ` before c_d"]
    ).to_markdown()
    assert r"**a\_b \| `repro data fetch x_y` and `c_d`**" in text
    assert r"`make a\_b` or a lone ` before c\_d" in text


def test_latex_escapes_every_special_character() -> None:
    text = table(caption="a\\b ~ ^ {x} #1 $5 <2| −1 × β²").to_latex()
    expected = (
        r"a\textbackslash{}b \textasciitilde{} \textasciicircum{} \{x\} \#1 \$5 $<$2\textbar{} $-$1 $\times$ "
        r"$\beta$$^{2}$"
    )
    assert expected in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"provenance": " "}, "provenance"),
        ({"caption": ""}, "caption"),
        ({"rows": ()}, "rows is empty"),
        ({"columns": (*COLUMNS, COLUMNS[0])}, "columns repeat \\['w'\\]"),
        ({"rows": table().rows * 2}, "rows repeat \\['A', 'B_1', 'C & D'\\]"),
        ({"columns": COLUMNS[:2]}, "row 'A': cells"),
        ({"groups": (RowGroup("Ablation", ()),)}, "Ablation is empty"),
    ],
)
def test_bad_tables_are_named(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        table(**changes)


def test_bad_columns_are_named() -> None:
    with pytest.raises(ValueError, match="better is 'less'"):
        Column("w", "W", "less")
    with pytest.raises(ValueError, match="decimals is -1"):
        Column("w", "W", decimals=-1)


def test_tables_import_without_torch() -> None:
    code = "import sys, repro.report.tables; sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'scipy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
