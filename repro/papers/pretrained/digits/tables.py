"""What was measured of the flow and of the digit classifiers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from repro.experiment import Results, Rows, artifact
from repro.papers.pretrained.digits.experiment import CLASSIFIERS, classifier_spec, flow_spec
from repro.records import Metric, Record, provenance
from repro.report.cells import Cell, Shown
from repro.report.plain_tables import NONE, PlainTable

__all__ = ["classifiers", "flow", "measured"]


def measured(record: Record, metric: Metric) -> tuple[str, str, str]:
    """A row of seed, value and protocol."""
    text = f"{metric.value:.4g}" + ("" if metric.unit == "1" else f" {metric.unit}")
    return str(record.spec.seed), Shown(text, Cell(None, [metric.value])), metric.protocol


def _flow(records: Sequence[Record]) -> PlainTable:
    rows = [measured(r, m) for r in records for m in r.metrics]
    title = "Masked autoregressive flow on the VAEGAN's encodings of MNIST"
    return PlainTable(title, ("seed", "value", "what"), tuple(rows), (provenance(records),), ("seed", "what"))


def _classifiers(records: Mapping[str, Sequence[Record]], published: Mapping[str, float]) -> PlainTable:
    rows = []
    for name, found in records.items():
        for record in found:
            prefix = "test/accuracy/"
            own = {m.name.removeprefix(prefix): m.value for m in record.metrics if m.name.startswith(prefix)}
            mean = own.pop("mean")
            networks = "one for all" if CLASSIFIERS[name]["shared"] else "one each"
            stated = f"{published[name]:.3f}" if name in published else NONE
            each = ", ".join(f"{m} {v:.4f}" for m, v in own.items()) if len(own) > 1 else NONE
            shown = Shown(f"{mean:.4f}", Cell(published.get(name), [mean]))
            rows.append((name, networks, shown, stated, each, str(record.spec.params["training"]["epochs"])))
    columns = ("dataset", "networks", "test accuracy, mean", "published", "by modality", "epochs")
    notes = (
        "Share of right digits on the test split, weights rounded to float16 as they ship with the package.",
        "PolyMNIST and Extended PolyMNIST are generated from MNIST and the backgrounds; see their cards.",
        provenance([r for found in records.values() for r in found]),
    )
    return PlainTable("Digit classifiers", columns, tuple(rows), notes)


def _flow_runs(profile: str, seeds: int | None) -> Rows:
    return {"flow": [flow_spec(profile, s) for s in range(seeds or 1)]}


def _classifier_runs(profile: str, seeds: int | None) -> Rows:
    return {name: [classifier_spec(name, profile, s) for s in range(seeds or 1)] for name in CLASSIFIERS}


@artifact("flow", runs=_flow_runs)
def flow(results: Results) -> PlainTable:
    """What was measured of the flow."""
    return _flow(results.records("flow"))


@artifact("classifiers", runs=_classifier_runs)
def classifiers(results: Results) -> PlainTable:
    """Accuracies of the digit classifiers."""
    return _classifiers(dict(results), results.published)
