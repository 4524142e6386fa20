"""Cards of datasets, targets, the command line and the API as pages, each from where it is stated."""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from repro.cli.main import parser

# Packages whose public names the API shows, in the order of the layers; the others are what commands are made of.
SHOWN = (
    ("Data", ("datasets",)),
    ("Models", ("model", "papers", "baselines", "networks")),
    ("Distributions", ("distributions",)),
    ("Metrics", ("metrics",)),
    ("Training", ("training",)),
    ("Records and tables", ("records", "errors", "report")),
    ("Weights", ("weights", "hub")),
    ("Runs", ("engine",)),
    ("Tables, figures and claims", ("artifacts",)),
)
# Datasets that a person has to fetch, shown by the miniature that the tests read; tests/support/sheets.py draws all.
MINIATURES = ("biked", "celebamask_hq", "mhd", "mlomics")
MINIATURE_SAID = (
    "The data has to be fetched by a person. This is the miniature that the tests read through its loader: the "
    "published format, with patterns instead of pictures or measurements."
)
# What the pages of the API open with: whose classes theirs are made of.
OPENING = {
    "Models": "Baselines are those of multivae ({py:class}`~multivae.models.MVAE`, {py:class}`~multivae.models.MMVAE`, "
    "{py:class}`~multivae.models.MMVAEPlus`, {py:class}`~multivae.models.MoPoE`), with every field of their "
    "configuration pinned; all are {py:class}`torch.nn.Module`.",
    "Weights": "Commits, downloads and their cache are those of huggingface_hub ({py:class}`huggingface_hub.HfApi`).",
}


def pages(root: Path) -> Iterator[tuple[str, str]]:
    """Every page's name and text."""
    yield from _cards(root)
    yield "commands", _commands()
    yield "targets", (root / "figures" / "targets.md").read_text(encoding="utf-8")
    yield from _api(root)


def _cards(root: Path) -> Iterator[tuple[str, str]]:
    names = []
    for path in sorted((root / "data_cards").glob("*.md")):
        front, body = path.read_text(encoding="utf-8").removeprefix("---\n").split("\n---\n", 1)
        card = yaml.safe_load(front)
        own = card["repro"]
        names.append((path.stem, card["pretty_name"]))
        title, _, text = body.strip().partition("\n")
        shapes = ["| modality | shape | kind | range | unit |", "|:--|:--|:--|:--|:--|"]
        for name, m in own.get("modalities", {}).items():
            reach = " to ".join(map(str, m.get("range") or ()))
            cells = (name, _cell(m.get("shape", "")), _cell(m.get("kind", "")), reach, _cell(m.get("unit", "")))
            shapes.append("| " + " | ".join(cells) + " |")
        splits = ["| split | samples | SHA-256 |", "|:--|--:|:--|"]
        for name, split in own.get("splits", {}).items():
            hashed = str(split.get("sha256", ""))
            splits.append(f"| {name} | {split.get('count', '')} | {f'`{hashed[:16]}…`' if hashed else '—'} |")
        licence = card.get("license_name") or card.get("license", "unknown")
        lines = [title, "", f'`repro.load_dataset("{path.stem}", split=...)`; licence: {licence}.', ""]
        lines += [f"![Samples of {card['pretty_name']}](../../_static/sheets/{path.stem}.png)", ""]
        drawn = f"Samples of the test split, evenly spread over it: `repro data show {path.stem} --columns 8`."
        lines += [f"*{MINIATURE_SAID if path.stem in MINIATURES else drawn}*", ""]
        lines += [*shapes, ""] if len(shapes) > 2 else []
        lines += [*splits, ""] if len(splits) > 2 else []
        if traps := own.get("traps"):
            lines += ["**Beware**", "", *(f"- {' '.join(str(t).split())}" for t in traps), ""]
        if former := own.get("former"):
            told = (f"- {path.stem}, {' '.join(str(one['what']).split())}" for one in former)
            lines += ["**Changed since some runs were recorded**, which their tables say:", "", *told, ""]
        yield f"datasets/{path.stem}", "\n".join([*lines, _local(text)]) + "\n"
    lines = ["# Datasets", "", "`repro data list` says which of them are on this machine; every page is the card that"]
    lines += ["the loader reads.", "", *(f"- [{title}]({name}.md)" for name, title in names), ""]
    yield "datasets/index", "\n".join([*lines, "```{toctree}", ":hidden:", "", *(n for n, _ in names), "```", ""])


