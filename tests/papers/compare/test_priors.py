"""One latent structure at a time: known answers for each, the same autoencoders for all, the table from end to end."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import repro
from repro.artifacts.inventory import find
from repro.artifacts.render import plan, unique
from repro.cli.main import main
from repro.datasets.base import Dataset, ModalitySpec
from repro.engine.store import RunStore
from repro.experiment import Results
from repro.papers import experiment_of
from repro.papers.compare.best import best_note
from repro.papers.compare.priors.advice import advice, dependence
from repro.papers.compare.priors.experiment import Priors
from repro.papers.compare.priors.settings import LABELS, ORACLE, POLYMNIST, PROFILES, RHOS, priors_spec, structure_of
from repro.papers.compare.priors.structures import Structure, build_structure
from repro.papers.compare.priors.tables import (
    GUIDED,
    REFERENCES,
    copula_runs,
    correlated_runs,
    digits_runs,
    polymnist_runs,
    priors_correlated,
    priors_polymnist,
    triples_runs,
)
from repro.records import Metric, Record
from repro.report.cells import Cell
from repro.report.tables import Column, Row

NAMES, DIM, NUMBER = ("a", "b", "c"), 4, 4000
RHO = 0.8
FIT = {"epochs": 30, "batch_size": 200, "learning_rate": 3e-3}
CHAINS = {"sampler": "metropolis", "num_chains": 500, "burn_in": 300, "thinning": 30, "num_kept": 4}
SETTINGS = {
    "independent": {},
    "gaussian": {},
    "canonical": {"held_out": 0.5},
    "neighbour": {},
    "laplace": {"training": FIT},
    "neural": {"widths": [32, 32], "confinement": 1.0, "chains": CHAINS, "training": FIT},
    "score": {
        "sde": [1.0, 5.0],
        "score": {"width": 16, "multipliers": [1, 2], "blocks": 1, "decay": 0.99},
        "sampling": {"sampler": "dpm_solver", "num_steps": 15},
        "training": FIT,
    },
}
RUNS = (copula_runs, triples_runs, digits_runs, correlated_runs, polymnist_runs)
SETTINGS["score_guided"] = {**SETTINGS["score"], "energy": [32, 32], "gamma": 1.0}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def correlation() -> torch.Tensor:
    """Of all latents: RHO between the same coordinate of every two modalities, with the sign of b turned."""
    signs = torch.tensor([1.0, -1.0, 1.0])
    between = RHO * torch.outer(signs, signs)
    between.fill_diagonal_(1.0)
    return torch.kron(between, torch.eye(DIM))


def encodings(noise: float = 0.3) -> Dataset:
    """Encodings whose draws are Gaussian of unit variance and :func:`correlation`, some of it from q's own noise."""
    matrix = correlation() - noise**2 * torch.eye(len(NAMES) * DIM)
    mean = torch.randn(NUMBER, len(matrix), generator=generator()) @ torch.linalg.cholesky(matrix).T
    mean = mean.unflatten(-1, (len(NAMES), DIM))
    spec = ModalitySpec((len(NAMES), DIM))
    data = {"mean": mean, "scale": torch.full_like(mean, noise)}
    return Dataset("encodings", "train", {"mean": spec, "scale": spec}, data)


LONG = [pytest.param(n, marks=pytest.mark.slow) if n.startswith(("score", "neural")) else n for n in SETTINGS]


@pytest.fixture(scope="module", params=LONG)
def fitted(request: pytest.FixtureRequest) -> tuple[str, Structure]:
    structure = build_structure(request.param, NAMES, DIM, SETTINGS[request.param])
    with torch.no_grad():
        assert structure.fit(encodings(), 0) > 0
    return request.param, structure


# Twice what sampling, a fit of 4,000 points and the networks' own error leave; the exact ones are held to less.
TOLERANCE = {"laplace": 0.1, "neural": 0.2, "score": 0.15, "score_guided": 0.15}


