"""Where data lies, and whether the network may be used: the one place that reads the environment.

- ``REPRO_CACHE``: the cache folder, ``~/.cache/repro`` by default.
- ``REPRO_MIRROR``: a folder that holds files under the names that the cards give them; it is looked at first.
- ``REPRO_OFFLINE=1``: nothing is fetched over the network.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["NoHomeError", "cache_root", "data_roots", "expanded", "is_junk", "listed", "mirror_root", "offline"]

# What file managers leave in folders and archives, in lower case.
JUNK = {".ds_store", "thumbs.db", "desktop.ini", "ehthumbs.db", "__macosx"}


class NoHomeError(OSError):
    """A folder below a home directory, for a user who has none."""


def expanded(folder: str | Path, advice: str = "name the whole path") -> Path:
    """A folder with ``~`` expanded.

    Raises:
        NoHomeError: If the user has no home directory, with the advice.
    """
    try:
        return Path(folder).expanduser()
    except RuntimeError:
        raise NoHomeError(f"{folder} is below a home directory, and this user has none; {advice}") from None


def cache_root() -> Path:
    """The cache folder.

    Raises:
        NoHomeError: If ``REPRO_CACHE`` names none, and the user has no home directory.
    """
    return expanded(os.environ.get("REPRO_CACHE") or "~/.cache/repro", "REPRO_CACHE names another folder")


def mirror_root() -> Path | None:
    """The local mirror, None where there is none.

    Raises:
        ValueError: If ``REPRO_MIRROR`` names no folder.
    """
    value = os.environ.get("REPRO_MIRROR")
    if not value:
        return None
    folder = expanded(value)
    if not folder.is_dir():
        raise ValueError(f"REPRO_MIRROR is {value!r}, which is no folder")
    return folder


def data_roots() -> list[Path]:
    """Folders that may hold a dataset's files: the mirror, if there is one, then the downloads."""
    return [root for root in (mirror_root(), cache_root() / "downloads") if root is not None]


def is_junk(path: Path) -> bool:
    """Whether a file or folder is one that a file manager left: ``._3.png``, ``Thumbs.db``, ``.DS_Store``, ..."""
    return path.name.startswith("._") or path.name.lower() in JUNK


def listed(folder: Path, *, below: bool = False) -> list[Path]:
    """Files and folders in a folder, by name, without what a file manager left; none where there is no such folder.

    Arguments:
        folder: The folder.
        below: Whether to list all that lies below it.
    """
    if not folder.is_dir():
        return []
    found = folder.rglob("*") if below else folder.iterdir()
    return sorted(p for p in found if not any(map(is_junk, (p, *p.relative_to(folder).parents))))


def offline() -> bool:
    """Whether the network must not be used.

    Raises:
        ValueError: If ``REPRO_OFFLINE`` is neither 0 nor 1.
    """
    value = os.environ.get("REPRO_OFFLINE") or "0"
    if value not in ("0", "1"):
        raise ValueError(f"REPRO_OFFLINE is {value!r}, must be 0 or 1")
    return value == "1"
