"""Residual convolutional encoders and decoders (GMRF MCVAE Tables V to VIII)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from repro.networks.construction import rebuildable
from repro.networks.mlp import output_linear

__all__ = [
    "RESNETS",
    "ResNetDecoder",
    "ResNetEncoder",
    "ResNetSettings",
    "ResidualBlock",
    "resnet_decoder",
    "resnet_encoder",
]

NEGATIVE_SLOPE = 0.2  # Tables V to VII


class _Conv2d(nn.Conv2d):
    """A convolution in the precision of its input; parameters stay in float32."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))


def _prepared(x: Tensor, hidden_dtype: torch.dtype | None, channels_last: bool) -> Tensor:
    """Maps ``(batch, C, H, W)`` in the type and the memory layout that the hidden layers compute in."""
    layout = torch.channels_last if channels_last else torch.preserve_format
    return x.to(dtype=hidden_dtype or x.dtype, memory_format=layout)


class ResidualBlock(nn.Module):
    r"""Two 3 x 3 convolutions, each after an activation, and a shortcut.

    .. math:: y = S x + 0.1 \, \big(K_1 * a(K_0 * a(x) + b_0) + b_1\big)

    with :math:`a` LeakyReLU(0.2) and :math:`S` a 1 x 1 convolution without bias where the numbers of channels differ,
    the identity elsewhere. The paper gives the layers; the order, the factor 0.1, the number of hidden channels
    (the smaller of the two) and the bias are those of the author's code.

    Arguments:
        in_channels: Channels of the input.
        out_channels: Channels of the output; height and width stay.

    Source: GMRF MCVAE, Table V.
    """

    residual_scale = 0.1

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        hidden = min(in_channels, out_channels)
        self.activation = nn.LeakyReLU(NEGATIVE_SLOPE)
        self.conv_0 = _Conv2d(in_channels, hidden, 3, padding=1)
        self.conv_1 = _Conv2d(hidden, out_channels, 3, padding=1)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.shortcut = _Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(batch, in_channels, height, width)`` to ``(batch, out_channels, height, width)``."""
        residual = self.conv_1(self.activation(self.conv_0(self.activation(x))))
        return self.shortcut(x) + self.residual_scale * residual


def _widths(shape: Sequence[int], start_size: int, channels: int, max_channels: int) -> list[int]:
    """Channels at each resolution, from the image's down to ``start_size``: nf, 2 nf, 4 nf, ... up to nf_max."""
    if len(shape) != 3 or shape[1] != shape[2]:
        raise ValueError(f"shape is {tuple(shape)}, must be (channels, size, size)")
    if not 1 <= channels <= max_channels:
        raise ValueError(f"channels is {channels}, must be between 1 and max_channels = {max_channels}")
    size, halvings = shape[1], 0
    while size > start_size and size % 2 == 0:
        size, halvings = size // 2, halvings + 1
    if size != start_size:
        raise ValueError(f"images of size {shape[1]} are not start_size = {start_size} times a power of two")
    return [min(channels * 2**k, max_channels) for k in range(halvings + 1)]