@torch.no_grad()
def test_joint_draws_have_the_covariance_of_the_encodings(fitted: tuple[str, Structure]) -> None:
    name, structure = fitted
    z = structure.sample(NUMBER, generator())
    assert z.shape == (NUMBER, len(NAMES), DIM)
    expected = correlation()
    if name == "independent":
        expected = torch.eye(len(expected))
    tolerance = TOLERANCE.get(name, 6 / math.sqrt(NUMBER))
    found = z.flatten(1).T.corrcoef()
    assert (found - expected).abs().max() < tolerance
    assert z.flatten(1).std(0).log().abs().max() < 2 * tolerance
    assert z.flatten(1).mean(0).abs().max() < 2 * tolerance


@torch.no_grad()
def test_conditional_draws_follow_what_is_observed(fitted: tuple[str, Structure]) -> None:
    """Given the first: the others correlate with it by RHO, and with each other; itself it stays to the last bit."""
    name, structure = fitted
    values = torch.randn(2000, len(NAMES), DIM, generator=generator(1))
    z = structure.conditional(values, [0], generator(2))
    assert torch.equal(z[:, 0], values[:, 0])
    found = z.flatten(1).T.corrcoef()
    across = {k: found[:DIM, k * DIM : (k + 1) * DIM].diagonal() for k in (1, 2)}
    if name == "independent":
        assert all(x.abs().max() < 0.15 for x in across.values())
        return
    # A few hundred steps leave the networks' error; a joint score sees observed latents diffused, so that what is drawn
    # depends on them less than it should; guidance counts them once more.
    low, high = RHO - (0.15 if name in TOLERANCE else 0.1), 0.97 if name == "score_guided" else RHO + 0.12
    assert bool(((across[1] < -low) & (across[1] > -high)).all()), across[1]
    assert bool(((across[2] > low) & (across[2] < high)).all()), across[2]


@torch.no_grad()
def test_a_fit_is_a_function_of_its_seed() -> None:
    drawn = []
    for seed in (3, 3, 4):
        structure = build_structure("laplace", NAMES, DIM, {"training": {**FIT, "epochs": 1}})
        structure.fit(encodings(), seed)
        drawn.append(structure.sample(5, generator()))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_unknown_structures_methods_and_datasets_are_named() -> None:
    with pytest.raises(ValueError, match="unknown structure 'flow'; one of independent, gaussian, laplace"):
        build_structure("flow", NAMES, DIM, {})
    with pytest.raises(ValueError, match="unknown method 'covae'; one of prior_independent"):
        priors_spec("covae", 0, "smoke")
    with pytest.raises(ValueError, match="unknown dataset 'polymnist'; one of copula, mnist_triples"):
        priors_spec("prior_score", 0, "smoke", "polymnist")
    with pytest.raises(ValueError, match="unknown reading 'glyph'; one of image, digit"):
        priors_spec("prior_score", 0, "smoke", "mnist_triples", alike="glyph")
    with pytest.raises(ValueError, match=r"rho is 1, must be in \[0, 1\)"):
        priors_spec("prior_score", 0, "smoke", "correlated_mnist3", rho=1)
    with pytest.raises(ValueError, match="copula takes seed, not rho"):
        priors_spec("prior_score", 0, "smoke", rho=0.5)
    with pytest.raises(ValueError, match="extended_polymnist takes nothing, not modalities"):
        priors_spec("prior_score", 0, "smoke", POLYMNIST, modalities=5)
    with pytest.raises(ValueError, match="no structure is fitted to the encodings yet"):
        Priors().build(priors_spec("prior_gaussian", 0, "smoke")).generate(2)


def test_a_fitted_structure_is_not_lost_by_saving(tmp_path: Path) -> None:
    model = Priors().build(priors_spec("prior_gaussian", 0, "smoke"))
    model.save_pretrained(tmp_path / "autoencoders")
    again = repro.load_model(tmp_path / "autoencoders")
    assert all(torch.equal(x, again.state_dict()[k]) for k, x in model.state_dict().items())
    names, dim = list(model.modalities), model.autoencoders.latent_dim
    mean = torch.randn(50, len(names), dim, generator=generator())
    spec = ModalitySpec((len(names), dim))
    drawn = Dataset("encodings", "train", {"mean": spec, "scale": spec}, {"mean": mean, "scale": torch.ones_like(mean)})
    model.fit(build_structure("gaussian", names, dim, {}), drawn, 0)
    assert model.generate(2)
    with pytest.raises(ValueError, match="was changed after it was built: fitted is True"):
        model.save_pretrained(tmp_path / "fitted")
    assert not (tmp_path / "fitted").exists()


