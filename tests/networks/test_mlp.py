"""Fully connected networks: Table IV's sizes, shapes, types, gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from repro.model import isolated_rng
from repro.networks.mlp import MLP, GaussianMLPEncoder, HiddenLayers, output_linear


def points(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_mlp_is_affine_maps_with_relu_between() -> None:
    with isolated_rng(0):
        mlp = MLP(3, (5, 4), 2)
    x = points(6, 3)
    h = x
    for layer in mlp.hidden.layers:
        h = F.relu(h @ layer.weight.T + layer.bias)
    torch.testing.assert_close(mlp(x), h @ mlp.linear.weight.T + mlp.linear.bias)


@pytest.mark.parametrize("leading", [(), (7,), (3, 5)])
def test_mlp_keeps_leading_dimensions(leading: tuple[int, ...]) -> None:
    assert MLP(3, (5,), 2)(points(*leading, 3)).shape == (*leading, 2)


def test_sigmoid_output_is_the_sigmoid_of_the_linear_one() -> None:
    with isolated_rng(0):
        linear = MLP(3, (5,), 2)
    sigmoid = MLP(3, (5,), 2, output="sigmoid")
    sigmoid.load_state_dict(linear.state_dict())
    x = points(6, 3)
    torch.testing.assert_close(sigmoid(x), torch.sigmoid(linear(x)))


def test_activation_is_the_given_one() -> None:
    layers = HiddenLayers(3, (4,), activation=torch.nn.Tanh)
    x = points(6, 3)
    torch.testing.assert_close(layers(x), torch.tanh(layers.layers[0](x)))
    assert layers.out_features == 4


def test_no_hidden_layers_leave_one_affine_map() -> None:
    mlp = MLP(3, (), 2)
    x = points(6, 3)
    torch.testing.assert_close(mlp(x), mlp.linear(x))


def test_bfloat16_hidden_layers_keep_float32_outside() -> None:
    with isolated_rng(0):
        exact = MLP(2, (256, 256), 2)
    half = MLP(2, (256, 256), 2, hidden_dtype=torch.bfloat16)
    half.load_state_dict(exact.state_dict())
    x = points(64, 2)
    out = half(x)
    assert out.dtype == torch.float32
    assert not torch.equal(out, exact(x))
    torch.testing.assert_close(out, exact(x), rtol=0, atol=0.02)  # bfloat16 keeps 8 bits; values are below 1
    out.square().sum().backward()
    for name, p in half.named_parameters():
        assert p.grad is not None, name
        assert p.grad.dtype == torch.float32, name
        assert p.grad.abs().sum() > 0, name


def test_table_iv_encoder_has_its_parameters() -> None:
    def parameters(encoder: GaussianMLPEncoder) -> int:
        return sum(p.numel() for p in encoder.parameters())

    hidden = (2 * 256 + 256) + (256 * 256 + 256)
    head = 256 * 2 + 2
    assert parameters(GaussianMLPEncoder(2, 2)) == hidden + 2 * head
    assert parameters(GaussianMLPEncoder(2, 2, specific_dim=2)) == hidden + 4 * head


def test_encoder_flattens_and_agrees_with_its_heads() -> None:
    with isolated_rng(0):
        encoder = GaussianMLPEncoder(12, 3, specific_dim=5, widths=(8, 6))
    x = points(4, 3, 2, 2)
    features = encoder.features(x)
    assert encoder.feature_dim == 6
    assert features.shape == (4, 6)
    assert torch.equal(features, encoder.features(x.flatten(1)))
    mean, log_variance = encoder(x)
    torch.testing.assert_close(mean, features @ encoder.mean.weight.T + encoder.mean.bias)
    torch.testing.assert_close(log_variance, features @ encoder.log_variance.weight.T + encoder.log_variance.bias)
    assert [h.shape for h in encoder.specific_heads(features)] == [(4, 5), (4, 5)]


def test_every_parameter_gets_a_gradient() -> None:
    with isolated_rng(0):
        encoder = GaussianMLPEncoder(2, 2, specific_dim=2, widths=(16, 16))
    features = encoder.features(points(32, 2))
    sum(h.square().sum() for h in (*encoder.heads(features), *encoder.specific_heads(features))).backward()
    for name, p in encoder.named_parameters():
        assert p.grad is not None, name
        assert p.grad.abs().sum() > 0, name


def test_unknown_output_is_named() -> None:
    with pytest.raises(ValueError, match="output is 'tanh', must be 'linear' or 'sigmoid'"):
        MLP(2, (4,), 2, output="tanh")


def test_output_layers_on_bfloat16_features() -> None:
    """Values of the layers in float32, gradients those of float32 up to the rounding of bfloat16."""
    torch.manual_seed(0)
    layers = [nn.Linear(64, 6), nn.Linear(64, 3)]
    features = torch.randn(5, 7, 64).to(torch.bfloat16)
    low, full = features.clone().requires_grad_(), features.float().requires_grad_()
    found, expected = output_linear(low, *layers), [layer(full) for layer in layers]
    parameters = [p for layer in layers for p in layer.parameters()]
    gradients = []
    for outputs, inputs in ((found, low), (expected, full)):
        assert all(y.dtype is torch.float32 for y in outputs)
        total = sum((y * y.detach().cos()).sum() for y in outputs)
        gradients.append(torch.autograd.grad(total, [inputs, *parameters]))
    for y, z in zip(found, expected, strict=True):
        torch.testing.assert_close(y, z, rtol=1e-5, atol=1e-5)
    for a, b in zip(*gradients, strict=True):
        assert float((a.float() - b).norm() / b.norm()) < 0.01
    assert gradients[0][0].dtype is torch.bfloat16
    assert gradients[0][1].dtype is torch.float32


def test_output_layers_on_float32_features_are_the_layers() -> None:
    layers, x = [nn.Linear(4, 2), nn.Linear(4, 3)], torch.randn(5, 4)
    for y, layer in zip(output_linear(x, *layers), layers, strict=True):
        assert torch.equal(y, layer(x))
