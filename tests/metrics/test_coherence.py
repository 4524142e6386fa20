"""Coherence of predicted labels by hand, by brute force, and of true data by the classifiers' accuracy."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score

from repro.metrics.coherence import agreement_curve, classify, conditional_coherence, unconditional_coherence

NAMES = ("a", "b", "c", "d")


def random_labels(n: int, seed: int, classes: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {m: torch.randint(0, classes, (n,), generator=generator) for m in NAMES}


class Nearest(torch.nn.Module):
    """Classifier of digits by the distance to each digit's mean image, of which it keeps the batch sizes it saw."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        super().__init__()
        self.means = torch.stack([images[labels == k].flatten(1).mean(0) for k in range(10)])
        self.sizes: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(x))
        return -torch.cdist(x.flatten(1), self.means)


@pytest.fixture(scope="module")
def digits() -> tuple[dict[str, Nearest], dict[str, torch.Tensor], torch.Tensor]:
    """Scanned digits as two modalities, one dark and one noisy, with a classifier for each."""
    data = load_digits()
    images = torch.from_numpy(data.images / 16.0).float()[:, None]
    labels = torch.from_numpy(data.target)
    generator = torch.Generator().manual_seed(0)
    noisy = (images + 0.3 * torch.randn(images.shape, generator=generator)).clamp(0.0, 1.0)
    modalities = {"dark": 0.5 * images, "noisy": noisy}
    networks = {m: Nearest(x[:900], labels[:900]).eval() for m, x in modalities.items()}
    return networks, {m: x[900:] for m, x in modalities.items()}, labels[900:]


def test_coherence_of_true_data_is_the_classifiers_accuracy(digits) -> None:
    networks, images, labels = digits
    predictions = classify(networks, images, batch_size=200)
    accuracy = {m: accuracy_score(labels, networks[m](x).argmax(1)) for m, x in images.items()}
    assert all(0.6 < a < 0.98 for a in accuracy.values())
    # What a perfect model generates from one modality is the true other one.
    result = conditional_coherence(
        {("dark",): {"noisy": predictions["noisy"]}, ("noisy",): {"dark": predictions["dark"]}}, labels
    )
    assert result.given("dark") == pytest.approx(accuracy["noisy"], abs=1e-12)
    assert result.given("noisy") == pytest.approx(accuracy["dark"], abs=1e-12)
    assert result.mean == pytest.approx(np.mean(list(accuracy.values())), abs=1e-12)
    # All agree where all are right, and hardly anywhere else.
    both = ((predictions["dark"] == labels) & (predictions["noisy"] == labels)).double().mean().item()
    coherence = unconditional_coherence(predictions)
    assert both <= coherence.value <= both + (1.0 - max(accuracy.values()))
    assert (coherence.num_samples, coherence.num_labels) == (len(labels), 10)


def test_classify_runs_in_batches(digits) -> None:
    networks, images, _ = digits
    networks["dark"].sizes.clear()
    some = {"dark": images["dark"][:450]}
    batched = classify(networks, some, batch_size=200)
    assert networks["dark"].sizes == [200, 200, 50]
    assert list(batched) == ["dark"]
    assert torch.equal(batched["dark"], classify(networks, some)["dark"])


def test_unconditional_coherence_counts_samples_in_which_all_agree() -> None:
    predictions = {
        "x1": torch.tensor([0, 1, 2, 3, 4]),
        "x2": torch.tensor([0, 1, 2, 3, 9]),
        "x3": torch.tensor([0, 1, 7, 7, 4]),
    }
    result = unconditional_coherence(predictions)
    assert (result.value, result.num_samples, result.modalities) == (0.4, 5, ("x1", "x2", "x3"))
    assert result.num_labels == 7
    # MNIST triples: the third is free.
    tied = unconditional_coherence(predictions, modalities=["x1", "x2"])
    assert (tied.value, tied.modalities) == (0.8, ("x1", "x2"))
    collapsed = unconditional_coherence({m: torch.full((9,), 3) for m in NAMES})
    assert (collapsed.value, collapsed.num_labels) == (1.0, 1)


def test_agreement_curve_is_the_count_of_the_most_common_label() -> None:
    predictions = random_labels(500, 0)
    result = agreement_curve(predictions)
    counts = [
        Counter(labels).most_common(1)[0][1] for labels in zip(*(p.tolist() for p in predictions.values()), strict=True)
    ]
    assert result.at_least == pytest.approx([sum(c >= k for c in counts) / 500 for k in (1, 2, 3, 4)])
    assert result.at_least[0] == 1.0
    assert result.at_least[-1] == unconditional_coherence(predictions).value


def test_agreement_of_independent_labels_is_that_of_dice() -> None:
    # Four fair dice of three faces: two alike for sure, three in 24 + 3 of 81 cases, four in 3 of 81.
    n = 40_000
    shares = agreement_curve(random_labels(n, 1)).at_least
    for share, p in zip(shares, (1.0, 1.0, 27 / 81, 3 / 81), strict=True):
        assert share == pytest.approx(p, abs=4.0 * (p * (1.0 - p) / n) ** 0.5)


