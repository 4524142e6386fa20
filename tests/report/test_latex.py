"""LaTeX that a document takes as it is: a float a part, labels of its own, and no wider than the text."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from repro.artifacts.inventory import artifacts
from repro.artifacts.render import latex_label
from repro.cli.main import main
from repro.engine.store import figures_root
from repro.records import PROFILES
from repro.report.latex import HEADER, escaped, floating
from repro.report.plain_tables import PlainTable
from repro.report.tables import latex_parts

FILES = sorted(figures_root().rglob("*.tex"))
LABEL = re.compile(r"\\label\{([^}]*)\}")
DOCUMENT = r"""\documentclass{article}
\usepackage{booktabs,graphicx}
\begin{document}
%s
\end{document}
"""


def compiled(folder: Path, body: str) -> str:
    """The log of a LaTeX run; an error ends it."""
    if shutil.which("pdflatex") is None:
        missing = "NO LATEX HERE: install texlive-latex-base and texlive-latex-recommended"
        (pytest.fail if os.environ.get("REPRO_LATEX") == "required" else pytest.skip)(missing)
    (folder / "all.tex").write_text(DOCUMENT % body, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    for _ in range(2):  # the second one knows the labels of the first
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
        assert done.returncode == 0, done.stdout[-2000:]
    return (folder / "all.log").read_text(errors="replace")


@pytest.mark.slow
def test_every_committed_table_compiles_within_the_width_of_an_article(tmp_path: Path) -> None:
    assert len(FILES) > 40
    for n, path in enumerate(FILES):
        shutil.copyfile(path, tmp_path / f"t{n}.tex")
    log = compiled(tmp_path, "\n".join(rf"\input{{t{n}}}\clearpage" for n in range(len(FILES))))
    assert "multiply" not in log
    assert "undefined" not in log
    assert re.findall(r"Overfull \\hbox.*", log) == []


@pytest.mark.slow
def test_a_wide_and_a_tall_table_are_scaled_and_a_small_one_is_not(tmp_path: Path) -> None:
    wide = PlainTable("Wide", tuple(f"column {n}" for n in range(30)), (tuple("word " * 3 for _ in range(30)),))
    tall = PlainTable("Tall", ("a", "b"), tuple((str(n), "x") for n in range(200)))
    small = PlainTable("Small", ("a", "b"), (("1", "β ± 2 → é"),), ("A note.",))
    log = compiled(tmp_path, latex_parts([wide, tall, small], "tab:x"))
    assert "Overfull" not in log
    assert "Float too large" not in log


def test_labels_are_of_one_file_each() -> None:
    labels = [label for path in FILES for label in LABEL.findall(path.read_text(encoding="utf-8"))]
    assert len(labels) == len(set(labels))
    assert all(
        path.read_text(encoding="utf-8").count(r"\begin{table}") == len(LABEL.findall(path.read_text(encoding="utf-8")))
        for path in FILES
    )
    names = [latex_label(a, profile) for a in artifacts().values() for profile in PROFILES]
    assert len(names) == len(set(names))


def test_the_first_line_names_the_packages() -> None:
    assert HEADER.startswith("% ")
    assert {"booktabs", "graphicx"} <= set(re.findall(r"\w+", HEADER))
    assert all(path.read_text(encoding="utf-8").startswith(HEADER) for path in FILES)


def test_one_part_is_one_float(capsys: pytest.CaptureFixture[str]) -> None:
    whole = (figures_root() / "gmrf_mcvae" / "table1.tex").read_text(encoding="utf-8")
    parts = []
    for n in range(1, whole.count(r"\begin{table}") + 1):
        assert main(["show", "gmrf-table1", "--latex", "--part", str(n)]) == 0
        parts.append(capsys.readouterr().out)
        assert parts[-1].count(r"\begin{table}") == 1
        assert parts[-1].startswith(HEADER)
    assert HEADER + "\n".join(part.removeprefix(HEADER) for part in parts) == whole
    for command, message in (
        (["--latex", "--part", str(len(parts) + 1)], f"gmrf_mcvae/table1 has {len(parts)} parts, --part is 4"),
        (["--latex", "--part", "0"], f"gmrf_mcvae/table1 has {len(parts)} parts, --part is 0"),
        (["--part", "1"], "--part goes with --latex"),
    ):
        assert main(["show", "gmrf-table1", *command]) == 2
        assert capsys.readouterr().err == f"repro: {message}\n"


def test_floats_without_notes_and_labels() -> None:
    text = floating("C", None, "l", ["x"], [])
    assert r"\label" not in text
    assert "minipage" not in text
    assert escaped("β² | a_b — [1]") == r"$\beta$$^{2}$ \textbar{} a\_b --- {[}1]"
