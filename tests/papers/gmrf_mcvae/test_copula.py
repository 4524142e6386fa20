"""The copula experiment: every hyper-parameter is in the specification and is used, and betas are those chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from repro.artifacts.render import Sources
from repro.datasets import Dataset
from repro.errors import NoProfileError
from repro.model import Loss, MultimodalModel, Stage, isolated_rng
from repro.papers import paper
from repro.papers.gmrf_mcvae.copula.experiment import (
    BETAS,
    METHODS,
    RUNG_EPOCHS,
    VARIANTS,
    chosen_betas,
    copula_spec,
    finalist_betas,
)
from repro.papers.gmrf_mcvae.copula.tables import choose_betas, table1
from repro.papers.gmrf_mcvae.images.settings import OPTIONAL
from repro.papers.gmrf_mcvae.model import GMRFMCVAE
from repro.records import PROFILES, RunSpec
from tests.support.experiments import (
    build_model,
    estimate,
    evaluate,
    figure_samples,
    load_data,
    results_of,
    training_settings,
)

plan = paper("gmrf_mcvae").plan

FIGURES = Path(__file__).resolve().parents[3] / "figures"

COMMON = {"beta": 0.7, "likelihood": "laplace", "output": "sigmoid", "hidden_dtype": "bfloat16"}
CHANGES: dict[str, dict[str, Any]] = {
    "mvae": COMMON | {"latent_dim": 5},
    "mmvae": COMMON | {"latent_dim": 5},
    "mopoe": COMMON | {"latent_dim": 5, "specific_dim": 1},
    "mmvae_plus": COMMON | {"latent_dim": 2, "specific_dim": 2},
    "gmrf_mcvae": COMMON
    | {"latent_dim": 3, "posterior": "block_dominant", "prior": "standard", "scale": 0.5, "reduction": "mean"},
}
# These take effect where a covariance is built by block dominance.
DOMINANT = {"dominance": "block", "epsilon": 0.5, "delta": 0.5}
CASES = [(m, {}, k, v) for m, changes in CHANGES.items() for k, v in changes.items()]
CASES += [("gmrf_mcvae", {"posterior": "block_dominant"}, k, v) for k, v in DOMINANT.items()]


def spec_of(method: str, profile: str = "smoke", **changes: Any) -> RunSpec:
    return copula_spec(method, 0, profile, **changes)


def loss(spec: RunSpec) -> float:
    """The loss of a fixed batch under fixed seeds."""
    g = torch.Generator().manual_seed(0)
    x = {f"m{i}": torch.rand(64, 2, generator=g) for i in range(4)}
    with isolated_rng(0):
        model = build_model(spec)
    if spec.params["model"].get("posterior") == "block_dominant":  # else the bound is far and changes nothing
        with torch.no_grad():
            model.global_encoder.linear.weight.mul_(100)
    with isolated_rng(1):
        return float(model.loss(x).total.detach())


@pytest.mark.parametrize("method", METHODS)
def test_every_model_setting_is_tried_here(method: str) -> None:
    tried = set(CHANGES[method]) | (set(DOMINANT) if method == "gmrf_mcvae" else set())
    settings = set(spec_of(method).params["model"])
    # Without private latents in the method, the setting says so and can be nothing else.
    assert settings - tried == ({"specific_dim"} if method in ("mvae", "mmvae") else set())


@pytest.mark.parametrize(("method", "base", "name", "value"), CASES)
def test_every_model_setting_changes_key_and_model(method: str, base: dict[str, Any], name: str, value: Any) -> None:
    before, after = spec_of(method, **base), spec_of(method, **base, **{name: value})
    assert after.params["model"][name] == value != before.params["model"][name]
    assert after.key != before.key
    assert loss(before) == loss(before)
    assert loss(after) != loss(before)


@pytest.mark.parametrize("method", ["mvae", "mmvae"])
def test_private_latents_are_refused_where_there_are_none(method: str) -> None:
    with pytest.raises(ValueError, match=f"{method} takes no .*specific_dim 1"):
        build_model(spec_of(method, specific_dim=1))


def test_defaults_of_the_model_are_all_in_the_specification() -> None:
    import inspect

    settings = set(spec_of("gmrf_mcvae").params["model"])
    options = set(inspect.signature(GMRFMCVAE.__init__).parameters) - {"self", "modalities", "encoders", "decoders"}
    options -= {"kept", "mask_seed"}  # the image experiments' mask
    options -= set(OPTIONAL)  # in a specification where they are not the defaults
    assert settings == options


def changed(spec: RunSpec, part: str, **values: Any) -> RunSpec:
    return replace(spec, params={**spec.params, part: {**spec.params[part], **values}})


def test_training_settings_are_the_specification_s() -> None:
    spec = spec_of("mvae", "paper")
    assert spec.params["training"] == {"epochs": 200, "batch_size": 500, "learning_rate": 1e-3}
    other = changed(spec, "training", epochs=3, batch_size=7, learning_rate=0.5)
    found = training_settings(other, "cpu")
    assert (found.epochs, found.batch_size, found.learning_rate, found.device) == (3, 7, 0.5, "cpu")
    assert other.key != spec.key


def test_data_settings_are_the_specification_s() -> None:
    spec = spec_of("mvae")
    data = load_data(spec)
    assert {s: len(d) for s, d in data.items()} == {"train": 1000, "validation": 500, "test": 500, "reference": 500}
    hashes = {s: d.provenance["sha256"] for s, d in data.items()}
    assert len(set(hashes.values())) == 4
    seeded = load_data(changed(spec, "data", seed=1))
    assert all(d.provenance["sha256"] != hashes[s] for s, d in seeded.items())
    fewer = load_data(changed(changed(spec, "data", train_samples=10), "evaluation", num_samples=20))
    assert [len(d) for d in fewer.values()] == [10, 20, 20, 20]
    assert list(load_data(spec_of("mvae", splits=("validation",)))) == ["train", "validation"]


def test_pictures_come_from_the_evaluation_s_seed_and_only_with_test_data() -> None:
    spec = spec_of("gmrf_mcvae")
    with isolated_rng(0):
        model = build_model(spec)
    one, same, other = (figure_samples(model, s) for s in (spec, spec, changed(spec, "evaluation", seed=1)))
    assert all(torch.equal(one[m], same[m]) and not torch.equal(one[m], other[m]) for m in one)
    assert figure_samples(model, spec_of("gmrf_mcvae", splits=("validation",))) == {}


def test_latents_have_the_capacities_of_the_paper() -> None:
    for method in METHODS:
        settings = spec_of(method).params["model"]
        if method == "gmrf_mcvae":
            assert build_model(spec_of(method)).capacity() == 44
        else:
            latents = settings["latent_dim"] + settings["specific_dim"]
            assert 4 * 2 * latents == 48


class Oracle(MultimodalModel):
    """Generates a further true sample, stretched by a factor about the middle of the data's range."""

    def __init__(self, truth: Dataset, stretch: float) -> None:
        super().__init__(truth.modalities)
        self.samples = {m: 0.5 + stretch * (x - 0.5) for m, x in truth.data.items()}

    def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
        return Loss(torch.zeros(()))

    def generate(self, num_samples: int = 1, *, given: Any = None, **options: Any) -> dict[str, Tensor]:
        return {m: x[:num_samples] if given is None else x[None] for m, x in self.samples.items()}

    def log_likelihood(self, batch: Mapping[str, Tensor], **options: Any) -> Tensor:
        return torch.zeros(self.check_batch(batch))


