"""The command ``repro show``, and what ``repro run`` ends with: yours beside the recorded and the published results."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from repro.artifacts import render as a
from repro.artifacts.gallery import recorded_seeds
from repro.artifacts.inventory import Artifact
from repro.artifacts.results import Standing, refusing_damaged_records, standing
from repro.engine.store import RunStore, default_results_root, default_runs_root, figures_root
from repro.errors import NotOfferedError, RunError, UsageError
from repro.records import PROFILES
from repro.report.tables import latex_parts

__all__ = ["print_outcome", "show"]

FORMATS = ("latex", "csv", "json")


def _standing(artifact: Artifact, options: argparse.Namespace, figures: Path, **choices: Any) -> Standing:
    return standing(
        artifact,
        options.profile,
        figures=figures,
        store=RunStore(options.runs or default_runs_root()),
        results=options.results or default_results_root(),
        **choices,
    )


def print_outcome(artifact: Artifact, options: argparse.Namespace, paths: Sequence[Path]) -> None:
    """Prints what ``repro run`` ends with: the rendered tables, yours beside the recorded ones, and where they lie."""

    for path in paths:
        if path.suffix == ".md":
            print(path.read_text(encoding="utf-8"))
    if artifact.kind == "T" and a.unique(a.plan(artifact, options.profile)):
        found = _standing(artifact, options, figures_root(), seeds=options.seeds, precision=options.precision)
        if found.joint is not None:
            print(found.joint.to_text())
            for line in _missing(artifact, options.profile, found):
                print(line)
    sys.stdout.flush()
    print("\n".join(str(p) for p in paths), file=sys.stderr)


def _missing(artifact: Artifact, profile: str, found: Standing) -> list[str]:
    """What one of the two sides lacks."""

    lines = []
    if found.recorded is None and profile != "smoke":
        lines.append(
            f"Nothing of {artifact.name} is recorded in the profile {profile}: there is nothing to agree with."
        )
    if found.unfinished:
        lines.append(f"Yours: {found.unfinished}.")
    elif found.yours is None:
        lines.append(f"Yours: none in the profile {profile}; `{artifact.command(profile)}` makes them.")
    return lines


@refusing_damaged_records()
def show(options: argparse.Namespace) -> None:
    """Prints an artifact as it stands: the command ``repro show``.

    Raises:
        UsageError: If there is no such artifact, it has no runs in the profile, yours or recorded, or it is a figure
            and a table's format was asked for.
        RecordError: If a record that is needed is damaged.
    """

    artifact = a.find(options.id)
    profile = a.check_profile(options.profile)
    if options.part is not None and not options.latex:
        raise UsageError("--part goes with --latex")
    figures, results = options.figures or figures_root(), options.results or default_results_root()
    form = next((name for name in FORMATS if getattr(options, name)), None)
    runs = a.unique(a.plan(artifact, profile))  # says why where it is not computed
    files = [p for root in (figures, results) for p in _files(artifact, profile, root)]
    own = [p for folder in sorted((results / "own").glob("*")) for p in _files(artifact, profile, folder)]
    if (artifact.kind != "T" or not runs) and form is None and files:  # as it lies: settings, a table under a figure
        pages = [p for p in files if p.suffix == ".md"]
        if pages:
            print(pages[-1].read_text(encoding="utf-8"))
    elif artifact.kind in "TS":
        found = _standing(artifact, options, figures)
        if found.recorded is None and found.yours is None:
            raise UsageError(_nothing(artifact, profile, found.unfinished, figures, own))
        if form is not None:
            print(_formatted(artifact, profile, found, form, options.part), end="")
            return
        _print(artifact, profile, found)
    elif form is not None:
        raise UsageError(f"{artifact.name} is a figure; --{form} writes tables")
    elif not files:
        raise UsageError(_nothing(artifact, profile, "", figures))
    print("\n".join(str(p) for p in files + own))


def _files(artifact: Artifact, profile: str, root: Path) -> list[Path]:
    return sorted(a.output_folder(artifact, profile, root).glob(f"{artifact.id}.*"))


def _print(artifact: Artifact, profile: str, found: Standing) -> None:
    if found.joint is not None:
        print(found.joint.to_text())
    else:
        for title, tables in (("Recorded", found.recorded), ("Yours", found.yours)):
            if tables:
                print(f"{title}:\n")
                print("\n".join(t.to_markdown() for t in tables))
    if artifact.kind == "T":
        for line in _missing(artifact, profile, found):
            print(line)


def _nothing(artifact: Artifact, profile: str, unfinished: str, figures: Path, own: Sequence[Path] = ()) -> str:
    """Why nothing of an artifact can be shown, and what can be done."""

    if unfinished:
        return f"{artifact.name}, profile {profile}: {unfinished}"
    text = f"{artifact.name} has no runs in the profile {profile}, neither recorded nor yours; "
    text += f"`{artifact.command(profile)}` makes them"
    if tables := [str(p) for p in own if p.suffix == ".md"]:
        text += f"; with your methods alone: {', '.join(tables)}"
    for other in PROFILES:
        with suppress(RunError, NotOfferedError):
            if other != profile and a.unique(a.plan(artifact, other)):
                recorded_seeds(artifact, other, a.Sources(None, figures))
                return f"{text}; recorded in {other}: `repro show {artifact.target} --profile {other}`"
    return text


def _latex(artifact: Artifact, profile: str, found: Standing, part: int | None) -> str:
    """The cells beside the published ones; with a part, that table of the artifact as it was obtained."""

    tables, label = found.yours or found.recorded or (), a.latex_label(artifact, profile)
    if part is None and found.joint is not None:
        return latex_parts([found.joint.table()], label)
    try:
        return latex_parts(tables, label, part)
    except ValueError:
        raise UsageError(f"{artifact.name} has {len(tables)} parts, --part is {part}") from None


def _formatted(artifact: Artifact, profile: str, found: Standing, form: str, part: int | None) -> str:
    tables = found.yours or found.recorded or ()
    if form == "latex":
        return _latex(artifact, profile, found, part)
    if form == "csv":
        return "\n".join(t.to_csv() for t in ([found.joint] if found.joint is not None else tables))
    value: dict[str, Any] = {"artifact": artifact.name, "title": artifact.title, "profile": profile}
    if found.joint is not None:
        value |= found.joint.to_dict()
    else:
        sides = {"recorded": found.recorded, "yours": found.yours}
        value |= {k: None if v is None else [t.to_dict() for t in v] for k, v in sides.items()}
    return json.dumps(value, indent=1, allow_nan=False) + "\n"
