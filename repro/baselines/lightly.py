"""multivae with each model and dataset imported when it is asked for, instead of all with whatever one of them needs.

Importing any part of multivae imports all its models and datasets, and with them scipy.stats, nltk, scikit-learn,
pandas, matplotlib and torchvision: 330 MB and 3 s, which the models here do without. Importing this module first puts
that off; what there is and how it is named stays the same.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import InspectLoader, Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

__all__ = ["PACKAGES"]

PACKAGES = ("multivae.data.datasets", "multivae.models")


def _origins(text: str) -> dict[str, str]:
    """Name to the submodule that a package takes it from; empty for a package that does anything else."""
    found: dict[str, str] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
            if any(alias.asname is not None or alias.name == "*" for alias in node.names):
                return {}
            found |= {alias.name: node.module for alias in node.names}
        elif not isinstance(node, ast.Expr | ast.Assign):
            return {}
    return found


class _Loader(Loader):
    """Makes a package that imports what is asked of it from where its own file would."""

    def __init__(self, origins: dict[str, str]) -> None:
        self.origins = origins

    def exec_module(self, module: ModuleType) -> None:
        def attribute(name: str) -> Any:
            if name not in self.origins:
                raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
            value = getattr(import_module(f"{module.__name__}.{self.origins[name]}"), name)
            setattr(module, name, value)
            return value

        offered = list(self.origins)
        vars(module).update(__getattr__=attribute, __all__=offered, __dir__=lambda: sorted({*vars(module), *offered}))


class _Finder(MetaPathFinder):
    """Finds the packages that are put off; one of another shape, in another version, is imported as it is."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in PACKAGES:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, InspectLoader):
            origins = _origins(spec.loader.get_source(fullname) or "")
            spec.loader = _Loader(origins) if origins else spec.loader
        return spec


sys.meta_path.insert(0, _Finder())
