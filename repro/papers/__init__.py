"""The papers, one package each, found by their paper.toml.

A paper.toml states the paper's Make prefix, every table and figure (``[[artifact]]``), every published number
(``[published.<artifact>]``), every claim (``[[claim]]``) and the chosen betas (``[betas]``). Another distribution adds
papers by an entry point of the group ``repro.papers``, which names the package that their folders lie in; they are
papers as the others are, imported as ``repro.papers.<name>``.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from inspect import getmembers, isabstract, isclass, isfunction
from pathlib import Path
from typing import Any

from repro.errors import UsageError
from repro.experiment import Experiment, Rendering, Rows
from repro.records import RunSpec

__all__ = ["Paper", "experiment_of", "paper", "papers"]

# How a module names an artifact that it makes; found in the text, so that nothing is imported to list what there is.
DECLARED = re.compile(r"^@artifact\(\s*\"([\w-]+)\"", re.MULTILINE)
MODULES = ("tables.py", "figures.py")


@dataclass(frozen=True)
class Paper:
    """One paper package.

    Arguments:
        name: Its name below ``repro.papers``.
        folder: Where it lies.
    """

    name: str
    folder: Path

    @property
    def package(self) -> str:
        """Its dotted name."""
        return f"repro.papers.{self.name}"

    @cached_property
    def stated(self) -> Mapping[str, Any]:
        """What its paper.toml states."""
        return tomllib.loads((self.folder / "paper.toml").read_text(encoding="utf-8"))

    @property
    def title(self) -> str:
        """Of the publication; empty for a package of experiments that no publication describes."""
        return self.stated["paper"].get("title", "")

    @property
    def prefix(self) -> str:
        """Of its Make targets and short names."""
        return self.stated["paper"]["prefix"]

    @property
    def order(self) -> int:
        """Its place in lists."""
        return self.stated["paper"].get("order", 100)

    @property
    def published(self) -> Mapping[str, Any]:
        """Artifact's id to its published table."""
        return self.stated.get("published", {})

    @property
    def betas(self) -> Mapping[str, Any]:
        """The weights of the KL term that sweeps on held-out data chose, by experiment."""
        return self.stated.get("betas", {})

    @cached_property
    def modules(self) -> Mapping[str, str]:
        """Artifact's id to the module that makes it, from the modules' text."""
        found = {}
        for path in sorted(self.folder.glob("*/*.py")):
            if path.name in MODULES:
                module = f"{self.package}.{path.parent.name}.{path.stem}"
                found |= dict.fromkeys(DECLARED.findall(path.read_text(encoding="utf-8")), module)
        return found

    @cached_property
    def experiments(self) -> tuple[Experiment, ...]:
        """Its experiments, of all its folders."""
        found: list[Experiment] = []
        for path in sorted(self.folder.glob("*/experiment.py")):
            module = import_module(f"{self.package}.{path.parent.name}.experiment")
            classes = [c for _, c in getmembers(module, isclass) if c.__module__ == module.__name__]
            found += [c() for c in classes if issubclass(c, Experiment) and not isabstract(c)]
        return tuple(found)

    def rendering(self, id: str) -> Rendering:
        """How an artifact is made.

        Raises:
            KeyError: If no module makes it.
        """
        module = import_module(self.modules[id])
        for _, function in getmembers(module, isfunction):
            if function.__module__ == module.__name__ and id in getattr(function, "renderings", {}):
                return function.renderings[id]
        raise KeyError(id)

    def plan(self, id: str, profile: str, seeds: int | None = None) -> Rows:
        """The runs that an artifact needs, by row.

        Raises:
            KeyError: If no module makes it.
            NoProfileError: If its experiment has no settings of the profile.
        """
        return self.rendering(id).runs(profile, seeds)


@cache
def _installed() -> None:
    """Adds to this package's path what other distributions name."""
    for entry in entry_points(group="repro.papers"):
        spec = find_spec(entry.value)
        for folder in (spec and spec.submodule_search_locations) or ():
            if folder not in __path__:
                __path__.append(folder)


def papers() -> Mapping[str, Paper]:
    """Every paper by name, in the order that they state."""
    _installed()
    found = [p for root in __path__ for p in _below(root)]
    return {p.name: p for p in sorted(found, key=lambda p: (p.order, p.name))}


@cache
def _below(root: str) -> tuple[Paper, ...]:
    return tuple(Paper(p.parent.name, p.parent) for p in sorted(Path(root).glob("*/paper.toml")))


def paper(name: str) -> Paper:
    """The paper package of a name.

    Raises:
        UsageError: If there is none.
    """
    if (found := papers().get(name)) is None:
        raise UsageError(f"no paper package {name!r}; one of {', '.join(papers())}")
    return found


def experiment_of(spec: RunSpec) -> Experiment:
    """The experiment that a run belongs to; a method's of a reader's own is that of its table, with another model.

    Raises:
        UsageError: If its paper is unknown or has no such experiment.
    """
    from repro.methods.experiment import MethodExperiment
    from repro.methods.runs import is_method, measured_as

    for experiment in paper(spec.paper).experiments:
        if experiment.owns(measured_as(spec)):
            return MethodExperiment(experiment) if is_method(spec) else experiment
    raise UsageError(f"{spec.paper} has no experiment on {spec.dataset!r}")
