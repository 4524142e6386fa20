"""Every command of ``repro`` and its options; nothing that a command needs is imported here."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn

import repro
from repro import __version__
from repro.errors import suggestion

__all__ = ["parser"]

EXECUTORS = ("local", "inline", "slurm")
PAGES = ("site", "results")
PROFILES = "paper (default), overnight, quick or smoke"
ARTIFACT = "such as gmrf_mcvae/table1 or gmrf-table1"


class _Parser(argparse.ArgumentParser):
    """One-line errors that name near matches, exit code 2."""

    def error(self, message: str) -> NoReturn:
        if "invalid choice: " in message and "(choose from " in message:
            word = message.split("invalid choice: ")[1].split("'")[1]
            known = [w.strip(" ')") for w in message.split("(choose from ")[1].split(",")]
            what = "command" if self.prog == "repro" else "choice"
            message = f"unknown {what} {word!r}; {suggestion(word, known)}"
        self.exit(2, f"{self.prog}: {message}\n")


def parser() -> argparse.ArgumentParser:
    """The parser of the command line, with every command and option."""
    main = _Parser(prog="repro", description=(repro.__doc__ or "").splitlines()[0])
    main.add_argument("--version", action="version", version=f"repro {__version__}")
    commands = main.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text)

    _list(add("list", "every table and figure of the four papers, with data, cost and state"))
    _run(add("run", "run what a table or figure needs and render it"))
    _new(add("new", "a file to begin with: your own method for a table"))
    _show(add("show", "a table: yours, recorded, published; or where a figure lies"))
    _open(add("open", "this package's site, or a page of your own results, in a browser"))
    _record(add("record", "for maintainers: put runs on record, and redraw what they feed"))
    sub = add("report", "for maintainers: redraw every artifact from the recorded runs, without training")
    _folders(sub, "figures")
    sub = add("cite", "BibTeX of a paper, artifact or model, its data and this package")
    sub.add_argument("id")
    sub.add_argument("--biblatex", action="store_true", help="this package as @software, which biblatex alone knows")
    _claims(add("claims", "each claim of the papers, its evidence and its verdict"))
    add("doctor", "what this machine and installation offer")
    _status(add("status", "what an artifact's runs are doing, and why some failed"))
    _overnight(add("overnight", "run what two cores can in some nights, in order, and resumable"))
    _data(commands)
    _weights(commands)
    return main


def _folders(sub: argparse.ArgumentParser, *names: str) -> None:
    texts = {
        "runs": "run directories (REPRO_RUNS, or runs)",
        "results": "your tables, figures and records (REPRO_RESULTS, or results)",
        "figures": "recorded material (REPRO_FIGURES, or the package's own)",
    }
    for name in names:
        sub.add_argument(f"--{name}", type=Path, metavar="DIR", help=texts[name])


def _max_minutes(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--max-minutes",
        type=float,
        metavar="M",
        help="stop at the first step after M minutes, with checkpoints and exit code 75; the same command continues",
    )


def _list(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("paper", nargs="?", help="one paper alone, such as gmrf_mcvae or gmrf")
    sub.add_argument("--json", action="store_true", help="as JSON, with titles, costs and reasons in full")
    sub.add_argument("--figures", type=Path, metavar="DIR", help="recorded material other than the package's")


def _run(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("id", nargs="?", help=ARTIFACT)
    sub.add_argument("--profile", default="paper", help=PROFILES)
    sub.add_argument("--seeds", type=int, metavar="N", help="seeds 0 to N - 1; the profile's number by default")
    sub.add_argument("--workers", type=int, metavar="N", help="processes; one a core by default")
    sub.add_argument(
        "--threads", type=int, default=1, metavar="N", help="of each process on the CPU (1), for runs fewer than cores"
    )
    sub.add_argument("--device", help="cpu, cuda or cuda:<index>; a GPU where there is one by default")
    sub.add_argument("--precision", help="of hidden layers: auto (default), float32 or bfloat16; see `repro doctor`")
    sub.add_argument("--executor", choices=EXECUTORS, default="local", help="worker processes, this one, or slurm")
    sub.add_argument("--dry-run", action="store_true", help="print the runs and an estimate, start nothing")
    sub.add_argument("--force", action="store_true", help="discard what these runs left and start them anew")
    sub.add_argument("--long", action="store_true", help="start on the CPU what would take over an hour")
    sub.add_argument(
        "--share-stages",
        action="store_true",
        help="begin with the stages of training that recorded runs beside these have trained already",
    )
    sub.add_argument("--from-weights", action="store_true", help="measure published weights anew, train nothing")
    _max_minutes(sub)
    sub.add_argument("--runs-per-gpu", type=int, default=1, metavar="N", help="runs at once on each GPU (1)")
    sub.add_argument("--processes", type=int, default=1, metavar="N", help="processes, or GPUs, that train one run (1)")
    sub.add_argument(
        "--shards",
        type=int,
        metavar="S",
        help="parts of every batch, each with noise of its own; a multiple of --processes, which it is by default",
    )
    group = sub.add_argument_group("with --executor slurm")
    group.add_argument("--partition", default="", metavar="NAME", help="the cluster's default partition if not given")
    group.add_argument("--gpus", type=int, default=0, metavar="N", help="GPUs of each task, which train one run (0)")
    group.add_argument(
        "--time", default="1h", metavar="T", help="such as 2h; then it checkpoints and queues again (1h)"
    )
    group.add_argument("--max-jobs", type=int, default=64, metavar="N", help="tasks at once (64)")
    group.add_argument("--mem", default="", metavar="SIZE", help="memory of each task, such as 16G")
    group.add_argument("--account", default="", metavar="NAME", help="whom the time is charged to")
    sub.add_argument(
        "--all", action="store_true", help="the runs of all tables and figures; with --dry-run, their plan"
    )
    sub.add_argument("--key", help="execute one run, by its key, without rendering; what the cluster's tasks call")
    group = sub.add_argument_group("your own methods, as rows under a table's own")
    group.add_argument(
        "--method",
        action="append",
        default=[],
        metavar="[NAME=]SOURCE",
        help="my_package.my_model:build, my_model.py:build, multivae:MODEL or an installed package's; several times",
    )
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SETTING=VALUE",
        help="of training, such as epochs=50, or an argument of the function; NAME.SETTING=VALUE for one of several",
    )
    group.add_argument("--only-methods", action="store_true", help="do not run what the table's own rows lack")
    _folders(sub, "runs", "results")


def _new(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("what", choices=("method",), help="method: one file with a model that runs at once")
    sub.add_argument("name", metavar="NAME")


def _show(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("id", help=ARTIFACT)
    sub.add_argument("--profile", default="paper", help=PROFILES)
    group = sub.add_mutually_exclusive_group()
    group.add_argument("--latex", action="store_true", help="the table in LaTeX, with booktabs and graphicx")
    group.add_argument("--csv", action="store_true", help="every cell of every table of the artifact, a line each")
    group.add_argument("--json", action="store_true", help="the same with every field")
    sub.add_argument("--part", type=int, metavar="N", help="with --latex: one of its tables as a float of its own")
    _folders(sub, "runs", "results", "figures")


def _open(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "what",
        nargs="?",
        choices=PAGES,
        help="the built documentation site, or a page of your own results; the site if there is one, if not given",
    )
    _folders(sub, "runs", "results")


def _record(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("id", help=ARTIFACT)
    sub.add_argument("--profile", default="paper", help="paper (default), overnight or quick")
    _folders(sub, "runs", "figures")


def _claims(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("paper", nargs="?", default="", help="one paper alone, such as gmrf_mcvae or gmrf")
    sub.add_argument("--json", action="store_true", help="as JSON")
    sub.add_argument("--figures", type=Path, metavar="DIR", help="recorded material other than the package's")


def _status(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("id", help="such as covae/fig5 or covae-fig5")
    sub.add_argument("--profile", default="paper", help=PROFILES)
    sub.add_argument("--seeds", type=int, metavar="N")
    sub.add_argument("--precision", help="of hidden layers: auto (default), float32 or bfloat16")
    _folders(sub, "runs")
    sub.add_argument("--all", action="store_true", help="also name the runs that are done")


def _overnight(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--workers", type=int, metavar="N", help="processes, one run each; one a core by default")
    sub.add_argument("--dry-run", action="store_true", help="print the steps with an estimate, start nothing")
    sub.add_argument("--device", help="cpu, cuda or cuda:<index>; a GPU where there is one by default")
    _max_minutes(sub)
    sub.add_argument(
        "--schedule", type=Path, metavar="FILE", help="other steps than those of repro/artifacts/overnight.toml"
    )
    sub.add_argument("--again", action="store_true", help="run what is on record in figures too")
    sub.add_argument(
        "--figures", type=Path, metavar="DIR", help="whose records count, and times are taken from (figures)"
    )
    _folders(sub, "runs")


def _data(commands: Any) -> None:
    text = "the datasets: what is available, fetch, check, build, look at, pass on"
    data = commands.add_parser("data", help=text, description=text)
    actions = data.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=type(data))

    def add(name: str, text: str, dataset: str | None = None, **more: Any) -> argparse.ArgumentParser:
        sub = actions.add_parser(name, help=text, description=text, **more)
        if dataset is not None:
            sub.add_argument("name", help="a dataset, such as polymnist", nargs=dataset or None)
        return sub

    def of_split(sub: argparse.ArgumentParser, which: str) -> None:
        sub.add_argument("--split", help=which)
        sub.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="what its loader takes")

    add(
        "list",
        "every dataset with its state, sizes and licence",
        epilog="states: prepared (all splits are built), generated (made on demand), downloaded (its files are there), "
        "missing (they can be fetched), by hand (a person has to obtain them)",
    )
    add("fetch", "download what a dataset is made from; an interrupted download continues", "")
    add("verify", "check every source and every prepared split against its hash", "?")
    of_split(add("build", "prepare the splits and compare their hashes with the card's", ""), "one split alone")
    sub = add("show", "draw samples of a split, one row a modality, to a PNG file", "")
    of_split(sub, "the split; test by default")
    sub.add_argument("--samples", metavar="N,N,...", help="indices of the samples; evenly spread by default")
    sub.add_argument("--columns", type=int, default=12, metavar="N", help="number of samples where not given (12)")
    sub.add_argument("--output", type=Path, metavar="FILE.png", help="NAME-SPLIT.png by default")
    sub = add("card", "print a dataset's card", "")
    sub.add_argument("--bibtex", action="store_true", help="its citations alone")
    sub = add("push", "upload a dataset as Parquet to the Hugging Face Hub, where its licence allows it", "")
    sub.add_argument("repo", help="such as user/name")
    sub.add_argument("--yes", action="store_true", help="upload; without it, print what would be")


def _weights(commands: Any) -> None:
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
    sub.add_argument("names", nargs="*", metavar="NAME", help="such as gmrf_mcvae/copula or classifier-mnist")
    sub.add_argument(
        "--cards", action="store_true", help="renew cards and pictures alone, of all that ship if none is named"
    )
    sub.add_argument("--half", action="store_true", help="in half precision, if its headline metric measured so allows")
    _folders(sub, "runs")
    sub.add_argument("--figures", type=Path, metavar="DIR", help="committed records (REPRO_FIGURES, or figures)")
    sub = add("push", "for maintainers: models with their cards to the Hub; without --yes only what would go up")
    sub.add_argument("repo", help="the model repository, user/name")
    sub.add_argument("names", nargs="*", metavar="NAME", help="some models alone; all that have a record by default")
    sub.add_argument("--yes", action="store_true", help="upload, tag, and pin the revisions in the manifest")
    sub.add_argument("--onto", default="", metavar="COMMIT", help="replace what somebody else pushed with this commit")
    _folders(sub, "runs")
    sub.add_argument("--figures", type=Path, metavar="DIR", help="committed records (REPRO_FIGURES, or figures)")
