"""Pages that are made when the site is built: results, records, samples, datasets, commands and the API."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import errata
import reference
import results
import samples
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
# Pages that show what a file or folder outside docs/ holds, which readers of the repository are led to.
SHOWN = {
    "README.md": "index.md",
    "data_cards/": "generated/datasets/index.md",
    "figures/README.md": "generated/results/index.md",
    "figures/claims.md": "generated/results/claims.md",
    "figures/targets.md": "generated/targets.md",
    "figures/pretrained/": "generated/results/pretrained.md",
}


def _pages(records: results.Records) -> Iterator[tuple[str, str]]:
    yield from reference.pages(ROOT)
    yield from results.pages(ROOT, records)


def _generate(app: Sphinx) -> None:
    """Writes the pages below ``generated/``, each only where it changed, and removes those that are no more."""
    folder = Path(app.srcdir) / "generated"
    wanted = {}
    records = app.records = results.Records()  # type: ignore[attr-defined]  # written when the build has finished
    for name, text in _pages(records):
        wanted[folder / f"{name}.md"] = text
    for path, text in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for path in folder.rglob("*.md"):
        if path not in wanted:
            path.unlink()


def _relink(app: Sphinx, name: str, source: list[str]) -> None:
    """Makes a page's links to files outside docs/ lead to the site's pages of them, and the table of errata a page."""
    if name == "errata":
        source[0] = errata.page(ROOT)
    up = "../" * name.count("/")
    for file, page in SHOWN.items():
        source[0] = source[0].replace(f"]({up}../{file})", f"]({up}{page})")


_ERRATA = re.compile(r"errat(?:um|a)\s+(?:[EMB]\d+(?:(?:,|\s+and|\s+to)\s+)?)+")


def _link_errata(app: Sphinx, kind: str, name: str, owner: Any, options: Any, lines: list[str]) -> None:
    """Makes the errata that a docstring names links."""
    text = _ERRATA.sub(
        lambda m: re.sub(r"[EMB]\d+", lambda n: f":ref:`{n[0]} <{n[0].lower()}>`", m[0]), "\n".join(lines)
    )
    lines[:] = text.split("\n")


_SIGNATURE = re.compile(r"<dl>\n((?:<dd>.*?</dd>\n)+)</dl>", re.DOTALL)


def _accessible(app: Sphinx, name: str, template: str, context: dict[str, Any], tree: object) -> None:
    """Mends what screen readers stumble over: headings without a level, and lists of parameters that define nothing."""
    found = context.get("furo_navigation_tree", "")
    context["furo_navigation_tree"] = found.replace('role="heading"', 'role="heading" aria-level="2"')

    def lines(match: re.Match[str]) -> str:
        inner = match[1].replace("<dd>", '<span class="sig-line">').replace("</dd>", "</span>")
        return f'<span class="sig-lines">{inner}</span>'

    context["body"] = _SIGNATURE.sub(lines, context.get("body", ""))


def _copy(app: Sphinx, error: Exception | None) -> None:
    """Puts figures, records and the files of the tables beside the pages."""
    if error is not None or app.builder.name != "html":
        return
    out = Path(app.outdir)
    shutil.copytree(ROOT / "repro" / "report" / "assets", out / "_static", dirs_exist_ok=True)
    results.write_files(ROOT, out, app.records)  # type: ignore[attr-defined]
    samples.write(ROOT, out)


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers the extension."""
    code = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    app.add_config_value("site_code", hashlib.sha256(code).hexdigest(), "env")  # another one: every page is read again
    app.connect("builder-inited", _generate)
    app.connect("source-read", _relink)
    app.connect("autodoc-process-docstring", _link_errata)
    app.connect("html-page-context", _accessible, priority=900)  # after the theme's own
    app.connect("build-finished", _copy)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
