"""The commands ``repro weights``: trained models in the package, in the cache and on the Hub."""

from __future__ import annotations

import argparse

from repro.artifacts.render import record_path
from repro.engine.store import RunStore, default_runs_root, figures_root, file_sha256, sound_record
from repro.errors import HubError, RecordError, RunError, UsageError
from repro.hub.manifest import entries, packaged_files
from repro.hub.pull import cached, problems, pull
from repro.hub.registry import Model, find_entry, models, training_command, unnamed_rows
from repro.report.text import columns
from repro.weights.folder import package_folder

__all__ = ["list_missing", "list_weights", "print_path", "pull_weights", "verify"]


def list_weights(options: argparse.Namespace) -> None:
    """Prints every model that has weights: the command ``repro weights list``."""
    rows = [("weights", "size", "profile", "metric", "value", "record", "where")]
    for name, entry in entries().items():
        size = f"{entry.size / 1e6:.1f} MB"
        places = [place for place, there in (("package", packaged_files(entry)), ("cache", cached(entry))) if there]
        if entry.repo:
            places.append(f"{entry.repo}@{entry.revision[:7]}")
        where = ", ".join(places) or "nowhere yet"
        rows.append((name, size, entry.profile, entry.metric, f"{entry.value:.4g}", entry.record, where))
    print("\n".join(columns(rows)))
    if absent := [name for name in models() if name not in entries()]:
        print(f"\n{len(absent)} further models have no weights here; `repro weights missing` says what trains them")


def list_missing(options: argparse.Namespace) -> None:
    """Prints the recorded models without weights, and what trains them: the command ``repro weights missing``."""
    groups: dict[str, list[str]] = {}
    for name, model in models().items():
        if name not in entries():
            groups.setdefault(_absence(model), []).append(name)
    for state, names in groups.items():
        print(f"{state}: {', '.join(names)}")
    for command, labels in unnamed_rows(figures_root()).items():
        print(f"recorded, published under no name; `{command}` trains: {'; '.join(labels)}")


def _absence(model: Model) -> str:
    """Why a model does not ship, and what changes that."""

    spec = model.spec()
    try:
        sound_record(spec, RunStore(default_runs_root()))
    except (RunError, RecordError):
        recorded = record_path(spec, figures_root()).is_file()
        state = (
            f"{'recorded, its weights are gone' if recorded else 'not recorded'}; `{training_command(model)}` trains"
        )
        if (size := model.half_megabytes.get(spec.profile)) is not None:
            state += f"; {size:g} MB in half precision, more than ships, so for the Hub (`make push-weights`)"
        return state
    return "trained, in the run directories; `repro weights ship NAME` packs"


def pull_weights(options: argparse.Namespace) -> None:
    """Fetches models into the cache: the command ``repro weights pull``.

    Raises:
        UsageError: If no model is named, or one is unknown.
        HubError: If the Hub does not give what it is asked for.
    """
    if bool(options.names) == options.all:
        raise UsageError("name the models to pull, or --all for every model on the Hub")
    chosen = [e for e in entries().values() if e.repo] if options.all else [find_entry(n) for n in options.names]
    if not chosen:
        raise UsageError("no model is on the Hub: the manifest names no repository")
    for entry in chosen:
        folder, _ = pull(entry, options.revision)
        print(folder, flush=True)


def verify(options: argparse.Namespace) -> None:
    """Checks every available file against its hash: the command ``repro weights verify``.

    Raises:
        ValueError: If a file is not what the manifest states.
    """
    wrong = 0
    for entry in [find_entry(name) for name in options.names] or entries().values():
        hashes, folder = packaged_files(entry) or {}, package_folder() / entry.name
        bad = [f for f, h in hashes.items() if not (folder / f).is_file() or file_sha256(folder / f) != h]
        states = [f"package: {', '.join(bad) + ' not what the manifest states' if bad else 'sound'}"] if hashes else []
        found = problems(entry) if cached(entry) else []
        if cached(entry):
            states.append(f"cache: {'; '.join(found) or 'sound'}")
        wrong += bool(bad) + bool(found)
        print(f"{entry.name}  {', '.join(states) or 'not available'}", flush=True)
    if wrong:
        raise ValueError(f"{wrong} of these are not sound; install the package again, or `repro weights pull NAME`")


def print_path(options: argparse.Namespace) -> None:
    """Prints the folder of a model's files: the command ``repro weights path``.

    Raises:
        HubError: If they are not available.
    """
    entry = find_entry(options.name)
    if packaged_files(entry):
        print(package_folder() / entry.name)
    elif found := cached(entry):
        print(found[0])
    else:
        raise HubError(f"{entry.name} is not in the cache; `repro weights pull {entry.name}` fetches it")
