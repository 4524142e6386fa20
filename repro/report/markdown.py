"""Markdown of text in tables and pages."""

from __future__ import annotations

__all__ = ["escaped"]

_ESCAPES = str.maketrans({"|": r"\|", "*": r"\*", "_": r"\_", "<": "&lt;"})


def escaped(text: str) -> str:
    """Text with its white space folded and its special characters escaped, but in code, where that would be shown."""
    parts = " ".join(text.split()).split("`")
    if len(parts) % 2 == 0:  # a backtick without its partner
        return "`".join(parts).translate(_ESCAPES)
    return "`".join(p if i % 2 else p.translate(_ESCAPES) for i, p in enumerate(parts))
