"""What is printed where the terminal has no such character: ASCII and Latin-1 get words of the same meaning."""

from __future__ import annotations

import codecs
import io
import sys
import unicodedata

__all__ = ["plain", "use_plain_characters"]

_PLAIN = {
    "−": "-",
    "–": "-",
    "—": "--",
    "±": "+-",
    "×": "x",
    "·": "*",
    "≤": "<=",
    "≥": ">=",
    "≠": "!=",
    "≈": "~",
    "√": "sqrt ",
    "↓": "(lower is better)",
    "↑": "(higher is better)",
    "→": "->",
    "†": "+",
    "²": "^2",
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
    "…": "...",
}


def plain(text: str) -> str:
    """The text in ASCII: signs as above, Greek letters by name, others without their accents or as question marks."""
    return "".join(character if character.isascii() else _of(character) for character in text)


def _of(character: str) -> str:
    if character in _PLAIN:
        return _PLAIN[character]
    name = unicodedata.name(character, "")
    if name.startswith(("GREEK SMALL LETTER ", "GREEK CAPITAL LETTER ")):
        letter = name.split(" LETTER ")[1].split()[0]
        return letter.lower() if " SMALL " in name else letter.capitalize()
    return unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode() or "?"


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return plain(error.object[error.start : error.end]), error.end


def use_plain_characters() -> None:
    """Makes standard output and error write :func:`plain` where their encoding has no such character."""
    codecs.register_error("repro.plain", _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not codecs.lookup(stream.encoding).name.startswith("utf"):
            stream.reconfigure(errors="repro.plain")
