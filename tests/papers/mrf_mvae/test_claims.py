"""Rules of the paper's claims on made-up values: what holds, what is open within two standard errors, what fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest

from repro.artifacts.claims import claims as stated
from repro.artifacts.inventory import find
from repro.artifacts.render import plan
from repro.errors import NotOfferedError
from repro.papers.gmrf_mcvae import claims as gmrf
from repro.papers.mrf_mvae import claims
from repro.papers.mrf_mvae.triples.experiment import FIGURE9
from repro.records import Metric, Record, RunSpec
from repro.report.evidence import Comparison, Evidence

Values = Mapping[str, Sequence[float]]  # metric to its value of each seed


def evidence(rows: Mapping[str, Values]) -> Evidence:
    found = {}
    for row, values in rows.items():
        found[row] = []
        for seed in range(len(next(iter(values.values())))):
            metrics = [Metric(name, v[seed], "1", 10, "given") for name, v in values.items()]
            spec = RunSpec("mrf_mvae", "made-up", row, seed, "paper", {})
            found[row].append(Record(spec, metrics, {"commit": "0" * 40}, {}, "0" * 64, 1.0, 1.0))
    return Evidence("mrf_mvae/made-up", "paper", found)


def conditionals(coherence: Sequence[float], distance: Sequence[float]) -> Evidence:
    """What the exact conditional has more than the Gaussian of its moments, by seed; the models differ by far more."""
    matched = {"coherence": (0.3, 0.6, 0.9), "frechet/classifier/mean": (200.0, 300.0, 400.0)}
    values = {f"test/conditional/{k}": v for k, v in matched.items()}
    for (k, v), more in zip(matched.items(), (coherence, distance), strict=True):
        values[f"test/conditional-exact/{k}"] = tuple(a + b for a, b in zip(v, more, strict=True))
    return evidence({"almrf": values})


def betas(coherence: float, third: float, off: float = 0.01) -> Evidence:
    """The larger beta's conditional coherence and distance of the third modality; the smaller's are 0.4 and 300."""
    rows = {}
    for row, (c, d) in {"nnmrf": (0.4, 300.0), FIGURE9: (coherence, third)}.items():
        rows[row] = {"test/conditional/coherence": (c - off, c, c + off)}
        for i in (0, 1):
            middle = d + (5 if i else -5)
            rows[row][f"test/conditional/frechet/classifier/m{i}-m2"] = tuple(middle + x * off for x in (-100, 0, 100))
    return evidence(rows)


CASES: list[tuple[Callable[[Evidence], list[Comparison]], Evidence, list[bool | None]]] = [
    (claims.exact_conditional, conditionals((-0.02, -0.01, -0.02), (3, 4, 5)), [True, True]),
    (claims.exact_conditional, conditionals((-0.02, 0.01, 0.0), (-3, 4, 0)), [None, None]),
    (claims.exact_conditional, conditionals((0.02, 0.01, 0.02), (-3, -4, -5)), [False, False]),
    (claims.figure_9, betas(0.5, 400), [True, True]),
    (claims.figure_9, betas(0.41, 301, off=0.05), [None, None]),
    (claims.figure_9, betas(0.5, 250), [True, False]),
    (claims.figure_9, betas(0.3, 400), [False, True]),
]


@pytest.mark.parametrize(
    ("function", "found", "expected"), CASES, ids=[f"{i}-{c[0].__name__}" for i, c in enumerate(CASES)]
)
def test_a_rule_holds_is_open_or_fails(
    function: Callable[[Evidence], list[Comparison]], found: Evidence, expected: list[bool | None]
) -> None:
    compared = function(found)
    assert [c.holds for c in compared] == expected
    assert {c.seeds for c in compared} == {3}


def test_what_was_compared_is_named() -> None:
    first, _ = claims.exact_conditional(conditionals((0.02, 0.02, 0.02), (3, 3, 3)))
    assert first.text.startswith("exact less moment-matched 0.02 ± ")
    assert first.text.endswith(" < 0 (ALMRF MVAE's conditional coherence, 0.62 and 0.6)")
    _, third = claims.figure_9(betas(0.5, 400))
    assert third.text.startswith("NN-MRF MVAE, beta 0.0085 400 ± 1 > NN-MRF MVAE, beta 0.0078 300 ± 1 (")


@pytest.mark.parametrize("name", ["outputs_in_range", "seeds_of_mvae_differ"])
def test_rules_on_the_same_runs_are_those_of_the_other_paper(name: str) -> None:
    values = {f"test/unconditional/{k}/mean": (1.0, 3.0) for k in ("mean/sliced", "mean/histogram", "mean/transport")}
    values |= {f"test/unconditional/unclipped/{k}/mean": (2.0, 3.0) for k in ("sliced", "histogram")}
    found = evidence({"mvae": values, "gmrf_mcvae": values})
    assert getattr(claims, name)(found) == getattr(gmrf, name)(found)


def test_what_clipping_changes_is_told_from_what_was_claimed() -> None:
    values = {f"test/unconditional/{k}/mean": (1.0, 1.0) for k in ("mean/sliced", "mean/histogram")}
    values |= {f"test/unconditional/unclipped/{k}/mean": (1.25, 1.25) for k in ("sliced", "histogram")}
    (found,) = claims.outputs_in_range(evidence({"gmrf_mcvae": values}))
    assert found.text.endswith("its own by 0.25 ± 0: that no output lies outside")


def test_lemma_1_is_broken() -> None:
    (found,) = claims.lemma_1()
    assert found.holds is False


def test_what_is_stated_is_a_rule_whose_rows_are_planned() -> None:
    computed = [c for c in stated("mrf_mvae") if c.rule["kind"] == "computed"]
    assert {c.rule["function"] for c in computed} == set(claims.__all__)
    for claim in computed:
        for profile in ("paper", "overnight", "quick"):
            try:
                rows = [r for a in (claim.artifact, claim.beside) if a for r in plan(find(a), profile)]
            except NotOfferedError:
                continue
            assert set(claim.rule.get("rows", ())) <= set(rows), (claim.id, profile)
