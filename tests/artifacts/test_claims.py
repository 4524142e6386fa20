"""Claims of the papers: every one has a verdict that follows from records, and no reduced run refutes anything."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from repro.artifacts import claims as c
from repro.artifacts import gallery
from repro.artifacts.claims import VERDICTS, Claim, Verdict, assess, claims, counts, to_markdown
from repro.artifacts.inventory import artifacts, find
from repro.artifacts.render import Sources, plan, unsettled
from repro.cli.main import main
from repro.errors import RecordError, UsageError
from repro.papers import papers
from repro.papers.gmrf_mcvae.copula.experiment import copula_spec
from repro.records import Metric, Record, RunSpec
from repro.report.evidence import Comparison, Evidence, by_chains, spread
from repro.report.names import NAMES

PAPERS = [p.name for p in papers().values() if p.title]

PLACE = {"commit": "0" * 40, "dirty": False, "device": "cpu", "device_name": "a machine", "versions": {"torch": "2"}}
METRIC = "test/unconditional/mean/histogram/mean"
FIGURES = Path(__file__).resolve().parents[2] / "figures"


def record(spec: RunSpec, values: Mapping[str, float], converged: bool | None = None) -> Record:
    metrics = [Metric(name, v, "1", 100, "as the test says") for name, v in values.items()]
    history = [] if converged is None else [{"stage": "train", "epoch": 1, "epochs": 1, "converged": converged}]
    return Record(spec, metrics, PLACE, {}, "0" * 64, 1.0, 1.0, history)


class Lookup:
    """Records that the test makes up, instead of recorded ones."""

    def __init__(
        self, make: Callable[[RunSpec], Record | None], lost: Callable[[RunSpec], bool] = lambda spec: False
    ) -> None:
        self.make, self.lost = make, lost

    def record(self, spec: RunSpec) -> Record | None:
        return None if self.lost(spec) else self.make(spec)

    def diverged(self, spec: RunSpec) -> str:
        return "epoch 3 of 10: the loss is not finite" if self.lost(spec) else ""


def claim(**changes: Any) -> Claim:
    rule = {"kind": "best", "row": "gmrf_mcvae", "better": "lower", "metrics": [METRIC]}
    known: dict[str, Any] = {"text": "It is best", "place": "section 1", "artifact": "gmrf_mcvae/table1", "rule": rule}
    return Claim("gmrf_mcvae", "made-up", **{**known, **changes})


def table1(own: tuple[float, ...], other: tuple[float, ...], profile: str, converged: bool | None = None) -> Lookup:
    """Table I in one profile, with the values of GMRF MCVAE and of every other model by seed."""

    def make(spec: RunSpec) -> Record | None:
        if spec.profile != profile or spec.dataset != "copula" or spec.seed >= len(own):
            return None
        values = own if spec.method == "gmrf_mcvae" else other
        return record(spec, {METRIC: values[spec.seed], "test/ceiling": 0.95}, converged)

    return Lookup(make)


@pytest.mark.parametrize(
    ("own", "other", "verdict"),
    [
        ((1.0, 1.1, 0.9), (2.0, 2.1, 1.9), "reproduced"),
        ((2.0, 2.1, 1.9), (1.0, 1.1, 0.9), "contradicted"),
        ((1.0, 1.5, 0.5), (1.1, 1.6, 0.6), "inconclusive"),
    ],
)
def test_the_paper_profile_settles_a_claim_beyond_two_standard_errors(
    own: tuple[float, ...], other: tuple[float, ...], verdict: str
) -> None:
    found = assess(claim(), table1(own, other, "paper"))
    assert (found.verdict, found.profile, found.seeds) == (verdict, "paper", 3)
    if verdict == "inconclusive":
        assert found.reasons == ("differences within two standard errors",)


def test_one_seed_settles_nothing() -> None:
    found = assess(claim(), table1((1.0,), (2.0,), "paper"))
    assert (found.verdict, found.reasons) == ("inconclusive", ("one seed",))


@pytest.mark.parametrize("values", [((1.0, 1.1, 0.9), (2.0, 2.1, 1.9)), ((2.0, 2.1, 1.9), (1.0, 1.1, 0.9))])
def test_minutes_of_training_settle_nothing(values: Any) -> None:
    found = assess(claim(), table1(*values, "quick"))
    assert found.verdict == "inconclusive"
    assert "trained for minutes (profile quick)" in found.reasons


def overnight(
    own: tuple[float, ...],
    other: tuple[float, ...],
    converged: bool | None,
    r_hat: float = 1.0,
    ceiling: float = 0.95,
) -> Lookup:
    """Table 4 of MRF MVAE in the profile overnight."""

    def make(spec: RunSpec) -> Record | None:
        if spec.profile != "overnight" or spec.dataset != "mnist_triples":
            return None
        values = {"test/conditional/coherence": (own if spec.method == "gmrf" else other)[spec.seed]}
        values |= {"test/conditional/reconstructed/m0": ceiling, "test/unconditional/r_hat": r_hat}
        return record(spec, values, converged)

    return Lookup(make)


def triples(**changes: Any) -> Claim:
    rule = {
        "kind": "compare",
        "all": [[["gmrf", "test/conditional/coherence"], ">", ["nnmrf", "test/conditional/coherence"]]],
    }
    known = {"artifact": "mrf_mvae/table4", "rule": rule, "chains": "nnmrf"}
    return claim(**{**known, "ceiling": "test/conditional/reconstructed/m0", "ceiling_rows": ("gmrf",), **changes})


HIGH, LOW = (0.9, 0.91, 0.92), (0.4, 0.41, 0.42)


def test_converged_nights_reproduce_but_do_not_contradict_where_size_matters() -> None:
    assert assess(triples(), overnight(HIGH, LOW, True)).verdict == "reproduced"
    found = assess(triples(), overnight(LOW, HIGH, True))
    assert (found.verdict, found.reasons) == ("inconclusive", ("narrow networks, where size could matter",))
    assert assess(triples(size_matters=False), overnight(LOW, HIGH, True)).verdict == "contradicted"


def test_what_keeps_a_night_from_settling_is_named() -> None:
    (why,) = assess(triples(), overnight(HIGH, LOW, False)).reasons
    assert why.startswith("not converged (")
    (why,) = assess(triples(), overnight(HIGH, LOW, True, r_hat=10.9)).reasons
    assert why == "chains of NN-MRF MVAE do not mix (split R-hat 10.90)"
    rows = {"ceiling": "test/conditional/coherence", "ceiling_rows": ("nnmrf",)}
    (why,) = assess(triples(**rows), overnight(HIGH, LOW, True)).reasons
    assert why == "reconstruction ceiling of NN-MRF MVAE 0.41, under 0.9"


def test_bounds_belong_to_what_is_good_enough() -> None:
    assert assess(triples(), overnight(HIGH, LOW, True, r_hat=1.1, ceiling=0.9)).verdict == "reproduced"
    assert len(assess(triples(), overnight(HIGH, LOW, True, r_hat=1.101, ceiling=0.899)).reasons) == 2


def test_nights_of_a_fixed_length_settle_nothing() -> None:
    """Nothing says that they have converged, of a claim or of a table's best row."""
    (why,) = assess(triples(), overnight(HIGH, LOW, None)).reasons
    assert why.startswith("no rule says whether they converged (")
    spec = copula_spec("mvae", 0, "paper")
    runs = [record(spec, {"test/reconstruction/coherence": x}, True) for x in (0.8, 0.95, 0.98)]
    assert unsettled("overnight", runs) == ""  # their mean is over 0.9
    assert unsettled("overnight", runs[:2]) == "only 0.88 of MVAE's reconstructions show the right digit"
    assert unsettled("overnight", [record(spec, {METRIC: 1.0})]).startswith("1 of 1 runs have no rule")


