"""Every model on a second device: what a GPU would refuse is refused in CI, and runs for real where a GPU is.

See :mod:`pretend` for the device that is pretended and the faults that it can see. On both, what is
drawn by a generator of the CPU must equal the CPU's within rounding. :data:`FAULTS` puts faults back, one at a
time, and each makes one of these tests fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import repro
from repro.baselines import METHODS, build_baseline
from repro.datasets.base import Dataset, ModalitySpec
from repro.distributions.diffusion import VPSDE
from repro.model import MultimodalModel, isolated_rng
from repro.papers.covae.model import CoVAE
from repro.papers.covae.networks import build_networks
from repro.papers.covae.posterior import num_covariance_entries
from repro.papers.gmrf_mcvae.model import CONDITIONAL_PROTOCOLS, GMRFMCVAE
from repro.papers.mrf_mvae.neural_prior import ChainSettings
from repro.papers.mrf_mvae.variants import build_variant
from repro.papers.sbm_vae.autoencoders import Autoencoders
from repro.papers.sbm_vae.guidance import ContrastiveEncoders, PairEnergy
from repro.papers.sbm_vae.model import SBMVAE
from repro.papers.sbm_vae.sampling import SamplingSettings
from repro.papers.sbm_vae.score import LatentScore
from repro.training import TrainingSettings, TrainingStopped, train
from tests.support.pretend import MixedDevicesError, devices, pretend, pretending

IMAGE = ModalitySpec((1, 8, 8), "image", (0.0, 1.0))
MODALITIES = {"a": ModalitySpec((5,)), "b": IMAGE, "c": ModalitySpec((3,))}
SIZE = 8


def gmrf(**options: Any) -> GMRFMCVAE:
    return GMRFMCVAE(MODALITIES, **options)


def variant(name: str, **options: Any) -> MultimodalModel:
    if name == "nnmrf":
        chains = ChainSettings(num_chains=16, burn_in=2, thinning=1, num_kept=4)
        options |= {"potential_widths": (8,), "chains": chains, "partition_samples": 64}
    return build_variant(name, MODALITIES, latent_dim=2, width=8, layers=2, **options)


def sbm(kind: str, *, energy: bool = False, embedding: int = 0, sampler: str = "dpm_solver", **options: Any) -> SBMVAE:
    sde = VPSDE(1.0, 5.0)
    score = {"sde": sde, "width": 8, "blocks": 1, "multipliers": (1,), "context_dim": embedding, "decay": 0.9}
    networks = {"widths": (4, 4), "hidden": (8,)}
    return SBMVAE(
        MODALITIES,
        Autoencoders(MODALITIES, kind=kind, latent_dim=4, **networks),
        LatentScore(3, 4, **score, multi_time=options.pop("multi_time", False)),
        energy=PairEnergy(3, 4, sde, (8,)) if energy else None,
        contrastive=ContrastiveEncoders(MODALITIES, embedding_dim=embedding, features=4, **networks)
        if embedding
        else None,
        sampling=SamplingSettings(sampler, num_steps=2),
        **options,
    )


def covae(names: str = "ab", **options: Any) -> CoVAE:
    modalities = {m: MODALITIES[m] for m in names}
    sizes = dict(zip(names, (2, 3, 2), strict=False))
    entries = num_covariance_entries(options.get("posterior", "cholesky"), list(sizes.values()))
    made = build_networks(
        "mlp",
        modalities,
        encoded=sizes,
        decoded=sizes,
        joint_outputs=sum(sizes.values()) + entries,
        widths=(8,),
        joint_hidden=8,
    )
    parts = {"encoders": made.encoders, "joint_encoder": made.joint, "decoders": made.decoders}
    return CoVAE(modalities, latent_dims=sizes, **parts, **options)


def baseline(method: str, **options: Any) -> MultimodalModel:
    return build_baseline(method, MODALITIES, latent_dim=2, beta=0.5, widths=(8,), **options)


MODELS: dict[str, Callable[[], MultimodalModel]] = {
    "gmrf": gmrf,
    "gmrf masked": partial(gmrf, kept=0.5, likelihood="laplace"),
    "gmrf block-dominant": partial(gmrf, posterior="block_dominant", prior="block_dominant"),
    "gmrf standard prior": partial(gmrf, prior="standard", dominance="block"),
    "variant gmrf": partial(variant, "gmrf"),
    "variant almrf": partial(variant, "almrf"),
    "variant almrf per point": partial(variant, "almrf", penalty="per_point", location=True),
    "variant nnmrf": partial(variant, "nnmrf"),
    "variant nnmrf per sample": partial(variant, "nnmrf", partition="per_sample"),
    "sbm-vae": partial(sbm, "vae", energy=True, finetune_drop=0.5, missing=0.25),
    "sbm-vae predictor-corrector": partial(sbm, "vae", sampler="predictor_corrector"),
    "sbm-rae": partial(sbm, "rae", embedding=6, latents="mean", sampler="heun"),
    "mld": partial(sbm, "rae", multi_time=True),
    "covae": covae,
    "covae cross-diagonal": partial(covae, posterior="cross_diagonal", trainable_prior=True),
    "covae three": partial(covae, "abc", likelihood="laplace", marginal_variance=True),
    **{m: partial(baseline, m) for m in METHODS if m not in ("mmvae_plus", "dmvae")},
    "mvae sub-sampled": partial(baseline, "mvae", subsampling=True, likelihood="laplace"),
    "mmvae_plus": partial(baseline, "mmvae_plus", specific_dim=2),
    "dmvae": partial(baseline, "dmvae", specific_dim=2),
}
# A regularised autoencoder has no likelihood.
LIKELY = [m for m in MODELS if m not in ("sbm-rae", "mld")]


def build(name: str) -> MultimodalModel:
    with isolated_rng(0):
        return MODELS[name]()


def trainable(name: str) -> MultimodalModel:
    """The model without the fine-tuning that samples in every step, whose loss has a test of its own."""
    model = build(name)
    if isinstance(model, SBMVAE):
        model.finetune_drop = 0.0
    return model


def dataset(model: MultimodalModel, number: int = 12 * SIZE) -> Dataset:
    g = torch.Generator().manual_seed(1)
    data = {m: torch.rand(number, *s.shape, generator=g) for m, s in model.modalities.items()}
    return Dataset("toy", "train", dict(model.modalities), data)


@pytest.fixture(params=[pytest.param(d, marks=pytest.mark.cuda) if d == "cuda" else d for d in devices()])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """The pretended device, and a GPU where there is one."""
    with pretending() if request.param == pretend() else nullcontext():
        yield request.param


def assert_same(found: Any, expected: Any, device: str) -> None:
    """Equal within rounding, which is coarser on a GPU; all of ``found`` is on the device."""
    pairs = [(found[k], expected[k]) for k in expected] if isinstance(expected, dict) else [(found, expected)]
    for a, b in pairs:
        assert a.device.type == device
        least = 1e-4 if device == pretend() else 1e-2
        torch.testing.assert_close(a.detach().cpu(), b.detach(), equal_nan=True, rtol=least, atol=least)


def losses(model: MultimodalModel, place: str) -> dict[str, Tensor]:
    """Loss and gradients' sizes of every stage, on what the stage is trained on."""
    model.to(place).train()
    data = dataset(model).to(place)
    found: dict[str, Tensor] = {}
    for stage in model.stages():
        with isolated_rng(3):
            with torch.no_grad():
                split = model.stage_data(stage, data)
            batch = next(split.batches(SIZE))
            loss = model.loss(batch, stage)
            model.zero_grad()
            loss.total.backward()
        found |= {f"{stage.name} {k}": v for k, v in {"loss": loss.total, **loss.terms}.items()}
        gradients = [p.grad.abs().sum() for p in model.parameters() if p.grad is not None]
        found[f"{stage.name} gradient"] = torch.stack(gradients).sum()
    return found


