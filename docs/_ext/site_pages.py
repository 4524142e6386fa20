"""Pages that are made when the site is built: results, records, samples, datasets, commands and the API."""

from __future__ import annotations

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
    app.connect("builder-inited", _generate)
    app.connect("source-read", _relink)
    app.connect("build-finished", _copy)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
