"""The flow of latents: change of variables, order of its steps, density, inverse, what training reaches."""

from __future__ import annotations

from math import exp, log, pi, sqrt

import pytest
import torch
from safetensors.torch import load, save
from torch.autograd.functional import jacobian
from torch.distributions import Normal

from repro.model import isolated_rng
from repro.networks.flow import LatentFlow


def flow(features: int = 4, transforms: int = 3, hidden: tuple[int, ...] = (16, 16)) -> LatentFlow:
    """A flow in float64 with weights somewhat above their initial size, so that its map is far from linear."""
    with isolated_rng(1):
        built = LatentFlow(features, transforms, hidden).double()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.mul_(1.2)
    return built.requires_grad_(False)


def points(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("features", [2, 4, 10])
def test_maps_are_each_others_inverse(features: int) -> None:
    f, z = flow(features, 5), points(50, features)
    x = f.from_normal(z)
    assert float((x - z).abs().max()) > 0.1
    torch.testing.assert_close(f.to_normal(x), z, rtol=0.0, atol=1e-12)


def test_log_prob_is_the_change_of_variables() -> None:
    f, z = flow(), points(6, 4)
    x = f.from_normal(z)
    ladj = torch.stack([torch.linalg.slogdet(jacobian(f.from_normal, row)).logabsdet for row in z])
    torch.testing.assert_close(f.log_prob(x), Normal(0.0, 1.0).log_prob(z).sum(-1) - ladj)


def test_density_integrates_to_one() -> None:
    f = flow(2, 4)
    with torch.no_grad():
        side = torch.linspace(-12.0, 12.0, 481, dtype=torch.float64)
        grid = torch.cartesian_prod(side, side)
        total = float(f.log_prob(grid).exp().sum() * (side[1] - side[0]) ** 2)
    assert abs(total - 1.0) < 1e-3


@pytest.mark.parametrize("features", [3, 10])
def test_steps_are_triangular_and_increasing_in_alternating_order(features: int) -> None:
    f, z = flow(features, 4, (64, 64)), points(6, features)
    for k, step in enumerate(f.flow().transform.transforms):
        for function in (step, step.inv):
            found = torch.stack([jacobian(function, row) for row in z])
            lower = found if k % 2 == 0 else found.flip(1, 2)
            assert torch.equal(lower, lower.tril())
            assert float(lower.diagonal(dim1=1, dim2=2).min()) > 0.0
            # Every feature is seen by all that come after it.
            seen = (lower != 0).any(0)
            assert torch.equal(seen, torch.ones_like(seen).tril())
    whole = torch.stack([jacobian(f.from_normal, row) for row in z])
    assert float(torch.linalg.det(whole).min()) > 0.0
    assert float(whole.triu(1).abs().max()) > 1e-3
    assert float(whole.tril(-1).abs().max()) > 1e-3


def test_one_step_is_the_papers_affine_recursion() -> None:
    f, z = flow(5, 1), points(5)
    x = f.from_normal(z)
    for i in range(5):
        # x_i is affine in z_i with positive slope; what comes before it stays, and it sees nothing after it.
        moved = [z.clone() for _ in range(3)]
        for n, m in enumerate(moved):
            m[i] += n - 1.0
            m[i + 1 :] += 1.7
        low, same, high = (f.from_normal(m) for m in moved)
        assert torch.equal(same[: i + 1], x[: i + 1])
        assert torch.equal(low[:i], x[:i])
        torch.testing.assert_close(high[i] - same[i], same[i] - low[i])
        assert float(high[i]) > float(same[i])


def test_steps_in_one_order_would_have_gaussian_conditionals() -> None:
    # Why the order alternates: x_1 given x_0 is affine in z_1 after one step, and no longer after two.
    for transforms, affine in ((1, True), (2, False)):
        f = flow(2, transforms)
        z1 = torch.linspace(-3.0, 3.0, 61, dtype=torch.float64)
        x1 = f.from_normal(torch.stack([torch.full_like(z1, 0.3), z1], dim=1))
        bend = float((x1[2:] - 2.0 * x1[1:-1] + x1[:-2]).abs().max())
        assert (bend < 1e-12) is affine


def test_samples_have_the_density() -> None:
    f = flow(2, 4)
    x = f.sample(20_000, generator=torch.Generator().manual_seed(3))
    # E_p[q / p] = 1 for any density q that p covers: here a normal in the midst of the samples.
    inner = Normal(x.median(0).values, 0.6 * x.std(0))
    ratio = (inner.log_prob(x).sum(-1) - f.log_prob(x)).exp()
    error = float(ratio.std()) / sqrt(len(x))
    assert error < 0.01
    assert abs(float(ratio.mean()) - 1.0) < 5.0 * error


def test_sample_is_the_map_of_normal_draws() -> None:
    f = flow()
    z = torch.randn(7, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    before = torch.get_rng_state()
    assert torch.equal(f.sample(7, generator=torch.Generator().manual_seed(5)), f.from_normal(z))
    assert torch.equal(torch.get_rng_state(), before)
    assert f.float().sample(3).dtype is torch.float32


def test_loss_is_the_mean_negative_log_density_and_reaches_the_entropy() -> None:
    # A bent distribution: x_0 ~ N(0, 1), x_1 | x_0 ~ N(x_0^2, 0.5^2), of entropy log(2 pi e) + log 0.5.
    noise = points(1024, 2)
    x = torch.stack([noise[:, 0], noise[:, 0].square() + 0.5 * noise[:, 1]], dim=1).float()
    with isolated_rng(0):
        f = LatentFlow(2, 2, (32, 32))
    torch.testing.assert_close(f.loss(x), -f.log_prob(x).mean())
    before = float(f.loss(x).detach())
    optimizer = torch.optim.Adam(f.parameters(), 1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        f.loss(x).backward()
        optimizer.step()
    for step in f.flow.transform.transforms:
        assert all(p.grad is not None and bool((p.grad != 0).any()) for p in step.parameters())
    fresh = points(20_000, 2, seed=1)
    fresh = torch.stack([fresh[:, 0], fresh[:, 0].square() + 0.5 * fresh[:, 1]], dim=1).float()
    entropy = log(2.0 * pi * exp(1.0)) + log(0.5)
    with torch.no_grad():
        gap = float(f.loss(fresh)) - entropy
    # The mean of 20,000 negative log-densities has standard error 1 / 141 (each half a chi-squared of 2 degrees).
    assert before - entropy > 1.0
    assert -4.0 / 141.0 < gap < 0.15


def test_weights_and_config_rebuild_it() -> None:
    f, z = flow(4, 2, (8,)), points(9, 4)
    assert f.config == {"features": 4, "transforms": 2, "hidden": [8]}
    again = LatentFlow(**f.config)
    # Stored all in one floating type, masks and orders too.
    again.load_state_dict(load(save({k: v.double() for k, v in f.state_dict().items()})))
    assert not torch.equal(again.from_normal(z.float()), z.float())
    again = again.double()
    again.load_state_dict(f.state_dict())
    assert torch.equal(again.from_normal(z), f.from_normal(z))


def test_leading_dimensions() -> None:
    f, z = flow(), points(2, 3, 4)
    x = f.from_normal(z)
    assert x.shape == (2, 3, 4)
    assert f.log_prob(x).shape == (2, 3)
    torch.testing.assert_close(x[1, 2], f.from_normal(z[1, 2]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1,), "flow of 1 features, needs at least 2"),
        ((4, 0), "flow of 0 transforms, needs at least 1"),
        ((4, 2, ()), r"hidden layers \(\)"),
        ((4, 2, (8, 0)), r"hidden layers \(8, 0\)"),
    ],
)
def test_wrong_settings(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LatentFlow(*arguments)


def test_wrong_latents() -> None:
    for method in (flow().log_prob, flow().from_normal, flow().to_normal, flow().loss):
        with pytest.raises(ValueError, match=r"latents of shape \(3, 5\), expected \(\.\.\., 4\)"):
            method(points(3, 5))


def test_importing_it_leaves_torch_s_checks_on() -> None:
    """zuko's import alone would switch them off for every distribution of the process."""
    with pytest.raises(ValueError, match="scale"):
        torch.distributions.Normal(0.0, -1.0)
