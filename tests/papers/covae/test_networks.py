"""Networks of CoVAE's experiments and of the comparisons: GMRF MCVAE's residual ones behind the same names."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from repro.datasets.base import ModalitySpec
from repro.model import isolated_rng
from repro.networks.resnet import ResNetDecoder, ResNetEncoder
from repro.papers.covae.networks import Networks, build_networks

SPECS = {"m0": ModalitySpec((3, 28, 28), "image", (0.0, 1.0)), "m1": ModalitySpec((3, 28, 28), "image", (0.0, 1.0))}
SIZES = dict.fromkeys(SPECS, 3)


def residual(**options: Any) -> Networks:
    with isolated_rng(0):
        return build_networks("residual", SPECS, encoded=SIZES, decoded=SIZES, joint_outputs=4, **options)


def images() -> dict[str, torch.Tensor]:
    return {m: torch.rand(5, *s.shape, generator=torch.Generator().manual_seed(1)) for m, s in SPECS.items()}


def test_residual_networks_are_those_of_the_images_sizes() -> None:
    made, x = residual(widths=(2, 4, 4)), images()
    with isolated_rng(0):
        encoder = ResNetEncoder((3, 28, 28), 3, start_size=7, channels=2, max_channels=4, channels_last=True)
    torch.testing.assert_close(made.encoders["m0"](x["m0"]), encoder(x["m0"]))
    decoder = ResNetDecoder((3, 28, 28), 3, start_size=7, channels=2, max_channels=4, channels_last=True)
    decoder.load_state_dict(made.decoders["m1"].state_dict())
    z = torch.randn(5, 3, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(made.decoders["m1"](z), decoder(z))
    assert made.joint is not None
    assert made.joint(x).shape == (5, 4)
    assert not any("log_variance" in name or "mean" in name for name, _ in made.joint.named_parameters())


def test_low_precision_is_of_the_hidden_layers_alone() -> None:
    made, exact, x = residual(widths=(2, 4), hidden_dtype="bfloat16"), residual(widths=(2, 4)), images()
    assert made.joint is not None
    assert exact.joint is not None
    pairs = [(a, b) for m in SPECS for a, b in zip(made.encoders[m](x[m]), exact.encoders[m](x[m]), strict=True)]
    pairs.append((made.joint(x), exact.joint(x)))
    z = torch.randn(5, 3, generator=torch.Generator().manual_seed(2))
    pairs += [(made.decoders[m](z), exact.decoders[m](z)) for m in SPECS]
    for low, whole in pairs:
        assert low.dtype == torch.float32
        assert not torch.equal(low, whole)
        torch.testing.assert_close(low, whole, atol=0.05, rtol=0.05)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"widths": (2, 6)}, "widths that double up to the last"),
        ({"widths": ()}, "widths that double up to the last"),
        ({"widths": (2, 4, 8, 16)}, r"not \(2, 4, 8, 16\) for images of shape \(3, 28, 28\)"),
        ({"widths": (2, 4), "hidden_dtype": "float16"}, "hidden_dtype is 'float16', must be 'float32' or 'bfloat16'"),
    ],
)
def test_what_residual_networks_cannot_have_is_said(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        residual(**options)
