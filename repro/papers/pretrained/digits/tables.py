"""What was measured of the flow and of the digit classifiers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from repro.experiment import Results, Rows, artifact
from repro.papers.pretrained.digits.experiment import (
    CLASSIFIERS,
    VAEGAN_SEED,
    classifier_spec,
    flow_spec,
    vaegan_spec,
)
from repro.records import Metric, Record, provenance
from repro.report.cells import Cell, Shown
from repro.report.plain_tables import NONE, PlainTable

__all__ = ["classifiers", "flow", "measured", "vaegan_gradients"]

# Row of the VAEGANs to what a network's parameters follow.
GRADIENTS = {"added up as in pythae's trainer": "accumulated", "each network's own loss alone": "separate"}
VAEGAN_COLUMNS = {
    "samples/confident": "share of samples recognised with confidence",
    "samples/digit_entropy": "entropy of their digits, nat",
    "samples/rarest_digit": "share of the rarest digit",
    "test/mse": "squared error of reconstructions",
    "test/kl": "KL(q(z|x) || N(0, I)), nat",
}


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


def _gradient_runs(profile: str, seeds: int | None) -> Rows:
    numbers = range(seeds or 1)
    return {
        row: [vaegan_spec(profile, VAEGAN_SEED + s, gradients=how) for s in numbers] for row, how in GRADIENTS.items()
    }


def _flow_runs(profile: str, seeds: int | None) -> Rows:
    return {"flow": [flow_spec(profile, s) for s in range(seeds or 1)]}


def _classifier_runs(profile: str, seeds: int | None) -> Rows:
    return {name: [classifier_spec(name, profile, s) for s in range(seeds or 1)] for name in CLASSIFIERS}


@artifact("vaegan-gradients", runs=_gradient_runs)
def vaegan_gradients(results: Results) -> PlainTable:
    """The VAEGAN by what its networks' parameters follow (erratum E18), with what is recorded."""
    found, records = [], results.all_records()
    for row, own in dict(results).items():
        for record in own:
            values = {m.name: m.value for m in record.metrics}
            cells = [Shown(f"{values[k]:.4g}", Cell(None, [values[k]])) for k in VAEGAN_COLUMNS]
            found.append((row, str(record.spec.seed), str(record.spec.params["training"]["epochs"]), *cells))
        if not own:
            found.append((row, NONE, NONE, *("not run" for _ in VAEGAN_COLUMNS)))
    columns = ("gradients", "seed", "epochs", *VAEGAN_COLUMNS.values())
    drawn = sorted({m.num_samples for r in records for m in r.metrics if m.name == "samples/confident"})
    said = f"{' and '.join(f'{n:,}' for n in drawn)} samples; reconstructions of the test images."
    notes = (
        f"{said} The paper names pythae's trainer, not what it does (erratum E18).",
        "By each network's own loss alone, the training of 50 epochs was started with seed 2 and given up after one, "
        "without a record: the discriminator rested in nearly every step and samples were patterns of dots.",
        provenance(records),
    )
    return PlainTable("VAEGAN on MNIST: what its networks' parameters follow", columns, tuple(found), notes)


@artifact("flow", runs=_flow_runs)
def flow(results: Results) -> PlainTable:
    """What was measured of the flow."""
    return _flow(results.records("flow"))


@artifact("classifiers", runs=_classifier_runs)
def classifiers(results: Results) -> PlainTable:
    """Accuracies of the digit classifiers."""
    return _classifiers(dict(results), results.published)
