"""Which structure to take for which kind of dependence: sentences that follow from records, one a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from repro.papers.compare.priors.settings import LABELS, ORACLE, POLYMNIST
from repro.records import Record
from repro.report.cells import Cell, agreement
from repro.report.evidence import by_chains, mixing_caveat

__all__ = ["advice", "dependence"]


@dataclass(frozen=True)
class _Measure:
    """What a task is judged by.

    Arguments:
        task: In words.
        metric: Its name in records.
        cost: The metric of the seconds of 1,000 samples' latents.
        words: What the metric is called.
        better: ``"lower"``, ``"higher"``, or the metric of what true data have, near which is better.
        decimals: Of its values.
    """

    task: str
    metric: str
    cost: str
    words: str
    better: str
    decimals: int


JOINT, GIVEN = "sampling/joint/seconds", "sampling/conditional/seconds"
MEASURES: Mapping[str, Sequence[_Measure]] = {
    "copula": (
        _Measure("Joint samples", "test/unconditional/mean/transport/mean", JOINT, "exact distance", "lower", 1),
        _Measure("Given one modality", "test/conditional/mean/transport/mean", GIVEN, "exact distance", "lower", 1),
    ),
    "mnist_triples": (
        _Measure("Joint samples", "test/unconditional/coherence", JOINT, "coherence", "higher", 3),
        _Measure("Given one modality", "test/conditional/coherence", GIVEN, "coherence", "higher", 3),
    ),
    "correlated_mnist3": (
        _Measure("Joint samples", "test/images/joint", JOINT, "correlation read from images", "test/images/data", 3),
        _Measure(
            "Given one modality",
            "test/images/given-one",
            GIVEN,
            "correlation read from images",
            "test/images/data",
            3,
        ),
    ),
    POLYMNIST: (
        _Measure("Joint samples", "test/unconditional/coherence", JOINT, "coherence", "higher", 3),
        _Measure("Given one modality", "test/given-one/coherence", GIVEN, "coherence", "higher", 3),
    ),
}


def dependence(data: Mapping[str, Any]) -> str:
    """The kind of dependence of the data of a run, in words."""
    if data.get("alike") == "image":
        return "Two modalities show the same image, a third has nothing of them"
    if data.get("alike") == "digit":
        return "Two modalities share their class alone, a third has nothing of them"
    if "modalities" in data:
        return "All modalities share their class alone, each over a background of its own"
    if "rho" in data:
        return f"Images drawn from latents with a correlation of {data['rho']:g} between every two modalities"
    return "Modalities of two values each, joined by a Gaussian of correlations of both signs (a Gaussian copula)"


def _values(records: Sequence[Record], metric: str) -> list[float]:
    return [m.value for r in records for m in r.metrics if m.name == metric]


def _errors(records: Sequence[Record], measure: _Measure) -> Cell:
    """How far each seed is from what is best; lower is better."""
    values = _values(records, measure.metric)
    if not values or (by_chains(measure.metric) and mixing_caveat(records)):
        return Cell(None, (), "not measured")
    if measure.better == "higher":
        values = [-v for v in values]
    elif measure.better != "lower":
        values = [abs(v - t) for v, t in zip(values, _values(records, measure.better), strict=True)]
    return Cell(None, values)


def _better(other: Cell, own: Cell) -> bool:
    """Whether a structure's mean is better than another's by more than two standard errors."""
    return other.mean < own.mean and agreement(other, own) is False


def advice(dataset: str, records: Mapping[str, Sequence[Record]]) -> list[str]:
    """For each task the cheapest structure to draw from, among those that none is shown to be better than.

    One is shown to be better than another where their means differ by more than two standard errors. The oracle of
    nearest neighbours and samples from chains that do not mix take no part. With one seed, which tells of no
    spread, the best is named and nothing is recommended.

    Arguments:
        dataset: One of ``MEASURES``.
        records: Label of a structure to its records, a record a seed, of the same data.

    Returns:
        A sentence for each task that at least two structures were measured in.
    """
    known = {label: found for label, found in records.items() if found and label != LABELS[ORACLE]}
    found = []
    for measure in MEASURES[dataset]:
        errors = {label: e for label, rs in known.items() if (e := _errors(rs, measure)).mean is not None}
        if len(errors) < 2:
            continue
        best = min(errors, key=lambda label: errors[label].mean)
        cost = {label: fmean(_values(known[label], measure.cost)) for label in errors}
        shown = {label: f"{fmean(_values(known[label], measure.metric)):.{measure.decimals}f}" for label in errors}
        truth = ""
        if measure.better not in ("lower", "higher"):
            truth = f"; true images have {fmean(_values(known[best], measure.better)):.{measure.decimals}f}"
        as_good = [label for label, e in errors.items() if not any(_better(other, e) for other in errors.values())]
        if errors[best].n < 2:
            found.append(
                f"{measure.task}: {best} is the best by {measure.words}, {shown[best]}{truth}; one seed, which tells "
                "of no spread and recommends nothing."
            )
            continue
        take = min(as_good, key=lambda label: (cost[label], label))
        text = f"{measure.task}: take {take}, {measure.words} {shown[take]} at {cost[take]:.3g} s for 1,000 draws"
        if take == best:
            others = sorted(set(as_good) - {best})
            rest = f"no better than {', '.join(others)} but cheaper" if others else "by more than two standard errors"
            found.append(f"{text}, the best, {rest}{truth}.")
        else:
            found.append(
                f"{text}; {best} has {shown[best]} at {cost[best]:.3g} s, which is not better by more than two "
                f"standard errors{truth}."
            )
    return found
