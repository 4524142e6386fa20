"""What is run and what was measured: pure data, with canonical JSON and content hashes.

Reading files, the clock and the machine is left to :mod:`repro.engine.execute`, but for what cards say of former data.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from repro.datasets.former import changes_of
from repro.errors import NoProfileError, RecordError

__all__ = [
    "PRECISIONS",
    "PROFILES",
    "SHOWN",
    "Divergence",
    "Metric",
    "Record",
    "RunSpec",
    "canonical_json",
    "changed",
    "digest",
    "of_profile",
    "precision_of",
    "provenance",
    "with_precision",
]

# The paper's own settings; narrow networks on the whole data until the validation loss stops improving, at most a night
# on two cores; minutes; what tests run.
PROFILES = ("paper", "overnight", "quick", "smoke")
SHOWN = PROFILES[:-1]  # whose records are committed, drawn and published
Settings = TypeVar("Settings")
FORMAT, DIVERGENCE_FORMAT = "repro-record/1", "repro-divergence/1"


def of_profile(settings: Mapping[str, Settings], profile: str) -> Settings:
    """The settings of a profile.

    Raises:
        NoProfileError: If there are none; the paper profile of some experiments is short enough for a night.
    """
    if profile not in settings:
        raise NoProfileError(f"has no profile {profile!r}; it has {', '.join(settings)}")
    return settings[profile]


def changed(base: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """The settings of another profile: those of a base with some changed, in settings within settings too."""
    found = dict(base)
    for name, value in changes.items():
        inner = base.get(name)
        both = isinstance(inner, Mapping) and isinstance(value, Mapping)
        found[name] = changed(inner, **value) if both else value
    return found


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no white space, equal for equal values.

    Raises:
        ValueError: If the value holds a number that JSON cannot carry, such as NaN.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def _plain(value: Any, where: str) -> Any:
    """A copy made of dict, list, str, int, float, bool and None alone."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v, where) for v in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise RecordError(f"{where} is {value}, not a finite number")
        return value
    raise RecordError(f"{where} has type {type(value).__name__}, which a specification cannot hold")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _checked(text: str, form: str, where: str) -> tuple[dict[str, Any], RunSpec]:
    """A file's content without its digest, and its specification.

    Raises:
        RecordError: If the text is not of that format, its specification does not match its key, or its digest does
            not match its content.
    """
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except ValueError as error:
        raise RecordError(f"{where}: not JSON ({error})") from None
    if not isinstance(value, dict) or value.get("format") != form:
        raise RecordError(f"{where}: not a {form} file")
    spec = RunSpec.from_dict(value.get("spec"), where)
    if value.get("key") != spec.key:
        raise RecordError(f"{where}: key {value.get('key')} does not match its specification, whose key is {spec.key}")
    claimed = value.pop("digest", None)
    if claimed != digest(value):
        raise RecordError(f"{where}: content does not match its digest; the file was altered")
    return value, spec


