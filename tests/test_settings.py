"""Settings that the papers leave open, and statements of theirs that do not fit: what rows of the errata say."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from repro.artifacts.inventory import find
from repro.artifacts.render import Sources, plan
from repro.datasets.base import ModalitySpec, specs
from repro.datasets.card import load_card
from repro.distributions.diffusion import VPSDE
from repro.model import isolated_rng
from repro.papers import paper as paper_of
from repro.papers.covae.correlated_mnist.experiment import image_spec as correlated_spec
from repro.papers.covae.omics.experiment import omics_spec
from repro.papers.gmrf_mcvae.copula import experiment as copula
from repro.papers.gmrf_mcvae.copula import tables
from repro.papers.gmrf_mcvae.images.experiment import image_spec
from repro.papers.sbm_vae.autoencoders import Autoencoders
from repro.papers.sbm_vae.building import build
from repro.papers.sbm_vae.guidance import PairEnergy
from repro.papers.sbm_vae.polymnist import tables as sbm_tables
from repro.papers.sbm_vae.settings import ABLATIONS, ALPHA, VALUES, sbm_spec
from repro.records import Record, RunSpec
from tests.support.experiments import build_model, results_of

FIGURES = Path(__file__).resolve().parent.parent / "figures"


def published(paper: str, table: str) -> dict[str, Any]:
    return copy.deepcopy(dict(paper_of(paper).published[table]))  # a test may change it


def recorded(spec: RunSpec) -> Record | None:
    return Sources(None, FIGURES).record(spec)


# B3: MVTCAE's alpha


def test_mvtcae_has_the_alpha_of_the_polymnist_script_and_a_row_with_the_default() -> None:
    default, older = sbm_spec("mvtcae", 0, "quick"), sbm_spec("mvtcae", 0, "quick", alpha=0.1)
    assert default.params["model"]["alpha"] == ALPHA == 5 / 6
    assert "alpha" not in older.params["model"]
    assert recorded(older) is not None  # recorded before there was a choice
    assert [build(s).settings.alpha for s in (default, older)] == [5 / 6, 0.1]
    for profile in ("paper", "overnight"):
        rows = plan(find("sbm_vae/table5"), profile)
        alphas = [rows[r][0].params["model"].get("alpha") for r in ("MVTCAE", "MVTCAE, alpha 0.1")]
        assert alphas == [5 / 6, None]
    assert correlated_spec("mvtcae", 0, "quick", 0.3).params["model"]["alpha"] == 0.1


@pytest.mark.parametrize("alpha", [-0.01, 1.01, math.nan, math.inf])
def test_alpha_is_between_0_and_1(alpha: float) -> None:
    with pytest.raises(ValueError, match=r"alpha is .*, must be in \[0, 1\]"):
        sbm_spec("mvtcae", 0, "quick", alpha=alpha)


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("mvae", {"alpha": 0.1}),
        ("mvtcae", {"subsampling": True}),
        ("mmvae", {"missing": 0.2}),
        ("sbm_vae", {"regularisation": 1e-3}),
        ("mopoe", {"observed_noise": "clean"}),
    ],
)
def test_settings_of_other_methods_are_refused(method: str, changes: Mapping[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"{method} has no setting \['{next(iter(changes))}'\]"):
        sbm_spec(method, 0, "quick", **changes)


# B4: MVAE's sub-sampling


def test_mvae_is_trained_with_sub_sampling_in_all_papers_and_without_it_as_rows() -> None:
    ruled = [
        image_spec("polymnist", "mvae", 0, "paper"),
        correlated_spec("mvae", 0, "paper", 0.3),
        omics_spec("mvae", 0, "paper"),
        sbm_spec("mvae", 0, "paper"),
        *plan(find("gmrf_mcvae/table1-baselines"), "paper")["MVAE, sub-sampling"],
    ]
    assert [s.params["model"]["subsampling"] for s in ruled] == [True] * 7
    assert [s.seed for s in ruled[4:]] == [0, 1, 2]
    without = [
        *plan(find("gmrf_mcvae/table1"), "paper")["mvae"],
        *plan(find("sbm_vae/table5-ablations"), "paper")["MVAE, no sub-sampling"],
    ]
    assert not any("subsampling" in s.params["model"] for s in without)
    assert all(recorded(s) for s in without[:3])  # Table I's, recorded before there was a choice
    assert copula.copula_spec("mvae", 0, "paper", subsampling=False) == copula.copula_spec("mvae", 0, "paper")
    assert [build(sbm_spec("mvae", 0, "smoke", subsampling=s)).settings.subsampling for s in (True, False)] == [
        *(True, False)
    ]
    with pytest.raises(ValueError, match=r"mmvae has no setting \['subsampling'\]"):
        copula.copula_spec("mmvae", 0, "smoke", subsampling=True)


def test_table_1_says_how_its_mvae_was_trained_and_what_is_not_recorded() -> None:
    off = [recorded(s) for s in plan(find("gmrf_mcvae/table1"), "paper")["mvae"]]
    text = tables._subsampling_note(off, results_of("gmrf_mcvae/table1", "paper", lambda spec: None))
    assert "was trained without" in text
    assert text.endswith('The row "MVAE, sub-sampling" is not recorded yet: make gmrf-table1-baselines.')
    known = results_of("gmrf_mcvae/table1", "paper", lambda spec: replace(off[spec.seed], spec=spec))
    found = tables._subsampling_note(off, known)
    values = [sum(r.metric(f"test/{t}/mean/histogram/mean").value for r in off) / 3 for t in tables.TASKS.values()]
    assert found.endswith(f"With it: unconditional {values[0]:.2f}, conditional {values[1]:.2f}.")


# M7, M16: Table I's baselines, and the edge of the grid of beta


def test_baselines_of_table_1_with_one_setting_changed() -> None:
    rows = plan(find("gmrf_mcvae/table1-baselines"), "paper")
    assert tuple(rows) == tuple(copula.BASELINE_VARIANTS)
    for name, (method, changes, seeds) in copula.BASELINE_VARIANTS.items():
        base = copula.copula_spec(method, 0, "paper").params
        assert [s.seed for s in rows[name]] == list(range(seeds))
        spec = rows[name][0].params
        assert {k for k, v in spec["model"].items() if base["model"].get(k) != v} == set(changes)
        assert {k: v for k, v in spec.items() if k != "model"} == {k: v for k, v in base.items() if k != "model"}
        with isolated_rng(0):
            model = build_model(copula.copula_spec(method, 0, "smoke", **changes))
        x = {f"m{i}": torch.rand(16, 2) for i in range(4)}
        assert bool(model.loss(x).total.isfinite())
    # A latent dimension of 3 with a capacity of 48: a mean and a variance of 4 modalities' latents, twice as many.
    capacities = {n: 4 * 2 * rows[n][0].params["model"]["latent_dim"] for n in rows if n.endswith(", 3 latents")}
    assert set(capacities.values()) == {24}
    base = copula.copula_spec("mvae", 0, "paper").params["model"]
    assert 4 * 2 * base["latent_dim"] == 48


def stand_in(spec: RunSpec) -> Record:
    """A record of Table I's or of the choice of beta under another specification, so that tables can be drawn."""
    if (own := recorded(spec)) is not None:
        return own
    splits = spec.params["evaluation"]["splits"]
    if splits == ["validation"]:
        beta, epochs = spec.params["model"]["beta"], spec.params["training"]["epochs"]
        base = copula.copula_spec(spec.method, 0, "paper", beta=beta, epochs=epochs, splits=("validation",))
    else:
        base = copula.copula_spec(spec.method, spec.seed, "paper")
    return replace(recorded(base), spec=spec)


