"""A small U-Net that predicts the noise in images of latents, one channel a modality (SBM-VAE, appendix A.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ScoreUNet", "time_embedding"]

# Times run from 0 to 1; frequencies are those of a thousand discrete steps.
TIME_SCALE, LONGEST_PERIOD = 1000.0, 10_000.0


def time_embedding(t: Tensor, dim: int) -> Tensor:
    r"""Sines and cosines of times.

    .. math:: \big(\sin(10^3 \omega_k t), \cos(10^3 \omega_k t)\big)_k, \quad \omega_k = 10^{-4 k / (d / 2)}

    Arguments:
        t: Times in [0, 1], of any shape.
        dim: The even number d of features.

    Returns:
        ``(*t.shape, dim)``.

    Raises:
        ValueError: If ``dim`` is odd or under 2.
    """
    if dim < 2 or dim % 2:
        raise ValueError(f"a time embedding has an even number of features, got {dim}")
    k = torch.arange(dim // 2, device=t.device, dtype=t.dtype)
    angles = TIME_SCALE * t.unsqueeze(-1) * torch.exp(-math.log(LONGEST_PERIOD) * k / (dim // 2))
    return torch.cat([angles.sin(), angles.cos()], -1)


def _norm(channels: int) -> nn.GroupNorm:
    """Group normalisation with at least four channels a group, as far as the number divides."""
    return nn.GroupNorm(math.gcd(channels, max(1, channels // 4)), channels)


class _Block(nn.Module):
    """Two convolutions, each after a normalisation and SiLU; the second is scaled and shifted by the embedding."""

    def __init__(self, in_channels: int, out_channels: int, embedding: int) -> None:
        super().__init__()
        self.norm_0, self.norm_1 = _norm(in_channels), _norm(out_channels)
        self.conv_0 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv_1 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * out_channels)
        self.shortcut = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)
        nn.init.zeros_(self.conv_1.weight)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulation(embedding)[..., None, None].chunk(2, 1)
        h = self.conv_0(F.silu(self.norm_0(x)))
        return self.shortcut(x) + self.conv_1(F.silu(self.norm_1(h) * (1 + scale) + shift))


class _Attention(nn.Module):
    """Self-attention with one head over the positions of a map, and a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.inputs = nn.Linear(channels, 3 * channels)
        self.output = nn.Linear(channels, channels)
        nn.init.zeros_(self.output.weight)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        found = F.scaled_dot_product_attention(*self.inputs(tokens).chunk(3, -1))
        return x + self.output(found).transpose(1, 2).reshape(x.shape)