@pytest.mark.parametrize("name", MODELS)
def test_losses_and_gradients(name: str, device: str) -> None:
    found, expected = losses(build(name), device), losses(build(name), "cpu")
    if device != "cuda":
        assert_same(found, expected, device)
        return
    assert all(x.device.type == "cuda" and bool(torch.isfinite(x)) for x in found.values())  # a GPU draws other noise


def generated(model: MultimodalModel, place: str, noisy: bool, **options: Any) -> dict[str, Tensor]:
    """Samples by a generator of the CPU, jointly, and given one modality and all but one, with noise and without."""
    model.to(place).eval()
    batch = next(dataset(model).to(place).batches(2, shuffle=False))
    names = list(model.modalities)
    found: dict[str, Tensor] = {}
    for seen in ((), names[:1], names[1:], names):
        g = torch.Generator().manual_seed(5)
        given = {m: batch[m] for m in seen} or None
        for noise in (False, True)[: 1 + noisy]:
            out = model.generate(3, given=given, generator=g, sample_likelihood=noise, **options)
            found |= {f"{m} given {seen}, {noise}": x for m, x in out.items()}
    return found


def check_generation(name: str, device: str, **options: Any) -> None:
    found, expected = (generated(build(name), place, name in LIKELY, **options) for place in (device, "cpu"))
    assert_same(found, expected, device)


