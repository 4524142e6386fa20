"""GMRF MCVAE: generation against the prior's conditionals, the loss against torch's, the likelihood against exact."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, kl_divergence

from repro.datasets.base import ModalitySpec
from repro.distributions.block_gaussian import BlockGaussian
from repro.model import isolated_rng
from repro.papers.gmrf_mcvae.model import CONDITIONAL_PROTOCOLS, GMRFMCVAE

MODALITIES = {"a": ModalitySpec((2,)), "b": ModalitySpec((3,)), "c": ModalitySpec((1, 2, 2), kind="image")}
PAIRS = {m: ModalitySpec((2,)) for m in "abc"}
SUBSETS = [s for n in (1, 2, 3) for s in combinations(MODALITIES, n)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(seed: int = 0, modalities: Mapping[str, ModalitySpec] = MODALITIES, **options: Any) -> GMRFMCVAE:
    """A model whose prior has dependent blocks and a mean, as after training."""
    with isolated_rng(seed):
        model = GMRFMCVAE(modalities, **options)
        if model.prior.covariance != "standard":
            with torch.no_grad():
                model.prior.mean.normal_()
                model.prior.log_diagonal.normal_(std=0.2)
                model.prior.off_diagonal.normal_(std=0.7)
    return model


def batch(size: int = 6, modalities: Mapping[str, ModalitySpec] = MODALITIES, seed: int = 0) -> dict[str, Tensor]:
    g = generator(seed)
    return {m: torch.rand(size, *s.shape, generator=g) for m, s in modalities.items()}


# Generation


@pytest.mark.parametrize("protocol", CONDITIONAL_PROTOCOLS)
def test_shapes_unconditional_and_given_every_subset(protocol: str) -> None:
    model, x = build(), batch()
    drawn = model.generate(5, generator=generator(), protocol=protocol)
    assert {m: v.shape for m, v in drawn.items()} == {m: (5, *s.shape) for m, s in MODALITIES.items()}
    for subset in SUBSETS:
        drawn = model.generate(4, given={m: x[m] for m in subset}, generator=generator(), protocol=protocol)
        assert list(drawn) == list(MODALITIES)
        assert {m: v.shape for m, v in drawn.items()} == {m: (4, 6, *s.shape) for m, s in MODALITIES.items()}
        assert not any(v.requires_grad for v in drawn.values())


@pytest.mark.parametrize("likelihood", ["gaussian", "laplace"])
def test_draws_are_the_generator_s_and_the_global_state_stays(likelihood: str) -> None:
    model, x = build(likelihood=likelihood), batch()
    before = torch.get_rng_state(), repr(np.random.get_state())

    def draws(seed: int) -> list[Tensor]:
        g, found = generator(seed), []
        for given in (None, {"b": x["b"]}):
            for protocol in CONDITIONAL_PROTOCOLS:
                options = {"given": given, "generator": g, "protocol": protocol, "sample_likelihood": True}
                found += model.generate(3, **options).values()
        found.append(model.log_likelihood(x, num_importance_samples=5, generator=g))
        found.append(model.log_likelihood({"a": x["a"]}, given={"b": x["b"]}, num_importance_samples=5, generator=g))
        return found

    first, again, other = draws(0), draws(0), draws(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert repr(np.random.get_state()) == before[1]


class FixedEncoder(nn.Module):
    """z = W x + b with a constant log-variance."""

    def __init__(self, size: int, latents: int, log_variance: float) -> None:
        super().__init__()
        self.feature_dim = size
        self.linear = nn.Linear(size, latents)
        self.log_variance = log_variance

    def features(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def heads(self, features: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.linear(features)
        return mean, torch.full_like(mean, self.log_variance)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.heads(self.features(x))


def transparent(log_variance: float, **options: Any) -> GMRFMCVAE:
    """A model whose samples are its latents."""
    with isolated_rng(3):
        encoders = {m: FixedEncoder(2, 2, log_variance) for m in PAIRS}
    return build(modalities=PAIRS, encoders=encoders, decoders={m: nn.Identity() for m in PAIRS}, **options)


def moments(drawn: Mapping[str, Tensor], names: str) -> tuple[Tensor, Tensor]:
    """Mean and covariance of latents (samples, 1, 2) of the named blocks."""
    z = torch.cat([drawn[m][:, 0] for m in names], 1).double()
    return z.mean(0), z.T.cov()


def test_unconditional_samples_have_the_prior_s_moments() -> None:
    model = transparent(0.0)
    drawn = model.generate(200_000, generator=generator())
    mean, covariance = moments({m: x.unsqueeze(1) for m, x in drawn.items()}, "abc")
    prior = model.prior()
    assert torch.allclose(mean, prior.mean.double(), atol=0.02)
    assert torch.allclose(covariance, prior.covariance_matrix.double(), atol=0.05)


def expected_given_a(model: GMRFMCVAE, x: Tensor, variance: float) -> tuple[Tensor, Tensor]:
    """Moments of (z_b, z_c) where z_a ~ N(encoder's mean, variance): the law of total covariance, written out."""
    prior = model.prior()
    mean, s = prior.mean.detach().double(), prior.covariance_matrix.detach().double()
    gain = s[2:, :2] @ torch.linalg.inv(s[:2, :2])
    z_a = model.encoders["a"](x)[0][0].detach().double()
    return mean[2:] + gain @ (z_a - mean[:2]), s[2:, 2:] - gain @ s[:2, 2:] + variance * gain @ gain.T


@pytest.mark.parametrize("log_variance", [-40.0, math.log(0.25)])
def test_joint_draws_follow_the_prior_s_conditional(log_variance: float) -> None:
    model, x = transparent(log_variance), torch.tensor([[0.3, 0.8]])
    drawn = model.generate(200_000, given={"a": x}, generator=generator())
    mean, covariance = moments(drawn, "bc")
    expected_mean, expected_covariance = expected_given_a(model, x, math.exp(log_variance))
    assert torch.allclose(mean, expected_mean, atol=0.02)
    assert torch.allclose(covariance, expected_covariance, atol=0.05)
    assert covariance[:2, 2:].abs().max() > 0.2  # the unobserved blocks depend on one another
    if log_variance < -30:
        conditional = model.prior().condition({"a": model.encoders["a"](x)[0]})
        assert torch.allclose(mean, conditional.mean[0].double(), atol=0.02)
        assert torch.allclose(covariance, conditional.covariance_matrix[0].double(), atol=0.05)


@pytest.mark.parametrize("posterior", ["cholesky", "block_dominant"])
def test_all_observed_are_drawn_from_the_joint_posterior(posterior: str) -> None:
    """With the dependence that the global encoder gives and the encoders of single components lack (erratum E19)."""
    model, x = transparent(math.log(0.25), posterior=posterior), batch(1, PAIRS)
    with torch.no_grad():
        list(model.global_encoder.parameters())[-1].normal_(generator=generator())
    mean, covariance = moments(model.generate(200_000, given=x, generator=generator()), "abc")
    q = model.posterior(x)
    assert torch.allclose(mean, q.mean[0].double(), atol=0.02)
    assert torch.allclose(covariance, q.covariance_matrix[0].double(), atol=0.05)
    assert covariance[:2, 2:].abs().max() > 0.1
    drawn = model.generate(200_000, given=x, generator=generator(), protocol=CONDITIONAL_PROTOCOLS[2])
    assert moments(drawn, "abc")[1][:2, 2:].abs().max() < 0.01  # as the author's code draws


def test_componentwise_draws_are_independent_given_the_observed() -> None:
    model, x = transparent(-40.0), torch.tensor([[0.3, 0.8]])
    expected_mean, expected = expected_given_a(model, x, 0.0)
    drawn = model.generate(200_000, given={"a": x}, generator=generator(), protocol="componentwise")
    mean, covariance = moments(drawn, "bc")
    assert torch.allclose(mean, expected_mean, atol=0.02)
    assert torch.allclose(covariance[:2, :2], expected[:2, :2], atol=0.05)
    assert torch.allclose(covariance[2:, 2:], expected[2:, 2:], atol=0.05)
    assert covariance[:2, 2:].abs().max() < 0.03
    assert expected[:2, 2:].abs().max() > 0.2


@pytest.mark.parametrize(
    ("protocol", "std"), [("joint", 0.5), ("componentwise", 0.5), (CONDITIONAL_PROTOCOLS[2], 0.25)]
)
def test_spread_of_the_observed_latents(protocol: str, std: float) -> None:
    """A variance of 0.25 is drawn with the standard deviation 0.5, in the released code's way with 0.25."""
    model, x = transparent(math.log(0.25)), torch.tensor([[0.3, 0.8]])
    drawn = model.generate(100_000, given={"a": x}, generator=generator(), protocol=protocol)
    mean, covariance = moments(drawn, "a")
    assert torch.allclose(mean, model.encoders["a"](x)[0][0].double(), atol=0.01)
    assert torch.allclose(covariance, std**2 * torch.eye(2).double(), atol=0.01)


def test_covariance_as_scale_is_componentwise_but_for_that_spread() -> None:
    model, x = transparent(math.log(0.25)), torch.tensor([[0.3, 0.8]])
    drawn = model.generate(200_000, given={"a": x}, generator=generator(), protocol=CONDITIONAL_PROTOCOLS[2])
    mean, covariance = moments(drawn, "bc")
    expected_mean, expected = expected_given_a(model, x, 0.25**2)
    gain_only = expected - expected_given_a(model, x, 0.0)[1]
    assert torch.allclose(mean, expected_mean, atol=0.02)
    assert torch.allclose(covariance[:2, :2], expected[:2, :2], atol=0.05)
    assert torch.allclose(covariance[:2, 2:], gain_only[:2, 2:], atol=0.03)  # through the observed alone


@pytest.mark.parametrize("likelihood", ["gaussian", "laplace"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_likelihood_noise_has_the_stated_scale(likelihood: str, reduction: str) -> None:
    model = build(likelihood=likelihood, reduction=reduction, beta=0.04, scale=1.5)
    clean, noisy = (model.generate(20_000, generator=generator(), sample_likelihood=s) for s in (False, True))
    for m, spec in MODALITIES.items():
        noise = noisy[m] - clean[m]
        weight = 0.04 * (spec.numel if reduction == "mean" else 1)
        scale = 1.5 * (math.sqrt(weight) if likelihood == "gaussian" else weight)
        assert model.noise_scale(m) == pytest.approx(scale)
        measured = noise.std() if likelihood == "gaussian" else noise.abs().mean()
        assert float(measured) == pytest.approx(scale, rel=0.03)
        assert abs(float(noise.mean())) < 0.05 * scale


# The loss


def test_capacity_of_the_copula_model() -> None:
    modalities = {f"m{i}": ModalitySpec((2,)) for i in range(4)}
    assert GMRFMCVAE(modalities).capacity() == 44
    assert GMRFMCVAE(modalities, posterior="block_dominant").capacity() == 8 + 8 + 24


@pytest.mark.parametrize("temperature", [0, -1, math.nan, math.inf, 1e39, True, "1", np.array(0.5), None], ids=str)
def test_a_temperature_is_a_positive_number(temperature: object) -> None:
    with pytest.raises(ValueError, match=r"temperature is .*, must be a positive number under 3.4e\+38$"):
        build().generate(1, temperature=temperature)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("half", [Fraction(1, 2), np.float16(0.5), torch.tensor(0.5)], ids=repr)
def test_a_temperature_may_be_of_any_type_of_numbers(half: Any) -> None:
    drawn = [build().generate(3, temperature=t, generator=generator()) for t in (0.5, half)]
    assert all(torch.equal(drawn[0][m], drawn[1][m]) for m in MODALITIES)


def test_a_temperature_at_which_images_overflow_is_refused() -> None:
    assert all(bool(x.isfinite().all()) for x in build().generate(3, temperature=1e6).values())
    with pytest.raises(ValueError, match=r"temperature is 3.4e\+38, must be smaller: what is decoded .* not finite"):
        build().generate(3, temperature=3.4e38)


def test_protocols_differ_only_where_something_is_given() -> None:
    model, x = build(), batch()
    joint, mean = (model.generate(3, generator=generator(), protocol=p) for p in ("joint", "mean"))
    assert all(torch.equal(joint[m], mean[m]) for m in MODALITIES)
    options = {"given": {"a": x["a"]}, "protocol": "mean"}
    plain, tempered = (model.generate(3, generator=generator(), temperature=t, **options) for t in (1.0, 0.5))
    assert all(torch.equal(plain[m], tempered[m]) for m in MODALITIES)


def test_capacity_of_the_masked_image_model() -> None:
    """Erratum E10: of 3,160 entries a quarter is 790; with 80 means and 80 diagonal entries that is 950, not 660."""
    modalities = {f"m{i}": ModalitySpec((2,)) for i in range(5)}
    assert GMRFMCVAE(modalities, latent_dim=16, kept=0.25).capacity() == 950
    assert GMRFMCVAE(modalities, latent_dim=16, kept=0.16).capacity() == 665  # MRF MVAE's count
    assert GMRFMCVAE(modalities, latent_dim=16).capacity() == 160 + 3160


@torch.no_grad()
def test_masked_entries_are_zero_in_posterior_and_prior() -> None:
    model, x = build(kept=0.5), batch()
    rows, columns = torch.tril_indices(6, 6, -1)
    assert int(model.mask.sum()) == 7
    for distribution in (model.posterior(x), model.prior()):
        entries = distribution.scale_tril[..., rows, columns]
        assert bool((entries[..., ~model.mask] == 0).all())
        assert bool((entries[..., model.mask] != 0).all())
    assert not torch.equal(model.mask, build(kept=0.5, mask_seed=1).mask)
    assert torch.equal(model.mask, build(1, kept=0.5).mask)
    assert build().mask is None
    # The mask follows from the settings: weights with and without it have the same names.
    assert model.state_dict().keys() == build().state_dict().keys()


@torch.no_grad()
@pytest.mark.parametrize("posterior", ["cholesky", "block_dominant"])
@pytest.mark.parametrize("prior", ["cholesky", "block_dominant", "standard"])
def test_closed_form_kl_is_torch_s(posterior: str, prior: str) -> None:
    model, x = build(posterior=posterior, prior=prior), batch()
    q, p = model.posterior(x), model.prior()
    expected = kl_divergence(
        MultivariateNormal(q.mean.double(), q.covariance_matrix.double()),
        MultivariateNormal(p.mean.double(), p.covariance_matrix.double()),
    )
    assert q.batch_shape == (6,)
    with isolated_rng(0):
        loss = model.loss(x)
    assert float(loss.terms["kl"]) == pytest.approx(float(expected.mean()), rel=1e-4)
    total = loss.terms["reconstruction"] + model.beta * loss.terms["kl"]
    assert float(loss.total) == pytest.approx(float(total), rel=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("likelihood", ["gaussian", "laplace"])
def test_reconstruction_term_in_nats(likelihood: str) -> None:
    model, x = build(likelihood=likelihood, scale=0.3), batch()
    with isolated_rng(2):
        terms = model.loss(x).terms
    with isolated_rng(2):
        q = model.posterior(x)
        means = model.decode(q.split(q.rsample()))
    family = torch.distributions.Normal if likelihood == "gaussian" else torch.distributions.Laplace
    expected = {m: -family(means[m], 0.3).log_prob(x[m]).flatten(1).sum(1).mean() for m in x}
    assert float(terms["reconstruction"]) == pytest.approx(float(sum(expected.values())), rel=1e-5)
    with isolated_rng(2):
        averaged = build(likelihood=likelihood, scale=0.3, reduction="mean").loss(x).terms
    mean = sum(v / MODALITIES[m].numel for m, v in expected.items())
    assert float(averaged["reconstruction"]) == pytest.approx(float(mean), rel=1e-5)
    assert torch.equal(averaged["kl"], terms["kl"])


@torch.no_grad()
@pytest.mark.parametrize("likelihood", ["gaussian", "laplace"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_loss_is_a_negative_elbo_at_the_noise_scale(likelihood: str, reduction: str) -> None:
    """Up to a factor and a constant, whatever the parameters."""
    x, constants = batch(modalities=PAIRS), []
    for seed in range(3):
        options = {"likelihood": likelihood, "reduction": reduction, "beta": 0.1, "scale": 0.7}
        model = build(seed, PAIRS, **options)
        with isolated_rng(9):
            loss = model.loss(x).total
        with isolated_rng(9):
            q = model.posterior(x)
            means = model.decode(q.split(q.rsample()))
        nll = -sum(model.log_prob(m, x[m], means[m], model.noise_scale(m)) for m in x).mean()
        elbo = -nll - kl_divergence(q, model.prior()).mean()
        constants.append(float(loss + 0.1 * elbo))
    assert constants == pytest.approx([constants[0]] * 3, abs=1e-4)


COMBINATIONS = [("cholesky", "cholesky", "element"), ("cholesky", "standard", "element")]
COMBINATIONS += [
    (q, p, d) for d in ("element", "block") for q, p in (("block_dominant",) * 2, ("cholesky", "block_dominant"))
]


@pytest.mark.parametrize(("posterior", "prior", "dominance"), COMBINATIONS)
def test_a_few_steps_lower_the_loss(posterior: str, prior: str, dominance: str) -> None:
    with isolated_rng(0):
        model = GMRFMCVAE(MODALITIES, posterior=posterior, prior=prior, dominance=dominance, beta=0.05)
    x = batch(32)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    totals = []
    for _ in range(15):
        with isolated_rng(1):
            loss = model.loss(x)
        optimizer.zero_grad()
        loss.total.backward()
        unused = {n for n, p in model.named_parameters() if p.grad is None}
        assert unused == set()
        assert all(bool(p.grad.isfinite().all()) for p in model.parameters())
        optimizer.step()
        totals.append(loss.total.item())
    assert totals[-1] < totals[0] - 0.05
    eigenvalues = torch.linalg.eigvalsh(model.posterior(x).covariance_matrix)
    assert float(eigenvalues.min()) > 0


def test_block_dominant_forms_differ_and_a_standard_prior_has_no_parameters() -> None:
    one, other = (build(prior="block_dominant", dominance=d).prior().covariance_matrix for d in ("element", "block"))
    assert not torch.allclose(one, other)
    standard = build(prior="standard").prior
    assert list(standard.parameters()) == []
    assert torch.equal(standard().covariance_matrix, torch.eye(6))
    assert "prior.mean" not in build(prior="standard").state_dict()


# The likelihood, of linear decoders, whose exact value is known


class Linear(GMRFMCVAE):
    """Linear decoders; the joint proposal is the exact posterior with its spread times 1.3."""

    def exact(self, names: str) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and covariance of x of the named modalities, and its covariance with z, without z's mean."""
        index = ["abc".index(m) for m in names]
        prior = self.prior()
        w = torch.block_diag(*(self.decoders[m].weight for m in names)).double()
        bias = torch.cat([self.decoders[m].bias for m in names]).double()
        s = prior.covariance_matrix.double()
        noise = torch.cat([torch.full((2,), self.noise_scale(m) ** 2) for m in names]).double()
        mean = w @ prior.mean.double()[index] + bias
        return mean, w @ s[index][:, index] @ w.T + noise.diag(), s[:, index] @ w.T

    def posterior(self, batch: Mapping[str, Tensor]) -> BlockGaussian:
        mean, covariance, cross = self.exact("abc")
        gain = cross @ torch.linalg.inv(covariance)
        x = torch.cat([batch[m] for m in "abc"], 1).double()
        posterior_mean = self.prior().mean + (x - mean) @ gain.T
        spread = 1.3**2 * (self.prior().covariance_matrix.double() - gain @ cross.T)
        return BlockGaussian.from_covariance(posterior_mean.float(), spread.float(), self.block_sizes)

    def exact_log_prob(self, batch: Mapping[str, Tensor]) -> Tensor:
        names = "".join(m for m in "abc" if m in batch)
        mean, covariance, _ = self.exact(names)
        return MultivariateNormal(mean, covariance).log_prob(torch.cat([batch[m] for m in names], 1).double())


@pytest.fixture(scope="module")
def linear() -> Linear:
    """One latent a modality, noise scale 0.6 sqrt(0.5); the unary proposals are the exact unary posteriors."""
    with isolated_rng(4):
        encoders = {m: FixedEncoder(2, 1, 0.0) for m in PAIRS}
        decoders = {m: nn.Linear(1, 2) for m in PAIRS}
        model = Linear(PAIRS, latent_dim=1, beta=0.5, scale=0.6, encoders=encoders, decoders=decoders)
    with torch.no_grad():
        model.prior.mean.copy_(torch.tensor([0.4, -0.3, 0.1]))
        model.prior.log_diagonal.copy_(torch.tensor([0.2, -0.1, 0.0]))
        model.prior.off_diagonal.copy_(torch.tensor([0.8, -0.5, 0.6]))
        for i, m in enumerate("abc"):
            mean, covariance, cross = model.exact(m)
            gain = cross[i] @ torch.linalg.inv(covariance)
            model.encoders[m].linear.weight.copy_(gain[None])
            model.encoders[m].linear.bias.copy_(model.prior.mean[i] - gain @ mean)
            model.encoders[m].log_variance = float((model.prior().covariance_matrix[i, i] - gain @ cross[i]).log())
    return model


@pytest.fixture(scope="module")
def points(linear: Linear) -> dict[str, Tensor]:
    """Samples of the model itself."""
    return linear.generate(12, generator=generator(5), sample_likelihood=True)


@torch.no_grad()
def test_joint_likelihood_is_the_exact_one(linear: Linear, points: dict[str, Tensor]) -> None:
    found = linear.log_likelihood(points, num_importance_samples=2000, generator=generator())
    assert found.shape == (12,)
    assert torch.allclose(found.double(), linear.exact_log_prob(points), atol=0.05)


@torch.no_grad()
@pytest.mark.parametrize("name", PAIRS)
def test_likelihood_of_one_modality_is_exact_where_its_proposal_is(
    name: str, linear: Linear, points: dict[str, Tensor]
) -> None:
    found = linear.log_likelihood({name: points[name]}, num_importance_samples=3, generator=generator())
    assert torch.allclose(found.double(), linear.exact_log_prob({name: points[name]}), atol=1e-4)


@torch.no_grad()
def test_likelihood_of_two_modalities(linear: Linear, points: dict[str, Tensor]) -> None:
    for names in ("ab", "ac", "cb"):
        x = {m: points[m] for m in names}
        found = linear.log_likelihood(x, num_importance_samples=5000, generator=generator())
        assert torch.allclose(found.double(), linear.exact_log_prob(x), atol=0.05)


@torch.no_grad()
def test_conditional_likelihood_is_the_exact_one(linear: Linear, points: dict[str, Tensor]) -> None:
    for names, given in (("a", "bc"), ("bc", "a"), ("b", "c")):
        x, observed = ({m: points[m] for m in s} for s in (names, given))
        found = linear.log_likelihood(x, given=observed, num_importance_samples=5000, generator=generator())
        exact = linear.exact_log_prob(x | observed) - linear.exact_log_prob(observed)
        assert torch.allclose(found.double(), exact, atol=0.08)
        assert not torch.allclose(exact, linear.exact_log_prob(x), atol=0.1)  # what is given matters


# Bad input


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"posterior": "full"}, "posterior is 'full', must be one of"),
        ({"posterior": "standard"}, "posterior is 'standard', must be one of"),
        ({"prior": "full"}, "prior is 'full', must be one of"),
        ({"likelihood": "normal"}, "likelihood is 'normal', must be one of"),
        ({"reduction": "average"}, "reduction is 'average', must be one of"),
        ({"dominance": "row"}, "dominance is 'row', must be one of"),
        ({"output": "tanh"}, "output is 'tanh'"),
        ({"latent_dim": 0}, "latent_dim is 0, must be positive"),
        ({"beta": 0.0}, "beta is 0.0, must be positive"),
        ({"beta": float("nan")}, "beta is nan, must be positive"),
        ({"scale": -1.0}, "scale is -1.0, must be positive"),
        ({"kept": 0.0}, r"kept is 0.0, must be in \(0, 1\]"),
        ({"kept": 1.5}, r"kept is 1.5, must be in \(0, 1\]"),
        ({"kept": True}, r"kept is True, must be in \(0, 1\]"),
        ({"kept": None}, r"kept is None, must be in \(0, 1\]"),
        ({"posterior": "block_dominant", "epsilon": 1.5}, r"epsilon is 1.5, must be in \(0, 1\)"),
        ({"delta": -1}, "delta is -1, must be positive and finite"),
        ({"beta": math.inf}, "beta is inf, must be positive and finite"),
        ({"beta": True}, "beta is True, must be positive and finite"),
        ({"beta": "x"}, "beta is 'x', must be positive and finite"),
        ({"scale": math.inf}, "scale is inf, must be positive and finite"),
        ({"prior_start": math.nan}, "prior_start is nan, must be a finite number or None"),
        ({"latent_dim": 2.5}, "latent_dim is 2.5, must be a whole number"),
        ({"ramp": 5}, "ramp is 5, must be a sequence of betas"),
        ({"ramp": "5"}, "ramp is '5', must be a sequence of betas"),
        ({"ramp": [0.1, None]}, "ramp's beta is None, must be positive and finite"),
        ({"ramp": [0.1, 0.1]}, r"ramp is \[0.1, 0.1\], must be different positive betas, none of them 0.001"),
        ({"variance": "linear"}, "variance is 'linear', must be one of"),
        ({"variance": np.array(["exponential"])}, "variance is array.*, must be one of"),
        (
            {"encoders": {"a": FixedEncoder(2, 2, 0.0)}},
            r"encoders are for \['a'\], the modalities are \['a', 'b', 'c'\]",
        ),
        ({"decoders": {"z": nn.Identity()}}, r"decoders are for \['z'\], the modalities are \['a', 'b', 'c'\]"),
    ],
)
def test_bad_options(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        GMRFMCVAE(MODALITIES, **options)


def test_numbers_of_other_types_are_kept_as_floats() -> None:
    numbers = {"beta": 1, "scale": np.float32(0.5), "kept": np.float16(0.5), "delta": torch.tensor(0.25)}
    model = GMRFMCVAE(MODALITIES, latent_dim=np.int64(2), ramp=np.array([0.1, 0.2]), **numbers)
    found = [model.beta, model.scale, model.delta, *model.ramp.values()]
    assert [(type(x), x) for x in found] == [(float, x) for x in (1.0, 0.5, 0.25, 0.1, 0.2)]
    assert model.loss(batch()).total.isfinite()


def test_bad_calls() -> None:
    model, x = build(), batch()
    for protocol in ("pairwise", np.array(["mean"]), ["mean"], None):
        with pytest.raises(ValueError, match=r"protocol is .*, must be one of .*'joint'"):
            model.generate(given={"a": x["a"]}, protocol=protocol)
    with pytest.raises(ValueError, match="num_samples is 0"):
        model.generate(0)
    with pytest.raises(ValueError, match="num_importance_samples is 0"):
        model.log_likelihood(x, num_importance_samples=0)
    for call in (lambda y: model.generate(given=y), model.log_likelihood, lambda y: model.log_likelihood(x, given=y)):
        with pytest.raises(ValueError, match=r"unknown modalities \['z'\]; the model has \['a', 'b', 'c'\]"):
            call({"z": x["a"]})
    with pytest.raises(ValueError, match=r"modality 'a' has shape \(6, 3\), the model needs \(batch, 2\)"):
        model.generate(given={"a": x["b"]})
    with pytest.raises(ValueError, match=r"the batch has modalities \['a'\], the model needs"):
        model.loss({"a": x["a"]})
    with pytest.raises(ValueError, match=r"modalities \['b'\] are both in the batch"):
        model.log_likelihood({"a": x["a"], "b": x["b"]}, given={"b": x["b"]})
    with pytest.raises(ValueError, match="unequal batch sizes"):
        model.generate(given={"a": x["a"], "b": x["b"][:3]})
