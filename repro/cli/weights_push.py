"""The commands ``repro weights ship`` and ``push``, for maintainers."""

from __future__ import annotations

import argparse

from repro.engine.store import RunStore, default_runs_root
from repro.errors import UsageError, suggestion
from repro.hub.package import renew_cards, ship_all
from repro.hub.push import collect, push
from repro.hub.registry import models
from repro.weights.folder import check_repo

__all__ = ["push_weights", "ship"]


def _known(names: list[str]) -> None:
    for name in names:
        if name not in models():
            hint = suggestion(name, list(models()), "`repro weights list` and `repro weights missing` show all")
            raise UsageError(f"unknown weights {name!r}; {hint}")


def ship(options: argparse.Namespace) -> None:
    """Copies recorded runs' weights into the package: the command ``repro weights ship``.

    Raises:
        UsageError: If a name is unknown, or none is given.
        ValueError: If a card is asked for of what has none.
        RunError: If a run has no sound record.
    """
    _known(options.names)
    if options.cards:
        print("\n".join(str(p) for p in renew_cards(options.names, figures=options.figures)))
        return
    if not options.names:
        raise UsageError("name the models to ship; --cards alone takes all that ship")
    store = RunStore(options.runs or default_runs_root())
    print("\n".join(str(p) for p in ship_all(options.names, store, figures=options.figures, half=options.half)))


def push_weights(options: argparse.Namespace) -> None:
    """Uploads models with their cards, or says what would go up: the command ``repro weights push``.

    Raises:
        UsageError: If a name is unknown, or the repository is none.
        RunError: If a run that is to go up has no sound record.
        HubError: If the Hub does not take it.
    """
    try:
        check_repo(options.repo, "push")
    except ValueError as error:
        raise UsageError(str(error)) from None
    _known(options.names)
    bundles = collect(options.names, RunStore(options.runs or default_runs_root()), options.figures)
    push(options.repo, bundles, upload=options.yes, onto=options.onto)
