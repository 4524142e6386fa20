"""From a specification to a run directory to a record: idempotent, resumable, content-addressed."""

from __future__ import annotations

import contextlib
import json
import sys
import sysconfig
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from repro.engine.environment import environment
from repro.engine.locks import LockError, RunLock
from repro.engine.store import RunStore, check_spec_file, clear, file_sha256, write_atomically
from repro.errors import (
    BusyError,
    FailedCodeError,
    OutOfMemoryError,
    RecordError,
    RunError,
    TrainingStopped,
    UsageError,
)
from repro.model import TrainableModel, isolated_rng
from repro.papers import experiment_of
from repro.records import Divergence, Metric, Record, RunSpec, canonical_json
from repro.training import NonFiniteLossError, train
from repro.training.checkpoints import CheckpointError, discard_checkpoints
from repro.training.distributed import ALONE, Parallel, gathered
from repro.training.loop import training
from repro.training.stacked import train_stacked

__all__ = ["acquired", "alike", "execute", "execute_stacked", "loaded", "save_tensors"]


# Checkpoints take at most this share of a run's time; what a kill can cost is a hundred times what one takes.
CHECKPOINT_SHARE = 0.01
DATA = "data.json"  # what an unfinished run is trained on: ``dataset/split`` to SHA-256


def execute(
    spec: RunSpec,
    store: RunStore,
    *,
    device: str = "cpu",
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    stop: Callable[[], bool] | None = None,
    parallel: Parallel | None = None,
    step: str = "eager",
) -> Record:
    """Executes a run, or returns its record where it has one of today's data.

    A run without a record continues from its checkpoint, or is only measured where its weights are whole; not where
    they are of training or validation data that have changed since, then it starts anew. The record is written last, so
    that it stands only for what is whole.

    Arguments:
        spec: What to run.
        store: Where run directories live.
        device: ``"cpu"`` or ``"cuda"`` or ``"cuda:<index>"``.
        on_epoch: Called with each finished epoch's entry, for progress.
        stop: Asked after every step of training, and before the evaluation; the run ends at the first true answer.
        parallel: The processes that carry the run out together, each of which calls this; this one alone if None.
        step: How a training step is taken, see :class:`~repro.training.TrainingSettings`; the record says so where it
            is not ``"eager"``.

    Raises:
        TrainingStopped: If ``stop`` asked for it; the run continues from there.
        BusyError: If another process is executing the run.
        OutOfMemoryError: If the memory does not hold what is computed at once.
        RunError: If the disk refuses.
        RecordError: If files of another run are in its directory.
        CheckpointError, NonFiniteLossError: See :mod:`repro.training`.
        FailedCodeError: If the code of a reader's own model raises anything else, or ends the process.
    """
    parallel = parallel or ALONE
    if (record := parallel.share(lambda: store.current(spec))) is not None:
        return record
    lock = RunLock(store.directory(spec))
    parallel.share(lambda: _acquire(lock, spec))
    finished = False
    try:
        if (record := parallel.share(lambda: store.current(spec))) is None:
            with _foreign_code(spec) if experiment_of(spec).foreign else contextlib.nullcontext():
                record = _execute(spec, _Place(lock, device, on_epoch, stop or _never, parallel, step))
        finished = True
        return record
    except LockError as error:
        raise BusyError(f"{spec.label} {error}") from None
    finally:
        lock.release(finished=finished)


