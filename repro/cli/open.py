"""The command ``repro open``: the documentation site, or a page of your own results, in a browser."""

from __future__ import annotations

import argparse
import os
import sys
import webbrowser
from pathlib import Path

import repro
from repro.artifacts.pages import own_page
from repro.artifacts.results import refusing_damaged_records
from repro.engine.store import RunStore, default_results_root, default_runs_root, write_atomically
from repro.errors import RunError, UsageError

__all__ = ["open_pages"]


def open_pages(options: argparse.Namespace) -> None:
    """Prints the path of the page, and opens it where there is a browser with a window.

    Raises:
        UsageError: If there is neither a site nor a result, and what makes them.
    """

    site = Path(repro.__file__).resolve().parents[1] / "docs" / "_build" / "html" / "index.html"
    what = options.what or ("results" if options.results or not site.exists() else "site")
    if what == "site" and not site.exists():
        raise UsageError("the site is not built; `make docs` builds it in a checkout")
    path = site if what == "site" else _own(options)
    print(path)
    sys.stdout.flush()
    if _has_window():
        webbrowser.open(path.as_uri())


def _own(options: argparse.Namespace) -> Path:
    """Writes the page of your own results into their folder."""

    results = (options.results or default_results_root()).resolve()
    try:
        with refusing_damaged_records():
            text = own_page(results, RunStore(options.runs or default_runs_root()))
    except RunError as error:
        raise UsageError(str(error)) from None
    write_atomically(results / "index.html", text)
    return results / "index.html"


def _has_window() -> bool:
    """Whether a browser would open a window rather than take over the terminal, or fail."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True
