"""MVTCAE, JMVAE and DMVAE: every field pinned, losses against written-out formulas, posteriors against multivae."""

from __future__ import annotations

import dataclasses
import math
from itertools import combinations

import numpy as np
import pytest
import torch
from multivae.data.datasets.base import MultimodalBaseDataset
from torch import nn

from repro.baselines import METHODS, Baseline, BaselineSettings, build_baseline, multivae_fields
from repro.datasets.base import ModalitySpec
from repro.model import isolated_rng

MODALITIES = {"a": ModalitySpec((2,)), "b": ModalitySpec((3,)), "c": ModalitySpec((1, 2, 2), kind="image")}
SUBSETS = [s for n in (1, 2, 3) for s in combinations(MODALITIES, n)]

each_method = pytest.mark.parametrize("method", ["mvtcae", "jmvae", "dmvae"])


def build(method, *, seed=0, **changes):
    options = {"latent_dim": 2, "specific_dim": 2 * (method == "dmvae"), "beta": 0.3, "widths": (16,), **changes}
    with isolated_rng(seed):
        return build_baseline(method, options.pop("modalities", MODALITIES), **options)


def data(size=30, seed=0):
    g = torch.Generator().manual_seed(seed)
    return {m: torch.randn(size, *spec.shape, generator=g) for m, spec in MODALITIES.items()}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@each_method
def test_every_field_of_multivae_is_pinned(method):
    pinned, config_class = multivae_fields(build(method).settings), METHODS[method].config
    config = config_class(**pinned)
    fields = {f.name for f in dataclasses.fields(config_class) if f.init}
    assert fields == set(pinned)
    assert {name: getattr(config, name) for name in fields} == pinned


def kl(mean, variance, other_mean=0.0, other_variance=1.0):
    other_variance = torch.as_tensor(other_variance)
    ratio = variance / other_variance
    return 0.5 * (ratio + (mean - other_mean) ** 2 / other_variance - 1 - ratio.log()).sum(1)


def objective(model, x):
    """The documented objective, written out with the draws in the order in which multivae makes them."""
    settings, d, count = model.settings, model.latent_dim, len(x)
    moments = {m: model.moments(m, v) for m, v in x.items()}
    shared = {m: (mean[:, :d], v[:, :d].exp()) for m, (mean, v) in moments.items()}
    private = {m: (mean[:, d:], v[:, d:].exp()) for m, (mean, v) in moments.items()}

    def nll(m, z):
        error = (x[m] - model.reconstruction(m, z)).flatten(1)
        if model.likelihood == "gaussian":
            return 0.5 * (error.square() + math.log(2 * math.pi)).sum(1)
        return (error.abs() + math.log(2)).sum(1)

    def draw(mean, variance):
        return mean + variance.sqrt() * torch.randn(mean.shape)

    q = model.posterior(x)
    mean, variance = q.means[0], q.scales[0] ** 2
    if settings.method == "dmvae":
        total = 0.0
        for q_mean, q_variance in [(mean, variance), *shared.values()]:
            z = draw(q_mean, q_variance)
            for m in x:
                total = total + nll(m, torch.cat([z, draw(*private[m])], 1)) + settings.beta * kl(*private[m])
            total = total + settings.beta * kl(q_mean, q_variance)
        return total.mean()
    z = draw(mean, variance)
    reconstruction, prior = sum(nll(m, z) for m in x), kl(mean, variance)
    others = sum(kl(mean, variance, *shared[m]) for m in x)
    if settings.method == "jmvae":
        return (reconstruction + settings.beta * prior + settings.alpha * others).mean()
    share = settings.alpha / count
    return ((1 - share) * reconstruction + settings.beta * ((1 - settings.alpha) * prior + share * others)).mean()


@pytest.mark.parametrize("likelihood", ["gaussian", "laplace"])
@each_method
def test_the_loss_is_the_documented_objective(method, likelihood):
    model, x = build(method, likelihood=likelihood, **({} if method == "dmvae" else {"alpha": 0.7})), data()
    with isolated_rng(4):
        loss = model.loss({m: x[m] for m in reversed(x)})
    with isolated_rng(4):
        expected = objective(model, x)
    torch.testing.assert_close(loss.total, expected, rtol=1e-4, atol=1e-4)
    assert set(loss.terms) == {"kl_a", "kl_b", "kl_c"}
    loss.total.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