def test_conditional_coherence_averages_targets_then_sets() -> None:
    labels = random_labels(300, 2)["a"]
    generator = torch.Generator().manual_seed(3)
    predictions = {
        observed: {
            m: torch.where(torch.rand(300, generator=generator) < 0.3, (labels + 1) % 3, labels)
            for m in NAMES
            if m not in observed
        }
        for size in (1, 2, 3)
        for observed in combinations(NAMES, size)
    }
    result = conditional_coherence(predictions, labels)
    expected = {
        observed: np.mean([accuracy_score(labels, p) for p in generated.values()])
        for observed, generated in predictions.items()
    }
    assert result.num_samples == 300
    assert len(result.values) == 4 * 3 + 6 * 2 + 4
    assert result.values[("a", "b"), "d"] == pytest.approx(accuracy_score(labels, predictions["a", "b"]["d"]))
    assert result.given("c", "a") == pytest.approx(expected["a", "c"])
    by_size = result.by_size()
    assert list(by_size) == [1, 2, 3]
    for size, value in by_size.items():
        assert value == pytest.approx(np.mean([v for k, v in expected.items() if len(k) == size]))
    assert result.mean == pytest.approx(np.mean(list(expected.values())))
    # Palumbo et al.: every modality from every single other one, averaged over all pairs.
    single = conditional_coherence({k: v for k, v in predictions.items() if len(k) == 1}, labels)
    pairs = [accuracy_score(labels, predictions[(i,)][j]) for i in NAMES for j in NAMES if i != j]
    assert single.mean == pytest.approx(np.mean(pairs))
    with pytest.raises(ValueError, match=r"nothing was generated from \('z',\)"):
        result.given("z")


def test_bad_predictions_are_refused() -> None:
    good = random_labels(6, 0)
    with pytest.raises(ValueError, match=r"at least two different modalities, got \['a'\]"):
        unconditional_coherence(good, modalities=["a"])
    with pytest.raises(ValueError, match="at least two different modalities"):
        unconditional_coherence(good, modalities=["a", "a"])
    with pytest.raises(ValueError, match="unknown modality 'z'; there are a, b, c, d"):
        unconditional_coherence(good, modalities=["a", "z"])
    with pytest.raises(ValueError, match="expected one positive number for all"):
        agreement_curve({**good, "b": good["b"][:5]})
    with pytest.raises(ValueError, match=r"predictions of 'b' are torch\.float32, expected integer labels"):
        agreement_curve({**good, "b": good["b"].float()})
    with pytest.raises(ValueError, match=r"predictions of 'b' have shape \(6, 1\)"):
        agreement_curve({**good, "b": good["b"][:, None]})
    with pytest.raises(ValueError, match=r"predictions of 'a' have shape \(0,\)"):
        agreement_curve({m: p[:0] for m, p in good.items()})


def test_bad_conditions_are_refused() -> None:
    labels = torch.tensor([0, 1, 2])
    predicted = torch.tensor([0, 1, 1])
    for wrong, message in (
        ({}, "nothing was generated"),
        ({("a",): {}}, "nothing was generated"),
        ({(): {"b": predicted}}, "tuple of different modalities"),
        ({"ab": {"c": predicted}}, "tuple of different modalities"),
        ({("a", "a"): {"b": predicted}}, "tuple of different modalities"),
        ({("a", "b"): {"c": predicted}, ("b", "a"): {"c": predicted}}, "appears twice"),
        ({("a",): {"a": predicted}}, "'a' is observed"),
        ({("a",): {"b": predicted[:2]}}, "'b' given .* has 2 labels, expected 3"),
        ({("a",): {"b": predicted.double()}}, "'b' are torch.float64"),
    ):
        with pytest.raises(ValueError, match=message):
            conditional_coherence(wrong, labels)
    with pytest.raises(ValueError, match="labels are all 4; conditional coherence needs at least two classes"):
        conditional_coherence({("a",): {"b": predicted}}, torch.tensor([4, 4, 4]))
    for bad in (labels.float(), labels[:0], labels[:, None]):
        with pytest.raises(ValueError, match="labels need to be integers"):
            conditional_coherence({("a",): {"b": predicted}}, bad)


def test_bad_images_and_networks_are_refused() -> None:
    x = torch.rand(4, 1, 8, 8)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
    for bad in (float("nan"), -0.1, 1.1):
        broken = x.clone()
        broken[2, 0, 1, 1] = bad
        with pytest.raises(ValueError, match=r"images of 'a' need floating-point values in \[0, 1\]"):
            classify({"a": network}, {"a": broken})
    with pytest.raises(ValueError, match="modality 'b' has no classifier; there are a"):
        classify({"a": network}, {"b": x})
    with pytest.raises(ValueError, match=r"samples, expected one positive number"):
        classify({"a": network, "b": network}, {"a": x, "b": x[:3]})
    with pytest.raises(ValueError, match=r"logits of 'a' have shape \(4, 1, 8, 8\)"):
        classify({"a": lambda v: v}, {"a": x})
    with pytest.raises(ValueError, match="logits of 'a' are not numbers"):
        classify({"a": lambda v: torch.full((len(v), 10), float("nan"))}, {"a": x})
    with pytest.raises(ValueError, match="batch_size is 0"):
        classify({"a": network}, {"a": x}, batch_size=0)
    with pytest.raises(ValueError, match="'a' is in training mode"):
        classify({"a": network.train()}, {"a": x})