@dataclass(frozen=True)
class RunSpec:
    """Everything that determines one run.

    Arguments:
        paper: The paper package, such as ``"gmrf_mcvae"``.
        dataset: The dataset's name.
        method: The model, such as ``"mvae"``.
        seed: Seed of the parameters' initialisation and of training.
        profile: One of ``PROFILES``.
        params: Every hyper-parameter, resolved; nested mappings of plain values.

    Raises:
        RecordError: If the profile is unknown, the seed is negative, or a value is not plain and finite.
    """

    paper: str
    dataset: str
    method: str
    seed: int
    profile: str
    params: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise RecordError(f"unknown profile {self.profile!r}; one of {', '.join(PROFILES)}")
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or self.seed < 0:
            raise RecordError(f"seed is {self.seed!r}, must be an integer of at least 0")
        object.__setattr__(self, "params", _plain(self.params, "params"))

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def key(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of the canonical JSON."""
        return digest(self.to_dict())[:16]

    @property
    def label(self) -> str:
        """A short name for people."""
        return f"{self.paper}/{self.method} seed {self.seed} ({self.profile}, {self.key[:8]})"

    def to_dict(self) -> dict[str, Any]:
        """The specification as plain JSON values."""
        return {
            "paper": self.paper,
            "dataset": self.dataset,
            "method": self.method,
            "seed": self.seed,
            "profile": self.profile,
            "params": _plain(self.params, "params"),
        }

    @classmethod
    def from_dict(cls, value: Any, where: str = "specification") -> RunSpec:
        """Reads :meth:`to_dict`'s form.

        Raises:
            RecordError: If a field is missing or unknown.
        """
        names = {"paper", "dataset", "method", "seed", "profile", "params"}
        if not isinstance(value, dict) or set(value) != names:
            got = sorted(value) if isinstance(value, dict) else type(value).__name__
            raise RecordError(f"{where}: fields {got}, expected {sorted(names)}")
        return cls(**value)


PRECISIONS = ("float32", "bfloat16")
# The settings that state the precision of a model's hidden layers.
DTYPE_SETTINGS = ("hidden_dtype", "compute_dtype")


def precision_of(spec: RunSpec) -> str | None:
    """The precision of a run's hidden layers, None where its model has no such setting."""
    model = spec.params.get("model", {})
    return next((str(model[name]) for name in DTYPE_SETTINGS if name in model), None)


def with_precision(spec: RunSpec, precision: str | None) -> RunSpec:
    """The same run with the hidden layers in another precision; None changes nothing.

    Raises:
        ValueError: If the precision is unknown, or the run's model has no such setting.
    """
    if precision is None:
        return spec
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; one of {', '.join(PRECISIONS)}")
    model = spec.params.get("model", {})
    names = [n for n in DTYPE_SETTINGS if n in model]
    if not names:
        raise ValueError(f"{spec.label} has no precision of hidden layers to choose")
    return replace(spec, params={**spec.params, "model": {**model, **dict.fromkeys(names, precision)}})


@dataclass(frozen=True)
class Metric:
    """One measured number and how it was measured.

    Arguments:
        name: Unique within a record, such as ``"test/unconditional/mean/histogram/dim1"``.
        value: The number; a mean over repetitions where the protocol says so.
        unit: The unit, "1" where there is none.
        num_samples: Samples that the number rests on.
        protocol: How it was measured, in a sentence.
    """

    name: str
    value: float
    unit: str
    num_samples: int
    protocol: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", float(self.value))
        if not math.isfinite(self.value):
            raise RecordError(f"metric {self.name!r} is {self.value}, not a finite number")


@dataclass(frozen=True)
class Record:
    """The outcome of one run.

    Arguments:
        spec: What was run.
        metrics: What was measured.
        environment: Commit and whether the package differed from it, versions, device, threads.
        data: Dataset split to SHA-256 of the data that was used.
        weights_sha256: SHA-256 of the weights file.
        training_seconds: Wall-clock seconds of all epochs, over interruptions, and of those that another run trained.
        evaluation_seconds: Wall-clock seconds of the evaluation.
        history: One entry a logged epoch; of each stage at least the last one.
    """

    spec: RunSpec
    metrics: Sequence[Metric]
    environment: Mapping[str, Any]
    data: Mapping[str, str]
    weights_sha256: str
    training_seconds: float
    evaluation_seconds: float
    history: Sequence[Mapping[str, Any]] = ()

    def __post_init__(self) -> None:
        names = [m.name for m in self.metrics]
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise RecordError(f"metrics given twice: {twice}")

    @property
    def ended(self) -> dict[str, bool]:
        """Stage to whether its stopping rule ended it, of the stages that had one."""
        return {e.get("stage", ""): e["converged"] for e in self.history if "converged" in e}

    @property
    def converged(self) -> bool | None:
        """Whether every stage that had a stopping rule was ended by it; None where none had one.

        See :class:`repro.training.TrainingSettings` for the rule.
        """
        return all(self.ended.values()) if self.ended else None

    def metric(self, name: str) -> Metric:
        """The metric of that name.

        Raises:
            KeyError: If there is none; it names the record and what it has.
        """
        for m in self.metrics:
            if m.name == name:
                return m
        raise KeyError(f"record {self.spec.key} has no metric {name!r}; it has {[m.name for m in self.metrics]}")

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON values, with its key and a digest over everything else."""
        body = {
            "format": FORMAT,
            "key": self.spec.key,
            "spec": self.spec.to_dict(),
            "metrics": [
                {"name": m.name, "value": m.value, "unit": m.unit, "num_samples": m.num_samples, "protocol": m.protocol}
                for m in self.metrics
            ],
            "environment": _plain(self.environment, "environment"),
            "data": _plain(self.data, "data"),
            "weights_sha256": self.weights_sha256,
            "training_seconds": self.training_seconds,
            "evaluation_seconds": self.evaluation_seconds,
            "history": _plain(list(self.history), "history"),
        }
        return {**body, "digest": digest(body)}

    def to_json(self) -> str:
        """Indented JSON, one metric a line."""
        value = self.to_dict()
        metrics, history = value.pop("metrics"), value.pop("history")
        text = json.dumps(value, indent=1, allow_nan=False)
        for name, rows in (("metrics", metrics), ("history", history)):
            lines = ",\n".join("  " + json.dumps(row, allow_nan=False) for row in rows)
            text = text[: text.rindex("\n}")] + f',\n "{name}": [\n{lines}\n ]\n}}'
        return text + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = "record") -> Record:
        """Reads :meth:`to_json`'s form and checks it.

        Raises:
            RecordError: If the text is not such a record, its specification does not match its key, or its digest
                does not match its content.
        """
        value, spec = _checked(text, FORMAT, where)
        try:
            return cls(
                spec=spec,
                metrics=[Metric(**m) for m in value["metrics"]],
                environment=value["environment"],
                data=value["data"],
                weights_sha256=value["weights_sha256"],
                training_seconds=value["training_seconds"],
                evaluation_seconds=value["evaluation_seconds"],
                history=value["history"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise RecordError(f"{where}: malformed ({error})") from None


@dataclass(frozen=True)
class Divergence:
    """A run whose training diverged, and which has no record for that reason.

    Arguments:
        spec: What was run.
        reason: Where it diverged and by what, in one line.
        environment: As a :class:`Record`'s.
    """

    spec: RunSpec
    reason: str
    environment: Mapping[str, Any]

    def to_json(self) -> str:
        """Indented JSON, with the run's key and a digest over everything else."""
        body = {
            "format": DIVERGENCE_FORMAT,
            "key": self.spec.key,
            "spec": self.spec.to_dict(),
            "reason": self.reason,
            "environment": _plain(self.environment, "environment"),
        }
        return json.dumps({**body, "digest": digest(body)}, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = "divergence") -> Divergence:
        """Reads :meth:`to_json`'s form and checks it.

        Raises:
            RecordError: As :meth:`Record.from_json` does.
        """
        value, spec = _checked(text, DIVERGENCE_FORMAT, where)
        reason, environment = value.get("reason"), value.get("environment")
        if not isinstance(reason, str) or not reason or not isinstance(environment, dict):
            raise RecordError(f"{where}: malformed (a reason and an environment are expected)")
        return cls(spec, " ".join(reason.split()), environment)


def provenance(records: Sequence[Record]) -> str:
    """One line on what records were measured with: profile, seeds, commits, devices."""
    if not records:
        return "No records."
    seeds = sorted({r.spec.seed for r in records})
    commits = sorted({_commit(r) for r in records} | {c for r in records for c in _earlier_commits(r)})
    sharing = sum(any("trained_by" in entry for entry in r.history) for r in records)
    shared = f"; with stages that other runs have trained in {sharing} of {len(records)}" if sharing else ""
    devices = sorted({f"{r.environment['device_name']} ({r.environment['device']})" for r in records})
    torch = sorted({r.environment["versions"].get("torch", "?") for r in records})
    dtypes = sorted({precision_of(r.spec) or "float32" for r in records})
    ends = [r.converged for r in records if r.converged is not None]
    fixed = "; fixed numbers of epochs" if any(r.history for r in records) else ""
    converged = f"; converged in {sum(ends)} of {len(ends)} runs" if ends else fixed
    precision = f"hidden layers in {' and '.join(dtypes)}; " if dtypes != ["float32"] else ""
    changed = f"; {found}" if (found := changes_of(r.data for r in records)) else ""
    return (
        f"Profile {', '.join(sorted({r.spec.profile for r in records}))}; seeds {', '.join(map(str, seeds))}; "
        f"{len(records)} record{'s' * (len(records) > 1)}{shared}{converged}{changed}; {precision}"
        f"commit {', '.join(commits)}; {', '.join(devices)}; torch {', '.join(torch)}."
    )


def _commit(record: Record) -> str:
    commit = record.environment.get("commit")
    return "unknown" if commit is None else commit[:7] + (" with changes" if record.environment["dirty"] else "")


def _earlier_commits(record: Record) -> set[str]:
    """Of the runs that have trained stages of this one."""
    return {
        (entry.get("commit") or "unknown")[:7] + " with changes" * bool(entry.get("dirty"))
        for entry in record.history
        if "trained_by" in entry
    }
