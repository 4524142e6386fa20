"""SBM-VAE as a whole: stages through the one training loop, generation given any subset, likelihood, bad input."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from repro.datasets.base import Dataset, ModalitySpec
from repro.distributions.diffusion import VPSDE
from repro.model import Stage
from repro.papers.sbm_vae.autoencoders import Autoencoders
from repro.papers.sbm_vae.guidance import ContrastiveEncoders, PairEnergy
from repro.papers.sbm_vae.likelihood import fitted_gaussian, log_marginal
from repro.papers.sbm_vae.model import SBMVAE
from repro.papers.sbm_vae.sampling import FAST, SamplingSettings, sample_latents
from repro.papers.sbm_vae.score import LatentScore
from repro.training import TrainingSettings, TrainingStopped, train

MODALITIES = {
    "a": ModalitySpec((1, 8, 8), "image", (0.0, 1.0)),
    "b": ModalitySpec((5,), "binary", (0.0, 1.0)),
    "c": ModalitySpec((3,), "continuous"),
}
SMALL = SamplingSettings("dpm_solver", num_steps=2)


def dataset(number: int = 24) -> Dataset:
    g = torch.Generator().manual_seed(0)
    data = {
        "a": torch.rand(number, 1, 8, 8, generator=g),
        "b": torch.rand(number, 5, generator=g).round(),
        "c": torch.randn(number, 3, generator=g),
    }
    return Dataset("toy", "train", MODALITIES, data)


def model(
    kind: str = "vae", *, energy: bool = False, embedding: int = 0, multi_time: bool = False, **options
) -> SBMVAE:
    torch.manual_seed(0)
    sde = VPSDE(1.0, 5.0)
    return SBMVAE(
        MODALITIES,
        Autoencoders(MODALITIES, kind=kind, latent_dim=4, widths=(4, 4), hidden=(8,)),
        LatentScore(
            3, 4, sde=sde, width=8, blocks=1, multipliers=(1,), context_dim=embedding, multi_time=multi_time, decay=0.9
        ),
        energy=PairEnergy(3, 4, sde, (8,)) if energy else None,
        contrastive=ContrastiveEncoders(MODALITIES, embedding_dim=embedding, features=4, widths=(4, 4), hidden=(8,))
        if embedding
        else None,
        sampling=SMALL,
        **options,
    )


SETTINGS = TrainingSettings(2, 8, 1e-3, stages={"score": {"epochs": 3, "learning_rate": 2e-3}})


@pytest.mark.parametrize(
    ("options", "stages"),
    [
        ({}, ["autoencoders", "score"]),
        ({"energy": True}, ["autoencoders", "score", "energy"]),
        ({"kind": "rae", "embedding": 6}, ["autoencoders", "contrastive", "score"]),
        ({"missing": 0.25, "energy": True}, ["autoencoders", "score", "energy"]),
        ({"finetune_drop": 0.5}, ["autoencoders", "score", "finetune"]),
        ({"kind": "rae", "multi_time": True}, ["autoencoders", "score"]),
    ],
)
def test_each_stage_trains_its_own_parameters(options, stages):
    made = model(**options)
    assert [s.name for s in made.stages()] == stages
    before = {n: p.detach().clone() for n, p in made.named_parameters()}
    data, own = dataset(), {}
    for stage in made.stages():
        with torch.no_grad():
            split = made.stage_data(stage, data)
        parameters = [p for n, p in made.named_parameters() if n.startswith(stage.parameters)]
        optimizer = torch.optim.Adam(parameters, lr=1e-2)
        for rows in split.batches(8, generator=torch.Generator().manual_seed(0)):
            optimizer.zero_grad()
            made.loss(rows, stage).total.backward()
            optimizer.step()
        changed = {n for n, p in made.named_parameters() if not torch.equal(p, before[n])}
        own[stage.name] = changed
        before = {n: p.detach().clone() for n, p in made.named_parameters()}
        allowed = (*stage.parameters, "score.average.") if stage.name == "score" else stage.parameters
        assert changed
        assert all(n.startswith(allowed) for n in changed)
    assert any(n.startswith("score.average.") for n in own["score"])
    assert any(n.startswith("score.network.") for n in own["score"])


def test_the_loop_caches_latents_and_standardises_them():
    made, data = model(), dataset()
    history = train(made, data, SETTINGS, seed=0)
    assert [e["stage"] for e in history] == ["autoencoders"] * 2 + ["score"] * 3
    assert all(math.isfinite(e["loss"]) for e in history)
    assert not made.training
    pairs = [made.autoencoders.encode(m, x) for m, x in data.data.items()]
    mean, scale = (torch.stack(p, 1) for p in zip(*pairs, strict=True))
    torch.testing.assert_close(made.score.location, mean.mean(0), rtol=1e-4, atol=1e-5)
    variance = mean.var(0, correction=0) + scale.square().mean(0)
    torch.testing.assert_close(made.score.scale, variance.sqrt(), rtol=1e-4, atol=1e-5)
    assert int(made.score.updates) == 9  # three epochs of three steps


@pytest.mark.slow
def test_a_stopped_training_continues_bit_for_bit(tmp_path: Path):
    whole, data = model(energy=True), dataset()
    train(whole, data, SETTINGS, seed=5)
    steps = 0

    def stop() -> bool:
        nonlocal steps
        steps += 1
        return steps == 11  # within the second stage

    part = model(energy=True)
    with pytest.raises(TrainingStopped):
        train(part, data, SETTINGS, seed=5, key="k", checkpoint=tmp_path / "c.safetensors", stop=stop)
    again = model(energy=True)
    train(again, data, SETTINGS, seed=5, key="k", checkpoint=tmp_path / "c.safetensors")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


@pytest.mark.parametrize("options", [{}, {"energy": True}, {"kind": "rae", "embedding": 6}, {"multi_time": True}])
def test_generation_given_any_subset(options):
    made, x = model(**options).eval(), {m: v[:4] for m, v in dataset().data.items()}
    joint = made.generate(3, generator=torch.Generator().manual_seed(0))
    assert {m: tuple(v.shape) for m, v in joint.items()} == {m: (3, *s.shape) for m, s in MODALITIES.items()}
    values, _ = made.latents_of(x)
    reconstructed = made.decode(values)
    for known in (["a"], ["b"], ["a", "c"], ["a", "b", "c"]):
        given = {m: x[m] for m in known}
        first, second = (made.generate(2, given=given, generator=torch.Generator().manual_seed(1)) for _ in range(2))
        for m, v in first.items():
            assert v.shape == (2, 4, *MODALITIES[m].shape)
            assert torch.equal(v, second[m])
            if m in known:
                torch.testing.assert_close(v, reconstructed[m].expand_as(v), rtol=1e-4, atol=1e-5)
            else:
                assert not torch.equal(v[0], v[1])


def test_generation_leaves_the_global_generator_alone():
    made, x = model(energy=True).eval(), {"a": dataset().data["a"][:2]}
    state = torch.get_rng_state()
    made.generate(2, given=x, generator=torch.Generator().manual_seed(0), sample_likelihood=True)
    assert torch.equal(state, torch.get_rng_state())


def test_guidance_changes_conditional_samples_alone():
    made, x = model(energy=True).eval(), {"a": dataset().data["a"][:4]}
    draw = lambda **o: made.sample(1, generator=torch.Generator().manual_seed(0), **o)  # noqa: E731
    assert not torch.allclose(draw(given=x), draw(given=x, gamma=0.0))
    assert torch.equal(draw(given=x), draw(given=x, gamma=made.gamma))
    assert torch.equal(draw(given=x)[..., 0, :], draw(given=x, gamma=0.0)[..., 0, :])


def test_contrastive_embeddings_reach_the_score():
    made, x = model("rae", embedding=6).eval(), dataset().data
    with torch.no_grad():
        for p in made.score.average.parameters():
            p.add_(0.3 * torch.randn_like(p))
    draw = lambda: made.sample(1, given={"a": x["a"][:4]}, generator=torch.Generator().manual_seed(0))  # noqa: E731
    first = draw()
    with torch.no_grad():
        made.contrastive.heads["a"].bias.add_(5.0)
    assert not torch.allclose(first, draw())


def test_likelihood_samples():
    made = model().eval()
    found = made.generate(400, generator=torch.Generator().manual_seed(0), sample_likelihood=True)
    means = made.generate(400, generator=torch.Generator().manual_seed(0))
    assert set(found["b"].unique().tolist()) <= {0.0, 1.0}
    spread = float((found["c"] - means["c"]).std())
    assert spread == pytest.approx(math.sqrt(0.1), abs=4 * math.sqrt(0.1) / math.sqrt(2 * 1200))


@pytest.mark.slow
def test_the_score_model_learns_a_dependence_and_samples_it():
    """Two latents with correlation 0.8: joint samples have it, and conditional ones follow what is observed."""
    torch.manual_seed(0)
    rho, made = 0.8, LatentScore(2, 1, sde=VPSDE(0.1, 20.0), width=16, blocks=1, multipliers=(1,), decay=0.98)
    optimizer = torch.optim.Adam(made.network.parameters(), lr=4e-3)
    for _ in range(200):
        z = torch.randn(256, 2, 1)
        z[:, 1] = rho * z[:, 0] + math.sqrt(1 - rho**2) * z[:, 1]
        optimizer.zero_grad()
        made.update_average()
        made.loss(z).backward()
        optimizer.step()
    made.eval()
    g = torch.Generator().manual_seed(0)
    z = sample_latents(made, 1000, FAST, generator=g)[..., 0]
    assert float(torch.corrcoef(z.T)[0, 1]) == pytest.approx(rho, abs=0.08)
    assert float(z.std()) == pytest.approx(1, abs=0.2)
    means = []
    for value in (-1.5, 1.5):
        values = torch.full((1000, 2, 1), value)
        drawn = sample_latents(made, 1000, FAST, values=values, observed=torch.tensor([True, False]), generator=g)
        means.append(float(drawn[:, 1].mean()))
    assert 1.7 < means[1] - means[0] < 2.7  # 2.4 exactly


class _Affine(nn.Module):
    """An encoder with a fixed posterior N(W x, s^2), or a decoder, as a matrix."""

    def __init__(self, matrix: Tensor, log_variance: float | None = None) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix)
        self.log_variance = log_variance

    def forward(self, x: Tensor) -> Tensor:
        found = x @ self.matrix.T
        return found if self.log_variance is None else torch.cat([found, torch.full_like(found, self.log_variance)], -1)


@pytest.mark.slow
def test_the_likelihood_of_a_linear_gaussian_model():
    torch.manual_seed(0)
    modalities = {m: ModalitySpec((2,)) for m in "xy"}
    made = Autoencoders(modalities, latent_dim=1, beta=0.25, hidden=(4,)).double()
    loadings = {"x": torch.tensor([[1.0], [0.5]]).double(), "y": torch.tensor([[-0.5], [1.5]]).double()}
    for m, w in loadings.items():
        made.decoders[m] = _Affine(w)
        made.encoders[m] = _Affine(w.T / (w.square().sum() + 0.25), math.log(0.3))
    rho, sde = 0.7, VPSDE(0.1, 20.0)
    score = LatentScore(2, 1, sde=sde, width=4, blocks=1, multipliers=(1,)).double().eval()
    score.fit(torch.zeros(5, 2, 1).double(), torch.tensor([2.0, 0.5]).double()[:, None].expand(5, 2, 1))

    def exact(z: Tensor, t: Tensor) -> Tensor:
        off = rho * sde.alpha(t).square()
        return -(z - off * z.flip(1)) / (1 - off.square())

    score.forward = exact
    prior = torch.tensor([[1.0, rho], [rho, 1.0]]).double() * torch.outer(*[torch.tensor([2.0, 0.5]).double()] * 2)
    whole = torch.block_diag(*loadings.values())
    true = MultivariateNormal(torch.zeros(4).double(), whole @ prior @ whole.T + 0.25 * torch.eye(4).double())
    x = true.sample((6,))
    found = log_marginal(
        made, score, {"x": x[:, :2], "y": x[:, 2:]}, num_importance_samples=150, num_steps=30, num_probes=None
    )
    # Four standard errors of the importance weights, whose relative deviation is under 1.2 here, and the flow's steps.
    torch.testing.assert_close(found, true.log_prob(x), rtol=0, atol=4 * 1.2 / math.sqrt(150) + 0.03)
    # Of one modality alone the other's latents are drawn too, from a Gaussian fitted to draws of the prior.
    standard = MultivariateNormal(torch.zeros(2).double(), torch.tensor([[1.0, rho], [rho, 1.0]]).double())
    reference = fitted_gaussian(standard.sample((5000,))[..., None], ["x", "y"])
    one = MultivariateNormal(torch.zeros(2).double(), true.covariance_matrix[2:, 2:])
    options = {"num_importance_samples": 150, "num_steps": 30, "num_probes": None, "reference": reference}
    found = log_marginal(made, score, {"y": x[:, 2:]}, **options)
    torch.testing.assert_close(found, one.log_prob(x[:, 2:]), rtol=0, atol=4 * 1.2 / math.sqrt(150) + 0.03)


def test_latents_are_samples_or_means():
    data = dataset()
    for kind in ("sample", "mean"):
        made = model(latents=kind)
        with torch.no_grad():
            split = made.stage_data(made.stages()[1], data)
        assert bool(split.data["scale"].any()) == (kind == "sample")
        torch.manual_seed(0)
        for rows in (next(split.batches(8)), next(data.batches(8))):  # a batch of modalities does as well
            assert bool(made.loss(rows, made.stages()[1]).total.isfinite())


def test_a_broken_score_is_named():
    made = model().eval()
    with torch.no_grad():
        made.score.average.output.bias.fill_(torch.nan)
    with pytest.raises(ValueError, match=r"evaluation 1 of 2: a value is NaN or infinite; the largest \|score\|"):
        made.generate(2)


def test_encoders_of_unequal_latents_are_refused():
    for kind, outputs in (("vae", 12), ("rae", 6)):
        parts = Autoencoders(MODALITIES, kind=kind, latent_dim=4, widths=(4, 4), hidden=(8,)).train()
        parts.encoders["c"] = nn.Linear(3, outputs)
        with pytest.raises(ValueError, match=r"unequal size: the encoders give \{'a': 4, 'b': 4, 'c': 6\}, .* needs 4"):
            SBMVAE(MODALITIES, parts, LatentScore(3, 4, width=4, blocks=1, multipliers=(1,)))
        assert parts.training
        assert all(m.training for m in parts.modules())


def test_errors_are_one_line():
    x = {m: v[:2] for m, v in dataset().data.items()}
    made, rae = model().eval(), model("rae").eval()
    parts = Autoencoders(MODALITIES, latent_dim=9, widths=(4, 4), hidden=(8,))
    score = LatentScore(3, 4, width=4, blocks=1, multipliers=(1,))
    fitting = Autoencoders(MODALITIES, latent_dim=4, widths=(4, 4), hidden=(8,))
    for match, call in {
        "unknown modalities ['z']": lambda: made.generate(given={"z": x["a"]}),
        "needs [": lambda: made.generate(given={}),
        "modality 'a' has shape (2, 5)": lambda: made.generate(given={"a": x["b"]}),
        "num_samples is 0": lambda: made.generate(0),
        "there is nothing left to sample": lambda: made.sample(given=x),
        "no energy to guide by": lambda: made.generate(given={"a": x["a"]}, gamma=1.0),
        "guidance needs an observed": lambda: model(energy=True).eval().generate(gamma=1.0),
        "guidance needs an observed and": lambda: model(energy=True).eval().generate(given=x, gamma=1.0),
        "the score network is for 3 modalities of 4 latents, the autoencoders have 3 of 9": lambda: SBMVAE(
            MODALITIES, parts, score
        ),
        "the energy model is for 2 modalities": lambda: SBMVAE(
            MODALITIES, fitting, score, energy=PairEnergy(2, 4, score.sde, (4,))
        ),
        "the energy model has the kernel": lambda: SBMVAE(
            MODALITIES, fitting, score, energy=PairEnergy(3, 4, VPSDE(0.1, 20.0), (4,))
        ),
        "autoencoders for ['a', 'b', 'c']": lambda: SBMVAE(dict(reversed(MODALITIES.items())), fitting, score),
        "embeddings of size 0, there are 6": lambda: SBMVAE(
            MODALITIES, fitting, score, contrastive=ContrastiveEncoders(MODALITIES, embedding_dim=6, widths=(4, 4))
        ),
        "latents is 'mode'": lambda: model(latents="mode"),
        "missing is 1": lambda: model(missing=1.0),
        "unknown stage 'x'": lambda: made.loss(x, Stage("x")),
        "has no likelihood to sample": lambda: rae.generate(2, sample_likelihood=True),
        "autoencoder has no likelihood": lambda: rae.log_likelihood(x, num_importance_samples=1),
        "num_importance_samples is 0": lambda: made.log_likelihood(x, num_importance_samples=0),
    }.items():
        with pytest.raises(ValueError, match=re.escape(match)) as caught:
            call()
        assert "\n" not in str(caught.value)
