"""What Markov chains say about themselves in records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.records import Metric
from repro.report.evidence import JOINT

if TYPE_CHECKING:
    from repro.model import MultimodalModel

__all__ = ["JOINT", "chain_metrics"]


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
