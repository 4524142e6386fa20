"""Rules of the paper's claims on made-up values: what holds, what is open and what fails."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import pytest
import torch

from repro.artifacts.claims import claims as stated
from repro.artifacts.inventory import find
from repro.artifacts.render import plan
from repro.errors import NotOfferedError
from repro.papers.gmrf_mcvae import claims
from repro.papers.gmrf_mcvae.scaling.experiment import scaling_spec
from repro.papers.gmrf_mcvae.scaling.tables import growth
from repro.records import Metric, Record, RunSpec
from repro.report.evidence import Comparison, Evidence

METHODS = ("mvae", "mmvae", "mopoe", "mmvae_plus", "gmrf_mcvae")
COMPONENTS = tuple(range(2, 11))
ONES = (1.0,) * len(COMPONENTS)
ROUGH = tuple(1.0 + 0.06 * (-1) ** m for m in COMPONENTS)  # what a cost is off its law

Cost = Callable[[int], float]


def record(spec: RunSpec, values: Mapping[str, float], seconds: float = 1.0) -> Record:
    metrics = [Metric(name, v, "1", 10, "given") for name, v in values.items()]
    return Record(spec, metrics, {"commit": "0" * 40}, {}, "0" * 64, seconds, 1.0)


def steps(
    flops: Mapping[str, Cost], seconds: Mapping[str, Cost] | None = None, off: Sequence[float] = ONES
) -> Evidence:
    """A step's operations, times what they are off by, and its seconds; without those of its own a method has those."""
    rows = {}
    for method, cost in flops.items():
        rows[method] = []
        for m, factor in zip(COMPONENTS, off, strict=True):
            spent = (seconds or {}).get(method, cost)(m) * 10  # steps
            values = {"step/flops": cost(m) * factor, "step/peak": 1.0}
            rows[method].append(record(scaling_spec(method, m, "quick"), values, spent))
    return Evidence("gmrf_mcvae/scaling", "quick", rows)


def power(k: float, factor: float = 1.0) -> Cost:
    return lambda m: factor * m**k


def times(base: float) -> Cost:
    return lambda m: base**m


def both_mmvae(cost: Cost, off: Sequence[float] = ONES) -> Evidence:
    return steps({"mmvae": cost, "mmvae_plus": cost}, off=off)


def against(own: Cost, other: Cost) -> Evidence:
    return steps({"gmrf_mcvae": own, "mmvae": power(2, 9), "mopoe": other, "mmvae_plus": power(2, 9)})


STEPS: list[tuple[Callable[[Evidence], list[Comparison]], Evidence, list[bool | None]]] = [
    (claims.linear_cost, steps({"gmrf_mcvae": power(1.1)}), [True]),
    (claims.linear_cost, steps({"gmrf_mcvae": power(1.2)}, off=ROUGH), [None]),
    (claims.linear_cost, steps({"gmrf_mcvae": power(1.3)}), [False]),
    (claims.linear_cost, steps({"gmrf_mcvae": power(0.5)}), [False]),
    (claims.quadratic_cost, both_mmvae(power(1.9)), [True, True]),
    (claims.quadratic_cost, both_mmvae(power(1.8), ROUGH), [None, None]),
    (claims.quadratic_cost, both_mmvae(power(1)), [False, False]),
    (claims.doubling_cost, steps({"mopoe": lambda m: (2**m - 1) * m}), [True]),
    (claims.doubling_cost, steps({"mopoe": times(1.76)}, off=ROUGH), [None]),
    (claims.doubling_cost, steps({"mopoe": power(1)}, {"mopoe": times(2)}), [False]),  # whatever its seconds are
    (claims.cheaper_step, against(power(1), power(1, 1.01)), [True, True]),
    (claims.cheaper_step, against(power(1), lambda m: 5.0), [None, None]),  # up to four components alone
    (claims.cheaper_step, against(power(1), power(1)), [False, False]),
]


