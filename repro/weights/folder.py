"""Where the weights that ship lie, and what the folder of a model may hold."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any

__all__ = ["CARD", "CONFIG", "PICKLES", "WEIGHTS", "check_pickles", "check_repo", "is_repo", "package_folder", "read"]

# Of a model that its user saves, as the Hub's libraries name them.
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
PICKLES = {".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".joblib", ".dill", ".npy", ".npz"}


_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.))*"


def package_folder() -> Path:
    """The package's own folder of weights."""
    return Path(str(files("repro.weights")))


def check_pickles(files: Iterable[str], where: str) -> None:
    """Refuses files of which one may hold a pickle.

    Raises:
        ValueError: If one does.
    """
    for file in files:
        if PurePosixPath(file).suffix.lower() in PICKLES:
            raise ValueError(f"{where}: {file!r} may hold a pickle, which is never opened; weights are safetensors")


def is_repo(repo: Any) -> bool:
    """Whether it can be the name of a repository of the Hub, ``user/name``."""
    return isinstance(repo, str) and re.fullmatch(f"{_WORD}/{_WORD}", repo) is not None


def check_repo(repo: Any, where: str = "weights") -> str:
    """The repository's name itself, ``user/name``.

    Raises:
        ValueError: If it is no such name.
    """
    if not is_repo(repo):
        raise ValueError(f"{where}: the repository is {repo!r}, must be such as user/name")
    return repo


def read(folder: Path) -> dict[str, bytes]:
    """Configuration and weights of a folder, each read once.

    Raises:
        ValueError: If one is missing or cannot be read, or a file may hold a pickle.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    check_pickles(sorted(p.name for p in folder.iterdir()), str(folder))
    found = {}
    for file in (CONFIG, WEIGHTS):
        try:
            found[file] = (folder / file).read_bytes()
        except OSError as error:
            raise ValueError(f"{folder} is no saved model: {file} cannot be read ({error.strerror})") from None
    return found
