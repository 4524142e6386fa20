"""Diffusions, score matching and samplers on Gaussians, whose scores and conditionals are known."""

from __future__ import annotations

import math
import re
from dataclasses import FrozenInstanceError

import pytest
import torch
from scipy import integrate
from torch import Tensor

from repro.distributions.diffusion import VPSDE, denoising_loss
from repro.distributions.diffusion_density import log_density
from repro.distributions.diffusion_samplers import SAMPLERS, Observed, evaluations, predictor_corrector, time_grid

PUBLISHED = [(0.1, 5.0), (1.0, 5.0), (0.1, 20.0)]
RHO, OBSERVED = 0.9, 1.5
MEAN, VARIANCE = RHO * OBSERVED, 1 - RHO**2  # 1.35 and 0.19


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pair_score(sde: VPSDE, rho: float = RHO):
    """The exact score of two coordinates of unit variance and correlation rho."""

    def score(z: Tensor, t: Tensor) -> Tensor:
        t = t if t.ndim == 0 else t[:, None]
        off = rho * sde.alpha(t).square()
        return -(z - off * z.flip(-1)) / (1 - off.square())

    return score


def observed(noise: str = "fresh") -> Observed:
    return Observed(torch.tensor([[OBSERVED, 0.0]]), torch.tensor([[True, False]]), noise)


def conditional(sampler: str, number: int = 4000, noise: str = "fresh", seed: int = 0, **options) -> Tensor:
    sde = options.pop("sde", VPSDE())
    g = generator(seed)
    start = torch.randn(number, 2, generator=g)
    z = SAMPLERS[sampler](pair_score(sde), sde, start, observed=observed(noise), generator=g, **options)
    assert torch.equal(z[:, 0], torch.full((number,), OBSERVED))
    return z[:, 1]


@pytest.mark.parametrize("rates", PUBLISHED)
def test_marginals_are_the_sde_integrated(rates):
    sde, t = VPSDE(*rates), torch.linspace(0, 1, 7, dtype=torch.float64)
    for time in t.tolist():
        rate, _ = integrate.quad(lambda s: rates[0] + s * (rates[1] - rates[0]), 0, time)
        assert float(sde.integral(torch.tensor(time, dtype=torch.float64))) == pytest.approx(rate, abs=1e-12)
    # Mean and variance follow m' = -beta m / 2 and v' = beta (1 - v) from (1, 0).
    solved = integrate.solve_ivp(
        lambda s, y: [
            -0.5 * (rates[0] + s * (rates[1] - rates[0])) * y[0],
            (rates[0] + s * (rates[1] - rates[0])) * (1 - y[1]),
        ],
        (0, 1),
        [1.0, 0.0],
        t_eval=t.numpy(),
        rtol=1e-10,
        atol=1e-12,
    )
    torch.testing.assert_close(sde.alpha(t), torch.tensor(solved.y[0]), rtol=0, atol=1e-8)
    torch.testing.assert_close(sde.sigma(t).square(), torch.tensor(solved.y[1]), rtol=0, atol=1e-8)
    torch.testing.assert_close(sde.alpha(t).square() + sde.sigma(t).square(), torch.ones_like(t))
    inner = t[1:]
    torch.testing.assert_close(sde.time(sde.log_snr(inner)), inner)
    torch.testing.assert_close(sde.log_snr(inner), (sde.alpha(inner) / sde.sigma(inner)).log())


def test_what_survives_at_time_one():
    """Erratum E12: with (0.1, 5) the start of sampling is not the end of the diffusion."""
    one = torch.tensor(1.0)
    assert float(VPSDE(0.1, 5.0).alpha(one)) == pytest.approx(0.279, abs=5e-4)
    assert float(VPSDE(0.1, 5.0).alpha(one)) ** 2 == pytest.approx(0.078, abs=5e-4)
    assert float(VPSDE(0.1, 20.0).alpha(one)) ** 2 < 5e-5


def test_the_unweighted_loss_is_ill_conditioned():
    """Erratum E11: E[1 / sigma^2] is 83, and 80% of it comes from t under 0.01."""
    sde = VPSDE(0.1, 5.0)
    inverse = lambda t: float(sde.sigma(torch.tensor(t, dtype=torch.float64))) ** -2  # noqa: E731
    early, _ = integrate.quad(inverse, 1e-5, 0.01, limit=200)
    late, _ = integrate.quad(inverse, 0.01, 1)
    assert (early + late) / (1 - 1e-5) == pytest.approx(83, abs=0.5)
    assert early / (early + late) == pytest.approx(0.80, abs=0.01)


