"""Encoders and decoders of omics layers as CoVAE's appendix D prints them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from repro.networks.construction import rebuildable

__all__ = ["OmicsDecoder", "OmicsEncoder"]


def _stack(sizes: Sequence[int], dropout: float) -> nn.Sequential:
    """For each size after the first: a linear layer, batch normalisation, ReLU and dropout."""
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers)


@rebuildable
class OmicsEncoder(nn.Module):
    """Fully connected layers with batch normalisation, ReLU and dropout, then a head for mean and log-variance each.

    Arguments:
        in_features: Number of features of the layer.
        latent_dim: Number of latents.
        widths: Sizes of the hidden layers: (512, 256, 128) for mRNA, (128, 64) for miRNA.
        dropout: Probability that a hidden unit is dropped in training.

    Source: CoVAE, appendix D.
    """

    def __init__(
        self, in_features: int, latent_dim: int, *, widths: Sequence[int] = (512, 256, 128), dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.feature_dim = widths[-1]
        self.encoder = _stack([in_features, *widths], dropout)
        self.mean = nn.Linear(widths[-1], latent_dim)
        self.log_variance = nn.Linear(widths[-1], latent_dim)

    def features(self, x: Tensor) -> Tensor:
        """The last hidden layer, ``(batch, widths[-1])``, of ``(batch, in_features)``."""
        return self.encoder(x.flatten(1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, each ``(batch, latent_dim)``."""
        h = self.features(x)
        return self.mean(h), self.log_variance(h)


@rebuildable
class OmicsDecoder(nn.Module):
    """Fully connected layers with batch normalisation, ReLU and dropout, then a linear layer.

    Arguments:
        latent_dim: Number of latents.
        out_features: Number of features of the layer.
        widths: Sizes of the hidden layers: (128, 256, 512) for mRNA, (64, 128) for miRNA.
        dropout: Probability that a hidden unit is dropped in training.

    Source: CoVAE, appendix D.
    """

    def __init__(
        self, latent_dim: int, out_features: int, *, widths: Sequence[int] = (128, 256, 512), dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.decoder = _stack([latent_dim, *widths], dropout)
        self.output = nn.Linear(widths[-1], out_features)

    def forward(self, z: Tensor) -> Tensor:
        """Features ``(batch, out_features)`` of latents ``(batch, latent_dim)``."""
        return self.output(self.decoder(z))