def correlated(epochs: int | None = None) -> Callable[[RunSpec], Record | None]:
    """CoVAE's Figure 5 in the profile overnight, two seeds that have not converged, with a number of epochs."""

    def make(spec: RunSpec) -> Record | None:
        if spec.profile != "overnight" or spec.seed > 1:
            return None
        training = spec.params["training"] | ({} if epochs is None else {"epochs": epochs})
        ran = replace(spec, params=spec.params | {"training": training})
        return record(ran, {METRIC: (1.0 if spec.method == "jmvae" else 2.0) + 0.01 * spec.seed}, False)

    return make


def test_an_end_before_convergence_is_late_enough_where_the_paper_profile_ends_no_later() -> None:
    """CoVAE's paper trains for 30 epochs; the night's 60 on 18,000 pairs are more epochs, samples and steps."""
    rule: dict[str, Any] = {"kind": "best", "row": "jmvae, rho 0.3", "better": "lower", "metrics": [METRIC]}
    rule["among"] = ["mvae, rho 0.3", "mmvae, rho 0.3"]
    asked = replace(claim(artifact="covae/fig5", rule=rule), paper="covae")
    found = assess(asked, Lookup(correlated()))
    assert (found.verdict, found.reasons, found.seeds) == ("reproduced", (), 2)
    assert found.evidence[-1] == "not converged, but trained no shorter than in the paper profile: 6 of 6 runs"
    # 33 epochs of 18,000 pairs are fewer samples than 30 of 20,000; 34 are enough of them, and of steps.
    found = assess(asked, Lookup(correlated(33)))
    assert (found.verdict, found.reasons) == ("inconclusive", ("not converged (6 of 6 runs)",))
    assert assess(asked, Lookup(correlated(34))).verdict == "reproduced"
    # CoVAE's Deep CCA, which no rule ends, is shorter than the paper profile's.
    beside = replace(asked, rule=rule | {"among": ["mvae, rho 0.3", "covae, rho 0.3"]})
    assert assess(beside, Lookup(correlated())).reasons == ("not converged (2 of 6 runs)",)
    # A comparison's lengths are its own: no paper states them.
    compared = replace(
        asked, artifact="compare/correlated", rule=rule | {"row": "CoVAE, rho 0.3", "among": ["SBM-VAE, rho 0.3"]}
    )
    assert assess(compared, Lookup(correlated())).reasons[0].startswith("not converged (")


