"""Downloads from a server that misbehaves, hostile archives, and files placed by hand."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from repro.datasets.archive import ArchiveError, extract
from repro.datasets.card import Source, load_card
from repro.datasets.download import Policy
from repro.datasets.fetch import FetchError, fetch, placed_by_hand
from repro.datasets.places import cache_root, mirror_root, offline
from tests.support.server import Server

# Patient with a busy machine's server; only one that stalls, which is to be noticed, is waited for less.
QUICK = Policy(timeout=60.0, attempts=3, backoff=0.01, longest_wait=0.05)
STALLED = replace(QUICK, timeout=5.0)


def source_of(server: Server, *urls: str, **fields) -> Source:
    """The server's content as a card would describe it."""
    fields.setdefault("hashes", {"sha256": hashlib.sha256(server.content).hexdigest()})
    fields.setdefault("bytes", len(server.content))
    return Source("set/file.bin", urls, **fields)


def partials(cache: Path) -> list[Path]:
    """Partial and temporary files that were left."""
    return [p for p in (cache / "downloads" / "set").iterdir() if p.suffix != ".lock" and p.name != "file.bin"]


def test_plain_download(server: Server, cache: Path) -> None:
    source = source_of(server, server.url("a", "ok"))
    path = fetch(source, policy=QUICK)
    assert path == cache / "downloads" / "set" / "file.bin"
    assert path.read_bytes() == server.content
    assert partials(cache) == []
    fetch(source, policy=QUICK)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("behaviours", "ranges"),
    [
        (["cut:1000", "ok"], [None, "bytes=1000-"]),
        (["cut:1000", "cut:2000", "ok"], [None, "bytes=1000-", "bytes=3000-"]),
        (["stall:5000", "ok"], [None, "bytes=5000-"]),
        (["cut:1000", "no_range"], [None, "bytes=1000-"]),
        (["cut:1000", "wrong_range", "ok"], [None, "bytes=1000-", None]),
        (["503:1", "503", "ok"], [None, None, None]),
        (["long"], [None]),
        (["short", "ok"], [None, "bytes=150000-"]),
        (["no_length"], [None]),
    ],
)
def test_recovers(server: Server, cache: Path, behaviours: list[str], ranges: list[str | None]) -> None:
    source = source_of(server, server.url("a", *behaviours))
    policy = STALLED if any("stall" in b for b in behaviours) else QUICK
    assert fetch(source, policy=policy).read_bytes() == server.content
    assert [r.range for r in server.requests] == ranges
    assert partials(cache) == []


def test_unknown_size_is_complete_at_the_announced_length(server: Server, cache: Path) -> None:
    source = source_of(server, server.url("a", "cut:1000", "long", "ok"), bytes=None)
    assert fetch(source, policy=QUICK).read_bytes() == server.content
    # The lie of 100 bytes more is found out by asking for them: nothing lies there.
    assert [r.range for r in server.requests] == [None, "bytes=1000-", "bytes=300000-"]


def test_another_version_is_fetched_from_the_start(server: Server, cache: Path) -> None:
    source = source_of(server, server.url("a", "stall:1000", "ok"))
    with pytest.raises(FetchError):
        fetch(source, policy=replace(STALLED, attempts=1))
    server.etag = '"two"'
    assert fetch(source, policy=QUICK).read_bytes() == server.content
    assert server.requests[-1].if_range == '"one"'


def test_redirect(server: Server, cache: Path) -> None:
    server.url("b", "ok")
    assert fetch(source_of(server, server.url("a", "redirect:/b")), policy=QUICK).read_bytes() == server.content


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("404", "status 404"),
        ("503", "status 503"),
        ("corrupt", "sha256"),
        ("endless", "more than the 300000 bytes"),
        ("redirect:/a", "TooManyRedirects"),
        ("stall:0", "after 0 bytes"),
        ("cut:0", "after 0 bytes"),
    ],
)
def test_next_source_is_tried(server: Server, cache: Path, behaviour: str, message: str) -> None:
    bad, good = server.url("a", behaviour), server.url("b", "ok")
    policy = replace(STALLED, attempts=1) if "stall" in behaviour else QUICK
    assert fetch(source_of(server, bad, good), policy=policy).read_bytes() == server.content
    (cache / "downloads" / "set" / "file.bin").unlink()
    with pytest.raises(FetchError, match=message) as caught:
        fetch(source_of(server, bad), policy=policy)
    assert bad in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not any(p.stat().st_size for p in partials(cache) if p.suffix == ".partial")
    assert not (cache / "downloads" / "set" / "file.bin").exists()


def test_error_lists_every_place(server: Server, cache: Path, mirror: Path) -> None:
    (mirror / "set").mkdir()
    (mirror / "set" / "file.bin").write_bytes(b"other")
    urls = [server.url("a", "404"), server.url("b", "corrupt")]
    with pytest.raises(FetchError) as caught:
        fetch(source_of(server, *urls), policy=QUICK)
    for part in (*urls, str(mirror), "5 bytes, expected 300000", "status 404", "sha256"):
        assert part in str(caught.value)


