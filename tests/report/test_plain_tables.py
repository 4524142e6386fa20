"""Plain tables as Markdown and LaTeX."""

from __future__ import annotations

import pytest

from repro.report.plain_tables import PlainTable, yes_no

TABLE = PlainTable("Sizes_1", ("Layer", "Units"), (("a|b", "2 × 256"), ("c & d", "50% → 3")), ("Note #1.",))


def test_markdown() -> None:
    assert TABLE.to_markdown() == (
        "**Sizes\\_1**\n\n| Layer | Units |\n| --- | --- |\n| a\\|b | 2 × 256 |\n| c & d | 50% → 3 |\n\n- Note #1.\n"
    )


def test_latex_escapes_and_has_one_line_a_row() -> None:
    lines = TABLE.to_latex("tab:sizes").splitlines()
    assert lines[2:6] == [r"\caption{Sizes\_1}", r"\label{tab:sizes}", r"\setbox0=\hbox{%", r"\begin{tabular}{ll}"]
    assert len(TABLE.to_latex().splitlines()) == len(lines) - 1
    body = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
    assert body == [r"a\textbar{}b & 2 $\times$ 256 \\", r"c \& d & 50\% $\to$ 3 \\"]
    assert r"Note \#1.\par" in lines


def test_column_and_errors() -> None:
    assert TABLE.column("Units") == ("2 × 256", "50% → 3")
    assert (yes_no(True), yes_no(False)) == ("yes", "no")
    with pytest.raises(ValueError, match="Sizes_1: no column 'Kind', one of Layer, Units"):
        TABLE.column("Kind")
    with pytest.raises(ValueError, match=r"has 1 cells for 2 columns"):
        PlainTable("t", ("a", "b"), (("1",),))
