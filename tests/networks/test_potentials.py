import re

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from repro.networks.cost import count_parameters
from repro.networks.potentials import PairwisePotential, UnaryPotential


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make(kind, *args, seed: int = 0, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind(*args, **settings)


def by_hand(potential, x: Tensor) -> Tensor:
    """ReLU layers and a linear output on concatenated latents and one-hot positions."""
    for layer in (*potential.first.layers, *potential.rest.hidden.layers):
        x = F.relu(layer(x))
    return potential.rest.linear(x).squeeze(-1)


@pytest.mark.parametrize("lead", [(), (6,), (3, 6)])
def test_unary_reads_the_latent_and_its_position(lead):
    f = make(UnaryPotential, 4, 3, widths=(16, 8))
    blocks = [draw(*lead, 4, seed=k) for k in range(2)]
    value = f(blocks, [2, 0])
    assert value.shape == (*lead, 2)
    for k, position in enumerate([2, 0]):
        one_hot = torch.eye(3)[position].expand(*lead, 3)
        torch.testing.assert_close(value[..., k], by_hand(f, torch.cat([blocks[k], one_hot], -1)))
    assert not torch.allclose(f([blocks[0]], [0]), f([blocks[0]], [1]))


@pytest.mark.parametrize("lead", [(), (6,), (3, 6)])
def test_pairwise_reads_both_latents_and_both_positions(lead):
    f = make(PairwisePotential, 4, 3, widths=(16, 8, 8))
    left, right = ([draw(*lead, 4, seed=k + s) for k in range(3)] for s in (0, 10))
    pairs = [(0, 1), (0, 2), (1, 2)]
    value = f(left, right, pairs)
    assert value.shape == (*lead, 3)
    for k, (i, j) in enumerate(pairs):
        one_hots = [torch.eye(3)[p].expand(*lead, 3) for p in (i, j)]
        torch.testing.assert_close(value[..., k], by_hand(f, torch.cat([left[k], right[k], *one_hots], -1)))


def test_the_paper_s_networks():
    """Appendix D.2 with eight latents and three modalities: three hidden layers of 1024 and a linear output."""
    hidden = 2 * (1024 * 1024 + 1024) + 1025
    assert count_parameters(UnaryPotential(8, 3)) == (8 + 3 + 1) * 1024 + hidden
    assert count_parameters(PairwisePotential(8, 3)) == (2 * (8 + 3) + 1) * 1024 + hidden


def test_gradients_reach_latents_and_parameters():
    f, z = make(PairwisePotential, 4, 3, widths=(16, 16)), draw(5, 4).requires_grad_()
    f([z], [2 * z], [(0, 2)]).sum().backward()
    assert z.grad.abs().min() > 0
    assert all(p.grad is not None for p in f.parameters())


def test_bfloat16_hidden_layers_stay_close_and_resolve_the_latents():
    exact = make(UnaryPotential, 4, 3, widths=(64, 64, 64))
    rounded = make(UnaryPotential, 4, 3, widths=(64, 64, 64), hidden_dtype=torch.bfloat16)
    z = draw(500, 4)
    with torch.no_grad():
        one, two = exact([z], [1]), rounded([z], [1])
        assert two.dtype == torch.float32
        assert 0 < (one - two).square().mean().sqrt() < 0.1 * one.std()
        # Between 1 and 1.0078 there is no number of bfloat16 to tell these latents apart by.
        near = 1 + torch.linspace(0, 0.0078, 100).unsqueeze(-1).expand(-1, 4)
        assert near.bfloat16().unique().numel() == 2
        assert rounded([near], [1]).unique().numel() > 10


def test_errors_are_one_line_and_name_the_parameter():
    f, g, z = UnaryPotential(4, 3, widths=(8,)), PairwisePotential(4, 3, widths=(8,)), draw(5, 4)
    for match, call in {
        "widths is empty": lambda: UnaryPotential(4, 3, widths=()),
        "blocks have shapes [(5, 3)], one shape (*lead, 4)": lambda: f([z[:, :3]], [0]),
        "blocks have shapes [(4, 4), (5, 4)]": lambda: g([z], [z[1:]], [(0, 1)]),
        "positions [3] are outside 0 to 2": lambda: f([z], [3]),
        "positions [-1] are outside": lambda: g([z], [z], [(-1, 0)]),
    }.items():
        with pytest.raises(ValueError, match=re.escape(match)) as caught:
            call()
        assert "\n" not in str(caught.value)
