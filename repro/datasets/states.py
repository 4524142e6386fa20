"""What of a dataset lies on this machine: its sources, its prepared splits and their sizes. Needs no torch."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from repro.datasets.card import Card, Source, card_names, load_card
from repro.datasets.fetch import problems_of
from repro.datasets.places import cache_root, data_roots

__all__ = [
    "BASES", "IN_MEMORY", "PreparedSplit", "State", "against_card", "check_prepared", "check_sources", "files_at",
    "hash_arrays", "placed_folder", "prepared_folder", "prepared_splits", "sources_available", "state_of",
]  # fmt: skip

FORMAT = 1
LABELS = "labels"
# Drawn anew at every load, in a moment: never prepared.
IN_MEMORY = ("copula", "skewed_copula")
# Whose digits a dataset is made from.
BASES = {"extended_polymnist": ("mnist",), "mnist_triples": ("mnist",), "polymnist": ("mnist",)}
# Groups of sources each of which is enough for the loader's default options; elsewhere all that are not optional.
ENOUGH = {"biked_rendered": (("table",), ("designs",)), "polymnist": (("archive",),)}
OPTIONAL = ("substitute", "samples")
# Loaders that read a folder of the dataset's name, for want of any source or before their sources.
FOLDERS = ("biked", "celebamask_hq", "mhd", "polymnist")
UNFINISHED = (".lock", ".partial", ".etag")


@dataclass(frozen=True)
class PreparedSplit:
    """One prepared split in the cache.

    Arguments:
        name: The dataset.
        split: The split.
        folder: Where its arrays lie.
        manifest: What was noted when it was built, None where that cannot be read.
        current: Whether a load with these options would take it; False for what an earlier card described.
    """

    name: str
    split: str
    folder: Path
    manifest: Mapping[str, Any] | None
    current: bool

    @property
    def provenance(self) -> Mapping[str, Any]:
        """How the split came about, empty where the manifest cannot be read."""
        return self.manifest["provenance"] if self.manifest else {}

    @property
    def damage(self) -> str:
        """What tells from sizes alone that the split is not whole, empty if nothing does."""
        if self.manifest is None:
            return "manifest.json cannot be read"
        for array in self.manifest["arrays"].values():
            path = self.folder / array["file"]
            found = path.stat().st_size if path.is_file() else None
            if found != array["bytes"]:
                state = "is missing" if found is None else f"has {found} bytes, expected {array['bytes']}"
                return f"{array['file']} {state}"
        return ""


@dataclass(frozen=True)
class State:
    """What of a dataset is available.

    Arguments:
        word: ``"prepared"``: all splits are built; ``"generated"``: made on demand from what is available;
            ``"downloaded"``: its files are there; ``"missing"``: they can be downloaded; ``"by hand"``: a person has to
            obtain them.
        ready: Number of the card's splits that are prepared.
        disk: Bytes in the cache folder.
        download: Bytes of the sources that have an address, as far as the card states them.
        unstated: Number of sources with an address whose size the card does not state.
    """

    word: str
    ready: int
    disk: int
    download: int
    unstated: int


def prepared_folder(card: Card, split: str, options: Mapping[str, Any]) -> Path:
    """Folder of a prepared split; its name follows from the options and from what the card says of its making."""
    made_of = {
        "format": FORMAT,
        "split": split,
        "options": dict(options),
        "generation": dict(card.generation),
        "modalities": {m: [list(x.shape), x.kind, x.range] for m, x in card.modalities.items()},
        "sources": [[s.filename, dict(s.hashes)] for s in card.sources],
    }
    key = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
    return cache_root() / "prepared" / card.name / f"{split}-{key[:16]}"


def hash_arrays(folder: Path, names: Sequence[str]) -> str:
    """The fingerprint of a split, from its files: they hold little-endian values, and labels as int64."""
    digest = hashlib.sha256()
    for name in names:
        with open(folder / f"{name}.bin", "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def prepared_splits(card: Card) -> list[PreparedSplit]:
    """All prepared splits of a dataset, under whatever options they were built, in the card's order of splits."""
    found = []
    for folder in sorted((cache_root() / "prepared" / card.name).glob("*-*")):
        match = re.fullmatch(r"(.+)-[0-9a-f]{16}", folder.name)
        if match and folder.is_dir():
            manifest = _manifest(folder)
            found.append(PreparedSplit(card.name, match[1], folder, manifest, _is_current(card, folder, manifest)))
    order = list(card.splits)
    return sorted(found, key=lambda p: order.index(p.split) if p.split in order else len(order))


def against_card(card: Card, split: str, sha256: str, noted: bool | None = None) -> bool | None:
    """Whether a split's hash is one that the card states; None where it states none for such options.

    Arguments:
        card: The dataset's card.
        split: The split's name.
        sha256: The split's hash.
        noted: Whether it was the card's when it was built, None where the card stated none then.
    """
    stated = card.splits.get(split)
    if stated is not None and sha256 in (stated.sha256, *stated.sha256_of.values()):
        return True
    return None if noted is None else False


