"""Formulas as MathML, made when the site is built: no script, no font and no other host is needed to read them."""

from __future__ import annotations

import re
from html import escape
from typing import Any

from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging

LOG = logging.getLogger(__name__)

_FUNCTION = re.compile(
    r"(\\(?:ln|log|exp|det|min|max|sup|arg))(?![A-Za-z])(?=\s*(?:[A-Za-z0-9|]|\\(?!left|,|;|!|quad|limits|min|max)))"
)
_LIMITS = re.compile(r"(\\(?:sum|prod|min|max|sup))(?=\s*_)")


def _readable(text: str, display: str) -> str:
    """LaTeX as the converter reads it: rows in an environment that it knows, limits under their operators."""
    text = text.replace("{aligned}", "{split}").replace(r"\|", "‖")
    text = re.sub(r"\\arg(?![A-Za-z])", r"\\operatorname{arg}", text)
    text = _FUNCTION.sub(r"\1\\,", text)
    if display == "inline":
        return text
    if re.search(r"(?<!\\)&|\\\\", text) and r"\begin" not in text:
        text = rf"\begin{{split}}{text}\end{{split}}"
    return _LIMITS.sub(r"\1\\limits", text)


def _convert(visitor: Any, node: Any, display: str) -> str:
    text = node.astext()
    try:
        shown = convert(_readable(text, display), display=display)
    except Exception as error:  # whatever a formula that cannot be read raises is a warning of the build
        LOG.warning("formula %r: %s", text, error, location=node)
        shown = f"<code>{escape(text)}</code>"
    if display == "inline":
        return f'<span class="math">{shown}</span>'
    return f'<div class="math-block" tabindex="0" role="region" aria-label="formula">{shown}</div>'


def _inline(self: Any, node: Any) -> None:
    from docutils import nodes

    self.body.append(_convert(self, node, "inline"))
    raise nodes.SkipNode


def _block(self: Any, node: Any) -> None:
    from docutils import nodes

    for part in [p for p in node.astext().split("\n\n") if p.strip()]:
        copy = nodes.math_block(part, part)
        copy.source, copy.line = node.source, node.line
        self.body.append(_convert(self, copy, "block"))
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers the renderer ``mathml``."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