@contextlib.contextmanager
def _foreign_code(spec: RunSpec) -> Iterator[None]:
    """Makes one line of what a reader's own code raises, which names the place in it.

    Arguments:
        spec: The run, whose model names the file or the module that builds it.
    """
    module = sys.modules.get(str(spec.params["model"]["module"]).partition(".")[0])
    folder = Path(getattr(module, "__file__", None) or "nowhere").parent
    try:
        yield
    except (CheckpointError, NonFiniteLossError, RecordError, RunError, TrainingStopped, UsageError):
        raise
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [f for f in frames if folder in Path(f.filename).parents or not _installed(f.filename)]
        if not own and isinstance(error, TypeError | RuntimeError | OSError | KeyError):
            raise  # a value that measurements refuse is the model's, these may be the machine's
        text = f"exit({error.code!r})" if isinstance(error, SystemExit) else " ".join(str(error).split())
        place = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
        failed = FailedCodeError(type(error).__name__ + (f": {text}" if text else "") + place)
        failed.final = not isinstance(error, OSError)  # the same code would fail again
        raise failed from error


def _installed(filename: str) -> bool:
    """Whether code is of this package, of an installed one or of Python itself."""
    if filename.startswith("<") or not {"site-packages", "dist-packages"}.isdisjoint(Path(filename).parts):
        return True
    return not {Path(__file__).parents[1], Path(sysconfig.get_path("stdlib"))}.isdisjoint(Path(filename).parents)


def _never() -> bool:
    return False


def _acquire(lock: RunLock, spec: RunSpec) -> None:
    try:
        lock.directory.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except LockError as error:
        raise BusyError(f"{spec.label} {error}") from None
    except OSError as error:
        raise RunError(f"cannot write to {lock.directory}: {error.strerror or error}") from None


@contextlib.contextmanager
def acquired(spec: RunSpec, store: RunStore) -> Iterator[None]:
    """A block in which no other process executes a run.

    Raises:
        BusyError: If one does.
        RunError: If the run's directory cannot be written to.
    """
    lock = RunLock(store.directory(spec))
    _acquire(lock, spec)
    try:
        yield
    finally:
        lock.release(finished=False)


@dataclass(frozen=True)
class _Place:
    """Where a run is executed and who is told of it."""

    lock: RunLock
    device: str
    on_epoch: Callable[[dict[str, Any]], None] | None
    stop: Callable[[], bool]
    parallel: Parallel
    step: str = "eager"

    @property
    def directory(self) -> Path:
        return self.lock.directory

    @property
    def first(self) -> bool:
        return self.parallel.rank == 0

    @property
    def shared(self) -> dict[str, Any]:
        """What a record says of several shards and processes; nothing where a batch is one piece."""
        if self.parallel.shards == 1:
            return {}
        return {"shards": self.parallel.shards, "processes": self.parallel.world}


