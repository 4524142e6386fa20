"""Run directories, the papers that fill them, and files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from repro.datasets.former import changes, said
from repro.datasets.places import expanded
from repro.errors import RecordError, RunError, UnreadableError, UsageError
from repro.records import Divergence, Record, RunSpec

__all__ = [
    "RunStore",
    "default_results_root",
    "default_runs_root",
    "figures_root",
    "file_sha256",
    "folder_of",
    "in_checkout",
    "read_divergence",
    "read_record",
    "read_spec",
    "sound_record",
    "write_atomically",
]


def folder_of(variable: str, default: str | Path) -> Path:
    """The folder that an environment variable names, ``~`` expanded; the default where it is unset or empty."""
    return expanded(os.environ.get(variable) or default)


def default_runs_root() -> Path:
    """``REPRO_RUNS`` if set, else ``runs`` in the working directory."""
    return folder_of("REPRO_RUNS", "runs")


def default_results_root() -> Path:
    """``REPRO_RESULTS`` if set, else ``results`` in the working directory: what ``repro run`` writes."""
    return folder_of("REPRO_RESULTS", "results")


def figures_root() -> Path:
    """Where recorded material lies: records, their samples, and the tables and figures drawn from them.

    ``REPRO_FIGURES`` if set; else inside the package where it was installed from a wheel; else ``figures`` of the
    checkout that the package lies in.
    """
    package = Path(__file__).resolve().parents[1]
    shipped = package / "figures"
    return folder_of("REPRO_FIGURES", shipped if shipped.is_dir() else package.parent / "figures")


def in_checkout(figures: Path) -> bool:
    """Whether a folder of recorded material may be written to: not that inside an installed package."""
    return figures.resolve() != Path(__file__).resolve().parents[1] / "figures"


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file so that it is there whole or not at all.

    Raises:
        RunError: If it cannot be written; what was there before is untouched.
    """
    partial = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as handle:
            handle.write(content.encode() if isinstance(content, str) else content)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):  # the folder cannot be written to; the error below says so
            partial.unlink(missing_ok=True)
        raise RunError(f"cannot write {path}: {error.strerror or error}") from None


class RunStore:
    """The run directories under one root, ``<root>/<paper>/<key>/``.

    A directory holds spec.json, log.jsonl, data.json (until there is a record) and checkpoint.safetensors while
    training, weights.safetensors and training.json after it, samples.safetensors (for figures) and, written last,
    record.json; in its place diverged.json where training diverged.

    Arguments:
        root: The folder; made when first written to.

    Raises:
        UsageError: If there is a file of that name.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        if self.root.is_file():
            raise UsageError(f"{root} is a file, a folder of runs is needed: --runs or REPRO_RUNS names another")

    def directory(self, spec: RunSpec) -> Path:
        """The run's directory, whether it exists or not."""
        return self.root / spec.paper / spec.key

    def record(self, spec: RunSpec) -> Record | None:
        """The run's record, None if it has none yet.

        Raises:
            RecordError: If there is a file that is not this run's record.
        """
        return read_record(self.directory(spec) / "record.json", spec)

    def current(self, spec: RunSpec) -> Record | None:
        """The run's record, None if it has none yet, or one of data that have changed since.

        Raises:
            RecordError: If there is a file that is not this run's record.
        """
        found = self.record(spec)
        return None if found is None or changes(found.data) else found

    def divergence(self, spec: RunSpec) -> Divergence | None:
        """How the run's training diverged; None if it has a record, or has not diverged.

        Raises:
            RecordError: If there is a file that does not say so of this run.
        """
        found = read_divergence(self.directory(spec) / "diverged.json", spec)
        return found if found is None or self.record(spec) is None else None

    def specs(self) -> Iterator[RunSpec]:
        """Every specification in the store."""
        for path in sorted(self.root.glob("*/*/spec.json")):
            yield RunSpec.from_dict(json.loads(path.read_text(encoding="utf-8")), str(path))

    def discard(self, spec: RunSpec) -> None:
        """Removes what a run left, so that it starts anew; the locks stay."""
        clear(self.directory(spec))


