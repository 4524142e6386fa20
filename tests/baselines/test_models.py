"""The baselines: every field pinned, losses against written-out formulas, weights, and calls that do not fit."""

from __future__ import annotations

import dataclasses
import math
from itertools import combinations

import numpy as np
import pytest
import torch
from multivae.data.datasets.base import MultimodalBaseDataset
from safetensors.torch import load, save
from torch import nn

from repro.baselines import METHODS, BaselineSettings, build_baseline, multivae_fields
from repro.datasets.base import ModalitySpec
from repro.model import isolated_rng
from repro.networks.mlp import GaussianMLPEncoder

MODALITIES = {"a": ModalitySpec((2,)), "b": ModalitySpec((3,)), "c": ModalitySpec((1, 2, 2), kind="image")}
MIXTURES = ("mvae", "mmvae", "mopoe", "mmvae_plus")  # the others are in test_joint.py
SUBSETS = [s for n in (1, 2, 3) for s in combinations(MODALITIES, n)]
VARIANTS = {m: {"method": m, "specific_dim": 2 if m == "mmvae_plus" else 0} for m in MIXTURES}
VARIANTS["mopoe_factorised"] = {"method": "mopoe", "specific_dim": 2}
VARIANTS["mvae_subsampling"] = {"method": "mvae", "subsampling": True}

each_method = pytest.mark.parametrize("method", MIXTURES)
each_variant = pytest.mark.parametrize("variant", VARIANTS)


def build(variant, *, seed=0, **changes):
    options = {"latent_dim": 2, "beta": 0.3, "widths": (16,), **VARIANTS[variant], **changes}
    with isolated_rng(seed):
        return build_baseline(options.pop("method"), options.pop("modalities", MODALITIES), **options)


def data(size=30, seed=0):
    g = torch.Generator().manual_seed(seed)
    return {m: torch.randn(size, *spec.shape, generator=g) for m, spec in MODALITIES.items()}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@each_variant
def test_every_field_of_multivae_is_pinned(variant):
    settings = build(variant).settings
    pinned, config_class = multivae_fields(settings), METHODS[settings.method].config
    config = config_class(**pinned)
    fields = {f.name for f in dataclasses.fields(config_class) if f.init}
    assert fields == set(pinned)
    assert {name: getattr(config, name) for name in fields} == pinned


