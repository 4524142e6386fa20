"""The commands ``repro data``: list, fetch, verify, build, show, card, push."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.cli.data_push import licence, push, size_text, verdict
from repro.datasets.card import Card, card_names, card_text, load_card

if TYPE_CHECKING:
    from repro.datasets.base import Dataset

__all__ = ["add_data_commands", "run_data"]


def add_data_commands(commands: Any) -> None:
    """Adds ``data`` and its commands.

    Arguments:
        commands: What ``add_subparsers`` of the command's parser gave.
    """
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


def run_data(options: argparse.Namespace) -> None:
    """Runs one of the commands.

    Raises:
        UsageError: If a name, a split or an option is unknown or malformed.
        ValueError: If data is not what it should be; OSError if it cannot be had. The message is one line.
    """
    actions: dict[str, Callable[[argparse.Namespace], None]] = {
        "list": _list, "fetch": _fetch, "verify": _verify, "build": _build, "show": _show, "card": _card, "push": _push,
    }  # fmt: skip
    try:
        actions[options.action](options)
    except KeyboardInterrupt:
        print("repro: interrupted; the same command continues", file=sys.stderr)
        raise SystemExit(130) from None


def _wrong(message: str) -> Exception:
    from repro.errors import UsageError

    return UsageError(message)


def _known(what: str, word: str, known: list[str], where: str = "") -> str:
    if word in known:
        return word
    near = get_close_matches(word, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"one of {', '.join(known)}" if known else "it has none"
    raise _wrong(f"unknown {what} {word!r}{where}; {hint}")


def _load_card(name: str) -> Card:
    return load_card(_known("dataset", name, list(card_names())))


def _split_of(card: Card, split: str) -> str:
    return _known("split", split, list(card.splits), f" of {card.name}")


def _list(options: argparse.Namespace) -> None:
    from repro.datasets.states import IN_MEMORY, state_of

    rows = [("dataset", "state", "prepared", "on disk", "download", "licence", "may be passed on")]
    for card in map(load_card, card_names()):
        state = state_of(card)
        ready = "-" if card.name in IN_MEMORY else f"{state.ready}/{len(card.splits)}"
        download = size_text(state.download) if state.download else "-"
        if state.unstated:
            download = f"over {download}" if state.download else "unstated"
        disk = size_text(state.disk) if state.disk else "-"
        rows.append((card.name, state.word, ready, disk, download, licence(card), _yes(card.redistributable)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _fetch(options: argparse.Namespace) -> None:
    from repro.datasets.fetch import FetchError, fetch
    from repro.datasets.places import cache_root
    from repro.datasets.states import BASES, files_at, placed_folder

    card = _load_card(options.name)
    failed: list[str] = []
    for part in (*(load_card(base) for base in BASES.get(card.name, ())), card):
        for source in part.sources:
            try:
                # A file that only a person can place matters where the card names no other way.
                if source.urls or files_at(source):
                    path = fetch(source)
                    print(f"{source.filename}  {size_text(path.stat().st_size)}  {path}")
                    continue
                print(f"{source.filename}  not there, and the card gives no address")
                if not any(other.urls for other in part.sources):
                    failed.append(f"{source.filename} has to be placed by hand")
            except FetchError as error:
                print(f"{source.filename}  failed")
                failed.append(str(error))
    if not card.sources and card.manual:
        if (folder := placed_folder(card)) is not None:
            print(f"{card.name}  placed by hand  {folder}")
        else:
            failed.append("it has to be placed by hand")
    elif not card.sources:
        print(f"{card.name}  generated; `repro data build {card.name}`")
    if failed and card.manual:
        print(f"{card.manual}\nThe folder of downloads is {cache_root() / 'downloads'}, its part {card.name}.")
    if failed:
        raise OSError(f"{card.name} is not all there: {'; '.join(failed)}")


def _verify(options: argparse.Namespace) -> None:
    from repro.datasets.states import IN_MEMORY

    names = list(card_names()) if options.name is None else [_load_card(options.name).name]
    checked, wrong = 0, []
    for card in map(load_card, names):
        found = _verify_generated(card) if card.name in IN_MEMORY else _verify_files(card)
        checked += len(found)
        wrong += [f"{card.name} {what}: {'; '.join(problems)}" for what, problems in found if problems]
        if not found:
            print(f"{card.name}  nothing available")
            if options.name is not None:
                wrong.append(f"{card.name}: nothing available; `repro data build {card.name}`")
    if wrong:
        raise ValueError(f"{len(wrong)} of {max(checked, len(wrong))} wrong: {' | '.join(wrong)}")


def _verify_files(card: Card) -> list[tuple[str, list[str]]]:
    from repro.datasets.states import check_prepared, check_sources, prepared_splits

    found = []
    for source, path, problems in check_sources(card):
        stated = ", ".join(source.hashes) or ("size" if source.bytes is not None else "nothing stated to check it by")
        print(f"{card.name}  {path}  {'; '.join(problems) or f'sound ({stated})'}")
        found.append((str(path), problems))
    for split in prepared_splits(card):
        problems = check_prepared(card, split)
        about = _words(split.provenance.get("options", {}))
        count = f"{split.provenance.get('count', 0):,} samples"
        old = "" if split.current or problems else ", of an earlier card, not used any more"
        digest = f"sound, sha256 {split.provenance.get('sha256')}{old}"
        print(f"{card.name}  {split.split}{about}  {count}  {'; '.join(problems) or digest}")
        found.append((f"{split.split}{about} in {split.folder}", problems))
    return found


def _verify_generated(card: Card) -> list[tuple[str, list[str]]]:
    from repro.datasets import load_dataset

    found = []
    for split in card.splits:
        known = load_dataset(card.name, split).provenance
        problems = [f"sha256 {known['sha256']} is not the card's"] if known.get("matches_card") is False else []
        print(
            f"{card.name}  {split}  generated anew  {problems[0] if problems else 'sound, sha256 ' + known['sha256']}"
        )
        found.append((split, problems))
    return found


def _words(options: Mapping[str, Any]) -> str:
    shown = ", ".join(f"{k}={v}" for k, v in options.items() if k != "weights")
    return f" ({shown})" if shown else ""


def _options(card: Card, given: list[str]) -> dict[str, Any]:
    """What ``--option KEY=VALUE`` says, each value of the type of the loader's default."""
    if not given:
        return {}
    from repro.datasets.registry import options_of

    defaults, found = options_of(card.name), {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals:
            raise _wrong(f"--option {text!r} is not KEY=VALUE")
        found[key] = _typed(_known("option", key, list(defaults), f" of {card.name}"), value, defaults[key])
    return found


def _typed(key: str, value: str, default: Any) -> Any:
    kind = int if default is None else type(default)  # the one default of None is a number of samples
    if kind is bool:
        if value.lower() not in ("true", "false", "1", "0"):
            raise _wrong(f"--option {key}={value}: {value!r} is not true or false")
        return value.lower() in ("true", "1")
    try:
        return kind(value)
    except ValueError:
        raise _wrong(f"--option {key}={value}: {value!r} is not of type {kind.__name__}") from None


def _load(card: Card, split: str, options: Mapping[str, Any]) -> Dataset:
    from repro.datasets import load_dataset

    print(f"loading {card.name} {split}{_words(options)}", file=sys.stderr)
    return load_dataset(card.name, split, **options)


def _build(options: argparse.Namespace) -> None:
    card = _load_card(options.name)
    splits = list(card.splits) if options.split is None else [_split_of(card, options.split)]
    chosen, wrong = _options(card, options.option), []
    for split in splits:
        start = time.perf_counter()
        dataset = _load(card, split, chosen)
        seconds = time.perf_counter() - start
        sound, words = verdict(card, dataset)
        print(f"{card.name}  {split}  {len(dataset):,} samples  {seconds:.1f} s  {words}", flush=True)
        if not sound:
            wrong.append(f"{card.name} {split}")
    if wrong:
        raise ValueError(f"{', '.join(wrong)}: built, but not what the card states")


def _show(options: argparse.Namespace) -> None:
    from io import BytesIO

    card = _load_card(options.name)
    split = _split_of(card, options.split or ("test" if "test" in card.splits else next(iter(card.splits))))
    output = options.output or Path(f"{card.name}-{split}.png")
    if output.suffix.lower() != ".png":
        raise _wrong(f"--output is {str(output)!r}, must end in .png")
    if options.columns < 1:
        raise _wrong(f"--columns is {options.columns}, must be at least 1")
    samples = None
    if options.samples is not None:
        if not re.fullmatch(r"\d+(,\d+)*", options.samples):
            raise _wrong(f"--samples is {options.samples!r}, must be numbers such as 0,5,12")
        samples = [int(n) for n in options.samples.split(",")]
    chosen = _options(card, options.option)

    from repro.datasets.sheet import contact_sheet
    from repro.engine.store import write_atomically

    dataset = _load(card, split, chosen)
    if outside := [n for n in samples or () if n >= len(dataset)]:
        raise _wrong(f"{card.name} {split} has {len(dataset)} samples, there is no sample {outside[0]}")
    buffer = BytesIO()
    contact_sheet(dataset, samples, columns=options.columns).save(buffer, "PNG")
    write_atomically(output, buffer.getvalue())
    print(output)


def _card(options: argparse.Namespace) -> None:
    card = _load_card(options.name)
    print("\n\n".join(card.citations.values()) if options.bibtex else card_text(card.name).rstrip())


def _push(options: argparse.Namespace) -> None:
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", options.repo, re.ASCII):
        raise _wrong(f"the repository is {options.repo!r}, must be such as user/name")
    push(_load_card(options.name), options.repo, upload=options.yes)
