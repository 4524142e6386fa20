"""Models of one's own on the Hub, by its own client: fetched at one commit with every hash checked, and pushed."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token, hf_hub_download
from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import disable_progress_bars, logging

from repro.errors import HubError
from repro.weights.endpoint import endpoint, one_line
from repro.weights.folder import CONFIG, WEIGHTS, check_pickles

__all__ = ["content_hash", "fetch", "push_files"]


def _offline() -> bool:
    return any(os.environ.get(n, "").upper() in ("1", "ON", "YES", "TRUE") for n in ("REPRO_OFFLINE", "HF_HUB_OFFLINE"))


def _client() -> HfApi:
    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        disable_progress_bars()
    return HfApi(endpoint=endpoint(), library_name="repro")


def content_hash(content: bytes, expected: str) -> str:
    """SHA-256 in hexadecimal, or git's SHA-1 of the object where what the Hub states is that, or is empty.

    Arguments:
        content: Of a file.
        expected: What it is going to be compared with.
    """
    if len(expected) == 64:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def fetch(repo: str, revision: str | None = None) -> dict[str, bytes]:
    """Configuration and weights of a repository, from one commit, through the Hub's own cache.

    What the Hub lists is looked at first: a repository that holds what may be a pickle is refused before anything is
    downloaded, and nothing but the two files ever is. Both are checked against the hashes that the Hub states for the
    commit, at every load; without the network, against those that they were cached under.

    Arguments:
        repo: ``"user/name"``.
        revision: A branch, tag or commit; ``"main"`` if None.

    Raises:
        HubError: If it cannot be had; it says why.
        ValueError: If it holds no saved model, or what may be a pickle.
    """
    where = f"{repo} at revision {revision or 'main'}"
    try:
        return _cached(repo, revision, where) if _offline() else _fetched(repo, revision, where)
    except HubError:
        raise
    except (HTTPError, OSError, RuntimeError) as error:
        raise HubError(f"{where} cannot be fetched from {endpoint()}: {one_line(error)}") from None


def _cached(repo: str, revision: str | None, where: str) -> dict[str, bytes]:
    contents = {}
    for file in (CONFIG, WEIGHTS):
        try:
            path = Path(hf_hub_download(repo, file, revision=revision, local_files_only=True))
        except LocalEntryNotFoundError:
            raise HubError(f"{where} is not in the Hub's cache, and the network is forbidden (offline)") from None
        contents[file] = path.read_bytes()
        if path.is_symlink() and content_hash(contents[file], name := path.resolve().name) != name:
            raise HubError(f"{where}: {file} in the Hub's cache is damaged; load it once with the network")
    return contents


def _fetched(repo: str, revision: str | None, where: str) -> dict[str, bytes]:
    api = _client()
    commit = api.repo_info(repo, revision=revision).sha
    listed = {f.path: f for f in api.list_repo_tree(repo, recursive=True, revision=commit) if isinstance(f, RepoFile)}
    check_pickles(sorted(listed), where)
    if missing := [file for file in (CONFIG, WEIGHTS) if file not in listed]:
        raise ValueError(f"{where} is no saved model: it has no {' and no '.join(missing)}")
    contents = {}
    for file in (CONFIG, WEIGHTS):
        lfs = listed[file].lfs
        expected = lfs.sha256 if lfs is not None else listed[file].blob_id
        for forced in (False, True):
            path = api.hf_hub_download(repo, file, revision=commit, force_download=forced)
            contents[file] = Path(path).read_bytes()
            if (found := content_hash(contents[file], expected)) == expected:
                break
        else:
            raise HubError(f"{where}: {file} has hash {found}, the Hub says {expected}; it was downloaded twice")
    if revision != commit:
        _remember(repo, revision or "main", str(commit))
    return contents


def _remember(repo: str, revision: str, commit: str) -> None:
    """Which commit a branch or tag was, as the client's cache keeps it, for later without the network."""
    refs = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="model") / "refs" / revision
    refs.parent.mkdir(parents=True, exist_ok=True)
    if not refs.is_file() or refs.read_text(encoding="utf-8") != commit:
        refs.write_text(commit)


def push_files(repo: str, contents: Mapping[str, bytes], *, message: str, private: bool | None = None) -> str:
    """Uploads files in one commit on top of the one that was there, and gives the commit's address.

    What the repository holds already is not sent again. A push by someone else in between is refused, not overwritten;
    a README that is there stays.

    Arguments:
        repo: ``"user/name"``; it is made where there is none.
        contents: Path to content.
        message: Of the commit.
        private: Whether a new repository is; the account's default if None.

    Raises:
        HubError: If there is no token, or the upload fails; nothing is committed in parts.
    """
    if _offline():
        raise HubError(f"{repo} is not pushed to: the network is forbidden (offline)")
    if not get_token():
        raise HubError("no token for the Hub; set HF_TOKEN or run `hf auth login`")
    api = _client()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        before = api.repo_info(repo)
        held = {f.rfilename for f in before.siblings or ()}
        operations = [
            CommitOperationAdd(path_in_repo=path, path_or_fileobj=content)
            for path, content in contents.items()
            if not (path == "README.md" and path in held)
        ]
        done: Any = api.create_commit(repo, operations, commit_message=message, parent_commit=before.sha)
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        raise HubError(f"push to {repo} at {endpoint()} failed: {one_line(error)}; nothing was committed") from None
    return str(done.commit_url)
