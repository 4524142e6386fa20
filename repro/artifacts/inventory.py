"""Every table and figure of the four papers, and what stands beside them, as their papers state them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from repro.errors import UsageError, suggestion
from repro.papers import Paper, paper, papers
from repro.report.plain_tables import make_command

__all__ = ["KINDS", "Artifact", "artifacts", "find", "find_paper", "nearest"]

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
    """One table or figure of a paper, as its paper's paper.toml states it.

    Arguments:
        paper: The paper package.
        id: Its id within the paper.
        kind: T, S, F, Q, D or X; see ``KINDS``.
        title: What it shows.
        data: Names of the datasets.
        same_as: The artifact of another paper that prints the same, empty for none.
        cost: Time of the paper profile on two cores, and on a GPU where that was measured; other profiles' after "; ".
        reason: Why it cannot be computed, for kind X.
        partial: Whether it is rendered as soon as some run has a record, with the other rows saying that they are not
            run: what takes nights is shown as it comes.
        unrecorded: Whether it is rendered without any record too, every cell saying what is missing: its data is placed
            by hand.
        readme: Whether the README shows its short form.
    """

    paper: str
    id: str
    kind: str
    title: str
    data: tuple[str, ...] = ()
    same_as: str = ""
    cost: str = ""
    reason: str = ""
    unrecorded: bool = False
    partial: bool = False
    readme: bool = False

    @property
    def name(self) -> str:
        """``<paper>/<id>``."""
        return f"{self.paper}/{self.id}"

    @property
    def target(self) -> str:
        """The Make target."""
        return f"{paper(self.paper).prefix}-{self.id}"

    @property
    def built(self) -> bool:
        """Whether this package makes it: whether some module of its paper declares it."""
        return self.kind not in "DX" and (bool(self.same_as) or self.id in paper(self.paper).modules)

    def command(self, profile: str) -> str:
        """The command that makes it in a profile; with make in the folder of a checkout alone."""
        with suppress(OSError):  # a working directory that is gone
            if (Path(__file__).resolve().parents[2] / "Makefile").samefile("Makefile"):
                return make_command(self.target, profile)
        chosen = "" if profile == "paper" else f" --profile {profile}"
        return f"repro run {self.target}{chosen}" + (" --long" if profile == "overnight" else "")


def artifacts() -> Mapping[str, Artifact]:
    """Every artifact of every paper package, by name."""
    return _artifacts(tuple(papers().values()))


@cache
def _artifacts(packages: tuple[Paper, ...]) -> Mapping[str, Artifact]:
    entries = [(p, e) for p in packages for e in p.stated.get("artifact", ())]
    found = [Artifact(p.name, **{**entry, "data": tuple(entry.get("data", ()))}) for p, entry in entries]
    return {a.name: a for a in found}


def nearest(word: str, words: Sequence[str]) -> str:
    """``"; did you mean a or b?"``, or a hint at the list where nothing is near."""
    return f"; {suggestion(word, words, '`repro list` shows all')}"


def find_paper(word: str) -> str:
    """The paper package of a name, or of the short one of its Make targets, such as ``gmrf``.

    Raises:
        UsageError: If there is none; it names the near matches.
    """
    for package in papers().values():
        if word in (package.name, package.prefix):
            return package.name
    names = list(dict.fromkeys([*papers(), *(p.prefix for p in papers().values())]))
    raise UsageError(f"unknown paper {word!r}{nearest(word, names)}")


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
    if any(name in (p.name, p.prefix) for p in papers().values()):
        raise UsageError(f"{name!r} is a paper, not one of its artifacts; `repro list {name}` shows them")
    if "/" in name and name.split("/", 1)[0] in papers():
        own, word = name.split("/", 1)
        names = [f"{own}/{i}" for i in [a.id for a in known.values() if a.paper == own]]
        raise UsageError(f"{own} has no artifact {word!r}{nearest(name, names)}")
    raise UsageError(f"unknown artifact {name!r}{nearest(name, list(known))}")
