"""The command ``repro new method``: one file to begin with."""

from __future__ import annotations

import argparse
import keyword
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from repro.artifacts import render as a
from repro.errors import UsageError
from repro.methods.source import NAME

__all__ = ["new_method"]

TABLE = "gmrf-table1"


def new_method(options: argparse.Namespace) -> None:
    """Writes ``NAME.py``, a commented model that runs at once: the command ``repro new method``.

    Raises:
        UsageError: If it is no name, a module or a method of the table has it, or there is such a file.
    """
    name = options.name.removesuffix(".py")
    if not name.isidentifier() or keyword.iskeyword(name) or not NAME.fullmatch(name):
        raise UsageError(f"{options.name!r} is no name of a Python module; letters, digits and '_', a letter first")
    if name in {s.method for s in a.unique(a.plan(a.find(TABLE), "quick"))}:
        raise UsageError(f"{TABLE} has a method {name!r}; take another name")
    if not Path(f"{name}.py").exists() and find_spec(name) is not None:
        raise UsageError(f"there is a module {name!r} already, which {name}.py would hide; take another name")
    path = Path(f"{name}.py")
    text = (files("repro.methods") / "template.py").read_text(encoding="utf-8")
    try:
        with open(path, "x", encoding="utf-8") as handle:
            handle.write(text.replace("FILE", path.name).replace("NAME", name))
    except FileExistsError:
        raise UsageError(f"{path} is there already; nothing was written") from None
    print(f"{path}\nrepro run {TABLE} --profile quick --method {name}={path}:build")
