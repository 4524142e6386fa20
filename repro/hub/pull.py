"""Weights from the Hub into the cache: resumed across processes, verified, whole or not at all, each once.

The Hub's client gives addresses, sessions, listings and errors; the transfer of a file is written here because
``hf_hub_download`` (huggingface_hub 2.4) begins a file anew after a kill, after an error, and after a cut within its
blocks of 10 MB, and ends at a passing status 503.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from repro import __version__
from repro.datasets.download import Policy
from repro.datasets.places import cache_root
from repro.engine.store import file_sha256, write_atomically
from repro.errors import HubError
from repro.hub.config import FILES, PICTURE, check_files, offline
from repro.hub.manifest import Entry
from repro.weights.endpoint import endpoint, one_line

__all__ = ["POLICY", "cached", "problems", "pull"]

POLICY = Policy(timeout=20.0, attempts=3, backoff=0.5)
RETRIED = {408, 425, 429, 500, 502, 503, 504}
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class _Wanted:
    """The files of one commit: size, and hash of the content (or of git's object where the Hub states no other)."""

    commit: str
    bytes: Mapping[str, int]
    hashes: Mapping[str, str]


def _folder(entry: Entry, commit: str) -> Path:
    return cache_root() / "weights" / entry.name / commit


def _digest(path: Path, expected: str) -> str:
    """SHA-256 in hexadecimal, or git's SHA-1 of the object where that is what is expected."""
    if len(expected) == 64:
        return file_sha256(path)
    return hashlib.sha1(b"blob %d\0" % path.stat().st_size + path.read_bytes()).hexdigest()


def _problem(path: Path, size: int, expected: str, thorough: bool) -> str:
    """What is wrong with a file, empty if nothing is."""
    if not path.is_file():
        return f"{path.name} is missing"
    if (found := path.stat().st_size) != size:
        return f"{path.name} has {found} bytes, expected {size}"
    if thorough and (digest := _digest(path, expected)) != expected:
        return f"{path.name} has hash {digest}, expected {expected}"
    return ""


def _listed(folder: Path, wanted: _Wanted, thorough: bool) -> list[str]:
    found = (_problem(folder / f, wanted.bytes[f], wanted.hashes[f], thorough) for f in FILES)
    return [problem for problem in found if problem]


def _known(entry: Entry, revision: str | None) -> _Wanted | None:
    """The files of a revision as far as this machine knows them: the pinned ones, or those of an earlier pull."""
    if revision in (None, entry.revision):
        return _Wanted(entry.revision, *entry.on_the_hub) if entry.revision else None
    try:
        commit = revision if COMMIT.fullmatch(str(revision)) else _refs(entry)[f"{entry.repo}@{revision}"]
        value = json.loads((_folder(entry, commit) / "files.json").read_text(encoding="utf-8"))
        return _Wanted(commit, value["bytes"], value["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _refs(entry: Entry) -> dict[str, str]:
    """Which commit each repository's revision was when it was pulled."""
    try:
        found = json.loads((cache_root() / "weights" / entry.name / "refs.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(k): v for k, v in found.items() if isinstance(v, str) and COMMIT.fullmatch(v)}


def cached(entry: Entry, revision: str | None = None) -> tuple[Path, Mapping[str, str]] | None:
    """Folder and hashes of weights that lie in the cache with their right sizes, None if they do not."""
    wanted = _known(entry, revision)
    if wanted is None or _listed(_folder(entry, wanted.commit), wanted, thorough=False):
        return None
    return _folder(entry, wanted.commit), wanted.hashes


def problems(entry: Entry) -> list[str]:
    """What is wrong with the pinned files in the cache; an empty list if nothing is.

    Arguments:
        entry: The model.
    """
    wanted = _known(entry, None)
    if wanted is None:
        return ["the manifest pins no revision"]
    return _listed(_folder(entry, wanted.commit), wanted, thorough=True)


def pull(
    entry: Entry, revision: str | None = None, *, thorough: bool = True, policy: Policy = POLICY
) -> tuple[Path, Mapping[str, str]]:
    """Puts the files of a model into the cache, and says where they lie and what their hashes are.

    What is there and sound is left as it is. A download goes to a partial file, which a later process resumes; it is
    moved into place once its hash is the manifest's. Processes that want the same files wait for the first of them.

    Arguments:
        entry: The model.
        revision: A tag, branch or commit; the pinned commit if None. The files of another commit are checked against
            the hashes that the Hub states for it, and later against those of the first pull.
        thorough: Whether to hash files that are in the cache already, and not only look at their sizes.
        policy: How patient to be with the server.

    Returns:
        The folder, and the SHA-256 of each file.

    Raises:
        HubError: If the files cannot be had: it says from where, why, and what to do.
        ValueError: If the repository's folder holds what no model has, such as a pickle.
    """
    wanted = _known(entry, revision)
    if wanted is not None and not _listed(_folder(entry, wanted.commit), wanted, thorough):
        return _folder(entry, wanted.commit), wanted.hashes
    if not entry.repo:
        raise HubError(f"{entry.name} is not on the Hub: the manifest gives no repository")
    if off := offline():
        what = "not in the cache"
        if wanted is not None and (folder := _folder(entry, wanted.commit)).is_dir():
            what = f"not whole in the cache ({'; '.join(_listed(folder, wanted, thorough))})"
        option = f" --revision {revision}" if revision else ""
        raise HubError(
            f"{entry.name} at revision {revision or entry.revision} of {entry.repo} is {what} and {off}; with the "
            f"network run `repro weights pull {entry.name}{option}`"
        )
    try:
        pinned = revision in (None, entry.revision)
        if not pinned:
            wanted = _resolve(entry, str(revision))
        assert wanted is not None
        folder = _folder(entry, wanted.commit)
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            _download(entry, wanted, folder, policy)
            if not pinned:
                wanted = _remember(entry, str(revision), wanted, folder)
    except OSError as error:
        if isinstance(error, HubError):
            raise
        raise HubError(f"{entry.name}: {one_line(error)}") from None
    return folder, wanted.hashes


def _resolve(entry: Entry, revision: str) -> _Wanted:
    """Commit and files of a revision, as the Hub states them."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError
    from huggingface_hub.hf_api import RepoFile

    api = HfApi(endpoint=endpoint(), library_name="repro", library_version=__version__)
    try:
        commit = str(api.model_info(entry.repo, revision=revision, timeout=POLICY.timeout).sha)
        if not COMMIT.fullmatch(commit):
            raise HubError(f"{entry.repo}@{revision} at {endpoint()}: its commit is {commit!r}, no hash")
        found = api.list_repo_tree(entry.repo, entry.name, revision=commit, recursive=True)
        listed = {x.path.removeprefix(f"{entry.name}/"): x for x in found if isinstance(x, RepoFile)}
    except HTTPError as error:
        raise HubError(_reason(entry, revision, error)) from None
    check_files(listed, f"{entry.repo}@{revision}: {entry.name}")
    listed.pop(PICTURE, None)
    hashes = {f: x.lfs.sha256 if x.lfs is not None else x.blob_id for f, x in listed.items()}
    return _Wanted(commit, {f: x.size for f, x in listed.items()}, hashes)


def _remember(entry: Entry, revision: str, wanted: _Wanted, folder: Path) -> _Wanted:
    """Notes what was pulled, so that it is found and verified without the Hub."""
    known = _Wanted(wanted.commit, wanted.bytes, {f: file_sha256(folder / f) for f in FILES})
    noted = {"repo": entry.repo, "bytes": dict(known.bytes), "sha256": dict(known.hashes)}
    write_atomically(folder / "files.json", json.dumps(noted, indent=1) + "\n")
    refs = _refs(entry) | {f"{entry.repo}@{revision}": wanted.commit}
    write_atomically(folder.parent / "refs.json", json.dumps(refs, indent=1) + "\n")
    return known


def _reason(entry: Entry, revision: str, error: Exception) -> str:
    """One line on an answer of the Hub, or on its absence."""
    from huggingface_hub import errors

    where = f"{entry.name}: {entry.repo}@{revision} at {endpoint()}"
    code = getattr(getattr(error, "response", None), "status_code", None)
    if code in (401, 403):
        return f"{where}: not allowed, or there is no such repository ({code}); check HF_TOKEN or `hf auth whoami`"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{where}: the repository has no such revision"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{where}: no such repository; if it is private, set HF_TOKEN or run `hf auth login`"
    if isinstance(error, errors.EntryNotFoundError):
        return f"{where}: the repository has no {entry.name}, or a file of it is missing"
    if code is not None:
        return f"{where}: status {code}"
    return f"{where} cannot be reached ({one_line(error)}); what was received is kept and the same command resumes"


def _download(entry: Entry, wanted: _Wanted, folder: Path, policy: Policy) -> None:
    """Every file that is not there or not sound."""
    from tqdm import tqdm

    left = [f for f in FILES if _problem(folder / f, wanted.bytes[f], wanted.hashes[f], thorough=True)]
    total = sum(wanted.bytes[f] for f in left)
    if left and not sys.stderr.isatty():
        print(f"fetching {entry.name}, {total / 1e6:.1f} MB, from {entry.repo} at {endpoint()}", file=sys.stderr)
    with tqdm(total=total, desc=entry.name, unit="B", unit_scale=True, disable=None) as bar:
        for file in left:
            _Transfer(entry, wanted, folder / file, policy, bar).run()


class _Transfer:
    """One file over HTTP by the Hub client's session, resumed where the connection or an earlier process ended."""

    def __init__(self, entry: Entry, wanted: _Wanted, target: Path, policy: Policy, bar: Any) -> None:
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers

        self.entry, self.wanted, self.target, self.policy, self.bar = entry, wanted, target, policy, bar
        self.size, self.expected = wanted.bytes[target.name], wanted.hashes[target.name]
        self.partial = target.with_name(f".{target.name}.partial")
        path = f"{entry.name}/{target.name}"
        self.url = hf_hub_url(entry.repo, path, revision=wanted.commit, endpoint=endpoint())
        self.headers = build_hf_headers(library_name="repro", library_version=__version__)
        self.headers |= {"Accept-Encoding": "identity"}

    def have(self) -> int:
        """Bytes of the partial file."""
        return self.partial.stat().st_size if self.partial.exists() else 0

    def run(self) -> None:
        """Puts the file into place.

        Raises:
            HubError: If the server does not give it, or gives another one.
        """
        resumed = self.have() > 0
        self._complete()
        if (digest := _digest(self.partial, self.expected)) != self.expected and resumed:
            self.partial.unlink()  # what the earlier process left may be what is wrong: once more from the start
            self._complete()
            digest = _digest(self.partial, self.expected)
        if digest != self.expected:
            self.partial.unlink()
            raise HubError(
                f"{self.entry.name}: {self.url} has hash {digest}, expected {self.expected}; nothing of it was kept"
            )
        os.replace(self.partial, self.target)

    def _complete(self) -> None:
        from huggingface_hub.errors import HfHubHTTPError, HTTPError

        fruitless, before = 0, self.have()
        self.bar.update(before)
        while self.have() < self.size or not self.partial.exists():
            error: Exception
            try:
                self._receive()
                error = HTTPError(f"the connection ended after {self.have()} of {self.size} bytes")
            except HfHubHTTPError as refused:
                if refused.response.status_code not in RETRIED:
                    raise HubError(_reason(self.entry, self.wanted.commit, refused)) from None
                error = refused
            except HTTPError as cut:
                error = cut
            if self.have() == self.size:
                break
            fruitless = 1 if self.have() > before else fruitless + 1
            before = self.have()
            if fruitless >= self.policy.attempts:
                raise HubError(_reason(self.entry, self.wanted.commit, error))
            time.sleep(min(self.policy.backoff * 2 ** (fruitless - 1), self.policy.longest_wait))

    def _receive(self) -> None:
        """One request for what is left."""
        from huggingface_hub.utils import get_session, hf_raise_for_status

        have = self.have()
        if have > self.size:
            self.partial.unlink()
            have = 0
        headers = self.headers | ({"Range": f"bytes={have}-"} if have else {})
        with get_session().stream("GET", self.url, headers=headers, timeout=self.policy.timeout) as response:
            if response.status_code >= 400:
                response.read()
            if response.status_code == 416:
                self.partial.unlink(missing_ok=True)
                return
            hf_raise_for_status(response)
            ranged = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            start = have if response.status_code == 206 and ranged else 0
            if response.status_code == 206 and not ranged:
                self.partial.unlink(missing_ok=True)
                return
            self.bar.update(start - have)
            with open(self.partial, "ab" if start else "wb") as file:
                # Unbuffered chunks, as they arrive: a cut or a kill loses nothing that was received.
                for chunk in response.iter_raw():
                    file.write(chunk)
                    file.flush()
                    self.bar.update(len(chunk))
                    if file.tell() > self.size:
                        break
        if self.have() > self.size:
            self.partial.unlink()
            raise HubError(f"{self.entry.name}: {self.url} has more than {self.size} bytes; nothing of it was kept")
