"""The VAEGAN: its networks and losses against pythae's, and which parameters follow which loss."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from pythae.models import VAEGAN as ReferenceVAEGAN
from pythae.models import VAEGANConfig
from pythae.models.nn.benchmarks.mnist import (
    Decoder_ResNet_AE_MNIST,
    Discriminator_Conv_MNIST,
    Encoder_ResNet_VAE_MNIST,
)
from pythae.trainers import CoupledOptimizerAdversarialTrainer
from torch import Tensor, nn

from repro.datasets import Dataset, ModalitySpec
from repro.model import isolated_rng
from repro.networks.vaegan import Decoder, Discriminator, Encoder
from repro.papers.pretrained.vaegan import VAEGAN
from repro.training import TrainingSettings, train
from repro.training.steps import backward_pass

IMAGE = {"image": ModalitySpec((1, 28, 28), "image", (0.0, 1.0))}
ARGUMENTS = SimpleNamespace(input_dim=(1, 28, 28), latent_dim=10)


def copied(own: nn.Module, reference: nn.Module) -> None:
    """Gives the reference the parameters of our module, which stand in the same order."""
    values = list(own.parameters())
    assert [p.shape for p in reference.parameters()] == [p.shape for p in values]
    for p, value in zip(reference.parameters(), values, strict=True):
        p.data.copy_(value)


def images(count: int = 5) -> Tensor:
    return torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def build(**settings: object) -> VAEGAN:
    with isolated_rng(0):
        return VAEGAN(IMAGE, **settings)


@torch.no_grad()
def test_encoder_is_pythae_s() -> None:
    own, reference = Encoder(10), Encoder_ResNet_VAE_MNIST(ARGUMENTS)
    copied(own, reference)
    mean, log_variance = own(images())
    out = reference(images())
    assert torch.equal(mean, out.embedding)
    assert torch.equal(log_variance, out.log_covariance)


@torch.no_grad()
def test_decoder_is_pythae_s() -> None:
    own, reference = Decoder(10), Decoder_ResNet_AE_MNIST(ARGUMENTS)
    copied(own, reference)
    z = torch.randn(5, 10, generator=torch.Generator().manual_seed(1))
    assert torch.equal(own(z), reference(z).reconstruction)


@torch.no_grad()
def test_discriminator_is_pythae_s() -> None:
    own, reference = Discriminator(), Discriminator_Conv_MNIST(ARGUMENTS)
    copied(own, reference)
    out = reference(images(), output_layer_levels=[3, 5])
    torch.testing.assert_close(own.features(images()), out.embedding_layer_3, rtol=0, atol=0)
    torch.testing.assert_close(torch.sigmoid(own(images())), out.embedding.flatten(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("module", [Encoder, Discriminator])
def test_images_of_another_shape_are_refused(module: Callable[[], nn.Module]) -> None:
    with pytest.raises(ValueError, match=r"\(2, 1, 32, 32\), expected \(batch, 1, 28, 28\)"):
        module()(torch.rand(2, 1, 32, 32))


def test_latents_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"latents of shape \(2, 11\), expected \(batch, 10\)"):
        Decoder(10)(torch.zeros(2, 11))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"adversarial_scale": 1.5}, "adversarial_scale is 1.5"),
        ({"adversarial_scale": -0.1}, "adversarial_scale"),
        ({"gradients": "summed"}, "gradients is 'summed', must be 'accumulated' or 'separate'"),
    ],
)
def test_bad_settings(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VAEGAN(IMAGE, **settings)


def test_needs_one_modality_of_images() -> None:
    with pytest.raises(ValueError, match="one modality of shape"):
        VAEGAN({"a": ModalitySpec((3, 28, 28))})


def with_reference(gradients: str) -> tuple[VAEGAN, ReferenceVAEGAN]:
    """Our VAEGAN and pythae's, with the same parameters."""
    own = build(gradients=gradients)
    config = VAEGANConfig(
        input_dim=(1, 28, 28),
        latent_dim=10,
        adversarial_loss_scale=0.8,
        reconstruction_layer=3,
        margin=0.4,
        equilibrium=0.68,
    )
    parts = Encoder_ResNet_VAE_MNIST(config), Decoder_ResNet_AE_MNIST(config), Discriminator_Conv_MNIST(config)
    reference = ReferenceVAEGAN(config, *parts)
    for mine, other in zip((own.encoder, own.decoder, own.discriminator), parts, strict=True):
        copied(mine, other)
    return own, reference


