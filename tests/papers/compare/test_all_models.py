"""All models on the same data: one budget, the same networks, known answers of the ceilings, the table end to end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from repro.artifacts.claims import claims
from repro.artifacts.inventory import find
from repro.artifacts.render import plan, unique
from repro.baselines.training_points import TrainingPoints
from repro.cli.main import main
from repro.datasets import load_dataset
from repro.datasets.base import Dataset, ModalitySpec
from repro.datasets.copula import correlation, log_density
from repro.engine.execute import execute
from repro.engine.store import RunStore
from repro.experiment import Results
from repro.networks.mlp import HiddenLayers
from repro.papers import experiment_of
from repro.papers.compare.all_models import AllModels
from repro.papers.compare.building import build_alike
from repro.papers.compare.copula.experiment import copula_spec
from repro.papers.compare.copula.tables import SCORED, copula, score, weights_runs
from repro.papers.compare.correlated_pairs.settings import pairs_spec
from repro.papers.compare.measures import likelihood
from repro.papers.compare.methods import LABELS, REGULARISED, SCORE, SHARED, chosen_weights, weights
from repro.papers.compare.polymnist.settings import polymnist_spec
from repro.papers.compare.rows import chosen_by, sweep_table, weight_of
from repro.papers.compare.skewed.experiment import skewed_spec
from repro.papers.compare.skewed.tables import HEADINGS as SKEWED_HEADINGS
from repro.papers.compare.skewed.tables import score as skewed_score
from repro.papers.compare.skewed.tables import skewed
from repro.papers.compare.triples.settings import triples_spec
from repro.papers.compare.tumours.settings import tumours_spec
from repro.records import Metric, Record, RunSpec

PLACE = {"commit": "0" * 40, "dirty": False, "device": "cpu", "device_name": "a machine", "versions": {"torch": "2"}}


def record(spec: RunSpec, values: Mapping[str, float]) -> Record:
    return Record(spec, [Metric(n, v, "1", 10, "made up") for n, v in values.items()], PLACE, {}, "0" * 64, 1.0, 1.0)


# What is run


@pytest.mark.parametrize("made", [copula_spec, skewed_spec])
@pytest.mark.parametrize("profile", ["paper", "quick", "smoke"])
def test_all_have_the_same_data_steps_and_measures(profile: str, made: Callable[..., RunSpec]) -> None:
    specs = {m: made(m, 0, profile) for m in LABELS}
    assert len({s.key for s in specs.values()}) == len(LABELS) == 14
    budgets = set()
    for m, spec in specs.items():
        training = spec.params["training"]
        stages = training.get("stages", {})
        epochs = training["epochs"] + sum(s["epochs"] for s in stages.values())
        budgets.add((epochs, training["batch_size"], training["learning_rate"]))
        assert all(set(s) == {"epochs"} and s["epochs"] > 0 for s in stages.values())
        assert ("likelihood" in spec.params["evaluation"]) == (m not in REGULARISED)
        experiment = experiment_of(spec)
        assert isinstance(experiment, AllModels)
        assert 0 < experiment.cost(spec).seconds < 3600
        assert weight_of(spec) == chosen_weights(spec.dataset)[m]
        assert weight_of(spec) in weights(m)
        other = made(m, 0, profile, weight=weights(m)[0], sweep=True)
        assert weight_of(other) == weights(m)[0]
        assert other.params["evaluation"]["split"] == "validation"
        assert "likelihood" not in other.params["evaluation"]
    assert len(budgets) == 1
    assert len({str(s.params["data"]) for s in specs.values()}) == 1


@pytest.mark.parametrize(
    "made",
    [
        copula_spec,
        skewed_spec,
        tumours_spec,
        partial(pairs_spec, rho=0.6),
        partial(triples_spec, alike="digit"),
        polymnist_spec,
    ],
)
def test_all_divergences_of_a_model_have_the_weight(made: Callable[..., RunSpec]) -> None:
    """Twice the weight is twice every divergence: JMVAE's alpha beside its beta too (erratum B5)."""
    for weight in (10.0, 1.0, 0.3, 0.1, 0.03, 0.0001):
        model = made("jmvae", 0, "smoke", weight=weight).params["model"]
        assert (model["beta"], model["alpha"]) == (weight, float(f"{weight / 10:g}"))
    covae = made("covae", 0, "smoke", weight=0.3).params["model"]
    assert covae["beta"] == 0.3
    assert made("mvtcae", 0, "smoke", weight=0.3).params["model"]["alpha"] == 5 / 6  # a share, within beta


