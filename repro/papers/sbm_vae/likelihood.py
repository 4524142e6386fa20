"""The likelihood of SBM-VAE, by importance sampling under the density of the score's probability flow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from repro.distributions.block_gaussian import BlockGaussian
from repro.distributions.diffusion_density import log_density
from repro.papers.sbm_vae.autoencoders import Autoencoders
from repro.papers.sbm_vae.score import LatentScore

__all__ = ["fitted_gaussian", "log_marginal"]

WIDENING = 1.2  # of the fitted Gaussian's standard deviations, so that no weight is large in its tails
SILENT_SECONDS = 3.0  # before progress is shown, on a terminal


def fitted_gaussian(draws: Tensor, modalities: Sequence[str]) -> BlockGaussian:
    """The Gaussian of the mean and the covariance of standardised latents, widened.

    Arguments:
        draws: ``(N, M, D)``, N greater than M D.
        modalities: The names of the M blocks.

    Raises:
        ValueError: If there are too few draws.
    """
    number, count, dim = draws.shape
    if number <= count * dim + 1:
        raise ValueError(f"{number} draws for a Gaussian of {count * dim} latents, needs more than {count * dim + 1}")
    flat = draws.flatten(1)
    covariance = WIDENING**2 * flat.T.cov()
    return BlockGaussian.from_covariance(flat.mean(0), covariance, dict.fromkeys(modalities, dim), validate_args=False)


@torch.no_grad()
def log_marginal(
    autoencoders: Autoencoders,
    score: LatentScore,
    batch: Mapping[str, Tensor],
    *,
    num_importance_samples: int,
    reference: BlockGaussian | None = None,
    num_steps: int = 30,
    num_probes: int | None = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Importance-weighted estimate of ln p(x_S) in nats, ``(batch,)``.

    .. math:: \ln \frac1K \sum_k \frac{p(x_S \mid z_S^k) \, p_\theta(z^k)}{q(z_S^k \mid x_S) \, r(z_R^k \mid z_S^k)},
        \quad z_S^k \sim q(z_S \mid x_S), \; z_R^k \sim r(z_R \mid z_S^k)

    with the density of the probability flow, whose divergence is estimated with random signs: their noise makes the
    estimate noisier, and higher in the mean. Gaussian likelihoods have the scale under which the loss is a negative
    ELBO. The score model has no density of some modalities' latents alone, so that those of the others, R, are drawn
    too, from the conditional r of a Gaussian reference; where all are observed there is no R.

    Arguments:
        autoencoders: VAEs.
        score: The score model, in evaluation mode.
        batch: All modalities, or some.
        num_importance_samples: K; each takes 2 ``num_steps`` evaluations of the score and their gradients.
        reference: A Gaussian of all standardised latents, with a block for each modality, such as
            :func:`fitted_gaussian`; needed where some are not observed.
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
    modalities = list(autoencoders.modalities)
    names = [m for m in modalities if m in batch]
    rows = [modalities.index(m) for m in names]
    pairs = [autoencoders.encode(m, batch[m]) for m in names]
    mean, scale = (torch.stack(parts, 1) for parts in zip(*pairs, strict=True))
    device = mean.device if generator is None else generator.device
    weights = []
    for _ in tqdm(range(num_importance_samples), "importance samples", disable=None, delay=SILENT_SECONDS, leave=False):
        noise = torch.randn(mean.shape, generator=generator, device=device).to(mean.device)
        z = mean + scale * noise
        weight = 0.5 * (noise.square().sum((1, 2)) + noise[0].numel() * math.log(2 * math.pi)) + scale.log().sum((1, 2))
        weight = weight - score.scale[rows].log().sum()
        standard = (z - score.location[rows]) / score.scale[rows]
        if len(names) < len(modalities):
            if reference is None:
                raise ValueError(f"the likelihood of {names} alone needs a reference of all latents")
            rest = reference.condition({m: standard[:, k] for k, m in enumerate(names)})
            others = rest.rsample(generator=generator)
            weight = weight - rest.log_prob(others)
            blocks = {m: standard[:, k] for k, m in enumerate(names)} | rest.split(others)
            standard = torch.stack([blocks[m] for m in modalities], 1)
        weight = weight + log_density(
            score, score.sde, standard, num_steps=num_steps, num_probes=num_probes, generator=generator
        )
        for k, m in enumerate(names):
            found = autoencoders.parameters_of(m, z[:, k])
            weight = weight + autoencoders.log_prob(m, batch[m], found, autoencoders.noise_scale(m))
        weights.append(weight)
    return torch.stack(weights).logsumexp(0) - math.log(num_importance_samples)
