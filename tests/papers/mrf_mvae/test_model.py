"""The three variants of MRF MVAE: generation against the priors' conditionals, losses and likelihoods against exact."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, kl_divergence

from repro.datasets.base import ModalitySpec
from repro.distributions.pairwise_mrf import PairwiseMRF
from repro.metrics.mmd import mmd_squared
from repro.model import isolated_rng
from repro.networks.cost import count_parameters
from repro.papers.gmrf_mcvae.model import GMRFMCVAE
from repro.papers.mrf_mvae.almrf import ALMRFMVAE
from repro.papers.mrf_mvae.neural_prior import ChainSettings
from repro.papers.mrf_mvae.nnmrf import NNMRFMVAE
from repro.papers.mrf_mvae.variants import VARIANTS, build_variant
from tests.support.fields import QuadraticField, quadratic_field

IMAGES = {m: ModalitySpec((1, 4, 4), kind="image", range=(0.0, 1.0)) for m in ("m0", "m1", "m2")}
PAIRS = {m: ModalitySpec((2,)) for m in "abc"}
SHORT = ChainSettings(num_chains=8, burn_in=6, thinning=2, num_kept=4)
SETTINGS: dict[str, dict[str, Any]] = {
    "gmrf": {},
    "almrf": {},
    "almrf location": {"location": True},
    "almrf per point": {"penalty": "per_point", "num_penalty_samples": 5},
    "almrf biased": {"unbiased": False, "bandwidth": 1.5},
    "nnmrf": {"chains": SHORT},
    "nnmrf per sample": {"chains": SHORT, "partition": "per_sample", "num_samples": 4},
    "nnmrf mala": {"chains": ChainSettings("mala", 8, 6, 2, 4)},
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(name: str, seed: int = 0, modalities: Mapping[str, ModalitySpec] = IMAGES, **options: Any) -> Any:
    """A small variant whose prior has dependent, skewed blocks, as after training."""
    options = SETTINGS[name] | options
    kind = name.split()[0]
    if kind == "nnmrf":
        options = {"potential_widths": (16, 16)} | options
    with isolated_rng(seed):
        model = build_variant(kind, modalities, **{"latent_dim": 2, "width": 16, "layers": 2} | options)
        with torch.no_grad():
            if kind != "nnmrf":
                (model.prior.mean if kind == "gmrf" else model.prior.m).normal_()
                model.prior.log_diagonal.normal_(std=0.2)
                model.prior.off_diagonal.normal_(std=0.7)
            if kind == "almrf" and model.prior.loc is not None:
                model.prior.loc.normal_()
    return model


def images(size: int = 6, seed: int = 0) -> dict[str, Tensor]:
    g = generator(seed)
    return {m: torch.rand(size, *s.shape, generator=g) for m, s in IMAGES.items()}


# What all variants promise


@pytest.mark.parametrize("name", SETTINGS)
def test_shapes_unconditional_and_given_every_subset(name: str) -> None:
    model, x = build(name), images(3)
    drawn = model.generate(5, generator=generator())
    assert {m: v.shape for m, v in drawn.items()} == dict.fromkeys(IMAGES, (5, 1, 4, 4))
    for subset in (s for n in (1, 2, 3) for s in combinations(IMAGES, n)):
        drawn = model.generate(2, given={m: x[m] for m in subset}, generator=generator())
        assert list(drawn) == list(IMAGES)
        assert {m: v.shape for m, v in drawn.items()} == dict.fromkeys(IMAGES, (2, 3, 1, 4, 4))
        assert all(bool(v.isfinite().all()) and not v.requires_grad for v in drawn.values())


@pytest.mark.parametrize("name", SETTINGS)
def test_all_observed_are_decoded_from_the_joint_posterior(name: str) -> None:
    """As the decoders were trained, not from each modality's own encoder (erratum E19)."""
    model, x = build(name).eval(), images(3)
    with torch.no_grad():
        q = model.posterior(x)
        expected = model.decode(q.split(q.rsample((4,), generator=generator())))
    drawn = model.generate(4, given=x, generator=generator())
    assert all(torch.equal(drawn[m], expected[m]) for m in IMAGES)


