"""Canonical and distance correlation against other definitions, their biases, gradients and bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from torch import Tensor

from repro.metrics.correlation import (
    canonical_correlations,
    cca_loss,
    distance_correlation,
    distance_correlation_unbiased,
    fit_canonical_map,
    participation_ratio,
)


def pair(n: int, rho: float | list[float], d: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    x, e = torch.randn(2, n, d, generator=g, dtype=torch.float64)
    rho = torch.as_tensor(rho, dtype=torch.float64)
    return x, rho * x + (1 - rho**2).sqrt() * e


def mixed(x: Tensor, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return x @ torch.randn(x.shape[1], x.shape[1], generator=g, dtype=x.dtype) + 3.0


def test_canonical_correlations_are_cosines_of_the_angles_between_column_spaces() -> None:
    x, y = pair(60, [0.9, 0.5, 0.2, 0.0])
    x, y = mixed(x, 1), mixed(y, 2)[:, :3]
    bases = [np.linalg.qr((v - v.mean(0)).numpy())[0] for v in (x, y)]
    expected = np.linalg.svd(bases[0].T @ bases[1], compute_uv=False)
    torch.testing.assert_close(canonical_correlations(x, y), torch.from_numpy(expected), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(canonical_correlations(mixed(x, 5), y), torch.from_numpy(expected), rtol=1e-7, atol=1e-7)
    assert canonical_correlations(x, y, ridge=10.0).max() < expected.max()


def test_loss_is_minus_their_sum_with_exact_gradients() -> None:
    x, y = (v.requires_grad_() for v in pair(7, 0.5, 2))
    assert cca_loss(x, y, ridge=0.1).item() == pytest.approx(-canonical_correlations(x, y, ridge=0.1).sum().item())
    assert torch.autograd.gradcheck(lambda a, b: cca_loss(a, b, ridge=0.1), (x, y))
    assert cca_loss(x.float(), y.float()).dtype == torch.float32


def test_sample_correlations_are_biased_and_held_out_ones_are_not() -> None:
    """Erratum E14: at no correlation, 16 features and 128 samples the mean is 0.31 already."""
    fitted, held_out = [], []
    for seed in range(20):
        x, y = pair(128, 0.0, 16, seed)
        fitted.append(canonical_correlations(x, y).mean())
        held_out.append(fit_canonical_map(x, y).correlations(*pair(128, 0.0, 16, 100 + seed)).mean())
    assert float(torch.stack(fitted).mean()) == pytest.approx(0.31, abs=0.01)
    # Each held-out coefficient has a standard deviation of 1/sqrt(128): 0.005 for the mean of 320, four times that.
    assert float(torch.stack(held_out).mean()) == pytest.approx(0.0, abs=0.02)


def test_map_whitens_and_rotates_to_equation_5() -> None:
    rho = [0.9, 0.6, 0.3, 0.0]
    x, y = pair(500, rho)
    x, y = mixed(x, 1), mixed(y[:, :3], 2)
    found = fit_canonical_map(x, y)
    u, v = found(x, y)
    covariance = torch.cat([u, v], 1).T.cov()
    expected = torch.eye(7, dtype=torch.float64)
    i = torch.arange(3)
    expected[i, 4 + i] = expected[4 + i, i] = found.fitted
    torch.testing.assert_close(covariance, expected, rtol=0, atol=1e-8)
    torch.testing.assert_close(found.fitted, canonical_correlations(x, y), rtol=0, atol=1e-9)
    torch.testing.assert_close(found.correlations(x, y), found.fitted, rtol=0, atol=1e-8)


def test_held_out_correlations_near_the_true_ones() -> None:
    x, y = pair(20_000, [0.9, 0.6, 0.3, 0.1])
    found = fit_canonical_map(x[:10_000], y[:10_000])
    held_out = found.correlations(x[10_000:], y[10_000:])
    torch.testing.assert_close(held_out, torch.tensor([0.9, 0.6, 0.3, 0.1], dtype=torch.float64), rtol=0, atol=0.04)


def naive(x: np.ndarray, y: np.ndarray, unbiased: bool) -> float:
    """Sums over samples one by one, as the definitions read."""
    n, centred = len(x), []
    for v in (x, y):
        d, c = cdist(v, v), np.zeros((n, n))
        for i in range(n):
            for j in range(n):
                if unbiased:
                    whole = d.sum() / ((n - 1) * (n - 2))
                    c[i, j] = 0 if i == j else d[i, j] - d[i].sum() / (n - 2) - d[:, j].sum() / (n - 2) + whole
                else:
                    c[i, j] = d[i, j] - d[i].mean() - d[:, j].mean() + d.mean()
        centred.append(c)
    a, b = centred
    ratio = (a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum())
    return ratio if unbiased else math.sqrt(ratio)


def test_distance_correlations_are_as_defined() -> None:
    x, y = pair(15, 0.5, 3)
    y = y[:, :2]
    assert float(distance_correlation(x, y)) == pytest.approx(naive(x.numpy(), y.numpy(), False), abs=1e-9)
    assert float(distance_correlation_unbiased(x, y)) == pytest.approx(naive(x.numpy(), y.numpy(), True), abs=1e-9)
    assert float(distance_correlation(x, 2 * x + 1)) == pytest.approx(1.0)
    assert float(distance_correlation_unbiased(x, 2 * x + 1)) == pytest.approx(1.0)


def test_bias_of_the_distance_correlation() -> None:
    """Erratum E14: on independent 128 x 16 data the biased one is 0.57."""
    biased, unbiased = [], []
    for seed in range(20):
        x, y = pair(128, 0.0, 16, seed)
        biased.append(float(distance_correlation(x, y)))
        unbiased.append(float(distance_correlation_unbiased(x, y)))
    assert np.mean(biased) == pytest.approx(0.57, abs=0.02)
    assert abs(np.mean(unbiased)) < 4 * np.std(unbiased, ddof=1) / math.sqrt(20)
    assert np.mean(unbiased) == pytest.approx(0.0, abs=0.01)


def test_distance_correlation_has_gradients_even_where_samples_coincide() -> None:
    x, y = pair(5, 0.5, 2)
    x.requires_grad_(), y.requires_grad_()
    assert torch.autograd.gradcheck(distance_correlation_unbiased, (x, y))
    twice = torch.cat([x.detach(), x.detach()]).requires_grad_()
    distance_correlation_unbiased(twice, torch.cat([y, y])).backward()
    assert bool(torch.isfinite(twice.grad).all())


def test_participation_ratio() -> None:
    g = torch.Generator().manual_seed(0)
    a = torch.randn(3, 6, 6, generator=g, dtype=torch.float64)
    covariance = a @ a.mT
    eigenvalues = torch.linalg.eigvalsh(covariance)
    torch.testing.assert_close(participation_ratio(covariance), eigenvalues.sum(1) ** 2 / (eigenvalues**2).sum(1))
    assert float(participation_ratio(torch.eye(7))) == pytest.approx(7.0)
    block = torch.eye(10)
    prior = torch.cat([torch.cat([block, 0.9 * block], 1), torch.cat([0.9 * block, block], 1)])
    assert float(participation_ratio(prior)) == pytest.approx(20 / 1.81)  # the paper: "close to 11"


@pytest.mark.parametrize(
    "function", [canonical_correlations, cca_loss, fit_canonical_map, distance_correlation_unbiased]
)
def test_bad_input_is_named(function) -> None:
    x, y = pair(20, 0.5)
    with pytest.raises(ValueError, match="x has 20 samples, y has 19"):
        function(x, y[1:])
    flat = y.clone()
    flat[:, 2] = 1.5
    with pytest.raises(ValueError, match=r"features \[2\] of y are constant"):
        function(x, flat)
    flat[3, 2] = torch.nan
    with pytest.raises(ValueError, match="y has values that are not finite"):
        function(x, flat)
    with pytest.raises(ValueError, match=r"x has shape \(20,\)"):
        function(x[:, 0], y)


def test_batches_too_small_and_singular_covariances_are_named() -> None:
    x, y = pair(5, 0.5)
    for function in (canonical_correlations, cca_loss, fit_canonical_map):
        with pytest.raises(ValueError, match="5 samples of 4 and 4 features, needs at least 6"):
            function(x, y)
    with pytest.raises(ValueError, match="3 samples of 4 and 4 features, needs at least 4"):
        distance_correlation_unbiased(x[:3], y[:3])
    x, y = pair(50, 0.5)
    with pytest.raises(ValueError, match="covariance of y is singular"):
        canonical_correlations(x, torch.cat([y, y[:, :1] + y[:, 1:2]], 1))
    with pytest.raises(ValueError, match="ridge is -1"):
        cca_loss(x, y, ridge=-1)
    with pytest.raises(ValueError, match="must be square"):
        participation_ratio(x)
    with pytest.raises(ValueError, match="is zero"):
        participation_ratio(torch.zeros(2, 2))