def test_tables_of_the_planned_rows() -> None:
    found = tables.baselines(results_of("gmrf_mcvae/table1-baselines", "paper", stand_in))
    assert [r.label for r in found.rows] == list(copula.BASELINE_VARIANTS)
    assert [r.cells["uncond_mean"].n for r in found.rows] == [n for *_, n in copula.BASELINE_VARIANTS.values()]
    groups = {g.title for g in tables.table1(results_of("gmrf_mcvae/table1", "paper", stand_in))[0].groups}
    assert "Baselines with one setting changed" in groups
    changed = {s for own in plan(find("gmrf_mcvae/table1-baselines"), "paper").values() for s in own}
    without = results_of("gmrf_mcvae/table1", "paper", lambda spec: None if spec in changed else recorded(spec))
    groups = {g.title for g in tables.table1(without)[0].groups}
    assert "Baselines with one setting changed" not in groups  # where none is recorded

    def one_seed_alone(spec: RunSpec) -> Record:
        return replace(stand_in(replace(spec, seed=0)), spec=spec)

    found = tables.finalists(results_of("gmrf_mcvae/table1-finalists", "paper", one_seed_alone))
    assert [r.cells["both"].n for r in found.rows] == [copula.FINALIST_SEEDS] * 10
    one_seed = tables._scores(
        results_of("gmrf_mcvae/table1-sweep", "paper", recorded), rung=1, distances=("histogram", "sliced")
    )
    for row, (method, beta) in zip(
        found.rows, [(m, b) for m, betas in copula.finalist_betas().items() for b in betas], strict=True
    ):
        assert row.cells["both"].mean == pytest.approx(one_seed[method][beta])
    assert any("this agrees with" in str(n) for n in found.notes)