def test_perturbed_points_have_the_marginals():
    sde, g = VPSDE(1.0, 5.0), generator()
    z, noise = torch.full((40_000, 1, 2), 2.0), torch.randn(40_000, 1, 2, generator=g)
    t = torch.tensor([0.2, 0.9]).repeat(20_000)
    found = sde.perturb(z, t, noise)
    for k, time in enumerate((0.2, 0.9)):
        alpha, sigma = float(sde.alpha(torch.tensor(time))), float(sde.sigma(torch.tensor(time)))
        assert float(found[k::2].mean()) == pytest.approx(2 * alpha, abs=4 * sigma / 200)
        assert float(found[k::2].std()) == pytest.approx(sigma, abs=4 * sigma / math.sqrt(2 * 40_000))
    torch.testing.assert_close(sde.perturb(z[:2], torch.tensor(0.2), noise[:2])[0], found[0])


@pytest.mark.parametrize("weighting", ["variance", "unweighted"])
def test_the_loss_of_the_exact_score(weighting):
    r"""For data N(0, 1) the score is -z and the loss has the integrand lambda alpha^2 / sigma^2 in closed form."""
    sde, eps = VPSDE(0.1, 5.0), 0.05
    z = torch.randn(100_000, 1, dtype=torch.float64, generator=generator())
    found = denoising_loss(lambda x, t: -x, sde, z, weighting=weighting, eps=eps, generator=generator(1))

    def expected(t: float) -> float:
        alpha = float(sde.alpha(torch.tensor(t, dtype=torch.float64))) ** 2
        return alpha if weighting == "variance" else alpha / (1 - alpha)

    mean, _ = integrate.quad(lambda t: expected(t) / (1 - eps), eps, 1)
    square, _ = integrate.quad(lambda t: 3 * expected(t) ** 2 / (1 - eps), eps, 1)
    assert float(found) == pytest.approx(mean, abs=4 * math.sqrt((square - mean**2) / len(z)))


def test_the_loss_is_least_at_the_exact_score_and_minds_the_mask():
    sde, g = VPSDE(), generator()
    z = torch.randn(20_000, 2, generator=g)
    z[:, 1] = RHO * z[:, 0] + math.sqrt(VARIANCE) * z[:, 1]
    exact = pair_score(sde)
    losses = {
        factor: float(denoising_loss(lambda x, t, f=factor: f * exact(x, t), sde, z, generator=generator(1)))
        for factor in (0.8, 1.0, 1.2)
    }
    assert losses[1.0] < min(losses[0.8], losses[1.2])
    mask = torch.tensor([[1.0, 0.0]]).expand_as(z)
    broken = lambda x, t: torch.stack([exact(x, t)[:, 0], torch.full((len(x),), 1e3)], 1)  # noqa: E731
    one = denoising_loss(broken, sde, z, mask=mask, generator=generator(1))
    assert float(one) == pytest.approx(losses[1.0] / 2, rel=0.05)


@pytest.mark.parametrize(
    ("sampler", "options"),
    [
        ("predictor_corrector", {"num_steps": 100}),
        ("heun", {"num_steps": 30}),
        ("dpm_solver", {"num_steps": 15}),
        ("dpm_solver", {"num_steps": 40, "stochasticity": 1.0}),
        ("dpm_solver", {"num_steps": 40, "stochasticity": 8.0}),
    ],
)
def test_joint_samples_have_the_covariance(sampler, options):
    """With rates (0.1, 20) nothing survives at time 1, so that starting from N(0, I) is right."""
    sde, g = VPSDE(0.1, 20.0), generator()
    start = torch.randn(8000, 2, generator=g)
    z = SAMPLERS[sampler](pair_score(sde), sde, start, generator=g, **options)
    # Four standard errors (0.04) and the steps' own error.
    torch.testing.assert_close(z.T @ z / len(z), torch.tensor([[1.0, RHO], [RHO, 1.0]]), rtol=0, atol=0.09)


def test_solvers_converge_with_their_order():
    """From one start the error against a fine solution falls as N^-2."""
    sde, start = VPSDE(), torch.randn(200, 2, dtype=torch.float64, generator=generator())
    score = pair_score(sde)
    exact = SAMPLERS["heun"](score, sde, start, num_steps=1000)
    for sampler in ("heun", "dpm_solver"):
        errors = [float((SAMPLERS[sampler](score, sde, start, num_steps=n) - exact).abs().max()) for n in (30, 60)]
        assert errors[1] < 0.01
        assert errors[0] / errors[1] > 3


