"""Run directories: idempotent, resumable after SIGKILL, safe from a second process, a full disk and foreign files."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from repro.datasets import former
from repro.datasets.card import Former, load_card
from repro.engine import execute as runs
from repro.engine.execute import execute
from repro.engine.store import RunStore, file_sha256, read_record, write_atomically
from repro.errors import BusyError, OutOfMemoryError, RecordError, RunError
from repro.papers import experiment_of
from repro.papers.gmrf_mcvae.copula.experiment import Copula, copula_spec
from repro.records import Record, RunSpec, digest
from repro.training import NonFiniteLossError, TrainingStopped
from repro.training.checkpoints import CheckpointError, load_checkpoint
from repro.training.distributed import Parallel

if TYPE_CHECKING:
    from tests.support.runs import Smoke

pytest_plugins = ["tests.support.runs"]

# Measured on validation data alone, so that a run takes a second.
SHORT = {"splits": ("validation",)}
SPEC = copula_spec("gmrf_mcvae", 0, "smoke", epochs=6, **SHORT)
CHECKPOINTS = {"checkpoint.safetensors", "checkpoint.previous.safetensors"}
MESSAGES = (RunError, RecordError)


@pytest.fixture(autouse=True)
def checkpoint_after_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long writing one takes."""
    monkeypatch.setattr(runs, "CHECKPOINT_SHARE", float("inf"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, RunStore]:
    """SPEC's run without an interruption."""
    store = RunStore(tmp_path_factory.mktemp("whole"))
    record = execute(SPEC, store)
    return record, store


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir() if not p.name.startswith("lock")}


def assert_same_result(one: Record, other: Record) -> None:
    assert one.spec == other.spec
    assert list(one.metrics) == list(other.metrics)
    assert one.weights_sha256 == other.weights_sha256
    assert list(one.history) == list(other.history)
    assert one.data == other.data


def refused(call: Callable[[], Any], match: str, errors: Any = MESSAGES) -> None:
    with pytest.raises(errors, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)


# A run and what it leaves


@pytest.mark.parametrize("method", ["gmrf_mcvae", "mvae"])
def test_directory_of_a_finished_run(method: str, smoke: Smoke) -> None:
    record = smoke.record(method)
    folder = smoke.store.directory(record.spec)
    assert folder == smoke.runs / "gmrf_mcvae" / record.spec.key
    expected = {"spec.json", "log.jsonl", "weights.safetensors", "training.json", "samples.safetensors", "record.json"}
    assert names(folder) == expected
    written = {p.name: p.stat().st_mtime_ns for p in folder.iterdir() if not p.name.startswith("lock")}
    assert written["record.json"] == max(written.values())  # it stands for what is whole
    assert RunSpec.from_dict(json.loads((folder / "spec.json").read_text())) == record.spec
    assert list(RunStore(smoke.runs).specs()).count(record.spec) == 1
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [(e["stage"], e["epoch"]) for e in log] == [("train", 1)]
    assert log[0]["loss"] == record.history[0]["loss"]


@pytest.mark.parametrize("method", ["gmrf_mcvae", "mvae"])
def test_weights_and_samples_are_the_run_s(method: str, smoke: Smoke) -> None:
    record = smoke.record(method)
    folder = smoke.store.directory(record.spec)
    assert file_sha256(folder / "weights.safetensors") == record.weights_sha256
    with safe_open(folder / "weights.safetensors", framework="pt") as handle:
        assert json.loads(handle.metadata()["repro"]) == {"key": record.spec.key}
    experiment_of(record.spec).build(record.spec).load_state_dict(
        load_file(folder / "weights.safetensors"), strict=True
    )
    samples = load_file(folder / "samples.safetensors")
    assert {m: (x.shape, x.dtype) for m, x in samples.items()} == {
        f"m{i}": ((2000, 2), torch.float16) for i in range(4)
    }