@pytest.mark.parametrize(
    ("function", "found", "expected"), STEPS, ids=[f"{i}-{c[0].__name__}" for i, c in enumerate(STEPS)]
)
def test_a_rule_on_the_cost_of_a_step(
    function: Callable[[Evidence], list[Comparison]], found: Evidence, expected: list[bool | None]
) -> None:
    compared = function(found)
    assert [c.holds for c in compared] == expected
    assert {c.seeds for c in compared} == {0}


def test_costs_are_named() -> None:
    found = claims.doubling_cost(steps({"mopoe": power(1)}, {"mopoe": times(2)}))[0].text
    assert "operations of a step grow 1.14 times with each further component (decoding all subsets: 2.28)" in found
    assert "seconds 2.00 times (512 s at M = 9, 1.02e+03 s at M = 10)" in found
    assert "at most 0.99 (M = 2, MoPoE-VAE)" in claims.cheaper_step(against(power(1), power(1, 1.01)))[0].text
    told = claims.cheaper_step(against(power(1), power(1, 1.01)))[0].text
    assert "with decoders of 16 to 64 channels (the paper: 64 to 512); MoPoE-VAE decodes one subset" in told
    logs = [[math.log(v) for v in x] for x in (COMPONENTS, ROUGH)]
    assert claims._slope(*logs)[0] == pytest.approx(growth(COMPONENTS, ROUGH))


def test_a_method_that_lacks_a_number_of_components_does_not_keep_others_from_being_read() -> None:
    found = steps(dict.fromkeys(METHODS, power(1)))
    part = Evidence(found.artifact, found.profile, {**found.rows, "mvae": found.rows["mvae"][:3]})
    assert claims.linear_cost(part) == claims.linear_cost(found)
    part = Evidence(found.artifact, found.profile, {**found.rows, "mopoe": found.rows["mopoe"][:-1]})
    assert "(M = 9, " in claims.cheaper_step(Evidence("x", "quick", _dearer_with_m(part)))[0].text


def _dearer_with_m(found: Evidence) -> dict[str, Sequence[Record]]:
    return {**found.rows, "gmrf_mcvae": steps({"gmrf_mcvae": power(1.2)}).rows["gmrf_mcvae"]}


def seeded(values: Mapping[str, Mapping[str, Sequence[float]]]) -> Evidence:
    """Row to metric to its value of each seed."""
    rows = {}
    for row, metrics in values.items():
        number = len(next(iter(metrics.values())))
        specs = [RunSpec("gmrf_mcvae", "made-up", row, s, "paper", {}) for s in range(number)]
        rows[row] = [record(s, {k: v[s.seed] for k, v in metrics.items()}) for s in specs]
    return Evidence("gmrf_mcvae/made-up", "paper", rows)


def clipped(*changes: float) -> Evidence:
    """Distances as decoded, above those of clipped outputs by these, a seed each; those of MVAE by 2."""
    names = [f"test/unconditional/{{}}/{d}/mean" for d in ("sliced", "histogram")]
    rows = {}
    for row, off in {"mvae": (2.0,) * len(changes), "gmrf_mcvae": changes}.items():
        rows[row] = {n.format("mean"): [10.0] * len(off) for n in names}
        rows[row] |= {n.format("unclipped"): [10.0 + x for x in off] for n in names}
    return seeded(rows)


def spread(mvae: Sequence[float], other: Sequence[float]) -> Evidence:
    name = claims.JOINT_DISTANCE
    return seeded({"mvae": {name: mvae}, "mopoe": {name: other}, "gmrf_mcvae": {name: [30.0] * len(mvae)}})


def bicycles(mixtures: float, best: float, off: float = 0.1, feature: str = "frechet-pixels") -> Evidence:
    """The highest distance of MVAE, MMVAE and MoPoE-VAE, and the lowest of the other two, in all four columns."""
    means = {"mvae": mixtures - 1, "mmvae": mixtures, "mopoe": mixtures - 1, "mmvae_plus": best, "gmrf_mcvae": best + 1}
    names = [f"test/{t}/{feature}{e}" for t in ("unconditional", "conditional") for e in ("", "/whole")]
    return seeded({r: {n: [v - off, v, v + off] for n in names} for r, v in means.items()})


