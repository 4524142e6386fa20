"""The parts of SBM-VAE: autoencoders, the latent score, the pair energy, contrastive encoders, staging."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal, kl_divergence
from torch.nn import functional as F

from repro.datasets.base import Dataset, ModalitySpec
from repro.distributions.diffusion import VPSDE
from repro.papers.sbm_vae.autoencoders import Autoencoders
from repro.papers.sbm_vae.guidance import ContrastiveEncoders, PairEnergy, guided_score, info_nce
from repro.papers.sbm_vae.sampling import FAST, SamplingSettings, sample_latents
from repro.papers.sbm_vae.score import LatentScore, random_subsets
from repro.papers.sbm_vae.staging import cached_latents, missing_mask, with_present

MODALITIES = {
    "image": ModalitySpec((3, 8, 8), "image", (0.0, 1.0)),
    "mask": ModalitySpec((1, 8, 8), "binary", (0.0, 1.0)),
    "attributes": ModalitySpec((5,), "binary", (0.0, 1.0)),
}
SIZE = 12


def batch(seed: int = 0) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    image, mask = torch.rand(SIZE, 3, 8, 8, generator=g), torch.rand(SIZE, 1, 8, 8, generator=g)
    return {"image": image, "mask": mask.round(), "attributes": torch.rand(SIZE, 5, generator=g).round()}


def autoencoders(**options) -> Autoencoders:
    torch.manual_seed(0)
    return Autoencoders(MODALITIES, **({"latent_dim": 4, "widths": (4, 4), "hidden": (8,)} | options))


def score(num_modalities: int = 3, latent_dim: int = 4, **options) -> LatentScore:
    torch.manual_seed(0)
    return LatentScore(num_modalities, latent_dim, **({"width": 8, "blocks": 1, "multipliers": (1,)} | options))


def gaussian_score(sde: VPSDE, rho: float):
    """The exact score of two blocks whose coordinates are pairwise correlated, and standard otherwise."""

    def exact(z: Tensor, t: Tensor) -> Tensor:
        off = rho * sde.alpha(t).square()
        return -(z - off * z.flip(1)) / (1 - off.square())

    return exact


# Autoencoders


def test_the_vae_loss_is_the_weighted_negative_elbo(monkeypatch):
    """With the noise set to zero every term has another library's closed form."""
    made, x = autoencoders(beta={"image": 0.1, "mask": 1.0, "attributes": 2.0}).eval(), batch()
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    found = made.loss(x)
    expected = torch.zeros(())
    for m, v in x.items():
        mean, scale = made.encode(m, v)
        decoded = made.parameters_of(m, mean)
        likelihood = Bernoulli(logits=decoded) if m == "attributes" else Normal(decoded, 1.0)
        reconstruction = -likelihood.log_prob(v).flatten(1).sum(1).mean()
        kl = kl_divergence(Normal(mean, scale), Normal(0.0, 1.0)).sum(1).mean()
        torch.testing.assert_close(found.terms[f"reconstruction/{m}"], reconstruction)
        torch.testing.assert_close(found.terms[f"kl/{m}"], kl)
        expected = expected + reconstruction + made.beta[m] * kl
    torch.testing.assert_close(found.total, expected)
    assert made.likelihoods == {"image": "gaussian", "mask": "gaussian", "attributes": "bernoulli"}
    assert made.noise_scale("image") == pytest.approx(math.sqrt(0.1))


def test_the_rae_loss_is_squared_error_and_norm(monkeypatch):
    made, x = autoencoders(kind="rae", regularisation=0.5, noise_variance=0.04).eval(), batch()
    monkeypatch.setattr(torch, "randn_like", torch.ones_like)
    found = made.loss(x)
    z, scale = made.encode("image", x["image"])
    assert not bool(scale.any())
    squares = (made.parameters_of("image", z + 0.2) - x["image"]).square().flatten(1).sum(1).mean()
    torch.testing.assert_close(found.terms["reconstruction/image"], squares)
    torch.testing.assert_close(found.terms["norm/image"], z.square().sum(1).mean())
    parts = [found.terms[f"reconstruction/{m}"] + 0.5 * found.terms[f"norm/{m}"] for m in x]
    torch.testing.assert_close(found.total.detach(), torch.stack(parts).sum())


