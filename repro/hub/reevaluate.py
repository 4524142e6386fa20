"""From weights to results: a table's cells measured anew from published weights, without training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro.artifacts.inventory import find
from repro.artifacts.render import plan, render, unique
from repro.artifacts.results import check_results
from repro.datasets.former import changes, said
from repro.engine.local import run_all
from repro.engine.store import (
    RunStore,
    default_results_root,
    default_runs_root,
    figures_root,
    file_sha256,
    read_record,
    write_atomically,
)
from repro.errors import RunError
from repro.hub.manifest import entries, packaged_files
from repro.hub.pull import pull
from repro.hub.registry import Model, find_entry, model_of, models
from repro.records import Record, RunSpec
from repro.weights.folder import package_folder

__all__ = ["ABSOLUTE", "RELATIVE", "Comparison", "compare", "published_artifacts", "reevaluate"]

# On one device type the draws of an evaluation are the same, and what is left is the rounding of float32 sums in
# another order, which moves single samples across the edges of a histogram's cells.
RELATIVE, ABSOLUTE = 1e-3, 1e-3
FOLDER = "from-weights"


@dataclass(frozen=True)
class Comparison:
    """A record that was measured anew beside the one that came with the weights.

    Arguments:
        name: The model.
        count: Number of metrics.
        worst: Name, new value and recorded value of the metric that is farthest off its tolerance.
        excess: Its difference over its tolerance; at most 1 where all metrics are within.
        missing: Metrics that one of the two records lacks.
        devices: What the weights' record and the new one were measured on.
    """

    name: str
    count: int
    worst: tuple[str, float, float]
    excess: float
    missing: tuple[str, ...]
    devices: tuple[str, str]

    @property
    def equal(self) -> bool:
        """Whether every metric is there in both and within the tolerance."""
        return self.excess <= 1 and not self.missing

    def __str__(self) -> str:
        tolerance = f"{RELATIVE:g} of the value + {ABSOLUTE:g} of its unit"
        place = "" if len(set(self.devices)) == 1 else f" (recorded on {self.devices[0]}, whose draws are others)"
        if self.missing:
            return f"{self.name}: DIFFERS from its record, metrics in one of them only: {', '.join(self.missing[:3])}"
        name, new, old = self.worst
        if not self.equal:
            values = f"{name} is {new:.6g}, not {old:.6g}"
            return f"{self.name}: DIFFERS from its record by more than {tolerance}: {values}{place}"
        return f"{self.name}: {self.count} metrics equal to their record within {tolerance}{place}"


def compare(name: str, new: Record, old: Record) -> Comparison:
    r"""Compares two records of one run, metric by metric.

    .. math:: |a - b| \le 10^{-3} |b| + 10^{-3}

    Arguments:
        name: The model.
        new: Measured now.
        old: What came with the weights.
    """
    values = {m.name: m.value for m in new.metrics}
    known = {m.name: m.value for m in old.metrics}
    ratios = {m: abs(values[m] - b) / (RELATIVE * abs(b) + ABSOLUTE) for m, b in known.items() if m in values}
    worst = max(ratios, key=ratios.__getitem__, default="")
    devices = tuple(str(r.environment["device"]).partition(":")[0] for r in (old, new))
    return Comparison(
        name,
        len(ratios),
        (worst, values.get(worst, 0.0), known.get(worst, 0.0)),
        ratios.get(worst, 0.0),
        tuple(sorted(set(values) ^ set(known))),
        (devices[0], devices[1]),
    )


def _folder(name: str) -> Path:
    """Where verified files of a model lie: inside the package, or in the cache, where they are put first.

    Raises:
        RunError: If a file inside the package is not what the manifest states.
        HubError: If the files cannot be had.
    """
    entry = find_entry(name)
    if (hashes := packaged_files(entry)) is None:
        return pull(entry)[0]
    folder = package_folder() / name
    for file, expected in hashes.items():
        if file_sha256(folder / file) != expected:
            raise RunError(f"weights/{name}/{file} is not what the manifest states; install the package again")
    return folder


def _place(model: Model, store: RunStore) -> Record:
    """Makes a run directory whose training is over, of published weights; returns their record."""
    folder, spec = _folder(model.name), model.spec()
    record = read_record(folder / "record.json", spec)
    if record is None:
        raise RunError(f"{model.name} came without its record")
    if changed := changes(record.data):
        raise RunError(f"{model.name} cannot be measured again: its data have changed since ({said(changed)})")
    store.discard(spec)
    directory = store.directory(spec)
    write_atomically(directory / "weights.safetensors", (folder / "weights.safetensors").read_bytes())
    history: list[dict[str, Any]] = [{**entry, "seconds": 0.0} for entry in record.history]
    history = history or [{"seconds": 0.0}]
    history[-1]["seconds"] = record.training_seconds
    trained = {
        "key": spec.key,
        "weights_sha256": file_sha256(directory / "weights.safetensors"),
        "history": history,
        "environment": record.environment["training"],
    }
    write_atomically(directory / "training.json", json.dumps(trained, indent=1) + "\n")
    return record


def published_artifacts() -> list[tuple[str, str]]:
    """Every artifact that published models are rows of, with the profile of these; in the models' order."""
    chosen = (models()[name] for name in entries() if name in models())
    return list(dict.fromkeys((m.artifact, m.spec().profile) for m in chosen if not m.block))