class ScoreUNet(nn.Module):
    """U-Net from noisy images of latents to the noise in them.

    Residual blocks at each resolution, halved by strided convolutions and doubled by nearest-neighbour upsampling,
    with the maps of the way down beside those of the way up; attention at the two lowest resolutions. The last
    convolution starts at zero. The cost hardly depends on the number of channels, so neither does sampling's on the
    number of modalities.

    Arguments:
        channels: Channels of the images, one a modality.
        size: Height and width, 8 for 64 latents and 16 for 256.
        width: Channels at the full resolution.
        multipliers: Of the width, for each resolution from the full one down.
        blocks: Residual blocks a resolution.
        num_times: Times of each image: 1, or one a channel.
        context_dim: Size of a vector that conditions every block, 0 for none.

    Raises:
        ValueError: If a number is not positive, or the size cannot be halved as often.

    Source: SBM-VAE, appendix A.2, "a UNET network where we resize the latent size to 8x8"; the widths are this
    package's own. Ho et al., "Denoising diffusion probabilistic models", 2020.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        *,
        width: int = 64,
        multipliers: Sequence[int] = (1, 2, 2),
        blocks: int = 2,
        num_times: int = 1,
        context_dim: int = 0,
    ) -> None:
        super().__init__()
        numbers = {"channels": channels, "size": size, "width": width, "blocks": blocks, "num_times": num_times}
        for name, number in numbers.items():
            if number < 1:
                raise ValueError(f"{name} is {number}, must be at least 1")
        if not multipliers or min(multipliers) < 1 or context_dim < 0:
            raise ValueError(f"multipliers {tuple(multipliers)} must be positive, context_dim {context_dim} at least 0")
        if size % 2 ** (len(multipliers) - 1):
            raise ValueError(f"images of size {size} cannot be halved {len(multipliers) - 1} times")
        self.channels, self.size, self.num_times, self.context_dim = channels, size, num_times, context_dim
        self.time_dim = 2 * width
        embedding = 4 * width
        self.embed = nn.Sequential(
            nn.Linear(self.time_dim * num_times, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        self.context = nn.Linear(context_dim, embedding) if context_dim else None
        widths = [width * m for m in multipliers]
        low = len(widths) - 2  # the first resolution with attention
        self.stem = nn.Conv2d(channels, width, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        skips, current = [width], width
        for level, out in enumerate(widths):
            for _ in range(blocks):
                self.down.append(_level(_Block(current, out, embedding), level >= low))
                current = out
                skips.append(current)
            if level + 1 < len(widths):
                self.down.append(_level(nn.Conv2d(current, current, 3, stride=2, padding=1), False))
                skips.append(current)
        self.middle = nn.ModuleList(
            [_level(_Block(current, current, embedding), True), _Block(current, current, embedding)]
        )
        for level, out in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                self.up.append(_level(_Block(current + skips.pop(), out, embedding), level >= low))
                current = out
            if level:
                self.up.append(_level(nn.Conv2d(current, current, 3, padding=1), False))
        self.norm = _norm(current)
        self.output = nn.Conv2d(current, channels, 3, padding=1)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, x: Tensor, t: Tensor, context: Tensor | None = None) -> Tensor:
        """Predicts the noise in images ``(batch, channels, size, size)``.

        Arguments:
            x: The noisy images.
            t: Times in [0, 1], ``(batch,)``, or ``(batch, num_times)`` where there are several.
            context: Conditioning vectors ``(batch, context_dim)``; None for zeros.

        Raises:
            ValueError: If a shape is another.
        """
        if tuple(x.shape[1:]) != (self.channels, self.size, self.size):
            raise ValueError(
                f"the score network takes (batch, {self.channels}, {self.size}, {self.size}), got {tuple(x.shape)}"
            )
        wanted = (len(x),) if self.num_times == 1 else (len(x), self.num_times)
        if tuple(t.shape) != wanted:
            raise ValueError(f"times have shape {tuple(t.shape)}, the score network takes {wanted}")
        embedding = self.embed(time_embedding(t, self.time_dim).flatten(1))
        if context is not None:
            if self.context is None or tuple(context.shape) != (len(x), self.context_dim):
                raise ValueError(f"a context of shape {tuple(context.shape)}, expected (batch, {self.context_dim})")
            embedding = embedding + self.context(context)
        embedding = F.silu(embedding)
        h = self.stem(x)
        skips = [h]
        for stage in self.down:
            h = _apply(stage, h, embedding)
            skips.append(h)
        for stage in self.middle:
            h = _apply(stage, h, embedding)
        for stage in self.up:
            if _is_block(stage):
                h = _apply(stage, torch.cat([h, skips.pop()], 1), embedding)
            else:
                h = _apply(stage, F.interpolate(h, scale_factor=2.0, mode="nearest"), embedding)
        return self.output(F.silu(self.norm(h)))


def _level(first: nn.Module, attention: bool) -> nn.ModuleList:
    """A block or a convolution, and attention after it where asked."""
    if attention and isinstance(first, _Block):
        return nn.ModuleList([first, _Attention(first.conv_1.out_channels)])
    return nn.ModuleList([first])


def _is_block(stage: nn.Module) -> bool:
    return isinstance(stage, nn.ModuleList) and isinstance(stage[0], _Block)


def _apply(stage: nn.Module, x: Tensor, embedding: Tensor) -> Tensor:
    for module in stage if isinstance(stage, nn.ModuleList) else [stage]:
        x = module(x, embedding) if isinstance(module, _Block) else module(x)
    return x