class _Log:
    """log.jsonl: one line an epoch, with the seconds that it took over all interruptions."""

    def __init__(self, path: Path) -> None:
        self.path, self.carried = path, 0.0
        with contextlib.suppress(OSError, ValueError):  # no log yet, or one whose last line a kill cut off
            for line in reversed(path.read_text(encoding="utf-8").splitlines()):
                if "stopped" not in (entry := json.loads(line)):
                    break
                self.carried += entry["seconds"]
        self.last = time.monotonic()

    def add(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        now = time.monotonic()
        seconds, self.last = now - self.last, now
        if "stopped" not in entry:
            seconds, self.carried = seconds + self.carried, 0.0
        try:
            with open(self.path, "a", encoding="utf-8") as handle:
                handle.write(json.dumps({**entry, "seconds": round(seconds, 4)}) + "\n")
        except OSError as error:
            raise RunError(f"cannot write {self.path}: {error.strerror or error}") from None
        return {"seconds": round(seconds, 4)}


class _Pace:
    """Leaves out checkpoints that come too soon after another for their share of the time."""

    def __init__(self) -> None:
        self.cost, self.last = 0.0, time.monotonic()

    def __call__(self, save: Callable[[], None]) -> None:
        start = time.monotonic()
        if start - self.last < self.cost / CHECKPOINT_SHARE:
            return
        save()
        self.last = time.monotonic()
        self.cost = self.last - start


def _execute(spec: RunSpec, place: _Place) -> Record:
    directory, parallel = place.directory, place.parallel
    if place.first:
        for leftover in directory.glob(".*.partial"):
            leftover.unlink()
    parallel.share(lambda: check_spec_file(directory, spec))
    if parallel.any(place.stop()):
        raise TrainingStopped("stopped before it began")
    experiment, (data, model) = experiment_of(spec), loaded(spec)
    parallel.share(lambda: _note_data(directory, spec, data))
    trained = _trained(spec, place, model, data)
    if parallel.any(place.stop()):
        raise TrainingStopped("stopped before the evaluation")
    start = time.monotonic()
    with torch.no_grad(), gathered(model, parallel), _memory(spec, None, parallel):
        metrics: list[Metric] = experiment.evaluate(model, data, spec, place.device)
        drawn = experiment.figure_samples(model, spec, place.device)
    history = trained["history"]
    record = Record(
        spec=spec,
        metrics=metrics,
        environment=environment(place.device) | place.shared | {"training": trained["environment"]},
        data=_hashes(data),
        weights_sha256=trained["weights_sha256"],
        training_seconds=round(sum(e["seconds"] for e in history), 3),
        evaluation_seconds=round(time.monotonic() - start, 3),
        history=_thin(history),
    )
    if place.first:
        place.lock.check()
        if drawn:
            save_tensors(directory / "samples.safetensors", drawn, {"key": spec.key})
        write_atomically(directory / "record.json", record.to_json())
        discard_checkpoints(directory / "checkpoint.safetensors")
        for note in ("failure.json", "diverged.json", DATA):
            (directory / note).unlink(missing_ok=True)
    return record


def _hashes(data: Mapping[str, Any]) -> dict[str, str]:
    """``dataset/split`` to the SHA-256 of a run's data."""
    return {f"{d.name}/{split}": d.provenance["sha256"] for split, d in data.items()}


def _note_data(directory: Path, spec: RunSpec, data: Mapping[str, Any]) -> None:
    """Notes what a run is trained on until its record says so; what it left of other data is removed.

    Raises:
        RunError: If the note cannot be read or written.
    """
    path = directory / DATA
    today = _hashes({split: d for split, d in data.items() if split in ("train", "validation")})
    try:
        noted = json.loads(path.read_text(encoding="utf-8")) if path.exists() else today
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}); move the run's directory away to train again") from None
    if noted != today or (directory / "record.json").exists():  # a record of today's data is not executed again
        clear(directory)
        check_spec_file(directory, spec)
    write_atomically(path, json.dumps(today, indent=1) + "\n")


def _trained(spec: RunSpec, place: _Place, model: TrainableModel, data: Mapping[str, Any]) -> dict[str, Any]:
    """Brings the model to its trained state, and returns what is noted of its training."""
    directory, parallel = place.directory, place.parallel
    weights = directory / "weights.safetensors"
    trained = parallel.share(lambda: _read_trained(directory, spec))
    if trained is not None:
        model.load_state_dict(load_file(weights), strict=True)
        model.to(place.device).eval()
        return trained
    settings = replace(experiment_of(spec).training(spec, place.device), step=place.step)
    log = _Log(directory / "log.jsonl")
    options = _options(spec, place, log)
    try:
        with _memory(spec, settings.batch_size, parallel):
            history = train(model, data["train"], settings, validation=data.get("validation"), **options)
    except TrainingStopped as stopped:
        if place.first:
            log.add({"stopped": str(stopped)})
        raise
    except NonFiniteLossError as error:
        if place.first:
            _note_divergence(spec, place, error)
        raise
    if place.first:
        trained = _write_trained(spec, place, model, history, place.shared)
    return parallel.share(lambda: trained)


def _note_divergence(spec: RunSpec, place: _Place, error: NonFiniteLossError) -> None:
    """Notes in the run's directory that its training diverged, and where."""
    place.lock.check()
    reason = " ".join(str(error).split()).partition("; the ")[0]  # what is kept is not for the record
    found = Divergence(spec, reason, environment(place.device) | place.shared)
    write_atomically(place.directory / "diverged.json", found.to_json())


