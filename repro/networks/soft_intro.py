"""Residual convolutional encoders and decoders in the style of Soft-IntroVAE (SBM-VAE, appendices A.2 and A.9)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from repro.networks.construction import rebuildable

__all__ = ["NormalisedResidualBlock", "SoftIntroDecoder", "SoftIntroEncoder"]

NEGATIVE_SLOPE = 0.2


class NormalisedResidualBlock(nn.Module):
    r"""Two 3 x 3 convolutions with batch normalisation, and a shortcut.

    .. math:: y = a\big(S x + N_1 (K_1 * a(N_0 (K_0 * x)))\big)

    with :math:`a` LeakyReLU(0.2), N batch normalisation and S a 1 x 1 convolution where the numbers of channels differ,
    the identity elsewhere.

    Arguments:
        in_channels: Channels of the input.
        out_channels: Channels of the output; height and width stay.

    Source: Daniel and Tamar, "Soft-IntroVAE", 2021, appendix on architectures.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.conv_0 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm_0 = nn.BatchNorm2d(out_channels)
        self.conv_1 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm_1 = nn.BatchNorm2d(out_channels)
        self.activation = nn.LeakyReLU(NEGATIVE_SLOPE)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(batch, in_channels, height, width)`` to ``(batch, out_channels, height, width)``."""
        residual = self.norm_1(self.conv_1(self.activation(self.norm_0(self.conv_0(x)))))
        return self.activation(self.shortcut(x) + residual)


def _padded_size(shape: Sequence[int], widths: Sequence[int]) -> tuple[int, int]:
    """Height and width after padding to a multiple of 2 to the power of the number of halvings."""
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"shape is {tuple(shape)}, must be (channels, height, width)")
    if not widths or min(widths) < 1:
        raise ValueError(f"widths are {tuple(widths)}, must be positive, one for each halving of the image")
    unit = 2 ** len(widths)
    return -(-shape[1] // unit) * unit, -(-shape[2] // unit) * unit


def _channels_innermost(maps: Tensor) -> Tensor:
    """The same maps in the memory layout that convolutions and pooling of few channels are fastest on."""
    return maps.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)  # several seeds stacked have no channels_last


@rebuildable
class SoftIntroEncoder(nn.Module):
    r"""Encoder of an image to a vector.

    A 5 x 5 convolution with batch normalisation and average pooling; a residual block and average pooling for each
    further width; one more residual block; a linear layer. Images are padded with zeros to a multiple of
    :math:`2^L`, L the number of widths, such as 28 x 28 to 32 x 32.

    Arguments:
        shape: ``(channels, height, width)`` of the image.
        outputs: Size of the vector; twice the number of latents for means and log-variances.
        widths: Channels at half, a quarter, ... of the image's size.

    Raises:
        ValueError: If a width or the shape is not positive.

    Source: SBM-VAE, appendix A.2, "similar in structure to the architecture used in Daniel & Tamar (2021)".
    """

    def __init__(self, shape: Sequence[int], outputs: int, *, widths: Sequence[int] = (64, 128, 256)) -> None:
        super().__init__()
        self.shape, self.size, self.outputs = tuple(shape), _padded_size(shape, widths), outputs
        blocks: list[nn.Module] = [
            nn.Conv2d(shape[0], widths[0], 5, padding=2, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.LeakyReLU(NEGATIVE_SLOPE),
            nn.AvgPool2d(2),
        ]
        for before, after in pairwise(widths):
            blocks += [NormalisedResidualBlock(before, after), nn.AvgPool2d(2)]
        self.blocks = nn.Sequential(*blocks, NormalisedResidualBlock(widths[-1], widths[-1]))
        unit = 2 ** len(widths)
        self.linear = nn.Linear(widths[-1] * (self.size[0] // unit) * (self.size[1] // unit), outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(batch, *shape)`` to ``(batch, outputs)``.

        Raises:
            ValueError: If the images have another shape.
        """
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"the encoder takes images of shape (batch, {self.shape}), got {tuple(x.shape)}")
        height, width = (n - m for n, m in zip(self.size, self.shape[1:], strict=True))
        x = F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        return self.linear(self.blocks(_channels_innermost(x)).flatten(1))


@rebuildable
class SoftIntroDecoder(nn.Module):
    """Decoder of a vector to an image, with a linear output.

    A linear layer with ReLU to the smallest map; a residual block and nearest-neighbour upsampling for each width from
    the last to the first; one more residual block and a 5 x 5 convolution. What the encoder padded is cut off.

    Arguments:
        shape: ``(channels, height, width)`` of the image.
        latent_dim: Size of the vector.
        widths: As those of :class:`SoftIntroEncoder`.

    Raises:
        ValueError: If a width or the shape is not positive.

    Source: SBM-VAE, appendix A.2.
    """

    def __init__(self, shape: Sequence[int], latent_dim: int, *, widths: Sequence[int] = (64, 128, 256)) -> None:
        super().__init__()
        self.shape, self.size, self.latent_dim = tuple(shape), _padded_size(shape, widths), latent_dim
        unit = 2 ** len(widths)
        self.start = (widths[-1], self.size[0] // unit, self.size[1] // unit)
        self.linear = nn.Linear(latent_dim, self.start[0] * self.start[1] * self.start[2])
        blocks: list[nn.Module] = []
        for before, after in pairwise((widths[-1], *widths[::-1])):
            blocks += [NormalisedResidualBlock(before, after), nn.Upsample(scale_factor=2, mode="nearest")]
        self.blocks = nn.Sequential(*blocks, NormalisedResidualBlock(widths[0], widths[0]))
        self.output = nn.Conv2d(widths[0], shape[0], 5, padding=2)

    def forward(self, z: Tensor) -> Tensor:
        """Maps ``(*batch, latent_dim)`` to ``(*batch, *shape)``."""
        maps = F.relu(self.linear(z.reshape(-1, z.shape[-1]))).unflatten(1, self.start)
        x = self.output(self.blocks(_channels_innermost(maps)))
        top, left = ((n - m) // 2 for n, m in zip(self.size, self.shape[1:], strict=True))
        x = x[..., top : top + self.shape[1], left : left + self.shape[2]]
        return x.reshape(*z.shape[:-1], *self.shape)
