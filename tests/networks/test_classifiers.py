"""Digit classifiers: shapes, sizes, training with labels, accuracy."""

from __future__ import annotations

import pytest
import torch

from repro.datasets import Dataset, ModalitySpec
from repro.model import isolated_rng
from repro.networks.classifiers import ARCHITECTURES, digit_classifier
from repro.papers.pretrained.classifiers import LABEL, DigitClassifiers, accuracy
from repro.training import TrainingSettings, train

PARAMETERS = {"mnist": 421_642, "polymnist": 130_568, "extended_polymnist": 1_147_466}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_layers(name: str) -> None:
    network = digit_classifier(name).eval()
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[name]
    x = torch.rand(3, *network.shape)
    assert network(x).shape == (3, 10)
    features = network.features(x).detach()
    assert features.shape == (3, network.feature_dim)
    assert float(features.min()) >= 0
    torch.testing.assert_close(network.head(features), network(x))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_padded_images_are_refused(name: str) -> None:
    network = digit_classifier(name)
    channels = network.shape[0]
    with pytest.raises(
        ValueError, match=rf"\(2, {channels}, 32, 32\), the classifier needs \(batch, {channels}, 28, 28\)"
    ):
        network(torch.rand(2, channels, 32, 32))


def test_unknown_architecture() -> None:
    with pytest.raises(ValueError, match="unknown classifier 'cifar'; one of mnist"):
        digit_classifier("cifar")


def easy(count: int = 200) -> Dataset:
    """Two modalities whose brightest row says the class."""
    labels = torch.arange(count) % 10
    data = {}
    for m in ("a", "b"):
        x = torch.zeros(count, 1, 28, 28)
        x[torch.arange(count), 0, 2 * labels + 4] = 1.0
        data[m] = x
    specs = {m: ModalitySpec((1, 28, 28), "image", (0.0, 1.0)) for m in data}
    return Dataset("easy", "train", specs, data, labels)


def trained(shared: bool) -> DigitClassifiers:
    data = easy()
    with isolated_rng(0):
        model = DigitClassifiers(data.modalities, "mnist", shared=shared)
    history = train(model, data, TrainingSettings(8, 50, 2e-3, labels=LABEL), seed=0)
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert history[-1]["accuracy"] > history[0]["accuracy"]
    return model


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False])
def test_classifiers_learn(shared: bool) -> None:
    model = trained(shared)
    assert len(model.networks) == (1 if shared else 2)
    found = accuracy(model, easy(), batch_size=64)
    assert set(found) == {"a", "b"}
    assert min(found.values()) > 0.95


def test_accuracy_counts_right_digits() -> None:
    data = easy(20)
    model = DigitClassifiers(data.modalities, "mnist", shared=True).eval()
    for p in model.parameters():
        p.data.zero_()
    model.networks["shared"].head.bias.data[3] = 1.0  # always says 3, right for two of twenty
    assert accuracy(model, data, batch_size=7) == {"a": 0.1, "b": 0.1}


def test_bad_batches() -> None:
    data = easy(10)
    model = DigitClassifiers(data.modalities, "mnist", shared=False)
    with pytest.raises(ValueError, match="a classifier is trained with 'label' too"):
        model.loss(dict(data.data))
    with pytest.raises(ValueError, match="unknown modality 'c'; one of a, b"):
        model.network("c")
