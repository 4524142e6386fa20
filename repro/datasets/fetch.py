"""Verified files from a local mirror or the network, kept in the cache of :mod:`repro.datasets.places`."""

from __future__ import annotations

import gzip
import hashlib
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pooch
from filelock import FileLock

from repro.datasets.card import Card, Source
from repro.datasets.download import Policy, ResumingDownloader
from repro.datasets.places import cache_root, data_roots, listed, mirror_root, offline

__all__ = [
    "FetchError",
    "NotPlacedError",
    "fetch",
    "placed",
    "placed_by_hand",
    "problems_of",
    "sha256_of",
    "unpack_gzip",
]

pooch.get_logger().setLevel("ERROR")


class FetchError(OSError):
    """A file could not be had from any of its sources."""


class NotPlacedError(FetchError):
    """A person has to place the data, and has not."""

    final = True  # trying once more changes nothing


def problems_of(path: Path, source: Source) -> list[str]:
    """What tells a file from the one that its card describes; an empty list if nothing does.

    Arguments:
        path: The file.
        source: Size and digests as the card states them.
    """
    found = path.stat().st_size
    problems = [] if source.bytes in (None, found) else [f"{found} bytes, expected {source.bytes}"]
    for kind, expected in source.hashes.items():
        try:
            digest = _digest(path, kind)
        except (OSError, EOFError, zlib.error) as error:
            problems.append(f"{kind} cannot be computed ({error})")
            continue
        if digest != expected:
            problems.append(f"{kind} {digest}, expected {expected}")
    return problems


def fetch(source: Source, *, policy: Policy | None = None) -> Path:
    """Path of a verified file: from the cache, the mirror, or the first address that serves it.

    A file of the mirror is used where it lies. A download goes to a partial file beside its target, which a later
    process resumes; it is moved into place once its digests are right. Two processes fetch a file once.

    Arguments:
        source: The file.
        policy: How patient to be with each address.

    Raises:
        FetchError: If no place has the file; it lists every place that was tried and what was wrong there.
    """
    tried: list[str] = []
    if (mirror := mirror_root()) is not None and _usable(mirror / source.filename, source, tried):
        return mirror / source.filename
    target = cache_root() / "downloads" / source.filename
    if _usable(target, source, tried):
        return target
    if offline():
        raise _error(source, [*tried, "the network: REPRO_OFFLINE is 1"])
    if not source.urls:
        raise _error(source, [*tried, "the network: the card gives no address"])
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if target.exists() and not problems_of(target, source):
            return target  # another process fetched it meanwhile
        target.unlink(missing_ok=True)
        for url in source.urls:
            if not sys.stderr.isatty():
                print(f"fetching {source.filename} from {url}", file=sys.stderr)
            try:
                pooch.retrieve(
                    url,
                    known_hash=_known_hash(source),
                    fname=target.name,
                    path=target.parent,
                    downloader=ResumingDownloader(target, source.bytes, lambda p: problems_of(p, source), policy),
                )
                return target
            except (OSError, ValueError) as error:
                if target.exists() or not str(error):
                    raise
                tried.append(f"{url}: {error}")
    raise _error(source, tried)


def placed(name: str, complete: Callable[[Path], bool] = Path.is_dir) -> Path | None:
    """Folder ``name`` of the mirror or of the downloads if it is complete, None if neither is."""
    for root in data_roots():
        if complete(root / name):
            return root / name
    return None


def placed_by_hand(card: Card, complete: Callable[[Path], bool], needs: Sequence[str]) -> Path:
    """Folder of a dataset that a person has to obtain.

    Arguments:
        card: The dataset's card, whose ``manual`` says how.
        complete: Whether a folder holds what the loader reads.
        needs: What the loader looks for, in words or patterns.

    Raises:
        NotPlacedError: If no folder holds it; it says what to do, where it was looked for and what was found.
    """
    if (folder := placed(card.name, complete)) is not None:
        return folder
    found = []
    for root in data_roots():
        folder = root / card.name
        names = [p.name for p in listed(folder)] if folder.is_dir() else None
        listing = "no such folder" if names is None else ", ".join(names[:12]) + (" ..." if len(names) > 12 else "")
        found.append(f"{folder}: {listing or 'empty'}")
    raise NotPlacedError(
        f"{card.name} is placed by hand. {card.manual} Expected in {cache_root() / 'downloads' / card.name}: "
        f"{'; '.join(needs)}. Found in {' | '.join(found)}"
    )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, for the provenance of what the card states no digest of."""
    return _digest(path, "sha256")


def unpack_gzip(path: Path) -> bytes:
    """The content of a file, decompressed if its name ends in .gz."""
    if path.suffix != ".gz":
        return path.read_bytes()
    with gzip.open(path, "rb") as file:
        return file.read()


def _usable(path: Path, source: Source, tried: list[str]) -> bool:
    if not path.is_file():
        tried.append(f"{path}: not there")
        return False
    if problems := problems_of(path, source):
        tried.append(f"{path}: {'; '.join(problems)}")
        return False
    return True


def _error(source: Source, tried: list[str]) -> FetchError:
    return FetchError(f"cannot get {source.filename}; tried " + " | ".join(tried))


def _known_hash(source: Source) -> str | None:
    for kind in ("sha256", "md5"):
        if kind in source.hashes:
            return f"{kind}:{source.hashes[kind]}"
    return None


def _digest(path: Path, kind: str) -> str:
    if kind in ("sha256", "md5"):
        return pooch.file_hash(str(path), alg=kind)
    if kind == "git_blob":
        digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
        digest.update(path.read_bytes())
        return digest.hexdigest()
    digest = hashlib.new(kind.removeprefix("raw_"), usedforsecurity=False)
    with gzip.open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
