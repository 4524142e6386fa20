"""SBM-VAE on MHD: evaluation classifiers, coherence, spectrograms, runs and rendering on the miniature."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from repro.datasets.base import Dataset, ModalitySpec
from repro.errors import NoProfileError
from repro.model import Loss, MultimodalModel, isolated_rng
from repro.papers import paper
from repro.papers.sbm_vae.mhd.evaluation import draw_mhd, evaluate_mhd
from repro.papers.sbm_vae.mhd.experiment import MHD_METHODS, mhd_spec
from repro.papers.sbm_vae.mhd.tables import table8
from repro.papers.sbm_vae.supervised import CLASSIFIER, ModalityClassifiers, WithClassifier
from repro.records import Metric, Record, RunSpec
from repro.training import TrainingSettings, train
from tests.support.experiments import (
    build_model,
    estimate,
    evaluate,
    figure_samples,
    load_data,
    render,
    results_of,
    training_settings,
)

pytestmark = pytest.mark.slow

SHAPES = {"image": ModalitySpec((1, 28, 28), "image", (0.0, 1.0)), "audio": ModalitySpec((1, 32, 128), "audio")}
ENVIRONMENT = {"commit": "0" * 40, "dirty": False, "device": "cpu", "device_name": "test", "versions": {"torch": "0"}}


def coded(digits: Tensor) -> dict[str, Tensor]:
    """Images and spectrograms that say their digit in their first pixel: a tenth of it, and itself."""
    image, audio = torch.zeros(len(digits), 1, 28, 28), torch.zeros(len(digits), 1, 32, 128)
    image[:, 0, 0, 0], audio[:, 0, 0, 0] = digits / 10, digits.float()
    return {"image": image, "audio": audio}


class Reads(nn.Module):
    """A classifier that reads the code."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.one_hot((x[:, 0, 0, 0] * self.scale).round().long() % 10, 10).float()


class Shifts(MultimodalModel):
    """Given audio it draws the next digit, given an image it says it; joint digits agree in three of four samples."""

    def loss(self, batch, stage=None):
        return Loss(torch.zeros(()))

    def generate(self, num_samples=1, *, given=None, generator=None, sample_likelihood=False):
        if given is None:
            digits = torch.arange(num_samples) % 10
            other = torch.where(torch.arange(num_samples) % 4 == 0, (digits + 1) % 10, digits)
            return {"image": coded(digits)["image"], "audio": coded(other)["audio"]}
        (m, x) = next(iter(given.items()))
        digits = (x[:, 0, 0, 0] * (10 if m == "image" else 1)).round().long()
        shifted = (digits + 1) % 10 if m == "audio" else digits
        return {name: v[None] for name, v in coded(shifted).items()}

    def log_likelihood(self, batch, *, given=None, num_importance_samples=1000, generator=None):
        raise NotImplementedError


def with_classifier(model: MultimodalModel) -> WithClassifier:
    whole = WithClassifier.build(model, ModalityClassifiers, widths=(4, 4))
    whole.judge.networks = nn.ModuleDict({"image": Reads(10.0), "audio": Reads(1.0)})
    return whole


def test_coherence_of_a_known_model() -> None:
    digits = torch.arange(40) % 10
    test = Dataset("mhd", "test", SHAPES, coded(digits), digits)
    found = evaluate_mhd(with_classifier(Shifts(SHAPES)), {"test": test}, mhd_spec("sbm_vae", 0, "smoke"))
    values = {m.name: m.value for m in found}
    assert values == {
        "test/audio-to-image/coherence": 0.0,  # always the next digit
        "test/image-to-audio/coherence": 1.0,
        "test/joint/coherence": 0.75,
        "test/floor/image": 1.0,
        "test/floor/audio": 1.0,
    }
    assert {m.num_samples for m in found} == {40}


