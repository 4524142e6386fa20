"""Where the weights that ship lie."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

__all__ = ["package_folder"]


def package_folder() -> Path:
    """The package's own folder of weights."""
    return Path(str(files("repro.weights")))
