import math
import re

import pytest
import torch
from torch import Tensor

from repro.distributions.block_gaussian import BlockGaussian
from repro.distributions.log_partition import (
    batch_log_weights,
    importance_sample_size,
    log_partition_batch,
    log_partition_per_sample,
    widened_mixture,
)
from tests.support.fields import QuadraticField, double_well, quadratic_field

LATENTS, VARIANCE = 8, 0.1  # the case of erratum E6
TRUE = -0.5 * LATENTS * math.log(VARIANCE)  # 9.21


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def standard_field() -> QuadraticField:
    """The standard Gaussian over two blocks times (2 pi s^2)^(-D/2), the posteriors' constant: ln Z is TRUE."""
    constant = -0.5 * LATENTS * math.log(2 * math.pi * VARIANCE)
    eye = torch.eye(LATENTS, dtype=torch.float64)
    return QuadraticField(eye, torch.zeros(LATENTS, dtype=torch.float64), {"a": 4, "b": 4}, constant)


def posteriors(num: int, seed: int = 0) -> BlockGaussian:
    """Posteriors whose mixture over the data is the standard Gaussian."""
    scale = math.sqrt(VARIANCE) * torch.eye(LATENTS, dtype=torch.float64)
    return BlockGaussian(math.sqrt(1 - VARIANCE) * draw(num, LATENTS, seed=seed), scale, {"a": 4, "b": 4})


def test_the_paper_s_estimator_is_degenerate():
    """Erratum E6: D = 8, s^2 = 0.1 and K = 100 give about 3 for a true 9.21."""
    field, q = standard_field(), posteriors(1000)
    assert field.log_partition().item() == pytest.approx(TRUE) == pytest.approx(9.2103, abs=1e-4)
    estimates = log_partition_per_sample(field.mrf().log_prob_unnormalized, q, q.sample((100,), generator()))
    assert estimates.shape == (1000,)
    assert 2.7 < estimates.mean() < 3.3
    assert (estimates < TRUE - 1).double().mean() > 0.95


@pytest.mark.parametrize(("num_posteriors", "num_samples"), [(100, 1), (32, 4)])
def test_the_batch_estimator_has_a_bias_under_a_tenth(num_posteriors, num_samples):
    field = standard_field()
    g, estimates = generator(), []
    for seed in range(60):
        q = posteriors(num_posteriors, seed)
        samples = q.sample((num_samples,), g)
        estimates.append(log_partition_batch(field.mrf().log_prob_unnormalized, q, samples, generator=g))
    error = torch.stack(estimates) - TRUE
    assert error.mean().abs() + 4 * error.std() / math.sqrt(60) < 0.1


def test_the_mean_of_the_batch_estimate_of_z_is_z():
    """Also where the posteriors cover a part of the density alone, the wide Gaussian is off, and K and R differ."""
    field = quadratic_field({"a": 1, "b": 1}, coupling=0.4)
    scale = 0.5 * torch.eye(2, dtype=torch.float64)
    q = BlockGaussian(draw(3, 2), scale, {"a": 1, "b": 1})
    wide = BlockGaussian(torch.ones(2, dtype=torch.float64), 8 * scale, {"a": 1, "b": 1})
    g, density = generator(), field.mrf().log_prob_unnormalized
    estimates = torch.stack(
        [
            log_partition_batch(density, q, q.sample((5,), g), wide=wide, num_wide=10, generator=g).exp()
            for _ in range(500)
        ]
    )
    ratio = estimates / field.log_partition().exp()
    assert ratio.std() > 0.05
    assert abs(ratio.mean() - 1) < 4.5 * ratio.std() / math.sqrt(500)


def test_the_batch_estimate_agrees_with_quadrature_where_nothing_is_gaussian():
    mrf = double_well()
    grid = torch.linspace(-4, 4, 801, dtype=torch.float64)
    cell = (grid[1] - grid[0]).square().log()
    exact = mrf.log_prob_unnormalized(torch.cartesian_prod(grid, grid)).logsumexp(0) + cell
    q = BlockGaussian(draw(20, 2).sign(), 0.3 * torch.eye(2, dtype=torch.float64), [1, 1])
    weights = batch_log_weights(mrf.log_prob_unnormalized, q, q.sample((200,), generator()), generator=generator(1))
    assert weights.shape == (8000,)
    relative = (weights - exact).exp()
    assert abs(relative.mean() - 1) < 4.5 * relative.std() / math.sqrt(8000)
    assert importance_sample_size(weights) > 2000


def test_weights_are_those_of_the_mixture():
    """The balance heuristic, written out: K draws of each of B posteriors and R of the wide one."""
    q = BlockGaussian(draw(3, 2), torch.eye(2, dtype=torch.float64), [1, 1])
    wide = BlockGaussian(draw(2, seed=3), 2 * torch.eye(2, dtype=torch.float64), [1, 1])
    samples, g = q.sample((4,), generator()), generator(5)
    points = torch.cat([samples.reshape(12, 2), wide.sample((6,), generator(5))])
    mixture = sum(4 / 18 * BlockGaussian(m, torch.eye(2).double(), [1, 1]).log_prob(points).exp() for m in q.mean)
    mixture = mixture + 6 / 18 * wide.log_prob(points).exp()
    weights = batch_log_weights(lambda z: z.sum(-1), q, samples, wide=wide, num_wide=6, generator=g)
    torch.testing.assert_close(weights, points.sum(-1) - mixture.log())


