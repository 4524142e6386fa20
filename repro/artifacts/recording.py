"""Runs become recorded ones: their records go beside the figures, and what they feed is drawn anew."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from repro.artifacts.gallery import recorded_seeds, renew_pages
from repro.artifacts.inventory import Artifact, artifacts, find
from repro.artifacts.render import Sources, check_profile, export_records, plan, record_path, render, unique
from repro.engine.store import RunStore, in_checkout, read_record, sound_record
from repro.errors import NotOfferedError, RunError, UsageError
from repro.records import RunSpec

__all__ = ["record"]


def record(name: str, profile: str, store: RunStore, figures: Path) -> Iterator[str]:
    """Puts an artifact's runs on record, and redraws it, whatever else its runs feed, and the pages over all of them.

    Every run is checked before anything is written: it must be of a clean commit, not of the smoke profile, and have
    the weights that its record was measured with. Runs that are on record already may be missing from ``store``. That
    a training diverged is put on record too.

    Arguments:
        name: The artifact, such as ``"gmrf_mcvae/table1"``.
        profile: The profile of its runs.
        store: The run directories.
        figures: Where recorded material lies.

    Returns:
        One line for each file or artifact that was written.

    Raises:
        UsageError: If there is no such artifact, the profile is for tests alone, or the package is an installed one.
        RunError: If a run is missing, or not of a clean commit.
        RecordError: If a record is damaged.
    """
    artifact = find(name)
    if check_profile(profile) == "smoke":
        raise UsageError("nothing of the smoke profile is recorded: its runs are for tests alone")
    if not in_checkout(figures):
        raise UsageError(f"{figures} is inside an installed package; runs are recorded in a checkout")
    plan(artifact, profile)  # says why where there are none
    known = Sources(store, figures)
    specs = unique(plan(artifact, profile, recorded_seeds(artifact, profile, known)))
    new = [s for s in specs if store.record(s) is not None]
    diverged = [d for s in specs if (d := store.divergence(s)) is not None]
    if not new and not diverged:
        have = "are on record already" if specs else "are none"
        raise RunError(f"{store.root} has no run of {artifact.name} ({profile}) to record; they {have}")
    for spec in specs:
        read_record(record_path(spec, figures), spec)
    for spec in new:
        if sound_record(spec, store).environment["commit"] is None:
            raise RunError(f"{spec.label} does not say of which commit it is; run it from a clean checkout")
    for found in diverged:
        if found.environment.get("commit") is None or found.environment.get("dirty") is not False:
            raise RunError(f"{found.spec.label} diverged in a checkout with changes; run it from a clean commit")
    return _write(artifact, profile, new, [d.spec for d in diverged], store, figures)


def _write(
    artifact: Artifact,
    profile: str,
    new: list[RunSpec],
    diverged: list[RunSpec],
    store: RunStore,
    figures: Path,
) -> Iterator[str]:
    export_records([*new, *diverged], store, figures)
    yield f"{len(new)} record{'s' * (len(new) != 1)} of {artifact.name} ({profile})" + (
        f", and of {len(diverged)} that training diverged" if diverged else ""
    )
    sources = Sources(None, figures)
    for fed in _fed(artifact, profile, {*new, *diverged}):
        try:
            seeds = recorded_seeds(fed, profile, sources)
        except RunError:  # further runs of it are not on record
            continue
        try:
            paths = render(fed, profile, figures, seeds=seeds)
        except (RunError, OSError) as error:  # samples or data that are not there
            yield f"{fed.name} ({profile}): not drawn, {' '.join(str(error).split())}"
        else:
            yield f"{fed.name} ({profile}): {', '.join(p.name for p in paths)}"
    yield from renew_pages(figures)


def _fed(artifact: Artifact, profile: str, new: set[RunSpec]) -> list[Artifact]:
    """The artifact, all that have one of its runs, and all tables of its paper, which may quote any of them."""
    found = [artifact]
    for other in artifacts().values():
        if not other.built or other is artifact:
            continue
        if find(other.same_as or other.name).paper != find(artifact.same_as or artifact.name).paper:
            continue
        with suppress(NotOfferedError):
            if new & set(unique(plan(other, profile))) or other.kind == "T":
                found.append(other)
    return found
