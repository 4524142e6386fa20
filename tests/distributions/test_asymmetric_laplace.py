"""The asymmetric Laplace distribution and its conditionals: closed forms, quadrature, Bayes' rule and errata."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
import re

import mpmath
import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from scipy.integrate import simpson
from torch import Tensor
from torch.autograd import gradcheck

from repro.distributions.asymmetric_laplace import AsymmetricLaplace
from repro.distributions.block_gaussian import BlockGaussian
from repro.distributions.covariance import cholesky_scale_tril
from repro.distributions.generalized_hyperbolic import GeneralizedHyperbolic

SIZES = {"a": 2, "b": 1, "c": 3, "d": 2}
SUBSETS = [s for k in range(1, 4) for s in itertools.combinations(SIZES, k)]


def tensor(values, dtype=torch.float64) -> Tensor:
    return torch.tensor(values, dtype=dtype)


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(*shape, seed=1, dtype=torch.float64) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64).to(dtype)


def make(batch=(), scale_batch=(), sizes=SIZES, dtype=torch.float64, **kwargs) -> AsymmetricLaplace:
    dim = sum(sizes.values())
    off = 0.5 * draw(*scale_batch, dim * (dim - 1) // 2, seed=7)
    scale = cholesky_scale_tril(0.3 * draw(*scale_batch, dim, seed=8), off)
    return AsymmetricLaplace(0.7 * draw(*batch, dim, seed=4, dtype=dtype), scale.to(dtype), sizes, **kwargs)


def parts(p: AsymmetricLaplace, observed) -> dict[str, np.ndarray]:
    """The matrices of the paper's appendix A.3, by plain inverses: i are the remaining blocks, j the observed ones."""
    starts, total = {}, 0
    for name, size in p.block_sizes.items():
        starts[name] = range(total, total + size)
        total += size
    j = [k for name in p.block_sizes if name in observed for k in starts[name]]
    i = [k for k in range(total) if k not in j]
    sigma, m = (p.scale_tril @ p.scale_tril.mT).numpy(), p.m.numpy()
    inverse = np.linalg.inv(sigma[np.ix_(j, j)])
    gain = sigma[np.ix_(i, j)] @ inverse
    delta = sigma[np.ix_(i, i)] - gain @ sigma[np.ix_(j, i)]
    return {"i": i, "j": j, "inverse": inverse, "gain": gain, "delta": delta, "skew": m[i] - gain @ m[j], "m_j": m[j]}


@pytest.mark.parametrize("dim", [1, 2, 3, 4, 5, 8])
def test_density_is_equation_32(dim):
    p, y = make(sizes={"a": dim}), draw(50, dim)
    sigma, m = (p.scale_tril @ p.scale_tril.mT).numpy(), p.m.numpy()
    inverse, v = np.linalg.inv(sigma), (2 - dim) / 2
    squares = np.einsum("ni,ij,nj->n", y.numpy(), inverse, y.numpy())
    c = 2 + m @ inverse @ m
    density = 2 * np.exp(y.numpy() @ inverse @ m) / ((2 * math.pi) ** (dim / 2) * math.sqrt(np.linalg.det(sigma)))
    density *= (squares / c) ** (v / 2) * scipy.special.kv(v, np.sqrt(c * squares))
    torch.testing.assert_close(p.log_prob(y), torch.from_numpy(density).log())


def test_one_dimension_agrees_with_scipy():
    p = AsymmetricLaplace(tensor([0.8]), tensor([[1.4]]), [1], loc=tensor([0.3]))
    root = math.sqrt(2 * 1.4**2 + 0.8**2)
    right, left = (root - 0.8) / 1.4**2, (root + 0.8) / 1.4**2  # rates of the two tails
    reference = scipy.stats.laplace_asymmetric(math.sqrt(right / left), loc=0.3, scale=1 / math.sqrt(right * left))
    y = p.sample((20_000,), generator()).squeeze(-1)
    torch.testing.assert_close(p.log_prob(y.unsqueeze(-1)), torch.from_numpy(reference.logpdf(y.numpy())))
    assert scipy.stats.kstest(y.numpy(), reference.cdf).pvalue > 1e-3
    assert p.mean.item() == pytest.approx(reference.mean())
    assert p.variance.item() == pytest.approx(reference.var())