def test_judges_learn_digits() -> None:
    digits = torch.arange(60) % 10
    g = torch.Generator().manual_seed(0)
    data = {m: 0.05 * torch.rand(60, *s.shape, generator=g) for m, s in SHAPES.items()}
    for k, d in enumerate(digits):  # a bar whose place is the digit
        data["image"][k, 0, 2 * d : 2 * d + 4] += 0.9
        data["audio"][k, 0, :, 12 * d : 12 * d + 12] += 2.0
    train_data = Dataset("mhd", "train", SHAPES, data, digits)
    with isolated_rng(0):
        classifiers = ModalityClassifiers(SHAPES, widths=(8, 8))
    history = train(classifiers, train_data, TrainingSettings(8, 20, 3e-3), seed=0)
    assert history[-1]["accuracy"] > 0.9
    assert set(classifiers.networks) == set(SHAPES)


def run(spec: RunSpec) -> tuple[Record, dict[str, np.ndarray]]:
    data = load_data(spec)
    with isolated_rng(spec.seed):
        model = build_model(spec)
    history = train(model, data["train"], training_settings(spec), seed=spec.seed)
    with torch.no_grad():
        metrics = list(evaluate(model, data, spec))
        pictures = {k: v.numpy() for k, v in figure_samples(model, spec).items()}
    return Record(spec, metrics, ENVIRONMENT, {}, "0" * 64, 1.0, 1.0, history), pictures


def test_runs_go_through_and_render(miniature: Callable[[str], None]) -> None:
    miniature("mhd")
    records, stored = {}, {}
    for method in MHD_METHODS.values():
        spec = mhd_spec(method, 0, "smoke")
        records[spec.key], stored[spec.key] = run(spec)
        stages = ["autoencoders", "score", CLASSIFIER] if method == "sbm_vae" else ["train", CLASSIFIER]
        assert [e["stage"] for e in records[spec.key].history] == stages
        shapes = {k: v.shape for k, v in stored[spec.key].items()}
        image, audio = (4, 1, 28, 28), (4, 1, 32, 128)  # the miniature has four digits
        assert shapes == {
            "joint/image": image,
            "joint/audio": audio,
            "given-audio/image": image,
            "given-image/audio": audio,
        }
        assert {v.dtype for v in stored[spec.key].values()} == {np.dtype(np.uint8)}
    options = {"lookup": lambda s: records.get(s.key), "samples": lambda s: stored[s.key]}
    table = table8(results_of("sbm_vae/table8", "smoke", options["lookup"]))
    for row in table.rows:
        assert all(c.n == 1 for c in row.cells.values())
    text = render("sbm_vae/table8", "smoke", **options)["md"]
    assert "no attempt" in text
    figure = render("sbm_vae/fig-mhd", "smoke", **options)
    assert figure["png"].startswith(b"\x89PNG")


@pytest.mark.parametrize("artifact", ["table8", "fig-mhd"])
def test_without_records_every_cell_says_why(artifact: str) -> None:
    def no_samples(spec: RunSpec) -> Mapping[str, np.ndarray]:
        raise AssertionError("there is no record")

    made = render(f"sbm_vae/{artifact}", "paper", lookup=lambda s: None, samples=no_samples)
    assert all(made.values())
    if artifact == "table8":
        assert "data not available: `repro data fetch mhd`" in made["md"]
        printed = paper("sbm_vae").published["table8"]
        table = table8(results_of("sbm_vae/table8", "paper", lambda s: None))
        assert [r.label for r in table.rows] == list(printed["rows"])
        for row in table.rows:
            published = [row.cells[k].published for k in printed["columns"]]
            assert published == [v[0] for v in printed["rows"][row.label]]
            assert all(c.reason.startswith("data not available") for c in row.cells.values())