def test_record_says_how_it_was_measured(smoke: Smoke) -> None:
    record = smoke.record("gmrf_mcvae")
    known = record.environment
    assert set(known) == {
        "commit",
        "dirty",
        "package",
        "python",
        "system",
        "versions",
        "device",
        "device_name",
        "threads",
        "training",
    }
    assert known["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert (known["device"], known["threads"]) == ("cpu", 1)
    assert set(record.data) == {f"copula/{s}" for s in ("train", "validation", "test", "reference")}
    assert len({*record.data.values()}) == 4
    assert record.training_seconds > 0
    assert record.evaluation_seconds > 0
    assert record.metric("test/unconditional/mean/transport/mean").num_samples == 50
    assert record.metric("test/conditional/sample/histogram/dim1").num_samples == 500
    assert {m.name.split("/")[2] for m in record.metrics} == {"mean", "unclipped", "sample", "true"}
    protocols = {m.name.split("/")[1] for m in record.metrics}
    joint = {"unconditional", "conditional", "floor"}
    assert protocols == joint | {"conditional-componentwise", "conditional-componentwise-covariance-as-scale"}
    assert {m.name.split("/")[1] for m in smoke.record("mvae").metrics} == joint


def test_a_recorded_run_is_not_run_again(smoke: Smoke, monkeypatch: pytest.MonkeyPatch) -> None:
    record = smoke.record("gmrf_mcvae")
    folder = smoke.store.directory(record.spec)
    before = {p.name: (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.iterdir()}
    monkeypatch.setattr(runs, "_execute", lambda *arguments: pytest.fail("the run was executed again"))
    assert execute(record.spec, smoke.store) == record
    assert {p.name: (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.iterdir()} == before


def test_a_run_without_record_is_measured_from_its_weights(
    tmp_path: Path, whole: tuple[Record, RunStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RunStore(tmp_path)
    folder = store.directory(SPEC)
    shutil.copytree(whole[1].directory(SPEC), folder)
    (folder / "record.json").unlink()
    monkeypatch.setattr("repro.engine.execute.train", lambda *a, **k: pytest.fail("it was trained again"))
    assert_same_result(execute(SPEC, store), whole[0])
    (folder / "record.json").unlink()
    blob = bytearray((folder / "weights.safetensors").read_bytes())
    blob[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(blob)
    refused(lambda: execute(SPEC, store), r"weights.safetensors is not what .*training.json was written for")
    assert (folder / "weights.safetensors").read_bytes() == blob
    (folder / "training.json").write_text("{")
    refused(lambda: execute(SPEC, store), r"training.json cannot be read .*; move it away to train again")


# Interruptions


CHILD = """
import sys, time
from pathlib import Path
from repro.engine import execute as runs
from repro.training.distributed import Parallel
runs.CHECKPOINT_SHARE = float("inf")  # one after every epoch
from repro.papers.gmrf_mcvae.copula.experiment import copula_spec
from repro.engine.store import RunStore; from repro.engine.execute import execute
spec = copula_spec("gmrf_mcvae", 0, "smoke", epochs=6, splits=("validation",))
def wait(entry):
    if entry["epoch"] == 4:
        print("epoch 4", flush=True)
        time.sleep(600)
execute(spec, RunStore(Path(sys.argv[1])), on_epoch=wait)
"""


@pytest.mark.slow
def test_killed_process_loses_one_epoch_and_nothing_else(tmp_path: Path, whole: tuple[Record, RunStore]) -> None:
    store = RunStore(tmp_path / "runs")
    folder = store.directory(SPEC)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(store.root)], stdout=subprocess.PIPE, env=environment)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"epoch 4\n"
        assert len((folder / "log.jsonl").read_text().splitlines()) == 4
        # Its lock keeps a second process out, which touches nothing.
        before = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
        refused(lambda: execute(SPEC, store), "is being executed by another process .lock .*lock.$", RunError)
        assert {p.name: p.stat().st_mtime_ns for p in folder.iterdir()} == before
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert child.returncode == -signal.SIGKILL
    assert store.record(SPEC) is None
    assert names(folder) == {"spec.json", "log.jsonl", "data.json", *CHECKPOINTS}
    kept = load_checkpoint(folder / "checkpoint.safetensors", SPEC.key)
    assert kept.epoch == 3
    epochs: list[int] = []
    record = execute(SPEC, store, on_epoch=lambda entry: epochs.append(entry["epoch"]))
    assert epochs == [4, 5, 6]
    assert_same_result(record, whole[0])
    assert names(folder) == {"spec.json", "log.jsonl", "weights.safetensors", "training.json", "record.json"}
    uninterrupted = whole[1].directory(SPEC) / "weights.safetensors"
    assert (folder / "weights.safetensors").read_bytes() == uninterrupted.read_bytes()
    assert record.training_seconds > sum(e["seconds"] for e in kept.history)


def test_interrupt_from_the_keyboard_loses_one_epoch(tmp_path: Path, whole: tuple[Record, RunStore]) -> None:
    store = RunStore(tmp_path)

    def interrupt(entry: dict[str, Any]) -> None:
        if entry["epoch"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(SPEC, store, on_epoch=interrupt)
    leftover = store.directory(SPEC) / ".record.json.123.partial"
    leftover.write_text("half")
    epochs: list[int] = []
    record = execute(SPEC, store, on_epoch=lambda entry: epochs.append(entry["epoch"]))
    assert epochs == [3, 4, 5, 6]
    assert_same_result(record, whole[0])
    assert not leftover.exists()


def stopped_in_epoch_3(store: RunStore) -> Path:
    def interrupt(entry: dict[str, Any]) -> None:
        if entry["epoch"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(SPEC, store, on_epoch=interrupt)
    return store.directory(SPEC)


@pytest.mark.parametrize(("split", "anew"), [("copula/train", True), ("copula/test", False), ("", False)])
def test_what_was_begun_on_other_data_starts_anew(
    split: str, anew: bool, tmp_path: Path, whole: tuple[Record, RunStore]
) -> None:
    store = RunStore(tmp_path)
    folder = stopped_in_epoch_3(store)
    noted = json.loads((folder / "data.json").read_text())
    assert noted == {k: v for k, v in whole[0].data.items() if k in ("copula/train", "copula/validation")}
    (folder / "data.json").write_text(json.dumps(noted | ({split: "0" * 64} if anew else {})))
    if not split:  # of an earlier version of the package
        (folder / "data.json").unlink()
    epochs: list[int] = []
    record = execute(SPEC, store, on_epoch=lambda entry: epochs.append(entry["epoch"]))
    assert epochs == ([1, 2, 3, 4, 5, 6] if anew else [3, 4, 5, 6])
    assert_same_result(record, whole[0])
    assert "data.json" not in names(folder)


def test_what_was_trained_but_not_measured_on_other_data_is_trained_anew(
    tmp_path: Path, whole: tuple[Record, RunStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RunStore(tmp_path)
    with monkeypatch.context() as patch:
        no_space("record.json", patch)
        refused(lambda: execute(SPEC, store), "cannot write .*record.json", RunError)
    folder = store.directory(SPEC)
    assert "training.json" in names(folder)
    noted = json.loads((folder / "data.json").read_text())
    (folder / "data.json").write_text(json.dumps(noted | {"copula/train": "0" * 64}))
    epochs: list[int] = []
    assert_same_result(execute(SPEC, store, on_epoch=lambda e: epochs.append(e["epoch"])), whole[0])
    assert epochs == [1, 2, 3, 4, 5, 6]


def test_a_record_of_former_data_is_made_anew(
    tmp_path: Path, whole: tuple[Record, RunStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, (record, recorded) = RunStore(tmp_path), whole
    shutil.copytree(recorded.directory(SPEC), store.directory(SPEC))
    old = dataclasses.replace(record, data=record.data | {"copula/train": "0" * 64})
    (store.directory(SPEC) / "record.json").write_text(old.to_json())
    assert execute(SPEC, store) == old  # nothing says that its data have changed
    card = dataclasses.replace(load_card("copula"), former=(Former("whose tail was another", frozenset({"0" * 64})),))
    monkeypatch.setattr(former, "load_card", lambda name: card)
    epochs: list[int] = []
    assert_same_result(execute(SPEC, store, on_epoch=lambda e: epochs.append(e["epoch"])), record)
    assert epochs == [1, 2, 3, 4, 5, 6]


def test_a_note_of_data_that_cannot_be_read(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    folder = stopped_in_epoch_3(store)
    (folder / "data.json").write_text("{")
    before = {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith("lock")}
    refused(lambda: execute(SPEC, store), "data.json cannot be read .*; move the run's directory away", RunError)
    assert {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith("lock")} == before


def no_space(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full as soon as a file of that name is to be put in place."""
    replace = os.replace

    def refuse(source: Any, target: Any) -> None:
        if Path(target).name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)


@pytest.mark.parametrize("name", ["record.json", "training.json", "weights.safetensors", "checkpoint.safetensors"])
def test_full_disk(name: str, tmp_path: Path, whole: tuple[Record, RunStore], monkeypatch: pytest.MonkeyPatch) -> None:
    store = RunStore(tmp_path)
    folder = store.directory(SPEC)
    with monkeypatch.context() as patch:
        no_space(name, patch)
        errors = CheckpointError if name.startswith("checkpoint") else RunError
        refused(lambda: execute(SPEC, store), f"cannot write .*{name}: .*[Nn]o space left on device", errors)
    assert not any(n.endswith(".partial") for n in names(folder))
    assert name not in names(folder)
    assert "record.json" not in names(folder)
    assert ("checkpoint.safetensors" in names(folder)) == (name != "checkpoint.safetensors")
    assert_same_result(execute(SPEC, store), whole[0])


def test_loss_that_is_not_finite_leaves_a_note_and_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from repro.papers.gmrf_mcvae import model

    store, steps, loss = RunStore(tmp_path), [], model.GMRFMCVAE.loss

    def poisoned(self: Any, batch: Any, stage: Any = None) -> Any:
        steps.append(1)
        found = loss(self, batch, stage)
        factor = float("nan") if len(steps) == 5 else 1.0  # two steps an epoch
        return dataclasses.replace(
            found, total=factor * found.total, terms=found.terms | {"kl": factor * found.terms["kl"]}
        )

    with monkeypatch.context() as patch:
        patch.setattr(model.GMRFMCVAE, "loss", poisoned)
        refused(lambda: execute(SPEC, store), r"epoch 3 of 6: .*'kl': nan", NonFiniteLossError)
    assert names(store.directory(SPEC)) == {"spec.json", "log.jsonl", "data.json", "diverged.json", *CHECKPOINTS}
    assert load_checkpoint(store.directory(SPEC) / "checkpoint.safetensors", SPEC.key).epoch == 2
    diverged = store.divergence(SPEC)
    assert diverged is not None
    assert diverged.reason == (
        "stage 'train', epoch 3 of 6: the loss is not finite ({'loss': nan, 'reconstruction': nan, 'kl': nan})"
    )
    record = execute(SPEC, store)  # with code that is mended, from the last good checkpoint
    assert set(diverged.environment) == set(record.environment) - {"training"}
    assert store.divergence(SPEC) is None
    assert not (store.directory(SPEC) / "diverged.json").exists()


# Foreign and altered files, and folders that refuse


@pytest.fixture
def finished(tmp_path: Path, whole: tuple[Record, RunStore]) -> RunStore:
    """A copy of SPEC's finished run."""
    shutil.copytree(whole[1].root, tmp_path / "runs")
    return RunStore(tmp_path / "runs")


def test_altered_record_is_refused_and_left(finished: RunStore) -> None:
    path = finished.directory(SPEC) / "record.json"
    text = path.read_text()
    first = json.loads(text)["metrics"][0]["value"]
    altered = text.replace(json.dumps(first), json.dumps(first / 2), 1)
    assert altered != text
    path.write_text(altered)
    refused(lambda: execute(SPEC, finished), "record.json: content does not match its digest", RecordError)
    assert path.read_text() == altered


def test_record_whose_specification_does_not_match_its_key(finished: RunStore) -> None:
    path = finished.directory(SPEC) / "record.json"
    body = json.loads(path.read_text())
    del body["digest"]
    body["spec"]["seed"] = 1
    altered = json.dumps(body | {"digest": digest(body)})
    path.write_text(altered)
    refused(lambda: execute(SPEC, finished), f"key {SPEC.key} does not match its specification", RecordError)
    assert path.read_text() == altered


def test_record_of_another_run(finished: RunStore) -> None:
    other = copula_spec("gmrf_mcvae", 1, "smoke", epochs=6, **SHORT)
    folder = finished.directory(other)
    folder.mkdir()
    shutil.copy(finished.directory(SPEC) / "record.json", folder / "record.json")
    refused(lambda: execute(other, finished), "is the record of .* seed 0 .*, not of .* seed 1", RecordError)
    assert names(folder) == {"record.json"}


@pytest.mark.parametrize("content", ["{", "[]", "\x00\x01", None])
def test_foreign_specification(content: str | None, tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    path = store.directory(SPEC) / "spec.json"
    path.parent.mkdir(parents=True)
    other = copula_spec("gmrf_mcvae", 1, "smoke", **SHORT)
    path.write_text(json.dumps(other.to_dict()) if content is None else content)
    before = path.read_bytes()
    refused(
        lambda: execute(SPEC, store), "spec.json: (not JSON|fields|holds .* seed 1 .*, expected .* seed 0)", RecordError
    )
    assert path.read_bytes() == before
    assert names(path.parent) == {"spec.json"}


def test_foreign_checkpoint(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    path = store.directory(SPEC) / "checkpoint.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"something else")
    refused(lambda: execute(SPEC, store), "checkpoint.safetensors is truncated or no safetensors", CheckpointError)
    assert path.read_bytes() == b"something else"


def test_unreadable_record_and_folder_under_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    refused(lambda: execute(SPEC, RunStore(tmp_path / "file" / "runs")), "record.json: cannot be read .*[Nn]ot a dir")
    assert (tmp_path / "file").read_text() == "kept"
    path = tmp_path / "record.json"
    path.write_bytes(b"\xff\xfe")
    refused(lambda: read_record(path), "record.json: cannot be read", RecordError)
    assert read_record(tmp_path / "none.json") is None


def test_read_only_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *arguments: Any, **options: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    refused(lambda: execute(SPEC, RunStore(tmp_path / "runs")), "cannot write to .*: Read-only file system$", RunError)
    refused(lambda: write_atomically(tmp_path / "a" / "b", "text"), "cannot write .*b: Read-only file", RunError)


def test_files_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "file.txt"
    write_atomically(path, "one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    no_space("file.txt", monkeypatch)
    refused(lambda: write_atomically(path, "three"), "cannot write .*file.txt: No space left on device$", RunError)
    assert [(p.name, p.read_bytes()) for p in path.parent.iterdir()] == [("file.txt", b"two")]


def test_discarded_run_starts_anew(finished: RunStore, whole: tuple[Record, RunStore]) -> None:
    finished.discard(SPEC)
    assert finished.record(SPEC) is None
    assert names(finished.directory(SPEC)) == set()
    finished.discard(copula_spec("mvae", 5, "smoke"))  # one that never was
    start = time.time_ns()
    assert_same_result(execute(SPEC, finished), whole[0])
    assert (finished.directory(SPEC) / "weights.safetensors").stat().st_mtime_ns >= start - 10**9


# Limits, other owners, memory


def test_checkpoints_take_a_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now, saves = [100.0], []
    monkeypatch.setattr(runs.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(runs, "CHECKPOINT_SHARE", 0.01)
    pace = runs._Pace()

    def save() -> None:
        saves.append(now[0])
        now[0] += 0.05  # what one takes

    for _ in range(1000):
        now[0] += 0.5  # an epoch
        pace(save)
    assert saves[0] == 100.5  # the first epoch's is written at once
    gaps = [b - a for a, b in pairwise(saves)]
    assert min(gaps) >= 5.0
    assert max(gaps) <= 5.6
    assert 0.05 * len(saves) <= 0.01 * (now[0] - 100) + 0.05


def test_stopped_run_continues_from_the_step_and_counts_its_seconds(
    tmp_path: Path, whole: tuple[Record, RunStore]
) -> None:
    store, asked = RunStore(tmp_path), []

    def stop() -> bool:
        asked.append(1)
        return len(asked) in (1, 5, 10)

    for _ in range(3):
        with pytest.raises(TrainingStopped):
            execute(SPEC, store, stop=stop)
    log = [json.loads(x) for x in (store.directory(SPEC) / "log.jsonl").read_text().splitlines()]
    stopped = [e for e in log if "stopped" in e]
    assert len(stopped) == 2  # the first one had not begun
    record = execute(SPEC, store, stop=stop)
    assert_same_result(record, whole[0])
    log = [json.loads(x) for x in (store.directory(SPEC) / "log.jsonl").read_text().splitlines()]
    assert [e["epoch"] for e in log if "epoch" in e] == [1, 2, 3, 4, 5, 6]
    assert record.training_seconds >= sum(e["seconds"] for e in stopped)
    assert names(store.directory(SPEC)) >= {"record.json", "weights.safetensors"}
    assert not CHECKPOINTS & names(store.directory(SPEC))


def test_run_stopped_before_its_evaluation(tmp_path: Path, whole: tuple[Record, RunStore]) -> None:
    store = RunStore(tmp_path)
    with pytest.raises(TrainingStopped, match=r"^stopped before the evaluation$"):
        execute(SPEC, store, stop=lambda: (store.directory(SPEC) / "training.json").exists())
    assert_same_result(execute(SPEC, store), whole[0])


def test_lost_lock_ends_the_run_and_writes_nothing_more(tmp_path: Path) -> None:
    """Another machine took this one for dead, and is at work."""
    store = RunStore(tmp_path)
    folder = store.directory(SPEC)

    def taken_over(entry: dict[str, Any]) -> None:
        if entry["epoch"] == 3:
            (folder / "lock.2").write_text(json.dumps({"machine": "other", "host": "other", "pid": 1}))

    refused(
        lambda: execute(SPEC, store, on_epoch=taken_over),
        r"seed 0 .* was taken over by other, which continues it; nothing more is written here$",
        BusyError,
    )
    assert store.record(SPEC) is None
    assert load_checkpoint(folder / "checkpoint.safetensors", SPEC.key).epoch == 3
    assert (folder / "lock.2").exists()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        MemoryError(),
    ],
)
def test_want_of_memory_proposes_half_and_takes_nothing(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: tuple[Record, RunStore]
) -> None:
    from repro.papers.gmrf_mcvae import model

    def too_large(*arguments: Any) -> Any:
        raise error

    store = RunStore(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(model.GMRFMCVAE, "loss", too_large)
        proposal = "out of memory with 500 samples at once; --shards 2 takes 250 at once of the same batch of 500"
        refused(lambda: execute(SPEC, store), proposal, OutOfMemoryError)
        proposal = "with 167 samples at once; --shards 6 takes 84 at once of the same batch of 500"
        refused(lambda: execute(SPEC, store, parallel=Parallel(shards=3)), proposal, OutOfMemoryError)
    assert store.record(SPEC) is None
    assert_same_result(execute(SPEC, store), whole[0])


def test_want_of_memory_as_it_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(*arguments: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Copula, "evaluate", too_large)
    store = RunStore(tmp_path)
    refused(
        lambda: execute(SPEC, store), "as it was measured; its weights are kept: run it again with", OutOfMemoryError
    )
    assert (store.directory(SPEC) / "weights.safetensors").exists()
