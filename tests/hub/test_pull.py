"""Pulling from a local Hub by the real client: whatever goes wrong, what lies in the cache is right, or absent."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from repro.datasets.download import Policy
from repro.errors import HubError
from repro.hub.config import FILES
from repro.hub.manifest import Entry
from repro.hub.pull import cached, problems, pull
from tests.support.weights import REPO, as_json, published

if TYPE_CHECKING:
    from tests.support.hub import ModelHub

pytest_plugins = ["tests.support.hub"]

# Patient with a busy machine's server; only one that stalls, which is to be noticed, is waited for less.
QUICK = Policy(timeout=60.0, attempts=3, backoff=0.01)
WEIGHTS = "weights.safetensors"
CHILD = """
import json, sys
from repro.hub.manifest import Entry
from repro.hub.pull import pull
print(pull(Entry(**json.loads(sys.argv[1])))[0])
"""


def content(size: int = 300_000) -> bytes:
    block = hashlib.sha256(b"weights").digest()
    return (block * (size // len(block) + 1))[:size]


def files_of(folder: Path) -> dict[str, bytes]:
    return {f: (folder / f).read_bytes() for f in FILES}


def sound(entry: Entry) -> None:
    """The cache holds exactly what the entry states, and nothing half-done."""
    assert problems(entry) == []
    found = cached(entry)
    assert found is not None
    assert {f: hashlib.sha256(c).hexdigest() for f, c in files_of(found[0]).items()} == dict(entry.sha256)
    assert [p.name for p in found[0].iterdir() if p.name.endswith(".partial")] == []


def refused(entry: Entry, *, revision: str | None = None, policy: Policy = QUICK) -> str:
    """The one line that a pull ends with."""
    with pytest.raises(HubError) as caught:
        pull(entry, revision, policy=policy)
    line = str(caught.value)
    assert "\n" not in line
    assert "hf_not_to_be_printed" not in line
    assert entry.name in line
    return line


def child(entry: Entry, hub: ModelHub) -> subprocess.Popen[str]:
    environment = os.environ | {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-c", CHILD, as_json(entry)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_pull_once_and_then_from_the_cache(
    model_hub: ModelHub, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = published(model_hub, {WEIGHTS: content(12_000_000)})
    assert cached(entry) is None
    folder, hashes = pull(entry, policy=QUICK)
    assert folder.is_relative_to(cache)
    assert hashes == entry.sha256
    sound(entry)
    assert f"fetching {entry.name}, 12.0 MB, from {REPO} at {model_hub.url}" in capsys.readouterr().err
    assert len(model_hub.calls) == 4
    model_hub.close()
    assert pull(entry, policy=QUICK)[0] == folder
    for name in ("REPRO_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "1")
        assert pull(entry, policy=QUICK)[0] == folder


def test_by_tag_branch_and_commit_then_offline(
    model_hub: ModelHub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = published(model_hub, {WEIGHTS: b"old"})
    new = published(model_hub, {WEIGHTS: content()})
    repo = model_hub.repos[REPO]
    repo.tags["v0.1.0"] = old.revision
    for revision, entry in {"v0.1.0": old, "main": new, new.revision: new}.items():
        folder, hashes = pull(replace(old, revision="0" * 40), revision, policy=QUICK)
        assert files_of(folder)[WEIGHTS] == repo.resolve(revision)[1][f"{old.name}/{WEIGHTS}"]
        assert dict(hashes) == dict(entry.sha256)
    calls = len(model_hub.calls)
    monkeypatch.setenv("REPRO_OFFLINE", "1")
    for revision in ("v0.1.0", "main", new.revision):
        pull(replace(old, revision="0" * 40), revision, policy=QUICK)
    assert len(model_hub.calls) == calls
    folder, _ = pull(replace(old, revision="0" * 40), "v0.1.0", policy=QUICK)
    (folder / WEIGHTS).write_bytes(b"oLd")
    line = refused(replace(old, revision="0" * 40), revision="v0.1.0")
    assert f"with the network run `repro weights pull {old.name} --revision v0.1.0`" in line


def test_offline_without_it_says_what_to_run(model_hub: ModelHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = published(model_hub, {})
    monkeypatch.setenv("REPRO_OFFLINE", "1")
    line = refused(entry)
    assert f"{entry.name} at revision {entry.revision} of {REPO} is not in the cache and REPRO_OFFLINE is 1" in line
    assert line.endswith(f"run `repro weights pull {entry.name}`")
    monkeypatch.setenv("REPRO_OFFLINE", "0")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE is 1" in refused(entry)
    assert model_hub.calls == []


def test_a_partial_snapshot_is_not_taken_for_whole(
    model_hub: ModelHub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = published(model_hub, {WEIGHTS: content()})
    folder, _ = pull(entry, policy=QUICK)
    (folder / WEIGHTS).unlink()
    monkeypatch.setenv("REPRO_OFFLINE", "1")
    assert "not whole in the cache (weights.safetensors is missing)" in refused(entry)
    (folder / WEIGHTS).write_bytes(content()[:-1])
    assert "weights.safetensors has 299999 bytes, expected 300000" in refused(entry)
    monkeypatch.setenv("REPRO_OFFLINE", "0")
    before = len(model_hub.calls)
    pull(entry, policy=QUICK)
    assert len(model_hub.calls) == before + 1
    sound(entry)


def test_a_changed_byte_in_the_cache_is_fetched_again(model_hub: ModelHub, cache: Path) -> None:
    entry = published(model_hub, {WEIGHTS: content()})
    folder, _ = pull(entry, policy=QUICK)
    changed = bytearray(content())
    changed[1000] ^= 1
    (folder / WEIGHTS).write_bytes(changed)
    assert len(problems(entry)) == 1
    assert "weights.safetensors has hash" in problems(entry)[0]
    pull(entry, policy=QUICK)
    sound(entry)


def test_a_flipped_byte_on_the_way_is_refused(model_hub: ModelHub, cache: Path) -> None:
    entry = published(model_hub, {WEIGHTS: content()})
    model_hub.faults = {"GET .*safetensors": ["flip"]}
    assert "expected " + entry.sha256[WEIGHTS] in refused(entry)
    assert cached(entry) is None
    assert [p.name for p in cache.rglob("*safetensors*")] == []
    model_hub.faults = {}
    pull(entry, policy=QUICK)
    sound(entry)


def test_a_cut_connection_resumes(model_hub: ModelHub, cache: Path) -> None:
    entry = published(model_hub, {WEIGHTS: content()})
    model_hub.faults = {"GET .*safetensors": ["cut:100000", "cut:70000", "ok"]}
    pull(entry, policy=QUICK)
    sound(entry)
    assert model_hub.ranges[f"{entry.name}/{WEIGHTS}"] == [None, "bytes=100000-", "bytes=170000-"]


@pytest.mark.parametrize("fault", [["503", "ok"], ["drop", "ok"], ["stall:1000", "ok"], ["cut:0", "cut:5", "ok"]])
def test_a_passing_fault_is_survived(model_hub: ModelHub, cache: Path, fault: list[str]) -> None:
    entry = published(model_hub, {WEIGHTS: content()})
    model_hub.faults = {"GET .*safetensors": list(fault)}
    pull(entry, policy=replace(QUICK, timeout=5.0) if "stall:1000" in fault else QUICK)
    sound(entry)


def test_a_server_that_dies_in_the_middle(model_hub: ModelHub, cache: Path) -> None:
    entry = published(model_hub, {WEIGHTS: content()})
    model_hub.faults = {"GET .*safetensors": ["cut:100000", "drop"]}
    line = refused(entry)
    assert "cannot be reached" in line
    assert line.endswith("what was received is kept and the same command resumes")
    assert cached(entry) is None
    model_hub.faults = {}
    pull(entry, policy=QUICK)
    sound(entry)
    assert model_hub.ranges[f"{entry.name}/{WEIGHTS}"][-1] == "bytes=100000-"


def test_a_dead_server(model_hub: ModelHub, cache: Path) -> None:
    entry = published(model_hub, {})
    model_hub.close()
    assert f"{REPO}@{entry.revision} at {model_hub.url} cannot be reached" in refused(entry)
    assert f"{REPO}@v9 at {model_hub.url} cannot be reached" in refused(entry, revision="v9")


def test_what_a_killed_process_left_is_resumed(model_hub: ModelHub, cache: Path) -> None:
    entry = published(model_hub, {WEIGHTS: content(15_000_000)})
    model_hub.faults = {"GET .*safetensors": ["stall:12000000", "ok"]}
    process = child(entry, model_hub)
    deadline = time.monotonic() + 240
    while not (found := list(cache.rglob(f".{WEIGHTS}.partial"))) or found[0].stat().st_size < 12_000_000:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert cached(entry) is None
    pull(entry, policy=QUICK)
    sound(entry)
    assert model_hub.ranges[f"{entry.name}/{WEIGHTS}"] == [None, "bytes=12000000-"]


def test_a_partial_file_with_a_wrong_byte_is_dropped(model_hub: ModelHub, cache: Path) -> None:
    entry = published(model_hub, {WEIGHTS: content()})
    folder, _ = pull(entry, policy=QUICK)
    (folder / WEIGHTS).unlink()
    (folder / f".{WEIGHTS}.partial").write_bytes(b"another start")
    pull(entry, policy=QUICK)
    sound(entry)
    assert model_hub.ranges[f"{entry.name}/{WEIGHTS}"] == [None, "bytes=13-", None]


def test_a_server_without_ranges_or_of_a_lying_length(model_hub: ModelHub, cache: Path) -> None:
    entry = published(model_hub, {WEIGHTS: content()})
    model_hub.faults = {"GET .*safetensors": ["cut:1000", "no_range"]}
    pull(entry, policy=QUICK)
    sound(entry)
    folder, _ = pull(entry, policy=QUICK)
    (folder / WEIGHTS).unlink()
    model_hub.faults = {"GET .*safetensors": ["long"]}
    assert "more than 300000 bytes; nothing of it was kept" in refused(entry)
    assert not (folder / f".{WEIGHTS}.partial").exists()


def test_processes_at_once_download_once(model_hub: ModelHub, cache: Path) -> None:
    entry = published(model_hub, {WEIGHTS: content(2_000_000)})
    processes = [child(entry, model_hub) for _ in range(3)]
    answers = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], answers
    assert len({out for out, _ in answers}) == 1
    assert len(model_hub.calls) == 4
    sound(entry)


def test_wrong_token_missing_repository_and_revision(
    model_hub: ModelHub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = published(model_hub, {})
    assert "the repository has no such revision" in refused(replace(entry, revision="1" * 40))
    assert "the repository has no such revision" in refused(entry, revision="v9")
    assert "no such repository" in refused(replace(entry, repo="user/other"))
    assert "no such repository" in refused(replace(entry, repo="user/other"), revision="v9")
    elsewhere = replace(entry, name="gmrf_mcvae/other")
    assert "the repository has no gmrf_mcvae/other, or a file of it is missing" in refused(elsewhere)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    line = refused(entry)
    assert "not allowed, or there is no such repository (401); check HF_TOKEN" in line
    assert "hf_wrong" not in line
    model_hub.repos[REPO].private = True
    assert "(401)" in refused(entry)
    monkeypatch.setenv("HF_TOKEN", model_hub.token)
    pull(entry, policy=QUICK)
    sound(entry)


def test_a_pickle_in_the_repository_is_never_asked_for(model_hub: ModelHub, cache: Path) -> None:
    entry = published(model_hub, {"pytorch_model.bin": b"\x80\x04."})
    entry = replace(entry, bytes={f: entry.bytes[f] for f in FILES}, sha256={f: entry.sha256[f] for f in FILES})
    pull(entry, policy=QUICK)
    sound(entry)
    with pytest.raises(ValueError, match=r"'pytorch_model.bin' may hold a pickle, which is never opened"):
        pull(replace(entry, revision="0" * 40), "main", policy=QUICK)
    assert model_hub.count("pytorch_model") == 0


def test_a_folder_that_cannot_be_written(model_hub: ModelHub, cache: Path) -> None:
    entry = published(model_hub, {})
    (cache / "weights").parent.mkdir()
    (cache / "weights").write_text("a file")
    assert "Not a directory" in refused(entry) or "exists" in refused(entry)


def test_what_was_never_pushed(cache: Path) -> None:
    entry = Entry("gmrf_mcvae/copula", "0" * 16, "m", 1.0, dict.fromkeys(FILES, 1), dict.fromkeys(FILES, "0" * 64))
    assert "is not on the Hub: the manifest gives no repository" in refused(entry)
    assert problems(entry) == ["the manifest pins no revision"]
