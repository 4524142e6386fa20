"""Appendix E: the bound and its sampled gradient against exact constants, on a discrete and on a Gaussian field."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from repro.papers.mrf_mvae.generalized import generalized_elbo, generalized_surrogate, log_partition_surrogate
from tests.support.fields import QuadraticField, quadratic_field

# Two variables of three values each. Probabilities are counts, so that a multiset of states is the distribution.
COUNTS_P = torch.tensor([[4, 1, 2], [3, 5, 1], [2, 2, 6]])
COUNTS_Q = torch.tensor([[1, 2, 2], [7, 1, 3], [1, 4, 3]])
STATES = torch.cartesian_prod(torch.arange(3), torch.arange(3))
LIKELIHOOD = torch.tensor([-1.0, 0.3, -2.0, 0.7, -0.4, 1.1, 0.0, -0.9, 0.5], dtype=torch.float64)


class Tables:
    """Unary and pairwise potentials of a discrete field as tables, whose sum is a given energy."""

    def __init__(self, counts: Tensor, seed: int) -> None:
        g = torch.Generator().manual_seed(seed)
        self.unary = torch.randn(2, 3, generator=g, dtype=torch.float64)
        rest = -counts.double().log() - self.unary[0][:, None] - self.unary[1][None, :]
        self.unary.requires_grad_()
        self.pairwise = rest.clone().requires_grad_()
        self.parameters = [self.unary, self.pairwise]

    def __call__(self, z: Tensor) -> Tensor:
        i, j = z.long().unbind(-1)
        return self.unary[0][i] + self.unary[1][j] + self.pairwise[i, j]

    def log_partition(self) -> Tensor:
        return (-self(STATES)).logsumexp(0)


def multiset(counts: Tensor) -> Tensor:
    return STATES.repeat_interleave(counts.flatten(), 0).double()


def log_likelihood(z: Tensor) -> Tensor:
    return LIKELIHOOD[(3 * z[..., 0] + z[..., 1]).long()]


def exact_elbo(p: Tables, q: Tables, likelihood: Tensor = LIKELIHOOD) -> Tensor:
    log_p, log_q = -p(STATES) - p.log_partition(), -q(STATES) - q.log_partition()
    return (log_q.exp() * (likelihood + log_p - log_q)).sum()


def test_gradient_of_the_constant_on_a_discrete_field() -> None:
    """Eq. 38, with every state as often as its probability says."""
    p = Tables(COUNTS_P, 0)
    exact = torch.autograd.grad(p.log_partition(), p.parameters)
    sampled = torch.autograd.grad(log_partition_surrogate(p(multiset(COUNTS_P))), p.parameters)
    for a, b in zip(sampled, exact, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_the_bound_is_the_evidence_less_the_divergence() -> None:
    """Eq. 37 with ln p(X | z) (erratum E7): ln p(X) - KL(q || p(z | X)); without the logarithm it is not."""
    p, q, z = Tables(COUNTS_P, 0), Tables(COUNTS_Q, 1), multiset(COUNTS_Q)
    constants = (p.log_partition(), q.log_partition())
    bound = generalized_elbo(log_likelihood(z), p(z), q(z), *constants)
    prior, posterior = (c.flatten().double() / c.sum() for c in (COUNTS_P, COUNTS_Q))
    joint = prior.log() + LIKELIHOOD
    evidence = joint.logsumexp(0)
    divergence = (posterior * (posterior.log() - (joint - evidence))).sum()
    assert float(bound.detach()) == pytest.approx(float(evidence - divergence), rel=1e-12)
    as_printed = generalized_elbo(log_likelihood(z).exp(), p(z), q(z), *constants)
    assert float(as_printed.detach()) > float(evidence)


def test_gradient_of_the_bound_on_a_discrete_field() -> None:
    p, q = Tables(COUNTS_P, 0), Tables(COUNTS_Q, 1)
    exact = torch.autograd.grad(exact_elbo(p, q), p.parameters + q.parameters)
    surrogate = generalized_surrogate(log_likelihood, p, q, multiset(COUNTS_Q), multiset(COUNTS_P))
    sampled = torch.autograd.grad(surrogate, p.parameters + q.parameters)
    # The multiset is the whole population, so that the covariance's K - 1 shows as a factor.
    size = int(COUNTS_Q.sum())
    factors = [1.0, 1.0, size / (size - 1), size / (size - 1)]
    for a, b, factor in zip(sampled, exact, factors, strict=True):
        torch.testing.assert_close(a, factor * b, rtol=1e-10, atol=1e-12)
        assert float(b.abs().max()) > 0.02


def test_gradient_of_the_likelihood_s_parameters() -> None:
    p, q = Tables(COUNTS_P, 0), Tables(COUNTS_Q, 1)
    table = LIKELIHOOD.clone().requires_grad_()
    (exact,) = torch.autograd.grad(exact_elbo(p, q, table), table)
    surrogate = generalized_surrogate(
        lambda z: table[(3 * z[..., 0] + z[..., 1]).long()], p, q, multiset(COUNTS_Q), multiset(COUNTS_P)
    )
    (sampled,) = torch.autograd.grad(surrogate, table)
    torch.testing.assert_close(sampled, exact)


SIZES = {"a": 1, "b": 2}


def leaf_field(seed: int, coupling: float) -> tuple[QuadraticField, list[Tensor]]:
    """A Gaussian field whose natural parameters take a gradient, through an unconstrained factor."""
    start = quadratic_field(SIZES, seed, coupling)
    factor = torch.linalg.cholesky(start.precision).detach().requires_grad_()
    eta = start.eta.clone().requires_grad_()
    return QuadraticField(factor @ factor.T, eta, SIZES), [factor, eta]


def normal(field: QuadraticField) -> MultivariateNormal:
    precision = field.total_precision()
    return MultivariateNormal(torch.linalg.solve(precision, field.eta), precision_matrix=precision)


def test_gradients_on_a_gaussian_field() -> None:
    """Independent samples of a pairwise field against the gradient of the bound in closed form, in standard errors."""
    (p, theta), (q, phi) = leaf_field(0, 0.4), leaf_field(1, 0.4)
    target = torch.tensor([0.5, -1.0, 0.3], dtype=torch.float64)
    normal_p, normal_q = normal(p), normal(q)
    mean, covariance = normal_q.mean, normal_q.covariance_matrix
    expected_fit = -0.5 * ((mean - target).square().sum() + covariance.trace() + 3 * math.log(2 * math.pi))
    exact = torch.autograd.grad(expected_fit - kl_divergence(normal_q, normal_p), theta + phi, retain_graph=True)
    exact_constant = torch.autograd.grad(p.log_partition(), theta, retain_graph=True)
    g = torch.Generator().manual_seed(0)
    groups, size = 50, 400

    def draws(distribution: MultivariateNormal, *shape: int) -> Tensor:
        noise = torch.randn(*shape, 3, generator=g, dtype=torch.float64)
        return (distribution.mean + noise @ distribution.scale_tril.T).detach()

    def fit(z: Tensor) -> Tensor:
        return -0.5 * ((z - target).square().sum(-1) + 3 * math.log(2 * math.pi))

    found, found_constant = [], []
    for _ in range(groups):
        z, z_prior = draws(normal_q, size), draws(normal_p, size)
        surrogate = generalized_surrogate(fit, p.mrf().energy, q.mrf().energy, z, z_prior)
        found.append(torch.autograd.grad(surrogate, theta + phi, retain_graph=True))
        constant = log_partition_surrogate(p.mrf().energy(z_prior))
        found_constant.append(torch.autograd.grad(constant, theta, retain_graph=True))
    for results, expected in ((found, exact), (found_constant, exact_constant)):
        for k, e in enumerate(expected):
            values = torch.stack([r[k] for r in results])
            error = values.std(0) / math.sqrt(groups)
            assert ((values.mean(0) - e).abs() <= 4.5 * error + 1e-12).all()
            assert float(error.max()) < 0.1 * float(e.abs().max())


def test_batches_of_points_and_bad_shapes() -> None:
    p, q = Tables(COUNTS_P, 0), Tables(COUNTS_Q, 1)
    z = multiset(COUNTS_Q)[torch.randperm(24, generator=torch.Generator().manual_seed(0))].view(8, 3, 2)
    together = generalized_surrogate(log_likelihood, p, q, z, multiset(COUNTS_P))
    alone = [generalized_surrogate(log_likelihood, p, q, z[:, b], multiset(COUNTS_P)) for b in range(3)]
    torch.testing.assert_close(together, torch.stack(alone))
    gradients = [torch.autograd.grad(x, p.parameters + q.parameters) for x in (together.sum(), sum(alone))]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)
    with pytest.raises(ValueError, match="at least 2 and 1 are needed"):
        generalized_surrogate(log_likelihood, p, q, z[:1], multiset(COUNTS_P))
    with pytest.raises(ValueError, match="must share one shape"):
        generalized_elbo(torch.zeros(3, 2), torch.zeros(3), torch.zeros(3, 2), 0.0, 0.0)
