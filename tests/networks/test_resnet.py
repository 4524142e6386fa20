"""Residual encoders and decoders: shapes, parameters by formula, gradients."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from repro.model import isolated_rng
from repro.networks.resnet import RESNETS, ResidualBlock, ResNetDecoder, ResNetEncoder, resnet_decoder, resnet_encoder


def block_parameters(fin: int, fout: int) -> int:
    hidden = min(fin, fout)
    return (9 * fin * hidden + hidden) + (9 * hidden * fout + fout) + (fin * fout if fin != fout else 0)


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def small_encoder(**options: int) -> ResNetEncoder:
    with isolated_rng(0):
        return ResNetEncoder((2, 8, 8), 3, start_size=2, channels=4, max_channels=8, **options)


def small_decoder() -> ResNetDecoder:
    with isolated_rng(0):
        return ResNetDecoder((2, 8, 8), 3, start_size=2, channels=4, max_channels=8)


def images(*leading: int) -> torch.Tensor:
    return torch.randn(*leading, 2, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("fin", "fout"), [(4, 4), (4, 6), (6, 4)])
def test_block_has_the_parameters_of_table_v(fin: int, fout: int) -> None:
    assert parameters(ResidualBlock(fin, fout)) == block_parameters(fin, fout)


@pytest.mark.parametrize(("fin", "fout"), [(4, 4), (4, 6)])
def test_block_is_shortcut_plus_a_tenth_of_the_residual(fin: int, fout: int) -> None:
    with isolated_rng(0):
        block = ResidualBlock(fin, fout)
    x = torch.randn(2, fin, 5, 5, generator=torch.Generator().manual_seed(1))
    h = F.conv2d(F.leaky_relu(x, 0.2), block.conv_0.weight, block.conv_0.bias, padding=1)
    h = F.conv2d(F.leaky_relu(h, 0.2), block.conv_1.weight, block.conv_1.bias, padding=1)
    shortcut = x if fin == fout else torch.einsum("oi,bihw->bohw", block.shortcut.weight[:, :, 0, 0], x)
    torch.testing.assert_close(block(x), shortcut + 0.1 * h)


@pytest.mark.parametrize(
    ("dataset", "widths", "shape", "start", "latent"),
    [("polymnist", [64, 128, 256], (3, 28, 28), 7, 16), ("biked", [32, 64, 128, 256], (1, 64, 64), 8, 4)],
)
def test_presets_have_the_sizes_of_table_viii(
    dataset: str, widths: list[int], shape: tuple[int, int, int], start: int, latent: int
) -> None:
    encoder, decoder = resnet_encoder(dataset, latent_dim=latent), resnet_decoder(dataset, latent_dim=latent)
    flat, nf = widths[-1] * start**2, widths[0]
    pairs = list(pairwise(widths))
    stem = 9 * shape[0] * nf + nf
    encoder_blocks = block_parameters(nf, nf) + sum(block_parameters(a, b) for a, b in pairs)
    decoder_blocks = block_parameters(nf, nf) + sum(block_parameters(b, a) for a, b in pairs)
    assert encoder.feature_dim == flat
    assert parameters(encoder) == stem + encoder_blocks + 2 * (flat * latent + latent)
    assert parameters(decoder) == (latent * flat + flat) + decoder_blocks + (9 * nf * shape[0] + shape[0])
    with torch.no_grad():
        mean, log_variance = encoder(torch.zeros(2, *shape))
        assert mean.shape == log_variance.shape == (2, latent)
        assert decoder(torch.zeros(2, latent)).shape == (2, *shape)


def test_max_channels_limits_the_widths() -> None:
    encoder = ResNetEncoder((1, 32, 32), 2, start_size=2, channels=4, max_channels=10)
    outputs = [b.conv_1.out_channels for b in encoder.blocks if isinstance(b, ResidualBlock)]
    assert outputs == [4, 8, 10, 10, 10]
    assert encoder.feature_dim == 40


def test_heads_on_features_are_the_forward_pass() -> None:
    encoder, x = small_encoder(specific_dim=5), images(4)
    features = encoder.features(x)
    assert features.shape == (4, encoder.feature_dim)
    for got, expected in zip(encoder.heads(features), encoder(x), strict=True):
        assert torch.equal(got, expected)
    assert [h.shape for h in encoder.specific_heads(features)] == [(4, 5), (4, 5)]
    assert not hasattr(small_encoder(), "specific_mean")


def test_decoder_keeps_leading_dimensions() -> None:
    decoder = small_decoder()
    z = torch.randn(3, 5, 3, generator=torch.Generator().manual_seed(2))
    out = decoder(z)
    assert out.shape == (3, 5, 2, 8, 8)
    torch.testing.assert_close(out[1], decoder(z[1]))
    assert decoder(z[0, 0]).shape == (2, 8, 8)


def test_every_parameter_gets_a_gradient() -> None:
    encoder, decoder = small_encoder(specific_dim=2), small_decoder()
    features = encoder.features(images(4))
    mean, log_variance = encoder.heads(features)
    loss = decoder(mean + log_variance).square().sum() + sum(h.square().sum() for h in encoder.specific_heads(features))
    loss.backward()
    for name, p in [*encoder.named_parameters(), *decoder.named_parameters()]:
        assert p.grad is not None, name
        assert torch.isfinite(p.grad).all(), name
        assert p.grad.abs().sum() > 0, name


def test_bad_sizes_are_named() -> None:
    with pytest.raises(ValueError, match="size 30 are not start_size = 7 times a power of two"):
        ResNetEncoder((3, 30, 30), 2, start_size=7, channels=4, max_channels=8)
    with pytest.raises(ValueError, match=r"shape is \(3, 28, 14\)"):
        ResNetDecoder((3, 28, 14), 2, start_size=7, channels=4, max_channels=8)
    with pytest.raises(ValueError, match="channels is 16, must be between 1 and max_channels = 8"):
        ResNetEncoder((3, 28, 28), 2, start_size=7, channels=16, max_channels=8)
    with pytest.raises(ValueError, match=r"got \(4, 2, 8, 7\)"):
        small_encoder()(torch.zeros(4, 2, 8, 7))
    with pytest.raises(ValueError, match=f"'mnist', one of {', '.join(RESNETS)}"):
        resnet_encoder("mnist", latent_dim=2)


def test_output_starts_at_the_background() -> None:
    options = {"start_size": 2, "channels": 4, "max_channels": 8}
    with isolated_rng(0):
        plain = ResNetDecoder((2, 8, 8), 3, **options)
    with isolated_rng(0):
        decoder = ResNetDecoder((2, 8, 8), 3, background=1.0, **options)
    z = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    shift = 1 - plain.output.bias.detach()  # nothing but the bias differs
    torch.testing.assert_close(decoder(z), plain(z) + shift[:, None, None])


# Precision and memory layout


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("hidden_dtype", [None, torch.bfloat16])
def test_precision_and_layout_change_rounding_alone(hidden_dtype: torch.dtype | None, channels_last: bool) -> None:
    options = {"hidden_dtype": hidden_dtype, "channels_last": channels_last}
    sizes = {"start_size": 2, "channels": 4, "max_channels": 8}
    with isolated_rng(0):
        encoder = ResNetEncoder((2, 8, 8), 3, specific_dim=2, **sizes, **options)
    with isolated_rng(0):
        decoder = ResNetDecoder((2, 8, 8), 3, **sizes, **options)
    plain_encoder, plain_decoder = small_encoder(specific_dim=2), small_decoder()
    x = images(6)
    results, plain = [], []
    for e, d, found in ((encoder, decoder, results), (plain_encoder, plain_decoder, plain)):
        features = e.features(x)
        outputs = [*e.heads(features), *e.specific_heads(features)]
        found += [*outputs, d(outputs[0])]
        sum(y.square().sum() for y in found).backward()
        found += [p.grad for p in (*e.parameters(), *d.parameters())]
    assert encoder.features(x).dtype is (hidden_dtype or torch.float32)
    # bfloat16 has 8 significant bits, and some ten layers lie between.
    for a, b in zip(results, plain, strict=True):
        assert a.dtype is torch.float32
        torch.testing.assert_close(a, b, rtol=0, atol=(0.05 if hidden_dtype else 1e-5) * float(b.detach().abs().max()))
    if hidden_dtype:
        assert not torch.equal(results[0], plain[0])


def test_maps_lie_in_the_layout_that_is_asked_for() -> None:
    for channels_last in (False, True):
        encoder = ResNetEncoder((2, 8, 8), 3, start_size=2, channels=4, max_channels=8, channels_last=channels_last)
        seen: list[bool] = []
        encoder.blocks.register_forward_hook(
            lambda _, __, y, seen=seen: seen.append(y.is_contiguous(memory_format=torch.channels_last))
        )
        encoder(images(3))
        assert seen == [channels_last]
