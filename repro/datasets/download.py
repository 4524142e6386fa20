"""A resuming HTTP downloader, for what pooch's own lacks: Range across processes, stalls, lengths that lie."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import requests
from tqdm import tqdm
from urllib3.exceptions import HTTPError

__all__ = ["DownloadError", "Policy", "ResumingDownloader"]

CHUNK = 1 << 18
RETRIED = {408, 425, 429, 500, 502, 503, 504}


class DownloadError(OSError):
    """A download failed for good at one address."""


@dataclass(frozen=True)
class Policy:
    """How patient a download is.

    Arguments:
        timeout: Seconds without a byte after which a connection counts as stalled.
        attempts: Successive attempts that bring no new byte before an address is given up.
        backoff: Seconds before the second of them, doubled from one to the next.
        longest_wait: Limit of that, and of what a server asks for by Retry-After, in seconds.
    """

    timeout: float = 20.0
    attempts: int = 4
    backoff: float = 0.5
    longest_wait: float = 30.0


class ResumingDownloader:
    """Downloads to a partial file beside the target, and resumes what an earlier process left there.

    It has the signature of pooch's downloaders. The partial file belongs to one address, because two addresses may
    serve equivalent files of different bytes.

    Arguments:
        target: The file that is to be.
        size: Its size in bytes, None where unknown.
        check: Returns what is wrong with a complete file, an empty list if nothing is.
        policy: How patient to be.
    """

    def __init__(
        self, target: Path, size: int | None, check: Callable[[Path], list[str]], policy: Policy | None = None
    ) -> None:
        self.target = target
        self.size = size
        self.check = check
        self.policy = policy or Policy()

    def partial_of(self, url: str) -> Path:
        """The partial file of one address."""
        return self.target.with_name(f"{self.target.name}.{crc32(url.encode()):08x}.partial")

    def __call__(self, url: str, output_file: str, pooch: Any = None) -> None:
        """Downloads ``url`` to ``output_file``.

        Raises:
            DownloadError: If the address does not answer with the file.
            ValueError: If what it serves is not the file that the card describes; the partial file is dropped.
        """
        partial = self.partial_of(url)
        resumed = partial.exists() and partial.stat().st_size > 0
        self._complete(url, partial)
        if (problems := self.check(partial)) and resumed:
            # What the earlier process left may be what is wrong: once more from the start.
            self._drop(partial)
            self._complete(url, partial)
            problems = self.check(partial)
        if problems:
            self._drop(partial)
            raise ValueError("; ".join(problems))
        self._tag(partial).unlink(missing_ok=True)
        os.replace(partial, output_file)

    def _complete(self, url: str, partial: Path) -> None:
        fruitless, wait = 0, self.policy.backoff
        with requests.Session() as session, self._bar(url, partial) as bar:
            while True:
                before = _length(partial)
                asked = None
                try:
                    if self._receive(session, url, partial, bar):
                        return
                    reason = f"the connection ended after {_length(partial)} bytes"
                except (requests.RequestException, HTTPError) as error:
                    reason = f"{type(error).__name__} after {_length(partial)} bytes"
                except _Busy as busy:
                    reason, asked = str(busy), busy.retry_after
                if _length(partial) > before:
                    fruitless, wait = 0, self.policy.backoff
                fruitless += 1
                if fruitless >= self.policy.attempts:
                    raise DownloadError(reason)
                time.sleep(min(wait if asked is None else asked, self.policy.longest_wait))
                wait *= 2

    def _receive(self, session: requests.Session, url: str, partial: Path, bar: tqdm) -> bool:
        """One request; whether the file is complete after it."""
        have = _length(partial)
        if self.size is not None and have == self.size:
            return True
        headers = {"Accept-Encoding": "identity", "User-Agent": "repro-datasets"}
        tag = self._tag(partial)
        if have:
            headers["Range"] = f"bytes={have}-"
            if tag.exists():
                headers["If-Range"] = tag.read_text(encoding="ascii")
        with session.get(url, headers=headers, stream=True, timeout=self.policy.timeout) as response:
            status = response.status_code
            if status == 416 and have:
                # Nothing lies beyond what is here: the file is complete, or it is another one than before.
                if response.headers.get("Content-Range") == f"bytes */{have}":
                    return True
                self._drop(partial)
                return False
            if status in RETRIED:
                after = response.headers.get("Retry-After", "")
                raise _Busy(f"status {status}", float(after) if after.isdigit() else None)
            if status not in (200, 206):
                raise DownloadError(f"status {status}")
            if status == 206 and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                self._drop(partial)
                return False
            start = have if status == 206 else 0
            announced = response.headers.get("Content-Length", "")
            end = start + int(announced) if announced.isdigit() else None
            if start == 0:
                self._remember(tag, response.headers.get("ETag", ""))
            with open(partial, "ab" if start else "wb") as file:
                bar.reset(total=self.size or end)
                bar.update(start)
                # read1 hands over what has arrived, so that a stall loses nothing.
                while chunk := response.raw.read1(CHUNK, decode_content=False):
                    file.write(chunk)
                    bar.update(len(chunk))
                    if self.size is not None and file.tell() > self.size:
                        break
        have = _length(partial)
        if self.size is not None:
            if have > self.size:
                self._drop(partial)
                raise DownloadError(f"more than the {self.size} bytes that the card states")
            return have == self.size
        return end is None or have >= end

    def _bar(self, url: str, partial: Path) -> tqdm:
        return tqdm(
            total=self.size, initial=_length(partial), desc=self.target.name, unit="B", unit_scale=True, disable=None
        )

    @staticmethod
    def _tag(partial: Path) -> Path:
        return partial.with_name(partial.name + ".etag")

    @staticmethod
    def _remember(tag: Path, value: str) -> None:
        # Only a strong validator tells that two ranges belong to one version of a file.
        if value.startswith('"') and value.isascii():
            tag.write_text(value, encoding="ascii")
        else:
            tag.unlink(missing_ok=True)

    def _drop(self, partial: Path) -> None:
        partial.unlink(missing_ok=True)
        self._tag(partial).unlink(missing_ok=True)


class _Busy(Exception):
    """The server asks to come back later."""

    def __init__(self, reason: str, retry_after: float | None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
