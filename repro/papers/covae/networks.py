"""Encoders, joint encoders and decoders of CoVAE's experiments and of the comparisons, the same for all models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from repro.datasets.base import ModalitySpec, check_name
from repro.networks.construction import rebuildable
from repro.networks.mlp import MLP, GaussianMLPEncoder
from repro.networks.omics import OmicsDecoder, OmicsEncoder
from repro.networks.resnet import ResNetDecoder, ResNetEncoder
from repro.networks.vaegan import Decoder, Encoder

__all__ = ["NETWORKS", "JointEncoder", "Networks", "build_networks"]

NETWORKS = ("resnet", "omics", "mlp", "residual")
# Appendix D prints the widths of MLOmics' layers; narrower layers, of under a thousand features, have miRNA's.
WIDE, NARROW = (512, 256, 128), (128, 64)
WIDE_FEATURES = 1000


class _Image(Encoder):
    """Appendix D's encoder of images, whose last hidden layer a joint encoder can take."""

    feature_dim = 128 * 4 * 4

    def features(self, x: Tensor) -> Tensor:
        return self.body(x).flatten(1)


class _Flat(GaussianMLPEncoder):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.heads(self.features(x.flatten(1)))


class _Residual(ResNetEncoder):
    """GMRF MCVAE's encoder of images, whose last map others than its own heads can take in any precision."""

    def features(self, x: Tensor) -> Tensor:
        return super().features(x).float()


@rebuildable
class JointEncoder(nn.Module):
    """Encoders of their own for all modalities, whose last hidden layers are joined by one more layer.

    Arguments:
        bodies: Modality to a network with ``features`` and ``feature_dim``; their own heads are not used.
        hidden: Size of the joining layer.
        outputs: Numbers that it gives.
        headless: Whether the bodies, which nothing else uses then, lose their heads ``mean`` and ``log_variance``.

    Source: CoVAE, section 2.2, "a joint encoder parameterizes μ and w"; the paper does not print it.
    """

    def __init__(self, bodies: Mapping[str, nn.Module], hidden: int, outputs: int, *, headless: bool = False) -> None:
        super().__init__()
        self.bodies = nn.ModuleDict(bodies)
        for body in bodies.values() if headless else ():
            for head in ("mean", "log_variance"):
                delattr(body, head)
        self.head = MLP(sum(b.feature_dim for b in bodies.values()), (hidden,), outputs)
        # The first posteriors are then near the prior, whatever the size of the hidden layer.
        with torch.no_grad():
            self.head.linear.weight.mul_(0.1)

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Maps every modality's ``(batch, *shape)`` to ``(batch, outputs)``."""
        return self.head(torch.cat([body.features(batch[m]) for m, body in self.bodies.items()], -1))


@dataclass(frozen=True)
class Networks:
    """What a model is made of.

    Arguments:
        encoders: Modality to network that gives a mean and a log-variance.
        decoders: Modality to network that gives the modality, flattened or not.
        joint: The joint encoder, None where the model has none.
    """

    encoders: dict[str, nn.Module]
    decoders: dict[str, nn.Module]
    joint: JointEncoder | None


def _widths(features: int) -> tuple[int, ...]:
    return WIDE if features >= WIDE_FEATURES else NARROW