def test_density_of_two_dimensions_integrates_to_one():
    """In polar coordinates of ln r, for the density is singular at 0."""
    p = make(sizes={"a": 2})
    u, angle = (torch.linspace(*ends, dtype=torch.float64) for ends in ((-20, 6, 1001), (0, 2 * math.pi, 201)))
    angle = angle[:-1]
    whitened = u.exp()[:, None, None] * torch.stack([angle.cos(), angle.sin()], -1)
    density = p.log_prob(whitened @ p.scale_tril.mT).exp() * p.scale_tril.diagonal().prod()
    over_angles = density.sum(-1) * 2 * math.pi / 200  # periodic: spectrally accurate
    assert simpson((over_angles * (2 * u).exp()).numpy(), x=u.numpy()) == pytest.approx(1, abs=1e-8)


def test_moments_are_m_and_sigma_plus_m_m():
    """Erratum E1: the covariance is Σ + m mᵀ, not Σ."""
    p, n = make(), 200_000
    sigma = p.scale_tril @ p.scale_tril.mT
    torch.testing.assert_close(p.mean, p.m)
    torch.testing.assert_close(p.covariance_matrix, sigma + torch.outer(p.m, p.m))
    y = p.sample((n,), generator())
    assert ((y.mean(0) - p.m).abs() < 4.5 * p.stddev / math.sqrt(n)).all()
    products = (y - p.mean).unsqueeze(-1) * (y - p.mean).unsqueeze(-2)
    error = products.std(0) / math.sqrt(n)
    assert ((products.mean(0) - p.covariance_matrix).abs() < 4.5 * error).all()
    assert ((products.mean(0) - sigma).abs() / error).max() > 20


def test_m_is_a_skew_and_the_location_is_an_option():
    """Erratum E2, with the docstring's numbers."""
    m, scale, n = torch.ones(8).double(), 0.1 * torch.eye(8).double(), 100_000
    p, q = AsymmetricLaplace(m, scale, [8]), AsymmetricLaplace(0 * m, scale, [8], loc=m)
    torch.testing.assert_close(p.stddev, tensor([math.sqrt(1.01)] * 8))
    share = (p.sample((n,), generator()).norm(dim=-1) < m.norm() / 4).double().mean()
    assert share.item() == pytest.approx(0.22, abs=0.01)
    torch.testing.assert_close(q.mean, m)
    torch.testing.assert_close(q.stddev, 0.1 * m)
    y = draw(5, 8)
    shifted = AsymmetricLaplace(m, scale, [8], loc=y[0])
    torch.testing.assert_close(shifted.log_prob(y[1:]), p.log_prob(y[1:] - y[0]))
    torch.testing.assert_close(shifted.sample((3,), generator()), p.sample((3,), generator()) + y[0])


@pytest.mark.parametrize("loc", [None, 0.4])
def test_characteristic_function_agrees_with_monte_carlo(loc):
    p, n, t = make(sizes={"a": 3}, loc=None if loc is None else torch.full((3,), loc).double()), 50_000, draw(20, 3)
    y = p.sample((n,), generator())
    phase = y @ t.mT
    exact = p.characteristic_function(t)
    for draws, value in ((phase.cos(), exact.real), (phase.sin(), exact.imag)):
        assert ((draws.mean(0) - value).abs() < 4.5 * draws.std(0) / math.sqrt(n)).all()
    assert p.characteristic_function(torch.zeros(3).double()).item() == 1
    assert make(batch=(4,)).characteristic_function(draw(5, 1, 8)).shape == (5, 4)