def test_modalities_are_independent_and_missing_ones_are_left_out():
    made, x = autoencoders(), batch()
    made.loss(x).total.backward()
    together = made.encoders["image"].linear.weight.grad.clone()
    made.zero_grad()
    present = torch.ones(SIZE, 3)
    present[:, 1] = 0
    torch.manual_seed(1)
    found = made.loss(x, present)
    found.total.backward()
    assert float(found.terms["reconstruction/mask"]) == 0
    assert not bool(made.encoders["mask"].linear.weight.grad.any())
    assert together.shape == made.encoders["image"].linear.weight.grad.shape
    assert bool(made.encoders["image"].linear.weight.grad.any())


def test_decoded_means_are_in_the_likelihoods_domain():
    made = autoencoders().eval()
    means = made.decode(torch.randn(2, 5, 3, 4))
    assert {m: tuple(v.shape) for m, v in means.items()} == {m: (2, 5, *s.shape) for m, s in MODALITIES.items()}
    assert bool(((means["attributes"] > 0) & (means["attributes"] < 1)).all())


# The score model


def test_fitted_latents_are_standardised():
    made, g = score(), torch.Generator().manual_seed(0)
    mean, scale = 3 + 2 * torch.randn(4000, 3, 4, generator=g), torch.full((4000, 3, 4), 1.5)
    made.fit(mean, scale)
    z = made.standardise(mean + scale * torch.randn(mean.shape, generator=g))
    # Four standard errors of means and of variances of 4,000 draws.
    assert float(z.mean(0).abs().max()) < 5 / math.sqrt(4000)
    assert float((z.var(0) - 1).abs().max()) < 5 * math.sqrt(2 / 4000)
    torch.testing.assert_close(made.restore(made.standardise(mean)), mean)
    present = torch.ones(4000, 3)
    present[:2000, 0] = 0
    made.fit(mean * present[..., None], scale, present)
    torch.testing.assert_close(made.location[0], mean[2000:, 0].mean(0))


def test_the_average_of_weights_follows_its_formula():
    made = score(decay=0.5)
    weights = [made.network.output.bias.detach().clone()]
    expected = weights[0].clone()
    for n in range(1, 8):
        with torch.no_grad():
            made.network.output.bias.add_(torch.randn(3))
        made.update_average()
        made.update_average()  # a second loss of the same step changes nothing
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * made.network.output.bias.detach()
        torch.testing.assert_close(made.average.output.bias, expected)
    assert int(made.updates) == 7
    assert not any(p.requires_grad for p in made.average.parameters())


def test_the_network_trains_and_the_average_samples():
    made = score()
    with torch.no_grad():
        made.network.output.bias.fill_(1.0)
    z, t = torch.zeros(2, 3, 4), torch.tensor(0.5)
    sigma = float(made.sde.sigma(t))
    torch.testing.assert_close(made.train()(z, t), torch.full_like(z, -1 / sigma))
    torch.testing.assert_close(made.eval()(z, t), torch.zeros_like(z))


def test_the_loss_counts_what_is_there():
    """An untrained network predicts no noise: the loss is the mean square of the noise itself, over what counts."""
    made, z = score(), torch.zeros(3000, 3, 4)
    torch.manual_seed(0)
    assert float(made.loss(z).detach()) == pytest.approx(1, abs=5 * math.sqrt(2 / z.numel()))
    present = torch.ones(3000, 3)
    present[:, 0] = 0
    assert float(made.loss(z, present=present).detach()) == pytest.approx(2 / 3, abs=5 * math.sqrt(2 / z.numel()))


