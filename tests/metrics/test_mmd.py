"""Maximum mean discrepancy against closed forms of Gaussians, scikit-learn's kernel and exhaustive expectations."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.metrics.pairwise import rbf_kernel as sklearn_rbf
from torch import Tensor

from repro.metrics.mmd import median_bandwidth, mmd_squared, rbf_kernel


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def expected_kernel(mean: float, variance: float, h: float) -> float:
    """E k(x, y) in one dimension, where x - y has this mean and variance."""
    total = h**2 + variance
    return h / math.sqrt(total) * math.exp(-(mean**2) / (2 * total))


def gaussian_mmd(mean: float, s: float, t: float, h: float) -> float:
    """MMD² between N(0, s²) and N(mean, t²)."""
    within = expected_kernel(0, 2 * s**2, h) + expected_kernel(0, 2 * t**2, h)
    return within - 2 * expected_kernel(mean, s**2 + t**2, h)


def test_kernel_is_scikit_learn_s() -> None:
    x, y = draw(5, 3), draw(4, 3, seed=1) + 20
    for h in (0.3, 2.0, 15.0):
        expected = torch.from_numpy(sklearn_rbf(x, y, gamma=1 / (2 * h**2)))
        torch.testing.assert_close(rbf_kernel(x, y, h), expected, rtol=1e-9, atol=1e-14)


def test_median_is_that_of_different_points_and_has_no_gradient() -> None:
    x, y = draw(4, 3).requires_grad_(), draw(3, 3, seed=1)
    pooled = torch.cat([x, y]).detach()
    distances = sorted(float(d) for d in torch.pdist(pooled))
    h = median_bandwidth(x, y)
    assert float(h) == pytest.approx(distances[(len(distances) - 1) // 2])
    assert not h.requires_grad
    assert float(median_bandwidth(torch.ones(3, 2), torch.ones(3, 2))) > 0
    assert euclidean_distances(pooled).max() >= float(h)


@pytest.mark.parametrize("unbiased", [True, False])
def test_estimates_are_the_double_sums(unbiased: bool) -> None:
    x, y, h = draw(5, 2), draw(4, 2, seed=1) + 0.5, 0.8

    def k(a: Tensor, b: Tensor) -> float:
        return math.exp(-float((a - b).square().sum()) / (2 * h**2))

    within = []
    for points in (x, y):
        values = [
            k(points[i], points[j])
            for i, j in itertools.product(range(len(points)), repeat=2)
            if not unbiased or i != j
        ]
        within.append(sum(values) / len(values))
    across = [k(a, b) for a in x for b in y]
    expected = sum(within) - 2 * sum(across) / len(across)
    assert float(mmd_squared(x, y, bandwidth=h, unbiased=unbiased)) == pytest.approx(expected, rel=1e-12)


def test_unbiased_for_samples_of_every_kind_and_the_biased_one_is_too_high() -> None:
    """Expectation over all samples of 2 and 3 points from two discrete distributions."""
    atoms, h = torch.tensor([0.0, 1.0, 2.5], dtype=torch.float64), 0.9
    p, q = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]], dtype=torch.float64)
    kernel = rbf_kernel(atoms[:, None], atoms[:, None], h)
    exact = (p - q) @ kernel @ (p - q)
    totals = {True: 0.0, False: 0.0}
    for a in itertools.product(range(3), repeat=2):
        for b in itertools.product(range(3), repeat=3):
            probability = float(p[list(a)].prod() * q[list(b)].prod())
            for unbiased in totals:
                estimate = mmd_squared(atoms[list(a)][:, None], atoms[list(b)][:, None], bandwidth=h, unbiased=unbiased)
                totals[unbiased] += probability * float(estimate)
    assert totals[True] == pytest.approx(float(exact), rel=1e-12)
    excess = (1 - p @ kernel @ p) / 2 + (1 - q @ kernel @ q) / 3
    assert totals[False] == pytest.approx(float(exact + excess), rel=1e-12)


@pytest.mark.parametrize(("mean", "t"), [(0.0, 1.0), (1.0, 1.0), (0.5, 3.0)])
def test_large_samples_of_gaussians_reach_the_closed_form(mean: float, t: float) -> None:
    x, y = draw(200, 100, 1), mean + t * draw(200, 100, 1, seed=1)
    estimates = mmd_squared(x, y, bandwidth=1.3)
    error = float(estimates.std()) / math.sqrt(200)
    assert abs(float(estimates.mean()) - gaussian_mmd(mean, 1.0, t, 1.3)) < 4 * error
    assert error < 0.005


def test_lemma_1_is_the_wrong_way_round() -> None:
    """Erratum E5: ln(1 + MMD²) <= KL, and at most ln 3, where the paper has KL <= ln(1 + MMD²)."""
    for mean, t, h in itertools.product((0.2, 1.0, 4.0), (0.5, 1.0, 3.0), (0.1, 1.0, 10.0)):
        penalty = math.log1p(gaussian_mmd(mean, 1.0, t, h))
        kl = math.log(t) + (1 + mean**2) / (2 * t**2) - 0.5
        assert penalty < kl
        assert penalty < math.log(3)


def test_estimates_stay_in_their_bounds() -> None:
    spread = torch.tensor([[0.0], [100.0], [200.0]])
    assert float(mmd_squared(spread, spread, bandwidth=1.0)) == pytest.approx(-2 / 3, rel=1e-5)
    assert float(mmd_squared(spread, spread, bandwidth=1.0, unbiased=False)) == pytest.approx(0, abs=1e-6)
    apart = torch.zeros(3, 1)
    assert float(mmd_squared(apart, apart + 1e3, bandwidth=1.0)) == pytest.approx(2, rel=1e-6)


@pytest.mark.parametrize("bandwidth", [0.7, "median"])
@pytest.mark.parametrize("unbiased", [True, False])
def test_batches_are_independent_of_one_another(bandwidth: float | str, unbiased: bool) -> None:
    x, y = draw(3, 6, 2), 2 * draw(3, 5, 2, seed=1)
    together = mmd_squared(x, y, bandwidth=bandwidth, unbiased=unbiased)
    alone = [mmd_squared(a, b, bandwidth=bandwidth, unbiased=unbiased) for a, b in zip(x, y, strict=True)]
    torch.testing.assert_close(together, torch.stack(alone))


@pytest.mark.parametrize("unbiased", [True, False])
def test_gradient_is_that_of_finite_differences(unbiased: bool) -> None:
    x, y = draw(4, 2).requires_grad_(), draw(3, 2, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: mmd_squared(a, b, bandwidth=0.9, unbiased=unbiased), (x, y))


def test_bad_input_is_named() -> None:
    x = draw(4, 2)
    with pytest.raises(ValueError, match=r"x has shape \(4, 2\) and y \(4, 3\)"):
        mmd_squared(x, draw(4, 3))
    with pytest.raises(ValueError, match="y 1; at least 2"):
        mmd_squared(x, x[:1])
    with pytest.raises(ValueError, match="bandwidth is 0"):
        mmd_squared(x, x, bandwidth=0.0)
    with pytest.raises(ValueError, match="bandwidth is 'mean'"):
        mmd_squared(x, x, bandwidth="mean")
    assert math.isfinite(float(mmd_squared(x, x[:1], unbiased=False)))