def objective(model, x):
    """The documented objective, written out with the draws in the order in which multivae makes them."""
    names, size, beta = list(x), len(x["a"]), model.settings.beta
    d = model.latent_dim
    gaussian = model.likelihood == "gaussian"
    moments = {m: model.moments(m, x[m]) for m in names}
    shared = {m: (mean[:, :d], v[:, :d].exp()) for m, (mean, v) in moments.items()}
    private = {m: (mean[:, d:], v[:, d:].exp()) for m, (mean, v) in moments.items()}

    def nll(m, z):
        error = (x[m] - model.reconstruction(m, z)).flatten(1)
        if gaussian:
            return 0.5 * (error.square() + math.log(2 * math.pi)).sum(1)
        return (error.abs() + math.log(2)).sum(1)

    def draw(mean, variance):
        return mean + variance.sqrt() * torch.randn(mean.shape)

    def kl(mean, variance):
        return 0.5 * (mean**2 + variance - variance.log() - 1).sum(1)

    def log_normal(z, mean, variance):
        return -0.5 * ((z - mean) ** 2 / variance + variance.log() + math.log(2 * math.pi)).sum(1)

    def product(subset, prior):
        precision = sum(1 / shared[m][1] for m in subset) + float(prior)
        return sum(shared[m][0] / shared[m][1] for m in subset) / precision, 1 / precision

    method = model.settings.method
    if method == "mvae":
        total = 0.0
        for subset in [tuple(names)] + [(m,) for m in names if model.settings.subsampling]:
            q = product(subset, True)
            z = draw(*q)
            total = total + sum(nll(m, z) for m in subset) + beta * kl(*q)
    elif method == "mopoe":
        components = [product(s, len(s) == len(names)) for s in SUBSETS]
        share = size // len(SUBSETS)
        chosen = [min(i // share, len(SUBSETS) - 1) for i in range(size)]
        q = [torch.stack([components[s][j][i] for i, s in enumerate(chosen)]) for j in (0, 1)]
        z, total = draw(*q), beta * sum(kl(*c) for c in components) / len(components)
        for m in names:
            w = draw(*private[m]) if model.specific_dim else z[:, :0]
            total = total + nll(m, torch.cat([z, w], 1)) + beta * kl(*private[m])
    else:
        total = 0.0
        zero, one = torch.zeros(()), torch.ones(())
        for m in names:
            z = draw(*shared[m])
            mixture = torch.stack([log_normal(z, *shared[n]) for n in names]).logsumexp(0) - math.log(len(names))
            ratio, codes = mixture - log_normal(z, zero, one), dict.fromkeys(names, z[:, :0])
            if method == "mmvae_plus":
                codes[m] = draw(*private[m])
                ratio = ratio + log_normal(codes[m], *private[m]) - log_normal(codes[m], zero, one)
                for n in names:
                    if n != m:
                        variance = model.multivae.logvars_priors[n].exp()
                        codes[n] = draw(torch.zeros(size, len(variance[0])), variance)
            total = total + sum(nll(n, torch.cat([z, codes[n]], 1)) for n in names) + beta * ratio
        total = total / len(names)
    return total.mean()


@pytest.mark.parametrize("likelihood", ["gaussian", "laplace"])
@each_variant
def test_loss_is_the_documented_objective(variant, likelihood):
    model, x = build(variant, likelihood=likelihood), data()
    if model.settings.method == "mmvae_plus":
        for m in MODALITIES:
            nn.init.constant_(model.multivae.logvars_priors[m], 0.7)
    with isolated_rng(1):
        loss = model.loss(x)
    with isolated_rng(1):
        expected = objective(model, x)
    torch.testing.assert_close(loss.total, expected, rtol=1e-4, atol=1e-4)
    expected_grads = torch.autograd.grad(expected, model.multivae.encoders["a"].network.mean.weight)
    grads = torch.autograd.grad(loss.total, model.multivae.encoders["a"].network.mean.weight)
    torch.testing.assert_close(grads, expected_grads, rtol=1e-3, atol=1e-4)


def test_mopoe_draws_another_subset_for_each_sample_of_a_small_batch():
    """multivae's own rule gives all four samples to the product of all modalities."""
    model, x = build("mopoe"), data(4)
    counts = torch.zeros(len(SUBSETS))
    for seed in range(300):
        with isolated_rng(seed):
            found = model.multivae.inference(MultimodalBaseDataset(data=x))
        same = (found["joint"][0] == found["mus"]).all(-1) & (found["joint"][1] == found["logvars"]).all(-1)
        assert (same.sum(0) == 1).all()
        assert same.sum(1).max() == 1
        counts += same.sum(1)
    assert counts.min() > 300 * 4 / 7 * 0.8
    loss = model.loss(x)
    assert torch.isfinite(loss.total)
    with isolated_rng(0):  # from seven samples on, every subset has its share
        found = model.multivae.inference(MultimodalBaseDataset(data=data(7)))
    assert all(torch.equal(found["joint"][0][i], found["mus"][i, i]) for i in range(7))


@each_variant
def test_terms_are_detached_divergences_of_the_encoders(variant):
    model, x = build(variant), data()
    terms = model.loss(x).terms
    assert list(terms) == ["kl_a", "kl_b", "kl_c"]
    mean, log_variance = model.moments("b", x["b"])
    q = torch.distributions.Normal(mean, (log_variance / 2).exp())
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(1).mean()
    torch.testing.assert_close(terms["kl_b"], kl)
    assert not any(t.requires_grad for t in terms.values())


@pytest.mark.parametrize("hidden_dtype", [None, torch.bfloat16])
@each_variant
def test_one_step_lowers_the_loss(variant, hidden_dtype):
    model, x = build(variant, widths=(64,), hidden_dtype=hidden_dtype), data(200)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(2):
        with isolated_rng(2):
            loss = model.loss(x).total
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[1] < losses[0]


def test_only_the_auxiliary_priors_of_mmvae_plus_are_learned_and_generation_does_not_use_them():
    model = build("mmvae_plus")
    model.loss(data()).total.backward()
    priors = {n: p for n, p in model.named_parameters() if "prior" in n}
    learned = {n for n, p in priors.items() if p.grad is not None and p.grad.abs().sum() > 0}
    assert learned == {f"multivae.logvars_priors.{m}" for m in MODALITIES}
    assert all((p == 0).all() for p in priors.values())  # N(0, I) at first, all of them
    before = model.generate(2, given={"a": data()["a"]}, generator=generator())
    for m in MODALITIES:
        nn.init.constant_(model.multivae.logvars_priors[m], 3.0)
    after = model.generate(2, given={"a": data()["a"]}, generator=generator())
    assert all(torch.equal(before[m], after[m]) for m in MODALITIES)
    assert not any(p.requires_grad for n, p in build("mmvae").named_parameters() if "prior" in n)


@each_variant
def test_weights_survive_safetensors(variant):
    model = build(variant)
    other = build(variant, seed=1)
    other.load_state_dict(load(save(model.state_dict())), strict=True)
    for m, sample in model.generate(2, generator=generator()).items():
        assert torch.equal(sample, other.generate(2, generator=generator())[m])


@each_method
def test_a_batch_that_does_not_fit_is_named(method):
    model, x = build(method), data(3)
    unknown, missing, misshapen = {**x, "d": x["a"]}, {"a": x["a"]}, {**x, "b": x["a"]}
    uneven = {**x, "a": x["a"][:2]}
    names = r"\['a', 'b', 'c'\]"
    for call in (model.loss, model.log_likelihood, lambda v: model.generate(given=v)):
        with pytest.raises(ValueError, match=rf"unknown modalities \['d'\]; the model has {names}"):
            call(unknown)
        with pytest.raises(ValueError, match=r"'b' has shape \(3, 2\), the model needs \(batch, 3\)"):
            call(misshapen)
        with pytest.raises(ValueError, match="unequal batch sizes"):
            call(uneven)
    with pytest.raises(ValueError, match=rf"modalities \['a'\], the model needs {names}"):
        model.loss(missing)
    with pytest.raises(ValueError, match=r"\['a'\] are both in the batch \['a', 'b', 'c'\] and given \['a'\]"):
        model.log_likelihood(x, given=missing)
    with pytest.raises(ValueError, match="unequal batch sizes"):
        model.log_likelihood({"b": x["b"]}, given={"a": x["a"][:2]}, num_importance_samples=10)
    with pytest.raises(ValueError, match="num_samples is 0"):
        model.generate(0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "vae"}, "unknown method 'vae'; one of mvae, mmvae, mopoe, mmvae_plus"),
        ({"likelihood": "bernoulli"}, "unknown likelihood 'bernoulli'; one of gaussian, laplace"),
        ({"latent_dim": 0}, "mvae takes no latent_dim 0, specific_dim 0"),
        ({"specific_dim": 2}, "mvae takes no latent_dim 2, specific_dim 2"),
        ({"method": "mmvae_plus"}, "mmvae_plus takes no latent_dim 2, specific_dim 0"),
        ({"beta": 0.0}, "beta is 0.0"),
        ({"beta": math.nan}, "beta is nan"),
        *(({"alpha": a}, "alpha is .*, must be a finite number$") for a in ("0.5", True, math.nan, [0.5], 10**400)),
        *(({"subsampling": s}, "subsampling is .*, must be True or False$") for s in (2, None, math.nan, "yes")),
        ({"method": "mmvae", "subsampling": True}, "subsampling is an option of mvae, not of mmvae"),
        ({"modalities": {m: ModalitySpec((1,)) for m in ("a", "b", "a_b")}}, "ambiguous"),
        ({"modalities": {m: ModalitySpec((1,)) for m in ("a", "shared")}}, "must not be 'shared'"),
        ({"encoders": {"a": nn.Identity()}}, r"encoders are for \['a'\], the modalities are \['a', 'b', 'c'\]"),
        ({"output": "tanh"}, "tanh"),
    ],
)
def test_settings_that_do_not_fit_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        build("mvae", **changes)