@pytest.mark.parametrize("name", MODELS)
def test_generation_with_a_generator_of_the_cpu(name: str, device: str) -> None:
    check_generation(name, device)


@pytest.mark.parametrize("protocol", CONDITIONAL_PROTOCOLS)
def test_protocols_of_the_gaussian_field(protocol: str, device: str) -> None:
    check_generation("gmrf", device, protocol=protocol)


@pytest.mark.parametrize("conditional", ["exact", "matched"])
def test_conditionals_of_the_laplace_field(conditional: str, device: str) -> None:
    check_generation("variant almrf", device, conditional=conditional, protocol="componentwise")


@pytest.mark.parametrize("name", MODELS)
def test_generation_with_generators_of_the_device_and_of_none(name: str, device: str) -> None:
    model = build(name).to(device).eval()
    given = {m: x for m, x in next(dataset(model).to(device).batches(2)).items() if m == "b"}
    for generator in (torch.Generator(device).manual_seed(0), None):
        for seen in (None, given):
            for x in model.generate(2, given=seen, generator=generator, sample_likelihood=name in LIKELY).values():
                assert x.device.type == device
                assert bool(torch.isfinite(x).all())


def likelihoods(name: str, place: str) -> dict[str, Tensor]:
    """Of all modalities, of one, and of one given another, by a generator of the CPU; a score's of all alone."""
    model = build(name)
    model.to(place).eval()
    batch = next(dataset(model).to(place).batches(4, shuffle=False))
    a, b = ({m: batch[m]} for m in list(batch)[:2])
    g = torch.Generator().manual_seed(5)
    if name.startswith("sbm"):
        return {"joint": model.log_likelihood(batch, num_importance_samples=2, num_steps=2, generator=g)}
    options = {"num_importance_samples": 8, "generator": g}
    joint = model.log_likelihood(batch, **options)
    return {"joint": joint, "one": model.log_likelihood(a, **options)} | {
        "given": model.log_likelihood(a, given=b, **options)
    }


@pytest.mark.parametrize("name", LIKELY)
def test_log_likelihoods_with_a_generator_of_the_cpu(name: str, device: str) -> None:
    assert_same(likelihoods(name, device), likelihoods(name, "cpu"), device)


def continued(name: str, place: str, path: Path, stops: bool) -> dict[str, Tensor]:
    """What training ends with, in one go or stopped within an epoch and continued by a new model."""
    settings = TrainingSettings(2, 3 * SIZE, 1e-3, device=place)
    steps = iter(range(10**6))
    model = trainable(name)
    data = dataset(model)
    if stops:
        with pytest.raises(TrainingStopped):
            train(model, data, settings, seed=0, key="k", checkpoint=path, stop=lambda: next(steps) >= 4)
        model = trainable(name)
    train(model, data, settings, seed=0, key="k", checkpoint=path)
    return {k: v.clone() for k, v in model.state_dict().items()}