@rebuildable
class ResNetEncoder(nn.Module):
    r"""Residual encoder of an image, with linear heads for the mean and the log-variance.

    A 3 x 3 convolution to nf channels and one residual block; then, until the image has the size s0, average pooling
    (3 x 3, stride 2, padding 1) and a residual block that doubles the channels up to nf_max; last, one linear layer
    for each head on the flattened map of :math:`nf_0 s_0^2` values, :math:`nf_0 = \min(nf\,2^L, nf_{max})` after L
    poolings. It offers what :class:`~repro.networks.mlp.GaussianMLPEncoder` does; "FC Layer off-diag" belongs to the
    model, which feeds its global encoder with it.

    Arguments:
        shape: ``(channels, size, size)`` of the image.
        latent_dim: Latents of the shared heads.
        start_size: s0, the size of the last map.
        channels: nf, the channels at the image's resolution.
        max_channels: nf_max.
        specific_dim: Latents of the modality-specific heads ("FC Layers mod"), 0 for none.
        hidden_dtype: Type that all but the heads compute in, such as ``torch.bfloat16``; parameters stay in float32.
            None for float32 throughout.
        channels_last: Whether maps lie in memory with the channels innermost, which convolutions are faster on.

    Raises:
        ValueError: If the size is not s0 times a power of two, or nf exceeds nf_max.

    Source: GMRF MCVAE, Table VI.
    """

    def __init__(
        self,
        shape: Sequence[int],
        latent_dim: int,
        *,
        start_size: int,
        channels: int,
        max_channels: int,
        specific_dim: int = 0,
        hidden_dtype: torch.dtype | None = None,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        widths = _widths(shape, start_size, channels, max_channels)
        self.shape = tuple(shape)
        self.latent_dim, self.specific_dim = latent_dim, specific_dim
        self.hidden_dtype, self.channels_last = hidden_dtype, channels_last
        self.start_size, self.max_channels = start_size, max_channels
        self.stem = _Conv2d(shape[0], channels, 3, padding=1)
        blocks: list[nn.Module] = [ResidualBlock(channels, channels)]
        for before, after in pairwise(widths):
            blocks += [nn.AvgPool2d(3, stride=2, padding=1), ResidualBlock(before, after)]
        self.blocks = nn.Sequential(*blocks)
        self.flatten = nn.Flatten()
        self.feature_dim = widths[-1] * start_size**2
        self.mean = nn.Linear(self.feature_dim, latent_dim)
        self.log_variance = nn.Linear(self.feature_dim, latent_dim)
        if specific_dim:
            self.specific_mean = nn.Linear(self.feature_dim, specific_dim)
            self.specific_log_variance = nn.Linear(self.feature_dim, specific_dim)

    def features(self, x: Tensor) -> Tensor:
        """The flattened last map, ``(batch, feature_dim)`` in ``hidden_dtype``, of images ``(batch, *shape)``.

        Raises:
            ValueError: If the images have another shape.
        """
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"the encoder takes images of shape (batch, {self.shape}), got {tuple(x.shape)}")
        return self.flatten(self.blocks(self.stem(_prepared(x, self.hidden_dtype, self.channels_last))))

    def heads(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance ``(batch, latent_dim)`` from :meth:`features`."""
        mean, log_variance = output_linear(features, self.mean, self.log_variance)
        return mean, log_variance

    def specific_heads(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Modality-specific mean and log-variance ``(batch, specific_dim)``."""
        mean, log_variance = output_linear(features, self.specific_mean, self.specific_log_variance)
        return mean, log_variance

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the shared latents, each ``(batch, latent_dim)``."""
        return self.heads(self.features(x))


@rebuildable
class ResNetDecoder(nn.Module):
    r"""Residual decoder from a latent vector to an image, with a linear output.

    A linear layer to a map of :math:`nf_0 \times s_0 \times s_0`; residual blocks that halve the channels, each
    followed by nearest-neighbour upsampling by two; one more block at the image's resolution; an activation and a
    3 x 3 convolution.

    Arguments:
        shape: ``(channels, size, size)`` of the image.
        latent_dim: Size of the latent vector.
        start_size: s0, the size of the first map.
        channels: nf, the channels at the image's resolution.
        max_channels: nf_max.
        hidden_dtype: As in :class:`ResNetEncoder`, for all layers; the image is in float32 again.
        channels_last: As in :class:`ResNetEncoder`.
        background: Value that the output's bias starts at, in the data's unit; None for PyTorch's draw around 0. On
            images that are white but for thin lines a decoder that starts at 0 learns to make the white out of large
            latents, and draws black for latents from the prior.

    Raises:
        ValueError: If the size is not s0 times a power of two, or nf exceeds nf_max.

    Source: GMRF MCVAE, Table VII.
    """

    def __init__(
        self,
        shape: Sequence[int],
        latent_dim: int,
        *,
        start_size: int,
        channels: int,
        max_channels: int,
        hidden_dtype: torch.dtype | None = None,
        channels_last: bool = False,
        background: float | None = None,
    ) -> None:
        super().__init__()
        widths = _widths(shape, start_size, channels, max_channels)[::-1]
        self.shape = tuple(shape)
        self.latent_dim = latent_dim
        self.hidden_dtype, self.channels_last = hidden_dtype, channels_last
        self.start_size, self.max_channels = start_size, max_channels
        self.linear = nn.Linear(latent_dim, widths[0] * start_size**2)
        self.unflatten = nn.Unflatten(1, (widths[0], start_size, start_size))
        blocks: list[nn.Module] = []
        for before, after in pairwise(widths):
            blocks += [ResidualBlock(before, after), nn.Upsample(scale_factor=2, mode="nearest")]
        self.blocks = nn.Sequential(*blocks, ResidualBlock(channels, channels))
        self.activation = nn.LeakyReLU(NEGATIVE_SLOPE)
        self.output = _Conv2d(channels, shape[0], 3, padding=1)
        if background is not None:
            nn.init.constant_(self.output.bias, background)

    def forward(self, z: Tensor) -> Tensor:
        """Maps ``(*batch, latent_dim)`` to ``(*batch, *shape)``."""
        maps = self.unflatten(self.linear(z.reshape(-1, z.shape[-1])))
        maps = self.blocks(_prepared(maps, self.hidden_dtype, self.channels_last))
        images = self.output(self.activation(maps)).to(z.dtype)
        return images.reshape(*z.shape[:-1], *self.shape)


@dataclass(frozen=True)
class ResNetSettings:
    """The widths and sizes of one dataset's encoder and decoder (Table VIII).

    Arguments:
        shape: ``(channels, size, size)`` of the image.
        start_size: s0.
        channels: nf.
        encoder_max_channels: nf_max of the encoder.
        decoder_max_channels: nf_max of the decoder.
    """

    shape: tuple[int, int, int]
    start_size: int
    channels: int
    encoder_max_channels: int
    decoder_max_channels: int


RESNETS = {
    "polymnist": ResNetSettings((3, 28, 28), 7, 64, 1024, 512),
    "biked": ResNetSettings((1, 64, 64), 8, 32, 512, 256),
}


def _settings(dataset: str) -> ResNetSettings:
    if dataset not in RESNETS:
        raise ValueError(f"no residual network for dataset {dataset!r}, one of {', '.join(RESNETS)}")
    return RESNETS[dataset]


def resnet_encoder(dataset: str, *, latent_dim: int, specific_dim: int = 0) -> ResNetEncoder:
    """The encoder of one component of a dataset.

    Arguments:
        dataset: A name in ``RESNETS``.
        latent_dim: Latents of the shared heads.
        specific_dim: Latents of the modality-specific heads, 0 for none.

    Raises:
        ValueError: If the dataset has no residual network.

    Source: GMRF MCVAE, Tables VI and VIII.
    """
    s = _settings(dataset)
    return ResNetEncoder(
        s.shape,
        latent_dim,
        start_size=s.start_size,
        channels=s.channels,
        max_channels=s.encoder_max_channels,
        specific_dim=specific_dim,
    )


def resnet_decoder(dataset: str, *, latent_dim: int) -> ResNetDecoder:
    """The decoder of one component of a dataset.

    Arguments:
        dataset: A name in ``RESNETS``.
        latent_dim: Size of the latent vector, with the modality-specific latents where there are any.

    Raises:
        ValueError: If the dataset has no residual network.

    Source: GMRF MCVAE, Tables VII and VIII.
    """
    s = _settings(dataset)
    return ResNetDecoder(
        s.shape,
        latent_dim,
        start_size=s.start_size,
        channels=s.channels,
        max_channels=s.decoder_max_channels,
    )
