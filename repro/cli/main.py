"""The command ``repro``: list, run, new, overnight, status, show, open, record, report, cite, doctor, data, weights."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import NoReturn

import repro
from repro import __version__
from repro.cli.claims import add_claims_options, print_claims
from repro.cli.data import add_data_commands, run_data
from repro.cli.list import add_list_options, list_artifacts, welcome
from repro.cli.methods import add_method_options, add_new_command, new_method, run_methods
from repro.cli.open import add_open_options, open_pages
from repro.cli.overnight import add_overnight_command, run_overnight
from repro.cli.results import add_folder_options, add_record_options, add_show_options, print_outcome, record_runs, show
from repro.cli.run import (
    StoppedError,
    add_run_options,
    add_status_command,
    check_options,
    run_everything,
    run_key,
    run_specs,
    show_status,
    submit_array,
)
from repro.cli.terminal import use_plain_characters
from repro.cli.weights import add_weights_commands, run_from_weights, run_weights

__all__ = ["main", "parser"]

# No default paper run longer than this starts without a GPU; PROFILE=quick does.
MOST_CPU_SECONDS = 3600.0
EXECUTORS = ("local", "inline", "slurm")


class _Parser(argparse.ArgumentParser):
    """One-line errors that name near matches, exit code 2."""

    def error(self, message: str) -> NoReturn:
        if "invalid choice: " in message and "(choose from " in message:
            word = message.split("invalid choice: ")[1].split("'")[1]
            known = [w.strip(" ')") for w in message.split("(choose from ")[1].split(",")]
            near = get_close_matches(word, known, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"one of {', '.join(known)}"
            message = f"unknown {'command' if self.prog == 'repro' else 'choice'} {word!r}; {hint}"
        self.exit(2, f"{self.prog}: {message}\n")


def parser() -> argparse.ArgumentParser:
    """The parser of the command line, with every command and option."""
    main = _Parser(prog="repro", description=(repro.__doc__ or "").splitlines()[0])
    main.add_argument("--version", action="version", version=f"repro {__version__}")
    commands = main.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text)

    add_list_options(add("list", "every table and figure of the four papers, with data, cost and state"))
    sub = add("run", "run what a table or figure needs and render it")
    sub.add_argument("id", nargs="?", help="such as gmrf_mcvae/table1 or gmrf-table1")
    sub.add_argument("--profile", default="paper", help="paper (default), overnight, quick or smoke")
    sub.add_argument("--seeds", type=int, metavar="N", help="seeds 0 to N - 1; the profile's number by default")
    sub.add_argument("--workers", type=int, metavar="N", help="processes; one a core by default")
    sub.add_argument("--device", help="cpu, cuda or cuda:<index>; a GPU where there is one by default")
    sub.add_argument("--precision", help="of hidden layers: auto (default), float32 or bfloat16; see `repro doctor`")
    sub.add_argument("--executor", choices=EXECUTORS, default="local", help="worker processes, this one, or slurm")
    sub.add_argument("--dry-run", action="store_true", help="print the runs and an estimate, start nothing")
    sub.add_argument("--force", action="store_true", help="discard what these runs left and start them anew")
    sub.add_argument("--long", action="store_true", help="start on the CPU what would take over an hour")
    sub.add_argument("--from-weights", action="store_true", help="measure published weights anew, train nothing")
    add_run_options(sub)
    add_method_options(sub)
    add_folder_options(sub, "runs", "results")
    add_new_command(add("new", "a file to begin with: your own method for a table"))
    add_show_options(add("show", "a table: yours, recorded, published; or where a figure lies"))
    add_open_options(add("open", "this package's site, or a page of your own results, in a browser"))
    add_record_options(add("record", "for maintainers: put runs on record, and redraw what they feed"))
    sub = add("report", "for maintainers: redraw every artifact from the recorded runs, without training")
    add_folder_options(sub, "figures")
    sub = add("cite", "BibTeX of a paper, artifact or model, its data and this package")
    sub.add_argument("id")
    sub.add_argument("--biblatex", action="store_true", help="this package as @software, which biblatex alone knows")
    add_claims_options(add("claims", "each claim of the papers, its evidence and its verdict"))
    add("doctor", "what this machine and installation offer")
    add_status_command(add("status", "what an artifact's runs are doing, and why some failed"))
    add_overnight_command(add("overnight", "run what two cores can in some nights, in order, and resumable"))
    add_data_commands(commands)
    add_weights_commands(commands)
    return main


def _list(options: argparse.Namespace) -> None:
    list_artifacts(options)


def _run(options: argparse.Namespace) -> None:
    from repro.artifacts import render as a
    from repro.artifacts.planning import distinguished
    from repro.artifacts.results import check_results, refusing_damaged_records, write_results
    from repro.engine.devices import available_cores
    from repro.engine.progress import duration
    from repro.engine.speed import cached_speed, speed
    from repro.engine.store import RunStore, default_results_root, default_runs_root

    check_options(options)
    if (options.set or options.only_methods) and not options.method:
        raise a.UsageError("--set and --only-methods are for --method")
    if options.method:
        if options.id is None:
            raise a.UsageError("--method needs a table, as in repro run gmrf-table1 --method ...")
        bounded = options.long or options.max_minutes is not None or _on_gpu(options.device)
        run_methods(options, most_seconds=None if bounded else MOST_CPU_SECONDS)
        return
    if options.key is not None:
        run_key(options)
        return
    if options.all and not options.from_weights:
        run_everything(options)
        return
    if options.id is None and not options.all:
        raise a.UsageError("which table or figure? `repro list` shows all")
    if options.from_weights:
        run_from_weights(options)
        return
    artifact = a.find(options.id)
    a.check_profile(options.profile)
    specs = a.unique(a.plan(artifact, options.profile, options.seeds, options.precision or "auto", options.device))
    store = RunStore(options.runs or default_runs_root())
    results = options.results or default_results_root()
    workers = 1 if options.executor == "inline" else options.workers or available_cores()
    with refusing_damaged_records():
        todo = specs if options.force else a.missing_runs(specs, store)
    if todo and not options.dry_run and not _on_gpu(options.device):
        speed()  # measured once and kept; the estimate rests on it
    seconds, megabytes = a.estimate(todo, workers) if todo else (0.0, 0.0)
    summary = (
        f"{artifact.name}, profile {options.profile}: {len(specs)} runs, {len(specs) - len(todo)} recorded; "
        f"about {duration(seconds)} and {megabytes / 1000:.1f} GB on {workers} core{'s' * (workers > 1)}"
    )
    if options.dry_run:
        if todo and cached_speed() is None:  # a plan measures nothing
            summary += "; for a CPU with AVX-512, `repro doctor` measures this one"
        labels = distinguished(specs)
        width = max((len(text) for text in labels.values()), default=0)
        for spec in specs:
            left = "to run" if spec in todo else "recorded"
            print(f"{spec.key}  {labels[spec]:{width}s}  {left:8s}  {duration(a.estimate([spec], 1)[0])}")
        print(summary)
        return
    with refusing_damaged_records():
        check_results(artifact, options.profile, specs, results, options.precision)
    if todo and options.executor == "slurm":
        submit_array(specs if options.force else todo, store, options)
        return
    if todo:
        print(summary, file=sys.stderr)
        bounded = options.long or options.max_minutes is not None
        if seconds > MOST_CPU_SECONDS and not bounded and not _on_gpu(options.device):
            raise a.UsageError(
                f"{artifact.name} would take about {duration(seconds)} here; use PROFILE=quick, a GPU, or --long"
            )
        if options.force:
            for spec in specs:
                store.discard(spec)
        run_specs(todo, store, options, total=len(specs))
    choices = {"seeds": options.seeds, "precision": options.precision}
    with refusing_damaged_records():
        paths = write_results(artifact, options.profile, specs, results, store=store, **choices)
        print_outcome(artifact, options, paths)


def _new(options: argparse.Namespace) -> None:
    new_method(options)


def _overnight(options: argparse.Namespace) -> None:
    run_overnight(options)


def _status(options: argparse.Namespace) -> None:
    show_status(options)


def _on_gpu(device: str | None) -> bool:
    if device is not None:
        return device.startswith("cuda")
    import torch

    return torch.cuda.is_available()


def _show(options: argparse.Namespace) -> None:
    from repro.artifacts.results import refusing_damaged_records

    with refusing_damaged_records():
        show(options)


def _open(options: argparse.Namespace) -> None:
    open_pages(options)


def _record(options: argparse.Namespace) -> None:
    from repro.artifacts.results import refusing_damaged_records

    with refusing_damaged_records():
        record_runs(options)


def _report(options: argparse.Namespace) -> None:
    from repro.artifacts.gallery import report
    from repro.engine.store import figures_root, in_checkout
    from repro.errors import UsageError

    figures = options.figures or figures_root()
    if not in_checkout(figures):
        raise UsageError(f"{figures} is inside an installed package; --figures names a copy of it to redraw")
    for line in report(figures):
        print(line)


def _claims(options: argparse.Namespace) -> None:
    print_claims(options)


def _cite(options: argparse.Namespace) -> None:
    from repro.hub.cite import cite

    print(cite(options.id, classic=not options.biblatex), end="")


def _doctor(options: argparse.Namespace) -> None:
    import torch

    from repro.engine.devices import available_cores
    from repro.engine.environment import environment, has_bfloat16
    from repro.engine.speed import describe, speed
    from repro.engine.store import default_runs_root

    device = "cuda" if torch.cuda.is_available() else "cpu"
    for name, value in environment(device).items():
        print(f"{name:12s} {', '.join(f'{k} {v}' for k, v in value.items()) if isinstance(value, dict) else value}")
    print(f"{'cores':12s} {available_cores()}")
    print(f"{'bfloat16':12s} {'in hardware' if has_bfloat16(device) else 'emulated, slow'}")
    auto = "bfloat16 where a run is planned so" if has_bfloat16(device) else "float32 for every run"
    print(f"{'precision':12s} auto is {auto}, on {device}")
    for line in describe(speed()):
        print(f"{'one core':12s} {line}")
    print(f"{'runs':12s} {default_runs_root().resolve()}")


def _data(options: argparse.Namespace) -> None:
    run_data(options)


def _weights(options: argparse.Namespace) -> None:
    run_weights(options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, 1 for a failed run, 2 for a wrong call, 75 when stopped as asked, 130 by Ctrl-C."""
    from repro.errors import RecordError, RunError, UsageError

    use_plain_characters()
    options = parser().parse_args(arguments)
    if options.command is None:
        welcome()
        return 0
    command = globals()[f"_{options.command}"]
    try:
        command(options)
    except UsageError as error:
        print(f"repro: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except StoppedError as stopped:
        print(f"repro: {stopped}", file=sys.stderr)
        return stopped.code
    except KeyboardInterrupt:
        print("repro: interrupted; the same command continues from the last epochs", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe went away
        return 1
    except (RunError, RecordError, ValueError, OSError) as error:
        print(f"repro: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0
