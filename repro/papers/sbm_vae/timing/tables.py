"""The table beside Figure 27: seconds of a batch by form and number of modalities, and their slope."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from repro.papers.sbm_vae.timing.experiment import FORMS
from repro.records import Record, provenance
from repro.report.plain_tables import NONE, PlainTable

__all__ = ["only", "points", "slope", "timing_table"]


def slope(seconds: Mapping[int, float]) -> float:
    """Least-squares slope in seconds a modality.

    Raises:
        ValueError: If there are fewer than two numbers of modalities.
    """
    if len(seconds) < 2:
        raise ValueError(f"a slope over {len(seconds)} number of modalities")
    x, y = fmean(seconds), fmean(seconds.values())
    return sum((m - x) * (s - y) for m, s in seconds.items()) / sum((m - x) ** 2 for m in seconds)


def points(record: Record, what: str = "batch") -> dict[str, dict[int, float]]:
    """Form to the number of modalities to seconds, as far as they were measured."""
    found: dict[str, dict[int, float]] = {form: {} for form in FORMS}
    for metric in record.metrics:
        words = metric.name.split("/")
        if words[0] == "timing" and words[2] == what:
            found[words[1]][int(words[3])] = metric.value
    return found


def only(records: Sequence[Record]) -> Record:
    """The one record.

    Raises:
        ValueError: If there is not one.
    """
    if len(records) != 1:
        raise ValueError(f"figure 27 is drawn from one record, not from {len(records)}")
    return records[0]


def timing_table(records: Sequence[Record]) -> PlainTable:
    """Seconds of a batch by form and number of modalities, with their slope.

    Raises:
        ValueError: If there is not one record.

    Source: SBM-VAE, figure 27 and appendix A.7.
    """
    record = only(records)
    t, found = record.spec.params["timing"], points(record)
    reasons = {m.name.split("/")[1]: m.protocol for m in record.metrics if m.name.endswith("/available")}
    rows = []
    for form, label in FORMS.items():
        seconds = found[form]
        empty = reasons.get(form, NONE)
        cells = [f"{seconds[m]:.3g}" if m in seconds else empty for m in t["modalities"]]
        ends = (NONE, NONE)
        if len(seconds) > 1:
            value = slope(seconds)
            ends = (f"{value:.2g}", f"{value / fmean(seconds.values()):.1%}")
        rows.append((label, *cells, *ends))
    evaluations = 2 * t["num_steps"]
    notes = [
        f"{t['num_steps']} steps of the predictor-corrector, {evaluations} evaluations of the score: one for the "
        f"corrector and one for the predictor of each step. Networks of the profile {record.spec.profile!r}.",
        "Conditional samples take as many evaluations as joint ones; the paper times conditional ones and takes MoPoE "
        "beside them.",
    ]
    for m, value in points(record, "whole")["eager"].items():
        notes.append(
            f"Seconds are {evaluations} times those of an evaluation within the sampler, of {t['timed_steps']} steps, "
            f"median of {t['repetitions']}. All steps at once took {value:.3g} s with {m} modalities, against "
            f"{found['eager'][m]:.3g} s so."
        )
    if found["compiled"] and len(found["compiled"]) < len(t["modalities"]):
        notes.append("Compiled for some numbers of modalities alone: here compiling takes longer than sampling.")
    columns = ("Form", *(f"M = {m} (s)" for m in t["modalities"]), "Slope (s a modality)", "Slope / mean")
    title = f"Seconds for a batch of {t['batch_size']} by the number of modalities"
    return PlainTable(title, columns, tuple(rows), (*notes, provenance(records)))
