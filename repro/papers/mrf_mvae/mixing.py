"""What Markov chains say about themselves: in records, and at the cells of values that come from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from repro.records import Metric, Record
from repro.report.evidence import CHAINED, MOST_R_HAT

if TYPE_CHECKING:
    from repro.model import MultimodalModel

__all__ = ["JOINT", "chain_metrics", "mixing_caveat"]

JOINT = "test/unconditional"  # prefix of what is measured of the prior's samples


def chain_metrics(model: MultimodalModel, prefix: str, number: int) -> list[Metric]:
    """What the Markov chains of the sampling before say about themselves; nothing of a model without chains.

    Arguments:
        model: Its ``diagnostics`` are those of the chains.
        prefix: Of the metrics' names.
        number: How many samples were drawn.
    """
    if (found := getattr(model, "diagnostics", None)) is None:
        return []
    rate = float(found.acceptance_rate.mean())
    metrics = [Metric(f"{prefix}/acceptance_rate", rate, "1", number, "accepted share of proposals after burn-in")]
    if "/unconditional" in prefix:  # a conditioning point has one chain, too few draws for these
        size, r_hat = float(found.effective_sample_size.min()), float(found.r_hat.max())
        text = "least effective sample size over latents of the kept draws of all chains"
        metrics.append(Metric(f"{prefix}/effective_sample_size", size, "1", number, text))
        metrics.append(Metric(f"{prefix}/r_hat", r_hat, "1", number, "largest split R-hat over latents"))
    return metrics


def mixing_caveat(records: Sequence[Record], prefix: str = JOINT) -> str:
    """Says so where the Markov chains of some seed do not mix, or it is not known whether they do; else nothing.

    Arguments:
        records: A record a seed.
        prefix: Of the names of the chains' metrics.
    """
    found = [[m.value for m in r.metrics if m.name == f"{prefix}/r_hat"] for r in records]
    worst = max((v for values in found for v in values), default=1.0)
    if worst > MOST_R_HAT:
        most = f"largest split R-hat {worst:.2f}, over {MOST_R_HAT:g}"
        return f"chains that do not mix ({most}): no value of the model's prior"
    if any(r.spec.method in CHAINED and not values for r, values in zip(records, found, strict=True)):
        return "chains of which it was not recorded whether they mix"
    return ""
