"""The errata, read from the table of their page."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = "docs/errata.md"


def table(root: Path) -> tuple[str, list[list[str]]]:
    """What stands before the table, and its rows: number, place, what is wrong, what is done here, tests."""
    text = (root / PAGE).read_text(encoding="utf-8")
    head, _, body = text.partition("\n|")
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in ("|" + body).splitlines() if line.startswith("|")]
    return head.strip(), [[cell.strip() for cell in line] for line in lines[2:]]


def rows(root: Path) -> list[tuple[str, str, str]]:
    """Of every erratum its number, its place, and all of its text."""
    return [(row[0], row[1], " ".join(row)) for row in table(root)[1]]


def page(root: Path) -> str:
    """The page: a heading with an anchor for every erratum, so that each can be linked."""
    head, found = table(root)
    lines = [head, "", " ".join(f"[{row[0]}](#{row[0].lower()})" for row in found), ""]
    for number, where, wrong, here, test in found:
        lines += [f"({number.lower()})=", f"## {number}: {where}", ""]
        lines += [f"**In print:** {wrong}{'' if wrong.endswith('.') else '.'}", ""]
        lines += [f"**Here:** {here}{'' if here.endswith('.') else '.'}", "", f"Backed by {test}.", ""]
    return "\n".join(lines)
