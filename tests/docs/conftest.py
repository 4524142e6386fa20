"""The built site, and a browser that looks at it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests.docs.pages import Page, read

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "docs" / "_build" / "html"


def _missing(what: str) -> None:
    """Skips, but where a browser is required, as in continuous integration, fails."""
    (pytest.fail if os.environ.get("REPRO_BROWSER") == "required" else pytest.skip)(f"{what} is not installed")


@pytest.fixture(scope="session")
def site() -> Path:
    """The site, built as `make docs` does; what has not changed since the last time is not built again."""
    if not shutil.which("sphinx-build") and not _importable("sphinx"):
        _missing("sphinx")
    HTML.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(HTML.parent / "lock"):
        command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-j", "auto", "-b", "html"]
        doctrees = ["-d", str(HTML.parent / "doctrees")]
        done = subprocess.run(
            [*command, *doctrees, str(ROOT / "docs"), str(HTML)],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
    assert done.returncode == 0, done.stderr[-3000:]
    return HTML


def _importable(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None


@pytest.fixture(scope="session")
def pages(site: Path) -> dict[str, Page]:
    """Every page that links lead to from the start page, by its path within the site."""
    return read(site)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    if not _importable("playwright"):
        _missing("playwright")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        _missing("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="session")
def axe() -> str:
    """The script of axe-core, which REPRO_AXE names."""
    path = os.environ.get("REPRO_AXE", "")
    if not Path(path).is_file():
        _missing("axe-core (REPRO_AXE)")
    return Path(path).read_text(encoding="utf-8")
