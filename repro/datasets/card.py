"""Dataset cards: what a dataset is, where it comes from, how it is checked.

A card is a Hugging Face dataset card, Markdown with YAML front matter. The front matter's ``repro`` mapping holds the
fields of this package, and is the one place of URLs, hashes, counts, shapes, units, splits and citations.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

__all__ = [
    "Card",
    "Former",
    "Modality",
    "Source",
    "Split",
    "card_names",
    "card_text",
    "cards_directory",
    "load_card",
    "not_available",
    "parse_card",
]

FIELDS = {
    "loader", "redistributable", "modalities", "labels", "splits", "sources", "generation", "manual", "citations",
    "traps", "former",
}  # fmt: skip
REQUIRED = {"loader", "redistributable", "modalities", "splits", "citations"}
HEADER = {"pretty_name", "license", "size_categories", "task_categories", "tags"}
HEX = {"sha256": 64, "raw_sha256": 64, "md5": 32, "raw_md5": 32, "git_blob": 40}


@dataclass(frozen=True)
class Modality:
    """One modality as its card states it.

    Arguments:
        shape: The event shape.
        kind: ``"continuous"``, ``"image"``, ``"binary"`` or ``"audio"``.
        range: The closed interval of the values, None where unbounded.
        unit: The unit of the values.
    """

    shape: tuple[int, ...]
    kind: str = "continuous"
    range: tuple[float, float] | None = None
    unit: str = "1"


@dataclass(frozen=True)
class Split:
    """One split as its card states it.

    Arguments:
        count: Number of samples at the default options, None where only the placed files tell.
        sha256: Hash of the split at the default options, None where the card states none.
        sha256_of: Hashes of the split under other options, by the name of the variant.
    """

    count: int | None
    sha256: str | None = None
    sha256_of: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """One file to be obtained.

    Arguments:
        filename: Path of the file below the folder of downloads, and below a local mirror.
        urls: Addresses, tried in order; empty where the file is placed by hand.
        bytes: Size of the file, None where it is unknown or differs between equivalent files.
        hashes: Digest by kind: ``sha256`` and ``md5`` of the file, ``raw_sha256`` and ``raw_md5`` of its content after
            gzip, ``git_blob`` of the file as git names it.
        group: What the file belongs to, where a loader needs only some of a card's files.
    """

    filename: str
    urls: tuple[str, ...] = ()
    bytes: int | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)
    group: str = ""


@dataclass(frozen=True)
class Former:
    """Data that went by a dataset's name before.

    Arguments:
        what: How today's differ, as the rest of a sentence that begins with the dataset's name.
        sha256: Hashes of their training splits, under all options that were recorded.
    """

    what: str
    sha256: frozenset[str]


@dataclass(frozen=True)
class Card:
    """A dataset's card.

    Arguments:
        name: The dataset's name, that of the card's file.
        pretty_name: Its name in prose.
        license: Licence identifier as the Hub knows it.
        loader: Module of ``repro.datasets`` that loads it.
        redistributable: Whether a copy may be passed on.
        modalities: Name to :class:`Modality`, in order.
        labels: Names of the classes, empty where there are no labels.
        splits: Name to :class:`Split`.
        sources: Files to be obtained, empty for what is generated.
        generation: Parameters of the generator.
        manual: What a person does to obtain it, where no address gives the file itself.
        citations: Key to BibTeX entry.
        traps: What a user trips on.
        former: Data of that name that other versions of the package made, or obtained.
        header: The whole front matter.
        body: The Markdown below it.
    """

    name: str
    pretty_name: str
    license: str
    loader: str
    redistributable: bool
    modalities: Mapping[str, Modality]
    labels: tuple[str, ...]
    splits: Mapping[str, Split]
    sources: tuple[Source, ...]
    generation: Mapping[str, Any]
    manual: str
    citations: Mapping[str, str]
    traps: tuple[str, ...]
    former: tuple[Former, ...]
    header: Mapping[str, Any]
    body: str

    def sources_of(self, group: str) -> tuple[Source, ...]:
        """The card's sources of one group.

        Raises:
            ValueError: If there is none.
        """
        found = tuple(s for s in self.sources if s.group == group)
        if not found:
            raise ValueError(f"card {self.name}: no source of group {group!r}")
        return found


def cards_directory() -> Path:
    """Folder of the cards: beside the package in a checkout, inside it when installed from a wheel.

    Raises:
        FileNotFoundError: If it is in neither place.
    """
    package = Path(str(files("repro")))
    for folder in (package / "data_cards", package.parent / "data_cards"):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"no folder data_cards in {package} or {package.parent}")


@cache
def card_names() -> tuple[str, ...]:
    """Names of all cards, sorted."""
    return tuple(sorted(path.stem for path in cards_directory().glob("*.md") if path.stem != "README"))


def card_text(name: str) -> str:
    """The text of a dataset's card, front matter and all.

    Raises:
        ValueError: If there is no such card.
    """
    if name not in card_names():
        raise ValueError(f"no card {name!r} in {cards_directory()}; there are {', '.join(card_names())}")
    return (cards_directory() / f"{name}.md").read_text(encoding="utf-8")


@cache
def load_card(name: str) -> Card:
    """Reads the card of a dataset.

    Raises:
        ValueError: If there is no such card, or it is not a valid one.
    """
    return parse_card(card_text(name), name)


def not_available(name: str) -> str:
    """What a cell says whose data is placed by hand and is not there: the command, and what its card asks for."""
    manual = " ".join(load_card(name).manual.split())
    return f"data not available: `repro data fetch {name}` says where it is looked for. {manual}".rstrip()


def parse_card(text: str, name: str) -> Card:
    """Parses a card's text.

    Arguments:
        text: Markdown with YAML front matter.
        name: The dataset's name, for messages.

    Raises:
        ValueError: If the front matter is missing, is not YAML, lacks a field, or has one that is unknown or malformed.
    """
    where = f"card {name}"
    match = re.match(r"---\n(.*?)\n---\n(.*)\Z", text, re.DOTALL)
    if not match:
        raise ValueError(f"{where}: no YAML front matter between two lines of ---")
    try:
        header = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        raise ValueError(f"{where}: {' '.join(str(error).split())}") from error
    if not isinstance(header, dict) or not isinstance(header.get("repro"), dict):
        raise ValueError(f"{where}: the front matter has no mapping 'repro'")
    if missing := sorted(HEADER - set(header)):
        raise ValueError(f"{where}: the front matter lacks {', '.join(missing)}")
    own = header["repro"]
    if missing := sorted(REQUIRED - set(own)):
        raise ValueError(f"{where}: 'repro' lacks {', '.join(missing)}")
    if unknown := sorted(set(own) - FIELDS):
        raise ValueError(f"{where}: 'repro' has unknown fields {', '.join(unknown)}")
    if not isinstance(own["redistributable"], bool):
        raise ValueError(f"{where}: 'redistributable' is {own['redistributable']!r}, must be true or false")
    return Card(
        name=name,
        pretty_name=str(header["pretty_name"]),
        license=str(header["license"]),
        loader=str(own["loader"]),
        redistributable=own["redistributable"],
        modalities={str(m): _modality(value, f"{where}: modality {m}") for m, value in own["modalities"].items()},
        labels=tuple(str(label) for label in own.get("labels", ())),
        splits={str(s): _split(value, f"{where}: split {s}") for s, value in own["splits"].items()},
        sources=tuple(_source(value, where) for value in own.get("sources", ())),
        generation=dict(own.get("generation", {})),
        manual=str(own.get("manual", "")).strip(),
        citations={str(key): _bibtex(str(key), str(value), where) for key, value in own["citations"].items()},
        traps=tuple(str(trap) for trap in own.get("traps", ())),
        former=tuple(_former(value, where) for value in own.get("former") or ()),
        header=header,
        body=match[2].strip(),
    )


def _construct(kind: type, value: Any, where: str) -> Any:
    try:
        return kind(**value)
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from error


def _modality(value: Mapping[str, Any], where: str) -> Modality:
    modality = _construct(Modality, value, where)
    limits = modality.range
    if limits is not None and (len(limits) != 2 or not limits[0] < limits[1]):
        raise ValueError(f"{where}: range {limits} is not an interval")
    return Modality(
        shape=tuple(int(n) for n in modality.shape),
        kind=modality.kind,
        range=None if limits is None else (float(limits[0]), float(limits[1])),
        unit=str(modality.unit),
    )


def _split(value: Mapping[str, Any], where: str) -> Split:
    split = _construct(Split, value, where)
    if split.count is not None and (not isinstance(split.count, int) or split.count < 1):
        raise ValueError(f"{where}: count is {split.count!r}, must be a positive integer or null")
    for digest in filter(None, (split.sha256, *split.sha256_of.values())):
        _hex("sha256", digest, where)
    return split


def _source(value: Mapping[str, Any], where: str) -> Source:
    fields = dict(value)
    where = f"{where}: source {fields.get('filename', '?')}"
    hashes = {kind: _hex(kind, fields.pop(kind), where) for kind in HEX if kind in fields}
    fields["urls"] = tuple(fields.get("urls", ()))
    source = _construct(Source, {**fields, "hashes": hashes}, where)
    parts = Path(source.filename).parts
    if not parts or ".." in parts or Path(source.filename).is_absolute():
        raise ValueError(f"{where}: filename leaves the folder of downloads")
    return source


def _former(value: Mapping[str, Any], where: str) -> Former:
    former = _construct(Former, value, f"{where}: former")
    if not former.what or not isinstance(former.sha256, list) or not former.sha256:
        raise ValueError(f"{where}: 'former' needs what has changed, and a list of sha256")
    return Former(str(former.what), frozenset(_hex("sha256", digest, where) for digest in former.sha256))


def _hex(kind: str, digest: Any, where: str) -> str:
    if not re.fullmatch(rf"[0-9a-f]{{{HEX[kind]}}}", str(digest)):
        raise ValueError(f"{where}: {kind} {digest!r} is not {HEX[kind]} hexadecimal digits")
    return str(digest)


def _bibtex(key: str, entry: str, where: str) -> str:
    if not re.match(rf"@\w+\{{{re.escape(key)},", entry.strip()):
        raise ValueError(f"{where}: citation {key} does not open with its BibTeX key")
    return entry.strip()
