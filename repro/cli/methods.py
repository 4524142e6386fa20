"""``repro run ID --method``: a reader's own methods as rows of a table."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import suppress
from typing import Any

import torch

from repro.artifacts import methods as m
from repro.artifacts import render as a
from repro.artifacts.method_rows import Chosen, check_shown, method_tables
from repro.artifacts.results import refusing_damaged_records
from repro.cli.executing import run_specs, submit_array
from repro.engine.devices import default_workers
from repro.engine.progress import duration
from repro.engine.store import RunStore, default_results_root, default_runs_root, figures_root
from repro.errors import NotOfferedError, RecordError, RunError, UsageError
from repro.methods.checks import check_kept, check_method
from repro.methods.experiment import check_names
from repro.methods.models import reason
from repro.methods.source import MULTIVAE, NAME, NAMED, source_of
from repro.model import isolated_rng
from repro.papers import experiment_of
from repro.records import canonical_json

__all__ = ["run_methods"]


def _settings(words: list[str], names: list[str]) -> dict[str, dict[str, Any]]:
    """Method's name to its settings; one of a method by name goes before one of all.

    Raises:
        UsageError: If a word has no ``=``, names no method of these or is a number that is not finite, or two words set
            the same.
    """

    everybody: dict[str, Any] = {}
    found: dict[str, dict[str, Any]] = {name: {} for name in names}
    for word in words:
        key, equals, text = word.partition("=")
        method, dot, setting = key.rpartition(".")
        if not equals or not setting.isidentifier():
            raise UsageError(f"--set {word!r}: such as --set epochs=50, or --set NAME.epochs=50 for one of the methods")
        if dot and method not in found:
            raise UsageError(f"--set {word!r}: no --method has the name {method!r}; one of {', '.join(names)}")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        try:
            word.encode()
            canonical_json(value)
        except UnicodeEncodeError:
            raise UsageError(f"--set {word!r}: not UTF-8") from None
        except ValueError:
            raise UsageError(f"--set {word!r}: not a finite number") from None
        chosen = found[method] if dot else everybody
        if setting in chosen:
            raise UsageError(f"--set {word!r}: {key} is set twice")
        chosen[setting] = value
    return {name: everybody | own for name, own in found.items()}


def _chosen(options: argparse.Namespace, taken: set[str]) -> dict[str, Any]:
    """Method's name to its source; a model of multivae that the table has by the same name is called after both."""

    found: dict[str, Any] = {}
    for word in options.method:
        given, equals, text = word.partition("=")
        default, source = source_of(text if equals else word)
        if source.module == MULTIVAE and default.lower() in taken:
            default = f"{MULTIVAE}-{default}"
        name = given if equals else default
        if not NAME.fullmatch(name):
            raise UsageError(f"--method {word!r}: {name!r} is no name; {NAMED}")
        if name.lower() in map(str.lower, found):  # which are folders, to some systems the same
            raise UsageError(f"two methods have the name {name!r}; --method NAME=... tells them apart")
        found[name] = source
    return found


def _built(spec: Any) -> Any:
    with isolated_rng(spec.seed):
        return experiment_of(spec).build(spec)


def _check(artifact: Any, name: str, runs: list[Any], source: Any, settings: dict[str, Any]) -> None:
    """Says what is wrong with a method before it is trained: its model, and what its table asks of it.

    Untrained, it is measured as a smoke run of the table is, where there are such runs.
    """

    missing = check_method(name, _built(runs[0]))
    lost = check_kept(name, lambda: _built(runs[0]))
    try:
        smaller = m.method_runs(artifact, "smoke", 1, name, source, settings)
    except NotOfferedError:
        smaller = []
    if smaller:
        _check_measured(artifact, name, smaller)
    if missing:
        print(f"{name} does not offer {' or '.join(missing)}, which some tables ask for", file=sys.stderr)
    if lost:
        print(
            f"{name} changes {', '.join(lost)} while it trains, neither parameter nor buffer: where its training is "
            "interrupted, that starts anew",
            file=sys.stderr,
        )


def _check_measured(artifact: Any, name: str, smaller: list[Any]) -> None:
    """Measures an untrained model as the first of a method's runs of the smoke profile is measured."""
    experiment = experiment_of(smaller[0])
    small = smaller[0]
    data = experiment.load(small)
    with isolated_rng(small.seed), torch.no_grad():
        model = experiment.build(small)
        try:
            found = experiment.evaluate(model.eval(), data, small, "cpu")
        except RecordError:  # a number that is not finite, as an untrained model may have
            return
        except (Exception, SystemExit) as error:
            raise UsageError(f"method {name} cannot be measured as {artifact.name} is: {reason(error)}") from None
    check_shown(artifact, name, smaller, found)