# The specifications


@pytest.mark.parametrize("dataset", PROFILES)
def test_runs_differ_in_the_structure_alone(dataset: str) -> None:
    for profile in PROFILES[dataset]:
        specs = {m: priors_spec(m, 0, profile, dataset) for m in LABELS}
        for part in ("model", "training", "data", "evaluation"):
            assert len({str(s.params[part]) for s in specs.values()}) == 1
        assert len({s.key for s in specs.values()}) == len(LABELS)
        assert all(type(experiment_of(s)) is Priors for s in specs.values())
        fits = {str(s.params["structure"]["training"]) for s in specs.values() if "training" in s.params["structure"]}
        assert len(fits) == 1
        for spec in specs.values():
            build_structure(structure_of(spec), ("m0", "m1"), 4, spec.params["structure"])
            assert 0 < Priors().cost(spec).seconds < 48 * 3600


def test_best_of_a_column_is_said_only_beyond_two_standard_errors() -> None:
    column = Column("k", "exact", "lower", 1, "Joint")

    def said(*values: tuple[float, ...]) -> str | None:
        return best_note(column, [Row(f"row {i}", {"k": Cell(None, v)}) for i, v in enumerate(values)])

    assert said((1.0, 1.1, 0.9), (2.0, 2.1, 1.9)) == (
        "Joint, exact: row 0 is the best, 1.0 against 2.0 of row 1, by more than two standard errors."
    )
    assert said((2.0, 2.6, 1.4), (1.6, 2.2, 1.9), (9.0, 9.1, 9.2)) == (
        "Joint, exact: row 1 is the best, 1.9 against 2.0 of row 0, from which it does not differ by more than two "
        "standard errors."
    )
    assert "tells of no spread" in said((1.0,), (2.0,))
    assert said((1.0, 1.1)) is None
    assert said((2.0, 1.0), (9.0, 9.1), (1.0, 2.0), (1.5, 1.5)) == (
        "Joint, exact: row 0, row 2 and row 3 share the best mean, 1.5."
    )
    assert said((1.0,), (1.0,)) == "Joint, exact: row 0 and row 1 share the best mean, 1.0."
    assert said((0.1 + 0.2,), (0.3,)) == "Joint, exact: row 0 and row 1 share the best mean, 0.3."
    assert said((1.002,), (1.004,)) == (
        "Joint, exact: row 0 is the best, 1.002 against 1.004 of row 1; one seed, which tells of no spread."
    )


# The smoke profile, end to end


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("priors")
    command = ["run", "compare/priors-copula", "--profile", "smoke", "--executor", "inline", "--device", "cpu"]
    assert main([*command, "--runs", str(root / "runs"), "--results", str(root / "results")]) == 0
    return root


def records(root: Path) -> dict[str, list[Record]]:
    store, found = RunStore(root / "runs"), {}
    for spec in unique(plan(find("compare/priors-copula"), "smoke")):
        found.setdefault(spec.method, []).append(store.record(spec))
    return found


def test_autoencoders_are_the_same_bit_for_bit(smoke: Path) -> None:
    store = RunStore(smoke / "runs")
    by_seed: dict[int, list[dict[str, torch.Tensor]]] = {}
    for spec in unique(plan(find("compare/priors-copula"), "smoke")):
        by_seed.setdefault(spec.seed, []).append(load_file(store.directory(spec) / "weights.safetensors"))
    assert len(by_seed) == 2
    for weights in by_seed.values():
        assert len(weights) == len(LABELS)
        for other in weights[1:]:
            assert set(other) == set(weights[0])
            assert all(torch.equal(x, weights[0][name]) for name, x in other.items())
    first, second = (w[0] for w in by_seed.values())
    assert any(not torch.equal(x, second[name]) for name, x in first.items())


