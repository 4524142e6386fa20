import math
import re

import pytest
import torch
from torch import Tensor

from repro.distributions.mcmc import effective_sample_size, mala, metropolis, split_r_hat
from tests.support.fields import quadratic_field

SIZES = {"a": 2, "b": 1}
FIELD = quadratic_field(SIZES, coupling=0.5)


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def run(sampler: str, initial: Tensor, seed: int = 0, **settings) -> tuple:
    g = torch.Generator().manual_seed(seed)
    if sampler == "mala":
        return mala(FIELD.mrf().log_prob_unnormalized, initial, generator=g, **settings)
    return metropolis(FIELD.mrf(), initial, generator=g, **settings)


@pytest.mark.parametrize(("sampler", "step_size"), [("metropolis", 1.5), ("mala", 1.2)])
def test_the_target_is_invariant(sampler, step_size):
    """Chains that start from exact draws stay exact draws: independent, so that the errors are those of 10,000."""
    exact = FIELD.gaussian()
    start = exact.sample((10_000,), torch.Generator().manual_seed(1))
    draws, diagnostics = run(sampler, start, num_steps=40, thinning=40, step_size=step_size)
    assert 0.2 < diagnostics.acceptance_rate.mean() < 0.9  # proposals matter, and so do rejections
    z = draws[-1]
    assert ((z - start).abs() > 0).double().mean() > 0.99
    assert ((z.mean(0) - exact.mean).abs() < 4.5 * exact.stddev / 100).all()
    centred = (z - exact.mean).unsqueeze(-1)
    scale = exact.stddev.unsqueeze(-1) * exact.stddev
    error = ((centred * centred.mT).mean(0) - exact.covariance_matrix).abs()
    assert (error < 4.5 * math.sqrt(2) * scale / 100).all()


def test_metropolis_moves_one_block_at_a_time_in_turn():
    draws, _ = run("metropolis", draw(50, 3), num_steps=10)
    moved = (draws.diff(dim=0) != 0).any(1)
    for step, (first, second, third) in enumerate(moved.tolist(), start=1):
        assert (first, second, third) == ((True, True, False) if step % 2 == 0 else (False, False, True))


@pytest.mark.parametrize("sampler", ["metropolis", "mala"])
def test_thinning_keeps_every_so_many_th_and_acceptance_is_the_share_of_moves(sampler):
    every, diagnostics = run(sampler, draw(8, 3), num_steps=12)
    third, _ = run(sampler, draw(8, 3), num_steps=12, thinning=3)
    assert torch.equal(third, every[2::3])
    moves = (torch.cat([draw(8, 3)[None], every]).diff(dim=0) != 0).any(-1)
    torch.testing.assert_close(diagnostics.acceptance_rate, moves.double().mean(0))


@pytest.mark.parametrize(("sampler", "count"), [("metropolis", 2), ("mala", 1)])
def test_step_sizes_are_adapted_in_burn_in_only(sampler, count):
    _, fixed = run(sampler, draw(8, 3), num_steps=50, step_size=0.7)
    torch.testing.assert_close(fixed.step_size, torch.full((count,), 0.7))
    _, short = run(sampler, draw(8, 3), num_steps=1, burn_in=40, step_size=0.7)
    _, long = run(sampler, draw(8, 3), num_steps=60, burn_in=40, step_size=0.7)
    assert torch.equal(short.step_size, long.step_size)
    assert (long.step_size - 0.7).abs().min() > 1e-3


@pytest.mark.parametrize("sampler", ["metropolis", "mala"])
@pytest.mark.parametrize("step_size", [0.01, 30.0])
def test_adaptation_recovers_from_a_poor_step_size(sampler, step_size):
    """Both starts end at the same step size, that of the target acceptance rate."""
    _, found = run(sampler, draw(100, 3), num_steps=40, burn_in=200, step_size=step_size)
    _, other = run(sampler, draw(100, 3), num_steps=40, burn_in=200, step_size=1.0)
    torch.testing.assert_close(found.step_size, other.step_size, rtol=0.25, atol=0)