def test_hidden_layers_are_the_same_and_latents_as_many() -> None:
    names = ("m0", "m1", "m2", "m3")
    for method in LABELS:
        model = experiment_of(spec := copula_spec(method, 0, "paper")).build(spec)
        owner = next(
            x for x in (model, *model.modules()) if {"encoders", "decoders"} <= {n for n, _ in x.named_children()}
        )
        taken = []
        for m in names:
            layers = [x for x in owner.decoders[m].modules() if isinstance(x, HiddenLayers)]
            assert [x.out_features for x in layers[0].layers] == [256, 256]
            taken.append(layers[0].layers[0].in_features)
            layers = [x for x in owner.encoders[m].modules() if isinstance(x, HiddenLayers)]
            assert [(x.in_features, x.out_features) for x in layers[0].layers] == [(2, 256), (256, 256)]
        if method in ("mmvae_plus", "dmvae"):
            assert taken == [10] * 4  # 8 shared and 2 of the modality
        else:
            assert taken in ([SHARED // 4] * 4, [SHARED] * 4)


@pytest.mark.parametrize("method", LABELS)
def test_any_modalities_can_be_given_the_networks(method: str) -> None:
    """Three coloured images and a vector in place of the two grey images of the run's dataset."""
    image = ModalitySpec((3, 28, 28), "image", (0.0, 1.0))
    modalities = {"m0": image, "m1": image, "m2": image, "m3": ModalitySpec((5,))}
    spec = pairs_spec(method, 0, "smoke", 0.6)
    own = {"latent_dims": dict.fromkeys(modalities, 2)} if "latent_dims" in spec.params["model"] else {}
    spec = replace(spec, params={**spec.params, "model": {**spec.params["model"], **own}})
    drawn = build_alike(spec, modalities).eval().generate(2, given={"m0": torch.rand(3, 3, 28, 28)})
    assert {m: tuple(x.shape) for m, x in drawn.items()} == {m: (2, 3, *s.shape) for m, s in modalities.items()}


def test_unknown_methods_are_named() -> None:
    with pytest.raises(ValueError, match="unknown method 'prior_score'; one of gmrf_mcvae, almrf"):
        copula_spec("prior_score", 0, "smoke")


# Ceilings


def test_training_points_are_the_nearest_in_what_is_given() -> None:
    data = {"a": torch.tensor([[0.0], [1.0], [2.0]]), "b": torch.tensor([[5.0], [6.0], [7.0]])}
    specs = dict.fromkeys(data, ModalitySpec((1,)))
    model = TrainingPoints(Dataset("made up", "train", specs, data))
    found = model.generate(2, given={"a": torch.tensor([[1.9], [0.2]])})
    assert found["b"].flatten().tolist() == [7.0, 5.0, 7.0, 5.0]
    assert found["a"].shape == (2, 2, 1)
    assert torch.equal(model.generate(2)["b"], data["b"][:2])
    with pytest.raises(NotImplementedError, match="not trained"):
        model.loss(data)


def test_the_copulas_density_has_its_mutual_information_for_mean() -> None:
    data = load_dataset("copula", split="test")
    values = {m: x.numpy() for m, x in data.data.items()}
    expected = sum(-0.5 * np.linalg.slogdet(correlation(j, 0.9))[1] for j in (1, 2))
    found = log_density(values, rho=0.9)
    assert abs(found.mean() - expected) < 4 * found.std() / np.sqrt(len(found))
    assert np.allclose(log_density(values, rho=0.0), 0.0, atol=1e-12)
    assert log_density(values, rho=0.8).mean() < found.mean()


class Collapsed(TrainingPoints):
    """A model whose posterior has collapsed at one point."""

    def _log_marginal(self, batch: Mapping[str, Tensor], num: int, generator: torch.Generator | None) -> Tensor:
        values = torch.zeros(len(next(iter(batch.values()))))
        values[1:2] = torch.nan
        return values


def test_a_likelihood_that_is_not_finite_is_none() -> None:
    data = load_dataset("copula", split="test").first(20)
    spec = copula_spec("almrf", 0, "smoke")
    assert likelihood(Collapsed(data), data, spec, "cpu") == []
    (found,) = likelihood(Collapsed(data), data.first(1), spec, "cpu")
    assert found.value == 0.0


# The choice of weights


def made_up(best: Mapping[str, float], without: str = "") -> Results:
    """Sweep's results in which a method's best weight is as stated; of one method a run is missing."""
    runs = weights_runs("smoke", None)

    def lookup(spec: RunSpec) -> Record | None:
        if spec.method == without and weight_of(spec) == weights(without)[0]:
            return None
        return record(spec, dict.fromkeys(SCORED, 1.0 if weight_of(spec) == best[spec.method] else 2.0))

    return Results("copula-sweep", "smoke", None, runs, lookup, lambda spec: {})


def test_the_lowest_score_chooses_and_only_of_whole_rows() -> None:
    best = {m: weights(m)[1] for m in LABELS}
    results = made_up(best)
    assert chosen_by(results, results.runs, score)[1] == best
    part = made_up(best, without="mld")
    assert chosen_by(part, part.runs, score)[1] == {m: w for m, w in best.items() if m != "mld"}
    table = sweep_table(part, "copula", "A caption", score, "The score")
    assert "DISAGREES" in table.notes[0]
    row = next(r for r in table.rows if r.label == "MLD")
    assert row.cells["0.01"].reason == "not run"
    assert row.cells["0.1"].reason == "not tried"
    unmixed = {c.caveat for row in table.rows for c in row.cells.values() if row.label == "NN-MRF MVAE" and c.n}
    assert unmixed == {"chains of which it was not recorded whether they mix"}
    assert not any(c.caveat for row in table.rows for c in row.cells.values() if row.label != "NN-MRF MVAE")
    agreeing = made_up(chosen_weights("copula"))
    assert "this agrees" in sweep_table(agreeing, "copula", "A caption", score, "The score").notes[0]


def test_a_weight_at_which_training_diverges_has_been_tried_and_is_never_chosen() -> None:
    best = {m: weights(m)[1] for m in LABELS}
    known = made_up(best, without="mld")
    (lost,) = (s for (s,) in known.runs.values() if known.record(s) is None)
    results = replace(known, diverged=lambda spec: "epoch 1: the loss is not finite" if spec == lost else "")
    assert chosen_by(results, results.runs, score)[1] == best
    table = sweep_table(results, "copula", "A caption", score, "The score")
    row = next(r for r in table.rows if r.label == "MLD")
    assert row.cells[f"{weight_of(lost):g}"].reason == "diverged"
    assert results.divergences().startswith("Training diverged, so that there are no values: ")
    assert "seed 0 (epoch 1: the loss is not finite)" in results.divergences()
    everything = replace(known, lookup=lambda spec: None, diverged=lambda spec: "diverged")
    assert chosen_by(everything, everything.runs, score)[1] == {}


# The smoke profile, end to end


FEW = ("gmrf_mcvae", "almrf", "sbm_rae", "mvae")


def test_skewed_copula_is_measured_by_tails_and_the_exact_distance(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    found = {m: execute(skewed_spec(m, 0, "smoke"), store, device="cpu") for m in FEW}
    for method, own in found.items():
        names = {m.name for m in own.metrics}
        assert set(SKEWED_HEADINGS) - {"test/log_likelihood"} <= names
        assert ("test/log_likelihood" in names) == (method not in REGULARISED)
        assert {f"test/neighbour/{x}" for x in ("tail-true/mean", "sliced", "transport/mean")} <= names
    for name in ("test/neighbour/tail-true/mean", "test/floor/true/transport/mean", "test/floor/true/tail-own/mean"):
        assert len({r.metric(name).value for r in found.values()}) == 1
    rows = {m: [r.spec] for m, r in found.items()}
    lookup = {r.spec: r for r in found.values()}.get
    first, costs = skewed(Results("skewed", "smoke", None, rows, lookup, lambda spec: {}))
    assert [r.label for r in first.rows] == [LABELS[m] for m in FEW]
    assert [r.label for r in first.floors] == ["Nearest training points", "True data"]
    assert first.floors[0].cells["test/unconditional/mean/sliced"].reason == "no such thing"
    assert costs.rows[0].cells["training"].mean > 0
    sweep = execute(skewed_spec("sbm_rae", 0, "smoke", weight=0.01, sweep=True), store, device="cpu")
    assert skewed_score(sweep) > 0
    stated = [c for c in claims("compare") if c.artifact == "compare/skewed"]
    assert len(stated) == 2
    assert all(c.rule.get("row", "almrf") in found for c in stated)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("all")
    command = ["run", "compare-copula", "--profile", "smoke", "--seeds", "1", "--executor", "inline", "--device", "cpu"]
    assert main([*command, "--runs", str(root / "runs"), "--results", str(root / "results")]) == 0
    return root


def records(root: Path) -> dict[str, Record]:
    store = RunStore(root / "runs")
    return {s.method: store.record(s) for s in unique(plan(find("compare/copula"), "smoke", 1))}


def test_every_model_is_a_row_and_says_what_it_lacks(smoke: Path) -> None:
    text = (smoke / "results" / "compare" / "smoke" / "copula.md").read_text()
    lines = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if "| obtained |" in line}
    for label in (*LABELS.values(), "Nearest training points", "True data"):
        assert label in lines
    assert "a regularised autoencoder has no likelihood" in text
    assert "2 epochs of all stages together (8 steps of 100)" in text
    assert "The sweep on validation data is not recorded: make compare-copula-sweep PROFILE=smoke" in text


def test_records_have_what_the_table_shows(smoke: Path) -> None:
    found = records(smoke)
    for method, own in found.items():
        names = {m.name for m in own.metrics}
        assert ("test/log_likelihood" in names) == (method not in REGULARISED)
        assert own.metric("model/parameters").value > 1000
        assert own.metric("sampling/joint/seconds").value > 0
        assert ("test/unconditional/r_hat" in names) == (method == "nnmrf")
    # What is of the data alone is the same in all records.
    for name in ("test/neighbour/transport/mean", "test/floor/true/transport/mean", "test/log_density"):
        assert len({r.metric(name).value for r in found.values()}) == 1
    assert len({r.metric("test/unconditional/mean/sliced/mean").value for r in found.values()}) == len(LABELS)


def test_the_table_says_how_the_best_differs_from_the_second(smoke: Path) -> None:
    own = records(smoke)
    runs = {m: [copula_spec(m, s, "smoke") for s in range(3)] for m in LABELS}

    def lookup(spec: RunSpec) -> Record | None:
        if spec.params["evaluation"]["split"] == "validation":
            return None
        ahead = {"covae": 0.5, "nnmrf": 0.1}.get(spec.method, 1.0)
        shifted = {m.name: m.value * ahead * (1 + 1e-3 * spec.seed) for m in own["covae"].metrics}
        return record(spec, shifted | ({"test/unconditional/r_hat": 1.5} if spec.method == "nnmrf" else {}))

    first, costs = copula(Results("copula", "smoke", None, runs, lookup, lambda spec: {}))
    said = [n for n in first.notes if n.startswith("Joint, exact: CoVAE is the best")]
    assert len(said) == 1
    assert said[0].endswith("by more than two standard errors.")
    # Samples from chains that do not mix are not set against others, nor those of the same field, clamped.
    row = next(r for r in first.rows if r.label == LABELS["nnmrf"])
    for task in ("unconditional", "conditional"):
        caveat = row.cells[f"test/{task}/mean/transport/mean"].caveat
        assert caveat.startswith("chains that do not mix (largest split")
    assert row.cells["test/reconstruction/mean/transport/mean"].caveat == ""
    assert any(n.startswith("Given one modality, exact: CoVAE is the best") for n in first.notes)
    # Nor is the likelihood of a score model, whose estimate is too high in the mean.
    signed = {r.label for r in first.rows if "random signs" in r.cells["test/log_likelihood"].caveat}
    assert signed == {LABELS[m] for m in SCORE}
    assert {r.label for r in costs.rows} == set(LABELS.values())


def test_claims_name_rows_and_metrics_that_there_are(smoke: Path) -> None:
    found, rows = records(smoke), plan(find("compare/copula"), "smoke")
    stated = [c for c in claims("compare") if c.artifact == "compare/copula"]
    assert len(stated) == 6
    for c in stated:
        assert c.rule["row"] in rows
        assert set(c.rule.get("among", ())) <= set(rows)
        for name in c.rule["metrics"]:
            assert found[c.rule["row"]].metric(name).value > 0
