"""How many tumours of each class an omics cohort has; for the pan-cancer one its list of samples is enough."""

from __future__ import annotations

import csv
import io
from collections import Counter

import torch

from repro.datasets.card import Card, load_card
from repro.datasets.fetch import FetchError, fetch, unpack_gzip
from repro.datasets.registry import load_dataset

__all__ = ["class_counts", "read_samples"]

LIST = "samples"  # the group of a card's source that lists samples and their classes


def read_samples(content: bytes, where: str) -> dict[str, str]:
    """Reads a list of samples: a header of ``sample,cancer``, then one sample a row.

    Arguments:
        content: The CSV's bytes.
        where: The file's name, for messages.

    Returns:
        Sample to class.

    Raises:
        ValueError: If the header is another one, a cell is empty, or a sample occurs twice; it names the row.
    """
    rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig").rstrip())))
    if not rows or rows[0] != ["sample", "cancer"]:
        raise ValueError(f"{where}: the header is {rows[:1]}, expected sample,cancer")
    found: dict[str, str] = {}
    for number, row in enumerate(rows[1:], 2):
        if len(row) != 2 or not all(cell.strip() for cell in row):
            raise ValueError(f"{where}: row {number} is {row}, expected a sample and its class")
        if row[0] in found:
            raise ValueError(f"{where}: row {number}: sample {row[0]!r} occurs twice")
        found[row[0]] = row[1]
    return found


def class_counts(name: str) -> dict[str, int]:
    """Number of samples of each class over all splits, the largest class first, equal ones by name.

    They are read from the card's list of samples where it has one, which is small and needs no expression levels; else
    from the labels of the splits.

    Arguments:
        name: The dataset's name.

    Raises:
        ValueError: If the dataset has no classes, or the list's classes or samples are not as many as the card's.
        FetchError: If the files are not available.
    """
    card = load_card(name)
    if not card.labels:
        raise ValueError(f"{name} has no classes to count")
    found = Counter(_listed(card) if any(s.group == LIST for s in card.sources) else _loaded(card))
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _listed(card: Card) -> list[str]:
    (source,) = card.sources_of(LIST)
    try:
        path = fetch(source)
    except FetchError as error:
        raise FetchError(f"{error}. {card.manual}".removesuffix(". ")) from error
    classes = list(read_samples(unpack_gzip(path), path.name).values())
    stated = sum(s.count or 0 for s in card.splits.values())
    if (len(classes), len(set(classes))) != (stated, len(card.labels)):
        raise ValueError(
            f"{path.name}: {len(classes)} samples of {len(set(classes))} classes, the card of {card.name} has {stated} "
            f"of {len(card.labels)}"
        )
    return classes


def _loaded(card: Card) -> list[str]:
    labels = torch.cat([load_dataset(card.name, split).labels for split in card.splits])
    return [str(card.labels[i]) for i in labels.tolist()]
