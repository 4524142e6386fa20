"""CoVAE: losses against written-out formulas, generation against equation 2, stages, samplers, bad input."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from repro.datasets.base import Dataset, ModalitySpec
from repro.model import isolated_rng
from repro.networks.mlp import GaussianMLPEncoder
from repro.papers.covae.model import CoVAE
from repro.papers.covae.networks import build_networks
from repro.papers.covae.observation import Observation
from repro.papers.covae.posterior import num_covariance_entries, posterior_scale_tril
from repro.papers.covae.prior import normalise_blocks
from repro.papers.covae.samplers import aggregate_latents, fit_flow, fit_mixture
from repro.training import TrainingSettings, train
from tests.support.linear_gaussian import linear_covae

MODALITIES = {
    "a": ModalitySpec((3,)),
    "b": ModalitySpec((1, 2, 2), kind="image", range=(0.0, 1.0)),
    "c": ModalitySpec((4,)),
}
SIZES = {"a": 2, "b": 3, "c": 2}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(names: str = "ab", seed: int = 0, kind: str = "mlp", **options: Any) -> CoVAE:
    modalities = {m: MODALITIES[m] for m in names}
    sizes = {m: SIZES[m] for m in names}
    outputs = sum(sizes.values()) + num_covariance_entries(options.get("posterior", "cholesky"), list(sizes.values()))
    with isolated_rng(seed):
        made = build_networks(
            kind, modalities, encoded=sizes, decoded=sizes, joint_outputs=outputs, widths=(16,), joint_hidden=16
        )
        return CoVAE(
            modalities,
            latent_dims=sizes,
            encoders=made.encoders,
            joint_encoder=made.joint,
            decoders=made.decoders,
            **options,
        )


def batch(names: str = "ab", size: int = 6, seed: int = 0) -> dict[str, Tensor]:
    g = generator(seed)
    return {m: torch.rand(size, *MODALITIES[m].shape, generator=g) for m in names}


# The posterior's covariance


@pytest.mark.parametrize("form", ["cholesky", "cross_diagonal"])
def test_covariance_of_the_joint_posterior(form: str) -> None:
    entries = torch.randn(5, num_covariance_entries(form, [3, 2]), generator=generator())
    tril = posterior_scale_tril(form, entries, [3, 2], 0.01)
    covariance = tril @ tril.mT - 0.01 * torch.eye(5)
    if form == "cholesky":
        assert entries.shape[1] == 15
        lower = torch.zeros(5, 5)
        rows, columns = torch.tril_indices(5, 5, -1)
        lower[rows, columns] = entries[0, 5:]
        lower.diagonal()[:] = entries[0, :5].exp()
        torch.testing.assert_close(covariance[0], lower @ lower.T, rtol=1e-4, atol=1e-4)
        return
    assert entries.shape[1] == 7
    scale, correlation = entries[:, :5].exp(), entries[:, 5:].sigmoid()
    torch.testing.assert_close(covariance.diagonal(dim1=1, dim2=2), scale**2, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(covariance[:, 1, 4], correlation[:, 1] * scale[:, 1] * scale[:, 4], rtol=1e-4, atol=1e-4)
    off = covariance.clone()
    off.diagonal(dim1=1, dim2=2)[:] = 0
    for i in (0, 1):
        off[:, i, 3 + i] = off[:, 3 + i, i] = 0
    torch.testing.assert_close(off, torch.zeros_like(off), rtol=0, atol=1e-4)


def test_ill_conditioned_covariances_are_factored_in_float64() -> None:
    """Float32 alone takes this matrix for indefinite: entries of 300 beside an epsilon of 1e-3 (erratum E13)."""
    entries = torch.full((1, num_covariance_entries("cholesky", [4, 4])), 300.0)
    entries[:, :8] = -8.0
    tril = posterior_scale_tril("cholesky", entries, [4, 4], 1e-3)
    assert tril.dtype == torch.float32
    assert bool(tril.isfinite().all())
    lower = torch.full((8, 8), 300.0, dtype=torch.float64).tril(-1) + math.exp(-8) * torch.eye(8, dtype=torch.float64)
    expected = torch.linalg.cholesky(lower @ lower.T + 1e-3 * torch.eye(8, dtype=torch.float64))
    torch.testing.assert_close(tril[0].double().diagonal(), expected.diagonal(), rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="not positive definite"):
        posterior_scale_tril("cholesky", entries * torch.nan, [4, 4], 1e-3)


# Losses


def nll(x: Tensor, mean: Tensor) -> Tensor:
    return -Normal(mean, 1.0).log_prob(x).flatten(1).sum(1).mean()


@pytest.mark.parametrize("names", ["ab", "abc"])
def test_loss_is_equations_3_and_4(names: str) -> None:
    model, x = build(names, pretraining="none", beta=0.7, cross_weight=0.4), batch(names)
    g = generator(1)
    size = sum(SIZES[m] for m in names)
    a = torch.randn(size, size, generator=g, dtype=torch.float64)
    prior = normalise_blocks(a @ a.T + 2 * torch.eye(size, dtype=torch.float64), model.block_sizes).float()
    prior = (prior + prior.T) / 2
    model.prior.set_covariance(prior)
    with isolated_rng(3):
        loss = model.loss(x)
    ends = np.cumsum([SIZES[m] for m in names])
    spans = {m: slice(e - SIZES[m], e) for m, e in zip(names, ends, strict=True)}

    def decoded(z: Tensor) -> Tensor:
        means = {m: model.decoders[m](z[:, s]).reshape(x[m].shape) for m, s in spans.items()}
        return torch.stack([nll(x[m], mean) for m, mean in means.items()]).sum()

    with isolated_rng(3):
        q = model.posterior(x)
        joint = MultivariateNormal(q.mean, scale_tril=q.scale_tril)
        whole = MultivariateNormal(torch.zeros(size), prior)
        expected = decoded(q.mean + (q.scale_tril @ torch.randn(6, size).unsqueeze(-1)).squeeze(-1))
        expected = expected + 0.7 * kl_divergence(joint, whole).mean()
        for m, s in spans.items():
            mean, log_variance = model.encoders[m](x[m])
            z = torch.zeros(6, size)
            own = mean + (log_variance / 2).exp() * torch.randn(mean.shape)
            rest = [i for i in range(size) if not s.start <= i < s.stop]
            mine = list(range(s.start, s.stop))
            gain = prior[rest][:, mine] @ torch.linalg.inv(prior[mine][:, mine])
            covariance = prior[rest][:, rest] - gain @ prior[mine][:, rest]
            noise = torch.randn(6, len(rest))
            z[:, mine], z[:, rest] = own, own @ gain.T + noise @ torch.linalg.cholesky(covariance).T
            marginal = MultivariateNormal(torch.zeros(len(mine)), prior[mine][:, mine])
            unary = MultivariateNormal(mean, scale_tril=torch.diag_embed((log_variance / 2).exp()))
            expected = expected + 0.4 * (decoded(z) + 0.7 * kl_divergence(unary, marginal).mean())
    torch.testing.assert_close(loss.total, expected, rtol=1e-4, atol=1e-3)
    loss.total.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


def test_the_loss_bounds_the_exact_likelihood_and_is_tight_for_exact_posteriors() -> None:
    """Both are ELBOs at beta 1 (erratum E13): of the joint likelihood, and of the same under x_k's own encoder."""
    exact, x = linear_covae(cross_weight=0.0), linear_covae().data(400)
    with isolated_rng(0):
        losses = [float(exact.model.loss(x).total.detach()) for _ in range(20)]
    # The reconstruction is sampled; the exact posterior makes the bound tight.
    true = -float(exact.log_likelihood(x).mean())
    assert np.mean(losses) == pytest.approx(true, abs=4 * np.std(losses) / math.sqrt(20) + 1e-3)
    wide = linear_covae(1.5, cross_weight=0.0)
    with isolated_rng(0):
        assert float(wide.model.loss(x).total.detach()) > true + 0.1