def _cell(value: object) -> str:
    if isinstance(value, list):
        return " × ".join(map(str, value)) if all(isinstance(v, int) for v in value) else ", ".join(map(str, value))
    return str(value).replace("|", r"\|")


def _local(text: str) -> str:
    """Links of a card to files of the repository as code."""
    return re.sub(r"\[([^\]]*)\]\((?!https?:|#)([^)]*)\)", r"\1", text)


def _commands() -> str:
    lines = ["# Commands", "", "Made from the parser of the command line; `repro COMMAND --help` prints the same.", ""]
    return "\n".join(lines + _command(parser(), 2)) + "\n"


def _command(found: argparse.ArgumentParser, level: int) -> list[str]:
    lines = [f"{'#' * level} {found.prog}", ""]
    if found.description:
        text = found.description
        lines += [text[0].upper() + text[1:] + ("" if text.endswith(".") else "."), ""]
    children = []
    for action in found._actions:  # argparse has no public list of its options
        if isinstance(action, argparse._SubParsersAction):
            children += list(dict.fromkeys(action.choices.values()))
            continue
        if isinstance(action, argparse._HelpAction):
            continue
        names = ", ".join(action.option_strings) or str(action.metavar or action.dest)
        if action.option_strings and action.nargs != 0:
            choices = "|".join(map(str, action.choices or ()))
            names += f" {action.metavar or choices or action.dest.upper()}"
        said = (action.help or "").replace("%(default)s", str(action.default)).replace("%(prog)s", found.prog)
        said = re.sub(r"([<*_])", r"\\\1", said)
        said = re.sub(r"(?<![-`A-Za-z])(--[a-z][a-z-]*)", r"`\1`", said)
        lines.append(f"- `{names}`: {said}")
    lines.append("")
    for child in children:
        lines += _command(child, min(level + 1, 4))
    return lines


def _modules(root: Path, package: str) -> Iterator[tuple[str, list[str]]]:
    """Modules of a package that declare public names, and the names that they only pass on."""
    path = root / "repro" / package
    files = [path.with_suffix(".py")] if not path.is_dir() else sorted(path.rglob("*.py"))
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        named = any(isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == "__all__" for n in tree.body)
        if named and file.stem not in ("__main__", "__init__"):
            passed = [a.asname or a.name for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names]
            yield ".".join(file.relative_to(root).with_suffix("").parts), passed


def _api(root: Path) -> Iterator[tuple[str, str]]:
    toc = []
    for title, packages in SHOWN:
        page = title.lower().replace(" ", "-").replace(",", "")
        lines = [f"# {title}", "", *([OPENING[title], ""] if title in OPENING else [])]
        for package in packages:
            for module, passed in _modules(root, package):
                lines += [f"## `{module}`", "", "```{eval-rst}", f".. automodule:: {module}", "   :members:"]
                lines += [f"   :exclude-members: {', '.join(passed)}", "```", ""]
        yield f"api/{page}", "\n".join(lines)
        toc.append(page)
    lines = ["# API", "", "Every public name of the package, from its docstrings.", ""]
    lines += [f"- [{title}]({page}.md)" for (title, _), page in zip(SHOWN, toc, strict=True)]
    yield "api/index", "\n".join([*lines, "", "```{toctree}", ":hidden:", "", *toc, "```", ""])