def test_a_perfect_model_is_measured_at_the_noise_floor_and_outputs_are_clipped() -> None:
    spec = changed(spec_of("mvae"), "evaluation", num_samples=200)
    data = load_data(spec)
    perfect, stretched = (
        {m.name: m.value for m in evaluate(Oracle(data["reference"], s), data, spec)} for s in (1.0, 3.0)
    )
    assert list(perfect) == list(stretched)
    for distance in ("histogram", "sliced", "transport"):
        floor = perfect[f"test/floor/true/{distance}/mean"]
        assert floor > 0
        assert floor == stretched[f"test/floor/true/{distance}/mean"]
        outputs = ("mean",) if distance == "transport" else ("mean", "sample", "unclipped")
        for name in (f"test/{task}/{o}/{distance}/mean" for task in ("unconditional", "conditional") for o in outputs):
            assert perfect[name] == pytest.approx(floor, rel=1e-5)
    # A coordinate stretched to three times its range is 1/2 from the truth on average, and 1/6 once clipped.
    for task in ("unconditional", "conditional"):
        clipped, free = (stretched[f"test/{task}/{o}/sliced/mean"] for o in ("mean", "unclipped"))
        assert perfect[f"test/{task}/mean/sliced/mean"] < clipped < 0.6 * free
        assert stretched[f"test/{task}/sample/sliced/mean"] == clipped
    assert all(name.split("/")[0] == "test" or "/mean/" in name for name in perfect)


def test_validation_alone_is_measured_without_test_data() -> None:
    spec = changed(spec_of("mvae", splits=("validation",)), "evaluation", num_samples=50)
    data = load_data(spec)
    found = evaluate(Oracle(data["validation"], 1.0), data, spec)
    assert {m.name.split("/")[0] for m in found} == {"validation"}
    # Rounding of the projections in single precision is all that is left.
    assert [m.value for m in found] == pytest.approx([0.0] * len(found), abs=1e-4)
    assert {m.num_samples for m in found} == {50}


def test_initialisation_is_the_seed_s() -> None:
    states = []
    for seed in (0, 0, 1):
        with isolated_rng(seed):
            states.append(build_model(spec_of("gmrf_mcvae")).state_dict())
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert not all(torch.equal(states[0][k], states[2][k]) for k in states[0])


