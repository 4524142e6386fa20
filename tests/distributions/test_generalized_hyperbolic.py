"""The generalised hyperbolic distribution against scipy, quadrature, Monte Carlo and finite differences."""

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
from scipy.integrate import cumulative_simpson, simpson
from torch import Tensor
from torch.autograd import gradcheck

from repro.distributions.block_gaussian import BlockGaussian
from repro.distributions.covariance import cholesky_scale_tril
from repro.distributions.generalized_hyperbolic import GeneralizedHyperbolic

SIZES = {"a": 2, "b": 1, "c": 3}
SUBSETS = [s for k in range(1, 3) for s in itertools.combinations(SIZES, k)]


def tensor(values, dtype=torch.float64) -> Tensor:
    return torch.tensor(values, dtype=dtype)


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(*shape, seed=1) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def scale_of(dim, batch=(), seed=0) -> Tensor:
    return cholesky_scale_tril(
        0.3 * draw(*batch, dim, seed=seed), 0.5 * draw(*batch, dim * (dim - 1) // 2, seed=seed + 1)
    )


def make(order=-0.5, chi=0.7, psi=1.3, batch=(), scale_batch=(), sizes=SIZES, **kwargs) -> GeneralizedHyperbolic:
    dim = sum(sizes.values())
    loc, skew = draw(*batch, dim, seed=3), 0.7 * draw(*batch, dim, seed=4)
    return GeneralizedHyperbolic(loc, skew, scale_of(dim, scale_batch), order, chi, psi, sizes, **kwargs)


def in_scipy(p: GeneralizedHyperbolic):
    """The same distribution in one dimension, with W scaled by L² so that scipy's Δ is 1."""
    scale = p.scale_tril.item()
    delta, beta = scale * p.mixing.chi.sqrt().item(), p.skew.item() / scale**2
    alpha = math.sqrt(p.mixing.psi.item() / scale**2 + beta**2)
    return scipy.stats.genhyperbolic(p.mixing.order, alpha * delta, beta * delta, loc=p.loc.item(), scale=delta)


@pytest.mark.parametrize("order", [-2.5, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("chi", [0.02, 0.7, 9.0])
def test_one_dimension_agrees_with_scipy(order, chi):
    p = make(order, chi, sizes={"a": 1})
    reference = in_scipy(p)
    y = p.sample((5_000,), generator())
    expected = torch.from_numpy(reference.logpdf(y.squeeze(-1).numpy()))
    torch.testing.assert_close(p.log_prob(y), expected, rtol=1e-10, atol=1e-10)
    moments = reference.stats("mv")
    assert p.mean.item() == pytest.approx(float(moments[0]), rel=1e-9)
    assert p.variance.item() == pytest.approx(float(moments[1]), rel=1e-9)
    grid = np.linspace(y.min().item() - 5, y.max().item() + 5, 40_001)
    cdf = cumulative_simpson(reference.pdf(grid), x=grid, initial=reference.cdf(grid[0]))
    result = scipy.stats.kstest(y.squeeze(-1).numpy(), lambda v: np.interp(v, grid, cdf))
    assert result.pvalue > 1e-3


@pytest.mark.parametrize(
    ("order", "chi", "psi"), [(-1.0, 0.5, 1.0), (0.0, 2.0, 3.0), (2.0, 0.3, 2.0), (-2.0, 1.0, 0.0)]
)
def test_density_of_two_dimensions_integrates_to_one_and_to_its_marginal(order, chi, psi):
    p = make(order, chi, psi, sizes={"a": 1, "b": 1})
    u = torch.linspace(-8.5, 8.5, 801, dtype=torch.float64)
    axis, weight = u.sinh(), u.cosh()  # far out, for tails of exponential or power law
    density = p.log_prob(torch.cartesian_prod(axis, axis).reshape(801, 801, 2)).exp()
    by_first = simpson((density * weight).numpy(), x=u.numpy())
    marginal = p.marginal(["a"]).log_prob(axis.unsqueeze(-1)).exp().numpy()
    near = np.abs(axis.numpy()) < 20  # of the second's range, enough is left
    np.testing.assert_allclose(by_first[near], marginal[near], rtol=1e-6)
    assert simpson(by_first * weight.numpy(), x=u.numpy()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("observed", SUBSETS)
@pytest.mark.parametrize("order", [-1.0, 0.0, 1.5])
def test_joint_is_marginal_times_conditional(observed, order):
    p = make(order, batch=(4,))
    z = p.sample((10,), generator())
    blocks = p.split(z)
    rest = [n for n in SIZES if n not in observed]
    m, c = p.marginal(reversed(observed)), p.condition({n: blocks[n] for n in observed})
    assert list(m.block_sizes) == list(observed)
    assert list(c.block_sizes) == rest
    assert c.batch_shape == (10, 4)
    total = m.log_prob(m.join({n: blocks[n] for n in observed})) + c.log_prob(c.join({n: blocks[n] for n in rest}))
    torch.testing.assert_close(total, p.log_prob(z), rtol=1e-11, atol=1e-11)


def test_conditioning_twice_is_conditioning_once():
    p, z = make(), draw(7, 6, seed=9)
    b = p.split(z)
    once, twice = p.condition({"a": b["a"], "c": b["c"]}), p.condition({"c": b["c"]}).condition({"a": b["a"]})
    torch.testing.assert_close(twice.log_prob(b["b"]), once.log_prob(b["b"]))
    for name in ("loc", "skew", "scale_tril", "mean", "covariance_matrix"):
        torch.testing.assert_close(getattr(twice, name), getattr(once, name))


@pytest.mark.parametrize("order", [-2.0, 0.0, 1.0])
def test_moments_agree_with_monte_carlo(order):
    p, n = make(order), 100_000
    y = p.sample((n,), generator())
    assert ((y.mean(0) - p.mean).abs() < 4.5 * p.stddev / math.sqrt(n)).all()
    centred = y - p.mean
    products = centred.unsqueeze(-1) * centred.unsqueeze(-2)
    error = 4.5 * products.std(0) / math.sqrt(n)
    assert ((products.mean(0) - p.covariance_matrix).abs() < error).all()
    torch.testing.assert_close(p.covariance_matrix.diagonal(), p.variance)


def test_matched_gaussian_has_the_same_moments_and_blocks():
    p = make(tensor([-1.0, 0.0, 2.0]), batch=(3,))
    q = p.matched_gaussian()
    assert isinstance(q, BlockGaussian)
    assert q.block_sizes == p.block_sizes
    assert q.batch_shape == (3,)
    torch.testing.assert_close(q.mean, p.mean)
    torch.testing.assert_close(q.covariance_matrix, p.covariance_matrix)


def test_parameters_per_element_are_those_of_single_distributions():
    order, chi, psi = tensor([-2.5, 0.0, 0.3, 1.0]), tensor([0.1, 1.0, 2.0, 0.0]), tensor([1.0, 2.0, 3.0, 4.0])
    p, y = make(order, chi, psi, batch=(4,), scale_batch=(4,)), draw(5, 4, 6)
    for k in range(4):
        single = GeneralizedHyperbolic(
            p.loc[k], p.skew[k], p.scale_tril[k], order[k].item(), chi[k].item(), psi[k].item(), SIZES
        )
        torch.testing.assert_close(p.log_prob(y)[:, k], single.log_prob(y[:, k]))
        torch.testing.assert_close(p.mean[k], single.mean)
        torch.testing.assert_close(p.covariance_matrix[k], single.covariance_matrix)


def test_gradients_of_density_moments_and_conditional():
    loc, skew, value = (draw(2, 3, seed=k).requires_grad_() for k in range(3))
    scale = (draw(3, 3, seed=5).tril(-1) + 1.5 * torch.eye(3)).requires_grad_()
    chi, psi = tensor([0.4, 2.0]).requires_grad_(), tensor([1.5, 0.3]).requires_grad_()
    for order in (-1.5, 0.0, 0.3):

        def function(loc, skew, scale, chi, psi, value, order=order):
            p = GeneralizedHyperbolic(loc, skew, scale.tril(), order, chi, psi, [2, 1], validate_args=False)
            c = p.condition({0: value[:, :2]})
            return p.log_prob(value), c.mean, c.variance, c.log_prob(value[:, 2:]), p.matched_gaussian().scale_tril

        assert gradcheck(function, (loc, skew, scale, chi, psi, value))


def test_gradients_of_samples_agree_with_those_of_the_moments():
    """Through the value that is conditioned on too: loc, skew, chi and psi all depend on the parameters."""
    n = 40_000
    skew = tensor([0.5, -0.4, 0.3]).repeat(n, 1).requires_grad_()  # one copy a draw, for one gradient a draw
    value = tensor([0.7, 0.2]).repeat(n, 1).requires_grad_()
    c = GeneralizedHyperbolic(torch.zeros(3).double(), skew, scale_of(3), 1.0, 0.1, 2.0, [2, 1]).condition({0: value})
    sampled = torch.autograd.grad(c.rsample((), generator()).square().sum(), (skew, value), retain_graph=True)
    exact = torch.autograd.grad((c.variance + c.mean.square()).sum(), (skew, value))
    for draws, slope in zip(sampled, exact, strict=True):
        assert (slope[0] != 0).all()
        assert ((draws.mean(0) - slope[0]).abs() < 4.5 * draws.std(0) / math.sqrt(n)).all()


def test_shapes_expansion_determinism_and_copies():
    p = make(batch=(3, 1), scale_batch=(4,), chi=tensor([1.0, 2.0, 3.0, 4.0]), psi=tensor(2.0))
    assert p.batch_shape == p.mixing.batch_shape == (3, 4)
    for name in ("mean", "loc", "skew", "variance"):
        assert getattr(p, name).shape == (3, 4, 6)
    assert p.covariance_matrix.shape == p.scale_tril.shape == (3, 4, 6, 6)
    assert torch.equal(p.covariance_matrix, p.covariance_matrix.mT)
    state = torch.get_rng_state()
    y = p.sample((2, 5), generator())
    assert y.shape == (2, 5, 3, 4, 6)
    assert torch.equal(y, p.rsample((2, 5), generator()))
    assert not y.requires_grad
    assert torch.equal(torch.get_rng_state(), state)
    e = p.expand((2, 3, 4))
    assert e.batch_shape == e.mixing.batch_shape == (2, 3, 4)
    torch.testing.assert_close(e.log_prob(y[:, 0]), p.log_prob(y[:, 0]))
    assert make().log_prob(draw(5, 6)).shape == (5,)
    assert make(batch=(4,)).log_prob(draw(6)).shape == (4,)
    assert repr(p) == "GeneralizedHyperbolic(batch_shape=(3, 4), block_sizes={'a': 2, 'b': 1, 'c': 3})"
    blocks = p.split(y)
    assert torch.equal(p.join(dict(reversed(blocks.items()))), y)
    for q in (copy.deepcopy(p), pickle.loads(pickle.dumps(p))):
        assert torch.equal(q.log_prob(y), p.log_prob(y))


def test_samples_and_densities_of_extreme_parameters_are_numbers():
    chi = tensor([1e-24, 1e-12, 1.0, 1e8])
    for dtype in (torch.float32, torch.float64):
        for order in (-50.0, -0.5, 0.0, 1.0):
            p = make(order, chi, tensor(1.0), batch=(4,))
            q = GeneralizedHyperbolic(
                p.loc.to(dtype), p.skew.to(dtype), p.scale_tril.to(dtype), order, chi.to(dtype), 1.0, SIZES
            )
            y = q.sample((200,), generator())
            assert y.isfinite().all()
            assert q.log_prob(y).isfinite().all()


def test_rounding_is_how_far_single_precision_moves_draws_in_units_of_the_scale():
    for factor in (1.0, 1e-3, 1e-6):
        p = make(1.0, 0.0, 2.0, batch=(2,))
        exact = GeneralizedHyperbolic(p.loc, p.skew, factor * p.scale_tril, 1.0, 0.0, 2.0, SIZES)
        rounded = GeneralizedHyperbolic(
            p.loc.float(), p.skew.float(), factor * p.scale_tril.float(), 1.0, 0.0, 2.0, SIZES
        )
        y = exact.sample((1000,), generator())
        moved = torch.linalg.solve_triangular(exact.scale_tril, (y.float() - y).unsqueeze(-1), upper=False)
        ratio = moved.squeeze(-1).norm(dim=-1).mean(0) / rounded.rounding
        assert rounded.rounding.shape == (2,)
        assert bool(((ratio > 0.02) & (ratio < 1)).all())
        assert torch.allclose(exact.rounding * 2**29, rounded.rounding, rtol=1e-5)
    assert make(batch=(3,), scale_batch=()).rounding.shape == (3,)


def test_errors_are_one_line_and_name_the_parameter():
    p, eye, zeros = make(), torch.eye(2), torch.zeros(2)
    gh = GeneralizedHyperbolic
    for match, call in {
        "loc has shape (3,)": lambda: gh(torch.zeros(3), zeros, eye, 1.0, 1.0, 1.0, [1, 1]),
        "skew has shape (3,)": lambda: gh(zeros, torch.zeros(3), eye, 1.0, 1.0, 1.0, [1, 1]),
        "scale_tril has shape (2,), blocks {0: 1, 1: 1} need (*batch, 2, 2)": lambda: gh(
            zeros, zeros, zeros, 1.0, 1.0, 1.0, [1, 1]
        ),
        "loc (5,), scale_tril (4,)": lambda: gh(zeros.expand(5, 2), zeros, eye.expand(4, 2, 2), 1.0, 1.0, 1.0, [1, 1]),
        "loc of shape (2,) has NaN": lambda: gh(zeros * torch.nan, zeros, eye, 1.0, 1.0, 1.0, [1, 1]),
        "skew of shape (2,) has NaN": lambda: gh(zeros, zeros / 0, eye, 1.0, 1.0, 1.0, [1, 1]),
        "is not lower triangular": lambda: gh(zeros, zeros, torch.ones(2, 2), 1.0, 1.0, 1.0, [1, 1]),
        "has non-positive diagonal": lambda: gh(zeros, zeros, -eye, 1.0, 1.0, 1.0, [1, 1]),
        "chi of shape () is 0 where the order is <= 0": lambda: gh(zeros, zeros, eye, 0.0, 0.0, 1.0, [1, 1]),
        "psi of shape () has negative": lambda: gh(zeros, zeros, eye, 0.0, 1.0, -1.0, [1, 1]),
        "chi of shape () has NaN": lambda: gh(zeros, zeros, eye, 0.0, math.nan, 1.0, [1, 1]),
        "block_sizes must be positive": lambda: gh(zeros, zeros, eye, 0.0, 1.0, 1.0, [2, 0]),
        "value has shape (5, 7)": lambda: p.log_prob(draw(5, 7)),
        "value of shape (6,) has NaN": lambda: p.log_prob(draw(6) * torch.nan),
        "unknown blocks ['x']": lambda: p.marginal(["x"]),
        "unknown blocks ['y']": lambda: p.condition({"y": draw(2)}),
        "no block is named": lambda: p.condition({}),
        "none remains": lambda: p.condition(p.split(draw(6))),
        "block 'a' has shape (3,), size 2": lambda: p.condition({"a": draw(3)}),
        "the values of blocks ['a'] have NaN": lambda: p.condition({"a": draw(2) * torch.nan}),
        "the values (5,)": lambda: make(batch=(4,)).condition({"a": draw(5, 2)}),
        "blocks ['b', 'c'] are missing": lambda: p.join({"a": draw(2)}),
        "no Gaussian matches": lambda: make(-0.5, 1.0, 0.0).matched_gaussian(),
    }.items():
        with pytest.raises(ValueError, match=re.escape(match)) as caught:
            call()
        assert "\n" not in str(caught.value)
