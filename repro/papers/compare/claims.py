"""Evidence for claims of the comparisons that one comparison of rows does not hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from repro.report.evidence import Comparison, Evidence

__all__ = ["conditional_images", "images_correlation", "latents_correlation"]


def _nearest(evidence: Evidence, metrics: Sequence[str]) -> list[Comparison]:
    """CoVAE's value against the lowest of all other models', in each metric at each true correlation."""
    levels: dict[str, list[str]] = {}
    for row in evidence.rows:
        model, _, level = row.partition(", ")
        levels.setdefault(level, []).append(model)
    found = []
    for level, models in levels.items():
        for metric in metrics:
            rivals = [m for m in models if m != "covae" and not evidence.unmixed(f"{m}, {level}", metric)]
            means = {m: fmean(evidence.values(f"{m}, {level}", metric)) for m in rivals}
            best = min(means, key=means.__getitem__)
            comparison = evidence.compare((f"covae, {level}", metric), "<", (f"{best}, {level}", metric))
            named = evidence.named(f"covae, {level}", metric)
            found.append(replace(comparison, text=f"{comparison.text} ({named})"))
    return found


def latents_correlation(evidence: Evidence) -> list[Comparison]:
    """How far the correlation of the decoders' inputs is from the true one, given both modalities and given one."""
    return _nearest(evidence, [f"test/correlation/{name}/error" for name in ("joint", "conditional")])


def images_correlation(evidence: Evidence) -> list[Comparison]:
    """How far what is read from images is from what is read from true ones: of joint samples, and given one image."""
    return _nearest(evidence, [f"test/images/{name}/error" for name in ("joint", "given-one")])


def conditional_images(evidence: Evidence) -> list[Comparison]:
    """Energy score of each image given the other."""
    return _nearest(evidence, ["test/energy/given-one"])
