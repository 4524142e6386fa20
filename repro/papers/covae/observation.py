"""The likelihood of CoVAE's decoders: independent values of one scale around the decoder's mean."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from repro.metrics.likelihood import gaussian_log_prob, laplace_log_prob

__all__ = ["Observation"]

DENSITIES = {"gaussian": gaussian_log_prob, "laplace": laplace_log_prob}


@dataclass(frozen=True)
class Observation:
    """Independent Gaussian or Laplace noise around a mean.

    Arguments:
        likelihood: ``"gaussian"`` or ``"laplace"``.
        scale: Standard deviation, or the Laplace distribution's b, in the data's unit.

    Raises:
        ValueError: If the likelihood is unknown or the scale not positive.
    """

    likelihood: str
    scale: float

    def __post_init__(self) -> None:
        if self.likelihood not in DENSITIES:
            raise ValueError(f"likelihood is {self.likelihood!r}, must be one of {tuple(DENSITIES)}")
        if not 0 < self.scale < float("inf"):
            raise ValueError(f"scale is {self.scale}, must be positive and finite")

    def log_prob(self, x: Tensor, mean: Tensor, event_dims: int) -> Tensor:
        """ln p(x | mean) in nats, summed over the last ``event_dims`` dimensions; leading shapes broadcast."""
        return DENSITIES[self.likelihood](x, mean, self.scale, event_dims=event_dims)

    def noise(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        """Noise of the shape of ``like``, drawn on the generator's device."""
        device = like.device if generator is None else generator.device
        if self.likelihood == "gaussian":
            unit = torch.randn(like.shape, generator=generator, device=device, dtype=like.dtype)
        else:
            a, b = torch.empty(2, *like.shape, device=device, dtype=like.dtype).exponential_(generator=generator)
            unit = a - b  # the difference of two standard exponentials is Laplace of scale 1
        return self.scale * unit.to(like.device)
