r"""LaTeX of tables: one float for each, at most as wide as the text, for documents with booktabs and graphicx."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["HEADER", "escaped", "floating"]

# The first line of every file: what the document's preamble needs.
HEADER = r"% Needs \usepackage{booktabs,graphicx} in the preamble." + "\n"

_SYMBOLS = "−±×·≤≥≈√↓↑→†²<>αβγδελμρστ"
_COMMANDS = (
    r"- \pm \times \cdot \leq \geq \approx \surd \downarrow \uparrow \to ^{\dagger} ^{2} < >"
    r" \alpha \beta \gamma \delta \varepsilon \lambda \mu \rho \sigma \tau"
)
_ESCAPES = str.maketrans(
    {symbol: f"${command}$" for symbol, command in zip(_SYMBOLS, _COMMANDS.split(" "), strict=True)}
    | {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}"}
    | {"—": "---", "[": "{[}", "*": "{*}"}  # "[" and "*" at the start of a line would be read as arguments of \\
)


def escaped(text: str) -> str:
    """Text with its white space folded, its special characters escaped and its symbols as commands."""
    return " ".join(text.split()).translate(_ESCAPES)


def floating(
    caption: str, label: str | None, columns: str, body: Sequence[str], notes: Sequence[str], tallest: float = 0.6
) -> str:
    r"""A ``table`` environment, ending in a newline; one that is wider than the text or too tall is scaled down.

    Arguments:
        caption: In LaTeX.
        label: The key for ``\ref``; no label if None.
        columns: The columns' alignments.
        body: Lines between the outer rules.
        notes: Paragraphs below, in LaTeX.
        tallest: What the tabular may take of the text's height, which the caption and the notes share.
    """
    lines = [r"\begin{table}[t]", r"\centering", rf"\caption{{{caption}}}"]
    lines += [] if label is None else [rf"\label{{{label}}}"]
    lines += [r"\setbox0=\hbox{%", rf"\begin{{tabular}}{{{columns}}}", r"\toprule", *body, r"\bottomrule"]
    lines += [r"\end{tabular}}%", r"\ifdim\wd0>\linewidth\setbox0=\hbox{\resizebox{\linewidth}{!}{\usebox0}}\fi"]
    height = rf"{tallest:g}\textheight"
    lines.append(rf"\dimen0=\ht0\advance\dimen0\dp0\ifdim\dimen0>{height}\resizebox*{{!}}{{{height}}}{{\usebox0}}%")
    lines.append(r"\else\usebox0\fi")
    if notes:
        lines += [r"\par\smallskip", r"\begin{minipage}{\linewidth}\footnotesize\sloppy"]
        lines += [note + r"\par" for note in notes]
        lines.append(r"\end{minipage}")
    return "\n".join([*lines, r"\end{table}"]) + "\n"
