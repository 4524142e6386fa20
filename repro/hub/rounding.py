"""Half precision for weights that ship, where a measurement says that it costs nothing that another seed would not."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from repro.artifacts.render import record_path
from repro.datasets.former import changes
from repro.engine.execute import execute, save_tensors
from repro.engine.store import RunStore, file_sha256, read_record, write_atomically
from repro.records import Record

__all__ = ["DTYPES", "RELATIVE", "Rounded", "rounded", "tolerance"]

DTYPES = ("float16", "bfloat16")
RELATIVE = 0.005
SEEDS = 10


@dataclass(frozen=True)
class Rounded:
    """Weights in half precision, and what was measured with them.

    Arguments:
        record: Of the same run, measured with these weights.
        weights: The content of their file.
        dtype: Their type.
        exact: The headline metric with the weights that training ended with.
        tolerance: How far it may move.
    """

    record: Record
    weights: bytes
    dtype: str
    exact: float
    tolerance: float

    def fields(self) -> dict[str, Any]:
        """What the manifest states."""
        return {"dtype": self.dtype, "exact": self.exact, "tolerance": self.tolerance}


def tolerance(record: Record, metric: str, figures: Path) -> float:
    """How far a metric may move: its standard deviation over the recorded seeds, or 0.5% where that is more.

    Arguments:
        record: Of one seed.
        metric: Its name.
        figures: Where committed records lie.
    """
    value = record.metric(metric).value
    seeds = [replace(record.spec, seed=k) for k in range(SEEDS)]
    records = [r for s in seeds if (r := read_record(record_path(s, figures), s)) is not None]
    found = [r.metric(metric).value for r in records if not changes(r.data)]
    return max(RELATIVE * abs(value), statistics.stdev(found) if len(found) > 1 else 0.0)


def rounded(
    record: Record,
    metric: str,
    store: RunStore,
    figures: Path,
    *,
    measure: Callable[..., Record] = execute,
) -> Rounded | None:
    """A run's weights in half precision, if its headline metric stays within the tolerance; None if it does not.

    float16 is tried before bfloat16, which has fewer digits and no overflow. Each is evaluated as the run was, on the
    type of device that the run was evaluated on.

    Arguments:
        record: The run's record.
        metric: The headline metric.
        store: Where the run's directory lies; nothing in it changes.
        figures: Where committed records lie.
        measure: What evaluates a run directory.
    """
    allowed, exact = tolerance(record, metric, figures), record.metric(metric).value
    device = str(record.environment["device"]).partition(":")[0]
    for dtype in DTYPES:
        with tempfile.TemporaryDirectory() as folder:
            scratch = RunStore(Path(folder))
            path = _place(record, store.directory(record.spec), scratch.directory(record.spec), dtype)
            new = measure(record.spec, scratch, device=device)
            new = replace(new, environment=new.environment | {"training": record.environment["training"]})
            if abs(new.metric(metric).value - exact) <= allowed:
                return Rounded(new, path.read_bytes(), dtype, exact, allowed)
    return None


def _place(record: Record, trained: Path, target: Path, dtype: str) -> Path:
    """A run directory whose training is over, with weights in another precision."""
    tensors = load_file(trained / "weights.safetensors")
    kept = {k: v.to(getattr(torch, dtype)) if v.is_floating_point() else v for k, v in tensors.items()}
    target.mkdir(parents=True, exist_ok=True)
    path = target / "weights.safetensors"
    save_tensors(path, kept, {"key": record.spec.key})
    note: Mapping[str, Any] = json.loads((trained / "training.json").read_text(encoding="utf-8"))
    note = {**note, "weights_sha256": file_sha256(path)}
    write_atomically(target / "training.json", json.dumps(note, indent=1) + "\n")
    return path