@pytest.mark.parametrize("sampler", ["metropolis", "mala"])
def test_chains_that_never_accept_are_told_with_the_step_size(sampler):
    with pytest.warns(
        RuntimeWarning, match=re.escape("5 of 5 chains accepted none of 20 proposals at step size 1e+04")
    ):
        draws, diagnostics = run(sampler, draw(5, 3), num_steps=20, step_size=1e4)
    assert torch.equal(draws, draw(5, 3).expand(20, -1, -1))
    assert not diagnostics.acceptance_rate.any()


def test_a_gradient_that_is_not_a_number_is_an_error():
    with pytest.raises(ValueError, match=r"gradient of the log-density is not finite at 2 of 3 points"):
        mala(lambda z: -z.abs().sqrt().sum(-1), torch.tensor([[0.0], [1.0], [0.0]]), num_steps=1)


def autoregression(rho: float, num_draws: int, num_chains: int) -> Tensor:
    """A stationary AR(1) of unit variance: autocorrelations rho^t, so that ESS is N (1 - rho) / (1 + rho)."""
    noise = draw(num_draws, num_chains)
    rows = [noise[0]]
    for e in noise[1:]:
        rows.append(rho * rows[-1] + math.sqrt(1 - rho**2) * e)
    return torch.stack(rows)


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.5, 0.9])
def test_effective_sample_size_of_an_autoregression(rho):
    draws = autoregression(rho, 3000, 40)
    size = effective_sample_size(draws)
    # The estimate's own error is about 3% here at rho = 0.9 and less elsewhere.
    assert size.item() == pytest.approx(120_000 * (1 - rho) / (1 + rho), rel=0.12)
    torch.testing.assert_close(effective_sample_size(3 * draws - 7), size)
    assert split_r_hat(draws) < 1.01


def test_diagnostics_are_per_coordinate():
    draws = torch.stack([autoregression(0.0, 500, 4), autoregression(0.9, 500, 4)], -1)
    for function in (effective_sample_size, split_r_hat):
        value = function(draws)
        assert value.shape == (2,)
        for k in range(2):
            torch.testing.assert_close(value[k], function(draws[..., k]))
    assert effective_sample_size(draws.unflatten(-1, (1, 2))).shape == (1, 2)


def test_r_hat_is_the_ratio_of_pooled_to_within():
    draws = torch.tensor([[0.0, 2.0], [2.0, 4.0], [1.0, 1.0], [5.0, 9.0]])
    # Half chains (0, 2), (2, 4), (1, 5), (1, 9): means 1, 3, 3, 5 and variances 2, 2, 8, 32.
    within, between = (2 + 2 + 8 + 32) / 4, 8 / 3
    assert split_r_hat(draws).item() == pytest.approx(math.sqrt((within / 2 + between) / within))


def test_r_hat_tells_chains_that_are_not_mixed():
    mixed = draw(400, 4)
    assert split_r_hat(mixed) < 1.01
    apart = mixed + torch.tensor([0.0, 0.0, 0.0, 3.0])
    drifting = mixed + torch.linspace(0, 3, 400).unsqueeze(-1)  # chains agree, halves do not
    for draws in (apart, drifting):
        assert split_r_hat(draws) > 1.1
        assert effective_sample_size(draws) < 30


def test_r_hat_of_chains_in_two_separate_modes():
    """Steps of 0.1 never cross from one well, at -5, to the other, at 5."""

    def log_density(z):
        return torch.logsumexp(-0.5 * (z - torch.tensor([-5.0, 5.0])).square(), -1)

    start = torch.tensor([[-5.0], [5.0], [-5.0], [5.0]])
    _, diagnostics = mala(log_density, start, num_steps=200, step_size=0.3, generator=torch.Generator().manual_seed(0))
    assert diagnostics.r_hat > 1.1
    assert diagnostics.effective_sample_size < 10


def test_diagnostics_are_nan_where_they_are_not_defined():
    for function in (effective_sample_size, split_r_hat):
        assert function(draw(3, 4, 2)).isnan().all()
        assert function(draw(4, 4, 2)).isfinite().all()
        assert function(torch.ones(10, 4)).isnan()
        with pytest.raises(ValueError, match=r"draws have shape \(5,\)"):
            function(draw(5))