@each_method
def test_posteriors_are_those_of_multivae(method):
    model, x = build(method), data()
    inputs = MultimodalBaseDataset(data=x)
    for subset in SUBSETS:
        q = model.posterior({m: x[m] for m in subset})
        mean = model.multivae.encode(inputs, list(subset), return_mean=True).z
        assert q.means.shape == (1, 30, 2)
        torch.testing.assert_close(q.means[0], mean, rtol=1e-4, atol=1e-5)
    with isolated_rng(0):
        drawn = model.multivae.encode(inputs, list(SUBSETS[-1]), N=2000).z  # (2000, 30, 2)
    # The relative standard error of a deviation over 2,000 draws is 0.016.
    torch.testing.assert_close(drawn.std(0).mean(0), q.scales[0].mean(0), rtol=0.02, atol=0)


@each_method
def test_generate_has_the_leading_shapes_of_the_interface(method):
    model, x = build(method), data(5)
    assert all(v.shape == (3, *MODALITIES[m].shape) for m, v in model.generate(3, generator=generator()).items())
    for subset in SUBSETS:
        drawn = model.generate(2, given={m: x[m] for m in subset}, generator=generator(), sample_likelihood=True)
        assert {m: v.shape for m, v in drawn.items()} == {m: (2, 5, *s.shape) for m, s in MODALITIES.items()}


@each_method
def test_a_generator_decides_everything_and_the_global_state_stays(method):
    model, x = build(method), data(4)
    states = torch.get_rng_state(), repr(np.random.get_state())

    def outcome(seed):
        g = generator(seed)
        drawn = model.generate(2, given={"a": x["a"]}, generator=g)["b"]
        return drawn, model.log_likelihood(x, num_importance_samples=20, generator=g)

    first, second, other = outcome(5), outcome(5), outcome(6)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert repr(np.random.get_state()) == states[1]
    assert all(torch.equal(u, v) for u, v in zip(first, second, strict=True))
    assert not any(torch.equal(u, v) for u, v in zip(first, other, strict=True))


def test_private_latents_of_missing_modalities_come_from_the_prior():
    modalities = {m: ModalitySpec((2,)) for m in "ab"}

    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.mean = nn.Parameter(torch.full((2,), 4.0))

        def forward(self, x):
            return self.mean.expand(len(x), 2), torch.full((len(x), 2), -12.0)

    model = build(
        "dmvae",
        modalities=modalities,
        latent_dim=1,
        specific_dim=1,
        encoders={m: Constant() for m in "ab"},
        decoders={m: nn.Identity() for m in "ab"},
    )
    drawn = model.generate(4000, given={"a": torch.zeros(1, 2)}, generator=generator())
    assert torch.equal(drawn["a"][..., 0], drawn["b"][..., 0])  # shared
    assert float(drawn["a"][..., 1].mean()) == pytest.approx(4.0, abs=0.01)
    assert float(drawn["b"][..., 1].mean()) == pytest.approx(0.0, abs=0.07)
    assert float(drawn["b"][..., 1].std()) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("other", {}, "unknown method 'other'; one of mvae, .*, mvtcae, jmvae, dmvae"),
        ("mvtcae", {"specific_dim": 2}, "mvtcae takes no latent_dim 2, specific_dim 2"),
        ("dmvae", {"specific_dim": 0}, "dmvae takes no latent_dim 2, specific_dim 0"),
        ("jmvae", {"beta": 0.0}, "beta is 0.0, must be positive"),
        ("mvtcae", {"alpha": 1.5}, r"alpha is 1.5; mvtcae takes one in \[0, 1\]"),
        ("dmvae", {"alpha": 0.5}, "alpha is 0.5; dmvae"),
        ("jmvae", {"alpha": math.inf}, "alpha is inf"),
        ("jmvae", {"likelihood": "poisson"}, "unknown likelihood 'poisson'"),
        ("mvtcae", {"modalities": {"a": ModalitySpec((2,))}}, r"at least two modalities, got \['a'\]"),
        ("mvtcae", {"encoders": {}}, r"encoders are for \[\], the modalities are"),
        ("mvtcae", {"joint_encoder": nn.Identity()}, "jmvae, and it alone, needs a joint encoder"),
    ],
)
def test_what_does_not_fit_is_named(method, changes, message):
    with pytest.raises(ValueError, match=message):
        build(method, **changes)


def test_joint_encoders_of_another_size_are_named():
    settings = BaselineSettings("jmvae", MODALITIES, 2, 0, 1.0, "gaussian", alpha=0.1)
    good = build("jmvae")

    class Three(nn.Module):
        def forward(self, x):
            return torch.zeros(len(x["a"]), 3)

    networks = [{m: getattr(good.multivae, k)[m].network for m in MODALITIES} for k in ("encoders", "decoders")]
    with pytest.raises(ValueError, match=r"gives \(30, 3\), needs \(30, 4\)"):
        Baseline(settings, *networks, Three()).loss(data())
    with pytest.raises(ValueError, match="jmvae, and it alone"):
        Baseline(settings, *networks)
