"""The command ``repro status``: what an artifact's runs are doing."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import suppress

from repro.artifacts import render as a
from repro.engine.status import states, summary
from repro.engine.store import RunStore, default_runs_root, read_spec
from repro.errors import RecordError
from repro.methods.runs import is_method, protocol
from repro.records import RunSpec

__all__ = ["show_status"]


def show_status(options: argparse.Namespace) -> None:
    """Prints where the runs of an artifact stand: the command ``repro status``.

    Raises:
        UsageError: If there is no such artifact, or it needs no runs.
    """

    artifact = a.find(options.id)
    specs = a.unique(a.plan(artifact, a.check_profile(options.profile), options.seeds, options.precision or "auto"))
    store = RunStore(options.runs or default_runs_root())
    methods = _methods(specs, store)
    found = states([*specs, *(s for own in methods.values() for s in own)], store)
    for x in found:
        if x.state != "done" or options.all:
            said = "; ".join(text for text in (x.detail, x.log) if text)
            print(f"{x.spec.key}  {x.state:8s} {x.spec.label:56s} {said}".rstrip())

    def count(runs: Sequence[RunSpec]) -> str:
        return summary([x for x in found if x.spec in runs])

    for name, own in methods.items():
        print(f"your method {name} in it: {count(own)}")
    print(f"{artifact.name}, profile {options.profile}: {count(specs)}")


def _methods(specs: Sequence[RunSpec], store: RunStore) -> dict[str, list[RunSpec]]:
    """Name of a reader's own method to its runs, begun or submitted, that stand beside a table's."""
    protocols = {protocol(s) for s in specs}
    found: dict[str, list[RunSpec]] = {}
    for path in sorted(store.root.glob("*/*/spec.json")):
        with suppress(RecordError):  # damaged: of a run that it cannot say anything of
            own = read_spec(store, path.parent.name)
            if own is not None and is_method(own) and protocol(own) in protocols:
                found.setdefault(own.method, []).append(own)
    return found