def test_dead_server(cache: Path, server: Server) -> None:
    url = server.url("a", "ok")
    server.close()
    with pytest.raises(FetchError, match="ConnectionError"):
        fetch(source_of(server, url), policy=QUICK)


def test_wrong_partial_is_replaced(server: Server, cache: Path) -> None:
    source = source_of(server, server.url("a", "stall:1000", "ok"))
    with pytest.raises(FetchError):
        fetch(source, policy=replace(STALLED, attempts=1))
    (partial,) = (p for p in partials(cache) if p.suffix == ".partial")
    partial.write_bytes(b"\0" * 2000)
    assert fetch(source, policy=QUICK).read_bytes() == server.content
    assert [r.range for r in server.requests] == [None, "bytes=2000-", None]


def test_damaged_file_in_the_cache_is_fetched_again(server: Server, cache: Path) -> None:
    source = source_of(server, server.url("a", "ok"))
    fetch(source, policy=QUICK).write_bytes(b"damaged")
    assert fetch(source, policy=QUICK).read_bytes() == server.content


@pytest.mark.parametrize("kind", ["raw_md5", "raw_sha256"])
def test_content_of_gzip_is_what_counts(server: Server, cache: Path, kind: str) -> None:
    raw = server.content
    server.content = gzip.compress(raw, 1)
    digest = hashlib.new(kind.removeprefix("raw_"), raw).hexdigest()
    source = source_of(server, server.url("a", "ok"), hashes={kind: digest}, bytes=None)
    assert gzip.decompress(fetch(source, policy=QUICK).read_bytes()) == raw
    server.content = gzip.compress(raw + b"!", 1)
    bad = replace(source, filename="set/other.bin", urls=(server.url("b", "ok"),))
    with pytest.raises(FetchError, match=kind):
        fetch(bad, policy=QUICK)


def test_git_blob(server: Server, cache: Path) -> None:
    content = server.content
    digest = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    assert fetch(source_of(server, server.url("a", "ok"), hashes={"git_blob": digest}), policy=QUICK).is_file()


def test_mirror_comes_first_and_stays_untouched(server: Server, cache: Path, mirror: Path) -> None:
    (mirror / "set").mkdir()
    (mirror / "set" / "file.bin").write_bytes(server.content)
    assert fetch(source_of(server, server.url("a", "ok")), policy=QUICK) == mirror / "set" / "file.bin"
    assert server.requests == []
    assert not cache.exists()


