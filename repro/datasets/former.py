"""Whether what a record was trained on is still what its dataset is: data that the package draws can change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from repro.datasets.card import card_names, load_card

__all__ = ["changes", "changes_of", "said"]


def changes(data: Mapping[str, str]) -> dict[str, str]:
    """What has changed since in the data of a record, by dataset; empty where nothing has.

    A record says by what hash it knew its data. Those of training splits that went by a dataset's name before are in
    its card.

    Arguments:
        data: ``dataset/split`` to SHA-256, as records have it; datasets without a card are a reader's own.
    """
    found: dict[str, str] = {}
    for place, digest in data.items():
        dataset, _, split = place.partition("/")
        known = load_card(dataset).former if split == "train" and dataset in card_names() else ()
        if texts := [former.what for former in known if digest in former.sha256]:
            found[dataset] = texts[0]
    return found


def changes_of(records: Iterable[Mapping[str, str]]) -> str:
    """How many of several records are of data that have changed since, and how, as one part of a sentence; or nothing.

    Arguments:
        records: Their data.
    """
    every = [changes(data) for data in records]
    if not (changed := [found for found in every if found]):
        return ""
    are = "is" if len(changed) == 1 else "are"
    return f"{len(changed)} of {len(every)} runs {are} on data that have changed since: {said(*changed)}"


def said(*found: Mapping[str, str]) -> str:
    """What :func:`changes` found, of one record or of several, each change once."""
    return "; ".join(dict.fromkeys(f"{dataset}, {what}" for one in found for dataset, what in one.items()))
