"""``repro run ID --from-weights``: tables measured anew from published weights."""

from __future__ import annotations

import argparse
import sys

from repro.artifacts.render import check_profile
from repro.errors import RunError, UsageError
from repro.hub.reevaluate import Comparison, published_artifacts, reevaluate

__all__ = ["run_from_weights"]


def run_from_weights(options: argparse.Namespace) -> None:
    """Runs ``repro run ID --from-weights``: measures anew, prints the table, and says what equals its record.

    With ``--all``, every artifact that published models are rows of, each with the profile of these.

    Raises:
        UsageError: If an option has no meaning where nothing is trained.
        RunError: If a metric is not its record's within the tolerance, or as :func:`repro.hub.reevaluate.reevaluate`.
    """

    for name in ("precision", "force", "dry_run", "long", "share_stages"):
        if getattr(options, name):
            raise UsageError(f"--{name.replace('_', '-')} has no meaning with --from-weights, which trains nothing")
    if options.all and options.id is not None:
        raise UsageError(f"--all or {options.id}, not both")
    wanted = published_artifacts() if options.all else [(options.id, check_profile(options.profile))]
    compared = [comparison for name, profile in wanted for comparison in _measured_anew(name, profile, options)]
    if unequal := [c.name for c in compared if not c.equal]:
        raise RunError(f"{len(unequal)} of {len(compared)} models differ from their records: {', '.join(unequal)}")


def _measured_anew(name: str, profile: str, options: argparse.Namespace) -> list[Comparison]:
    """Prints an artifact measured anew, and gives how its models compare with their records."""

    paths, compared, left = reevaluate(
        name,
        profile=profile,
        seeds=options.seeds,
        workers=1 if options.executor == "inline" else options.workers,
        device=options.device,
        runs=options.runs,
        results=options.results,
    )
    for path in paths:
        if path.suffix == ".md":
            print(path.read_text(encoding="utf-8"))
    for comparison in compared:
        print(comparison)
    for spec in left:
        print(f"{spec.label}: its weights are not published, its record was taken over")
    print("\n".join(str(p) for p in paths), file=sys.stderr, flush=True)
    return compared
