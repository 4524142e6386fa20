"""The pretrained networks' runs: specifications, smoke runs on synthetic digits, rendering."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from repro import datasets
from repro.artifacts.inventory import find
from repro.artifacts.render import Sources, plan, render, unique
from repro.datasets import Dataset
from repro.datasets.base import fingerprint, specs
from repro.datasets.card import load_card
from repro.engine.execute import execute
from repro.engine.store import RunStore
from repro.errors import RunError
from repro.model import isolated_rng
from repro.networks.vaegan import Encoder
from repro.papers import experiment_of, paper
from repro.papers.pretrained.classifiers import DigitClassifiers
from repro.papers.pretrained.digits.evaluation import evaluate_classifier, evaluate_flow, evaluate_vaegan
from repro.papers.pretrained.digits.experiment import classifier_spec, vaegan_spec
from repro.papers.pretrained.flow import EncodingFlow
from repro.papers.pretrained.vaegan import VAEGAN
from repro.training import TrainingSettings, train

ARTIFACTS = ("vaegan", "vaegan-gradients", "flow", "classifiers")
FIGURES = Path(__file__).resolve().parents[3] / "figures"


def synthetic(name: str, split: str = "train", **options: Any) -> Dataset:
    """Bars whose height says the digit, in a dataset's shapes."""
    card = load_card(name)
    labels = torch.arange(600) % 10
    data = {}
    for m, spec in specs(card).items():
        x = torch.zeros(600, *spec.shape, dtype=torch.uint8)
        for n, digit in enumerate(labels.tolist()):
            x[n, :, 4 : 6 + 2 * digit, 8:20] = 200 + digit
        data[m] = x
    return Dataset(name, split, specs(card), data, labels, {"sha256": fingerprint(data, labels)})


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "load_dataset", synthetic)


def test_the_vaegan_s_settings_are_the_paper_s() -> None:
    params = vaegan_spec("paper").params
    assert params["training"] == {"epochs": 50, "batch_size": 64, "learning_rate": 1e-4, "optimizer": "adamw"}
    model = params["model"]
    assert (model["adversarial_scale"], model["margin"], model["equilibrium"]) == (0.8, 0.4, 0.68)
    assert model["latent_dim"] == 10
    assert vaegan_spec("quick").params["training"]["epochs"] < 50
    longer = vaegan_spec("overnight").params["training"]
    assert longer == params["training"] | {"epochs": 36, "decay": 0.92}
    assert 1e-4 * longer["decay"] ** longer["epochs"] < 1e-5


def test_vaegans_differ_in_their_gradients_alone_and_the_first_is_that_of_the_data() -> None:
    rows = plan(find("pretrained/vaegan-gradients"), "paper")
    (added,), (separate,) = rows.values()
    assert added == vaegan_spec("paper")
    assert added.key == "4ed9d0ce5842d09e"
    assert separate == vaegan_spec("paper", gradients="separate")
    assert separate.params == added.params | {"model": added.params["model"] | {"gradients": "separate"}}


def test_a_vaegan_that_is_not_recorded_says_so(tmp_path: Path) -> None:
    committed = FIGURES / "pretrained" / "records" / f"{vaegan_spec('quick').key}.json"
    folder = tmp_path / "pretrained" / "records"
    folder.mkdir(parents=True)
    shutil.copy(committed, folder)
    markdown, _ = render(find("pretrained/vaegan-gradients"), "quick", tmp_path)
    rows = [line.split("|")[1:-1] for line in markdown.read_text().splitlines() if line.startswith("| ")]
    cells = {row[0].strip(): [x.strip() for x in row[1:]] for row in rows}
    assert cells["added up as in pythae's trainer"][:3] == ["2", "6", "0.7616"]
    assert set(cells["each network's own loss alone"][2:]) == {"not run"}
    assert "10,000 samples; reconstructions of the test images." in markdown.read_text()


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match="no digit classifier for 'biked'; one of mnist"):
        classifier_spec("biked", "paper")
    with pytest.raises(KeyError):
        paper("pretrained").plan("table1", "paper")


@pytest.mark.slow
@pytest.mark.parametrize("artifact", ARTIFACTS)
def test_smoke_runs_render(artifact: str, bars: None, tmp_path: Path) -> None:
    found, store = find(f"pretrained/{artifact}"), RunStore(tmp_path / "runs")
    runs = unique(plan(found, "smoke"))
    for spec in runs:
        record = execute(spec, store)
        assert record.history[-1]["epoch"] == 1
        assert {m.num_samples > 0 for m in record.metrics} == {True}
        seconds, megabytes = experiment_of(spec).cost(spec)
        assert seconds > 0
        assert megabytes > 0
    paths = render(found, "smoke", tmp_path / "figures", store=store)
    assert {p.suffix for p in paths} == ({".md", ".tex", ".pdf", ".png"} if artifact == "vaegan" else {".md", ".tex"})
    text = next(p for p in paths if p.suffix == ".md").read_text()
    assert "Profile smoke" in text
    assert Sources(store, tmp_path).record(runs[0]) is not None


def test_rendering_needs_records(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="pretrained/flow lacks the records of"):
        render(find("pretrained/flow"), "smoke", tmp_path)


def test_evaluations_refuse_another_model() -> None:
    card = specs(load_card("mnist"))
    spec, data = vaegan_spec("smoke"), {"test": synthetic("mnist", "test")}
    with pytest.raises(TypeError, match="expected a VAEGAN"):
        evaluate_vaegan(DigitClassifiers(card, "mnist", shared=True), data, spec)
    with pytest.raises(TypeError, match="expected digit classifiers"):
        evaluate_classifier(VAEGAN(card), data, spec)
    with pytest.raises(TypeError, match="expected a flow"):
        evaluate_flow(VAEGAN(card), data, spec)


def test_only_the_flow_is_trained() -> None:
    data = synthetic("mnist")
    with isolated_rng(0):
        model = EncodingFlow(data.modalities, transforms=2, hidden=(16,), encoder=Encoder(10))
    before = {n: p.clone() for n, p in model.named_parameters()}
    history = train(model, data, TrainingSettings(5, 100, 1e-2), seed=0)
    assert history[-1]["nll"] < history[0]["nll"]
    moved = {n.split(".")[0] for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {"flow"}


def test_the_encodings_are_samples_of_the_posterior() -> None:
    data, draws = synthetic("mnist").first(2), 1000
    with isolated_rng(0):
        model = EncodingFlow(data.modalities, transforms=2, hidden=(16,), encoder=Encoder(10))
    x = data.data["image"].float() / 255
    with isolated_rng(1):
        z = model.encode(x.repeat(draws, 1, 1, 1)).view(draws, 2, 10)
    with torch.no_grad():
        mean, log_variance = model.encoder(x)
    scale = (0.5 * log_variance).exp()
    assert float(((z.mean(0) - mean) / scale).abs().max()) < 5 / draws**0.5
    assert float((z.std(0) / scale - 1).abs().max()) < 5 / (2 * draws) ** 0.5
