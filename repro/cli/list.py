"""The command ``repro list``, and what ``repro`` says when nothing is asked of it."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from repro.artifacts import render as a
from repro.artifacts.inventory import Artifact, find_paper
from repro.datasets.card import card_names, load_card
from repro.engine.store import figures_root
from repro.records import PROFILES, SHOWN
from repro.report.text import columns

__all__ = ["list_artifacts", "welcome"]

MOST_COLUMNS = 100  # of a terminal
KINDS = {"T": "table", "S": "settings", "F": "figure", "Q": "samples", "D": "drawing", "X": "none"}

WELCOME = """\
repro regenerates the tables and figures of four papers on multimodal VAEs, beside what was published.

  repro list                           every table and figure: data, cost, and what is recorded
  repro show gmrf-table1               a table as recorded here and as published (and yours, once you have run it)
  repro run gmrf-table1                train, measure and print it; also `make gmrf-table1` in a checkout
  repro run gmrf-table1 --dry-run      what would be run and how long it takes on this machine
  repro weights list                   trained models; in Python, repro.load_model("gmrf_mcvae/copula")
  repro data list                      the datasets, and what each needs
  repro doctor                         what this machine offers
  repro --help                         all commands; `repro COMMAND --help` for each\
"""


def welcome(options: argparse.Namespace) -> None:
    """Prints what one can do next."""
    print(WELCOME)


def list_artifacts(options: argparse.Namespace) -> None:
    """Prints one line for each artifact.

    Raises:
        UsageError: If there is no such paper.
    """
    figures = options.figures or figures_root()
    chosen = [x for x in a.artifacts().values() if options.paper is None or x.paper == find_paper(options.paper)]
    if options.json:
        print(json.dumps([_entry(x, figures) for x in chosen], indent=1))
        return
    head = ("artifact", "kind", "data", "two cores", "state")
    rows = [head, *((x.name, KINDS[x.kind], _data(x), _cost(x), _state(x, _recorded(x, figures))) for x in chosen)]
    print("\n".join(columns(rows, most=MOST_COLUMNS)))


def _recorded(artifact: Artifact, figures: Path) -> list[str]:
    """The profiles whose runs are recorded and drawn."""
    if artifact.kind in "DX" or not artifact.built:
        return []
    done = [p for p in PROFILES if any(a.output_folder(artifact, p, figures).glob(f"{artifact.id}.*"))]
    if artifact.unrecorded:
        done = [p for p in done if not a.is_unrecorded(artifact, p, a.Sources(None, figures))]
    return done


def _state(artifact: Artifact, recorded: Sequence[str]) -> str:
    if artifact.kind == "D":
        return "not computed"
    if artifact.kind == "X":
        return "no public data"
    if set(SHOWN) <= set(recorded):
        return "recorded in every profile"  # by name the three do not fit a line of 100
    if recorded:
        return f"recorded {','.join(recorded)}"
    return "needs your files" if _by_hand() & set(artifact.data) else "ready"


@cache
def _by_hand() -> set[str]:
    """Datasets whose files a person has to place: those with no address, and those that nothing is recorded on."""
    unrecorded = {d for artifact in a.artifacts().values() if artifact.unrecorded for d in artifact.data}
    cards = map(load_card, card_names())
    return unrecorded | {card.name for card in cards if card.manual and not any(s.urls for s in card.sources)}


def _data(artifact: Artifact) -> str:
    if not artifact.data:
        return "-"
    first, *more = artifact.data
    return f"{first} +{len(more)}" if more else first


def _cost(artifact: Artifact) -> str:
    """The paper profile's cost, on two cores and where one was measured on a GPU, without what is said of others."""
    first = re.split("; |, (?!GPU)|, GPU not measured", artifact.cost or "-")[0]
    return first.replace("with ", "as ", 1)


def _entry(artifact: Artifact, figures: Path) -> dict[str, object]:
    recorded = _recorded(artifact, figures)
    return {
        "name": artifact.name,
        "target": artifact.target,
        "kind": KINDS[artifact.kind],
        "title": artifact.title,
        "data": list(artifact.data),
        "cost": artifact.cost,
        "state": _state(artifact, recorded),
        "recorded": recorded,
        "reason": artifact.reason,
        "same_as": artifact.same_as,
    }