@pytest.mark.parametrize("name", SETTINGS)
def test_draws_are_the_generator_s_and_the_global_state_stays(name: str) -> None:
    model, x = build(name), images(3)
    before = torch.get_rng_state(), repr(np.random.get_state())
    one, two = {"m1": x["m1"]}, {m: x[m] for m in ("m0", "m2")}

    def draws(seed: int) -> list[Tensor]:
        g, found = generator(seed), []
        for given in (None, one):
            found += model.generate(3, given=given, generator=g, sample_likelihood=True).values()
        for observed in (x, one):
            found.append(model.log_likelihood(observed, num_importance_samples=5, generator=g))
        found.append(model.log_likelihood(two, given=one, num_importance_samples=5, generator=g))
        return found

    first, again, other = draws(0), draws(0), draws(1)
    assert all(v.shape == (3,) and bool(v.isfinite().all()) for v in first[-3:])
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert repr(np.random.get_state()) == before[1]


@pytest.mark.parametrize("name", SETTINGS)
def test_a_few_steps_lower_the_loss(name: str) -> None:
    model, x = build(name), images(16)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    totals = []
    for _ in range(12):
        with isolated_rng(1):
            loss = model.loss(x)
        optimizer.zero_grad()
        loss.total.backward()
        assert {n for n, p in model.named_parameters() if p.grad is None} == set()
        assert all(bool(p.grad.isfinite().all()) for p in model.parameters())
        optimizer.step()
        totals.append(float(loss.total.detach()))
    assert totals[-1] < totals[0] - 0.05
    assert not any(v.requires_grad for v in loss.terms.values())


@torch.no_grad()
@pytest.mark.parametrize("name", ["almrf", "nnmrf"])
@pytest.mark.parametrize("likelihood", ["gaussian", "laplace"])
def test_total_is_its_terms_and_reductions_differ_by_the_number_of_pixels(name: str, likelihood: str) -> None:
    x, found = images(), {}
    for reduction in ("sum", "mean"):
        model = build(name, beta=0.3, scale=0.4, reduction=reduction, likelihood=likelihood)
        with isolated_rng(2):
            loss = model.loss(x)
        tie = loss.terms["penalty" if name == "almrf" else "kl"]
        assert float(loss.total) == pytest.approx(float(loss.terms["reconstruction"] + 0.3 * tie), rel=1e-6)
        found[reduction] = loss.terms["reconstruction"]
    assert float(found["sum"]) == pytest.approx(16 * float(found["mean"]), rel=1e-5)
    with isolated_rng(2):
        means = model.decode(model._split(model.posterior(x).rsample()))
    family = torch.distributions.Normal if likelihood == "gaussian" else torch.distributions.Laplace
    expected = sum(-family(means[m], 0.4).log_prob(x[m]).flatten(1).sum(1).mean() for m in x)
    assert float(found["sum"]) == pytest.approx(float(expected), rel=1e-5)