def test_conditional_mean_of_the_predictor_corrector():
    """The errata's example: 1.35 exactly; fresh noise comes near it with N, the released code's overshoots."""
    found = conditional("predictor_corrector", num_steps=400, sde=VPSDE(0.1, 20.0))
    assert float(found.mean()) == pytest.approx(MEAN, abs=0.06)
    assert float(found.var()) == pytest.approx(VARIANCE, abs=0.04)
    legacy = conditional("predictor_corrector", num_steps=400, noise="legacy", sde=VPSDE(0.1, 20.0))
    assert float(legacy.mean()) > 1.43


def test_fresh_noise_is_what_lets_the_unobserved_follow():
    """20 evaluations with stochasticity 8 are nearer than 200 of the predictor-corrector; the ODE is far off."""
    slow = float(conditional("predictor_corrector", num_steps=100).mean())
    fast = conditional("dpm_solver", num_steps=20, stochasticity=8.0)
    ode = float(conditional("dpm_solver", num_steps=20).mean())
    assert abs(float(fast.mean()) - MEAN) < 0.1 < abs(slow - MEAN) < 0.25 < abs(ode - MEAN)
    assert float(fast.var()) == pytest.approx(VARIANCE, abs=0.09)


def test_kinds_of_observed_noise():
    """What the score is given: fresh noise at every evaluation, the first one throughout, or none."""
    sde, seen = VPSDE(), []

    def score(z: Tensor, t: Tensor) -> Tensor:
        seen.append(((z[:, 0] - sde.alpha(t) * OBSERVED) / sde.sigma(t)).clone())
        return -z

    for noise in ("fresh", "fixed", "legacy"):
        seen.clear()
        SAMPLERS["dpm_solver"](
            score, sde, torch.zeros(3, 2), num_steps=4, observed=observed(noise), generator=generator()
        )
        drawn = torch.stack(seen)
        same = torch.allclose(drawn, drawn[:1].expand_as(drawn), atol=1e-3)
        assert same == (noise != "fresh")
        assert torch.allclose(drawn, torch.full_like(drawn, OBSERVED), atol=1e-3) == (noise == "legacy")


def test_clean_observed_coordinates_are_not_diffused():
    seen = []
    score = lambda z, t: (seen.append(z[:, 0].clone()), -z)[1]  # noqa: E731
    SAMPLERS["heun"](score, VPSDE(), torch.zeros(3, 2), num_steps=3, observed=observed("clean"), generator=generator())
    assert torch.equal(torch.stack(seen), torch.full((5, 3), OBSERVED))


def test_a_flat_score_makes_no_langevin_step():
    flat = predictor_corrector(lambda z, t: torch.zeros_like(z), VPSDE(), torch.ones(2, 2), num_steps=1)
    sde = VPSDE()
    grown = 1 + 0.5 * float(sde.beta(torch.tensor(1.0))) * (1 - 1e-3)  # the one predictor step, without noise
    torch.testing.assert_close(flat, torch.full((2, 2), grown))


def test_samples_are_a_function_of_the_generator():
    options = {"number": 50, "num_steps": 5}
    for sampler in SAMPLERS:
        assert torch.equal(conditional(sampler, seed=3, **options), conditional(sampler, seed=3, **options))
        assert not torch.equal(conditional(sampler, seed=3, **options), conditional(sampler, seed=4, **options))


@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_evaluations_are_as_stated(sampler):
    calls = []
    score = lambda z, t: (calls.append(float(t)), -z)[1]  # noqa: E731
    SAMPLERS[sampler](score, VPSDE(), torch.ones(2, 3), num_steps=6)
    assert len(calls) == evaluations(sampler, 6)
    assert calls[0] == 1.0
    assert calls == sorted(calls, reverse=True)


def _slope(sde: VPSDE, t: float) -> float:
    """The derivative of a coordinate's velocity with respect to the other coordinate."""
    time = torch.tensor(t, dtype=torch.float64)
    off = RHO * float(sde.alpha(time)) ** 2
    return 0.5 * float(sde.beta(time)) * off / (1 - off**2)