# Generation


def test_shapes_unconditional_and_given_every_subset() -> None:
    model, x = build("abc"), batch("abc")
    drawn = model.generate(5, generator=generator(), sample_likelihood=True)
    assert {m: v.shape for m, v in drawn.items()} == {m: (5, *s.shape) for m, s in MODALITIES.items()}
    for subset in [s for n in (1, 2, 3) for s in combinations("abc", n)]:
        drawn = model.generate(4, given={m: x[m] for m in reversed(subset)}, generator=generator())
        assert list(drawn) == list("abc")
        assert {m: v.shape for m, v in drawn.items()} == {m: (4, 6, *s.shape) for m, s in MODALITIES.items()}
        assert not any(v.requires_grad for v in drawn.values())


def test_missing_latents_follow_equation_2_with_a_sample_of_the_observed() -> None:
    """The spread of z_o goes into that of z_m: erratum E13. Tolerances are four standard errors and more."""
    exact = linear_covae(pretraining="none")
    model, x = exact.model, exact.data(1)
    z = model.latents(100_000, {"a": x["a"]}, generator())
    mean, log_variance = model.encoders["a"](x["a"])
    rho = torch.tensor([0.8, 0.5], dtype=torch.float64)
    torch.testing.assert_close(z["b"][:, 0].mean(0), (rho * mean[0]).detach(), rtol=0, atol=0.015)
    variance = (1 - rho**2 + rho**2 * log_variance[0].exp()).detach()
    torch.testing.assert_close(z["b"][:, 0].var(0), variance, rtol=0.03, atol=0)
    cross = torch.cov(torch.cat([z["a"][:, 0], z["b"][:, 0]], 1).T)[:2, 2:].diagonal()
    torch.testing.assert_close(cross, (rho * log_variance[0].exp()).detach(), rtol=0, atol=0.015)


