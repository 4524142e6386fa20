"""The generalised inverse Gaussian against scipy, quadrature, its limits and finite differences."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
import re

import numpy as np
import pytest
import scipy.stats
import torch
from scipy.integrate import cumulative_simpson
from torch import Tensor
from torch.autograd import gradcheck
from torch.distributions import Gamma, InverseGamma

from repro.distributions.generalized_inverse_gaussian import GeneralizedInverseGaussian, gig_log_normalizer

ORDERS = [-50.0, -5.0, -1.0, -0.5, 0.0, 0.3, 1.0, 2.5, 20.0]
OMEGAS = [1e-12, 1e-6, 1e-2, 0.3, 1.0, 10.0, 1e3, 1e4]


def tensor(values, dtype=torch.float64) -> Tensor:
    return torch.tensor(values, dtype=dtype)


def make(order, omega, ratio=1.0, dtype=torch.float64) -> GeneralizedInverseGaussian:
    """That of scipy's geninvgauss(order, omega) times sqrt(chi / psi) = ratio."""
    return GeneralizedInverseGaussian(order, tensor(omega * ratio, dtype), tensor(omega / ratio, dtype))


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def grid_of(order: float, omega: float) -> tuple[np.ndarray, np.ndarray]:
    """ln w over all the mass of chi = psi = omega, and its unnormalised density there; independent of the package."""
    mode = math.asinh(order / omega)
    fall = math.inf
    reach = 1e-6
    while fall > -45:  # widen until both ends are negligible
        reach *= 1.5
        ends = np.array([mode - reach, mode + reach])
        fall = (order * (ends - mode) - omega * (np.cosh(ends) - math.cosh(mode))).max()
    y = np.linspace(mode - reach, mode + reach, 20_001)
    return y, np.exp(order * (y - mode) - omega * (np.cosh(y) - math.cosh(mode)))


@pytest.mark.parametrize("order", [-3.0, -1.0, -0.5, 0.0, 0.7, 2.0, 30.0])
@pytest.mark.parametrize("omega", [1e-3, 0.5, 4.0, 200.0])
def test_density_agrees_with_scipy(order, omega):
    reference = scipy.stats.geninvgauss(order, omega, scale=1.7)
    p = make(order, omega, 1.7)
    w = p.sample((200,), generator())
    torch.testing.assert_close(p.log_prob(w), torch.from_numpy(reference.logpdf(w.numpy())), rtol=1e-9, atol=1e-9)


def test_samples_of_every_regime_in_one_batch_follow_the_density():
    """Kolmogorov-Smirnov, 20,000 draws a cell; the smallest of 72 p-values is under 1e-4 in one of 140 seeds."""
    cells = list(itertools.product(ORDERS, OMEGAS))
    order, omega = tensor(cells).unbind(-1)
    w = GeneralizedInverseGaussian(order, 3 * omega, omega / 3).sample((20_000,), generator())
    assert w.isfinite().all()
    assert (w > 0).all()
    pvalues = []
    for k, cell in enumerate(cells):
        y, density = grid_of(*cell)
        cdf = cumulative_simpson(density, x=y, initial=0)
        draws = (w[:, k] / 3).log().numpy()
        pvalues.append(scipy.stats.kstest(draws, lambda v, y=y, c=cdf: np.interp(v, y, c / c[-1])).pvalue)
    assert min(pvalues) > 1e-4
    assert np.mean(pvalues) > 0.4  # nor are they all small: uniform p-values average 0.5 with error 0.034


def log_integral(order: float, omega: float) -> float:
    y, density = grid_of(order, omega)
    mode = math.asinh(order / omega)
    return math.log(np.trapezoid(density, y)) + order * mode - omega * math.cosh(mode)


def test_normaliser_and_moments_agree_with_quadrature():
    for order, omega in itertools.product(ORDERS, OMEGAS):
        p = make(order, omega, 1.3)
        total, first, second = (log_integral(order + k, omega) for k in range(3))
        normaliser = gig_log_normalizer(order, p.chi, p.psi).item()
        assert normaliser == pytest.approx(total + order * math.log(1.3), rel=1e-11, abs=1e-9)
        mean, square = 1.3 * math.exp(first - total), 1.3**2 * math.exp(second - total)
        assert p.mean.item() == pytest.approx(mean, rel=1e-9)
        assert p.variance.item() == pytest.approx(square - mean**2, rel=1e-8, abs=1e-10 * square)