@pytest.mark.parametrize("num_probes", [None, 10])
def test_density_of_the_probability_flow(num_probes):
    sde = VPSDE(0.1, 20.0)
    z = torch.randn(30, 2, dtype=torch.float64, generator=generator())
    alpha = sde.alpha(torch.tensor(1e-3, dtype=torch.float64))
    covariance = torch.eye(2).double() + RHO * alpha.square() * torch.eye(2).double().flip(0)
    expected = torch.distributions.MultivariateNormal(torch.zeros(2).double(), covariance).log_prob(z)
    score = pair_score(sde)
    found = log_density(score, sde, z, num_steps=60, num_probes=num_probes, generator=generator(1))
    if num_probes is None:
        torch.testing.assert_close(found, expected, rtol=0, atol=0.02)
        return
    # Hutchinson's error of a point has the deviation 2 G / sqrt(probes), G the integral of the off-diagonal slope.
    slope, _ = integrate.quad(lambda t: _slope(sde, t), 1e-3, 1)
    deviation = 2 * slope / math.sqrt(num_probes)
    assert 0.1 < float((found - expected).std()) < 1.6 * deviation
    assert float((found - expected).mean()) == pytest.approx(0, abs=4 * deviation / math.sqrt(len(z)))


def test_time_grids():
    sde = VPSDE(0.1, 5.0)
    for spacing in ("uniform", "quadratic", "log_snr"):
        times = time_grid(sde, 8, eps=1e-3, spacing=spacing)
        assert len(times) == 9
        assert float(times[0]) == pytest.approx(1.0)
        assert float(times[-1]) == pytest.approx(1e-3)
        assert bool((times.diff() < 0).all())
    steps = sde.log_snr(time_grid(sde, 8, spacing="log_snr")).diff()
    torch.testing.assert_close(steps, steps[:1].expand_as(steps))


def test_a_broken_step_is_named():
    calls = []

    def score(z: Tensor, t: Tensor) -> Tensor:
        calls.append(t)
        return -3 * torch.ones_like(z) if len(calls) < 4 else z * torch.nan

    with pytest.raises(ValueError, match=r"evaluation 4 of 12: .* NaN .* largest \|score\| before was 3$"):
        predictor_corrector(score, VPSDE(), torch.ones(2, 2), num_steps=6)
    with pytest.raises(ValueError, match=r"evaluation 1 of 2: .* unknown"):
        predictor_corrector(lambda z, t: z * torch.inf, VPSDE(), torch.ones(2, 2), num_steps=1)


def test_errors_are_one_line():
    sde, z, mask = VPSDE(), torch.zeros(3, 2), torch.tensor([[True, False]])
    score = lambda x, t: -x  # noqa: E731
    for match, call in {
        "beta_0 -1": lambda: VPSDE(-1.0, 5.0),
        "beta_1 nan": lambda: VPSDE(0.1, math.nan),
        "num_steps is 0": lambda: predictor_corrector(score, sde, z, num_steps=0),
        "eps is 1": lambda: SAMPLERS["heun"](score, sde, z, eps=1.0),
        "spacing is 'log'": lambda: SAMPLERS["dpm_solver"](score, sde, z, spacing="log"),
        "stochasticity is -1": lambda: SAMPLERS["dpm_solver"](score, sde, z, stochasticity=-1.0),
        "snr 0": lambda: predictor_corrector(score, sde, z, snr=0.0),
        "corrector_steps -1": lambda: predictor_corrector(score, sde, z, corrector_steps=-1),
        "the score has shape (3, 1)": lambda: predictor_corrector(lambda x, t: x[:, :1], sde, z),
        "weighting is 'none'": lambda: denoising_loss(score, sde, z, weighting="none"),
        "the score has shape (3,)": lambda: denoising_loss(lambda x, t: x[:, 0], sde, z),
        "times have shape (2,)": lambda: sde.perturb(z, torch.zeros(2), z),
        "observed noise is 'old'": lambda: Observed(z, mask, "old"),
        "must be boolean": lambda: Observed(z, mask.float()),
        "nothing to condition on": lambda: Observed(z, torch.tensor([[True, True]])),
        "some coordinates have to be observed": lambda: Observed(z, torch.tensor([[False, False]])),
        "an observed value is not finite": lambda: Observed(z * torch.nan, mask),
        "sampler is 'ddim'": lambda: evaluations("ddim", 3),
        "num_probes is 0": lambda: log_density(score, sde, z, num_probes=0),
    }.items():
        with pytest.raises(ValueError, match=re.escape(match)) as caught:
            call()
        assert "\n" not in str(caught.value)
    Observed(torch.tensor([[1.0, math.nan]]), mask)  # what is not observed may be anything
    with pytest.raises(FrozenInstanceError):
        sde.beta_0 = 1.0