def test_given_all_the_joint_posterior_is_drawn_and_given_none_the_prior() -> None:
    exact = linear_covae()
    model, x = exact.model, exact.data(1)
    z = torch.cat(list(model.latents(100_000, x, generator()).values()), -1)[:, 0]
    q = model.posterior(x)
    torch.testing.assert_close(z.mean(0), q.mean[0].detach(), rtol=0, atol=0.015)
    torch.testing.assert_close(z.T.cov(), q.covariance_matrix[0].detach(), rtol=0, atol=0.015)
    drawn = model.generate(100_000, generator=generator())
    values = torch.cat(list(drawn.values()), -1).T.cov()
    expected = torch.from_numpy(exact.covariance) - torch.eye(9, dtype=torch.float64)
    torch.testing.assert_close(values, expected, rtol=0, atol=0.06)


@pytest.mark.parametrize("likelihood", ["gaussian", "laplace"])
def test_draws_are_the_generator_s_and_the_global_state_stays(likelihood: str) -> None:
    model, x = build(likelihood=likelihood, scale=0.5), batch()
    before = torch.get_rng_state(), repr(np.random.get_state())

    def draws(seed: int) -> list[Tensor]:
        g = generator(seed)
        found = list(model.generate(3, generator=g, sample_likelihood=True).values())
        found += model.generate(3, given={"b": x["b"]}, generator=g, sample_likelihood=True).values()
        found.append(model.log_likelihood(x, num_importance_samples=5, generator=g))
        return [*found, model.log_likelihood({"a": x["a"]}, given={"b": x["b"]}, num_importance_samples=5, generator=g)]

    first, again, other = draws(0), draws(0), draws(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert repr(np.random.get_state()) == before[1]


@pytest.mark.parametrize(("likelihood", "deviation"), [("gaussian", 1.0), ("laplace", 2**0.5)])
def test_noise_of_the_likelihood(likelihood: str, deviation: float) -> None:
    noise = Observation(likelihood, 0.4).noise(torch.zeros(40_000), generator())
    assert float(noise.std()) == pytest.approx(0.4 * deviation, rel=0.03)
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.015)


