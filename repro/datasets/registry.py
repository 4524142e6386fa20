"""``load_dataset``: any dataset of the four papers by its name."""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from typing import Any

from repro.datasets.base import Dataset
from repro.datasets.card import Card, card_names, load_card
from repro.errors import suggestion

__all__ = ["available", "load_dataset", "options_of"]


def available() -> list[str]:
    """Names of all datasets, sorted."""
    return list(card_names())


def options_of(name: str) -> dict[str, Any]:
    """Options of a dataset's loader, with their defaults.

    Raises:
        ValueError: If the dataset is unknown.
    """
    _check("dataset", name, available(), "")
    return _options(load_card(name))


def load_dataset(name: str, split: str = "train", **options: Any) -> Dataset:
    """Loads one split of a dataset as resident tensors.

    Arguments:
        name: One of :func:`available`.
        split: A split of the dataset's card.
        options: What the dataset's loader takes, such as ``seed``.

    Raises:
        ValueError: If name, split or option is unknown; it lists near matches. Whatever the loader finds wrong.
    """
    _check("dataset", name, available(), "")
    card = load_card(name)
    _check("split", split, list(card.splits), f" of {name}")
    for option in options:
        _check("option", option, list(_options(card)), f" of {name}")
    return import_module(f"repro.datasets.{card.loader}").load(card, split, **options)


def _options(card: Card) -> dict[str, Any]:
    load = import_module(f"repro.datasets.{card.loader}").load
    return {p.name: p.default for p in signature(load).parameters.values() if p.kind is p.KEYWORD_ONLY}


def _check(what: str, value: str, known: list[str], where: str) -> None:
    if value in known:
        return
    hint = suggestion(value, known, f"known: {', '.join(known) or 'none'}")
    raise ValueError(f"unknown {what} {value!r}{where}; {hint}")
