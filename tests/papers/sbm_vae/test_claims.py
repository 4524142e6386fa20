"""Rules of the paper's claims on made-up records: each holds, is open within two standard errors, or fails."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from repro.papers import paper
from repro.papers.sbm_vae import claims
from repro.papers.sbm_vae.celeba.experiment import FACE_ROWS
from repro.records import Metric, Record
from repro.report.evidence import Comparison, Evidence

# Row to its metrics' means; those of "*" are all rows' that say nothing else.
Values = Mapping[str, Mapping[str, float]]

PLAIN = "test/unconditional/plain/"
ATTRIBUTES, MASK = "f1/attributes", "f1/mask"
EVEN = {f"{PLAIN}digit/{d}": 0.1 + 0.02 * (-1) ** d for d in range(10)}
UNEVEN = {f"{PLAIN}digit/{d}": 0.1 + 0.05 * (-1) ** d for d in range(10)}


def evidence(artifact: str, values: Values, noise: float = 1e-4, profile: str = "paper") -> Evidence:
    """Three seeds of all rows of an artifact; ``noise`` is their deviation over their mean."""
    rows = {}
    for row, specs in paper("sbm_vae").plan(artifact, profile, 3).items():
        means = {**values.get("*", {}), **values.get(row, {})}
        how = FACE_ROWS.get(row, ("", "plain"))[1]
        rows[row] = [
            Record(
                s,
                [Metric(n.format(how=how), v * (1 + noise * (k - 1)), "1", 10, "given") for n, v in means.items()],
                {"commit": "0" * 40},
                {},
                "0" * 64,
                1.0,
                1.0,
            )
            for k, s in enumerate(specs)
        ]
    return Evidence(f"sbm_vae/{artifact}", profile, rows)


def changed(values: Values, changes: Values) -> Values:
    return {row: {**values.get(row, {}), **changes.get(row, {})} for row in {*values, *changes}}


def faces(measure: str, given: tuple[str, ...], rest: float, **others: float) -> Values:
    """A measure of faces for each of what is given, of all rows and of some; ``_`` stands for ``-`` in their names."""
    rows = {"*": rest, **{r.replace("_", "-"): v for r, v in others.items()}}
    return {row: {f"test/{g}/{{how}}/{measure}": v for g in given} for row, v in rows.items()}


def counts(measure: str, *, first: float, last: float) -> Values:
    return {f"SBM-VAE, {n} modalities": {measure: v} for n, v in ((2, first), (10, last))}


STEPS = {
    f"test/steps/{how}/{steps}/coherence/m9/{n}": value + 0.01 * n
    for how, steps, value in (("plain", 100, 0.3), ("guided", 100, 0.4), ("guided", 1000, 0.5))
    for n in (1, 2)
}
OBSERVED = {"test/observed/plain/frechet/m9/1": 70.0, "test/observed/plain/frechet/m9/2": 1.0}
TIMES = {
    f"timing/{form}/batch/{n}": value
    for form, values in (("eager", (9, 9, 9.1)), ("decoding", (1, 1.2, 1.4)), ("mopoe", (0.5, 2, 4)))
    for n, value in zip((2, 9, 10), values, strict=True)
}
UNCONDITIONAL = counts(f"{PLAIN}frechet/mean", first=70.0, last=75.0)
FIRST = counts(f"{PLAIN}frechet/m0", first=60.0, last=200.0)
REST = changed(
    counts("test/rest/plain/frechet/m0", first=70.0, last=75.0),
    counts("test/rest/plain/coherence/m0", first=0.9, last=0.85),
)
GIVEN = ("both", "mask", "attributes")
BOTH = ("both", "image")
MISSING = changed(
    faces("fid/image", ("both",), 99.0, SBM_VAE=80.0),
    changed(faces(MASK, ("both",), 0.8, MVTCAE=0.9), faces(ATTRIBUTES, ("both",), 0.6, MVTCAE=0.7)),
)
# Function, artifact, values with which it holds, and changes each of which makes it fail.
CASES: list[tuple[str, str, Values, list[Values]]] = [
    (
        "agree_but_one",
        "fig5",
        {
            "*": {f"{PLAIN}agree/9": 0.6, f"{PLAIN}agree/10": 0.5},
            "MMVAE": {f"{PLAIN}agree/9": 0.749, f"{PLAIN}agree/10": 0.6},
            "SBM-VAE": {f"{PLAIN}agree/9": 0.925, f"{PLAIN}agree/10": 0.71},
        },
        [{"MMVAE": {f"{PLAIN}agree/9": 0.95}}, {"MMVAE": {f"{PLAIN}agree/10": 0.3}}],
    ),
    (
        "grows_with_observed",
        "fig9",
        {
            "*": {
                **{f"test/observed/plain/coherence/{m}/{n}": 0.5 + n / 10 for m in ("m0", "m9") for n in (1, 2)},
                **{f"test/rest/plain/coherence/{m}": 0.9 for m in ("m0", "m9")},
            }
        },
        [{"SBM-VAE": {"test/rest/plain/coherence/m0": 0.5}}, {"SBM-VAE": {"test/rest/plain/coherence/m9": 0.5}}],
    ),
    (
        "steady_with_observed",
        "fig8",
        {
            "*": OBSERVED | {"test/rest/plain/frechet/m9": 90.0},
            **{r: {"test/rest/plain/frechet/m9": 72.0} for r in ("SBM-VAE", "SBM-RAE", "MMVAE+")},
        },
        [{"SBM-RAE": {"test/rest/plain/frechet/m9": 90.0}}, {"MVTCAE": {"test/rest/plain/frechet/m9": 60.0}}],
    ),
    (
        "few_observed",
        "fig11",
        {"*": STEPS},
        [
            {"SBM-RAE": {f"test/steps/guided/100/coherence/m9/{n}": 0.2 for n in (1, 2)}},
            {"SBM-VAE": {f"test/steps/guided/1000/coherence/m9/{n}": 0.3 for n in (1, 2)}},
        ],
    ),
    (
        "stable_unconditional",
        "fig6",
        changed(UNCONDITIONAL, FIRST),
        [counts(f"{PLAIN}frechet/mean", first=70.0, last=90.0)],
    ),
    (
        "stable_conditional",
        "fig7",
        REST,
        [
            counts("test/rest/plain/frechet/m0", first=70.0, last=90.0),
            counts("test/rest/plain/coherence/m0", first=0.9, last=0.7),
        ],
    ),
    ("even_coverage", "fig20", {"*": EVEN, "MVTCAE": UNEVEN}, [{"MMVAE+": UNEVEN, "MVTCAE": EVEN}]),
    (
        "recovered_latents",
        "table7",
        {"*": {f"test/rest/guided/cosine/m{k}": 0.164 for k in range(10)}},
        # Over the printed average, under that of the printed rows.
        [{"*": {f"test/rest/guided/cosine/m{k}": 0.125 for k in range(10)}}],
    ),
    (
        "smaller_beta",
        "table6",
        {
            "0.1": {"test/rest/plain/coherence/mean": 0.9, "test/rest/plain/frechet/mean": 50.0},
            "1": {"test/rest/plain/coherence/mean": 0.7, "test/rest/plain/frechet/mean": 100.0},
        },
        [{"1": {"test/rest/plain/coherence/mean": 0.95}}, {"1": {"test/rest/plain/frechet/mean": 40.0}}],
    ),
    (
        "fewer_steps",
        "fig-nfe",
        {
            "*": {
                f"test/nfe/predictor_corrector/{n}/{part}": 0.7 for n in (20, 200, 2000) for part in ("joint", "given")
            }
        },
        [{"*": {f"test/nfe/predictor_corrector/200/{part}": 0.6}} for part in ("joint", "given")],
    ),
    (
        "best_images",
        "table2",
        faces("fid/image", ("nothing",), 90.0, SBM_VAE=79.0),
        [faces("fid/image", ("nothing",), 90.0, MLD=70.0)],
    ),
    (
        "best_images_given",
        "table1",
        faces("fid/image", GIVEN, 90.0, SBM_RAE_T=70.0),
        [faces("fid/image", (g,), 90.0, MLD=60.0) for g in GIVEN],
    ),
    (
        "masks_worse",
        "table1",
        faces(MASK, BOTH, 0.8, MoPoE=0.9, MVTCAE=0.9),
        [{"MoPoE": {f"test/both/{{how}}/{MASK}": 0.7}}, {"SBM-VAE-T": {f"test/image/{{how}}/{MASK}": 0.95}}],
    ),
    (
        "attributes_best",
        "table1",
        faces(ATTRIBUTES, BOTH, 0.7, SBM_RAE_T=0.77, SBM_VAE_T=0.6, Supervised=0.9),
        [{"MLD": {f"test/{g}/{{how}}/{ATTRIBUTES}": 0.8}} for g in BOTH],
    ),
    (
        "guided_faces",
        "table1",
        faces(ATTRIBUTES, BOTH, 0.7, SBM_RAE=0.6, SBM_VAE=0.6),
        [{f"SBM-{way}": {f"test/image/{{how}}/{ATTRIBUTES}": 0.5}} for way in ("VAE-C", "RAE-T")],
    ),
    (
        "least_lost",
        "table3",
        faces("drop/attributes", ("attacked",), 10.0, SBM_VAE_C=4.0, Supervised=1.0),
        [{"MMVAE+": {"test/attacked/{how}/drop/attributes": 3.0}}],
    ),
    (
        "most_lost",
        "table3",
        faces("drop/attributes", ("attacked",), 10.0, SBM_RAE_T=36.0, Supervised=90.0),
        [{"MoPoE": {"test/attacked/{how}/drop/attributes": 40.0}}],
    ),
    (
        "missing_in_training",
        "table11",
        MISSING,
        [
            {"MoPoE": {"test/both/{how}/fid/image": 70.0}},
            {"MoPoE": {f"test/both/{{how}}/{MASK}": 0.95}},
            {"SBM-VAE": {f"test/both/{{how}}/{ATTRIBUTES}": 0.8}},
        ],
    ),
]
FAILURES = [(function, artifact, changed(good, bad)) for function, artifact, good, bads in CASES for bad in bads]


def found(function: str, *args: Any, **options: Any) -> list[Comparison]:
    return getattr(claims, function)(evidence(*args, **options))


@pytest.mark.parametrize(("function", "artifact", "good", "bads"), CASES, ids=[c[0] for c in CASES])
def test_a_rule_holds_beyond_two_standard_errors_and_is_open_within(
    function: str, artifact: str, good: Values, bads: list[Values]
) -> None:
    sure = found(function, artifact, good)
    assert all(c.holds and c.seeds == 3 for c in sure), sure
    assert {c.holds for c in found(function, artifact, good, noise=5.0)} == {None}


@pytest.mark.parametrize(("function", "artifact", "values"), FAILURES, ids=[c[0] for c in FAILURES])
def test_a_rule_fails_by_each_of_its_parts(function: str, artifact: str, values: Values) -> None:
    assert any(c.holds is False for c in found(function, artifact, values))


@pytest.mark.parametrize(
    ("change", "constant", "slower"),
    [
        ({}, [True, True], True),
        ({"timing/eager/batch/10": 10.5}, [False, True], True),  # 11.9 s over 10 s
        ({"timing/mopoe/batch/10": 2.9}, [True, False], True),
        ({"timing/mopoe/batch/10": 40.0}, [True, True], False),
    ],
)
def test_seconds(change: dict[str, float], constant: list[bool], slower: bool) -> None:
    values = {"seconds": TIMES | change}
    assert [c.holds for c in found("constant_time", "fig27", values)] == constant
    assert [c.holds for c in found("slower_than_mopoe", "fig27", values)] == [slower]


def test_what_decides_of_joint_samples_is_the_average_with_the_first_modality_beside_it() -> None:
    (stable,) = found("stable_unconditional", "fig6", changed(UNCONDITIONAL, FIRST))
    assert stable.holds
    assert stable.text.endswith("(m0 alone 200 after 60)")


def test_latents_are_compared_over_the_modalities_that_the_runs_have() -> None:
    cosines = {f"test/rest/guided/cosine/{m}": 0.15 for m in ("m0", "m1", "m2", "mean")}
    (three,) = found("recovered_latents", "table7", {"*": cosines}, profile="quick")
    assert three.holds is False  # under (0.184 + 0.161 + 0.138) / 3, over the ten rows' 0.1333
    assert "modalities 0, 1, 2: 0.15 " in three.text
    assert three.text.endswith("> 0.161 (mean of MVTCAE's published rows 0, 1, 2; of SBM-VAE-C's 0.162)")


def test_images_are_compared_by_pixels_where_a_row_has_no_fid() -> None:
    values = changed(
        faces("frechet/image", ("nothing",), 3.0, SBM_VAE=2.0),
        {"MoPoE": {"test/nothing/{how}/fid/image": 1.0}},
    )
    (best,) = found("best_images", "table2", values, profile="quick")
    assert best.holds
    assert "Fréchet distance of pixels" in best.text


def test_reduced_profiles_compare_the_rows_that_they_have() -> None:
    coverage = found("even_coverage", "fig20", {"*": EVEN, "MVTCAE": UNEVEN}, profile="quick")
    assert [c.text.split(",")[0] for c in coverage] == ["SBM-VAE", "SBM-RAE"]
    values = faces(ATTRIBUTES, BOTH, 0.7, SBM_RAE=0.6, SBM_VAE=0.6)
    assert len(found("guided_faces", "table1", values, profile="quick")) == 4


def test_what_no_row_has_is_named() -> None:
    with pytest.raises(KeyError, match="f1/mask"):
        found("masks_worse", "table1", {})
    with pytest.raises(KeyError, match="agree"):
        found("agree_but_one", "fig5", {})
