"""Where modalities show digits: what weights are chosen by, and which joint coherences rank with none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import geometric_mean

from repro.records import Record

__all__ = ["FEWEST", "FRECHET", "TEN", "collapsed", "digit_score"]

FRECHET = "frechet/classifier/mean"
FEWEST, TEN = 1e-3, 10  # the least coherence that a score divides by, and the digits that there are


def digit_score(record: Record, tasks: Sequence[str]) -> float:
    """Geometric mean over tasks of Fréchet distance over coherence on the validation split.

    The choice of MRF MVAE's betas takes the same, but that samples of fewer than ten digits have none there.

    Arguments:
        record: Of the choice of weights.
        tasks: Their names in metrics, such as ``"unconditional"``.
    """
    ratios = []
    for task in tasks:
        coherence = record.metric(f"validation/{task}/coherence").value
        if task == "unconditional" and record.metric("validation/unconditional/digits").value < TEN:
            coherence = 0.0
        ratios.append(record.metric(f"validation/{task}/{FRECHET}").value / max(coherence, FEWEST))
    return geometric_mean(ratios)


def collapsed(records: Sequence[Record]) -> Mapping[str, str]:
    """Why a row's joint coherence ranks with none: its samples show fewer digits than there are."""
    fewest = min((r.metric("test/unconditional/digits").value for r in records), default=TEN)
    if fewest >= TEN:
        return {}
    text = f"collapsed: joint samples show {fewest:.0f} of the {TEN} digits, and agree the more easily"
    return {"test/unconditional/coherence": text}
