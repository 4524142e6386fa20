"""Appendix D of CoVAE: the layers of encoders and decoders, printed from the modules that are built."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from repro.experiment import Results, artifact
from repro.networks.cost import LayerCall, count_parameters, trace_layers
from repro.networks.omics import OmicsDecoder, OmicsEncoder
from repro.networks.vaegan import Decoder, Encoder, ResidualBlock
from repro.report.plain_tables import NONE, PlainTable

__all__ = ["architectures"]

MRNA, MIRNA, LATENTS, IMAGE_LATENTS = 3217, 383, 32, 20  # as appendix D prints them
WIDE, NARROW = (512, 256, 128), (128, 64)
LINEAR, BATCH_NORM, DROPOUT = "fully connected", "batch normalisation", "dropout"


def _size(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


def _text(layer: nn.Module) -> str:
    if isinstance(layer, nn.Linear):
        return f"{LINEAR} {layer.in_features} → {layer.out_features}"
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        kind = "convolution" if isinstance(layer, nn.Conv2d) else "transposed convolution"
        return (
            f"{layer.kernel_size[0]} × {layer.kernel_size[1]} {kind} {layer.in_channels} → {layer.out_channels}, "
            f"stride {layer.stride[0]}"
        )
    if isinstance(layer, ResidualBlock):
        inner = layer.convolution
        return (
            f"residual block {inner.in_channels} → {inner.out_channels} → {inner.in_channels}, 3 × 3 and 1 × 1, "
            "ReLU before each"
        )
    if isinstance(layer, nn.BatchNorm1d):
        return BATCH_NORM
    if isinstance(layer, nn.Dropout):
        return f"{DROPOUT} {layer.p:g}"
    return type(layer).__name__


def _rows(part: str, calls: Sequence[LayerCall]) -> list[tuple[str, ...]]:
    return [
        (
            part if i == 0 else "",
            _text(c.layer),
            _size(c.shape),
            str(count_parameters(c.layer)) if count_parameters(c.layer) else NONE,
        )
        for i, c in enumerate(calls)
    ]


def _table(title: str, parts: dict[str, tuple[nn.Module, tuple[int, ...]]], notes: tuple[str, ...]) -> PlainTable:
    rows: list[tuple[str, ...]] = []
    for part, (module, shape) in parts.items():
        rows += _rows(part, trace_layers(module.eval(), shape, whole=(ResidualBlock,)))
    return PlainTable(title, ("part", "layer", "output", "parameters"), tuple(rows), notes)


@artifact("tableD")
def architectures(results: Results) -> list[PlainTable]:
    """The networks on correlated MNIST and on MLOmics, layer by layer.

    Source: CoVAE, appendix D.
    """
    with torch.device("meta"):
        images = {
            "encoder": (Encoder(IMAGE_LATENTS), (1, 28, 28)),
            "decoder": (Decoder(IMAGE_LATENTS), (IMAGE_LATENTS,)),
        }
        omics = {
            "mRNA encoder": (OmicsEncoder(MRNA, LATENTS, widths=WIDE), (MRNA,)),
            "mRNA decoder": (OmicsDecoder(LATENTS, MRNA, widths=WIDE[::-1]), (LATENTS,)),
            "miRNA encoder": (OmicsEncoder(MIRNA, LATENTS, widths=NARROW), (MIRNA,)),
            "miRNA decoder": (OmicsDecoder(LATENTS, MIRNA, widths=NARROW[::-1]), (LATENTS,)),
        }
        notes = (
            "The last two fully connected layers of an encoder give the mean and the log-variance.",
            "Printed with 20 latents, those of the models that share them; CoVAE's have ten for each modality. The "
            "decoder ends in a sigmoid, and a ReLU follows each transposed convolution but the first and the last.",
        )
        more = (
            "Printed with 32 latents; CoVAE's encoders give, and its decoders take, those of their own modality.",
            "The paper prints no joint encoder. Here CoVAE and JMVAE have the same: encoders of its own for all "
            "modalities up to their last hidden layers, one fully connected layer of 256 with ReLU over these, and a "
            "linear layer.",
            "On the small set of breast tumours, of 200 and 184 features, both modalities have miRNA's widths.",
        )
        return [
            _table("Appendix D. Networks on correlated MNIST", images, notes),
            _table("Appendix D. Networks on MLOmics", omics, more),
        ]