def test_an_encoder_of_the_wrong_size_is_named():
    model = build("mvae", encoders={m: GaussianMLPEncoder(s.numel, 3) for m, s in MODALITIES.items()})
    with pytest.raises(ValueError, match=r"encoder 'a' gives a mean of shape \(4, 3\), needs \(4, 2\)"):
        model.loss(data(4))


def test_settings_hold_plain_numbers():
    common = ("mvtcae", MODALITIES, 2, 0, np.float32(0.5), "gaussian")
    settings = BaselineSettings(*common, alpha=torch.tensor(0.25))
    assert [(type(x), x) for x in (settings.beta, settings.alpha)] == [(float, 0.5), (float, 0.25)]
    for alpha in ("0.5", None, [0.5], np.array([0.5]), np.array(0.5), np.True_):
        with pytest.raises(ValueError, match=r"alpha is .*, must be a finite number$"):
            BaselineSettings(*common, alpha=alpha)


def test_settings_are_frozen():
    settings = build("mvae").settings
    assert isinstance(settings, BaselineSettings)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.beta = 1.0


def test_sigmoid_output_stays_in_the_unit_interval():
    samples = build("mvae", output="sigmoid").generate(100, generator=generator())
    assert all(((s > 0) & (s < 1)).all() for s in samples.values())


@each_variant
def test_each_network_is_called_once_a_step(variant):
    model, x = build(variant), data()
    calls = {}
    for part in ("encoders", "decoders"):
        for m, network in getattr(model.multivae, part).items():
            network.register_forward_hook(lambda *_, key=f"{part} {m}": calls.update({key: calls.get(key, 0) + 1}))
    model.loss(x).total.backward()
    assert len(calls) == 2 * len(MODALITIES)
    # MVAE decodes what it drew from all modalities and, with sub-sampling, what it drew from each alone.
    twice = variant == "mvae_subsampling"
    assert calls == {k: 2 if twice and k.startswith("decoders") else 1 for k in calls}


def test_one_call_gives_what_a_call_for_each_pair_gives():
    """multivae's own loops, M^2 decodes of their own, on the same draws."""
    from multivae.data.datasets.base import MultimodalBaseDataset
    from multivae.models import MMVAE, MVAE, MMVAEPlus

    for variant, original in (("mvae_subsampling", MVAE), ("mmvae", MMVAE), ("mmvae_plus", MMVAEPlus)):
        model, x = build(variant), data()
        batched = model.multivae
        with isolated_rng(1):
            ours = batched(MultimodalBaseDataset(data=x)).loss
        own = torch.autograd.grad(ours, batched.decoders["b"].network.linear.weight)
        batched.__class__ = original
        with isolated_rng(1):
            theirs = batched(MultimodalBaseDataset(data=x)).loss
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)
        their_own = torch.autograd.grad(theirs, batched.decoders["b"].network.linear.weight)
        torch.testing.assert_close(own, their_own, rtol=1e-4, atol=1e-4)