@pytest.mark.parametrize("observed", SUBSETS)
@pytest.mark.parametrize(("batch", "scale_batch"), [((), ()), ((4,), (4,)), ((4,), ())])
def test_joint_is_marginal_times_conditional(observed, batch, scale_batch):
    """Corollary 1 for every proper subset of unequal blocks: exact, with λ = 1 − d_j/2 (erratum E3)."""
    p = make(batch, scale_batch)
    z = p.sample((10,), generator())
    blocks = p.split(z)
    rest = [n for n in SIZES if n not in observed]
    m, c = p.marginal(reversed(observed)), p.condition({n: blocks[n] for n in reversed(observed)})
    assert isinstance(m, AsymmetricLaplace)
    assert isinstance(c, GeneralizedHyperbolic)
    assert not isinstance(c, AsymmetricLaplace)
    assert (list(m.block_sizes), list(c.block_sizes)) == (list(observed), rest)
    assert c.mixing.order == 1 - sum(SIZES[n] for n in observed) / 2
    total = m.log_prob(m.join({n: blocks[n] for n in observed})) + c.log_prob(c.join({n: blocks[n] for n in rest}))
    torch.testing.assert_close(total, p.log_prob(z), rtol=1e-10, atol=1e-10)


def equation_27(p, observed, z, order, dim) -> np.ndarray:
    """The conditional log-density of eq. 27, for the λ and the dimension that it is given."""
    q = parts(p, observed)
    z_i, z_j = z[:, q["i"]], z[:, q["j"]]
    root_delta = np.sqrt(np.einsum("ni,ij,nj->n", z_j, q["inverse"], z_j))
    xi, inverse = math.sqrt(2 + q["m_j"] @ q["inverse"] @ q["m_j"]), np.linalg.inv(q["delta"])
    beta = inverse @ q["skew"]
    alpha = math.sqrt(xi**2 + beta @ q["delta"] @ beta)
    centred = z_i - z_j @ q["gain"].T
    root = np.sqrt(root_delta**2 + np.einsum("ni,ij,nj->n", centred, inverse, centred))
    k = scipy.special.kv
    return (
        order * np.log(xi / root_delta)
        + centred @ beta
        - dim / 2 * math.log(2 * math.pi)
        - 0.5 * np.linalg.slogdet(q["delta"])[1]
        + np.log(k(dim / 2 - order, alpha * root) / k(order, root_delta * xi))
        - (dim / 2 - order) * np.log(root / alpha)
    )


@pytest.mark.parametrize("observed", [("a",), ("b",), ("c",), ("a", "c"), ("a", "c", "d")])
def test_conditional_is_equation_27_with_the_dimensions_swapped_back(observed):
    """Erratum E3: as printed, with λ = 1 − d_i/2 and the observed dimension, it is off by more than a nat."""
    p = make()
    z = p.sample((200,), generator())
    blocks = p.split(z)
    c = p.condition({n: blocks[n] for n in observed})
    log_prob = c.log_prob(c.join({n: blocks[n] for n in c.block_sizes})).numpy()
    d_j = sum(SIZES[n] for n in observed)
    d_i = 8 - d_j
    np.testing.assert_allclose(log_prob, equation_27(p, observed, z.numpy(), 1 - d_j / 2, d_i), rtol=1e-9, atol=1e-9)
    printed = equation_27(p, observed, z.numpy(), 1 - d_i / 2, d_j)
    assert np.abs(printed - log_prob).mean() > 1