def _options(spec: RunSpec, place: _Place, log: _Log) -> dict[str, Any]:
    """What training is told besides model, data and settings."""

    def logged(entry: dict[str, Any]) -> dict[str, Any]:
        place.lock.check()
        seconds = log.add(entry)
        if place.on_epoch is not None:
            place.on_epoch(entry)
        return seconds

    options: dict[str, Any] = {"seed": spec.seed, "key": spec.key, "on_epoch": logged, "parallel": place.parallel}
    return options | {
        "stop": place.stop,
        "pace": _Pace(),
        "checkpoint": place.directory / "checkpoint.safetensors",
    }


def _write_trained(
    spec: RunSpec, place: _Place, model: TrainableModel, history: list[dict[str, Any]], how: Mapping[str, Any]
) -> dict[str, Any]:
    """Keeps what was trained, and what is noted of it."""
    weights = place.directory / "weights.safetensors"
    save_tensors(weights, model.state_dict(), {"key": spec.key})
    known = {k: v for k, v in environment(place.device).items() if k in ("commit", "dirty", "device_name")}
    if any(entry.get("dirty") for entry in history):  # by a run that this one began with
        known["dirty"] = True
    trained = {"key": spec.key, "weights_sha256": file_sha256(weights), "history": history}
    trained |= {"environment": known | dict(how)}
    write_atomically(place.directory / "training.json", json.dumps(trained, indent=1) + "\n")
    return trained


def alike(spec: RunSpec, other: RunSpec) -> bool:
    """Whether two runs are seeds of one model, which can be trained together."""
    return replace(spec, seed=0) == replace(other, seed=0)