def parted(once: dict[str, Tensor], again: dict[str, Tensor]) -> dict[str, float]:
    """What is not the same bit for bit, and the largest difference."""
    pairs = {k: (x.cpu().double(), again[k].cpu().double()) for k, x in once.items()}
    return {k: float((a - b).abs().max()) for k, (a, b) in pairs.items() if not torch.equal(a, b)}


# Several stages, each trained thrice, on a device whose operations are in Python.
LONG = ("sbm", "mld", "covae")


@pytest.mark.parametrize("name", [pytest.param(m, marks=pytest.mark.slow) if m.startswith(LONG) else m for m in MODELS])
def test_training_is_continued_bit_for_bit(name: str, device: str, tmp_path: Path) -> None:
    once = continued(name, device, tmp_path / "once.safetensors", False)
    again = continued(name, device, tmp_path / "again.safetensors", True)
    assert {x.device.type for x in once.values()} == {device}
    assert parted(once, again) == {}
    if device == pretend():
        assert_same(once, continued(name, "cpu", tmp_path / "cpu.safetensors", False), device)


SHIPPED = ["gmrf_mcvae/copula", "gmrf_mcvae/copula-mmvae-plus", "vaegan-decoder", "vaegan-flow", "classifier-polymnist"]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_models_are_loaded_onto_a_device(name: str, device: str) -> None:
    model = repro.load_model(name, device=device)
    tensors = [*model.parameters(), *model.buffers()]
    assert tensors
    assert {x.device.type for x in tensors} == {device}
    if isinstance(model, MultimodalModel):
        expected = repro.load_model(name).generate(4, generator=torch.Generator().manual_seed(0))
        assert_same(model.generate(4, generator=torch.Generator().manual_seed(0)), expected, device)


def on_the_model_s_device(draw: Any, shape: Any, device: Any, generator: Any) -> Tensor:
    return draw(shape, generator=generator, device=device)


def left_behind(model: MultimodalModel, name: str) -> MultimodalModel:
    """The model with a buffer that is a plain tensor of the CPU."""
    value = getattr(model, name)
    del model._buffers[name]
    setattr(model, name, value)
    return model


# A fault, how it is put back, and a test that fails on it.
FAULTS: dict[str, tuple[str, Any, Callable[[str, Path], None]]] = {
    "noise drawn on the model's device by the caller's generator": (
        "repro.papers.gmrf_mcvae.model._drawn",
        on_the_model_s_device,
        lambda d, _: check_generation("gmrf", d),
    ),
    "the same, of the baselines": (
        "repro.baselines.inference._randn",
        lambda shape, like, generator: torch.randn(*shape, generator=generator, device=like.device, dtype=like.dtype),
        lambda d, _: check_generation("mvae", d),
    ),
    "the same, of the score's sampler": (
        "repro.distributions.diffusion_samplers.draw_noise",
        lambda like, generator: torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device),
        lambda d, _: check_generation("sbm-vae predictor-corrector", d),
    ),
    "the same, of Markov chains": (
        "repro.distributions.mcmc._noise",
        lambda like, generator, uniform=False: torch.randn(like.shape, generator=generator, device=like.device),
        lambda d, _: test_log_likelihoods_with_a_generator_of_the_cpu("variant nnmrf", d),
    ),
    "data that stays on the CPU": (
        "repro.datasets.base.Dataset.to",
        lambda data, _: data,
        lambda d, path: continued("gmrf", d, path / "x.safetensors", False),
    ),
    "an identity made on the CPU": (
        "repro.papers.covae.deep_cca.torch.eye",
        lambda n, _eye=torch.eye, **options: _eye(n, **{k: v for k, v in options.items() if k != "device"}),
        lambda d, path: continued("covae three", d, path / "x.safetensors", False),
    ),
    "a mask that does not move with the model": (
        "tests.engine.test_devices.build",
        lambda name: left_behind(MODELS[name](), "mask"),
        lambda d, _: losses(build("gmrf masked"), d),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_seen(fault: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    where, wrong, check = FAULTS[fault]
    with pretending():
        check(pretend(), tmp_path)
        monkeypatch.setattr(where, wrong)
        (tmp_path / "wrong").mkdir()
        with pytest.raises(MixedDevicesError):
            check(pretend(), tmp_path / "wrong")