def run_methods(options: argparse.Namespace, *, most_seconds: float | None) -> None:
    """Runs methods of a reader's own, and what the table's own rows lack, and renders the table with all.

    Arguments:
        options: What the command line says.
        most_seconds: What is refused beyond this; None for no limit.

    Raises:
        UsageError: If a method or a setting is wrong; before anything is trained.
        RunError, StoppedError: As :func:`repro.cli.executing.run_specs`.
    """

    for name in ("all", "from_weights", "key"):
        if getattr(options, name):
            raise UsageError(f"--method and --{name.replace('_', '-')} do not go together")
    artifact = a.find(options.id)
    profile = a.check_profile(options.profile)
    table = a.unique(a.plan(artifact, profile, options.seeds, options.precision or "auto", options.device))
    sources = _chosen(options, m.own_names(table))
    settings = _settings(options.set, list(sources))
    choices = {"precision": options.precision or "auto", "device": options.device}
    chosen = {
        name: m.method_runs(artifact, profile, options.seeds, name, source, settings[name], **choices)
        for name, source in sources.items()
    }
    for name, runs in chosen.items():
        check_names(sources[name], settings[name])
        try:
            experiment_of(runs[0]).training(runs[0])
        except (TypeError, ValueError) as error:
            raise UsageError(f"method {name}: {' '.join(str(error).split())}") from None
    store = RunStore(options.runs or default_runs_root())
    results = options.results or default_results_root()
    yours, recorded = a.Sources(store, results, "auto"), a.Sources(None, figures_root(), "auto")

    def lookup(spec: Any) -> Any:
        first = recorded if recorded.is_current(spec) and not yours.is_current(spec) else yours
        return first.record(spec) or recorded.record(spec)

    def diverged(spec: Any) -> str:
        return "" if lookup(spec) is not None else yours.diverged(spec) or recorded.diverged(spec)

    def write(shown: Chosen) -> None:
        with refusing_damaged_records():
            known = {"seeds": options.seeds, "diverged": diverged}
            paths = m.write_methods(artifact, profile, shown, lookup, results, store=store, **known)
            for table in method_tables(artifact, profile, shown, lookup, **known):
                print(table.to_markdown())
        sys.stdout.flush()
        print("\n".join(map(str, paths)), file=sys.stderr)

    own = [s for runs in chosen.values() for s in runs]
    with refusing_damaged_records():
        todo = [s for s in own if options.force or store.current(s) is None]
        lacking = [s for s in table if lookup(s) is None and not diverged(s)]
        if not options.only_methods:
            todo += lacking
    workers = 1 if options.executor == "inline" else options.workers or default_workers(options.threads)
    seconds, megabytes = a.estimate(todo, workers) if todo else (0.0, 0.0)
    summary = (
        f"{artifact.name}, profile {profile}, with {', '.join(chosen)}: {len(own)} runs and {len(table)} of the table, "
        f"{len(todo)} to run; about {duration(seconds)} and {megabytes / 1000:.1f} GB on {workers} cores"
    )
    if options.dry_run:
        for runs in chosen.values():
            _built(runs[0])  # its function is there, and takes its settings
        for spec in own + table:
            state = "to run" if spec in todo else "left out" if spec in lacking else "recorded"
            if diverged(spec) and spec not in todo:
                state = "diverged"
            print(f"{spec.key}  {spec.label:56s}  {state}")
        print(summary)
        return
    for name, runs in chosen.items():
        if any(s in todo for s in runs):
            _check(artifact, name, runs, sources[name], settings[name])
    with refusing_damaged_records():
        m.check_folders(artifact, profile, chosen, results)
    if todo and options.executor == "slurm":
        submit_array(todo, store, options)
        return
    if todo:
        print(summary, file=sys.stderr)
        if most_seconds is not None and seconds > most_seconds:
            raise UsageError(
                f"{artifact.name} would take about {duration(seconds)} here; --only-methods leaves out the table's own "
                "rows, or use --profile quick, a GPU, or --long"
            )
        discarded = own if options.force else ()
        total = len(own) + (0 if options.only_methods else len(table))
        try:
            run_specs(todo, store, options, total=total, discarded=discarded, apart=True)
        except RunError:
            finished = {name: runs for name, runs in chosen.items() if all(lookup(s) is not None for s in runs)}
            if finished:
                with suppress(RecordError, RunError, UsageError):  # what failed is said, not that nothing is drawn
                    write(finished)
            raise
    write(chosen)
