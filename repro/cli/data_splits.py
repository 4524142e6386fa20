"""The commands ``repro data build`` and ``repro data show``."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from repro.cli.data import card_of, one_of, shown_options
from repro.datasets import Dataset, load_dataset
from repro.datasets.card import Card
from repro.datasets.registry import options_of
from repro.datasets.sheet import contact_sheet
from repro.datasets.states import against_card
from repro.engine.store import write_atomically
from repro.errors import UsageError

__all__ = ["build", "show", "verdict"]


def _split_of(card: Card, split: str) -> str:
    return one_of("split", split, list(card.splits), f" of {card.name}")


def _options(card: Card, given: list[str]) -> dict[str, Any]:
    """What ``--option KEY=VALUE`` says, each value of the type of the loader's default."""
    if not given:
        return {}
    defaults, found = options_of(card.name), {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--option {text!r} is not KEY=VALUE")
        found[key] = _typed(one_of("option", key, list(defaults), f" of {card.name}"), value, defaults[key])
    return found


def _typed(key: str, value: str, default: Any) -> Any:
    kind = int if default is None else type(default)  # the one default of None is a number of samples
    if kind is bool:
        if value.lower() not in ("true", "false", "1", "0"):
            raise UsageError(f"--option {key}={value}: {value!r} is not true or false")
        return value.lower() in ("true", "1")
    try:
        return kind(value)
    except ValueError:
        raise UsageError(f"--option {key}={value}: {value!r} is not of type {kind.__name__}") from None


def _load(card: Card, split: str, options: Mapping[str, Any]) -> Dataset:
    print(f"loading {card.name} {split}{shown_options(options)}", file=sys.stderr)
    return load_dataset(card.name, split, **options)


def verdict(card: Card, dataset: Dataset) -> tuple[bool, str]:
    """Whether the card does not contradict a split's hash, and what to say of it."""
    known = dataset.provenance
    matches = against_card(card, dataset.split, known["sha256"], known.get("matches_card"))
    words = {True: "as the card states", False: "NOT what the card states", None: "the card states none for it"}
    return matches is not False, f"sha256 {known['sha256']}, {words[matches]}"


def build(options: argparse.Namespace) -> None:
    """Prepares splits and compares their hashes: the command ``repro data build``.

    Raises:
        UsageError: If a dataset, a split or an option is unknown.
        ValueError: If a split is not what the card states; OSError if it cannot be had.
    """
    card = card_of(options.name)
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


def show(options: argparse.Namespace) -> None:
    """Draws samples of a split to a PNG file: the command ``repro data show``.

    Raises:
        UsageError: If a dataset, a split, an option or a sample is unknown.
    """
    card = card_of(options.name)
    split = _split_of(card, options.split or ("test" if "test" in card.splits else next(iter(card.splits))))
    output = options.output or Path(f"{card.name}-{split}.png")
    if output.suffix.lower() != ".png":
        raise UsageError(f"--output is {str(output)!r}, must end in .png")
    if options.columns < 1:
        raise UsageError(f"--columns is {options.columns}, must be at least 1")
    samples = None
    if options.samples is not None:
        if not re.fullmatch(r"\d+(,\d+)*", options.samples):
            raise UsageError(f"--samples is {options.samples!r}, must be numbers such as 0,5,12")
        samples = [int(n) for n in options.samples.split(",")]
    chosen = _options(card, options.option)
    dataset = _load(card, split, chosen)
    if outside := [n for n in samples or () if n >= len(dataset)]:
        raise UsageError(f"{card.name} {split} has {len(dataset)} samples, there is no sample {outside[0]}")
    buffer = BytesIO()
    contact_sheet(dataset, samples, columns=options.columns).save(buffer, "PNG")
    write_atomically(output, buffer.getvalue())
    print(output)