def test_a_claim_about_some_methods_asks_for_no_runs_of_others() -> None:
    """CoVAE's uncertainty falls, whatever is missing of the other models."""
    stated = {c.id: c for c in claims("covae")}

    def make(spec: RunSpec) -> Record | None:
        if spec.method != "covae" or spec.profile != "overnight":
            return None
        rho = spec.params["data"]["rho"]
        values = {"test/deviation/missing": 1 - 0.3 * rho**4, "test/deviation/observed": 0.7 - 0.1 * rho}
        return record(spec, values, True)

    found = assess(stated["uncertainty-falls"], Lookup(make))
    assert (found.profile, found.verdict, found.reasons) == ("overnight", "reproduced", ())
    assert assess(stated["uncertainty"], Lookup(make)).verdict == "not run"


def test_records_without_what_a_rule_needs_are_refused_in_one_line() -> None:
    rule = {"kind": "best", "row": "gmrf_mcvae", "better": "lower", "metrics": ["test/nothing"]}
    with pytest.raises(RecordError, match=r"gmrf_mcvae/table1 do not have what claim .*/made-up needs: 'test/nothing'"):
        assess(claim(rule=rule), table1((1.0,), (2.0,), "paper"))


def test_other_data_than_the_paper_s_settle_nothing() -> None:
    asked = claim(artifact="gmrf_mcvae/table3-biked", stand_in="gmrf_mcvae/table1")
    found = assess(asked, table1((1.0, 1.1, 0.9), (2.0, 2.1, 1.9), "paper"))
    assert found.verdict == "inconclusive"
    assert found.reasons == ("on other data than the paper's (copula)",)
    none = assess(asked, Lookup(lambda spec: None))
    assert none.verdict == "not run"
    assert "biked" in none.reasons[0]


def test_runs_of_something_else_than_the_paper_speaks_of_settle_nothing() -> None:
    for values in (((1.0, 1.1, 0.9), (2.0, 2.1, 1.9)), ((2.0, 2.1, 1.9), (1.0, 1.1, 0.9))):
        found = assess(claim(caveat="on another thing"), table1(*values, "paper"))
        assert (found.verdict, found.reasons) == ("inconclusive", ("on another thing",))


def test_what_is_particular_to_a_profile_is_said_of_it_alone() -> None:
    asked = claim(profile_caveats={"quick": "of other data"})
    values = ((1.0, 1.1, 0.9), (2.0, 2.1, 1.9))
    assert assess(asked, table1(*values, "paper")).verdict == "reproduced"
    assert "of other data" in assess(asked, table1(*values, "quick")).reasons


def test_a_paper_that_repeats_an_artifact_has_its_own_name_for_its_model() -> None:
    own = {"artifact": "mrf_mvae/table2", "published": ("table2", "MRF MVAE", "uncond_mean")}
    asked = replace(claim(**own, ceiling=METRIC, ceiling_rows=("gmrf_mcvae",)), paper="mrf_mvae")
    found = assess(asked, table1((0.5,), (2.0,), "quick"))
    assert found.evidence[0].startswith("MRF MVAE 0.5 < MVAE 2 (")
    assert found.published == "0.86"
    assert "reconstruction ceiling of MRF MVAE 0.50, under 0.9" in found.reasons