def test_missing_latents_do_not_reach_the_loss():
    """They are filled with noise, so that their values must not matter."""
    made, g = score().train(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        made.network.output.weight.normal_()
    z, present = torch.randn(8, 3, 4, generator=g), torch.ones(8, 3)
    present[:, 2] = 0
    other = z.clone()
    other[:, 2] = 100.0
    losses = []
    for latents in (z, other):
        torch.manual_seed(3)
        losses.append(float(made.loss(latents, present=present).detach()))
    assert losses[0] == losses[1]


def test_scores_of_several_times_keep_a_subset_clean():
    torch.manual_seed(0)
    subsets = random_subsets(40_000, 4, torch.device("cpu"))[..., 0]
    sizes = torch.bincount(subsets.sum(1), minlength=5).double() / 40_000
    expected = torch.tensor([1 / 2, 1 / 6, 1 / 6, 1 / 6, 0]).double()
    torch.testing.assert_close(sizes, expected, rtol=0, atol=4 * 0.5 / 200)
    assert float((subsets.double().mean(0) - 0.25).abs().max()) < 4 * 0.5 / 200
    made, seen = score(multi_time=True), []
    made.train().noise = lambda z, t, context=None: seen.append((z, t)) or torch.zeros_like(z)
    z = torch.full((500, 3, 4), 7.0)
    assert float(made.loss(z)) < 1  # the clean modalities do not count
    (latents, times), clean = seen[0], seen[0][1] == 0
    assert bool((latents[clean] == 7).all())
    assert not bool((latents[~clean] == 7).any())
    assert 0 < float(clean.double().mean()) < 1
    diffused = times.masked_fill(clean, torch.nan)
    assert bool((diffused.nan_to_num(-1).amax(1) == diffused.nan_to_num(2).amin(1)).all())  # one time a sample


# Sampling


def test_sampling_holds_what_is_observed_and_its_settings_count_evaluations():
    made = score().eval()
    values, observed = torch.randn(5, 3, 4), torch.tensor([True, False, True])
    settings = SamplingSettings("dpm_solver", num_steps=4, chunk=2)
    z = sample_latents(made, 5, settings, values=values, observed=observed, generator=torch.Generator().manual_seed(0))
    assert torch.equal(z[:, [0, 2]], values[:, [0, 2]])
    assert not bool((z[:, 1] == values[:, 1]).any())
    each = torch.tensor([[True, False, False]] * 4 + [[False, True, True]])
    z = sample_latents(made, 5, settings, values=values, observed=each)
    assert torch.equal(z[each], values[each])
    assert (SamplingSettings().evaluations, FAST.evaluations, SamplingSettings("heun", num_steps=7).evaluations) == (
        200,
        20,
        13,
    )


# Guidance


def test_per_sample_gradients_are_those_of_each_sample_alone():
    torch.manual_seed(0)
    made, z, t = PairEnergy(3, 4, VPSDE(), (16,)), torch.randn(6, 3, 4), torch.tensor(0.4)
    found = made.gradient(z, t, 2, 0)
    for k in range(6):
        torch.testing.assert_close(made.gradient(z[k : k + 1], t, 2, 0), found[k : k + 1])
    step = 1e-3 * torch.eye(4)[1]
    index = lambda n: torch.full((6,), n)  # noqa: E731
    energy = lambda z_u: made(z[:, 2], z_u, index(2), index(0), t.expand(6))  # noqa: E731
    numeric = (energy(z[:, 0] + step) - energy(z[:, 0] - step)) / 2e-3
    torch.testing.assert_close(found[:, 1], numeric, rtol=0.02, atol=1e-4)


def test_guidance_moves_one_unobserved_modality_and_needs_something_observed():
    torch.manual_seed(0)
    made, z, t = PairEnergy(3, 4, VPSDE(), (16,)), torch.randn(6, 3, 4), torch.tensor(0.4)
    plain = lambda x, time: torch.zeros_like(x)  # noqa: E731
    g = torch.Generator().manual_seed(0)
    function, moved = guided_score(plain, made, 2.0, [1], g), set()
    for _ in range(20):
        found = function(z, t)
        (changed,) = [k for k in range(3) if bool(found[:, k].any())]
        torch.testing.assert_close(found[:, changed], -2.0 * made.gradient(z, t, 1, changed))
        moved.add(changed)
    assert moved == {0, 2}
    for known in ([], [0, 1, 2]):
        with pytest.raises(ValueError, match="guidance needs an observed and a hidden modality"):
            guided_score(plain, made, 1.0, known)


@pytest.mark.slow
def test_the_energy_learns_the_pointwise_mutual_information():
    """At the optimum of eq. 7 the energy is ln p(a) p(b) - ln p(a, b) of the diffused latents."""
    torch.manual_seed(0)
    rho, sde = 0.95, VPSDE(0.1, 0.5)  # little noise, so that dependence is left at all times
    made = PairEnergy(2, 1, sde, (32, 32))
    optimizer = torch.optim.Adam(made.parameters(), lr=1e-2)
    for _ in range(250):
        a = torch.randn(512, 1)
        z = torch.stack([a, rho * a + math.sqrt(1 - rho**2) * torch.randn_like(a)], 1)
        optimizer.zero_grad()
        made.loss(z).backward()
        optimizer.step()
    t = torch.full((9,), 0.5)
    off = rho * float(sde.alpha(t[0])) ** 2
    a = torch.tensor([-1.0, 0.0, 1.0]).repeat_interleave(3)[:, None]
    b = torch.tensor([-1.0, 0.0, 1.0]).repeat(3)[:, None]
    zero, one = torch.zeros(9, dtype=torch.long), torch.ones(9, dtype=torch.long)
    joint = -0.5 * (a**2 - 2 * off * a * b + b**2) / (1 - off**2) - 0.5 * math.log(1 - off**2)
    expected = (-0.5 * (a**2 + b**2) - joint).squeeze(1)
    found = made(a, b, zero, one, t).detach()
    assert float(torch.corrcoef(torch.stack([found, expected]))[0, 1]) > 0.97
    assert float((found - expected).abs().mean()) < 0.35


def test_the_contrastive_loss_is_a_symmetric_cross_entropy():
    torch.manual_seed(0)
    a, b = F.normalize(torch.randn(5, 3), dim=1), F.normalize(torch.randn(5, 3), dim=1)
    logits = 4 * a @ b.T
    rows, columns = logits.log_softmax(1).diag(), logits.log_softmax(0).diag()
    torch.testing.assert_close(info_nce(a, b, 4.0), -(rows + columns).mean() / 2)
    assert float(info_nce(a, a, 200.0)) < 1e-3
    same = a[:1].expand_as(a)
    assert float(info_nce(same, same, 4.0)) == pytest.approx(math.log(5), rel=1e-5)


def test_contexts_are_means_over_what_is_observed():
    torch.manual_seed(0)
    made = ContrastiveEncoders(MODALITIES, embedding_dim=6, features=4, widths=(4, 4), hidden=(8,)).eval()
    x = batch()
    embedded = torch.stack([made.embed(m, x[m]) for m in MODALITIES], 1)
    torch.testing.assert_close(embedded.norm(dim=-1), torch.ones(SIZE, 3))
    context = made.context(embedded, torch.tensor([[True, False, True]]))
    torch.testing.assert_close(context, math.sqrt(6) * (embedded[:, 0] + embedded[:, 2]) / 2)
    assert not bool(made.context(embedded, torch.tensor([[False] * 3])).any())
    assert made.loss(x).requires_grad


# Staging


def dataset() -> Dataset:
    return Dataset("toy", "train", MODALITIES, batch())


def test_latents_are_cached_as_the_encoders_give_them():
    made, data = autoencoders(), dataset()
    found = cached_latents(made, None, data, None, sampled=True)
    assert list(found.data) == ["mean", "scale"]
    assert not made.training
    for k, m in enumerate(MODALITIES):
        mean, scale = made.encode(m, data.data[m])
        torch.testing.assert_close(found.data["mean"][:, k], mean)
        torch.testing.assert_close(found.data["scale"][:, k], scale)
    assert not bool(cached_latents(made, None, data, None, sampled=False).data["scale"].any())
    present = missing_mask(SIZE, 3, 0.25, torch.device("cpu"))
    part = cached_latents(made, None, data, present, sampled=True)
    assert not bool(part.data["mean"][present == 0].any())
    assert torch.equal(part.data["present"], present)


def test_missing_masks_take_the_share_from_each_modality():
    present = missing_mask(1000, 5, 0.2, torch.device("cpu"))
    assert bool((present.sum(1) > 0).all())
    torch.testing.assert_close(1 - present.mean(0), torch.full((5,), 0.2), rtol=0, atol=0.005)
    assert torch.equal(present, missing_mask(1000, 5, 0.2, torch.device("cpu")))
    assert float((present.sum(1) == 5).double().mean()) == pytest.approx(0.8**5, abs=4 * 0.47 / math.sqrt(1000))
    assert missing_mask(10, 3, 0.0, torch.device("cpu")) is None
    data = with_present(dataset(), missing_mask(SIZE, 3, 0.5, torch.device("cpu")))
    assert data[0]["present"].shape == (3,)
    assert with_present(data, None) is data


def test_errors_are_one_line():
    made, energy = score(), PairEnergy(3, 4, VPSDE(0.1, 20.0), (4,))
    values, z = torch.zeros(2, 3, 4), torch.zeros(2, 3, 9)
    for match, call in {
        "kind is 'gan'": lambda: autoencoders(kind="gan"),
        "latent_dim is 0": lambda: autoencoders(latent_dim=0),
        "beta is {'image': 1.0}": lambda: autoencoders(beta={"image": 1.0}),
        "noise_variance is -1": lambda: autoencoders(noise_variance=-1.0),
        "likelihoods {": lambda: autoencoders(likelihoods={"image": "laplace"}),
        "compute_dtype is 'float16'": lambda: autoencoders(compute_dtype="float16"),
        "5 latents a modality are no square image": lambda: score(latent_dim=5),
        "weighting is 'none'": lambda: score(weighting="none"),
        "decay is 1": lambda: score(decay=1.0),
        "latents have shape (2, 3, 9)": lambda: made(z, torch.tensor(0.5)),
        "sampler is 'ddim'": lambda: SamplingSettings("ddim"),
        "num_steps 0": lambda: SamplingSettings(num_steps=0),
        "number of samples is 0": lambda: sample_latents(made, 0, FAST),
        "trained with the kernel VPSDE(beta_0=0.1, beta_1=20.0)": lambda: sample_latents(
            made, 2, FAST, values=values, observed=torch.tensor([True, False, False]), energy=energy, gamma=1.0
        ),
        "together or not at all": lambda: sample_latents(made, 2, FAST, values=values),
        "nothing to condition on": lambda: sample_latents(made, 2, FAST, values=values, observed=torch.zeros(3).bool()),
        "some not, or there is": lambda: sample_latents(made, 2, FAST, values=values, observed=torch.ones(3).bool()),
        "observed latents of 2 points for 3 samples": lambda: sample_latents(
            made, 3, FAST, values=values, observed=torch.tensor([True, False, False])
        ),
        "observed has shape (2,), must be (3,) or (2, 3)": lambda: sample_latents(
            made, 2, FAST, values=values, observed=torch.tensor([True, False])
        ),
        "guidance needs the same observed": lambda: sample_latents(
            made, 2, FAST, energy=PairEnergy(3, 4, made.sde, (4,)), gamma=1.0
        ),
        "energy model is for 2 modalities of 9 latents, the score for 3 of 4": lambda: sample_latents(
            made,
            2,
            FAST,
            values=values,
            observed=torch.tensor([True, False, False]),
            energy=PairEnergy(2, 9, made.sde, (4,)),
            gamma=1.0,
        ),
        "at least two modalities, got 1": lambda: PairEnergy(1, 4, VPSDE()),
        "needs at least two samples": lambda: energy.loss(values[:1]),
        "must be finite": lambda: guided_score(made, energy, math.inf, [0]),
    }.items():
        with pytest.raises(ValueError, match=re.escape(match)) as caught:
            call()
        assert "\n" not in str(caught.value)