@pytest.mark.parametrize("profile", [p for p in PROFILES if p != "overnight"])
def test_plans(profile: str) -> None:
    table = plan("table1", profile)
    assert tuple(table) == METHODS
    seeds = {"paper": 3, "quick": 1, "smoke": 2}[profile]
    for method, specs in table.items():
        assert [s.seed for s in specs] == list(range(seeds))
        assert {(s.paper, s.dataset, s.method, s.profile) for s in specs} == {("gmrf_mcvae", "copula", method, profile)}
        assert {s.params["model"]["beta"] for s in specs} == {chosen_betas()[method]}
    assert [len(s) for s in plan("table1", profile, 5).values()] == [5] * 5
    sweep = [spec for specs in plan("table1-sweep", profile).values() for spec in specs]
    assert {(s.method, s.params["model"]["beta"]) for s in sweep} == {(m, b) for m in METHODS for b in BETAS}
    assert all(s.params["evaluation"]["splits"] == ["validation"] for s in sweep)
    ablations = plan("table1-ablations", profile)
    assert tuple(ablations) == tuple(VARIANTS)
    base = table["gmrf_mcvae"][0]
    assert len({s.key for specs in ablations.values() for s in specs} | {base.key}) == len(VARIANTS) + 1
    assert [s for specs in plan("fig2", profile).values() for s in specs] == [specs[0] for specs in table.values()]
    assert plan("table4", profile) == {}
    with pytest.raises(KeyError):
        plan("table10", profile)


def test_the_paper_profile_is_short_enough_for_a_night() -> None:
    for name in ("table1", "table1-sweep", "table1-ablations", "fig2", "fig5", "fig6", "scaling"):
        with pytest.raises(NoProfileError, match=r"^has no profile 'overnight'; it has paper, quick, smoke$"):
            plan(name, "overnight")


def test_ablations_change_what_they_say() -> None:
    base = spec_of("gmrf_mcvae", "paper").params
    for name, (method, changes) in VARIANTS.items():
        assert method == "gmrf_mcvae"
        (spec,) = plan("table1-ablations", "paper")[name]
        differs = {
            k for part in ("model", "training", "data") for k in base[part] if base[part][k] != spec.params[part][k]
        }
        assert differs == set(changes)
    (spec,) = plan("table1-ablations", "paper")["50,000 training samples"]
    steps = [p["training"]["epochs"] * p["data"]["train_samples"] for p in (base, spec.params)]
    assert steps[0] == steps[1]


def test_estimates_grow_with_the_work() -> None:
    one, more = spec_of("mvae", "paper", epochs=10), spec_of("mvae", "paper", epochs=20)
    assert 0 < estimate(one)[0] < estimate(more)[0]
    assert estimate(one)[1] > 0


def test_wrong_calls() -> None:
    with pytest.raises(ValueError, match="unknown method 'vae'; one of mvae, "):
        copula_spec("vae", 0, "smoke")
    with pytest.raises(ValueError, match=r"mvae has no setting \['prior'\]; it has \['beta'"):
        copula_spec("mvae", 0, "smoke", prior="standard")
    for value in ("yes", 2, None, 0):
        with pytest.raises(ValueError, match=f"subsampling is {value!r}, must be True or False"):
            copula_spec("mvae", 0, "smoke", subsampling=value)


def test_chosen_betas_are_among_the_finalists() -> None:
    assert set(chosen_betas()) == set(finalist_betas()) == set(METHODS)
    assert all(chosen_betas()[m] in finalist_betas()[m] for m in METHODS)
    assert all(set(betas) < set(BETAS) for betas in finalist_betas().values())


def test_betas_are_those_that_the_committed_sweep_chooses() -> None:
    lookup = Sources(None, FIGURES).record
    specs = [s for specs in plan("table1-sweep", "paper").values() for s in specs]
    absent = [s.label for s in specs if lookup(s) is None]
    assert absent == []
    finalists, chosen = choose_betas(results_of("gmrf_mcvae/table1-sweep", "paper", lookup))
    assert finalists == {m: list(b) for m, b in finalist_betas().items()}
    assert chosen == dict(chosen_betas())
    assert RUNG_EPOCHS["paper"][0] < RUNG_EPOCHS["paper"][1]


def test_table1_says_what_the_rows_below_were_measured_with() -> None:
    lookup = Sources(None, FIGURES).record
    others = {s for a in ("table1-ablations", "table1-baselines") for specs in plan(a, "paper").values() for s in specs}
    recorded = [r for s in others if (r := lookup(s)) is not None]
    for table in table1(results_of("gmrf_mcvae/table1", "paper", lookup)):
        (note,) = (n for n in table.notes if n.startswith("The rows with one setting changed are of further records: "))
        assert f" {len(recorded)} records" in note
        assert all(r.environment["commit"][:7] in note for r in recorded)