def test_conditional_of_one_dimension_agrees_with_scipy():
    p = make(sizes={"a": 1, "b": 4})
    z_j = draw(4, seed=11)
    c, q = p.condition({"b": z_j}), parts(p, ("b",))
    delta = math.sqrt(q["delta"].item())
    chi, psi = z_j.numpy() @ q["inverse"] @ z_j.numpy(), 2 + q["m_j"] @ q["inverse"] @ q["m_j"]
    beta = q["skew"].item() / delta  # of the variable divided by the square root of Δ
    alpha = math.sqrt(psi + beta**2)
    scale = math.sqrt(chi)
    loc = (q["gain"] @ z_j.numpy()).item() / delta
    reference = scipy.stats.genhyperbolic(-1.0, alpha * scale, beta * scale, loc=loc, scale=scale)
    y = c.sample((500,), generator())
    expected = torch.from_numpy(reference.logpdf(y.squeeze(-1).numpy() / delta)) - math.log(delta)
    torch.testing.assert_close(c.log_prob(y), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("observed", [("b",), ("a",), ("c",), ("a", "c")])
def test_conditional_moments_are_those_of_bayes_rule(observed):
    """Erratum E4. The law of W given z_j by quadrature of Exp(1) times a Gaussian, without a Bessel function."""
    p = make()
    z_j = p.sample((), generator(3))
    blocks = {n: x for n, x in p.split(z_j).items() if n in observed}
    c, q = p.condition(blocks), parts(p, observed)
    value = z_j.numpy()[q["j"]]
    y = np.linspace(-30, 8, 40_001)
    w = np.exp(y)
    distance = value - w[:, None] * q["m_j"]
    squares = np.einsum("ni,ij,nj->n", distance, q["inverse"], distance) / w
    log_weight = -w - 0.5 * squares - 0.5 * len(value) * y + y
    weight = np.exp(log_weight - log_weight.max())
    mean = simpson(weight * w, x=y) / simpson(weight, x=y)
    variance = simpson(weight * (w - mean) ** 2, x=y) / simpson(weight, x=y)
    np.testing.assert_allclose(c.mean.numpy(), q["gain"] @ value + mean * q["skew"], rtol=1e-8)
    covariance = mean * q["delta"] + variance * np.outer(q["skew"], q["skew"])
    np.testing.assert_allclose(c.covariance_matrix.numpy(), covariance, rtol=1e-7, atol=1e-10)
    # The printed factor Q/(2C) · G in place of (Q/C)² · G.
    root, xi = math.sqrt(value @ q["inverse"] @ value), math.sqrt(2 + q["m_j"] @ q["inverse"] @ q["m_j"])
    k = [scipy.special.kv(1 - len(value) / 2 + n, root * xi) for n in range(3)]
    g = k[2] / k[0] - (k[1] / k[0]) ** 2
    assert (root / xi) ** 2 * g == pytest.approx(variance, rel=1e-6)
    assert abs(root / (2 * xi) * g / variance - 1) > 0.2


def test_conditional_samples_have_the_conditional_moments():
    p, n = make(), 100_000
    z = p.sample((), generator(5))
    c = p.condition({"a": z[:2], "c": z[3:6]})
    y = c.sample((n,), generator())
    assert ((y.mean(0) - c.mean).abs() < 4.5 * c.stddev / math.sqrt(n)).all()
    products = (y - c.mean).unsqueeze(-1) * (y - c.mean).unsqueeze(-2)
    assert ((products.mean(0) - c.covariance_matrix).abs() < 4.5 * products.std(0) / math.sqrt(n)).all()


def test_matched_gaussians():
    p = make(batch=(4,))
    for q in (p, p.condition({"a": draw(4, 2)}), p.marginal(["b", "c"])):
        g = q.matched_gaussian()
        assert isinstance(g, BlockGaussian)
        assert g.block_sizes == q.block_sizes
        torch.testing.assert_close(g.mean, q.mean)
        torch.testing.assert_close(g.covariance_matrix, q.covariance_matrix)


def test_gradients_of_density_conditional_and_samples():
    m, value, loc = draw(2, 3, seed=1).requires_grad_(), draw(2, 3, seed=2).requires_grad_(), draw(3).requires_grad_()
    scale = (draw(3, 3, seed=5).tril(-1) + 1.5 * torch.eye(3)).requires_grad_()

    def function(m, scale, value, loc):
        p = AsymmetricLaplace(m, scale.tril(), [2, 1], loc=loc, validate_args=False)
        c = p.condition({0: value[:, :2]})
        t = p.characteristic_function(value)
        samples = p.rsample((3,), generator())
        return p.log_prob(value), samples, c.mean, c.log_prob(value[:, 2:]), t.real, p.matched_gaussian().scale_tril

    assert gradcheck(function, (m, scale, value, loc))


@pytest.mark.parametrize("dim", [8, 21, 200])
def test_density_of_extreme_points_agrees_with_arbitrary_precision(dim):
    """Bessel orders to 99 and arguments from 1e-12 to 1e4."""
    p = AsymmetricLaplace(tensor([0.1] * dim), torch.eye(dim).double(), [dim])
    c = 2 + 0.01 * dim
    for argument in (1e-12, 1e-3, 1.0, 1e4):
        y = torch.zeros(dim).double()
        y[0] = argument / math.sqrt(c)
        squares = y[0].item() ** 2
        with mpmath.workdps(30):
            v = mpmath.mpf(2 - dim) / 2
            expected = mpmath.log(2) + mpmath.mpf(y[0].item()) * 0.1 - mpmath.mpf(dim) / 2 * mpmath.log(2 * mpmath.pi)
            expected += v / 2 * mpmath.log(squares / c) + mpmath.log(mpmath.besselk(v, mpmath.sqrt(c * squares)))
        assert p.log_prob(y).item() == pytest.approx(float(expected), rel=1e-12, abs=1e-10)
        single = AsymmetricLaplace(p.m.float(), p.scale_tril.float(), [dim])
        assert single.log_prob(y.float()).item() == pytest.approx(float(expected), rel=1e-5, abs=1e-4)


def test_density_is_infinite_at_the_location_from_two_dimensions_on():
    for dim in (1, 2, 3, 8):
        p = make(sizes={"a": dim}, loc=draw(dim))
        assert p.log_prob(p.loc).isinf().item() == (dim > 1)
        y = p.loc.detach().requires_grad_()
        (slope,) = torch.autograd.grad(p.log_prob(y), y)
        assert dim > 1 or slope.isfinite().all()  # a kink in one dimension


def test_conditioning_on_exactly_the_location():
    for dim in (2, 4):
        sizes = {"a": dim, "b": 2}
        with pytest.raises(ValueError, match=re.escape("blocks ['a'] are exactly the location")):
            make(sizes=sizes).condition({"a": torch.zeros(dim).double()})
        p = make(sizes=sizes, validate_args=False)
        c = p.condition({"a": torch.stack([torch.zeros(dim), torch.ones(dim)]).double()})
        y = c.sample((50,), generator())
        assert y.isfinite().all()
        assert (y[:, 0].abs() < 1e-100).all()  # the limit: all mass at the location
        assert torch.equal(c.mean[0], torch.zeros(2).double())
    # With one coordinate observed the density at 0 is finite, and W given 0 a gamma.
    p = make(sizes={"a": 1, "b": 2})
    c = p.condition({"a": torch.zeros(1).double()})
    y, near = draw(5, 2), p.condition({"a": torch.full((1,), 1e-12).double()})
    torch.testing.assert_close(c.log_prob(y), near.log_prob(y))
    torch.testing.assert_close(c.mean, near.mean)
    assert c.sample((1000,), generator()).isfinite().all()


def test_conditional_samples_of_extreme_values_are_numbers():
    for dtype in (torch.float32, torch.float64):
        p = make(dtype=dtype)
        size = tensor([1e-12, 1e-6, 1.0, 1e4], dtype).unsqueeze(-1)
        c = p.condition({"a": size.expand(4, 2), "c": size.expand(4, 3)})
        for q in (c, c.matched_gaussian()):
            y = q.sample((500,), generator())
            assert y.isfinite().all()
            assert q.log_prob(y).isfinite().all()


def test_shapes_expansion_determinism_and_copies():
    p = make(batch=(3, 1), scale_batch=(4,))
    assert p.batch_shape == (3, 4)
    assert p.event_shape == (8,)
    assert p.has_rsample
    assert p.m.shape == p.mean.shape == p.variance.shape == (3, 4, 8)
    assert torch.equal(p.loc, torch.zeros(3, 4, 8).double())
    state = torch.get_rng_state()
    y = p.sample((2, 5), generator())
    assert y.shape == (2, 5, 3, 4, 8)
    assert torch.equal(y, p.rsample((2, 5), generator()))
    assert not torch.equal(y, p.rsample((2, 5), generator(1)))
    assert torch.equal(torch.get_rng_state(), state)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert torch.equal(y, p.sample((2, 5)))
    e = p.expand((2, 3, 4))
    assert isinstance(e, AsymmetricLaplace)
    assert e.batch_shape == (2, 3, 4)
    torch.testing.assert_close(e.log_prob(y[:, 0]), p.log_prob(y[:, 0]))
    assert e.sample((), generator()).shape == (2, 3, 4, 8)
    assert repr(make()) == "AsymmetricLaplace(batch_shape=(), block_sizes={'a': 2, 'b': 1, 'c': 3, 'd': 2})"
    for q in (copy.deepcopy(p), pickle.loads(pickle.dumps(p))):
        assert torch.equal(q.log_prob(y), p.log_prob(y))
    assert make(dtype=torch.float32).sample().dtype == torch.float32
    assert list(AsymmetricLaplace(torch.zeros(3), torch.eye(3), [1, 2]).block_sizes) == [0, 1]


def test_errors_are_one_line_and_name_the_parameter():
    p, eye, zeros, al = make(), torch.eye(2), torch.zeros(2), AsymmetricLaplace
    for match, call in {
        "m has shape (3,)": lambda: al(torch.zeros(3), eye, [1, 1]),
        "m has shape ()": lambda: al(torch.tensor(0.0), eye, [1, 1]),
        "loc has shape (3,)": lambda: al(zeros, eye, [1, 1], loc=torch.zeros(3)),
        "scale_tril has shape (3, 3)": lambda: al(zeros, torch.eye(3), [1, 1]),
        "m (5,), loc (), scale_tril (4,)": lambda: al(zeros.expand(5, 2), eye.expand(4, 2, 2), [1, 1]),
        "m of shape (2,) has NaN": lambda: al(zeros / 0, eye, [1, 1]),
        "loc of shape (2,) has NaN": lambda: al(zeros, eye, [1, 1], loc=zeros / 0),
        "scale_tril of shape (2, 2) has NaN": lambda: al(zeros, eye / 0, [1, 1]),
        "is not lower triangular": lambda: al(zeros, torch.ones(2, 2), [1, 1]),
        "scale_tril of shape (2, 2) has non-positive": lambda: al(zeros, -eye, [1, 1]),
        "block_sizes must be positive": lambda: al(zeros, eye, [2, 0]),
        "value has shape (5, 7)": lambda: p.log_prob(draw(5, 7)),
        "value of shape (8,) has NaN": lambda: p.log_prob(draw(8) * torch.nan),
        "t has shape (7,)": lambda: p.characteristic_function(draw(7)),
        "unknown blocks ['x']": lambda: p.marginal(["a", "x"]),
        "unknown blocks ['y']": lambda: p.condition({"y": draw(2)}),
        "no block is named": lambda: p.condition({}),
        "no block is named;": lambda: p.marginal([]),
        "none remains": lambda: p.condition(p.split(draw(8))),
        "block 'a' has shape (3,), size 2": lambda: p.condition({"a": draw(3)}),
        "the values of blocks ['a'] have NaN": lambda: p.condition({"a": draw(2) * torch.nan}),
    }.items():
        with pytest.raises(ValueError, match=re.escape(match)) as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [1.0, 1e2, 1e4, 1e6])
def test_density_far_out_along_a_long_skew_is_that_of_double_precision(length: float) -> None:
    g = torch.Generator().manual_seed(0)
    tril = torch.eye(6) + 0.3 * torch.randn(6, 6, generator=g).tril(-1)
    single = AsymmetricLaplace(length * torch.randn(6, generator=g), tril, [3, 3])
    z = single.rsample((200,), generator=g)
    double = AsymmetricLaplace(single.m.double(), tril.double(), [3, 3])
    found, expected = single.log_prob(z), double.log_prob(z.double())
    assert found.dtype is torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-5)
    # At the draws themselves it is near the negative entropy, whatever the length: no exponent of 1e12 is left over.
    assert bool((found.abs() < 100 + 6 * math.log(length + 1)).all())
