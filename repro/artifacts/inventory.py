"""Every table and figure of the four papers, and what stands beside them, as their papers state them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path

from repro.engine.store import paper_package
from repro.errors import UsageError
from repro.report.plain_tables import make_command

__all__ = ["KINDS", "PACKAGES", "PAPERS", "Artifact", "artifacts", "find", "nearest"]

PAPERS = {"gmrf_mcvae": "gmrf", "mrf_mvae": "mrf", "sbm_vae": "sbm", "covae": "covae"}  # paper package to Make prefix
# And the networks that the experiments take as given, and the papers' models beside each other.
PACKAGES = PAPERS | {"pretrained": "pretrained", "compare": "compare"}
KINDS = {
    "T": "numeric table",
    "S": "settings, printed from the code",
    "F": "figure",
    "Q": "qualitative samples",
    "D": "drawing, not computed",
    "X": "no public material",
}


@dataclass(frozen=True)
class Artifact:
    """One table or figure of a paper, as its paper's inventory.toml states it.

    Arguments:
        paper: The paper package.
        id: Its id within the paper.
        kind: T, S, F, Q, D or X; see ``KINDS``.
        title: What it shows.
        data: Names of the datasets.
        same_as: The artifact of another paper that prints the same, empty for none.
        built: Whether this package regenerates it yet.
        cost: Time of the paper profile on two cores.
        reason: Why it cannot be computed, for kind X.
        partial: Whether it is rendered as soon as some run has a record, with the other rows saying that they are not
            run: what takes nights is shown as it comes.
        unrecorded: Whether it is rendered without any record too, every cell saying what is missing: its data is placed
            by hand.
    """

    paper: str
    id: str
    kind: str
    title: str
    data: tuple[str, ...] = ()
    same_as: str = ""
    built: bool = False
    cost: str = ""
    reason: str = ""
    unrecorded: bool = False
    partial: bool = False

    @property
    def name(self) -> str:
        """``<paper>/<id>``."""
        return f"{self.paper}/{self.id}"

    @property
    def target(self) -> str:
        """The Make target."""
        return f"{PACKAGES[self.paper]}-{self.id}"

    def command(self, profile: str) -> str:
        """The command that makes it in a profile; without make where there is no checkout."""
        if (Path(__file__).resolve().parents[2] / "Makefile").exists():
            return make_command(self.target, profile)
        return f"repro run {self.target}" + ("" if profile == "paper" else f" --profile {profile}")


@cache
def artifacts() -> Mapping[str, Artifact]:
    """Every artifact of the four papers, of the pretrained networks and of the comparison, by name."""
    found: dict[str, Artifact] = {}
    for paper in PACKAGES:
        text = (files(paper_package(paper)) / "inventory.toml").read_text()
        for entry in tomllib.loads(text)["artifact"]:
            artifact = Artifact(paper, **{**entry, "data": tuple(entry.get("data", ()))})
            found[artifact.name] = artifact
    return found


def nearest(word: str, words: Sequence[str]) -> str:
    """``"; did you mean a or b?"``, or a hint at the list where nothing is near."""
    close = get_close_matches(word, words, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else "; `repro list` shows all"


def find(name: str) -> Artifact:
    """The artifact of a name, ``<paper>/<id>`` or the Make target's ``<prefix>-<id>``.

    Raises:
        UsageError: If there is none; it names the near matches.
    """
    known = artifacts()
    if name in known:
        return known[name]
    for artifact in known.values():
        if artifact.target == name:
            return artifact
    if "/" in name and name.split("/", 1)[0] in PACKAGES:
        paper, word = name.split("/", 1)
        names = [f"{paper}/{i}" for i in [a.id for a in known.values() if a.paper == paper]]
        raise UsageError(f"{paper} has no artifact {word!r}{nearest(name, names)}")
    raise UsageError(f"unknown artifact {name!r}{nearest(name, list(known))}")
