"""What a training step costs by the number of modalities: a table from records, beside the orders of appendix -D."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from repro.papers.gmrf_mcvae.copula.experiment import LABELS
from repro.papers.gmrf_mcvae.scaling.experiment import ORDERS, seconds_per_step
from repro.records import Record, provenance
from repro.report.plain_tables import PlainTable

__all__ = ["Costs", "costs", "growth", "scaling_tables"]


@dataclass(frozen=True)
class Costs:
    """Measured costs of a training step.

    Arguments:
        components: Numbers of modalities M.
        seconds: Model's label to seconds, one for each M.
        megabytes: The same for peak memory, in MB.
        gigaflops: The same for operations of products and convolutions, in GFLOP.
        records: What they were read from.
    """

    components: tuple[int, ...]
    seconds: dict[str, list[float]]
    megabytes: dict[str, list[float]]
    gigaflops: dict[str, list[float]]
    records: list[Record]


def costs(rows: Mapping[str, Sequence[Record]]) -> Costs:
    """The costs that each method's records hold, one record for each number of modalities."""
    found = {LABELS[m]: records for m, records in rows.items()}
    return Costs(
        tuple(r.spec.params["data"]["components"] for r in next(iter(found.values()))),
        {m: [seconds_per_step(r) for r in records] for m, records in found.items()},
        {m: [r.metric("step/peak").value for r in records] for m, records in found.items()},
        {m: [r.metric("step/flops").value for r in records] for m, records in found.items()},
        [r for records in found.values() for r in records],
    )


def growth(components: Sequence[int], values: Sequence[float]) -> float:
    r"""Exponent k of a cost that grows as :math:`M^k`, over the upper half of the numbers of modalities.

    The least-squares slope of log cost against log M, where the fixed cost of a step weighs least.

    Raises:
        ValueError: If there are fewer than two points.
    """
    if len(components) != len(values) or len(components) < 2:
        raise ValueError(f"growth of {len(values)} values over {len(components)} numbers of modalities")
    start = min(len(components) // 2, len(components) - 2)
    x, y = ([math.log(v) for v in side[start:]] for side in (components, values))
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)


def scaling_tables(found: Costs) -> list[PlainTable]:
    """Seconds, peak memory and operations of a training step for each M, with the exponent of their growth.

    Source: GMRF MCVAE, appendix -D.
    """
    labels = {LABELS[m]: order for m, order in ORDERS.items()}
    training = found.records[0].spec.params["training"]
    upper = found.components[min(len(found.components) // 2, len(found.components) - 2) :]
    notes = (
        f"One training step of {training['batch_size']} samples of PolyMNIST's size, with the networks and latents of "
        f"Table II's profile. Growth: k of M^k, fitted over M = {upper[0]} to {upper[-1]}.",
        "Every decoder is called once a step for all that it reconstructs. MoPoE-VAE decodes M images a step, not "
        "2^M: it draws one subset of the modalities for each sample, and only the products of experts, of a few "
        "latents each, are 2^M.",
        provenance(found.records),
    )
    tables = []
    for title, values, unit in (
        ("seconds", found.seconds, "s"),
        ("peak memory beyond the parameters", found.megabytes, "MB"),
        ("floating point operations", found.gigaflops, "GFLOP"),
    ):
        rows = tuple(
            (label, order, *(f"{v:.3g}" for v in values[label]), f"{growth(found.components, values[label]):.2f}")
            for label, order in labels.items()
        )
        columns = ("Model", "Order (paper)", *(f"M = {m} ({unit})" for m in found.components), "Growth")
        tables.append(PlainTable(f"A training step by the number of modalities: {title}", columns, rows, notes))
        notes = ()
    return tables