def execute_stacked(
    specs: Sequence[RunSpec],
    store: RunStore,
    *,
    device: str = "cpu",
    on_epoch: Callable[[RunSpec, dict[str, Any]], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> list[Record | Exception]:
    """Executes seeds of one model, trained together (:mod:`repro.training.stacked`) and measured one after another.

    A seed with a record or with whole weights is not trained again; one with a checkpoint goes on from it, whether it
    was trained alone or with others. A record says with how many seeds its run was trained.

    Arguments:
        specs: The runs, which are :func:`alike`.
        store: Where run directories live.
        device: As in :func:`execute`.
        on_epoch: Called with a run and each of its finished epochs' entries.
        stop: Asked after every step; all runs end at the first true answer.

    Returns:
        Each one's record, or the error that ended it, as :func:`execute` raises it.

    Raises:
        ValueError: If the runs are not seeds of one model.
        BusyError: If another process is executing one of them.
        TrainingStopped: If ``stop`` asked for it; the runs continue from there.
    """
    if any(not alike(s, specs[0]) for s in specs):
        raise ValueError(f"{', '.join(s.label for s in specs)} are not seeds of one model")
    places, errors = {}, {}
    with contextlib.ExitStack() as locks:
        runs, parts = [], []
        for spec in specs:
            if store.current(spec) is not None:
                continue
            lock = RunLock(store.directory(spec))
            _acquire(lock, spec)
            locks.callback(lock.release, finished=False)
            told = None if on_epoch is None else partial(on_epoch, spec)
            place = places[spec] = _Place(lock, device, told, stop or _never, ALONE)
            check_spec_file(place.directory, spec)
            data, model = loaded(spec)
            _note_data(place.directory, spec, data)
            if _read_trained(place.directory, spec) is not None:
                continue
            settings, log = experiment_of(spec).training(spec, device), _Log(place.directory / "log.jsonl")
            runs.append(
                training(
                    model, data["train"], settings, validation=data.get("validation"), **_options(spec, place, log)
                )
            )
            parts.append((spec, place, model, log))
        with _memory(specs[0], None, ALONE):
            ended = train_stacked(runs)
        for (spec, place, model, log), end in zip(parts, ended, strict=True):
            if isinstance(end, TrainingStopped):
                log.add({"stopped": str(end)})
            if isinstance(end, NonFiniteLossError):
                _note_divergence(spec, place, end)
            if isinstance(end, Exception):
                errors[spec] = end
            else:
                _write_trained(spec, place, model, end, {"stacked": len(parts)} if len(parts) > 1 else {})
    if stopped := next((e for e in errors.values() if isinstance(e, TrainingStopped)), None):
        raise stopped
    found: list[Record | Exception] = []
    for spec in specs:
        try:
            told = None if on_epoch is None else partial(on_epoch, spec)
            found.append(errors.get(spec) or execute(spec, store, device=device, on_epoch=told, stop=stop))
        except TrainingStopped:
            raise
        except Exception as error:
            found.append(error)
    return found


def loaded(spec: RunSpec) -> tuple[Mapping[str, Any], TrainableModel]:
    """A run's data, and its model with the seed's parameters."""
    experiment = experiment_of(spec)
    data = experiment.load(spec)
    with isolated_rng(spec.seed):
        return data, experiment.build(spec)


def _read_trained(directory: Path, spec: RunSpec) -> dict[str, Any] | None:
    """What is noted of a training that came to its end, None where none did.

    Raises:
        RunError: If the note or the weights are not this run's.
    """
    note, weights = directory / "training.json", directory / "weights.safetensors"
    if not (note.exists() and weights.exists()):
        return None
    try:
        trained = json.loads(note.read_text(encoding="utf-8"))
        sound = trained["key"] == spec.key and trained["weights_sha256"] == file_sha256(weights)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{note} cannot be read ({error}); move it away to train again") from None
    if not sound:
        raise RunError(f"{weights} is not what {note} was written for; move both away to train again")
    return trained


@contextlib.contextmanager
def _memory(spec: RunSpec, batch_size: int | None, parallel: Parallel) -> Iterator[None]:
    """Says what to do where the memory does not suffice; what was asked for is never changed."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        text = " ".join(str(error).split())
        known = isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in text
        if not known:
            raise
        if batch_size is None:
            advice = "as it was measured; its weights are kept: run it again with more memory"
        else:
            each, shards = -(-batch_size // parallel.shards), 2 * parallel.shards
            advice = (
                f"with {each} samples at once; --shards {shards} takes {-(-each // 2)} at once of the same batch of "
                f"{batch_size}, with noise of its own for each part (the record says so)"
            )
        raise OutOfMemoryError(f"{spec.label}: out of memory {advice}") from None


def _thin(history: list[dict[str, Any]], most: int = 10) -> list[dict[str, Any]]:
    """At most so many entries, evenly spaced, and the last one of each stage with a stopping rule; the log has all.

    And the last one of each stage that another run has trained.
    """
    step = max(1, len(history) // most)
    kept = {i for i in range(len(history)) if (len(history) - 1 - i) % step == 0}
    kept = set(sorted(kept)[-most:]) | {i for i, e in enumerate(history) if "converged" in e}
    kept |= set({e["stage"]: i for i, e in enumerate(history) if "trained_by" in e}.values())
    return [{k: v for k, v in history[i].items() if k != "seconds"} for i in sorted(kept)]


def save_tensors(path: Path, tensors: Mapping[str, Any], info: Mapping[str, Any]) -> None:
    """Writes a safetensors file, whole or not at all, with ``info`` as JSON in its header.

    Raises:
        RunError: If it cannot be written.
    """
    found, stored = {}, set()
    for k, v in tensors.items():
        x = v.detach().cpu().contiguous()
        place = x.untyped_storage().data_ptr()
        found[k] = x.clone() if place in stored else x  # tied parameters, each under its own name
        stored.add(place)
    write_atomically(path, save(found, {"repro": canonical_json(info)}))