def test_further_seeds_of_the_finalists_differ_from_the_sweeps_in_the_seed_alone() -> None:
    sweep = plan(find("gmrf_mcvae/table1-sweep"), "paper")
    for name, specs_ in plan(find("gmrf_mcvae/table1-finalists"), "paper").items():
        (first,) = sweep[f"{name}, 60 epochs"]
        assert [replace(s, seed=0) for s in specs_] == [first] * 3
        assert [s.seed for s in specs_] == [0, 1, 2]


def test_the_sweep_says_that_its_choice_is_at_the_edge_and_close() -> None:
    chosen = dict(copula.chosen_betas())
    assert set(chosen.values()) == {min(copula.BETAS)}
    edge, close, other = [
        *tables._edge_notes(chosen),
        *tables._closeness_notes(results_of("gmrf_mcvae/table1-sweep", "paper", recorded)),
    ]
    assert "0.001 is the lower edge of the paper's grid, 50 times under the next value" in edge
    assert "5 of 5 models" in edge
    scores = tables._scores(
        results_of("gmrf_mcvae/table1-sweep", "paper", recorded), rung=1, distances=("histogram", "sliced")
    )["mmvae"]
    assert f"MMVAE's, {scores[0.001]:.2f} at 0.001 against {scores[0.05]:.2f} at 0.05" in close
    assert other == "The paper's distance alone would choose otherwise: MMVAE 0.05, MMVAE+ 0.05."
    assert tables._edge_notes(dict.fromkeys(chosen, 0.05)) == []


# M8, M9, M14, M24: SBM-VAE


def test_rows_of_what_sbm_vae_leaves_open() -> None:
    rows = {row: specs_[0] for row, specs_ in plan(find("sbm_vae/table5-ablations"), "quick").items()}
    assert tuple(rows) == tuple(ABLATIONS)
    assert len({s.key for s in rows.values()}) == len(rows)
    noises = [s.params["evaluation"]["sampling"].get("observed_noise") for s in rows.values() if s.method == "sbm_vae"]
    assert noises == [None, "fixed", "clean"]
    assert [s.params["model"]["beta"] for s in rows.values() if s.method == "mopoe"] == [2.5, 1.25]
    assert {s.params["model"]["likelihood"] for s in rows.values() if s.method == "mopoe"} == {"gaussian"}
    small = {"score": {"width": 8, "multipliers": [1], "blocks": 1, "decay": 0.9}}
    for noise, expected in zip(("fresh", "clean"), ("fresh", "clean"), strict=True):
        spec = sbm_spec("sbm_vae", 0, "smoke", observed_noise=noise)
        model = build(replace(spec, params=spec.params | {"model": spec.params["model"] | small}))
        assert model.sampling.observed_noise == expected
    assert {s.numel for s in specs(load_card("extended_polymnist")).values()} == {VALUES}


def test_a_mean_squared_error_is_the_sum_with_a_heavier_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    modalities = {"a": ModalitySpec((6,))}
    x = {"a": torch.rand(5, 6)}
    losses = []
    for regularisation in (0.5, 0.5 * 6):
        with isolated_rng(0):
            made = Autoencoders(modalities, kind="rae", latent_dim=2, regularisation=regularisation, hidden=(8,))
        losses.append(made.loss(x))
    summed, heavier = losses
    mean = summed.terms["reconstruction/a"] / 6 + 0.5 * summed.terms["norm/a"]
    torch.testing.assert_close(heavier.total.detach(), 6 * mean)