def _channels(spec: ModalitySpec, options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of GMRF MCVAE's residual networks with these channels at the image's size, at half of it, ..."""
    widths, shape = options["widths"], spec.shape
    doubled = [min(widths[0] * 2**k, widths[-1]) for k in range(len(widths))] if widths else None
    unit = 2 ** (len(widths) - 1) if widths else 1
    if list(widths) != doubled or len(shape) != 3 or shape[1] != shape[2] or shape[1] % unit:
        raise ValueError(
            f"residual networks take square images, and widths that double up to the last, one for each halving of the "
            f"size beside the first; not {widths} for images of shape {shape}"
        )
    dtype = options["hidden_dtype"]
    if dtype not in ("float32", "bfloat16"):
        raise ValueError(f"hidden_dtype is {dtype!r}, must be 'float32' or 'bfloat16'")
    return {
        "start_size": shape[1] // unit,
        "channels": widths[0],
        "max_channels": widths[-1],
        "hidden_dtype": None if dtype == "float32" else torch.bfloat16,
        "channels_last": True,
    }


def _encoder(kind: str, spec: ModalitySpec, latents: int, options: Mapping[str, Any]) -> nn.Module:
    if kind == "resnet":
        encoder = _Image(latents)
    elif kind == "residual":
        encoder = _Residual(spec.shape, latents, **_channels(spec, options))
    elif kind == "omics":
        encoder = OmicsEncoder(spec.numel, latents, widths=_widths(spec.numel), dropout=options["dropout"])
    else:
        encoder = _Flat(spec.numel, latents, widths=options["widths"])
    return encoder


def _decoder(kind: str, spec: ModalitySpec, latents: int, options: Mapping[str, Any]) -> nn.Module:
    if kind == "resnet":
        return Decoder(latents)
    if kind == "residual":
        return ResNetDecoder(spec.shape, latents, **_channels(spec, options))
    if kind == "omics":
        widths = _widths(spec.numel)[::-1]
        return OmicsDecoder(latents, spec.numel, widths=widths, dropout=options["dropout"])
    output = "sigmoid" if spec.kind == "image" else "linear"
    return MLP(latents, tuple(options["widths"])[::-1], spec.numel, output=output)


def build_networks(
    kind: str,
    modalities: Mapping[str, ModalitySpec],
    *,
    encoded: Mapping[str, int],
    decoded: Mapping[str, int],
    joint_outputs: int = 0,
    widths: Sequence[int] = (256, 256),
    dropout: float = 0.1,
    joint_hidden: int = 256,
    hidden_dtype: str = "float32",
) -> Networks:
    """The networks of a model.

    Arguments:
        kind: ``"resnet"`` and ``"omics"`` are appendix D's; ``"mlp"`` are fully connected ones of reduced profiles;
            ``"residual"`` are GMRF MCVAE's of images (its Tables V to VII), with linear outputs.
        modalities: Name to :class:`ModalitySpec`.
        encoded: Modality to the latents that its encoder gives.
        decoded: Modality to the latents that its decoder takes.
        joint_outputs: Numbers that the joint encoder gives, 0 for none.
        widths: Hidden layers of ``"mlp"``; its decoders have them reversed. Of ``"residual"`` the channels at the
            image's size, at half of it, a quarter, ..., each twice the one before or the last.
        dropout: Of ``"omics"``.
        joint_hidden: Size of the layer that joins the joint encoder's parts.
        hidden_dtype: What the layers of ``"residual"`` compute in, ``"float32"`` or ``"bfloat16"``; parameters and what
            the networks give are in float32.

    Raises:
        ValueError: If the kind or the precision is unknown, or images have another shape than the networks take.
    """
    if kind not in NETWORKS:
        raise ValueError(f"unknown networks {kind!r}; one of {', '.join(NETWORKS)}")
    for m in modalities:
        check_name(m)
    if kind == "resnet" and (other := {m: s.shape for m, s in modalities.items() if s.shape != (1, 28, 28)}):
        raise ValueError(f"the resnet networks take images of shape (1, 28, 28), not {other}")
    options = {"widths": tuple(widths), "dropout": dropout, "hidden_dtype": hidden_dtype}
    encoders = {m: _encoder(kind, s, encoded[m], options) for m, s in modalities.items()}
    decoders = {m: _decoder(kind, s, decoded[m], options) for m, s in modalities.items()}
    joint = None
    if joint_outputs:
        bodies = {m: _encoder(kind, s, 1, options) for m, s in modalities.items()}
        joint = JointEncoder(bodies, joint_hidden, joint_outputs, headless=True)
    return Networks(encoders, decoders, joint)
