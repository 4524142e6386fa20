"""Log-densities against scipy, importance-weighted estimates against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from repro.metrics.likelihood import (
    gaussian_log_prob,
    importance_weighted,
    laplace_log_prob,
    mixture_log_prob,
    stratified_importance_weighted,
)


@pytest.mark.parametrize(
    ("log_prob", "reference"), [(gaussian_log_prob, stats.norm), (laplace_log_prob, stats.laplace)], ids=["norm", "lap"]
)
@pytest.mark.parametrize("event_dims", [0, 1, 2])
def test_log_densities_agree_with_scipy(log_prob, reference, event_dims):
    g = torch.Generator().manual_seed(0)
    x, mean = torch.randn(2, 5, 3, 4, generator=g, dtype=torch.float64)
    scale = torch.rand(5, 3, 4, generator=g, dtype=torch.float64) + 0.1
    expected = reference.logpdf(x.numpy(), mean.numpy(), scale.numpy())
    expected = expected.sum(axis=tuple(range(3 - event_dims, 3)))
    actual = log_prob(x, mean, scale, event_dims=event_dims)
    assert actual.shape == x.shape[: 3 - event_dims]
    torch.testing.assert_close(actual, torch.as_tensor(expected))


def test_mixture_log_prob_is_the_mean_of_densities():
    g = torch.Generator().manual_seed(1)
    z = torch.randn(7, 5, 2, generator=g, dtype=torch.float64)
    means = torch.randn(3, 5, 2, generator=g, dtype=torch.float64)
    scales = torch.rand(3, 5, 2, generator=g, dtype=torch.float64) + 0.2
    density = stats.norm.pdf(z.numpy()[None], means.numpy()[:, None], scales.numpy()[:, None]).prod(-1).mean(0)
    torch.testing.assert_close(mixture_log_prob(z, means, scales).exp(), torch.as_tensor(density))


@pytest.mark.parametrize("chunk_size", [1, 7, 30, 100])
def test_chunks_do_not_change_the_estimate(chunk_size):
    weights = torch.randn(30, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 50
    asked = []

    def log_weight(k):
        start = sum(asked)
        asked.append(k)
        return weights[start : start + k]

    estimate = importance_weighted(log_weight, 30, chunk_size=chunk_size)
    torch.testing.assert_close(estimate, weights.logsumexp(0) - math.log(30))
    assert sum(asked) == 30
    assert max(asked) <= chunk_size


def test_impossible_points_have_minus_infinity():
    estimate = importance_weighted(lambda k: torch.full((k, 2), -math.inf), 10, chunk_size=4)
    assert torch.equal(estimate, torch.full((2,), -math.inf))


def conjugate(x):
    """log p(x) under z ~ N(0, 1), x | z ~ N(z, 1): N(0, 2)."""
    return torch.as_tensor(stats.norm.logpdf(x.numpy(), scale=math.sqrt(2)))


def test_importance_weighted_estimates_a_conjugate_likelihood():
    g = torch.Generator().manual_seed(3)
    x = torch.tensor([-1.5, 0.0, 2.0], dtype=torch.float64)
    mean, scale = x[:, None] / 2 + 0.2, torch.full((3, 1), 0.9, dtype=torch.float64)
    zero = torch.zeros((), dtype=torch.float64)

    def log_weight(k):
        z = mean + scale * torch.randn(k, 3, 1, generator=g, dtype=torch.float64)
        return (
            gaussian_log_prob(z, zero, 1.0)
            + gaussian_log_prob(x[:, None], z, 1.0)
            - mixture_log_prob(z, mean[None], scale[None])
        )

    # The weights' relative deviation is about 0.6: 3 standard errors of 20,000 samples are 0.013.
    torch.testing.assert_close(importance_weighted(log_weight, 20_000), conjugate(x), atol=0.015, rtol=0)


def test_strata_remove_the_bias_of_a_single_expert():
    g = torch.Generator().manual_seed(4)
    x = torch.tensor([0.0, 1.0], dtype=torch.float64)
    # Two narrow, displaced experts: neither covers the posterior N(x/2, 1/2), the mixture does.
    means = torch.stack([x[:, None] / 2 - 0.7, x[:, None] / 2 + 0.7])
    scales = torch.full_like(means, 0.6)
    zero = torch.zeros((), dtype=torch.float64)

    def component(s):
        def log_weight(k):
            z = means[s] + scales[s] * torch.randn(k, 2, 1, generator=g, dtype=torch.float64)
            joint = gaussian_log_prob(z, zero, 1.0) + gaussian_log_prob(x[:, None], z, 1.0)
            return joint - mixture_log_prob(z, means, scales)

        return log_weight

    estimate = stratified_importance_weighted([component(0), component(1)], 20_001)
    torch.testing.assert_close(estimate, conjugate(x), atol=0.02, rtol=0)


def test_strata_weigh_equally_whatever_their_sizes():
    # Component s has constant weights e^s: the estimate is their mean, exactly, with 3 and 2 samples as with 2 and 2.
    strata = [lambda k, s=s: torch.full((k, 1), float(s), dtype=torch.float64) for s in (1, 2)]
    expected = torch.tensor([math.log((math.e + math.e**2) / 2)], dtype=torch.float64)
    for num in (2, 4, 5):
        torch.testing.assert_close(stratified_importance_weighted(strata, num), expected)


def test_bad_calls_say_what_is_wrong():
    def zeros(k):
        return torch.zeros(k, 2)

    with pytest.raises(ValueError, match="num_samples 0 and chunk_size 100"):
        importance_weighted(zeros, 0)
    with pytest.raises(ValueError, match="num_samples 5 and chunk_size 0"):
        importance_weighted(zeros, 5, chunk_size=0)
    with pytest.raises(ValueError, match=r"log_weight\(5\) has shape \(2, 5\), its first dimension must be 5"):
        importance_weighted(lambda k: torch.zeros(2, k), 5)
    with pytest.raises(ValueError, match="2 importance samples for 3 mixture components"):
        stratified_importance_weighted([zeros] * 3, 2)
