"""Extraction of zip and tar archives that trusts nothing in them."""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from filelock import FileLock

__all__ = ["ArchiveError", "extract"]

CHUNK = 1 << 20


class ArchiveError(ValueError):
    """An archive is damaged, or holds what must not be extracted."""


def extract(archive: Path, folder: Path, *, max_bytes: int = 64 << 30, max_files: int = 2_000_000) -> Path:
    """Extracts regular files and folders of a zip or tar archive.

    Everything goes to a temporary folder beside ``folder`` that is moved into place at the end, so ``folder`` is either
    absent or whole. An archive with one bad member is refused as a whole.

    Arguments:
        archive: A zip file, or a tar file, compressed or not.
        folder: Where its content goes; returned at once if it exists.
        max_bytes: Limit of the extracted bytes, counted as they are written, whatever the headers claim.
        max_files: Limit of the number of members.

    Raises:
        ArchiveError: If a member's path is absolute, leaves the folder or occurs twice, if it is a link, a device or
            encrypted, if a limit is passed, or if the archive is damaged or of another kind.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if folder.is_dir():
            return folder
        temporary = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".partial", dir=folder.parent))
        try:
            _extract_into(archive, temporary, max_bytes, max_files)
            os.chmod(temporary, 0o755)
            os.replace(temporary, folder)
        except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError) as error:
            raise ArchiveError(f"{archive.name} is damaged: {error}") from error
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise ArchiveError(f"{archive.name}: two members claim one path ({error})") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _extract_into(archive: Path, folder: Path, max_bytes: int, max_files: int) -> None:
    if zipfile.is_zipfile(archive):
        members = _zip_members(archive)
    elif tarfile.is_tarfile(archive):
        members = _tar_members(archive)
    else:
        raise ArchiveError(f"{archive.name} is neither a zip nor a tar archive")
    left, seen = max_bytes, set()
    for name, content in members:
        path = _safe(archive, name)
        if path in seen and content is not None:
            raise ArchiveError(f"{archive.name}: member {name!r} occurs twice")
        seen.add(path)
        if len(seen) > max_files:
            raise ArchiveError(f"{archive.name}: more than {max_files} members")
        target = folder.joinpath(*path.parts)
        if content is None:
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with content, open(target, "xb") as file:
            while chunk := content.read(min(CHUNK, left + 1)):
                left -= len(chunk)
                if left < 0:
                    raise ArchiveError(f"{archive.name}: more than {max_bytes} bytes when extracted")
                file.write(chunk)


def _safe(archive: Path, name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    drive = len(name) > 1 and name[1] == ":"
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or drive:
        raise ArchiveError(f"{archive.name}: member {name!r} leaves the folder")
    return path


def _zip_members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise ArchiveError(f"{archive.name}: member {info.filename!r} is a link or a device")
            if info.flag_bits & 1:
                raise ArchiveError(f"{archive.name}: member {info.filename!r} is encrypted")
            # orig_filename keeps what ZipFile cuts off at a NUL or rewrites.
            yield info.orig_filename, None if info.is_dir() else file.open(info)


def _tar_members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    with tarfile.open(archive, "r:*") as file:
        for info in file:
            if not (info.isreg() or info.isdir()):
                raise ArchiveError(f"{archive.name}: member {info.name!r} is a link or a device")
            yield info.name, None if info.isdir() else file.extractfile(info)
