"""The command ``repro new method``: one file to begin with."""

from __future__ import annotations

import argparse
from importlib.resources import files
from pathlib import Path

from repro.errors import UsageError

__all__ = ["new_method"]


def new_method(options: argparse.Namespace) -> None:
    """Writes ``NAME.py``, a commented model that runs at once: the command ``repro new method``.

    Raises:
        UsageError: If it is no name, or there is such a file.
    """
    name = options.name.removesuffix(".py")
    if not name.isidentifier():
        raise UsageError(f"{options.name!r} is no name of a Python module")
    path = Path(f"{name}.py")
    text = (files("repro.methods") / "template.py").read_text(encoding="utf-8")
    try:
        with open(path, "x", encoding="utf-8") as handle:
            handle.write(text.replace("FILE", path.name).replace("NAME", name))
    except FileExistsError:
        raise UsageError(f"{path} is there already; nothing was written") from None
    print(f"{path}\nrepro run gmrf-table1 --profile quick --method {name}={path}:build")