def check_prepared(card: Card, prepared: PreparedSplit) -> list[str]:
    """What is wrong with a prepared split: damaged, changed since it was built, or not what the card states."""
    if prepared.damage:
        return [prepared.damage]
    assert prepared.manifest is not None
    noted = prepared.provenance["sha256"]
    if (found := hash_arrays(prepared.folder, list(prepared.manifest["arrays"]))) != noted:
        return [f"sha256 {found}, built as {noted}"]
    if against_card(card, prepared.split, noted, prepared.provenance.get("matches_card")) is False:
        return [f"sha256 {noted} is not the card's"]
    return []


def check_sources(card: Card) -> list[tuple[Source, Path, list[str]]]:
    """Every file of a dataset's sources that is there, in the mirror or the downloads, with what is wrong with it."""
    return [(source, path, problems_of(path, source)) for source in card.sources for path in files_at(source)]


def files_at(source: Source) -> list[Path]:
    """Where a source's file is there: in the mirror, in the downloads, in both or in neither."""
    return [root / source.filename for root in data_roots() if (root / source.filename).is_file()]


def placed_folder(card: Card) -> Path | None:
    """The folder of a dataset's name that holds some file, where its loader reads such a folder."""
    if card.name not in FOLDERS:
        return None
    # Sources of other cards may lie in the same folder, as the table of biked_rendered does in that of biked.
    sources = {s.filename for name in card_names() for s in load_card(name).sources}
    for root in data_roots():
        names = [p.name for p in (root / card.name).glob("*")]
        if any(not n.endswith(UNFINISHED) and f"{card.name}/{n}" not in sources for n in names):
            return root / card.name
    return None


def sources_available(card: Card) -> bool:
    """Whether what the loader reads by default is there, by names and sizes alone: the loader checks the hashes."""
    needs_bases = card.name not in ENOUGH  # polymnist is published as a whole, and generated on demand
    if needs_bases and not all(sources_available(load_card(base)) for base in BASES.get(card.name, ())):
        return False
    if placed_folder(card) is not None:
        return True
    if not card.sources:
        return not card.manual
    return any(all(_is_available(card, s) for s in choice) for choice in _choices(card))


def state_of(card: Card) -> State:
    """What of a dataset is available, without reading its data."""
    ready = {p.split for p in prepared_splits(card) if p.current and not p.damage} & set(card.splits)
    listed = [s for s in card.sources if s.urls]
    if ready == set(card.splits):
        word = "prepared"
    elif sources_available(card):
        word = "downloaded" if card.sources or card.manual else "generated"
    elif any(all(s.urls or _is_available(card, s) for s in choice) for choice in _choices(card)):
        word = "missing"
    else:
        word = "by hand"
    download = sum(s.bytes or 0 for s in listed)
    return State(word, len(ready), _disk(card), download, sum(s.bytes is None for s in listed))


def _choices(card: Card) -> list[list[Source]]:
    """Sets of sources each of which is enough; none for what only a person can obtain."""
    if card.name in ENOUGH:
        return [[s for s in card.sources if s.group in groups] for groups in ENOUGH[card.name]]
    if not card.sources and card.manual:
        return []
    return [[s for s in card.sources if s.group not in OPTIONAL]]


def _is_available(card: Card, source: Source) -> bool:
    equivalent = [s for s in card.sources if s.filename.replace(".substitute.", ".") == source.filename]
    return any(s.bytes in (None, path.stat().st_size) for s in equivalent for path in files_at(s))


def _disk(card: Card) -> int:
    """Bytes of the dataset in the cache: prepared, extracted and downloaded, what is unfinished too."""
    root = cache_root()
    folders = [root / kind / card.name for kind in ("prepared", "extracted", "downloads")]
    files = {path for folder in folders for path in folder.rglob("*") if path.is_file()}
    for source in card.sources:
        path = root / "downloads" / source.filename
        files.update(p for p in path.parent.glob(f"{path.name}*") if p.is_file())
    return sum(path.stat().st_size for path in files)


def _manifest(folder: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        whole = all({"file", "bytes"} <= set(a) for a in manifest["arrays"].values())
        return manifest if whole and {"sha256", "options"} <= set(manifest["provenance"]) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _is_current(card: Card, folder: Path, manifest: Mapping[str, Any] | None) -> bool:
    if manifest is None:
        return False
    # A loader may leave out modalities; the folder's name then follows from those that it keeps.
    kept = {m: x for m, x in card.modalities.items() if m in manifest["arrays"]}
    split = folder.name.rpartition("-")[0]
    options = manifest["provenance"]["options"]
    return prepared_folder(replace(card, modalities=kept), split, options) == folder