def test_moments_keep_their_digits_in_single_precision():
    for order, omega in itertools.product((-3.0, 0.0, 1.0), (1e-12, 1e-2, 1.0, 1e4)):
        single, double = make(order, omega, dtype=torch.float32), make(order, omega)
        torch.testing.assert_close(single.mean, double.mean.float(), rtol=2e-6, atol=0)
        torch.testing.assert_close(single.variance, double.variance.float(), rtol=2e-6, atol=0)


def test_limits_are_gamma_and_inverse_gamma():
    w, zero, two = tensor([0.1, 1.0, 3.0]), tensor(0.0), tensor(3.0)
    gamma, inverse = Gamma(tensor(2.5), two / 2), InverseGamma(tensor(2.5), two / 2)
    for p, q in (
        (GeneralizedInverseGaussian(2.5, zero, two), gamma),
        (GeneralizedInverseGaussian(-2.5, two, zero), inverse),
    ):
        torch.testing.assert_close(p.log_prob(w), q.log_prob(w))
        torch.testing.assert_close(p.mean, q.mean)
        torch.testing.assert_close(p.variance, q.variance)
        draws = p.sample((20_000,), generator()).numpy()
        cdf = scipy.stats.gamma(2.5, scale=2 / 3) if q is gamma else scipy.stats.invgamma(2.5, scale=1.5)
        assert scipy.stats.kstest(draws, cdf.cdf).pvalue > 1e-3
    heavy = GeneralizedInverseGaussian(tensor([-0.3, -1.5]), two, zero)
    assert heavy.mean.tolist() == [math.inf, 3.0]
    assert heavy.variance.tolist() == [math.inf, math.inf]
    assert (GeneralizedInverseGaussian(1e-3, zero.float(), two.float()).sample((1000,), generator()) > 0).all()


@pytest.mark.parametrize("order", [-3.0, -1.0, -0.5, 0.0, 0.5, 2.5])
def test_gradients_of_samples_are_those_of_the_quantile(order):
    """At a fixed value of the distribution function, by central differences of scipy's quantile."""
    chi, psi = tensor(1.3).requires_grad_(), tensor(0.8).requires_grad_()
    w = GeneralizedInverseGaussian(order, chi, psi).rsample((3,), generator())
    reference = scipy.stats.geninvgauss(order, math.sqrt(1.3 * 0.8), scale=math.sqrt(1.3 / 0.8))
    step = 1e-3
    for value in w:
        level = reference.cdf(value.item())
        slopes = torch.autograd.grad(value, (chi, psi), retain_graph=True)
        for k, slope in enumerate(slopes):
            ends = []
            for sign in (1, -1):
                c, d = (1.3 * (1 + sign * step), 0.8) if k == 0 else (1.3, 0.8 * (1 + sign * step))
                ends.append(scipy.stats.geninvgauss.ppf(level, order, math.sqrt(c * d), scale=math.sqrt(c / d)))
            difference = (ends[0] - ends[1]) / (2 * step * (1.3, 0.8)[k])
            assert slope.item() == pytest.approx(difference, rel=1e-4)


def test_gradients_of_samples_scale_exactly_in_every_regime():
    """w(cχ, ψ/c) = c w(χ, ψ), hence χ ∂w/∂χ − ψ ∂w/∂ψ = w."""
    for order, omega in itertools.product(ORDERS, OMEGAS):
        chi, psi = tensor([2 * omega] * 20).requires_grad_(), tensor([omega / 2] * 20).requires_grad_()
        w = GeneralizedInverseGaussian(order, chi, psi).rsample((), generator())
        by_chi, by_psi = torch.autograd.grad(w.sum(), (chi, psi))
        torch.testing.assert_close(chi * by_chi - psi * by_psi, w, rtol=1e-9, atol=0)
        assert (by_chi >= 0).all()
        assert (by_psi <= 0).all()


