"""The likelihood of SBM-VAE, by importance sampling under the density of the score's probability flow."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from repro.distributions import log_density
from repro.papers.sbm_vae.autoencoders import Autoencoders
from repro.papers.sbm_vae.score import LatentScore

__all__ = ["joint_log_likelihood"]


@torch.no_grad()
def joint_log_likelihood(
    autoencoders: Autoencoders,
    score: LatentScore,
    batch: Mapping[str, Tensor],
    *,
    num_importance_samples: int,
    num_steps: int = 30,
    num_probes: int | None = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Importance-weighted estimate of ln p(x_1, ..., x_M) in nats, ``(batch,)``.

    .. math:: \ln \frac1K \sum_k \frac{p(x \mid z^k) \, p_\theta(z^k)}{q(z^k \mid x)}, \quad z^k \sim q(z \mid x)

    with the density of the probability flow, whose divergence is estimated with random signs: their noise makes the
    estimate noisier, and higher in the mean. Gaussian likelihoods have the scale under which the loss is a negative
    ELBO. The likelihood of a subset would need the score of that subset's latents, which the joint score does not give.

    Arguments:
        autoencoders: VAEs.
        score: The score model, in evaluation mode.
        batch: All modalities.
        num_importance_samples: K; each takes 2 ``num_steps`` evaluations of the score and their gradients.
        num_steps: Of the probability flow.
        num_probes: Signs for each divergence, None for exact ones.
        generator: Source of randomness.

    Raises:
        ValueError: For regularised autoencoders, which have no likelihood, or if K is under 1.

    Source: SBM-VAE, eq. 1 and 2; Song et al., "Score-based generative modeling through stochastic differential
    equations", 2021, section 4.3.
    """
    if num_importance_samples < 1:
        raise ValueError(f"num_importance_samples is {num_importance_samples}, must be at least 1")
    if autoencoders.kind == "rae":
        raise ValueError("a regularised autoencoder has no likelihood")
    pairs = [autoencoders.encode(m, batch[m]) for m in autoencoders.modalities]
    mean, scale = (torch.stack(parts, 1) for parts in zip(*pairs, strict=True))
    device = mean.device if generator is None else generator.device
    weights = []
    for _ in range(num_importance_samples):
        noise = torch.randn(mean.shape, generator=generator, device=device).to(mean.device)
        z = mean + scale * noise
        weight = 0.5 * (noise.square().sum((1, 2)) + noise[0].numel() * math.log(2 * math.pi)) + scale.log().sum((1, 2))
        weight = weight - score.scale.log().sum()
        weight = weight + log_density(
            score, score.sde, score.standardise(z), num_steps=num_steps, num_probes=num_probes, generator=generator
        )
        for k, m in enumerate(autoencoders.modalities):
            found = autoencoders.parameters_of(m, z[:, k])
            weight = weight + autoencoders.log_prob(m, batch[m], found, autoencoders.noise_scale(m))
        weights.append(weight)
    return torch.stack(weights).logsumexp(0) - math.log(num_importance_samples)