def test_offline(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(server, server.url("a", "ok"))
    monkeypatch.setenv("REPRO_OFFLINE", "1")
    with pytest.raises(FetchError, match="REPRO_OFFLINE is 1"):
        fetch(source, policy=QUICK)
    assert server.requests == []
    monkeypatch.setenv("REPRO_OFFLINE", "0")
    fetch(source, policy=QUICK)
    monkeypatch.setenv("REPRO_OFFLINE", "1")
    assert fetch(source, policy=QUICK).read_bytes() == server.content


def test_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("REPRO_CACHE")
    assert cache_root() == Path.home() / ".cache" / "repro"
    monkeypatch.setenv("REPRO_MIRROR", str(tmp_path / "none"))
    with pytest.raises(ValueError, match="REPRO_MIRROR"):
        mirror_root()
    monkeypatch.setenv("REPRO_OFFLINE", "yes")
    with pytest.raises(ValueError, match="REPRO_OFFLINE"):
        offline()


SCRIPT = """
import json, sys
from repro.datasets.card import Source
from repro.datasets.download import Policy; from repro.datasets.fetch import fetch
fields = json.loads(sys.argv[1])
print(fetch(Source(**{**fields, "urls": tuple(fields["urls"])}), policy=Policy(timeout=300.0)))
"""


def start(source: Source) -> subprocess.Popen:
    """Another process that fetches the source."""
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    fields = json.dumps({**vars(source), "urls": list(source.urls)})
    return subprocess.Popen([sys.executable, "-c", SCRIPT, fields], env=environment, stderr=subprocess.PIPE)


def test_killed_process_is_resumed_by_another(server: Server, cache: Path) -> None:
    source = source_of(server, server.url("a", "stall:100000", "ok"))
    process = start(source)
    deadline = time.monotonic() + 240
    while not any(p.stat().st_size == 100_000 for p in cache.rglob("*.partial")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert fetch(source, policy=QUICK).read_bytes() == server.content
    assert [r.range for r in server.requests] == [None, "bytes=100000-"]


def test_two_processes_fetch_once(server: Server, cache: Path) -> None:
    source = source_of(server, server.url("a", "ok"))
    processes = [start(source), start(source)]
    assert [p.wait(240) for p in processes] == [0, 0]
    for process in processes:
        process.communicate()
    assert len(server.requests) == 1


def make_zip(path: Path, members: dict[str, bytes], mode: int = 0o100644) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(info, content)
    return path


def make_tar(path: Path, *members: tuple[str, bytes, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as file:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, len(content) if kind == tarfile.REGTYPE else 0
            info.linkname = "/etc/passwd" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            file.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.xz"])
def test_extracts(tmp_path: Path, kind: str) -> None:
    archive = tmp_path / f"a.{kind}"
    if kind == "zip":
        make_zip(archive, {"x/": b"", "x/y.txt": b"one", "z.txt": b"two"})
    else:
        mode = {"tar": "w:", "tar.gz": "w:gz", "tar.xz": "w:xz"}[kind]
        folder = ("x", tarfile.DIRTYPE, b"")
        make_tar(archive, folder, ("x/y.txt", tarfile.REGTYPE, b"one"), ("z.txt", tarfile.REGTYPE, b"two"), mode=mode)
    folder = extract(archive, tmp_path / "out")
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*")} == {"x", "x/y.txt", "z.txt"}
    assert (folder / "x" / "y.txt").read_bytes() == b"one"


REGULAR, LINK, HARD = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
HOSTILE = {
    "zip parent": lambda p: make_zip(p, {"ok": b"", "../evil": b"x"}),
    "zip absolute": lambda p: make_zip(p, {"/tmp/evil": b"x"}),
    "zip inside": lambda p: make_zip(p, {"a/../../evil": b"x"}),
    "zip backslash": lambda p: make_zip(p, {"..\\evil": b"x"}),
    "zip drive": lambda p: make_zip(p, {"C:evil": b"x"}),
    "zip link": lambda p: make_zip(p, {"link": b"/etc/passwd"}, mode=0o120777),
    "zip device": lambda p: make_zip(p, {"device": b""}, mode=0o020666),
    "zip file as folder": lambda p: make_zip(p, {"a": b"x", "a/b": b"x"}),
    "zip bomb": lambda p: make_zip(p, {"zeros": b"\0" * 2_000_000}),
    "zip too many": lambda p: make_zip(p, {f"{i}": b"" for i in range(101)}),
    "tar parent": lambda p: make_tar(p, ("../evil", REGULAR, b"x")),
    "tar absolute": lambda p: make_tar(p, ("/tmp/evil", REGULAR, b"x")),
    "tar link": lambda p: make_tar(p, ("link", LINK, b"")),
    "tar link then file": lambda p: make_tar(p, ("d", LINK, b""), ("d/evil", REGULAR, b"x")),
    "tar hard link": lambda p: make_tar(p, ("link", HARD, b"")),
    "tar device": lambda p: make_tar(p, ("device", tarfile.CHRTYPE, b"")),
    "tar fifo": lambda p: make_tar(p, ("fifo", tarfile.FIFOTYPE, b"")),
    "tar twice": lambda p: make_tar(p, ("a", REGULAR, b"x"), ("./a", REGULAR, b"y")),
    "tar bomb": lambda p: make_tar(p, ("zeros", REGULAR, b"\0" * 2_000_000)),
    "neither": lambda p: p.write_bytes(b"hello"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archive(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "in" / "archive"
    archive.parent.mkdir()
    HOSTILE[name](archive)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ArchiveError, match="archive"):
        extract(archive, tmp_path / "in" / "out", max_bytes=1_000_000, max_files=100)
    assert [p for p in sorted(tmp_path.rglob("*")) if p.suffix != ".lock"] == before
    assert not Path("/tmp/evil").exists()


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_damaged_archive(tmp_path: Path, kind: str) -> None:
    archive = tmp_path / "archive"
    noise = b"".join(hashlib.sha256(bytes([i % 256, i // 256])).digest() for i in range(4000))
    if kind == "zip":
        content = bytearray(make_zip(archive, {"a": noise}).read_bytes())
        content[5000] ^= 0xFF
    else:
        content = bytearray(make_tar(archive, ("a", REGULAR, noise)).read_bytes()[:-3000])
    archive.write_bytes(content)
    with pytest.raises(ArchiveError, match="damaged"):
        extract(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_placed_by_hand(mirror: Path, cache: Path) -> None:
    card = replace(load_card("mnist"), name="placed", manual="Ask the authors for the file.")
    (mirror / "placed").mkdir()
    (mirror / "placed" / "wrong.txt").touch()
    with pytest.raises(FetchError) as caught:
        placed_by_hand(card, lambda folder: (folder / "right.txt").is_file(), ["right.txt"])
    for part in ("Ask the authors", str(cache / "downloads" / "placed"), "right.txt", "wrong.txt", "no such folder"):
        assert part in str(caught.value)
    (mirror / "placed" / "right.txt").touch()
    found = placed_by_hand(card, lambda folder: (folder / "right.txt").is_file(), ["right.txt"])
    assert found == mirror / "placed"
