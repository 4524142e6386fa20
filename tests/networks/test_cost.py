"""Operation counts against formulas and against a count on real tensors; layers in call order."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from repro.networks.cost import count_flops, count_parameters, trace_layers
from repro.networks.mlp import MLP
from repro.networks.resnet import ResidualBlock, ResNetDecoder


def test_linear_costs_two_products_forward_and_twice_that_backward() -> None:
    flops = count_flops(nn.Linear(3, 5), (3,), batch_size=7)
    assert flops.forward == 2 * 3 * 5 * 7
    assert flops.backward == 2 * flops.forward  # one product for the weights, one for the input
    assert flops.total == 3 * flops.forward
    assert flops.per_sample == 3 * 2 * 3 * 5


def test_without_the_input_gradient_the_first_layer_saves_one_product() -> None:
    flops = count_flops(nn.Linear(3, 5), (3,), batch_size=7, input_gradient=False)
    assert flops.backward == flops.forward
    deep = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4))
    saved = count_flops(deep, (3,)).total - count_flops(deep, (3,), input_gradient=False).total
    assert saved == 2 * 3 * 5


def test_mlp_is_the_sum_of_its_layers() -> None:
    flops = count_flops(MLP(2, (256, 256), 2), (2,), batch_size=500)
    assert flops.forward == 500 * 2 * (2 * 256 + 256 * 256 + 256 * 2)
    assert flops.total == 3 * flops.forward


def test_convolution_costs_its_kernel_at_every_pixel() -> None:
    flops = count_flops(nn.Conv2d(3, 8, 3, padding=1), (3, 6, 5), batch_size=2)
    assert flops.forward == 2 * 2 * 9 * 3 * 8 * 6 * 5
    assert flops.total == 3 * flops.forward


def test_count_equals_that_on_real_tensors() -> None:
    decoder = ResNetDecoder((2, 8, 8), 3, start_size=2, channels=4, max_channels=8)
    z = torch.zeros(5, 3, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        decoder(z).sum().backward()
    assert count_flops(decoder, (3,), batch_size=5).total == counter.get_total_flops()


def test_cost_is_proportional_to_the_batch() -> None:
    decoder = ResNetDecoder((2, 8, 8), 3, start_size=2, channels=4, max_channels=8)
    one, many = count_flops(decoder, (3,)), count_flops(decoder, (3,), batch_size=32)
    assert many.total == 32 * one.total
    assert many.per_sample == one.per_sample == one.total


def test_frozen_module_has_no_backward_cost() -> None:
    layer = nn.Linear(3, 5).requires_grad_(False)
    assert count_flops(layer, (3,), input_gradient=False).backward == 0
    assert count_flops(layer, (3,)).backward == 2 * 3 * 5


def test_counting_leaves_gradients_buffers_and_random_state() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    state, random = {k: v.clone() for k, v in module.state_dict().items()}, torch.get_rng_state()
    count_flops(module, (3,), batch_size=2)
    assert all(p.grad is None for p in module.parameters())
    assert all(torch.equal(v, state[k]) for k, v in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def test_all_outputs_are_differentiated() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 5), nn.Linear(3, 4)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.a(x), self.b(x)

    assert count_flops(Two(), (3,)).total == 3 * 2 * 3 * (5 + 4)


def test_parameters_are_counted_once_and_only_where_trained() -> None:
    shared = nn.Linear(3, 3)
    assert count_parameters(nn.Sequential(shared, nn.ReLU(), shared)) == 12
    shared.bias.requires_grad_(False)
    assert count_parameters(shared) == 9


def test_layers_are_traced_in_call_order() -> None:
    with torch.device("meta"):
        module, block = MLP(2, (4, 3), 5), ResidualBlock(2, 3)
    calls = trace_layers(module, (2,))
    assert [c.name for c in calls] == [
        "hidden.layers.0",
        "hidden.activation",
        "hidden.layers.1",
        "hidden.activation",
        "linear",
    ]
    assert [c.shape for c in calls] == [(4,), (4,), (3,), (3,), (5,)]
    assert not any(m._forward_hooks for m in module.modules())
    parts = [c.name for c in trace_layers(nn.Sequential(block), (2, 4, 4))]
    assert parts == ["0.activation", "0.conv_0", "0.activation", "0.conv_1", "0.shortcut"]
    assert [c.shape for c in trace_layers(nn.Sequential(block), (2, 4, 4), whole=(ResidualBlock,))] == [(3, 4, 4)]


def test_bad_calls_are_named() -> None:
    with pytest.raises(ValueError, match="batch_size is 0"):
        count_flops(nn.Linear(3, 5), (3,), batch_size=0)
    with pytest.raises(ValueError, match="on cpu, layers are traced on the meta device"):
        trace_layers(nn.Linear(3, 5), (3,))