def test_samplers_fitted_to_the_aggregate_posterior_take_the_prior_s_place() -> None:
    g = generator()
    centres = torch.tensor([[2.0, 2.0, 0.0, 0.0, 0.0], [-2.0, -2.0, 1.0, 0.0, 0.0]])
    latents = centres[torch.arange(1000) % 2] + 0.5 * torch.randn(1000, 5, generator=g)
    model = build()
    for sampler in (fit_mixture(latents, components=2), fit_flow(latents, steps=150)):
        z = sampler.sample(4000, generator=generator(1))
        torch.testing.assert_close(z.mean(0), latents.mean(0), rtol=0, atol=0.35)
        torch.testing.assert_close(z.T.cov(), latents.T.cov(), rtol=0.3, atol=0.3)
        assert torch.equal(z, sampler.sample(4000, generator=generator(1)))
        drawn = model.generate(7, generator=generator(), sampler=sampler)
        assert drawn["b"].shape == (7, 1, 2, 2)
    with pytest.raises(ValueError, match="a sampler draws joint latents"):
        model.generate(2, given=batch(), sampler=sampler)
    with pytest.raises(ValueError, match="5 components for 5"):
        fit_mixture(latents[:5], components=5)
    with pytest.raises(ValueError, match=r"latents \[1\] are constant"):
        fit_flow(latents * torch.tensor([1.0, 0.0, 1.0, 1.0, 1.0]))


# Stages


def correlated(n: int, rho: float) -> Dataset:
    """Two modalities that are invertible functions of correlated latents."""
    g = generator()
    z, e = torch.randn(2, n, 2, generator=g)
    x = torch.cat([z, z[:, :1] ** 3 / 3], 1) @ torch.randn(3, 3, generator=g)
    y = (rho * z + math.sqrt(1 - rho**2) * e) @ torch.randn(2, 4, generator=g)
    modalities = {"a": MODALITIES["a"], "c": MODALITIES["c"]}
    return Dataset("toy", "train", modalities, {"a": x, "c": y}, None)


def test_training_fills_the_prior_with_held_out_correlations_and_freezes_it() -> None:
    data = correlated(1500, 0.8)
    model = build("ac")
    settings = TrainingSettings(
        2, 250, 1e-3, optimizer="adamw", stages={"deep_cca": {"epochs": 25, "batch_size": 450, "learning_rate": 1e-2}}
    )
    assert [s.name for s in model.stages()] == ["deep_cca", "train"]
    history = train(model, data, settings, seed=0)
    assert bool(model.aligned)
    rho = model.prior.correlations()
    assert float(rho.mean()) == pytest.approx(0.8, abs=0.08)
    torch.testing.assert_close(
        rho, model.held_out_correlations.sort(descending=True).values.double(), atol=1e-5, rtol=0
    )
    assert float(model.fitted_correlations.mean()) > float(rho.mean()) - 0.05
    assert [e["stage"] for e in history] == ["deep_cca"] * 25 + ["train"] * 2
    factor = model.prior.factor.clone()
    model.loss(batch("ac"), model.stages()[1]).total.backward()
    assert not any(n.startswith("prior.") for n, _ in model.named_parameters())
    # Entering the second stage again, as when training goes on, leaves what is aligned as it is.
    weight = model.encoders["a"].mean.weight.clone()
    assert model.stage_data(model.stages()[1], data) is data
    assert torch.equal(model.encoders["a"].mean.weight, weight)
    assert torch.equal(model.prior.factor, factor)