def test_a_claim_can_need_the_runs_of_two_artifacts() -> None:
    """Of one profile, of which both have their runs."""
    row, metric = "NN-MRF MVAE, beta 0.0085 (Figure 9)", "test/conditional/coherence"
    rule = {"kind": "compare", "all": [[[row, metric], ">", ["nnmrf", metric]]]}
    asked = claim(artifact="mrf_mvae/table4-ablations", beside="mrf_mvae/table4", rule=rule)

    def make(spec: RunSpec) -> Record | None:
        larger = spec.method == "nnmrf" and spec.params["model"]["beta"] == 0.0085
        known = spec.profile == "quick" or (larger and spec.profile == "overnight")
        return record(spec, {metric: 0.5 if larger else 0.4}) if known else None

    found = assess(asked, Lookup(make))
    assert (found.profile, found.artifact) == ("quick", "mrf_mvae/table4-ablations")
    assert found.evidence == (f"{row} 0.5 > NN-MRF MVAE 0.4 ± 0 (conditional/coherence)",)
    assert assess(replace(asked, beside=""), Lookup(make)).verdict == "not run"


def test_a_row_that_is_missing_keeps_the_claim_from_being_assessed() -> None:
    full = table1((1.0,) * 3, (2.0,) * 3, "paper")
    found = assess(claim(), Lookup(lambda spec: None if spec.method == "mopoe" else full.make(spec)))
    (reason,) = found.reasons
    assert (found.verdict, reason.split(": ")[1]) == ("not run", "`make gmrf-table1`")
    assert reason.startswith("12 of 15 runs of the profile paper are recorded, MoPoE-VAE of seed 0 is not: ")


def test_nothing_compared_is_not_reproduced() -> None:
    assert c._weigh([]) == "inconclusive"
    assert c._weigh([Comparison("", True), Comparison("", None)]) == "inconclusive"
    assert c._weigh([Comparison("", None), Comparison("", False)]) == "contradicted"


def test_a_deviation_of_rounding_is_none() -> None:
    assert spread([0.3]) == ""
    assert spread([0.3, 0.1 + 0.2, 0.3]) == " ± 0"
    assert spread([0.3, 0.301]) == " ± 0.00071"


def test_names_with_a_number_that_varies() -> None:
    spec = copula_spec("mvae", 0, "paper")
    rows = {"a": [record(spec, {f"test/agree/{k}": k / 10 for k in (2, 3, 10)})]}
    evidence = Evidence("x", "paper", rows)
    assert evidence.values("a", "test/agree/{last}") == [1.0]
    with pytest.raises(KeyError):
        evidence.values("a", "test/other/{last}")
    with pytest.raises(KeyError, match="has no row 'b'"):
        evidence.values("b", "test/agree/2")


def test_a_rival_whose_chains_do_not_mix_is_none() -> None:
    spec, name = copula_spec("mvae", 0, "paper"), "test/unconditional/x"
    unmixed = record(spec, {name: 1.0, "test/conditional/x": 1.0, "test/unconditional/r_hat": 1.2})
    rows = {"a": [record(spec, {name: 2.0, "test/conditional/x": 2.0})], "b": [unmixed]}
    rows["c"] = [record(spec, {name: 3.0, "test/conditional/x": 3.0})]
    rule = {"kind": "best", "row": "a", "better": "lower", "metrics": [name, "test/conditional/x"]}
    joint, given = c._best(Evidence("x", "paper", rows), rule)
    assert "< c" in joint.text
    assert "< c" in given.text  # drawn by chains of the same field, clamped
    (alone,) = c._best(Evidence("x", "paper", rows), {**rule, "metrics": [name], "among": ["b"]})
    assert (alone.text, alone.holds) == ("a < no other row whose chains mix", None)


@pytest.mark.parametrize(
    ("name", "drawn"),
    [
        ("test/unconditional/coherence", True),
        ("validation/conditional/mean/sliced", True),
        ("test/conditional-exact/coherence", True),
        ("test/images/joint/error", True),
        ("test/energy/given-one", True),
        ("test/given-rest/coherence", True),
        ("test/correlation/conditional", True),
        ("test/correlation/joint", False),  # of the joint posterior
        ("test/energy/given-both", False),
        ("test/nll/joint", False),
        ("test/nll/conditional/ratio", False),
        ("test/nearest/given-one/coherence", False),
        ("test/reconstruction/coherence", False),
        ("sampling/joint/seconds", False),
    ],
)
def test_what_chains_draw_is_told_by_the_metrics_name(name: str, drawn: bool) -> None:
    assert by_chains(name) is drawn