def test_table8_shows_what_was_measured() -> None:
    def lookup(spec: RunSpec) -> Record:
        base = 0.5 + 0.1 * spec.seed
        tasks = ("audio-to-image", "image-to-audio", "joint")
        names = [*(f"{t}/coherence" for t in tasks), "floor/image", "floor/audio"]
        metrics = [Metric(f"test/{n}", base + 0.01 * k, "1", 9, "made up") for k, n in enumerate(names)]
        return Record(spec, metrics, ENVIRONMENT, {}, "0" * 64, 1.0, 1.0, [])

    table = table8(results_of("sbm_vae/table8", "paper", lookup, seeds=3))
    (row, *_) = table.rows
    assert row.cells["audio_to_image"].mean == pytest.approx(0.6)
    assert row.cells["image_to_audio"].mean == pytest.approx(0.61)
    assert row.cells["unconditional"].mean == pytest.approx(0.62)
    assert row.cells["unconditional"].n == 3
    (floor,) = table.floors
    assert floor.cells["audio_to_image"].mean == pytest.approx(0.53)
    assert floor.cells["unconditional"].reason == "true pairs agree by construction"
    assert not any("no attempt" in n for n in table.notes)


def test_spectrograms_keep_the_true_range(miniature: Callable[[str], None]) -> None:
    """Bytes run from the least to the largest true value; what is beyond is cut off."""
    digits = torch.arange(10)
    data = coded(digits)
    data["audio"][0, 0, 0, 1], data["audio"][1, 0, 0, 1] = -2.0, 18.0
    test = Dataset("mhd", "test", SHAPES, data, digits)
    found = draw_mhd(with_classifier(Shifts(SHAPES)), test, mhd_spec("sbm_vae", 0, "smoke"))
    # Given image d the model says d aloud: its code in bytes is 255 (d + 2) / 20.
    expected = [round(255 * (d + 2) / 20) for d in range(10)]
    assert found["given-image/audio"][:, 0, 0, 0].tolist() == pytest.approx(expected, abs=1)
    assert found["given-audio/image"][:, 0, 0, 0].tolist() == [round(25.5 * ((d + 1) % 10)) for d in range(10)]


def test_specifications_and_errors() -> None:
    spec = mhd_spec("sbm_vae", 0, "paper")
    model = spec.params["model"]
    assert (model["latent_dim"], model["sde"], model["beta"], model["energy"]) == (64, [1.0, 5.0], 0.1, None)
    assert spec.params["evaluation"]["sampling"] == {"sampler": "predictor_corrector", "num_steps": 100}
    assert mhd_spec("mmvae_plus", 0, "paper").params["model"]["specific_dim"] == 32
    assert len(paper("sbm_vae").plan("table8", "paper")["MVTCAE"]) == 3
    assert len(paper("sbm_vae").plan("fig-mhd", "paper")["MVTCAE"]) == 1
    for method in MHD_METHODS.values():
        seconds, megabytes = estimate(mhd_spec(method, 0, "quick"))
        assert 0 < seconds < 2 * 3600
        assert megabytes > 0
    with pytest.raises(ValueError, match="unknown method 'mopoe' of MHD"):
        mhd_spec("mopoe", 0, "quick")
    for seeds in (None, 2):
        with pytest.raises(NoProfileError, match="no profile 'overnight'"):
            paper("sbm_vae").plan("table8", "overnight", seeds)
    digits = torch.zeros(3, dtype=torch.long)
    unlabelled = Dataset("mhd", "test", SHAPES, coded(digits))
    for function in (evaluate_mhd, draw_mhd):
        data = {"test": unlabelled} if function is evaluate_mhd else unlabelled
        with pytest.raises(ValueError, match="mhd has no labels"):
            function(with_classifier(Shifts(SHAPES)), data, spec)
    with pytest.raises(ValueError, match="Shifts has none"):
        evaluate_mhd(Shifts(SHAPES), {"test": Dataset("mhd", "test", SHAPES, coded(digits), digits)}, spec)


def test_what_is_not_finite_is_refused() -> None:
    class Breaks(Shifts):
        def generate(self, num_samples=1, **options):
            return {m: torch.full_like(x, math.nan) for m, x in super().generate(num_samples, **options).items()}

    digits = torch.arange(10)
    test = Dataset("mhd", "test", SHAPES, coded(digits), digits)
    with pytest.raises(ValueError, match="has values that are not finite"):
        evaluate_mhd(with_classifier(Breaks(SHAPES)), {"test": test}, mhd_spec("sbm_vae", 0, "smoke"))