SEEDED: list[tuple[Callable[[Evidence], list[Comparison]], Evidence, list[bool | None]]] = [
    (claims.outputs_in_range, clipped(0.0, 0.0, 0.0), [True]),
    (claims.outputs_in_range, clipped(0.0, 0.2, 0.0), [None]),
    (claims.outputs_in_range, clipped(0.1, 0.12, 0.08), [False]),
    (claims.outputs_in_range, clipped(-0.1, -0.12, -0.08), [False]),
    (claims.seeds_of_mvae_differ, spread((50, 60, 70), (89, 90, 91)), [True]),
    (claims.seeds_of_mvae_differ, spread((50, 60, 70), (80, 90, 100)), [None]),
    (claims.seeds_of_mvae_differ, spread((50, 60, 70), (88, 90, 92)), [None]),  # five times the other's
    (claims.seeds_of_mvae_differ, spread((59, 60, 61), (80, 90, 100)), [False]),
    (claims.mixtures_are_nearest, bicycles(10, 12), [True] * 4),
    (claims.mixtures_are_nearest, bicycles(10, 10.1, off=1), [None] * 4),
    (claims.mixtures_are_nearest, bicycles(10, 9.5), [False] * 4),  # between those of the three
    (claims.mixtures_are_nearest, bicycles(10, 12, feature="fid"), [True] * 4),
]


@pytest.mark.parametrize(
    ("function", "found", "expected"), SEEDED, ids=[f"{i}-{c[0].__name__}" for i, c in enumerate(SEEDED)]
)
def test_a_rule_on_values_of_seeds(
    function: Callable[[Evidence], list[Comparison]], found: Evidence, expected: list[bool | None]
) -> None:
    compared = function(found)
    assert [c.holds for c in compared] == expected
    assert {c.seeds for c in compared} == {3}


def test_what_was_compared_is_named() -> None:
    (found,) = claims.outputs_in_range(clipped(0.1, 0.1, 0.1))
    assert "GMRF MCVAE's histogram distance by 0.1 (x 1000)" in found.text
    assert "of the other models by at least 2 (MVAE), its own by 0.1 ± " in found.text
    assert found.text.endswith(": that no output lies outside")
    (found,) = claims.seeds_of_mvae_differ(spread((50, 60, 70), (80, 90, 100)))
    assert (
        "MVAE 10 > MoPoE-VAE 10 (beyond two standard errors if 6.1 times as large; MVAE's seeds 50, 60, 70)"
        in found.text
    )
    (found,) = claims.seeds_of_mvae_differ(spread((50,), (90,)))
    assert (found.holds, found.seeds) == (None, 1)
    assert "MMVAE 10 ± 0.1 < MMVAE+ 12 ± 0.1 (unconditional/frechet-pixels, components)" in [
        c.text for c in claims.mixtures_are_nearest(bicycles(10, 12))
    ]
    pixels, fids = bicycles(10, 12), bicycles(10, 12, feature="fid")
    mixed = Evidence("x", "paper", {**pixels.rows, "mvae": fids.rows["mvae"]})
    with pytest.raises(KeyError, match="frechet-pixels"):  # FID where all rows have it
        claims.mixtures_are_nearest(mixed)


@pytest.mark.parametrize("seeds", [2, 3, 4, 5, 10])
def test_the_error_of_a_deviation(seeds: int) -> None:
    expected = float(torch.special.polygamma(1, torch.tensor((seeds - 1) / 2, dtype=torch.float64))) ** 0.5 / 2
    assert claims._deviation_error(seeds) == pytest.approx(expected)


def test_constructions() -> None:
    assert [c.holds for c in claims.construction_is_definite()] == [True]
    assert [c.holds for c in claims.construction_is_dominant()] == [False]


def test_every_rule_is_stated_and_its_rows_are_planned() -> None:
    computed = [c for c in stated("gmrf_mcvae") if c.rule["kind"] == "computed"]
    assert {c.rule["function"] for c in computed} == set(claims.__all__)
    for claim in computed:
        for profile in ("paper", "overnight", "quick"):
            try:
                rows = plan(find(claim.artifact), profile)
            except NotOfferedError:
                continue
            assert set(claim.rule.get("rows", ())) <= set(rows), (claim.id, profile)
