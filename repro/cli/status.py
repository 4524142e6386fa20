"""The command ``repro status``: what an artifact's runs are doing."""

from __future__ import annotations

import argparse

from repro.artifacts import render as a
from repro.engine.status import states, summary
from repro.engine.store import RunStore, default_runs_root

__all__ = ["show_status"]


def show_status(options: argparse.Namespace) -> None:
    """Prints where the runs of an artifact stand: the command ``repro status``.

    Raises:
        UsageError: If there is no such artifact, or it needs no runs.
    """

    artifact = a.find(options.id)
    specs = a.unique(a.plan(artifact, a.check_profile(options.profile), options.seeds, options.precision or "auto"))
    found = states(specs, RunStore(options.runs or default_runs_root()))
    for x in found:
        if x.state != "done" or options.all:
            said = "; ".join(text for text in (x.detail, x.log) if text)
            print(f"{x.spec.key}  {x.state:8s} {x.spec.label:56s} {said}".rstrip())
    print(f"{artifact.name}, profile {options.profile}: {summary(found)}")