def test_the_pair_energy_takes_the_time() -> None:
    torch.manual_seed(0)
    energy = PairEnergy(2, 3, VPSDE(0.1, 5.0), (8,))
    z, zero, one = torch.randn(4, 3), torch.zeros(4, dtype=torch.long), torch.ones(4, dtype=torch.long)
    early, late = (energy(z, z, zero, one, torch.full((4,), t)) for t in (0.1, 0.9))
    assert not torch.allclose(early, late)


# M15: CoVAE


def test_covaes_joint_encoder_shares_no_layer_with_the_encoders() -> None:
    model = build_model(correlated_spec("covae", 0, "smoke", 0.3))
    single = {p.data_ptr() for p in model.encoders.parameters()}
    joint = {p.data_ptr() for p in model.joint_encoder.parameters()}
    assert single
    assert joint
    assert not single & joint


# M10 to M13, M17: published numbers, and what is said of them


def test_published_means_that_are_not_means() -> None:
    table = published("gmrf_mcvae", "table1")
    (note,) = tables.mean_notes(table)
    assert note == "Published GMRF MCVAE, unconditional: the mean is printed as 0.86; that of 0.7 and 0.95 is 0.825."
    table["rows"]["GMRF MCVAE"][2] = 0.83
    assert tables.mean_notes(table) == []


def test_the_published_average_of_sbm_vaes_table_7() -> None:
    table = published("sbm_vae", "table7")
    assert sbm_tables.average_note(table) == [
        "The published average of MVTCAE is 0.118; the mean of its 10 published rows is 0.133.",
    ]
    table["rows"]["Avg"][1] = [0.133]
    assert sbm_tables.average_note(table) == []


def test_the_lowest_published_fid_is_not_mvaes() -> None:
    table = published("gmrf_mcvae", "table2")
    text = "The papers say that MVAE has the lowest FID"
    (note,) = tables.lowest_note(table, ["uncond_fid", "cond_fid"], "MVAE", text)
    assert note == f"{text}; in its table the lowest are MMVAE+ 87.23 against 95.14; MMVAE+ 82.05 against 94.71."
    assert tables.lowest_note(table, ["uncond_fid", "cond_fid"], "MMVAE+", text) == []


def test_both_papers_print_the_same_numbers_under_unequal_settings() -> None:
    assert published("mrf_mvae", "table1")["same_as"] == "gmrf_mcvae.table2"
    one, other = published("gmrf_mcvae", "polymnist_settings")["rows"].values()
    assert not set(one) & set(other)
    for profile in ("paper", "quick"):
        assert plan(find("mrf_mvae/table1"), profile) == plan(find("gmrf_mcvae/table2"), profile)


def test_published_baselines_match_samples_of_the_likelihood() -> None:
    rows = plan(find("gmrf_mcvae/table1"), "paper")
    records = {m: [recorded(s) for s in rows[m]] for m in rows if m != "gmrf_mcvae"}
    note = tables.outputs_note(records)
    assert "samples of the likelihood (7): " in note
    assert "MMVAE+ unconditional 6.44 for 6.5" in note
    assert "MoPoE-VAE conditional 5.91 for 5.9" in note
    assert "decoder means (1): MVAE unconditional 2.19 for 2.9" in note


def test_errata_name_tests_that_exist() -> None:
    text = (FIGURES.parent / "docs/errata.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w/]*test_\w+\.py)`", text))
    tests = Path(__file__).resolve().parent
    there = {str(p.relative_to(tests)) for p in tests.rglob("test_*.py")}
    assert len(named) > 10
    assert named <= there
    numbers = re.findall(r"^\| ([EMB]\d+) \|", text, re.M)
    assert len(numbers) == len(set(numbers))
    code = "".join(p.read_text() for p in (FIGURES.parent / "repro").rglob("*.py"))
    cited = set(re.findall(r"errat(?:um|a) ((?:[EMB]\d+(?:, | and )?)+)", code))
    assert {n for c in cited for n in re.findall(r"[EMB]\d+", c)} <= set(numbers)
