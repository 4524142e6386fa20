"""Encoder, decoder and discriminator of the VAEGAN that draws correlated MNIST pairs (CoVAE, section 3).

The layers are those of pythae's MNIST benchmarks, which the paper names: ``Encoder_ResNet_VAE_MNIST``,
``Decoder_ResNet_AE_MNIST`` (printed as ``Decoder_ResNet_VAE_MNIST``), ``Discriminator_Conv_MNIST``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro.networks.construction import rebuildable

__all__ = ["Decoder", "Discriminator", "Encoder", "ResidualBlock"]

IMAGE = (1, 28, 28)


class ResidualBlock(nn.Module):
    r"""Two convolutions around a bottleneck, :math:`x + W_1 a(W_3 a(x))` with ReLU :math:`a`.

    Arguments:
        channels: Channels of input and output.
        bottleneck: Channels between the 3 x 3 and the 1 x 1 convolution.
    """

    def __init__(self, channels: int, bottleneck: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, bottleneck, 3, padding=1)
        self.projection = nn.Conv2d(bottleneck, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(batch, channels, height, width)`` to the same shape."""
        return x + self.projection(F.relu(self.convolution(F.relu(x))))


@rebuildable
class Encoder(nn.Module):
    """Three strided convolutions without activations between them, two residual blocks, two linear heads.

    Arguments:
        latent_dim: Number of latents D.
    """

    def __init__(self, latent_dim: int = 10) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 64, 4, stride=2, padding=1),
            nn.Conv2d(64, 128, 4, stride=2, padding=1),
            nn.Conv2d(128, 128, 3, stride=2, padding=1),
            ResidualBlock(128, 32),
            ResidualBlock(128, 32),
        )
        self.mean = nn.Linear(128 * 4 * 4, latent_dim)
        self.log_variance = nn.Linear(128 * 4 * 4, latent_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, each ``(batch, latent_dim)``, of images ``(batch, 1, 28, 28)``."""
        h = self.body(_checked(x)).flatten(1)
        return self.mean(h), self.log_variance(h)


@rebuildable
class Decoder(nn.Module):
    """A linear layer to 128 x 4 x 4, three transposed convolutions, two residual blocks after the first, a sigmoid.

    Arguments:
        latent_dim: Number of latents D.
    """

    def __init__(self, latent_dim: int = 10) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.linear = nn.Linear(latent_dim, 128 * 4 * 4)
        self.body = nn.Sequential(
            nn.ConvTranspose2d(128, 128, 3, stride=2, padding=1),
            ResidualBlock(128, 32),
            ResidualBlock(128, 32),
            nn.ReLU(),
            nn.ConvTranspose2d(128, 64, 3, stride=2, padding=1, output_padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(64, 1, 3, stride=2, padding=1, output_padding=1),
        )

    def forward(self, z: Tensor) -> Tensor:
        """Images ``(batch, 1, 28, 28)`` in [0, 1] from latents ``(batch, latent_dim)``.

        Raises:
            ValueError: If the latents have another size.
        """
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            raise ValueError(f"latents of shape {tuple(z.shape)}, expected (batch, {self.latent_dim})")
        return torch.sigmoid(self.body(self.linear(z).unflatten(1, (128, 4, 4))))


class Discriminator(nn.Module):
    """Four strided convolutions (ReLU, tanh, ReLU, ReLU) and a linear logit.

    The features of its third convolution are what the VAEGAN compares reconstructions by. The last convolution sees a
    3 x 3 image in zeros through a 4 x 4 window at one place, so it is computed as the linear map that it is: equal
    numbers, several times as fast.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 128, 4, stride=2, padding=1)
        self.second = nn.Conv2d(128, 256, 4, stride=2, padding=1)
        self.third = nn.Conv2d(256, 512, 4, stride=2, padding=1)
        self.fourth = nn.Conv2d(512, 1024, 4, stride=2, padding=1)
        self.linear = nn.Linear(1024, 1)

    def features(self, x: Tensor) -> Tensor:
        """Activations of the third convolution, ``(batch, 512, 3, 3)``, of images ``(batch, 1, 28, 28)``."""
        h = F.relu(self.first(_checked(x)))
        return F.relu(self.third(torch.tanh(self.second(h))))

    def logits(self, features: Tensor) -> Tensor:
        """Logit that an image is real, ``(batch,)``, from :meth:`features`."""
        h = F.linear(features.flatten(1), self.fourth.weight[:, :, 1:, 1:].flatten(1), self.fourth.bias)
        return self.linear(F.relu(h)).squeeze(1)

    def forward(self, x: Tensor) -> Tensor:
        """Logit that an image is real, ``(batch,)``."""
        return self.logits(self.features(x))


def _checked(x: Tensor) -> Tensor:
    if tuple(x.shape[1:]) != IMAGE:
        raise ValueError(f"images of shape {tuple(x.shape)}, expected (batch, 1, 28, 28)")
    return x
