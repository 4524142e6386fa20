"""What the comparison measures of every model by the same functions: latents, and correlations read from images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from repro.metrics.correlation import canonical_correlations
from repro.model import MultimodalModel
from repro.papers.compare.building import decoders
from repro.papers.covae.measures import first_layer

__all__ = ["Readout", "fit_readout", "generated", "latent_correlation", "paired_correlation", "pairs_of"]


@dataclass(frozen=True)
class Readout:
    r"""A linear map from an image's pixels to estimates of the latents that it was drawn from.

    .. math:: \hat z = W (x - \bar x) + \bar z

    Arguments:
        pixel_mean: Mean image, ``(pixels,)``.
        latent_mean: Mean latents, ``(d,)``.
        weight: W, ``(d, pixels)``.
    """

    pixel_mean: Tensor
    latent_mean: Tensor
    weight: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        """Estimates ``(N, d)``, float64, of images ``(N, *shape)``."""
        return (images.flatten(1).double() - self.pixel_mean) @ self.weight.T + self.latent_mean

    def determination(self, images: Tensor, latents: Tensor) -> float:
        """R², the mean over latents of the share of variance that the estimates explain."""
        error = (self(images) - latents.double()).square().mean(0)
        return float((1 - error / latents.double().var(0, correction=0)).mean())


@torch.no_grad()
def fit_readout(images: Tensor, latents: Tensor, *, ridge: float = 10.0) -> Readout:
    r"""Ridge regression of true latents on pixels.

    .. math:: W^\top = (X^\top X + r I)^{-1} X^\top Z

    with X and Z centred.

    Arguments:
        images: ``(N, *shape)``, in [0, 1].
        latents: ``(N, d)``.
        ridge: r; the pixels' sums of squares are of the order of 0.1 N.

    Raises:
        ValueError: If there are not as many latents as images, or the ridge is not positive.
    """
    if len(images) != len(latents):
        raise ValueError(f"{len(images)} images and {len(latents)} latents; a readout needs as many")
    if not ridge > 0:
        raise ValueError(f"ridge is {ridge}, must be positive")
    x, z = images.flatten(1).double(), latents.double()
    pixel_mean, latent_mean = x.mean(0), z.mean(0)
    x = x - pixel_mean
    gram = x.T @ x + ridge * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    weight = torch.linalg.solve(gram, x.T @ (z - latent_mean)).T
    return Readout(pixel_mean, latent_mean, weight)


def paired_correlation(a: Tensor, b: Tensor) -> float:
    """Mean over coordinates of the correlation of coordinate i of one with coordinate i of the other.

    A coordinate that is constant on either side counts as 0.

    Arguments:
        a: ``(N, d)``.
        b: ``(N, d)``.

    Raises:
        ValueError: If the shapes differ, or there are fewer than three samples.
    """
    if a.shape != b.shape or a.ndim != 2:
        raise ValueError(f"estimates of shapes {tuple(a.shape)} and {tuple(b.shape)}; needs (N, d) twice")
    if len(a) < 3:
        raise ValueError(f"{len(a)} samples have no correlation to speak of; needs at least 3")
    a, b = a.double() - a.double().mean(0), b.double() - b.double().mean(0)
    scale = (a.square().sum(0) * b.square().sum(0)).sqrt()
    return float(torch.where(scale > 0, (a * b).sum(0) / scale.clamp_min(1e-300), 0.0).mean())


def latent_correlation(latents: Mapping[str, Tensor], pairs: Sequence[tuple[str, str]], number: int) -> float:
    """Mean of the largest canonical correlations of two modalities' latents, averaged over pairs of modalities.

    Arguments:
        latents: Modality to ``(N, d)``.
        pairs: Which pairs.
        number: How many of the largest are averaged: as many as the data have latents, since a model with more of them
            does not fill all.

    Raises:
        ValueError: As :func:`repro.metrics.correlation.canonical_correlations` does.
    """
    found = [canonical_correlations(latents[a], latents[b])[:number].mean() for a, b in pairs]
    return float(torch.stack(found).mean())


@torch.no_grad()
def generated(
    model: MultimodalModel,
    num_samples: int,
    *,
    given: Mapping[str, Tensor] | None = None,
    generator: torch.Generator | None = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What a model generates, and the latents that its decoders draw it from, by hooks on their first layers.

    Arguments:
        model: A CoVAE, a GMRF MCVAE or an SBM-VAE; of a model without ``decoders`` there are images alone.
        num_samples: Joint samples, or samples for each point.
        given: Observed modalities.
        generator: Source of randomness.

    Returns:
        Modality to images in [0, 1], and to latents ``(..., d)`` of the same leading shape.

    Raises:
        ValueError: As the model's ``generate`` does.
    """
    parts = decoders(model)
    seen: dict[str, list[Tensor]] = {m: [] for m in parts}
    hooks = [
        first_layer(d).register_forward_pre_hook(lambda _, inputs, m=m: seen[m].append(inputs[0]))
        for m, d in parts.items()
    ]
    try:
        images = model.generate(num_samples, given=given, generator=generator)
    finally:
        for hook in hooks:
            hook.remove()
    lead = (num_samples,) if given is None else (num_samples, len(next(iter(given.values()))))
    latents = {m: torch.cat(z).reshape(*lead, -1) for m, z in seen.items()}
    return {m: x.clamp(0, 1) for m, x in images.items()}, latents


def pairs_of(names: Sequence[str]) -> list[tuple[str, str]]:
    """All unordered pairs of modalities."""
    return list(combinations(names, 2))