def test_a_rival_of_whose_chains_nothing_is_known_is_none_either() -> None:
    spec, name = copula_spec("mvae", 0, "paper"), "test/unconditional/x"
    rows = {
        "a": [record(spec, {name: 2.0})],
        "b": [record(replace(spec, method="nnmrf"), {name: 1.0})],
        "c": [record(spec, {name: 3.0})],
    }
    rule = {"kind": "best", "row": "a", "better": "lower", "metrics": [name]}
    (joint,) = c._best(Evidence("x", "paper", rows), rule)
    assert "< c" in joint.text


def test_evidence_is_of_the_seeds_that_all_rows_have() -> None:
    whole = table1((1.0, 1.1, 0.9), (2.0, 2.1, 1.9), "paper")
    lookup = Lookup(lambda spec: None if (spec.method, spec.seed) == ("mmvae", 1) else whole.record(spec))
    found = assess(claim(), lookup)
    assert (found.verdict, found.seeds, found.reasons) == ("inconclusive", 1, ("one seed",))
    assert found.evidence[0].startswith("GMRF MCVAE 1 < MVAE 2 (")


@pytest.mark.parametrize("method", ["mvae", "gmrf_mcvae"])
@pytest.mark.parametrize("seeds", [(1,), (0, 1, 2)])
def test_a_claim_is_not_settled_without_what_diverged(method: str, seeds: tuple[int, ...]) -> None:
    whole = table1((1.0, 1.1, 0.9), (2.0, 2.1, 1.9), "paper")
    lookup = Lookup(whole.make, lambda s: (s.profile, s.method) == ("paper", method) and s.seed in seeds)
    found = assess(claim(), lookup)
    assert (found.verdict, found.profile) == ("inconclusive", "paper")
    assert f"diverged: {', '.join(f'{NAMES[method]}, seed {s}' for s in seeds)}" in found.reasons


@pytest.mark.parametrize("x", claims(), ids=lambda x: x.name)
def test_every_claim_is_assessed_whatever_diverged(x: Claim) -> None:
    """All runs, or those of one model: there is a verdict, which settles nothing and names them."""
    sources = Sources(None, FIGURES)
    before = assess(x, sources)
    if not before.profile:
        return
    specs = [s for found in plan(find(before.artifact), before.profile).values() for s in found]
    for methods in ({s.method for s in specs}, {specs[0].method}, {specs[-1].method}):
        found = assess(x, Lookup(sources.record, lambda s, methods=methods: s in specs and s.method in methods))
        if any(r.startswith("diverged") for r in found.reasons):
            assert found.verdict == "inconclusive"


def test_what_diverged_does_not_hide_a_metric_that_is_not_there() -> None:
    whole = table1((1.0, 1.1, 0.9), (2.0, 2.1, 1.9), "paper")
    rule = {"kind": "best", "row": "gmrf_mcvae", "better": "lower", "metrics": ["test/typo"]}
    with pytest.raises(RecordError, match="test/typo"):
        assess(claim(rule=rule), Lookup(whole.make, lambda s: (s.method, s.seed) == ("mvae", 2)))


def test_what_diverged_beyond_the_seeds_that_all_have_is_not_told() -> None:
    whole = table1((1.0, 1.1, 0.9), (2.0, 2.1, 1.9), "paper")
    lookup = Lookup(
        lambda s: None if (s.method, s.seed) == ("mmvae", 1) else whole.record(s),
        lambda s: (s.method, s.seed) == ("mvae", 2),
    )
    assert assess(claim(), lookup).reasons == ("one seed",)


def test_questions_of_the_comparisons_are_counted_apart() -> None:
    verdicts = [Verdict(claim(asked=asked), v) for asked, v in ((False, "reproduced"), (True, "contradicted"))]
    assert counts(verdicts) == (
        "1 claims of the papers: 1 reproduced, 0 contradicted, 0 inconclusive, 0 not run; "
        "1 questions of the comparisons: 0 reproduced, 1 contradicted, 0 inconclusive, 0 not run"
    )
    assert {x.name for x in claims() if x.asked} == {x.name for x in claims() if "models of all papers" in x.text}