def test_structures_differ_and_what_is_of_the_autoencoders_does_not(smoke: Path) -> None:
    found = {m: rs[0] for m, rs in records(smoke).items()}
    exact = "test/conditional/mean/transport/mean"
    assert len({r.metric(exact).value for r in found.values()}) == len(LABELS)
    for name in REFERENCES["copula"]["Reconstructions"].values():
        assert len({r.metric(name).value for r in found.values()}) == 1
    for method, record in found.items():
        names = {m.name for m in record.metrics}
        assert {"fit/seconds", "sampling/conditional/seconds"} <= names
        assert ("sampling/joint/seconds" in names) == (method != GUIDED)
        assert record.metric("fit/seconds").value >= 0


def test_table_and_figure_through_the_command_line(smoke: Path) -> None:
    folder = smoke / "results" / "compare" / "smoke"
    text = (folder / "priors-copula.md").read_text()
    for label in (*LABELS.values(), "Reconstructions", "Two true samples"):
        assert f"| {label} | obtained |" in text
    assert "Profile smoke; seeds 0, 1; 16 records" in text
    value = sum(r.metric("test/conditional/mean/transport/mean").value for r in records(smoke)["prior_laplace"]) / 2
    assert f"{value:.1f}" in next(line for line in text.splitlines() if line.startswith("| Asymmetric Laplace"))
    oracle = next(line for line in text.splitlines() if line.startswith(f"| {LABELS[ORACLE]}"))
    assert "**" not in oracle
    command = ["run", "compare/priors-copula-cost", "--profile", "smoke", "--executor", "inline", "--device", "cpu"]
    assert main([*command, "--runs", str(smoke / "runs"), "--results", str(smoke / "results")]) == 0
    assert (folder / "priors-copula-cost.png").stat().st_size > 10_000


def test_correlated_images_are_measured_at_every_correlation(tmp_path: Path) -> None:
    """Two structures, one of which draws nothing by itself where guidance is all that it adds."""
    methods = ("prior_gaussian", "prior_score_guided")
    runs, rows = tmp_path / "runs", plan(find("compare/priors-correlated"), "smoke")
    specs = [s for found in rows.values() for s in found]
    assert {s.params["data"]["rho"] for s in specs} == {0.3, 0.6, 0.9}
    assert {s.dataset for s in specs} == {"correlated_mnist3"}
    command = ["run", "compare-priors-correlated", "--profile", "smoke", "--executor", "inline", "--device", "cpu"]
    for spec in specs:
        if spec.method in methods and spec.seed == 0 and spec.params["data"]["rho"] == 0.9:
            assert main([*command, "--key", spec.key, "--runs", str(runs)]) == 0
            names = {m.name for m in RunStore(runs).record(spec).metrics}
            assert {"test/images/given-one", "test/images/given-two", "test/images/data"} <= names
            assert ("test/images/joint" in names) == (spec.method != GUIDED)
    (table,) = priors_correlated(
        Results("priors-correlated", "smoke", None, rows, RunStore(runs).record, lambda spec: {})
    )
    assert table.caption.endswith("correlated MNIST of three modalities, ρ = 0.9 between every two")
    cells = {row.label: row.cells for row in table.rows}
    assert cells["Gaussian MRF"]["test/images/joint"].mean is not None
    assert cells[LABELS[GUIDED]]["test/images/joint"].reason.startswith("guidance acts where something is observed")
    assert cells["Score model"]["test/images/joint"].reason == "not run"
    assert table.floors[1].cells["test/images/given-two"].mean > 0.3  # true images are correlated


def test_digits_of_three_modalities_are_measured(tmp_path: Path) -> None:
    """From the command to the table, which has what images of digits are judged by, and its ceilings."""
    methods = ("prior_neighbour", "prior_score_guided")
    runs, rows = tmp_path / "runs", plan(find("compare/priors-polymnist"), "smoke")
    specs = [s for found in rows.values() for s in found if s.seed == 0 and s.method in methods]
    command = ["run", "compare-priors-polymnist", "--profile", "smoke", "--executor", "inline", "--device", "cpu"]
    for spec in specs:
        assert main([*command, "--key", spec.key, "--runs", str(runs)]) == 0
    store = RunStore(runs)
    found = {s.method: {m.name: m for m in store.record(s).metrics} for s in specs}
    for method, names in found.items():
        assert ("test/unconditional/coherence" in names) == (method != GUIDED)
        # Two modalities are drawn given one, one given two; a mean over what is observed beside them.
        assert sum(n.startswith("test/given-one/coherence/") for n in names) == 6
        assert sum(n.startswith("test/given-rest/coherence/") for n in names) == 3
        assert names["test/given-rest/coherence"].num_samples == 60
        assert names["test/true/accuracy"].value > 0.9
    for name in REFERENCES[POLYMNIST]["Reconstructions"].values():
        assert len({names[name].value for names in found.values()}) == 1
    table = priors_polymnist(Results("priors-polymnist", "smoke", None, rows, store.record, lambda spec: {}))
    assert table.caption.endswith("the first three modalities of Extended PolyMNIST")
    assert any("residual networks of 2 and 4 and 4 channels" in note for note in table.notes)
    floors = {row.label: row.cells for row in table.floors}
    own = found["prior_neighbour"]
    assert floors["True images"]["test/given-one/coherence"].mean == own["test/true/accuracy"].value
    assert floors["True images"]["test/unconditional/coherence"].mean == own["test/true/coherence"].value
    assert floors[LABELS[ORACLE]]["test/given-rest/coherence"].mean == own["test/given-rest/coherence"].value