def test_mean_gradient_of_samples_agrees_with_that_of_the_mean():
    n = 30_000
    for order in (-1.0, 0.0, 1.5):
        chi, psi = tensor([0.7] * n).requires_grad_(), tensor([2.1] * n).requires_grad_()
        p = GeneralizedInverseGaussian(order, chi, psi)
        sampled = torch.autograd.grad(p.rsample((), generator()).sum(), (chi, psi))
        exact = torch.autograd.grad(p.mean.sum(), (chi, psi))
        for draws, slope in zip(sampled, exact, strict=True):
            assert abs(draws.mean() - slope[0]) < 4 * draws.std() / math.sqrt(n)


def test_gradients_of_density_and_moments():
    chi, psi = tensor([0.4, 2.0]).requires_grad_(), tensor([1.5, 0.3]).requires_grad_()
    w = tensor([[0.3], [2.0]]).requires_grad_()
    for order in (-1.5, -0.5, 0.0, 1.0, 0.3):

        def function(w, chi, psi, order=order):
            p = GeneralizedInverseGaussian(order, chi, psi, validate_args=False)
            return p.log_prob(w), p.mean, p.variance

        assert gradcheck(function, (w, chi, psi))


def test_gradient_flows_past_a_chi_of_zero():
    psi = tensor([2.0, 2.0]).requires_grad_()
    w = GeneralizedInverseGaussian(tensor([1.0, 0.3]), tensor(0.0), psi).rsample((50,), generator())
    (slope,) = torch.autograd.grad(w.sum(), psi)
    torch.testing.assert_close(slope, -w.detach().sum(0) / 2)  # a gamma's scale


def test_generator_determinism_expansion_and_copies():
    p = make(-0.5, 0.8)
    state = torch.get_rng_state()
    w = p.sample((1000,), generator())
    assert torch.equal(w, p.rsample((1000,), generator()))
    assert not torch.equal(w, p.sample((1000,), generator(1)))
    assert torch.equal(torch.get_rng_state(), state)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert torch.equal(w, p.sample((1000,)))
    e = GeneralizedInverseGaussian(tensor([[1.0], [-1.0]]), tensor([1.0, 2.0, 3.0]), tensor(1.0)).expand((4, 2, 3))
    assert e.batch_shape == e.mean.shape == e.variance.shape == (4, 2, 3)
    assert e.sample((5,), generator()).shape == (5, 4, 2, 3)
    assert e.sample((0,)).shape == (0, 4, 2, 3)
    assert repr(p) == "GeneralizedInverseGaussian(batch_shape=())"
    for q in (copy.deepcopy(p), pickle.loads(pickle.dumps(p))):
        assert torch.equal(q.sample((3,), generator()), w[:0].new_tensor(p.sample((3,), generator()).tolist()))


def test_without_validation_bad_parameters_neither_hang_nor_spread():
    chi = tensor([1.0, math.nan, 0.0, 1e-300])
    p = GeneralizedInverseGaussian(-1.0, chi, torch.ones_like(chi), validate_args=False)
    w = p.sample((100,), generator())
    assert w[:, 1].isnan().all()
    assert (w[:, 2] < 1e-150).all()  # the limit: all mass at 0
    assert w[:, [0, 2, 3]].isfinite().all()
    assert p.mean[2] == p.variance[2] == 0


def test_errors_are_one_line_and_name_the_parameter():
    one, zero, nan = tensor([1.0]), tensor([0.0]), tensor([math.nan])
    gig = GeneralizedInverseGaussian
    for match, call in {
        "chi of shape (1,) has NaN": lambda: gig(1.0, nan, one),
        "psi of shape (1,) has NaN": lambda: gig(1.0, one, nan / 0),
        "order of shape () has NaN": lambda: gig(math.inf, one, one),
        "chi of shape (1,) has negative entries": lambda: gig(1.0, -one, one),
        "chi of shape (1,) is 0 where the order is <= 0": lambda: gig(0.0, zero, one),
        "psi of shape (1,) is 0 where the order is >= 0": lambda: gig(tensor([-1.0, 0.0]), one, zero),
        "order requires a gradient": lambda: gig(tensor([1.0]).requires_grad_(), one, one),
        "chi (2,), psi (3,)": lambda: gig(1.0, one.expand(2), one.expand(3)),
        "value of shape (1,) has entries that are NaN or not": lambda: gig(1.0, one, one).log_prob(zero),
    }.items():
        with pytest.raises(ValueError, match=re.escape(match)) as caught:
            call()
        assert "\n" not in str(caught.value)