def clear(directory: Path) -> None:
    """Removes a run's files, but for the locks."""
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        if not path.name.startswith("lock") and path.is_file():
            path.unlink()


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnreadableError(f"{path}: cannot be read ({error})") from None
    except UnicodeDecodeError as error:
        raise RecordError(f"{path}: cannot be read ({error})") from None


def read_record(path: Path, spec: RunSpec | None = None) -> Record | None:
    """Reads and checks a record's file; None if there is no such file.

    Raises:
        RecordError: If the file is not a sound record, or not that of ``spec``.
    """
    if (text := _read(path)) is None:
        return None
    record = Record.from_json(text, str(path))
    if spec is not None and record.spec != spec:
        raise RecordError(f"{path}: is the record of {record.spec.label}, not of {spec.label}")
    return record


def read_divergence(path: Path, spec: RunSpec) -> Divergence | None:
    """Reads and checks the note of a training that diverged; None if there is no such file.

    Raises:
        RecordError: If the file is not such a note, or not that of ``spec``.
    """
    if (text := _read(path)) is None:
        return None
    found = Divergence.from_json(text, str(path))
    if found.spec != spec:
        raise RecordError(f"{path}: is of {found.spec.label}, not of {spec.label}")
    return found


def read_spec(store: RunStore, key: str) -> RunSpec | None:
    """The specification that a run's directory holds, by the run's key; None where there is no such directory.

    Raises:
        RecordError: If the file was altered.
    """
    if len(key) != 16 or not set(key) <= set("0123456789abcdef"):
        return None
    for path in store.root.glob(f"*/{key}/spec.json"):
        try:
            spec = RunSpec.from_dict(json.loads(path.read_text(encoding="utf-8")), str(path))
        except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise RecordError(f"{path}: cannot be read ({error}); move the run's directory away") from None
        if spec.key != key:
            raise RecordError(f"{path}: holds {spec.label}; the file was altered, move the run's directory away")
        return spec
    return None


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def check_spec_file(directory: Path, spec: RunSpec) -> None:
    """Makes sure that the directory is this run's, and notes its specification there if it is new.

    Raises:
        RecordError: If the directory holds another specification, or one that cannot be read.
        RunError: If it cannot be written.
    """
    path = directory / "spec.json"
    text = json.dumps(spec.to_dict(), indent=1) + "\n"
    if path.exists():
        try:
            found = RunSpec.from_dict(json.loads(path.read_text(encoding="utf-8")), str(path))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise RecordError(f"{path}: not JSON ({error})") from None
        if found != spec:
            raise RecordError(f"{path}: holds {found.label}, expected {spec.label}; the file was altered")
        return
    write_atomically(path, text)


def sound_record(spec: RunSpec, store: RunStore) -> Record:
    """The record of a run whose weights may be passed on.

    Raises:
        RunError: If there is none, it is of the smoke profile, of a checkout with changes or of data that have changed
            since, or the weights are not those that it was measured with.
    """
    record = store.record(spec)
    if record is None:
        raise RunError(f"{spec.label} has no record in {store.root}; run it first")
    if spec.profile == "smoke":
        raise RunError(f"{spec.label} is of the smoke profile, which is for tests alone")
    if record.environment["dirty"] is not False or record.environment["training"]["dirty"] is not False:
        raise RunError(f"{spec.label} was run from a checkout with changes; run it from a clean commit")
    if changed := changes(record.data):
        raise RunError(f"{spec.label} was run on data that have changed since ({said(changed)}); run it again")
    weights = store.directory(spec) / "weights.safetensors"
    if not weights.exists() or file_sha256(weights) != record.weights_sha256:
        raise RunError(f"{weights} is not there or not what the record of {spec.label} was measured with")
    return record
