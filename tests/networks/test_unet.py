"""The score network and the residual networks of images: shapes, symmetries, conditioning, what they refuse."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from repro.networks.soft_intro import NormalisedResidualBlock, SoftIntroDecoder, SoftIntroEncoder
from repro.networks.unet import ScoreUNet, time_embedding


def network(**options) -> ScoreUNet:
    torch.manual_seed(0)
    made = ScoreUNet(3, 8, **({"width": 16, "blocks": 1} | options)).eval()
    # The last layers of blocks and of the network start at zero; here everything has to matter.
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return made


def test_it_starts_at_zero_and_keeps_the_shape():
    fresh = ScoreUNet(3, 8, width=16, blocks=1)
    x = torch.randn(5, 3, 8, 8)
    assert torch.equal(fresh(x, torch.rand(5)), torch.zeros_like(x))
    assert network()(x, torch.rand(5)).shape == x.shape
    assert (
        ScoreUNet(2, 16, width=8, multipliers=(1, 2), blocks=2)(x.new_ones(1, 2, 16, 16), torch.rand(1)).shape[-1] == 16
    )


def test_samples_do_not_see_one_another():
    made, x, t = network(), torch.randn(4, 3, 8, 8), torch.rand(4)
    together = made(x, t)
    for k in range(4):
        torch.testing.assert_close(made(x[k : k + 1], t[k : k + 1]), together[k : k + 1], rtol=1e-4, atol=1e-4)


def test_time_context_and_every_modality_matter():
    made, x = network(context_dim=6), torch.randn(2, 3, 8, 8)
    t, context = torch.tensor([0.3, 0.3]), torch.randn(2, 6)
    base = made(x, t)
    assert not torch.allclose(made(x, t, context), made(x, t, -context))
    assert not torch.allclose(made(x, t + 0.1), base)
    for k in range(3):
        moved = x.clone()
        moved[:, k] += 1
        change = (made(moved, t) - base).abs().amax((0, 2, 3))
        assert bool((change > 1e-6).all())  # every output depends on every input


def test_one_time_a_channel():
    made, x = network(num_times=3), torch.randn(2, 3, 8, 8)
    t = torch.tensor([[0.1, 0.5, 0.9]]).repeat(2, 1)
    base = made(x, t)
    for k in range(3):
        other = t.clone()
        other[:, k] += 0.05
        assert not torch.allclose(made(x, other), base, atol=1e-6)


def test_time_embedding_is_sines_and_cosines():
    t = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    found = time_embedding(t, 4)
    frequencies = torch.tensor([1000.0, 10.0], dtype=torch.float64)
    expected = torch.cat([(t[:, None] * frequencies).sin(), (t[:, None] * frequencies).cos()], 1)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close((found[:, :2] ** 2 + found[:, 2:] ** 2), torch.ones(3, 2, dtype=torch.float64))
    assert time_embedding(torch.rand(2, 3), 8).shape == (2, 3, 8)


def test_cost_does_not_grow_with_the_modalities():
    count = lambda m: sum(p.numel() for p in ScoreUNet(m, 8, width=32).parameters())  # noqa: E731
    # Only the first and the last convolution have a weight a channel: 2 * 9 * 32, and a bias.
    assert count(10) - count(2) == 8 * (2 * 9 * 32 + 1)


def test_encoder_and_decoder_fit_each_other():
    for shape, widths in {(3, 28, 28): (4, 8, 8), (1, 32, 128): (4, 8), (3, 8, 8): (4,)}.items():
        encoder, decoder = SoftIntroEncoder(shape, 10, widths=widths), SoftIntroDecoder(shape, 5, widths=widths)
        x = torch.rand(3, *shape)
        found = encoder(x)
        assert found.shape == (3, 10)
        assert decoder(found[:, :5]).shape == x.shape
        assert decoder(found.reshape(3, 2, 5)).shape == (3, 2, *shape)
    assert SoftIntroEncoder((3, 28, 28), 10).size == (32, 32)


def test_padding_is_centred_and_cut_off_again():
    torch.manual_seed(0)
    shape = (1, 6, 6)
    encoder, decoder = (
        SoftIntroEncoder(shape, 3, widths=(4, 4)).eval(),
        SoftIntroDecoder(shape, 3, widths=(4, 4)).eval(),
    )
    big = SoftIntroEncoder((1, 8, 8), 3, widths=(4, 4)).eval()
    big.load_state_dict(encoder.state_dict())
    x = torch.rand(2, *shape)
    torch.testing.assert_close(encoder(x), big(nn.functional.pad(x, (1, 1, 1, 1))))
    whole = SoftIntroDecoder((1, 8, 8), 3, widths=(4, 4)).eval()
    whole.load_state_dict(decoder.state_dict())
    z = torch.randn(2, 3)
    torch.testing.assert_close(decoder(z), whole(z)[..., 1:-1, 1:-1])


def test_residual_block_is_what_it_says():
    torch.manual_seed(0)
    block, x = NormalisedResidualBlock(2, 3).eval(), torch.randn(2, 2, 4, 4)
    h = nn.functional.leaky_relu(block.norm_0(block.conv_0(x)), 0.2)
    expected = nn.functional.leaky_relu(block.shortcut(x) + block.norm_1(block.conv_1(h)), 0.2)
    torch.testing.assert_close(block(x), expected)
    assert isinstance(NormalisedResidualBlock(2, 2).shortcut, nn.Identity)


def test_errors_are_one_line():
    made, x, t = network(), torch.zeros(2, 3, 8, 8), torch.zeros(2)
    for match, call in {
        "takes (batch, 3, 8, 8), got (2, 3, 4, 4)": lambda: made(x[..., :4, :4], t),
        "times have shape (2, 3)": lambda: made(x, torch.zeros(2, 3)),
        "a context of shape (2, 4)": lambda: made(x, t, torch.zeros(2, 4)),
        "images of size 6 cannot be halved 2 times": lambda: ScoreUNet(3, 6),
        "width is 0": lambda: ScoreUNet(3, 8, width=0),
        "multipliers () must be positive": lambda: ScoreUNet(3, 8, multipliers=()),
        "even number of features, got 3": lambda: time_embedding(t, 3),
        "shape is (3, 8)": lambda: SoftIntroEncoder((3, 8), 2),
        "widths are ()": lambda: SoftIntroDecoder((3, 8, 8), 2, widths=()),
        "takes images of shape (batch, (3, 8, 8))": lambda: SoftIntroEncoder((3, 8, 8), 2, widths=(4,))(x[:, :2]),
    }.items():
        with pytest.raises(ValueError, match=re.escape(match)) as caught:
            call()
        assert "\n" not in str(caught.value)
