"""The commands ``repro data`` that need no torch: list, fetch, verify, card."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from repro import datasets
from repro.datasets.card import Card, card_names, card_text, load_card
from repro.datasets.fetch import FetchError, fetch
from repro.datasets.places import cache_root
from repro.datasets.states import (
    BASES,
    IN_MEMORY,
    check_prepared,
    check_sources,
    files_at,
    placed_folder,
    prepared_splits,
    state_of,
)
from repro.errors import UsageError, suggestion
from repro.report.text import columns, size_text

__all__ = ["card_of", "fetch_files", "licence", "list_datasets", "one_of", "print_card", "shown_options", "verify"]


def one_of(what: str, word: str, known: Sequence[str], where: str = "") -> str:
    """The word itself.

    Raises:
        UsageError: If it is none of those known.
    """
    if word in known:
        return word
    raise UsageError(f"unknown {what} {word!r}{where}; {suggestion(word, known, '' if known else 'it has none')}")


def card_of(name: str) -> Card:
    """The card of a dataset that a command names.

    Raises:
        UsageError: If there is none.
    """
    return load_card(one_of("dataset", name, list(card_names())))


def list_datasets(options: argparse.Namespace) -> None:
    """Prints every dataset with its state: the command ``repro data list``."""
    rows = [("dataset", "state", "prepared", "on disk", "download", "licence", "may be passed on")]
    for card in map(load_card, card_names()):
        state = state_of(card)
        ready = "-" if card.name in IN_MEMORY else f"{state.ready}/{len(card.splits)}"
        download = size_text(state.download) if state.download else "-"
        if state.unstated:
            download = f"over {download}" if state.download else "unstated"
        disk = size_text(state.disk) if state.disk else "-"
        rows.append((card.name, state.word, ready, disk, download, licence(card), _yes(card.redistributable)))
    print("\n".join(columns(rows)))


def licence(card: Card) -> str:
    """Name of a dataset's licence."""
    return str(card.header.get("license_name", card.license))


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def fetch_files(options: argparse.Namespace) -> None:
    """Downloads what a dataset is made from: the command ``repro data fetch``.

    Raises:
        UsageError: If there is no such dataset.
        OSError: If a file cannot be had.
    """
    card = card_of(options.name)
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
        own = card.sources[0].filename.split("/")[0] if card.sources else card.name
        print(f"{card.manual}\nThe folder of downloads is {cache_root() / 'downloads'}, its part {own}.")
    if failed:
        raise OSError(f"{card.name} is not all there: {'; '.join(failed)}")


def verify(options: argparse.Namespace) -> None:
    """Checks every source and every prepared split: the command ``repro data verify``.

    Raises:
        UsageError: If there is no such dataset.
        ValueError: If a file is not what its card states.
    """
    names = list(card_names()) if options.name is None else [card_of(options.name).name]
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
    found = []
    for source, path, problems in check_sources(card):
        stated = ", ".join(source.hashes) or ("size" if source.bytes is not None else "nothing stated to check it by")
        print(f"{card.name}  {path}  {'; '.join(problems) or f'sound ({stated})'}")
        found.append((str(path), problems))
    for split in prepared_splits(card):
        problems = check_prepared(card, split)
        about = shown_options(split.provenance.get("options", {}))
        count = f"{split.provenance.get('count', 0):,} samples"
        old = "" if split.current or problems else ", of an earlier card, not used any more"
        digest = f"sound, sha256 {split.provenance.get('sha256')}{old}"
        print(f"{card.name}  {split.split}{about}  {count}  {'; '.join(problems) or digest}")
        found.append((f"{split.split}{about} in {split.folder}", problems))
    return found


def _verify_generated(card: Card) -> list[tuple[str, list[str]]]:
    found = []
    for split in card.splits:
        known = datasets.load_dataset(card.name, split).provenance
        problems = [f"sha256 {known['sha256']} is not the card's"] if known.get("matches_card") is False else []
        print(
            f"{card.name}  {split}  generated anew  {problems[0] if problems else 'sound, sha256 ' + known['sha256']}"
        )
        found.append((split, problems))
    return found


def shown_options(options: Mapping[str, Any]) -> str:
    """The options of a loader as an addition to a split's name."""
    shown = ", ".join(f"{k}={v}" for k, v in options.items() if k != "weights")
    return f" ({shown})" if shown else ""


def print_card(options: argparse.Namespace) -> None:
    """Prints a dataset's card, or its citations alone: the command ``repro data card``."""
    card = card_of(options.name)
    print("\n\n".join(card.citations.values()) if options.bibtex else card_text(card.name).rstrip())