def test_losses_are_pythae_s() -> None:
    own, reference = with_reference("separate")
    with isolated_rng(3):
        loss = own.loss({"image": images()})
    with isolated_rng(3):
        out = reference({"data": images()})
    for part, expected in zip(
        loss.parts.values(), (out.encoder_loss, out.decoder_loss, out.discriminator_loss), strict=True
    ):
        torch.testing.assert_close(part, expected, rtol=1e-5, atol=1e-6)
    assert (out.update_encoder, out.update_decoder, out.update_discriminator) == (True, True, True)


@pytest.mark.slow
@pytest.mark.parametrize("equilibrium", [0.68, 2.0, 0.1], ids=["all learn", "discriminator rests", "decoder rests"])
def test_accumulated_gradients_are_those_of_pythae_s_trainer(equilibrium: float) -> None:
    own, reference = with_reference("accumulated")
    own.equilibrium = reference.equilibrium = equilibrium
    with isolated_rng(3):
        backward_pass(own, own.loss({"image": images()}))
    with isolated_rng(3):
        out = reference({"data": images()})
    groups = {k: getattr(reference, k) for k in ("encoder", "decoder", "discriminator")}
    trainer = SimpleNamespace(**{f"{k}_optimizer": torch.optim.SGD(g.parameters(), lr=0.0) for k, g in groups.items()})
    CoupledOptimizerAdversarialTrainer._optimizers_step(trainer, out)
    for name, group in groups.items():
        if not out[f"update_{name}"]:
            assert all(p.grad is None for p in getattr(own, name).parameters())
            continue
        for p, other in zip(getattr(own, name).parameters(), group.parameters(), strict=True):
            difference = float((p.grad - other.grad).norm() / other.grad.norm().clamp(min=1e-12))
            assert difference < 1e-4, name


@pytest.mark.slow
def test_separate_gradients_are_of_each_loss_alone() -> None:
    own, reference = with_reference("separate")
    with isolated_rng(3):
        backward_pass(own, own.loss({"image": images()}))
    with isolated_rng(3):
        out = reference({"data": images()})
    for name in ("encoder", "decoder", "discriminator"):
        group = list(getattr(reference, name).parameters())
        gradients = torch.autograd.grad(out[f"{name}_loss"], group, retain_graph=True)
        for p, gradient in zip(getattr(own, name).parameters(), gradients, strict=True):
            assert float((p.grad - gradient).norm() / gradient.norm()) < 1e-4, name


@pytest.mark.parametrize(
    ("equilibrium", "margin", "parts"),
    [
        (0.68, 0.4, {"encoder.", "decoder.", "discriminator."}),
        (2.0, 0.4, {"encoder.", "decoder."}),  # both costs of about 0.69 are under 1.6: the discriminator rests
        (0.1, 0.2, {"encoder.", "discriminator."}),  # over 0.3: the decoder rests
        (0.69, -0.3, {"encoder.", "decoder.", "discriminator."}),  # both would rest: neither does
    ],
)
def test_who_rests(equilibrium: float, margin: float, parts: set[str]) -> None:
    loss = build(equilibrium=equilibrium, margin=margin).loss({"image": images()})
    assert set(loss.parts) == parts


@pytest.mark.slow
def test_resting_parameters_keep_their_values() -> None:
    model = build(equilibrium=2.0)
    before = {n: p.clone() for n, p in model.named_parameters()}
    data = Dataset("d", "train", IMAGE, {"image": images(8)})
    train(model, data, TrainingSettings(1, 8, 1e-3, optimizer="adamw"), seed=0)
    moved = {n.split(".")[0] for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {"encoder", "decoder"}


def test_bfloat16_is_close_to_float32() -> None:
    full, half = build(), build(compute_dtype=torch.bfloat16)
    with isolated_rng(0):
        a = full.loss({"image": images()})
    with isolated_rng(0):
        b = half.loss({"image": images()})
    for name in a.terms:
        assert float(b.terms[name]) == pytest.approx(float(a.terms[name]), rel=0.05, abs=1e-3)
    assert all(p.dtype is torch.float32 for p in half.parameters())


@torch.no_grad()
def test_samples_follow_their_generator() -> None:
    model = build()
    state = torch.get_rng_state()
    a, b = (model.sample(3, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(a, b)
    assert a.shape == (3, 1, 28, 28)
    assert 0 <= float(a.min()) <= float(a.max()) <= 1
    assert torch.equal(torch.get_rng_state(), state)