def test_both_are_exact_where_the_posterior_is_the_density():
    q = BlockGaussian(draw(5, 2), torch.eye(2, dtype=torch.float64), [1, 1])
    samples = q.sample((1,), generator())
    estimate = log_partition_per_sample(lambda z: q.log_prob(z) + 3, q, samples)
    torch.testing.assert_close(estimate, torch.full((5,), 3.0, dtype=torch.float64))
    one = BlockGaussian(draw(1, 2), torch.eye(2, dtype=torch.float64), [1, 1])
    samples = one.sample((7,), generator())
    estimate = log_partition_batch(lambda z: one.log_prob(z) + 3, one, samples, num_wide=0)
    torch.testing.assert_close(estimate, torch.tensor(3.0, dtype=torch.float64))


def test_one_reused_sample_leaves_no_divergence():
    """Erratum E6: the objective's terms of eq. 15 but the reconstruction cancel, whatever the field and posterior."""
    field, q = quadratic_field({"a": 4, "b": 4}), posteriors(20)
    z = q.sample((1,), generator())
    density = field.mrf().log_prob_unnormalized
    divergence = (q.log_prob(z) - density(z)).mean(0) + log_partition_per_sample(density, q, z)
    assert divergence.abs().max() < 1e-9


@pytest.mark.parametrize("estimator", ["per sample", "batch"])
def test_gradients_by_finite_differences(estimator):
    sizes = {"a": 1, "b": 2}
    field = quadratic_field(sizes)
    noise = draw(4, 3, 3)
    scale = (0.3 * draw(3, 3, 3, seed=2).tril(-1) + 0.7 * torch.eye(3)).requires_grad_()

    def function(precision, eta, mean, scale):
        q = BlockGaussian(mean, scale.tril(), sizes, validate_args=False)
        samples = mean + (scale @ noise.unsqueeze(-1)).squeeze(-1)
        density = QuadraticField(precision, eta, sizes).mrf(2.0).log_prob_unnormalized
        if estimator == "per sample":
            return log_partition_per_sample(density, q, samples)
        return log_partition_batch(density, q, samples, num_wide=5, detach_proposals=False, generator=generator())

    precision, eta = field.precision.clone().requires_grad_(), field.eta.clone().requires_grad_()
    assert torch.autograd.gradcheck(function, (precision, eta, draw(3, 3, seed=4).requires_grad_(), scale))


def test_the_gradient_in_the_potentials_is_that_of_ln_z():
    """d ln Z / d eta is the mean of the Gaussian; posteriors get no gradient unless they are asked to."""
    sizes = {"a": 1, "b": 2}
    field = quadratic_field(sizes, coupling=0.4)
    exact = field.gaussian()
    eta, mean = field.eta.clone().requires_grad_(), draw(10, 3).requires_grad_()
    q = BlockGaussian(mean, 0.5 * torch.eye(3, dtype=torch.float64), sizes)
    density = QuadraticField(field.precision, eta, sizes).mrf().log_prob_unnormalized
    samples = q.rsample((2000,), generator())
    log_partition_batch(density, q, samples, generator=generator(1)).backward()
    weights = batch_log_weights(density, q, samples.detach(), generator=generator(1)).detach()
    error = exact.stddev / importance_sample_size(weights).sqrt()
    assert ((eta.grad - exact.mean).abs() < 4.5 * error).all()
    assert mean.grad is None


def test_the_widened_mixture_has_the_mixture_s_moments():
    q = BlockGaussian(draw(6, 3), (0.3 * draw(6, 3, 3, seed=2).tril(-1) + 0.5 * torch.eye(3)), {"a": 1, "b": 2})
    wide = widened_mixture(q, widening=2.0)
    draws = q.sample((30_000,), generator()).flatten(0, 1)
    assert wide.block_sizes == q.block_sizes
    deviation = wide.stddev / 2
    assert ((wide.mean - draws.mean(0)).abs() < 4.5 * deviation / math.sqrt(len(draws))).all()
    error = (wide.covariance_matrix / 4 - draws.T.cov()).abs()
    assert (error < 4.5 * 2 * deviation.unsqueeze(-1) * deviation / math.sqrt(len(draws))).all()


def test_determinism_and_global_state():
    field, q = standard_field(), posteriors(10)
    density, samples = field.mrf().log_prob_unnormalized, q.sample((2,), generator())
    state = torch.get_rng_state()
    first, second, third = (log_partition_batch(density, q, samples, generator=generator(k)) for k in (3, 3, 4))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert torch.equal(torch.get_rng_state(), state)


def test_importance_sample_size():
    assert importance_sample_size(torch.full((7,), 3.0)).item() == pytest.approx(7)
    assert importance_sample_size(torch.tensor([0.0, -500.0, -500.0])).item() == pytest.approx(1)
    assert importance_sample_size(torch.tensor([1.0, 3.0]).log()).item() == pytest.approx(16 / 10)


def test_errors_are_one_line_and_name_the_parameter():
    field, q = standard_field(), posteriors(10)
    density, samples = field.mrf().log_prob_unnormalized, q.sample((2,), generator())
    for match, call in {
        "samples have shape (10, 8), (K, 10, 8)": lambda: log_partition_per_sample(density, q, samples[0]),
        "samples have shape (0, 10, 8)": lambda: log_partition_per_sample(density, q, samples[:0]),
        "samples have shape (2, 9, 8)": lambda: log_partition_batch(density, q, samples[:, 1:]),
        "batch shape (), (B,) is needed": lambda: log_partition_batch(density, field.gaussian(), samples),
        "num_wide is -1": lambda: log_partition_batch(density, q, samples, num_wide=-1),
        "wide is BlockGaussian(batch_shape=(10,)": lambda: log_partition_batch(density, q, samples, wide=q),
        "widening is 0": lambda: widened_mixture(q, 0),
    }.items():
        with pytest.raises(ValueError, match=re.escape(match)) as caught:
            call()
        assert "\n" not in str(caught.value)
