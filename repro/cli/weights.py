"""The commands ``repro weights``: trained models in the package, in the cache and on the Hub."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.errors import UsageError

if TYPE_CHECKING:
    from repro.hub.reevaluate import Comparison
    from repro.hub.registry import Model

__all__ = ["add_weights_commands", "run_from_weights", "run_weights"]


def add_weights_commands(commands: Any) -> None:
    """Adds ``weights`` and its commands.

    Arguments:
        commands: What ``add_subparsers`` of the command's parser gave.
    """
    text = "trained models: in the package, in the cache and on the Hub"
    weights = commands.add_parser("weights", help=text, description=text)
    actions = weights.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=type(weights))

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return actions.add_parser(name, help=text, description=text)

    add("list", "names, sizes, headline metrics, the records' keys, and where they lie")
    add("missing", "recorded models without weights: where these are, or what trains them again")
    sub = add("pull", "fetch models from the Hub into the cache, verified; a pull that was cut continues")
    sub.add_argument("names", nargs="*", metavar="NAME", help="such as gmrf_mcvae/copula")
    sub.add_argument("--all", action="store_true", help="every model that is on the Hub")
    sub.add_argument("--revision", metavar="REV", help="a tag, branch or commit instead of the pinned one")
    sub = add("verify", "check every available file against its hash, or those of some models")
    sub.add_argument("names", nargs="*", metavar="NAME")
    sub = add("path", "the folder of a model's files, in the package or in the cache")
    sub.add_argument("name")
    sub = add("ship", "for maintainers: copy recorded runs' weights into the package and note their hashes")
    sub.add_argument("names", nargs="+", metavar="NAME", help="such as gmrf_mcvae/copula or classifier-mnist")
    sub.add_argument("--half", action="store_true", help="in half precision, if its headline metric measured so allows")
    sub.add_argument("--runs", type=Path, metavar="DIR", help="run directories (REPRO_RUNS, or runs)")
    sub.add_argument("--figures", type=Path, metavar="DIR", help="committed records (REPRO_FIGURES, or figures)")
    sub = add("push", "for maintainers: models with their cards to the Hub; without --yes only what would go up")
    sub.add_argument("repo", help="the model repository, user/name")
    sub.add_argument("names", nargs="*", metavar="NAME", help="some models alone; all that have a record by default")
    sub.add_argument("--yes", action="store_true", help="upload, tag, and pin the revisions in the manifest")
    sub.add_argument("--runs", type=Path, metavar="DIR", help="run directories (REPRO_RUNS, or runs)")
    sub.add_argument("--figures", type=Path, metavar="DIR", help="committed records (REPRO_FIGURES, or figures)")


def run_weights(options: argparse.Namespace) -> None:
    """Runs one of the commands.

    Raises:
        UsageError: If a name is unknown.
        ValueError: If a file is not what the manifest states.
        RunError: If a run that is to ship or to go up has no sound record.
        HubError: If the Hub does not give or take what it is asked for.
    """
    actions = {
        "list": _list,
        "missing": _missing,
        "pull": _pull,
        "verify": _verify,
        "path": _path,
        "ship": _ship,
        "push": _push,
    }
    actions[options.action](options)


def _list(options: argparse.Namespace) -> None:
    from repro.hub.manifest import entries, packaged_files
    from repro.hub.pull import cached
    from repro.hub.registry import models

    rows = [("weights", "size", "profile", "metric", "value", "record", "where")]
    for name, entry in entries().items():
        size = f"{entry.size / 1e6:.1f} MB"
        places = [place for place, there in (("package", packaged_files(entry)), ("cache", cached(entry))) if there]
        if entry.repo:
            places.append(f"{entry.repo}@{entry.revision[:7]}")
        where = ", ".join(places) or "nowhere yet"
        rows.append((name, size, entry.profile, entry.metric, f"{entry.value:.4g}", entry.record, where))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if absent := [name for name in models() if name not in entries()]:
        print(f"\n{len(absent)} further models have no weights here; `repro weights missing` says what trains them")


def _missing(options: argparse.Namespace) -> None:
    from repro.hub.manifest import entries
    from repro.hub.registry import models

    groups: dict[str, list[str]] = {}
    for name, model in models().items():
        if name not in entries():
            groups.setdefault(_absence(model), []).append(name)
    for state, names in groups.items():
        print(f"{state}: {', '.join(names)}")


def _absence(model: Model) -> str:
    """Why a model does not ship, and what changes that."""
    from repro.artifacts.render import record_path
    from repro.engine.execute import sound_record
    from repro.engine.store import RunStore, default_runs_root, figures_root
    from repro.errors import RecordError, RunError
    from repro.hub.registry import training_command

    spec = model.spec()
    try:
        sound_record(spec, RunStore(default_runs_root()))
    except (RunError, RecordError):
        recorded = record_path(spec, figures_root()).is_file()
        return f"{'recorded, its weights are gone' if recorded else 'not recorded'}; `{training_command(model)}` trains"
    return "trained, in the run directories; `repro weights ship NAME` packs"


def _pull(options: argparse.Namespace) -> None:
    from repro.hub.manifest import entries, find_entry
    from repro.hub.pull import pull

    if bool(options.names) == options.all:
        raise UsageError("name the models to pull, or --all for every model on the Hub")
    chosen = [e for e in entries().values() if e.repo] if options.all else [find_entry(n) for n in options.names]
    if not chosen:
        raise UsageError("no model is on the Hub: the manifest names no repository")
    for entry in chosen:
        folder, _ = pull(entry, options.revision)
        print(folder, flush=True)


def _verify(options: argparse.Namespace) -> None:
    from repro.engine.store import file_sha256
    from repro.hub.manifest import entries, find_entry, packaged_files
    from repro.hub.pull import cached, problems
    from repro.weights.folder import package_folder

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


def _path(options: argparse.Namespace) -> None:
    from repro.errors import HubError
    from repro.hub.manifest import find_entry, packaged_files
    from repro.hub.pull import cached
    from repro.weights.folder import package_folder

    entry = find_entry(options.name)
    if packaged_files(entry):
        print(package_folder() / entry.name)
    elif found := cached(entry):
        print(found[0])
    else:
        raise HubError(f"{entry.name} is not in the cache; `repro weights pull {entry.name}` fetches it")


def _known(names: list[str]) -> None:
    from repro.artifacts.inventory import nearest
    from repro.hub.registry import models

    for name in names:
        if name not in models():
            raise UsageError(f"unknown weights {name!r}{nearest(name, list(models()))}")


def _ship(options: argparse.Namespace) -> None:
    from repro.engine.store import RunStore, default_runs_root
    from repro.hub.package import ship_all

    _known(options.names)
    store = RunStore(options.runs or default_runs_root())
    print("\n".join(str(p) for p in ship_all(options.names, store, figures=options.figures, half=options.half)))


def _push(options: argparse.Namespace) -> None:
    from repro.engine.store import RunStore, default_runs_root
    from repro.hub.push import collect, push
    from repro.weights.folder import check_repo

    try:
        check_repo(options.repo, "push")
    except ValueError as error:
        raise UsageError(str(error)) from None
    _known(options.names)
    bundles = collect(options.names, RunStore(options.runs or default_runs_root()), options.figures)
    push(options.repo, bundles, upload=options.yes)


def run_from_weights(options: argparse.Namespace) -> None:
    """Runs ``repro run ID --from-weights``: measures anew, prints the table, and says what equals its record.

    With ``--all``, every artifact that published models are rows of, each with the profile of these.

    Raises:
        UsageError: If an option has no meaning where nothing is trained.
        RunError: If a metric is not its record's within the tolerance, or as :func:`repro.hub.reevaluate.reevaluate`.
    """
    from repro.artifacts.render import check_profile
    from repro.errors import RunError
    from repro.hub.reevaluate import published_artifacts

    for name in ("precision", "force", "dry_run", "long"):
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
    import sys

    from repro.hub.reevaluate import reevaluate

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
