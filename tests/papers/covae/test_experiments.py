"""CoVAE's experiments: measures by hooks, specifications, small runs of each kind, tables and figures from records."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from repro.artifacts.render import unique
from repro.datasets.base import Dataset, ModalitySpec
from repro.metrics.correlation import canonical_correlations
from repro.model import isolated_rng
from repro.networks.cost import count_parameters
from repro.papers import paper
from repro.papers.covae.architecture.tables import architectures
from repro.papers.covae.building import build
from repro.papers.covae.correlated_mnist.evaluation import POINTS, SAMPLES, image_samples
from repro.papers.covae.correlated_mnist.experiment import CorrelatedMNIST, image_spec
from repro.papers.covae.correlated_mnist.figures import _look, against_rho, decomposition, image_grid
from repro.papers.covae.evaluation import null_correlation
from repro.papers.covae.measures import (
    calibration,
    decoder_correlation,
    decoder_inputs,
    first_layer,
    latent_means,
    predictive_deviation,
)
from repro.papers.covae.omics.evaluation import feature_correlations, omics_samples
from repro.papers.covae.omics.experiment import Omics, omics_spec
from repro.papers.covae.omics.figures import violins
from repro.papers.covae.omics.tables import _ranks, library_table, omics_tables
from repro.papers.covae.settings import LABELS, METHODS
from repro.records import Metric, Record, RunSpec
from repro.training import train
from tests.support.experiments import (
    build_model,
    evaluate,
    figure_samples,
    render,
    results_of,
    training_settings,
)
from tests.support.linear_gaussian import linear_covae, linear_gaussian

plan = paper("covae").plan


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Measures


def test_decoder_inputs_are_what_the_first_layers_take() -> None:
    exact = linear_covae()
    model, x = exact.model, exact.data(7)
    z = decoder_inputs(model, {"a": x["a"]}, num_samples=3, generator=generator())
    expected = model.latents(3, {"a": x["a"]}, generator())
    assert all(torch.equal(z[m], expected[m].detach()) for m in "ab")
    assert not any(d._forward_pre_hooks for m in model.decoders.values() for d in m.modules())
    network = nn.Sequential(nn.ReLU(), nn.Sequential(nn.Linear(2, 3)), nn.Linear(3, 1))
    assert first_layer(network) is network[1][0]
    with pytest.raises(ValueError, match="no layer with parameters"):
        first_layer(nn.ReLU())


def test_shared_latents_have_correlation_one_and_covae_that_of_its_prior() -> None:
    """The decoders' inputs given a: z_a has unit variance over the data, so the correlation is the prior's own."""
    exact = linear_covae()
    x = exact.data(4000)
    # The mean of the true correlations 0.8 and 0.5; the standard error is about 0.01.
    for given in (["a"], ["b"], ["a", "b"]):
        found = decoder_correlation(exact.model, x, given, generator=generator())
        assert found == pytest.approx(0.65, abs=0.05), given
    for method in ("mvae", "jmvae", "mvtcae"):
        shared = linear_gaussian(method)
        y = shared.data(200)
        assert decoder_correlation(shared.model, y, ["a"], generator=generator()) == pytest.approx(1.0, abs=1e-6)
    private = linear_gaussian("mmvae_plus")
    # Of four inputs two are shared and two are private: one half, and the bias of the sample.
    found = decoder_correlation(private.model, private.data(4000), ["a"], generator=generator())
    assert found == pytest.approx(0.5, abs=0.05)


def test_deviations_of_the_observed_and_of_the_missing_modality() -> None:
    exact = linear_covae()
    found = predictive_deviation(exact.model, exact.data(40), "a", num_samples=400, generator=generator())
    variance = exact.model.encoders["a"].log_variance.detach().exp()
    rho = torch.tensor([0.8, 0.5])
    # The standard deviation of 400 samples has a standard error of 3.5%; the mean of 80 of them of 0.4%.
    assert found["a"] == pytest.approx(float(variance.sqrt().mean()), rel=0.02)
    assert found["b"] == pytest.approx(float((1 - rho**2 + rho**2 * variance).sqrt().mean()), rel=0.02)
    with pytest.raises(ValueError, match="1 samples have no standard deviation"):
        predictive_deviation(exact.model, exact.data(4), "a", num_samples=1)


def test_calibration_of_an_exact_model_and_of_shared_latents() -> None:
    exact = linear_covae()
    found = calibration(exact.model, exact.data(2000), "a", "b", generator=generator())
    # Draws of the joint posterior are, over the data, draws of the predictive distribution; 4,000 values, dependent
    # within a point: a standard error of 0.007 at most.
    assert found["latent"] == pytest.approx(0.9, abs=0.028)
    assert 0 < found["mean"] < 0.9  # the decoder's mean leaves the noise of the data out
    shared = linear_gaussian("mvae")
    own = calibration(shared.model, shared.data(2000), "a", "b", generator=generator())
    assert own["latent"] == pytest.approx(0.9, abs=0.028)


def test_latents_that_classifiers_read() -> None:
    exact = linear_covae()
    x = exact.data(5)
    assert torch.equal(latent_means(exact.model, x), exact.model.posterior(x).mean)
    assert torch.equal(latent_means(exact.model, {"b": x["b"]}), exact.model.encoders["b"](x["b"])[0])
    mixture = linear_gaussian("mmvae")
    y = mixture.data(5)
    expected = torch.stack([mixture.model.moments(m, y[m])[0] for m in y]).mean(0)
    torch.testing.assert_close(latent_means(mixture.model, y), expected)


def test_features_that_are_constant() -> None:
    true = torch.randn(20, 4, generator=generator())
    predicted = true.clone()
    true[:, 1], predicted[:, 2] = 3.0, 0.5
    found, flat = feature_correlations(predicted, true)
    assert flat == 1
    np.testing.assert_allclose(found, [1.0, 0.0, 1.0])
    with pytest.raises(ValueError, match="all 4 features are constant"):
        feature_correlations(predicted, torch.ones(20, 4))


def test_bias_that_is_shown_beside_the_correlations() -> None:
    assert null_correlation(128, 16, 16) == pytest.approx(0.31, abs=0.03)
    assert null_correlation(5000, 10, 10) < 0.04


# Specifications


def test_every_model_has_twenty_or_thirty_two_latents_and_unit_scale() -> None:
    for make, total in ((lambda m: image_spec(m, 0, "paper", 0.9), 20), (lambda m: omics_spec(m, 0, "paper"), 32)):
        for method in METHODS:
            model = make(method).params["model"]
            assert (model["beta"], model["likelihood"]) == (1.0, "gaussian")
            size = sum(model["latent_dims"].values()) if method == "covae" else model["latent_dim"]
            assert size + model.get("specific_dim", 0) == total


def test_paper_profile_is_the_appendix() -> None:
    spec = image_spec("covae", 3, "paper", 0.7)
    settings = training_settings(spec)
    assert (settings.epochs, settings.batch_size, settings.learning_rate, settings.optimizer) == (
        30,
        256,
        1e-3,
        "adamw",
    )
    assert settings.plateau == 30
    assert settings.for_stage("deep_cca").plateau == 0
    assert (spec.params["data"]["train_samples"], spec.params["data"]["test_samples"]) == (20_000, 5_000)  # E15
    settings = training_settings(omics_spec("covae", 0, "paper"))
    assert (settings.epochs, settings.batch_size, settings.for_stage("deep_cca").epochs) == (200, 128, 50)
    assert omics_spec("covae", 0, "paper").params["model"]["pretraining"] == "distance_correlation"
    assert {len(s) for s in plan("fig5", "paper").values()} == {5}
    assert len(unique(plan("fig5", "paper"))) == 8 * 6 * 5
    rhos = {s.params["data"]["rho"] for s in unique(plan("fig5", "paper"))}
    assert rhos == {0.05, 0.3, 0.6, 0.7, 0.9, 0.99}
    quick = unique(plan("fig5", "quick"))
    assert len(quick) == 12
    assert {s.method for s in quick} == {"covae", "jmvae", "mvae", "mmvae_plus"}
    assert len(unique(plan("table1-tcga", "paper"))) == 5 * (8 + 2)


def test_figures_share_their_runs() -> None:
    for name in ("fig6", "fig8", "calibration", "multivae-nll"):
        assert plan(name, "quick") == plan("fig5", "quick")
    assert set(unique(plan("fig7", "quick"))) < set(unique(plan("fig5", "quick")))
    assert set(unique(plan("fig14", "quick"))) < {*unique(plan("fig11", "quick")), *unique(plan("fig5", "quick"))}
    assert plan("table2-tcga", "paper") == plan("table1-tcga", "paper")
    with pytest.raises(KeyError):
        plan("fig3", "paper")


def test_specifications_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"rho is 1.0, must be in \[0, 1\)"):
        image_spec("covae", 0, "quick", 1.0)
    with pytest.raises(ValueError, match="unknown method 'vae'"):
        image_spec("vae", 0, "quick", 0.5)
    with pytest.raises(ValueError, match=r"mvae has no setting \['epsilon'\]"):
        image_spec("mvae", 0, "quick", 0.5, epsilon=0.1)
    with pytest.raises(ValueError, match="unknown dataset 'mnist'"):
        omics_spec("mvae", 0, "quick", "mnist")


# Networks


def test_appendix_d_is_what_is_printed() -> None:
    images, omics = architectures(results_of("covae/tableD", "paper", lambda spec: None))
    layers = " ".join(omics.column("layer"))
    for size in ("3217 → 512", "512 → 256", "256 → 128", "128 → 32", "32 → 128", "512 → 3217", "383 → 128", "64 → 32"):
        assert f"fully connected {size}" in layers
    assert layers.count("batch normalisation") == 10
    assert "4 × 4 convolution 1 → 64, stride 2" in images.column("layer")
    assert "fully connected 2048 → 20" in images.column("layer")


def test_all_models_have_the_same_encoders_and_decoders() -> None:
    modalities = {m: ModalitySpec((1, 28, 28), "image", (0.0, 1.0)) for m in ("m0", "m1")}
    with torch.device("meta"):
        sizes = {}
        for method in METHODS:
            model = build(method, modalities, image_spec(method, 0, "paper", 0.5).params["model"])
            decoders = getattr(model, "decoders", None) or model.multivae.decoders
            sizes[method] = count_parameters(decoders["m0"])
    assert len({v for m, v in sizes.items() if m != "covae"}) == 1
    assert sizes["mvae"] - sizes["covae"] == 10 * 2048  # ten latents more, into 2,048 units


# One small run of each kind


def toy_images(split: str, n: int, latents: bool = False) -> Dataset:
    g = generator(len(split))
    z, e = torch.randn(2, n, 10, generator=g)
    pair = {"m0": z, "m1": 0.6 * z + 0.8 * e}
    weight = torch.randn(10, 784, generator=generator(0)) / 4
    data = {m: (255 * torch.sigmoid(v @ weight)).to(torch.uint8).reshape(n, 1, 28, 28) for m, v in pair.items()}
    specs = {m: ModalitySpec((1, 28, 28), "image", (0.0, 1.0)) for m in data}
    if latents:
        data |= {"z0": pair["m0"], "z1": pair["m1"]}
        specs |= {m: ModalitySpec((10,)) for m in ("z0", "z1")}
    return Dataset("correlated_mnist", split, specs, data, None, {"sha256": "0" * 64})


def toy_omics(split: str, n: int) -> Dataset:
    g = generator(len(split))
    labels = torch.arange(n) % 3
    centres = 2 * torch.randn(3, 8, generator=generator(5))
    common = centres[labels] + torch.randn(n, 8, generator=g)
    sizes = {"mrna": 200, "mirna": 184}
    weights = {m: torch.randn(8, d, generator=generator(i)) / 4 for i, (m, d) in enumerate(sizes.items())}
    data = {m: common @ w + 0.5 * torch.randn(n, w.shape[1], generator=g) for m, w in weights.items()}
    specs = {m: ModalitySpec((d,), unit="standard deviations") for m, d in sizes.items()}
    return Dataset("tcga_brca", split, specs, data, labels, {"sha256": "0" * 64})


def outcome(spec: RunSpec, monkeypatch: pytest.MonkeyPatch) -> tuple[Record, dict[str, Tensor]]:
    """A run without the run store: training, metrics and pictures of a small stand-in for the data."""
    if spec.dataset == "correlated_mnist":
        data = {s: toy_images(s, n) for s, n in (("train", 160), ("test", 80))} | {
            "truth": toy_images("test", 80, latents=True)
        }
    else:
        data = {s: toy_omics(s, n) for s, n in (("train", 150), ("test", 40))}
    monkeypatch.setattr(CorrelatedMNIST if spec.dataset == "correlated_mnist" else Omics, "load", lambda *_: data)
    with isolated_rng(spec.seed):
        model = build_model(spec)
    train(model, data["train"], training_settings(spec), seed=spec.seed)
    metrics = evaluate(model, data, spec)
    if spec.method == "covae" and spec.params["model"]["posterior"] == "cholesky":  # seeded throughout
        assert [m.value for m in metrics] == [m.value for m in evaluate(model, data, spec)]
    where = {"device": "cpu", "device_name": "x", "commit": None, "dirty": None, "versions": {}}
    pictures = figure_samples(model, spec)
    return Record(spec, metrics, where, {}, "0" * 64, 1.0, 1.0), pictures


@pytest.fixture(scope="module")
def runs() -> dict[str, tuple[Record, dict[str, Tensor]]]:
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        for spec in (
            unique(plan("fig5", "smoke")) + unique(plan("fig14", "smoke")) + unique(plan("table1-tcga", "smoke"))
        ):
            if spec.key not in found:
                found[spec.key] = outcome(spec, patch)
    return found


def draw(artifact: str, runs: dict[str, tuple[Record, dict[str, Tensor]]]) -> dict[str, str | bytes]:
    return render(
        f"covae/{artifact}",
        "smoke",
        lookup=lambda s: runs[s.key][0] if s.key in runs else None,
        samples=lambda s: {k: v.numpy() for k, v in runs[s.key][1].items()},
    )


def test_shared_latent_models_are_at_one_and_others_are_not(runs) -> None:
    found = {r.spec.method: r for r, _ in runs.values() if r.spec.dataset == "correlated_mnist"}
    for method in ("mvae", "mvtcae", "mmvae", "mopoe", "jmvae"):
        assert found[method].metric("test/correlation/joint").value == pytest.approx(1.0, abs=1e-5)
        assert found[method].metric("test/correlation/conditional").value == pytest.approx(1.0, abs=1e-5)
    for method in ("dmvae", "mmvae_plus", "covae"):
        assert found[method].metric("test/correlation/conditional").value < 0.95
    truth = toy_images("test", 80, latents=True).data
    expected = float(canonical_correlations(truth["z0"], truth["z1"]).mean())
    assert found["mvae"].metric("test/correlation/true").value == pytest.approx(expected)
    assert {m.name for m in found["covae"].metrics} >= {"deep-cca/fitted", "deep-cca/held-out", "deep-cca/bias"}


def test_pictures_are_small_and_of_a_fixed_rule(runs) -> None:
    record, kept = next((r, k) for r, k in runs.values() if r.spec.dataset == "correlated_mnist")
    assert kept["given_m0/m1"].shape == (SAMPLES, POINTS, 1, 28, 28)
    assert kept["given_m0/m1"].dtype == torch.uint8
    assert torch.equal(kept["true/m0"], toy_images("test", 80).data["m0"][:POINTS])
    assert sum(v.numel() * v.element_size() for v in kept.values()) < 300_000
    later = dataclasses.replace(record.spec, seed=1)
    assert image_samples(None, None, later) == {}
    assert omics_samples(None, None, later) == {}


@pytest.mark.parametrize("artifact", ["fig1", "fig5", "fig6", "fig8", "calibration", "fig14", "fig7", "fig16", "fig17"])
def test_figures_are_drawn_from_records(artifact: str, runs) -> None:
    files = draw(artifact, runs)
    assert files["pdf"].startswith(b"%PDF")
    assert files["png"].startswith(b"\x89PNG")
    assert max(map(len, files.values())) < 300_000


@pytest.mark.parametrize("artifact", ["fig9-tcga", "fig12-tcga"])
def test_figures_of_omics_are_drawn_from_stored_samples(artifact: str, runs) -> None:
    assert draw(artifact, runs)["png"].startswith(b"\x89PNG")


@pytest.mark.parametrize("artifact", ["table1-tcga", "table2-tcga", "table3-tcga"])
def test_tables_show_all_models_and_claim_no_published_value(artifact: str, runs) -> None:
    files = draw(artifact, runs)
    for label in (*LABELS.values(), "learned marginal variance"):
        assert f"| {label.replace('_', chr(92) + '_')} |" in files["md"]
    assert "| published |" not in files["md"]
    assert files["tex"].count(r"\begin{table}") == (3 if artifact == "table1-tcga" else 2)


@pytest.mark.parametrize(("artifact", "value"), [("table1", "3431.332"), ("table2", "3433.295"), ("table3", "0.758")])
def test_tables_of_mlomics_stand_beside_the_published_values_without_records(artifact: str, value: str) -> None:
    files = draw(artifact, {})
    assert "data not available: `repro data fetch mlomics`" in files["md"]
    assert f"Then `make covae-{artifact} PROFILE=smoke`" in files["md"]
    assert value in files["md"]
    assert files["md"].count("| published |") == 2 * len(LABELS)  # the values and their ranks


def test_variants_differ_in_colour_and_line_from_the_models_beside_them() -> None:
    look = _look(["JMVAE", "MVAE", "CoVAE", "JMVAE, 10 latents", "MVAE, 10 latents"])
    assert len({colour for colour, _, _ in look.values()}) == 5
    assert [line for _, _, line in look.values()] == ["-"] * 3 + ["--"] * 2
    series = {"CoVAE": {0.3: [0.3], 0.9: [0.9]}}
    figure = against_rho({"correlation": series, "NLL": series}, ["a", "b"], identity=["correlation"])
    assert [len(axes.lines) for axes in figure.axes] == [2, 1]


def test_multivae_s_own_value_is_shown_beside(runs) -> None:
    text = draw("multivae-nll", runs)["md"]
    line = next(line for line in text.splitlines() if "| MMVAE+" in line)
    own, library = (float(cell) for cell in re.findall(r"\d{2,}\.\d\d", line))
    assert library < 0.6 * own  # one of two images is left out


def made_up(spec: RunSpec, **values: float) -> Record:
    metrics = [Metric(name, value, "1", 10, "given") for name, value in values.items()]
    where = {"device": "cpu", "device_name": "x", "commit": "0" * 40, "dirty": False, "versions": {}}
    return Record(spec, metrics, where, {}, "0" * 64, 1.0, 1.0)


def test_what_is_said_of_the_prior_is_of_each_row_alone() -> None:
    """CoVAE's and its other configurations' correlations differ; no mean is taken over them."""

    def lookup(spec: RunSpec) -> Record | None:
        plain = spec == omics_spec("covae", 0, "smoke", "tcga_brca")
        names = {"test/classes/accuracy": 0.9, "test/nll/joint": 500.0, "prior/correlation": 0.2 if plain else 0.6}
        return made_up(spec, **names) if spec.method == "covae" else None

    table = omics_tables(results_of("covae/table1-tcga", "smoke", lookup, seeds=1))[0]
    (note,) = [n for n in table.notes if n.startswith("Mean correlation")]
    assert ". CoVAE: prior 0.20; unequal blocks" in note
    assert note.endswith("; learned marginal variance: prior 0.60.")
    assert "; 1 record; " in table.provenance
    (note,) = [n for n in table.notes if "have records of their own" in n]
    assert "; 2 records; " in note


def test_what_is_said_of_the_library_is_of_the_rows_and_the_data_shown() -> None:
    (note,) = library_table({"MVAE, ρ = 0.3": [], "MMVAE+, ρ = 0.3": []}, "pairs", "the first image").notes
    assert "near the NLL of the first image alone." in note
    assert not any(word in note for word in ("DMVAE", "MMVAE's", "MoPoE", "mRNA", "MLOmics"))
    whole = omics_tables(results_of("covae/table1-tcga", "smoke", lambda s: None, seeds=1))[-1].notes[0]
    assert "of mRNA alone: on MLOmics the paper has 3431 beside 3838 to 3866 of the others." in whole
    assert "DMVAE's adds up" in whole
    assert "MMVAE's and MoPoE's samples" in whole


def test_ranks_share_the_better_place_in_a_tie() -> None:
    assert _ranks({"a": 1.0, "b": 3.0, "c": 1.0, "d": 2.0}, "lower") == {"a": 1, "b": 4, "c": 1, "d": 3}
    assert _ranks({"a": 1.0, "b": 3.0}, "higher") == {"a": 2, "b": 1}


def test_a_class_that_training_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = omics_spec("mvae", 0, "smoke", "tcga_brca")
    model = build_model(spec)
    test = toy_omics("test", 40)
    data = {"train": toy_omics("train", 60), "test": dataclasses.replace(test, labels=test.labels + 1)}
    with pytest.raises(ValueError, match=r"classes \[3\] are absent from the training split"):
        evaluate(model, data, spec)


def test_figures_without_content_are_named() -> None:
    for function in (decomposition, violins):
        with pytest.raises(ValueError, match="to draw"):
            function({})
    with pytest.raises(ValueError, match="0 panels"):
        against_rho({}, [])
    with pytest.raises(ValueError, match="headings"):
        image_grid({"a": [np.zeros((28, 28))]}, ["x", "y"])
