"""What records say of one thing that a claim needs: values of rows, and comparisons beyond their errors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

from repro.records import Record, RunSpec
from repro.report.names import named

__all__ = [
    "CHAINED",
    "JOINT",
    "MOST_R_HAT",
    "Comparison",
    "Evidence",
    "by_chains",
    "compare_values",
    "mixing_caveat",
    "spread",
]

MOST_R_HAT = 1.1  # split R-hat of chains that are taken to have mixed
ROUNDING = 1e-12  # relative; a deviation below it is that of rounding
JOINT = "test/unconditional"  # prefix of what is measured of the prior's samples
CHAINED = ("nnmrf", "prior_neural")  # methods that draw samples by chains
# How parts of the names of what is measured of samples begin, and parts of those of what is not: likelihoods, training
# points in a model's place, and what all modalities are given for.
SAMPLED, NOT_SAMPLED = ("unconditional", "conditional", "given-"), {"nll", "nearest", "given-both"}
JOINTLY = ("images/joint", "frechet/joint")  # "joint" is elsewhere what a joint posterior gives


@dataclass(frozen=True)
class Comparison:
    """One thing that a claim needs.

    Arguments:
        text: The two sides with their values.
        holds: Whether it holds beyond two standard errors; False if the opposite does; None if neither.
        seeds: The smaller number of seeds of the two sides; 0 where seeds have no part in it.
    """

    text: str
    holds: bool | None
    seeds: int = 0


def by_chains(metric: str) -> bool:
    """Whether a metric is of samples, which a model of :data:`CHAINED` draws by chains: joint ones of its prior, and
    given some modalities of the same field clamped to these, a chain a point, too few to tell whether they mix.
    """
    split, _, name = metric.partition("/")
    parts = name.split("/")
    if split not in ("test", "validation") or NOT_SAMPLED & set(parts):
        return False
    return name.startswith(JOINTLY) or any(p.startswith(SAMPLED) for p in parts)


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
        return f"chains that do not mix ({most}): no value of the model's own distribution"
    if any(r.spec.method in CHAINED and not values for r, values in zip(records, found, strict=True)):
        return "chains of which it was not recorded whether they mix"
    return ""


def compare_values(
    left: tuple[str, Sequence[float]], op: str, right: tuple[str, Sequence[float]] | float, by: float = 0.0
) -> Comparison:
    r"""Whether one quantity is below or above another by more than two standard errors of their difference.

    .. math:: |\bar a - \bar b| > \delta + 2 \sqrt{s_a^2 / n_a + s_b^2 / n_b}

    with the sample deviations s over n seeds, 0 of one seed and of a number. Open within these errors.

    Arguments:
        left: What it is called, and its value of each seed.
        op: ``"<"`` or ``">"``.
        right: The same of the other, or a number.
        by: How far it has to be, :math:`\delta`, in the unit of the values.
    """
    (name, a), number = left, isinstance(right, int | float)
    other, b = (f"{right}", [float(right)]) if number else (_said(*right), list(right[1]))
    difference = (fmean(b) - fmean(a)) * (1 if op == "<" else -1) - by
    variances = [stdev(x) ** 2 / len(x) for x in (a, b) if len(x) > 1]
    error = 2 * math.sqrt(sum(variances)) if variances else 0.0
    holds = True if difference > error else False if difference < -error else None
    return Comparison(f"{_said(name, a)} {op} {other}", holds, len(a) if number else min(len(a), len(b)))


@dataclass(frozen=True)
class Evidence:
    """The records of an artifact's rows in one profile.

    Arguments:
        artifact: Name of the artifact.
        profile: The profile.
        rows: Row to its records.
        diverged: Of runs that have none because their training diverged, row and seed in words to the run.
    """

    artifact: str
    profile: str
    rows: Mapping[str, Sequence[Record]]
    diverged: Mapping[str, RunSpec] = field(default_factory=dict)

    def values(self, row: str, metric: str) -> list[float]:
        """A metric's values over the seeds of a row; ``{last}`` in its name is the largest number that there is.

        Raises:
            KeyError: If the row or the metric is not there.
        """
        if row not in self.rows:
            raise KeyError(f"{self.artifact} has no row {row!r}; it has {list(self.rows)}")
        found = []
        for record in self.rows[row]:
            names = {m.name: m.value for m in record.metrics}
            found.append(names[_last(metric, names)])
        return found

    def unmixed(self, row: str, metric: str) -> bool:
        """Whether a row's values of a metric are of samples from chains that are not known to mix."""
        return by_chains(metric) and bool(mixing_caveat(self.rows[row]))

    def named(self, row: str, metric: str) -> str:
        """A metric's name for people, with the number that ``{last}`` stands for."""
        names = {m.name: m.value for m in self.rows[row][0].metrics}
        return _last(metric, names).removeprefix("test/")

    def compare(self, left: tuple[str, str], op: str, right: tuple[str, str] | float, by: float = 0.0) -> Comparison:
        """Whether one value is below or above another by more than two standard errors of their difference.

        Arguments:
            left: Row and metric.
            op: ``"<"`` or ``">"``.
            right: Row and metric, or a number.
            by: How far it has to be, in the metric's unit.
        """
        other = right if isinstance(right, int | float) else (right[0], self.values(*right))
        return compare_values((left[0], self.values(*left)), op, other, by)


def _last(metric: str, names: Mapping[str, float]) -> str:
    if "{last}" not in metric:
        return metric
    before, after = metric.split("{last}")
    numbers = [
        int(middle)
        for n in names
        if n.startswith(before) and n.endswith(after) and (middle := n[len(before) : len(n) - len(after)]).isdigit()
    ]
    if not numbers:
        raise KeyError(metric)
    return metric.replace("{last}", str(max(numbers)))


def _said(row: str, values: Sequence[float]) -> str:
    return f"{named(row)} {fmean(values):.4g}{spread(values)}"


def spread(values: Sequence[float]) -> str:
    """``" ± s"``, the standard deviation over seeds; nothing of one seed, and 0 where only rounding differs.

    Equal computations of two machines differ in a float's last digits.
    """
    if len(values) < 2:
        return ""
    found = stdev(values)
    return f" ± {found:.2g}" if found > ROUNDING * max(map(abs, values)) else " ± 0"