# Which structure to take


def measured(method: str, values: tuple[float, ...], seconds: float, **data: float) -> list[Record]:
    """Records of correlated images, a seed each, whose true images have a correlation of 0.5."""
    found = []
    for seed, value in enumerate(values):
        metrics = {"test/images/joint": value, "test/images/data": 0.5, "sampling/joint/seconds": seconds}
        spec = priors_spec(method, seed, "smoke", "correlated_mnist3", **data)
        parts = [Metric(n, v, "1", 10, "made up") for n, v in metrics.items()]
        found.append(Record(spec, parts, {"device": "cpu"}, {}, "0" * 64, 1.0, 1.0))
    return found


def test_the_cheapest_of_those_that_none_is_shown_to_be_better_than_is_recommended() -> None:
    """Near the true images' value is good, above it no better; the oracle takes no part, however near it is."""
    records = {
        "Score model": measured("prior_score", (0.53, 0.51, 0.495), 2.0),  # 0.015 from what is true
        "Gaussian MRF": measured("prior_gaussian", (0.48, 0.47, 0.52), 0.01),  # 0.0233, within two standard errors
        "Independent Gaussians": measured("prior_independent", (0.01, 0.02, 0.01), 0.001),
        "Neural MRF": measured("prior_neural", (0.9, 0.92, 0.91), 1.0),  # too large
        LABELS[ORACLE]: measured(ORACLE, (0.5, 0.5, 0.5), 0.0001),
    }
    (text,) = advice("correlated_mnist3", records)
    assert text == (
        "Joint samples: take Gaussian MRF, correlation read from images 0.490 at 0.01 s for 1,000 draws; Score model "
        "has 0.512 at 2 s, which is not better by more than two standard errors; true images have 0.500."
    )
    r_hat = Metric("test/unconditional/r_hat", 1.3, "1", 10, "made up")
    unmixed = [replace(r, metrics=[*r.metrics, r_hat]) for r in measured("prior_neural", (0.5, 0.5, 0.5), 0.001)]
    assert advice("correlated_mnist3", records | {"Neural MRF": unmixed}) == [text]
    del records["Gaussian MRF"]
    (text,) = advice("correlated_mnist3", records)
    assert text.startswith("Joint samples: take Score model, correlation read from images 0.512 at 2 s")
    assert "the best, by more than two standard errors; true images" in text


def test_one_seed_recommends_nothing() -> None:
    records = {
        "Score model": measured("prior_score", (0.4,), 2.0),
        "Gaussian MRF": measured("prior_gaussian", (0.3,), 1),
    }
    (text,) = advice("correlated_mnist3", records)
    assert text == (
        "Joint samples: Score model is the best by correlation read from images, 0.400; true images have 0.500; one "
        "seed, which tells of no spread and recommends nothing."
    )
    assert advice("correlated_mnist3", {"Score model": records["Score model"]}) == []


def test_every_kind_of_data_has_a_name_of_its_own() -> None:
    kinds = [dependence(s[0].params["data"]) for runs in RUNS for s in runs("quick", None).values()]
    assert len(set(kinds)) == len(RUNS) - 1 + len(RHOS)
    assert "correlation of 0.3 between" in " ".join(kinds)
