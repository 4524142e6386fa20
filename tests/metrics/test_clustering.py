"""Classes from latents, errors and rank correlations of features, coverage of intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from repro.metrics.calibration import interval_coverage
from repro.metrics.clustering import class_scores, fit_classifier, score_classifier
from repro.metrics.omics import constant_features, mean_absolute_error, spearman_per_feature


def entropy(counts: np.ndarray) -> float:
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log(p)).sum())


def test_scores_are_as_the_appendix_defines_them() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(4, size=200)
    predicted = np.where(rng.random(200) < 0.7, true, rng.integers(4, size=200))
    table = np.zeros((4, 4))
    np.add.at(table, (predicted, true), 1)
    rows, columns = entropy(table.sum(1)), entropy(table.sum(0))
    information = rows + columns - entropy(table.ravel())
    pairs = lambda x: (x * (x - 1) / 2).sum()  # noqa: E731
    expected = pairs(table.sum(1)) * pairs(table.sum(0)) / (200 * 199 / 2)
    ari = (pairs(table) - expected) / ((pairs(table.sum(1)) + pairs(table.sum(0))) / 2 - expected)
    scores = class_scores(predicted, true)
    assert scores.accuracy == pytest.approx((predicted == true).mean())
    assert scores.nmi == pytest.approx(2 * information / (rows + columns))
    assert scores.ari == pytest.approx(ari)
    assert class_scores(true, true) == class_scores(true + 0, true)
    assert class_scores(true, true).ari == 1.0


def clusters(n: int, seed: int) -> tuple[torch.Tensor, np.ndarray]:
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    centres = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    return centres[labels] + torch.randn(n, 2, generator=g), labels.numpy()


def test_classifier_reads_separable_classes_and_is_deterministic() -> None:
    classifier = fit_classifier(*clusters(90, 0))
    again = fit_classifier(*clusters(90, 0))
    z, y = clusters(60, 1)
    assert score_classifier(classifier, z, y).accuracy > 0.98
    assert np.array_equal(classifier.predict_proba(z.numpy()), again.predict_proba(z.numpy()))
    # The scale of the latents does not matter to a classifier that standardises.
    train, labels = clusters(90, 0)
    assert score_classifier(fit_classifier(1000 * train, labels), 1000 * z, y) == score_classifier(classifier, z, y)


def test_classes_that_cannot_be_read_are_named() -> None:
    z, y = clusters(60, 0)
    classifier = fit_classifier(z[y < 2], y[y < 2])
    with pytest.raises(ValueError, match=r"classes \[2\] are absent from the training split, which has \[0, 1\]"):
        score_classifier(classifier, z, y)
    with pytest.raises(ValueError, match="class \\[1\\] alone"):
        fit_classifier(z[y == 1], y[y == 1])
    with pytest.raises(ValueError, match="all 2 latents are constant"):
        fit_classifier(torch.ones(60, 2), y)
    with pytest.raises(ValueError, match="not finite"):
        fit_classifier(z * torch.inf, y)
    with pytest.raises(ValueError, match="fitted on 2 a sample"):
        score_classifier(classifier, z[y < 2][:, :1], y[y < 2])
    with pytest.raises(ValueError, match="must be"):
        class_scores(y, y[1:])


def test_errors_and_rank_correlations_of_features() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(size=(40, 5)).round(1)  # with ties
    predicted = true + rng.normal(size=(40, 5))
    expected = [spearmanr(predicted[:, i], true[:, i]).statistic for i in range(5)]
    np.testing.assert_allclose(spearman_per_feature(torch.from_numpy(predicted), true), expected, atol=1e-12)
    assert mean_absolute_error(predicted, true) == pytest.approx(np.abs(predicted - true).mean())
    distinct = rng.permuted(np.tile(np.arange(20.0)[:, None], 2), axis=0)
    d = distinct[:, 0] - distinct[:, 1]
    expected = 1 - 6 * (d**2).sum() / (20 * (400 - 1))  # the paper's formula, right without ties
    assert spearman_per_feature(distinct[:, :1], distinct[:, 1:])[0] == pytest.approx(expected)


def test_features_without_ranks_are_named() -> None:
    x = np.random.default_rng(0).normal(size=(10, 3))
    flat = x.copy()
    flat[:, 1] = 2.0
    assert constant_features(torch.from_numpy(flat)).tolist() == [False, True, False]
    with pytest.raises(ValueError, match=r"features \[1\] of the predicted values are constant"):
        spearman_per_feature(flat, x)
    with pytest.raises(ValueError, match=r"features \[1\] of the true values are constant"):
        spearman_per_feature(x, flat)
    with pytest.raises(ValueError, match="must both be"):
        mean_absolute_error(x, x[1:])
    with pytest.raises(ValueError, match="predicted values are not all finite"):
        mean_absolute_error(x * np.inf, x)
    with pytest.raises(ValueError, match="needs at least 2"):
        spearman_per_feature(x[:1], x[:1])


def test_intervals_of_the_right_distribution_hold_their_level() -> None:
    g = torch.Generator().manual_seed(0)
    n = 4000
    samples, true = torch.randn(99, n, 2, generator=g).exp(), torch.randn(n, 2, generator=g).exp()
    true[:, 1] *= 3
    coverage = interval_coverage(samples, true, 0.9)
    assert coverage.shape == (2,)
    assert float(coverage[0]) == pytest.approx(0.9, abs=4 * math.sqrt(0.09 / n))
    assert float(coverage[1]) < 0.75
    assert float(interval_coverage(samples, true, 0.5)[0]) == pytest.approx(0.5, abs=4 * math.sqrt(0.25 / n) + 0.01)


def test_intervals_that_cannot_be_had_are_named() -> None:
    x = torch.randn(9, 5)
    with pytest.raises(ValueError, match="9 samples are too few"):
        interval_coverage(x, x[0], 0.95)
    with pytest.raises(ValueError, match="level is 1"):
        interval_coverage(x, x[0], 1.0)
    with pytest.raises(ValueError, match=r"must be \(K, N, ...\)"):
        interval_coverage(x, x[0, :3])