def test_models_that_a_profile_leaves_out_are_named() -> None:
    rule = {"kind": "best", "row": "SBM-VAE", "better": "lower", "metrics": ["test/rest/plain/frechet/mean"]}

    def make(spec: RunSpec) -> Record | None:
        return record(spec, {"test/rest/plain/frechet/mean": 1.0}) if spec.profile == "quick" else None

    found = assess(claim(artifact="sbm_vae/table5", rule=rule), Lookup(make))
    said = [r for r in found.reasons if r.endswith("which the profile quick leaves out")]
    assert said
    assert all(f" {m}," in said[0] for m in ("MVAE", "MMVAE", "MoPoE-VAE", "MMVAE+", "MLD"))
    assert "MVTCAE" not in said[0]


# The papers' own claims


def test_every_paper_states_claims_that_name_what_exists() -> None:
    found = claims()
    assert len(found) >= 20
    assert {x.paper for x in found} == {*PAPERS, "compare"}
    assert len({x.name for x in found}) == len(found)
    for x in found:
        assert x.artifact in artifacts()
        assert x.stand_in in ("", *artifacts())
        assert x.rule["kind"] in c.RULES
        assert x.text[0].isupper()
        assert not x.text.endswith(".")
    for paper in PAPERS:
        assert sum(x.headline for x in claims(paper)) >= 2


@pytest.mark.parametrize("x", [x for x in claims() if x.rule["kind"] != "computed"], ids=lambda x: x.name)
def test_rules_name_rows_that_are_planned(x: Claim) -> None:
    rows: set[str] = set()
    for profile in ("paper", "overnight", "quick"):
        try:
            rows |= set(plan(artifacts()[x.artifact], profile))
        except UsageError:
            continue
    named = [x.rule["row"]] if isinstance(x.rule.get("row"), str) else list(x.rule.get("row", ()))
    named += [
        side[0] for left, _, right, *_ in x.rule.get("all", ()) for side in (left, right) if isinstance(side, list)
    ]
    assert {*named, *x.rule.get("among", ()), *x.ceiling_rows} <= rows


def test_the_committed_records_give_every_claim_a_verdict() -> None:
    verdicts = c.all_verdicts(FIGURES)
    assert len(verdicts) == len(claims())
    for v in verdicts:
        assert v.verdict in VERDICTS
        assert v.reasons or v.verdict in ("reproduced", "contradicted")
        assert v.evidence or v.verdict in ("not run", "inconclusive")
        if v.verdict == "contradicted":
            assert v.profile in ("paper", "") or not v.claim.size_matters
        if v.profile == "quick" and v.claim.training_matters:
            assert v.verdict == "inconclusive"
    known = {v.claim.name: v.verdict for v in verdicts}
    assert known["gmrf_mcvae/copula-unconditional"] == "reproduced"
    assert known["mrf_mvae/lemma-1"] == "contradicted"
    own = [v for v in verdicts if v.claim.paper in PAPERS]
    assert counts(verdicts).startswith(f"{len(own)} claims of the papers: ")
    assert counts(verdicts).startswith(f"{counts(own)}; ")
    assert to_markdown(verdicts).count("\n") == len(verdicts) + 2


def test_published_values_are_read_and_not_typed() -> None:
    for x in claims():
        if x.published:
            assert c._published(x)
            assert x.published[0] in papers()[x.paper].published


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["claims", "gmrf"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "REPRODUCED    gmrf_mcvae/copula-unconditional"
    assert max(map(len, out.splitlines())) <= 100
    assert f"\n{len(claims('gmrf_mcvae'))} claims of the papers: " in out
    assert main(["claims", "mrf_mvae", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert [e["claim"] for e in entries] == [x.name for x in claims("mrf")]
    assert main(["claims", "gmrff"]) == 2
    assert "did you mean" in capsys.readouterr().err
    assert main(["claims", "pretrained"]) == 2
    assert capsys.readouterr().err.startswith("repro: pretrained states no claims; gmrf_mcvae, ")
    assert main(["claims", "--figures", "no/such/folder"]) == 2
    assert capsys.readouterr().err == "repro: there is no folder no/such/folder\n"
    assert isinstance(Sources(None, FIGURES), Sources)


def test_the_readme_and_the_page_of_claims_are_those_of_the_records() -> None:
    text = (FIGURES.parent / "README.md").read_text()
    block = text.split(gallery.CLAIM_MARKS[0])[1].split(gallery.CLAIM_MARKS[1])[0]
    assert block == gallery.headline_claims(FIGURES)
    assert (FIGURES / "claims.md").read_text() == gallery.claims_page(FIGURES)
    assert sum(line.startswith("| ") for line in block.splitlines()) == 1 + sum(x.headline for x in claims())