def reevaluate(
    name: str,
    *,
    profile: str = "paper",
    seeds: int | None = None,
    workers: int | None = None,
    device: str | None = None,
    runs: Path | None = None,
    results: Path | None = None,
) -> tuple[list[Path], list[Comparison], list[RunSpec]]:
    """Measures an artifact's runs anew from published weights, and renders it: ``repro run ID --from-weights``.

    Nothing is trained. Models come from the package, the cache or the Hub, verified; their runs are evaluated and
    compared with the records that came with them. Runs whose weights are not published keep their exported record.
    Everything is written below ``from-weights`` of the folders of runs and of results, so that no trained run and none
    of its results changes.

    Arguments:
        name: The artifact, such as ``"gmrf_mcvae/table1"``.
        profile: The profile of the runs.
        seeds: Number of seeds; 1 if None, that of the published weights.
        workers: Processes; one a core if None.
        device: Where to evaluate; the CPU if None.
        runs: Folder of the run directories.
        results: Folder that is written to; that of ``REPRO_RESULTS`` or ``results`` if None.

    Returns:
        The rendered files, a comparison for each model that was measured, and the runs whose record was taken over.

    Raises:
        UsageError: If the artifact is unknown or not computed here, or the folder of results cannot be written to.
        RunError: If none of its runs has published weights, an evaluation failed, or a record is missing.
        HubError: If weights cannot be had.
    """
    artifact = find(name)
    specs = unique(plan(artifact, profile, seeds or 1))
    known = entries()
    found = {spec: model for spec in specs if (model := model_of(spec)) is not None and model.name in known}
    if not found:
        others = sorted({p for name, p in published_artifacts() if name == artifact.name})
        hint = f"there are of --profile {others[0]}" if others else "`repro weights list` shows which are"
        raise RunError(f"no weights of {artifact.name} ({profile}) are published; {hint}")
    store = RunStore((runs or default_runs_root()) / FOLDER)
    into = (results or default_results_root()) / FOLDER
    check_results(artifact, profile, specs, into)
    recorded = {spec: _place(model, store) for spec, model in found.items()}
    if failures := run_all(list(found), store, workers=workers, device=device or "cpu"):
        listed = "; ".join(f"{f.spec.label}: {f.reason}" for f in failures)
        raise RunError(f"{len(failures)} of {len(found)} evaluations failed: {listed}")
    compared = []
    for spec, model in found.items():
        record = store.record(spec)
        assert record is not None
        compared.append(compare(model.name, record, recorded[spec]))
    left = [spec for spec in specs if spec not in found]
    _take_over(left, figures_root(), into)
    return render(artifact, profile, into, store=store, seeds=seeds or 1), compared, left


def _take_over(specs: Sequence[RunSpec], exported: Path, into: Path) -> None:
    """Copies exported records beside the new figures; what is missing is for the rendering to name."""
    for spec in specs:
        relative = Path(spec.paper) / "records" / f"{spec.key}.json"
        record = read_record(exported / relative, spec)
        if record is not None:
            write_atomically(into / relative, record.to_json())
            samples = (exported / relative).with_suffix(".safetensors")
            if samples.exists():
                write_atomically((into / relative).with_suffix(".safetensors"), samples.read_bytes())
