"""The image experiments: specifications, networks, data, metrics on synthetic splits, and input that does not fit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from repro.datasets import Dataset, load_dataset
from repro.datasets.base import first_of_each_class, specs
from repro.datasets.biked_rendered import overlay
from repro.datasets.card import load_card
from repro.model import MultimodalModel, isolated_rng
from repro.networks.resnet import RESNETS, ResNetDecoder, ResNetEncoder
from repro.papers import paper
from repro.papers.gmrf_mcvae.copula.experiment import METHODS
from repro.papers.gmrf_mcvae.images import evaluation as image_evaluation
from repro.papers.gmrf_mcvae.images import experiment as images
from repro.papers.gmrf_mcvae.images.experiment import image_spec
from repro.papers.gmrf_mcvae.images.settings import EXPERIMENTS
from repro.papers.gmrf_mcvae.model import GMRFMCVAE
from repro.records import PROFILES, RunSpec
from tests.papers.gmrf_mcvae.images import ARTIFACTS
from tests.support import miniatures
from tests.support.experiments import build_model, estimate, evaluate, figure_samples, load_data, training_settings

plan = paper("gmrf_mcvae").plan

Cards = Callable[..., None]
DATASETS = tuple(EXPERIMENTS)

COMMON = {
    "hidden_dtype": "float32",
    "channels_last": False,
    "likelihood": {"polymnist": "gaussian", "biked_rendered": "laplace"},
    "beta": 7.0,
    "scale": 0.3,
    "network": {"start_size": 7, "channels": 3, "encoder_max_channels": 5, "decoder_max_channels": 6},
}
CHANGES: dict[str, dict[str, Any]] = {
    "mvae": COMMON | {"latent_dim": 5, "subsampling": False},
    "mmvae": COMMON | {"latent_dim": 5},
    "mopoe": COMMON | {"latent_dim": 5, "specific_dim": 1},
    "mmvae_plus": COMMON | {"latent_dim": 2, "specific_dim": 2},
    "gmrf_mcvae": COMMON
    | {"latent_dim": 3, "reduction": "sum", "prior": "standard", "posterior": "cholesky", "kept": 0.5, "mask_seed": 1},
}
# These take effect in a block-dominant covariance; "compile" changes speed alone, the others can be nothing else.
ELSEWHERE = {"dominance", "epsilon", "delta", "posterior", "compile"}


def model_of(spec: RunSpec) -> MultimodalModel:
    with isolated_rng(spec.seed):
        return build_model(spec)


def digits(split: str, number: int, *, seed: int = 0, classes: int = 10) -> Dataset:
    """Noise in the form of PolyMNIST."""
    g = torch.Generator().manual_seed(seed)
    modalities = specs(load_card("polymnist"))
    data = {m: torch.randint(256, (number, 3, 28, 28), generator=g, dtype=torch.uint8) for m in modalities}
    labels = torch.arange(number) % classes
    return Dataset("polymnist", split, modalities, data, labels, {"sha256": "noise"})


class Copying(GMRFMCVAE):
    """A model whose conditional samples are true images of the same digit, and whose joint samples are true images."""

    def __init__(self, spec: RunSpec, test: Dataset) -> None:
        super().__init__(test.modalities, latent_dim=1)
        self.test = test
        self.images = {m: torch.stack([test[i][m] for i in range(len(test))]) for m in test.modalities}
        self.start = 0

    def generate(
        self, num_samples: int = 1, *, given: Any = None, generator: Any = None, **_: Any
    ) -> dict[str, Tensor]:
        size = num_samples if given is None else len(next(iter(given.values())))
        rows = torch.arange(self.start, self.start + size) % len(self.test)
        self.start = (self.start + size) % len(self.test)
        found = {m: x[rows] for m, x in self.images.items()}
        return found if given is None else {m: x[None] for m, x in found.items()}


# Specifications


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("method", METHODS)
def test_paper_profile_has_the_paper_s_settings(method: str, dataset: str) -> None:
    params = image_spec(dataset, method, 0, "paper").params
    model, table8 = params["model"], RESNETS["polymnist" if dataset == "polymnist" else "biked"]
    assert params["training"]["epochs"] == 100
    assert params["data"]["train_samples"] is params["evaluation"]["num_samples"] is None
    assert params["data"]["size"] == table8.shape[-1]
    background = {} if dataset == "polymnist" else {"background": 1.0}
    assert model["network"] == background | {
        "start_size": table8.start_size,
        "channels": table8.channels,
        "encoder_max_channels": table8.encoder_max_channels,
        "decoder_max_channels": table8.decoder_max_channels,
    }
    own, unfactorised, part = (16, 512, 32) if dataset == "polymnist" else (4, 16, 8)
    if method == "gmrf_mcvae":
        assert (model["beta"], model["reduction"], model["latent_dim"]) == (1e-3, "mean", own)
        assert model["kept"] == (0.25 if dataset == "polymnist" else 1.0)
    else:
        assert model["beta"] in (5, 2.5, 1)
        latents = (part, part) if method == "mmvae_plus" else (unfactorised, 0)
        assert (model["latent_dim"], model["specific_dim"]) == latents
    for artifact in (a for a, d in ARTIFACTS.items() if d == dataset and a not in ("table2-ablations", "table2-sweep")):
        seeds = 1 if artifact.startswith("fig") else 3
        rows = plan(artifact, "paper")
        assert tuple(rows) == METHODS
        assert all([s.seed for s in row] == list(range(seeds)) for row in rows.values())


def test_ablations_change_what_their_names_say() -> None:
    rows = plan("table2-ablations", "quick")
    table, short, long = (specs[0].params for specs in rows.values())
    assert rows["as in Table II"] == plan("table2", "quick")["gmrf_mcvae"]
    assert list(rows) == ["as in Table II", "no mask", "no mask, beta 0.0005, 3 times the epochs"]
    assert short["model"] == table["model"] | {"kept": 1.0}
    assert short["training"] == table["training"]
    assert long["model"] == table["model"] | {"kept": 1.0, "beta": 5e-4}
    assert long["training"] == table["training"] | {"epochs": 3 * table["training"]["epochs"]}
    more = ["block-dominant posterior, masked", "as in the author's later code"]
    assert list(plan("table2-ablations", "paper")) == ["as in Table II", "no mask", "no mask, beta 0.0005", *more]
    assert [len(specs) for specs in plan("table2-ablations", "paper").values()] == [3] * 5
    overnight, pilots = plan("table2-ablations", "overnight"), plan("table2-sweep", "overnight")
    whole, pilot = (rows["no mask, beta 0.0001"][0].params["model"] for rows in (overnight, pilots))
    assert whole == pilot == overnight["no mask"][0].params["model"] | {"beta": 1e-4}


def test_each_setting_is_tried_here() -> None:
    for method in METHODS:
        model = image_spec("polymnist", method, 0, "smoke").params["model"]
        # Private latents and sub-sampling are in the specification of models that have none.
        assert set(model) - set(CHANGES[method]) - ELSEWHERE <= {"specific_dim", "subsampling"}


def loss_of(spec: RunSpec) -> float:
    size = spec.params["data"]["size"]
    g = torch.Generator().manual_seed(0)
    shape = (32, 3, size, size)
    with isolated_rng(1):
        return float(model_of(spec).loss({f"m{i}": torch.rand(shape, generator=g) for i in range(5)}).total.detach())


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_setting_changes_key_and_loss(method: str) -> None:
    base = image_spec("polymnist", method, 0, "smoke", latent_dim=4, **({"kept": 0.4} if "gmrf" in method else {}))
    before = loss_of(base)
    assert loss_of(base) == before
    for name, value in CHANGES[method].items():
        value = value["polymnist"] if name == "likelihood" else value
        old = base.params["model"][name]
        if name in ELSEWHERE or value == old:
            continue
        changed = replace(base, params={**base.params, "model": {**base.params["model"], name: value}})
        assert changed.key != base.key
        if name != "channels_last":  # which changes the layout in memory alone
            assert loss_of(changed) != before, name


def test_beta_is_relative_to_the_scale_of_the_likelihood() -> None:
    """beta KL - ln p at scale s is, times s (Laplace) or s² (Gaussian), the loss of unit scale with that beta."""
    for likelihood, factor in (("laplace", 0.75), ("gaussian", 0.75**2)):
        spec = image_spec("polymnist", "mvae", 0, "smoke", likelihood=likelihood, scale=0.75, beta=2.0)
        assert model_of(spec).settings.beta == pytest.approx(2.0 * factor)
    gmrf = model_of(image_spec("polymnist", "gmrf_mcvae", 0, "smoke"))
    # On the same scale: 1e-4 of a mean over 2,352 values (the paper profile: 1e-3), against 0.75.
    assert gmrf.noise_scale("m0") == pytest.approx(0.2352)
    assert model_of(image_spec("polymnist", "mmvae_plus", 0, "smoke")).noise_scale("m0") == pytest.approx(0.75)


@pytest.mark.parametrize("profile", ["quick", "smoke"])
@pytest.mark.parametrize("method", METHODS)
def test_decoders_of_bicycles_start_at_white(method: str, profile: str) -> None:
    model = model_of(image_spec("biked_rendered", method, 0, profile))
    starts = [d.output.bias for d in model.modules() if isinstance(d, ResNetDecoder)]
    assert len(starts) == 5
    assert all(torch.equal(b, torch.ones(1)) for b in starts)


def test_all_models_of_bicycles_have_one_likelihood_scale() -> None:
    """The same scale in every loss; the beta of each weighs the KL term on top of it."""
    for profile in ("paper", "quick", "smoke"):
        specs = [image_spec("biked_rendered", m, 0, profile) for m in METHODS]
        assert {s.params["model"]["scale"] for s in specs} == {0.05}
        assert {s.params["model"]["likelihood"] for s in specs} == {"gaussian"}
    baseline = model_of(image_spec("biked_rendered", "mmvae_plus", 0, "quick"))
    assert baseline.noise_scale("frame") == pytest.approx(0.05)
    own = model_of(image_spec("biked_rendered", "gmrf_mcvae", 0, "quick"))  # a mean over 32 x 32 values, beta 1e-4
    assert own.noise_scale("frame") == pytest.approx(0.05 * (1024 * 1e-4) ** 0.5)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="no image experiment on 'mnist'; one of polymnist"):
        image_spec("mnist", "mvae", 0, "smoke")
    with pytest.raises(ValueError, match="unknown method 'vae'"):
        image_spec("polymnist", "vae", 0, "smoke")
    with pytest.raises(ValueError, match=r"mmvae has no setting \['kept'\]"):
        image_spec("polymnist", "mmvae", 0, "smoke", kept=0.5)
    with pytest.raises(ValueError, match="subsampling is 'yes', must be True or False"):
        image_spec("polymnist", "mvae", 0, "smoke", subsampling="yes")


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("dataset", DATASETS)
def test_estimates_count_epochs_and_decodes(dataset: str, profile: str) -> None:
    seconds = {m: estimate(image_spec(dataset, m, 0, profile))[0] for m in METHODS}
    assert seconds["mmvae"] > seconds["mvae"] > seconds["gmrf_mcvae"] > 0
    spec = image_spec(dataset, "mmvae", 0, profile)
    double = replace(spec, params={**spec.params, "training": {**spec.params["training"], "epochs": 1000}})
    assert estimate(double)[0] > 5 * estimate(spec)[0]
    if profile == "quick":
        loads = sorted(seconds.values())
        assert sum(loads) / 2 < 25 * 60  # of two cores


# Networks and masks


def test_networks_compute_in_the_stated_precision_and_layout() -> None:
    model = model_of(image_spec("polymnist", "gmrf_mcvae", 0, "smoke"))
    assert isinstance(model, GMRFMCVAE)
    for m, encoder in model.encoders.items():
        assert isinstance(encoder, ResNetEncoder)
        assert isinstance(model.decoders[m], ResNetDecoder)
        for network in (encoder, model.decoders[m]):
            assert network.hidden_dtype is torch.bfloat16
            assert network.channels_last
            assert all(p.dtype is torch.float32 for p in network.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_bfloat16_and_channels_last_give_the_same_loss_within_rounding(method: str) -> None:
    spec = image_spec("polymnist", method, 0, "smoke", latent_dim=4)
    plain = {"hidden_dtype": "float32", "channels_last": False}
    other = replace(spec, params={**spec.params, "model": {**spec.params["model"], **plain}})
    assert loss_of(spec) == pytest.approx(loss_of(other), rel=0.01)


@pytest.mark.slow
def test_compiled_networks_give_the_same_loss() -> None:
    spec = image_spec("polymnist", "gmrf_mcvae", 0, "smoke", hidden_dtype="float32")
    compiled = image_spec("polymnist", "gmrf_mcvae", 0, "smoke", hidden_dtype="float32", compile="eager")
    assert compiled.key != spec.key
    a, b = model_of(spec), model_of(compiled)
    assert a.state_dict().keys() == b.state_dict().keys()
    assert loss_of(spec) == pytest.approx(loss_of(compiled), rel=1e-6)
    with pytest.raises(ValueError, match="scale"):  # compilation alone would leave such checks off in the process
        torch.distributions.Normal(0.0, -1.0)


# Data


def test_bicycles_come_in_the_run_s_size(mirror: Path, cards: Cards) -> None:
    cards(biked_rendered=miniatures.write_bike_table(mirror))
    spec = image_spec("biked_rendered", "gmrf_mcvae", 0, "smoke")
    data = load_data(spec)
    assert {s: len(d) for s, d in data.items()} == {"train": 11, "validation": 3, "test": 3}
    whole = load_dataset("biked_rendered", split="test", seed=0)
    small = data["test"]
    assert dict(small.modalities) == model_of(spec).modalities
    for m, x in small.data.items():
        assert x.shape == (3, 1, 16, 16)
        means = whole.data[m].float().unfold(2, 4, 4).unfold(3, 4, 4).mean((-1, -2))
        assert torch.equal(x.float(), means.round())
    assert small.provenance["sha256"] != whole.provenance["sha256"]
    full = replace(spec, params={**spec.params, "data": {**spec.params["data"], "size": 64}})
    assert torch.equal(load_data(full)["test"].data["frame"], whole.data["frame"])
    odd = replace(spec, params={**spec.params, "data": {**spec.params["data"], "size": 48}})
    with pytest.raises(ValueError, match="images of 64 pixels cannot be shrunk to 48"):
        load_data(odd)


def test_pictures_are_the_first_of_each_class(mirror: Path, cards: Cards) -> None:
    cards(biked_rendered=miniatures.write_bike_table(mirror))
    spec = image_spec("biked_rendered", "gmrf_mcvae", 0, "smoke")
    test = load_data(spec)["test"]
    rows = first_of_each_class(test.labels)
    assert [int(test.labels[i]) for i in rows] == sorted(set(test.labels.tolist()))
    assert all(int(test.labels[i]) not in test.labels[:i].tolist() for i in rows)
    model = model_of(spec).eval()
    one, same = figure_samples(model, spec), figure_samples(model, spec)
    assert set(one) == {"true/frame", "true/whole", *(f"generated/{m}" for m in test.modalities)}
    for name, x in one.items():
        assert x.dtype is torch.uint8
        assert x.shape == (len(rows), 1, 16, 16)
        assert torch.equal(x, same[name])
    assert torch.equal(one["true/frame"], test.data["frame"][rows])
    assert torch.equal(one["true/whole"], overlay(dict(test.data))[rows])
    seeded = replace(spec, params={**spec.params, "evaluation": {**spec.params["evaluation"], "seed": 1}})
    assert not torch.equal(figure_samples(model, seeded)["generated/wheels"], one["generated/wheels"])


def test_first_of_each_class_takes_at_most_so_many() -> None:
    assert first_of_each_class(torch.tensor([3, 1, 3, 0, 1])) == [3, 1, 0]
    assert first_of_each_class(torch.arange(20), most=4) == [0, 1, 2, 3]


# Metrics


def evaluated(model: MultimodalModel, data: dict[str, Dataset], spec: RunSpec) -> dict[str, Any]:
    found = {m.name: m for m in evaluate(model, data, spec, "cpu")}
    assert all(math.isfinite(m.value) and m.protocol for m in found.values())
    return found


@pytest.fixture(scope="module")
def copied() -> dict[str, Any]:
    """Metrics of a model that copies the test images in order."""
    spec = image_spec("polymnist", "gmrf_mcvae", 0, "smoke")
    test = digits("test", 260)
    return evaluated(Copying(spec, test), {"train": test, "test": test}, spec)


@pytest.mark.slow
def test_copied_images_score_as_the_truth_does(copied: dict[str, Any]) -> None:
    for task in ("unconditional", "conditional"):
        assert copied[f"test/{task}/frechet-classifier"].value == pytest.approx(0.0, abs=1e-3)
        assert "classifier" in copied[f"test/{task}/frechet-classifier"].protocol
    assert copied["test/conditional/ssim"].value == pytest.approx(1.0)
    assert copied["test/conditional/ssim/byte"].value == pytest.approx(1.0)
    assert copied["test/unconditional/coherence"].value == copied["test/floor/coherence"].value
    assert copied["test/reconstruction/coherence"].value == pytest.approx(copied["test/floor/accuracy"].value)
    assert 0 <= copied["test/latents-nearest/coherence"].value <= 1
    curve = [copied[f"test/unconditional/coherence/at_least_{k}"].value for k in range(2, 6)]
    assert curve == sorted(curve, reverse=True)
    assert curve[-1] == copied["test/unconditional/coherence"].value
    # Conditional coherence of true images is the classifiers' accuracy: each modality is generated from four others.
    assert copied["test/conditional/coherence"].value == pytest.approx(copied["test/floor/accuracy"].value)
    assert copied["test/floor/frechet-classifier"].value > 0
    # Each image is its own neighbour among these training images.
    assert copied["test/nearest/coherence"].value == pytest.approx(copied["test/floor/accuracy"].value)
    assert copied["test/nearest/ssim"].value == pytest.approx(1.0)


@pytest.mark.slow
def test_unrelated_noise_shows_what_the_byte_reading_hides(copied: dict[str, Any]) -> None:
    assert copied["test/floor/ssim"].value < 0.1
    assert copied["test/floor/ssim/byte"].value > 0.9


@pytest.mark.slow
def test_protocols_state_numbers_and_data_range(copied: dict[str, Any]) -> None:
    metric = copied["test/conditional/ssim/byte"]
    assert "data_range 255" in metric.protocol
    assert metric.num_samples == 20
    assert copied["test/conditional/coherence"].num_samples == 260
    assert {n.split("/")[1] for n in copied} == {
        "unconditional",
        "conditional",
        "conditional-componentwise",
        "conditional-covariance-as-scale",
        "conditional-mean",
        "conditional-temperature-0.5",
        "reconstruction",
        *(f"latents-{how}" for how in ("sample", "mean", "nearest")),
        "nearest",
        "floor",
        "fid",
    }


@pytest.mark.slow
def test_missing_inception_weights_are_explained(copied: dict[str, Any], tmp_path: Path) -> None:
    assert "test/unconditional/fid" not in copied
    assert copied["test/fid/available"].protocol.startswith("Inception weights not available: curl ")


def test_bicycles_are_measured_whole_and_by_component(mirror: Path, cards: Cards) -> None:
    cards(biked_rendered=miniatures.write_bike_table(mirror))
    spec = image_spec("biked_rendered", "gmrf_mcvae", 0, "smoke")
    data = load_data(spec)
    found = evaluated(Copying(spec, data["test"]), data, spec)
    for task in ("unconditional", "conditional"):
        for suffix in ("", "/whole"):
            assert found[f"test/{task}/frechet-pixels{suffix}"].value == pytest.approx(0.0, abs=1e-6)
    assert found["test/conditional/ssim/whole"].value == pytest.approx(1.0)
    assert found["test/conditional/centres"].value == pytest.approx(0.0, abs=1e-9)
    assert found["test/conditional/centres"].unit == "pixel"
    assert found["test/conditional/blank"].value == 0.0
    assert found["test/floor/centres"].value > 0
    assert "fewer than features" in found["test/floor/frechet-pixels"].protocol


def test_components_without_ink_have_no_centre(mirror: Path, cards: Cards) -> None:
    cards(biked_rendered=miniatures.write_bike_table(mirror))
    spec = image_spec("biked_rendered", "gmrf_mcvae", 0, "smoke")
    data = load_data(spec)
    model = Copying(spec, data["test"])
    model.images = {m: torch.ones_like(x) for m, x in model.images.items()}
    found = evaluated(model, data, spec)
    assert "test/conditional/centres" not in found
    assert "test/floor/centres" in found


# Input that does not fit


def test_too_few_samples_for_the_features_are_counted() -> None:
    spec = image_spec("polymnist", "gmrf_mcvae", 0, "smoke")
    test = digits("test", 100)
    with pytest.raises(ValueError, match="128 dimensions: the true sample needs at least 129 samples, got 100"):
        evaluate(Copying(spec, test), {"test": test}, spec)


@pytest.mark.slow
def test_a_pilot_is_measured_on_as_few_images_as_a_smoke_run_holds_out() -> None:
    spec = next(iter(plan("table2-sweep", "smoke").values()))[0]
    held_out = digits("train", spec.params["data"]["held_out"])
    found = evaluated(Copying(spec, held_out), {"train": held_out, "validation": held_out}, spec)
    assert found["validation/unconditional/frechet-classifier"].value == pytest.approx(0.0, abs=1e-3)
    assert "to be read against the floor alone" in found["validation/unconditional/frechet-classifier"].protocol


@pytest.mark.parametrize(("number", "few"), [(257, True), (258, False)])
def test_only_a_pilot_of_few_images_is_said_to_have_few(number: int, few: bool) -> None:
    """Halves of them, for the floor, need one more than there are features, 128."""
    spec = next(iter(plan("table2-sweep", "smoke").values()))[0]
    held_out = digits("train", number)
    evaluation = image_evaluation._Evaluation(Copying(spec, held_out), {"test": held_out}, spec, "cpu")
    assert evaluation.features["frechet-classifier"].low_rank == few


def test_one_class_is_refused_for_coherence() -> None:
    spec = image_spec("polymnist", "gmrf_mcvae", 0, "smoke")
    test = digits("test", 260, classes=1)
    with pytest.raises(ValueError, match="labels are all 0; conditional coherence needs at least two classes"):
        evaluate(Copying(spec, test), {"test": test}, spec)


def test_generated_values_that_are_not_finite_are_named() -> None:
    spec = image_spec("polymnist", "gmrf_mcvae", 0, "smoke")
    test = digits("test", 260)
    model = Copying(spec, test)
    model.images["m3"] = torch.full_like(model.images["m3"], float("nan"))
    with pytest.raises(ValueError, match="generated images of 'm3' are not finite"):
        evaluate(model, {"test": test}, spec)


def test_batches_of_different_lengths_are_refused() -> None:
    model = model_of(image_spec("polymnist", "gmrf_mcvae", 0, "smoke"))
    batch = {f"m{i}": torch.zeros(3 if i == 2 else 4, 3, 28, 28) for i in range(5)}
    with pytest.raises(ValueError, match="unequal batch sizes"):
        model.loss(batch)


def test_generated_images_are_clipped_and_chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(image_spec("polymnist", "gmrf_mcvae", 0, "smoke", hidden_dtype="float32")).eval()
    generator = lambda: torch.Generator().manual_seed(0)  # noqa: E731
    monkeypatch.setattr(image_evaluation, "CHUNK", 4)
    found = image_evaluation.generated_images(model, 10, generator())
    assert {x.shape[0] for x in found.values()} == {10}
    assert all(float(x.min()) >= 0 and float(x.max()) <= 1 for x in found.values())
    g = generator()
    parts = [model.generate(n, generator=g) for n in (4, 4, 2)]
    for m, x in found.items():
        torch.testing.assert_close(x, torch.cat([p[m] for p in parts]).clamp(0, 1))


def test_training_settings_are_the_specification_s() -> None:
    spec = image_spec("biked_rendered", "mvae", 0, "quick")
    found = training_settings(spec, "cpu")
    assert (found.epochs, found.batch_size, found.learning_rate) == tuple(spec.params["training"].values())
    assert images.image_spec is image_spec