def test_deep_cca_sees_no_held_out_sample_and_trains_the_encoders_alone() -> None:
    data, model = correlated(200, 0.5), build("ac", held_out=0.25)
    first, second = model.stages()
    assert first.parameters == ("encoders.",)
    assert len(model.stage_data(first, data)) == 150
    loss = model.loss({m: x[:50] for m, x in data.data.items()}, first)
    assert list(loss.terms) == ["a_c"]
    loss.total.backward()
    assert {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None} == {"encoders"}
    assert build("ac", pretraining="none").stages() == [second]


def test_trainable_prior_has_gradients() -> None:
    model = build("ac", trainable_prior=True, marginal_variance=True, pretraining="none")
    model.loss(batch("ac")).total.backward()
    assert model.prior.logits.grad is not None
    assert model.prior.log_scale.grad is not None


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": "a"}, r"at least two modalities, got \['a'\]"),
        ({"posterior": "cross_diagonal", "names": "abc"}, "for two modalities, not"),
        ({"pretraining": "pca"}, "pretraining is 'pca'"),
        ({"likelihood": "poisson"}, "likelihood is 'poisson'"),
        ({"beta": 0.0}, "beta is 0.0, must be positive"),
        ({"epsilon": float("nan")}, "epsilon is nan"),
        ({"scale": -1.0}, "scale is -1.0"),
        ({"held_out": 1.0}, "held_out 1.0 is out of range"),
        ({"cross_weight": -1.0}, "cross_weight -1.0"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_bad_batches_are_named() -> None:
    model, x = build("ac"), batch("ac", 4)
    with pytest.raises(ValueError, match="3 samples of 2 and 2 features, needs at least 4"):
        model.loss({m: v[:3] for m, v in x.items()})
    with pytest.raises(ValueError, match=r"features \[0, 1\] of x are constant"):
        model.loss({"a": torch.ones(9, 3), "c": torch.rand(9, 4, generator=generator())})
    with pytest.raises(ValueError, match=r"modalities \['a'\] are both"):
        model.log_likelihood(x, given={"a": x["a"]})
    with pytest.raises(ValueError, match="unknown modalities"):
        model.generate(1, given={"z": x["a"]})
    with pytest.raises(ValueError, match="num_samples is 0"):
        model.generate(0)
    with pytest.raises(ValueError, match=r"\['a', 'c'\] are given; one modality is needed, or all"):
        build("abc").latent_means(x)
    with pytest.raises(ValueError, match="unknown networks 'cnn'"):
        build("ac", kind="cnn")
    with pytest.raises(ValueError, match=r"take images of shape \(1, 28, 28\)"):
        build("ac", kind="resnet")


def test_encoders_narrower_than_their_latents_are_named_where_deep_cca_needs_them() -> None:
    good = build("ac", pretraining="none")
    narrow = {m: GaussianMLPEncoder(s.shape[0], 2, widths=(1,)) for m, s in good.modalities.items()}
    networks = {"joint_encoder": good.joint_encoder, "decoders": dict(good.decoders), "encoders": narrow}
    with pytest.raises(ValueError, match="encoder of 'a' has 1 features for 2 latents"):
        CoVAE(good.modalities, latent_dims={"a": 2, "c": 2}, **networks)
    CoVAE(good.modalities, latent_dims={"a": 2, "c": 2}, pretraining="none", **networks)


def test_encoders_without_a_layer_called_mean_are_named() -> None:
    good = build("ac")
    with pytest.raises(ValueError, match="encoder of 'a' needs a linear layer called mean"):
        CoVAE(
            good.modalities,
            latent_dims=good.block_sizes,
            encoders={m: torch.nn.Linear(3, 2) for m in "ac"},
            joint_encoder=good.joint_encoder,
            decoders=good.decoders,
        )


def test_aggregate_latents_have_one_sample_a_point() -> None:
    data, model = correlated(30, 0.5), build("ac")
    z = aggregate_latents(model, data, generator=generator(), batch_size=7)
    assert z.shape == (30, 4)
    assert torch.equal(z, aggregate_latents(model, data, generator=generator(), batch_size=7))