def test_the_paper_s_networks() -> None:
    """Four hidden layers of 1024, latent 8, covariance encoder 3 x 128, potentials 3 x 1024 (appendix D.2)."""
    mnist = {m: ModalitySpec((1, 28, 28), kind="image") for m in IMAGES}
    dim, pixels = 24, 784

    def dense(*sizes: int) -> int:
        return sum(a * b + b for a, b in pairwise(sizes))

    hidden = (1024,) * 4
    encoder = dense(pixels, *hidden) + 2 * dense(1024, 8)
    decoder = dense(8, *hidden, pixels)
    covariance = 3 * dense(1024, 8) + dense(dim, 128, 128, 128, dim * (dim - 1) // 2)
    shared = 3 * (encoder + decoder) + covariance
    priors = {
        "gmrf": 2 * dim + dim * (dim - 1) // 2,
        "almrf": 2 * dim + dim * (dim - 1) // 2,
        "nnmrf": dense(8 + 3, 1024, 1024, 1024, 1) + dense(2 * (8 + 3), 1024, 1024, 1024, 1),
    }
    for name in VARIANTS:
        with torch.device("meta"):
            model = build_variant(name, mnist)
        assert count_parameters(model) == shared + priors[name]
        assert model.capacity() == 2 * dim + dim * (dim - 1) // 2
    with torch.device("meta"):
        located = ALMRFMVAE(mnist, location=True)
    assert located.capacity() == 3 * dim + dim * (dim - 1) // 2
    assert count_parameters(located) == shared + priors["almrf"] + 3 * dense(1024, 8) + dim


# Models whose samples are their latents


class FixedEncoder(nn.Module):
    """z = W x + b with a constant log-variance."""

    def __init__(self, size: int, latents: int, log_variance: float) -> None:
        super().__init__()
        self.feature_dim, self.log_variance = size, log_variance
        self.linear = nn.Linear(size, latents)

    def features(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def heads(self, features: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.linear(features)
        return mean, torch.full_like(mean, self.log_variance)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.heads(self.features(x))


def transparent(kind: type[GMRFMCVAE], log_variance: float, seed: int = 3, **options: Any) -> Any:
    with isolated_rng(seed):
        encoders = {m: FixedEncoder(2, 2, log_variance) for m in PAIRS}
        decoders = {m: nn.Identity() for m in PAIRS}
        return kind(PAIRS, latent_dim=2, encoders=encoders, decoders=decoders, **options)


@torch.no_grad()
def identity_encoders(model: GMRFMCVAE) -> None:
    """Means (or skews) x and unit variances: a fair proposal for z where x = z + noise."""
    for encoder in model.encoders.values():
        encoder.log_variance = 0.0
        encoder.linear.weight.copy_(torch.eye(2))
        encoder.linear.bias.zero_()


def assert_moments(draws: Tensor, mean: Tensor, covariance: Tensor, errors: float = 4.5) -> None:
    """Means and covariances of independent draws ``(N, D)``, in their own standard errors."""
    draws, mean, covariance = draws.double(), mean.double(), covariance.double()
    root = math.sqrt(len(draws))
    assert ((draws.mean(0) - mean).abs() < errors * draws.std(0) / root).all()
    centred = draws - mean
    products = centred.unsqueeze(-1) * centred.unsqueeze(-2)
    assert ((products.mean(0) - covariance).abs() < errors * products.std(0) / root).all()


def asymmetric(location: bool = False) -> ALMRFMVAE:
    """Encoders that are certain of z_j, and a prior of dependent, skewed blocks; latents are samples."""
    model = transparent(ALMRFMVAE, -40.0, location=location)
    with isolated_rng(5), torch.no_grad():
        model.prior.m.normal_()
        model.prior.log_diagonal.normal_(std=0.2)
        model.prior.off_diagonal.normal_(std=0.7)
        if location:
            model.prior.loc.normal_()
    return model


# ALMRF


@pytest.mark.parametrize("location", [False, True])
@torch.no_grad()
def test_unconditional_samples_are_the_asymmetric_laplace_prior_s(location: bool) -> None:
    model = asymmetric(location)
    drawn = torch.cat(list(model.generate(40_000, generator=generator()).values()), 1)
    prior = model.prior()
    loc = model.prior.loc if location else 0.0
    assert_moments(drawn, loc + model.prior.m, prior.covariance_matrix)
    # Heavier than a Gaussian's tails: the kurtosis of a mixture over Exp(1) is above 3 + 3.
    centred = (drawn - drawn.mean(0)) / drawn.std(0)
    assert float(centred.pow(4).mean(0).min()) > 4.5


def observed_latents(model: ALMRFMVAE, g: torch.Generator, number: int) -> tuple[dict[str, Tensor], Tensor]:
    """One observation of modality a, and the value of z_a in each of many draws."""
    x = {"a": torch.tensor([[0.3, 0.8]])}
    return x, model.generate(number, given=x, generator=g)["a"][:, 0]


@pytest.mark.parametrize("location", [False, True])
@torch.no_grad()
def test_exact_and_matched_conditionals_have_the_prior_s_conditional_moments(location: bool) -> None:
    """Given z_a, whose mixing variable the certain encoder still draws, the rest by the law of total covariance."""
    model, number = asymmetric(location), 40_000
    x = {"a": torch.tensor([[0.3, 0.8]])}
    third = {}
    for conditional in ("exact", "matched"):
        drawn = model.generate(number, given=x, generator=generator(), conditional=conditional)
        z_a, rest = drawn["a"][:, 0], torch.cat([drawn["b"], drawn["c"]], -1)[:, 0]
        law = model.prior().condition({"a": z_a})
        # Standardised by the conditional of its own z_a, every draw has mean 0 and covariance 1.
        whitened = torch.linalg.solve_triangular(
            law.matched_gaussian().scale_tril, (rest - law.mean).unsqueeze(-1), upper=False
        ).squeeze(-1)
        assert_moments(whitened, torch.zeros(4), torch.eye(4))
        third[conditional] = whitened.double().pow(3).mean(0).norm(), whitened.double().pow(4).mean(0).min()
    assert third["exact"][0] > 0.3  # skewed, with heavy tails: the two laws are not the same
    assert third["matched"][0] < 0.15
    assert third["exact"][1] > 3.3
    assert third["matched"][1] == pytest.approx(3, abs=0.15)


@torch.no_grad()
def test_observed_latents_are_the_unary_asymmetric_laplace_s() -> None:
    model = transparent(ALMRFMVAE, math.log(0.25))
    x, z = observed_latents(model, generator(), 40_000)
    m = model.encoders["a"](x["a"])[0][0]
    assert_moments(z, m, 0.25 * torch.eye(2) + torch.outer(m, m))  # errata E1 and E2: skewed, not moved


@torch.no_grad()
def test_componentwise_draws_keep_each_law_and_lose_the_dependence() -> None:
    model, x, number = asymmetric(), {"a": torch.tensor([[0.3, 0.8]])}, 40_000
    found = {}
    for protocol in ("joint", "componentwise"):
        drawn = model.generate(number, given=x, generator=generator(), protocol=protocol)
        law = model.prior().condition({"a": drawn["a"][:, 0]})
        rest = torch.cat([drawn["b"], drawn["c"]], -1)[:, 0]
        found[protocol] = (rest - law.mean) / law.variance.sqrt()
    joint, alone = (found[p].double() for p in ("joint", "componentwise"))
    cross = joint[:, :2].T @ joint[:, 2:] / number
    assert cross.abs().max() > 0.2
    assert (alone[:, :2].T @ alone[:, 2:] / number).abs().max() < 0.05
    for z in (joint, alone):
        assert (z.mean(0).abs() < 4.5 / math.sqrt(number)).all()
        assert ((z.square().mean(0) - 1).abs() < 0.08).all()


@pytest.mark.parametrize("unbiased", [True, False])
@torch.no_grad()
def test_the_aggregated_penalty_is_that_of_one_draw_a_point_against_the_prior(unbiased: bool) -> None:
    model, x = build("almrf", unbiased=unbiased, bandwidth=1.2, beta=2.0), images(8)
    with isolated_rng(4):
        loss = model.loss(x)
    with isolated_rng(4):
        z, other = model.posterior(x).rsample(), model.prior().rsample((8,))
    expected = mmd_squared(z, other, bandwidth=1.2, unbiased=unbiased)
    assert float(loss.terms["mmd_squared"]) == pytest.approx(float(expected), rel=1e-5)
    assert float(loss.terms["penalty"]) == pytest.approx(math.log1p(float(expected)), rel=1e-5)


@torch.no_grad()
def test_eq_12_to_the_letter_penalises_every_point_alone() -> None:
    """With posteriors that differ, each is far from the prior even where their aggregate is not."""
    model = transparent(ALMRFMVAE, -10.0, location=True, penalty="per_point", num_penalty_samples=64, bandwidth=1.0)
    x = {m: torch.randn(64, 2, generator=generator(k)) for k, m in enumerate(PAIRS)}
    with isolated_rng(0):
        alone = model.loss(x).terms["penalty"]
    model.penalty = "aggregated"
    with isolated_rng(0):
        together = model.loss(x).terms["penalty"]
    assert float(together) < 0.7 * float(alone)
    assert float(alone) < math.log(3)


def test_gradients_of_the_penalty_reach_posterior_and_prior() -> None:
    model, x = build("almrf location"), images(8)
    z, other = model.posterior(x).rsample(), model.prior().rsample((8,))
    mmd_squared(z, other).log1p().backward()
    groups = ("prior.", "encoders.", "global_encoder.", "embeddings.", "locations.")
    for group in groups:
        norms = [p.grad.norm() for n, p in model.named_parameters() if n.startswith(group) and p.grad is not None]
        assert norms
        assert float(max(norms)) > 0


@torch.no_grad()
def test_no_likelihood_of_asymmetric_laplace_latents_whose_posterior_has_collapsed() -> None:
    model = build("almrf").eval()
    batch = {m: torch.rand(3, 1, 4, 4, generator=generator()) for m in IMAGES}
    before = model.log_likelihood(batch, num_importance_samples=50, generator=generator())
    assert before.isfinite().all()
    posterior = model.posterior

    def collapsed(x: Mapping[str, Tensor]) -> Any:
        q = posterior(x)
        shrunk = torch.tensor([1.0, 1e-3, 1e-9])[:, None, None] * q.scale_tril
        return type(q)(q.m, shrunk, q.block_sizes)

    model.posterior = collapsed  # type: ignore[method-assign]
    after = model.log_likelihood(batch, num_importance_samples=50, generator=generator())
    assert after.isfinite().tolist() == [True, True, False]
    assert float(after[0]) == float(before[0])
    one = model.log_likelihood({"m0": batch["m0"]}, num_importance_samples=50, generator=generator())
    assert one.isfinite().all()  # of unary posteriors, which have not


@pytest.mark.slow
@torch.no_grad()
def test_likelihood_of_asymmetric_laplace_latents_by_quadrature() -> None:
    """x_j = z_j + noise, marginal over W by quadrature: given W the observation is Gaussian."""
    model = asymmetric()
    model.scale = 1.5
    identity_encoders(model)
    x = {m: torch.tensor([[0.4, -0.2], [0.9, 0.5]]) * (1 - 0.4 * k) for k, m in enumerate(PAIRS)}
    s = model.prior().scale_tril.double()
    m, noise = model.prior.m.double(), model.noise_scale("a") ** 2

    def exact(names: str) -> Tensor:
        at = [2 * "abc".index(n) + k for n in names for k in (0, 1)]
        covariance = (s @ s.T)[at][:, at]
        nodes, weights = np.polynomial.laguerre.laggauss(60)
        value = torch.cat([x[n] for n in names], -1).double()
        logs = [
            MultivariateNormal(w * m[at], w * covariance + noise * torch.eye(len(at)).double()).log_prob(value)
            + math.log(weight)
            for w, weight in zip(nodes, weights, strict=True)
            if weight > 1e-300
        ]
        return torch.stack(logs).logsumexp(0)

    def estimate(**options: Any) -> Tensor:
        return torch.stack(
            [
                model.log_likelihood(num_importance_samples=1000, generator=generator(seed), **options).double()
                for seed in range(6)
            ]
        )

    for names in ("abc", "ab"):
        found = estimate(batch={n: x[n] for n in names})
        error = found.std(0) / math.sqrt(6)
        assert ((found.mean(0) - exact(names)).abs() < 4.5 * error + 0.01).all()
        assert float(error.max()) < 0.06
    conditional = estimate(batch={"a": x["a"]}, given={"b": x["b"]})
    error = conditional.std(0) / math.sqrt(6)
    assert ((conditional.mean(0) - (exact("ab") - exact("b"))).abs() < 4.5 * error + 0.01).all()


# NN-MRF


class QuadraticPrior(nn.Module):
    """A Gaussian field instead of the neural one."""

    def __init__(self, field: QuadraticField) -> None:
        super().__init__()
        self.field = field

    def forward(self) -> PairwiseMRF:
        return self.field.mrf()


CHAINS = ChainSettings(num_chains=500, burn_in=150, thinning=12, num_kept=8)


def quadratic(log_variance: float = -40.0, coupling: float = 0.5, **options: Any) -> NNMRFMVAE:
    """An NN-MRF model whose potentials make a known Gaussian."""
    model = transparent(NNMRFMVAE, log_variance, potential_widths=(4,), **{"chains": CHAINS} | options)
    model.prior = QuadraticPrior(quadratic_field(dict.fromkeys(PAIRS, 2), 1, coupling, torch.float32))
    return model


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["metropolis", "mala"])
def test_quadratic_potentials_generate_the_known_gaussian(sampler: str) -> None:
    model = quadratic(chains=ChainSettings(sampler, 2000, 150, 24 if sampler == "mala" else 75, 4))
    drawn = torch.cat(list(model.generate(2000, generator=generator()).values()), 1)
    exact = model.prior.field.gaussian()
    assert_moments(drawn, exact.mean, exact.covariance_matrix)
    found = model.diagnostics
    assert 0.1 < float(found.acceptance_rate.mean()) < 0.8
    assert (found.effective_sample_size > 2000).all()
    assert (found.r_hat < 1.1).all()


def test_several_draws_of_a_chain_serve_where_more_samples_than_chains_are_asked_for() -> None:
    model = quadratic(chains=ChainSettings(num_chains=50, burn_in=100, thinning=60, num_kept=4))
    z = model.sample_prior(120, generator())
    assert z.shape == (120, 6)
    assert model.diagnostics.acceptance_rate.shape == (50,)
    assert len(torch.unique(z, dim=0)) == 120


@pytest.mark.slow
def test_clamping_generates_the_known_conditional() -> None:
    model = quadratic()
    x = {"b": torch.tensor([[0.3, 0.8], [-1.0, 2.0]])}
    drawn = model.generate(2500, given=x, generator=generator())
    z_b = model.encoders["b"](x["b"])[0].detach()
    torch.testing.assert_close(drawn["b"], z_b.expand(2500, 2, 2), rtol=1e-5, atol=1e-5)
    exact = model.prior.field.gaussian().condition({"b": z_b})
    rest = torch.cat([drawn["a"], drawn["c"]], -1)
    for k in range(2):
        assert_moments(rest[:, k], exact.mean[k], exact.covariance_matrix)
    assert model.diagnostics.acceptance_rate.shape == (1, 2500, 2)


@torch.no_grad()
def test_the_batch_estimate_makes_the_loss_the_gaussian_s() -> None:
    """Quadratic potentials: reconstruction plus beta times the closed-form KL divergence."""
    model = quadratic(0.0, 0.2, beta=0.5, num_samples=100)
    identity_encoders(model)
    field = model.prior.field
    x = field.gaussian().split(field.gaussian().sample((64,), generator()))
    posterior = model.posterior(x)
    exact = float(kl_divergence(posterior, field.gaussian()).mean())
    with isolated_rng(0):
        terms = model.loss(x).terms
    assert float(terms["log_partition"]) == pytest.approx(float(field.log_partition()), abs=0.1)
    assert float(terms["kl"]) == pytest.approx(exact, abs=0.15)
    assert terms["partition_sample_size"] > 1000


@torch.no_grad()
def test_the_paper_s_estimate_with_one_draw_has_no_divergence_at_all() -> None:
    """Erratum E6: the KL term is exactly zero, and with more draws it is far too low."""
    x = {m: torch.randn(8, 2, generator=generator(k)) for k, m in enumerate(PAIRS)}
    for number in (1, 100):
        model = quadratic(-4.0, partition="per_sample", num_samples=number)
        exact = float(kl_divergence(model.posterior(x), model.prior.field.gaussian()).mean())
        with isolated_rng(0):
            kl = float(model.loss(x).terms["kl"])
        assert exact > 5
        assert abs(kl) < 1e-4 if number == 1 else kl < 0.8 * exact


def test_potentials_learn_and_a_constant_added_to_them_is_not_seen() -> None:
    model, x = build("nnmrf"), images(8)
    with isolated_rng(0):
        model.loss(x).total.backward()
    for network in (model.prior.unary, model.prior.pairwise):
        assert float(network.first.layers[0].weight.grad.abs().max()) > 1e-5
        assert float(network.rest.linear.bias.grad.abs()) < 1e-6  # -psi and ln Z move together


@pytest.mark.slow
@torch.no_grad()
def test_log_partition_and_likelihood_of_the_known_gaussian() -> None:
    """x_j = z_j + noise with a Gaussian field: all likelihoods in closed form."""
    model = quadratic(0.0, 0.2, scale=0.7, beta=1.0, partition_samples=4000)
    identity_encoders(model)
    x = {m: torch.tensor([[0.4, -0.2], [1.5, 0.7]]) * (1 - 0.5 * k) for k, m in enumerate(PAIRS)}
    gaussian, exact_constant = model.prior.field.gaussian(), float(model.prior.field.log_partition())
    for batch in (x, None, {"a": x["a"]}):
        constant, size = model.log_partition(batch, generator())
        assert float(size) > 300
        assert float(constant) == pytest.approx(exact_constant, abs=4.5 / math.sqrt(float(size)))

    def exact(names: str) -> Tensor:
        at = [2 * "abc".index(n) + k for n in names for k in (0, 1)]
        covariance = gaussian.covariance_matrix[at][:, at] + 0.49 * torch.eye(len(at))
        return MultivariateNormal(gaussian.mean[at], covariance).log_prob(torch.cat([x[n] for n in names], -1))

    def estimate(**options: Any) -> Tensor:
        return model.log_likelihood(num_importance_samples=6000, generator=generator(), **options)

    assert torch.allclose(estimate(batch=x), exact("abc"), atol=0.2)
    assert torch.allclose(estimate(batch={"c": x["c"]}), exact("c"), atol=0.2)
    conditional = estimate(batch={"a": x["a"], "c": x["c"]}, given={"b": x["b"]})
    assert torch.allclose(conditional, exact("abc") - exact("b"), atol=0.2)
    known = estimate(batch=x, log_partition=exact_constant)
    assert torch.allclose(known, exact("abc"), atol=0.15)


# Bad input


def test_bad_options_and_batches_are_named() -> None:
    for name, options, message in (
        ("almrf", {"penalty": "none"}, "penalty is 'none'"),
        ("almrf", {"bandwidth": "mean"}, "bandwidth is 'mean'"),
        ("almrf", {"bandwidth": 0.0}, "bandwidth is 0.0"),
        ("almrf", {"penalty": "per_point", "num_penalty_samples": 2}, "num_penalty_samples is 2"),
        ("nnmrf", {"partition": "exact"}, "partition is 'exact'"),
        ("nnmrf", {"num_samples": 0}, "num_samples is 0"),
        ("nnmrf", {"confinement": -1.0}, "confinement is -1.0"),
        ("gmrf", {"reduction": "max"}, "reduction is 'max'"),
        ("gmrf", {"layers": 0}, "layers is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            build(name, **options).loss(images())
    with pytest.raises(ValueError, match="unknown variant 'hmm'; one of gmrf, almrf, nnmrf"):
        build_variant("hmm", IMAGES)
    for options, message in (
        ({"sampler": "gibbs"}, "sampler is 'gibbs'"),
        ({"thinning": 0}, "thinning is 0"),
        ({"burn_in": -1}, "burn_in -1"),
    ):
        with pytest.raises(ValueError, match=message):
            ChainSettings(**options)
    x = images()
    with pytest.raises(ValueError, match="a batch of 2 is too small"):
        build("almrf").loss({m: v[:2] for m, v in x.items()})
    model = build("almrf")
    with pytest.raises(ValueError, match="conditional is 'best'"):
        model.generate(given={"m0": x["m0"]}, conditional="best")
    with pytest.raises(ValueError, match="protocol is 'pairs'"):
        model.generate(given={"m0": x["m0"]}, protocol="pairs")
    for name in ("almrf", "nnmrf"):
        model = build(name)
        with pytest.raises(ValueError, match="unknown modalities"):
            model.generate(given={"zz": x["m0"]})
        with pytest.raises(ValueError, match="num_samples is 0"):
            model.generate(0)
        with pytest.raises(ValueError, match="are both in the batch"):
            model.log_likelihood(x, given={"m0": x["m0"]})


def test_a_broken_potential_is_an_error_and_never_a_sample() -> None:
    model, x = build("nnmrf"), images()
    with torch.no_grad():
        model.prior.pairwise.rest.linear.bias.fill_(math.nan)
    for call in (
        lambda: model.loss(x),
        lambda: model.generate(2, generator=generator()),
        lambda: model.generate(2, given={"m0": x["m0"]}, generator=generator()),
    ):
        with pytest.raises(ValueError, match="pairwise potential of blocks 'm0' and 'm1' is NaN"):
            call()


def test_chains_start_where_they_are_told_to() -> None:
    """Without burn-in and with steps too small to move, samples are the starts; a start that does not fit is named."""
    chains = ChainSettings(num_chains=50, burn_in=0, thinning=1, num_kept=4, step_size=1e-9)
    with isolated_rng(0):
        model = NNMRFMVAE({"a": ModalitySpec((2,)), "b": ModalitySpec((2,))}, latent_dim=2, chains=chains)
    start = torch.tensor([[3.0, 3.0, -3.0, -3.0], [1.0, 1.0, 1.0, 1.0]])
    generator = torch.Generator().manual_seed(0)
    z = model.sample_prior(50, generator, start)
    distance = torch.cdist(z, start)
    assert float(distance.min(1).values.max()) < 1e-5
    assert set(distance.argmin(1).tolist()) == {0, 1}
    model.generate(3, start=start)
    for bad in (start[0], start[:0], torch.zeros(2, 3)):
        with pytest.raises(ValueError, match=r"start has shape .*\(S, 4\) is needed"):
            model.generate(3, start=bad)
    many = torch.zeros(1000, 4)
    many[7, 2] = math.nan
    with pytest.raises(ValueError, match="start has 1 of 1000 rows that are not finite"):
        model.generate(2, start=many)
    with pytest.raises(ValueError, match="start is of chains of the whole prior"):
        model.generate(1, given={"a": torch.zeros(3, 2)}, start=start)
