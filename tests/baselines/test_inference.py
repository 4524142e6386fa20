"""Posteriors of the baselines against multivae, what they generate, and likelihoods against exact ones."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from multivae.data.datasets.base import MultimodalBaseDataset
from scipy.integrate import quad
from scipy.stats import laplace, multivariate_normal, norm
from torch import nn

from repro.baselines import build_baseline
from repro.datasets.base import ModalitySpec
from repro.model import isolated_rng

MODALITIES = {"a": ModalitySpec((2,)), "b": ModalitySpec((3,)), "c": ModalitySpec((1, 2, 2), kind="image")}
MIXTURES = ("mvae", "mmvae", "mopoe", "mmvae_plus")  # the others are in test_joint.py
SUBSETS = [s for n in (1, 2, 3) for s in combinations(MODALITIES, n)]
VARIANTS = {m: {"method": m, "specific_dim": 2 if m == "mmvae_plus" else 0} for m in MIXTURES}
VARIANTS["mopoe_factorised"] = {"method": "mopoe", "specific_dim": 2}
VARIANTS["mvae_subsampling"] = {"method": "mvae", "subsampling": True}

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


@pytest.mark.parametrize("num_samples", [1, 3])
@each_variant
def test_generate_has_the_leading_shapes_of_the_interface(variant, num_samples):
    model, x = build(variant), data(5)
    for m, sample in model.generate(num_samples, generator=generator()).items():
        assert sample.shape == (num_samples, *MODALITIES[m].shape)
    for size in (1, 5):
        for subset in SUBSETS:
            given = {m: x[m][:size] for m in reversed(subset)}
            samples = model.generate(num_samples, given=given, generator=generator(), sample_likelihood=True)
            assert list(samples) == list(MODALITIES)
            assert all(s.shape == (num_samples, size, *MODALITIES[m].shape) for m, s in samples.items())


@pytest.mark.parametrize("likelihood", ["gaussian", "laplace"])
@each_variant
def test_a_generator_decides_everything_and_the_global_state_stays(variant, likelihood):
    model, x = build(variant, likelihood=likelihood), data(4)
    given, rest = {"a": x["a"], "c": x["c"]}, {"b": x["b"]}

    def outcome(seed):
        g = generator(seed)
        return [
            *model.generate(2, generator=g, sample_likelihood=True).values(),
            *model.generate(2, given=given, generator=g, sample_likelihood=True).values(),
            model.log_likelihood(x, num_importance_samples=20, generator=g),
            model.log_likelihood(rest, given=given, num_importance_samples=20, generator=g),
        ]

    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()
    first = outcome(5)
    torch.rand(3), np.random.rand(3)  # what others draw does not matter
    torch.set_rng_state(torch_state), np.random.set_state(numpy_state)
    second, other = outcome(5), outcome(6)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state[1])
    assert np.random.get_state()[2:] == numpy_state[2:]
    assert all(torch.equal(u, v) for u, v in zip(first, second, strict=True))
    assert not any(torch.equal(u, v) for u, v in zip(first, other, strict=True))


@pytest.mark.parametrize(("likelihood", "scale", "deviation"), [("gaussian", 0.3**0.5, 1.0), ("laplace", 0.3, 2**0.5)])
def test_likelihood_noise_has_the_scale_of_beta(likelihood, scale, deviation):
    model = build("mvae", likelihood=likelihood)
    assert model.noise_scale(next(iter(model.modalities))) == pytest.approx(scale)
    means = model.generate(20_000, generator=generator())
    noisy = model.generate(20_000, generator=generator(), sample_likelihood=True)
    noise = (noisy["c"] - means["c"]).flatten()  # 80,000 values: the deviation's standard error is under 0.5%
    assert noise.std().item() == pytest.approx(scale * deviation, rel=0.02)
    assert noise.abs().mean().item() == pytest.approx(scale * (1 if likelihood == "laplace" else 0.79788), rel=0.02)


def test_posteriors_are_those_of_multivae():
    x = data()
    inputs = MultimodalBaseDataset(data=x)
    mvae, mmvae, mopoe = build("mvae"), build("mmvae"), build("mopoe")
    subsets = mopoe.multivae.inference(inputs)["subsets"]
    experts = mmvae.multivae(inputs, detailed_output=True).qz_xs
    for subset in SUBSETS:
        given = {m: x[m] for m in subset}
        q = mvae.posterior(given)
        mean, log_variance = mvae.multivae.compute_mu_log_var_subset(inputs, subset)
        torch.testing.assert_close((q.means, q.scales), (mean[None], (log_variance / 2).exp()[None]))
        torch.testing.assert_close(q.means[0], mvae.multivae.encode(inputs, list(subset), return_mean=True).z)
        q = mmvae.posterior(given)
        torch.testing.assert_close(q.means, torch.stack([experts[m].mean for m in subset]))
        torch.testing.assert_close(q.scales, torch.stack([experts[m].scale for m in subset]))
        q = mopoe.posterior(given)
        keys = ["_".join(s) for s in SUBSETS if set(s) <= set(subset)]
        torch.testing.assert_close(q.means, torch.stack([subsets[k][0] for k in keys]), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(q.scales, torch.stack([(subsets[k][1] / 2).exp() for k in keys]))


class Constant(nn.Module):
    """An encoder with the same mean and log-variance for all inputs."""

    def __init__(self, mean, log_variance=-20.0):
        super().__init__()
        self.mean = nn.Parameter(torch.as_tensor(mean, dtype=torch.float32))
        self.log_variance = log_variance

    def forward(self, x):
        mean = self.mean.expand(len(x), -1)
        return mean, torch.full_like(mean, self.log_variance)


def test_each_sample_draws_its_own_expert_and_each_modality_its_own_private_code():
    modalities = {m: ModalitySpec((2,)) for m in "abc"}  # decoders show (shared, private) as they are
    model = build(
        "mmvae_plus",
        modalities=modalities,
        latent_dim=1,
        specific_dim=1,
        encoders={m: Constant([10.0 * (i + 1), -10.0 * (i + 1)]) for i, m in enumerate("abc")},
        decoders={m: nn.Identity() for m in "abc"},
    )
    x = {m: torch.zeros(50, 2) for m in "ab"}
    samples = model.generate(40, given=x, generator=generator())
    shared = samples["a"][..., 0].round()
    # 2,000 fair draws between 10 and 20: 4 standard errors of the share are 0.045; a row or column has both values.
    assert set(shared.unique().tolist()) == {10.0, 20.0}
    assert (shared == 10).float().mean().item() == pytest.approx(0.5, abs=0.045)
    assert all(len(shared[i].unique()) == 2 for i in range(40))
    assert all(len(shared[:, i].unique()) == 2 for i in range(50))
    assert samples["a"][..., 1].unique().round().unique().tolist() == [-10.0]
    assert samples["b"][..., 1].unique().round().unique().tolist() == [-20.0]
    assert samples["c"][..., 1].mean().item() == pytest.approx(0.0, abs=0.1)
    assert samples["c"][..., 1].std().item() == pytest.approx(1.0, abs=0.1)
    joint = model.generate(4000, generator=generator())
    codes = torch.stack([joint["a"][:, 0], *(joint[m][:, 1] for m in "abc")])
    assert torch.equal(joint["a"][:, 0], joint["c"][:, 0])
    torch.testing.assert_close(torch.cov(codes), torch.eye(4), atol=0.1, rtol=0)


class LinearEncoder(nn.Module):
    """A linear mean and a fixed log-variance."""

    def __init__(self, weight, log_variance):
        super().__init__()
        self.weight, self.log_variance = nn.Parameter(weight), nn.Parameter(log_variance)

    def forward(self, x):
        mean = x @ self.weight.T
        return mean, self.log_variance.expand_as(mean)


class LinearDecoder(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, z):
        return z @ self.weight.T


DIMS = {"a": 4, "b": 5, "c": 4}
BETA = 0.5


def linear_gaussian(variant):
    """A model of linear decoders, with unary posteriors from the encoders, and the exact covariance of all modalities.

    Encoders have the exact posterior given x_m, for MVAE without the prior, which its product adds: its posteriors are
    exact given any modalities, those of the others given one, except that MoPoE's products count the prior repeatedly.
    """
    specific = VARIANTS[variant].get("specific_dim", 0)
    g, d = torch.Generator().manual_seed(7), 2
    loadings, encoders = {}, {}
    for m, n in DIMS.items():
        # Orthogonal columns, so that the exact posterior of a modality is diagonal.
        columns = torch.linalg.qr(torch.randn(n, n, generator=g, dtype=torch.float64)).Q[:, : d + specific]
        scales = 0.5 + 0.4 * torch.rand(columns.shape[1], generator=g, dtype=torch.float64)
        loadings[m] = columns * scales
        prior = torch.ones(len(scales), dtype=torch.float64)
        if variant == "mvae":
            prior[:d] = 0
        precision = scales**2 / BETA + prior
        encoders[m] = LinearEncoder((loadings[m] / BETA / precision).T.contiguous(), -precision.log())
    stacked = torch.cat([w[:, :d] for w in loadings.values()])
    private = torch.block_diag(*(w[:, d:] @ w[:, d:].T for w in loadings.values()))
    covariance = stacked @ stacked.T + private + BETA * torch.eye(len(stacked), dtype=torch.float64)
    model = build(
        variant,
        modalities={m: ModalitySpec((n,)) for m, n in DIMS.items()},
        latent_dim=d,
        beta=BETA,
        encoders=encoders,
        decoders={m: LinearDecoder(w) for m, w in loadings.items()},
    )
    return model.double(), covariance.numpy()


def exact(covariance, x, names):
    """The log-density of some modalities under N(0, covariance)."""
    index = np.concatenate([np.arange(sum(DIMS.values()))[s] for m, s in slices().items() if m in names])
    values = np.concatenate([x[m].numpy() for m in DIMS if m in names], 1)
    density = multivariate_normal(np.zeros(len(index)), covariance[np.ix_(index, index)])
    return torch.as_tensor(np.atleast_1d(density.logpdf(values)))


def slices():
    ends = np.cumsum(list(DIMS.values()))
    return {m: slice(end - n, end) for (m, n), end in zip(DIMS.items(), ends, strict=True)}


def assert_near(estimate, expected):
    """At K = 2000 the standard deviation is under 0.03 nats a point, 0.01 for the mean of six."""
    torch.testing.assert_close(estimate, expected, atol=0.1, rtol=0)
    torch.testing.assert_close(estimate.mean(), expected.mean(), atol=0.05, rtol=0)


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v != "mvae_subsampling"])
def test_log_likelihood_of_a_linear_gaussian_model_is_exact(variant):
    model, covariance = linear_gaussian(variant)
    draws = np.random.default_rng(0).multivariate_normal(np.zeros(len(covariance)), covariance, size=6)
    x = {m: torch.as_tensor(draws[:, s].copy()) for m, s in slices().items()}
    options = {"num_importance_samples": 2000, "generator": generator()}
    for names in (("a", "b", "c"), ("a", "c"), ("b",)):
        assert_near(model.log_likelihood({m: x[m] for m in names}, **options), exact(covariance, x, names))
    estimate = model.log_likelihood({"b": x["b"], "a": x["a"]}, given={"c": x["c"]}, **options)
    assert_near(estimate, exact(covariance, x, ("a", "b", "c")) - exact(covariance, x, ("c",)))


def test_exact_posteriors_leave_no_variance():
    model, covariance = linear_gaussian("mvae")
    x = {m: torch.full((1, n), 0.3, dtype=torch.float64) for m, n in DIMS.items()}
    estimate = model.log_likelihood(x, num_importance_samples=1, generator=generator())
    torch.testing.assert_close(estimate, exact(covariance, x, tuple(DIMS)), rtol=1e-9, atol=1e-9)


def test_laplace_log_likelihood_agrees_with_quadrature():
    modalities = {m: ModalitySpec((1,)) for m in "ab"}
    model = build(
        "mmvae",
        modalities=modalities,
        latent_dim=1,
        likelihood="laplace",
        encoders={m: Constant([0.3], -0.5) for m in "ab"},
        decoders={m: nn.Identity() for m in "ab"},
    )
    x = {"a": torch.tensor([[0.2], [1.0]]), "b": torch.tensor([[0.5], [0.4]])}
    estimate = model.log_likelihood(x, num_importance_samples=5000, generator=generator())
    for i in range(2):
        u, v = (x[m][i].item() for m in "ab")

        def density(z, u=u, v=v):
            return norm.pdf(z) * laplace.pdf(u, z, 0.3) * laplace.pdf(v, z, 0.3)

        assert estimate[i].item() == pytest.approx(math.log(quad(density, -8, 8, points=[u, v])[0]), abs=0.05)


def test_too_few_importance_samples_are_refused():
    with pytest.raises(ValueError, match="6 importance samples for 7 mixture components"):
        build("mopoe").log_likelihood(data(2), num_importance_samples=6)
