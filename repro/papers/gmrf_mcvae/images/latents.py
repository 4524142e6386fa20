"""What the latents of an image run hold, whatever its prior: the evidence beside conditional coherence."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

import torch
from torch import Tensor

from repro.distributions.block_gaussian import BlockGaussian
from repro.metrics.coherence import classify, conditional_coherence
from repro.model import MultimodalModel
from repro.networks.classifiers import DigitClassifier
from repro.papers.gmrf_mcvae.images.settings import RECONSTRUCTIONS
from repro.papers.gmrf_mcvae.model import GMRFMCVAE
from repro.records import Metric

__all__ = ["TRAINING_SAMPLES", "aggregate_posterior", "digits_in_latents", "digits_in_reconstructions"]

TRAINING_SAMPLES = 4_000
RIDGE = 1e-5
Images = Mapping[str, Tensor]


def digits_in_reconstructions(
    model: MultimodalModel,
    classifiers: Mapping[str, DigitClassifier],
    true: Images,
    labels: Tensor,
    generator: torch.Generator,
    *,
    chunk: int = 250,
) -> list[Metric]:
    """Share of reconstructions, all modalities observed, in which the classifier sees the true digit.

    Arguments:
        model: Any model.
        classifiers: One for each modality.
        true: Test images, ``(N, C, H, W)`` each.
        labels: Their digits, ``(N,)``.
        generator: Source of randomness.
        chunk: Images decoded at a time.
    """
    parts = []
    for start in range(0, len(labels), chunk):
        rows = {m: x[start : start + chunk] for m, x in true.items()}
        parts.append({m: x[0].clamp(0, 1) for m, x in model.generate(1, given=rows, generator=generator).items()})
    seen = classify(classifiers, {m: torch.cat([p[m] for p in parts]) for m in true})
    right = fmean(float((x == labels.cpu()).double().mean()) for x in seen.values())
    text = f"{RECONSTRUCTIONS}; share of right digits, mean over the modalities"
    return [Metric("test/reconstruction/coherence", right, "1", len(labels), text)]


def aggregate_posterior(mean: Tensor, covariance: Tensor, block_sizes: Mapping[str, int]) -> BlockGaussian:
    r"""The Gaussian with the moments of the aggregate posterior.

    .. math:: \mu = \frac{1}{N} \sum_n \mu_n, \qquad
        \Sigma = \mathrm{Cov}_n[\mu_n] + \frac{1}{N} \sum_n \Sigma_n

    Arguments:
        mean: Posterior means, ``(N, d)``.
        covariance: Mean of the posterior covariances, ``(d, d)``.
        block_sizes: Modality to its number of latents.
    """
    total = torch.cov(mean.T) + covariance + RIDGE * torch.eye(mean.shape[-1], device=mean.device)
    return BlockGaussian(mean.mean(0), torch.linalg.cholesky(total), block_sizes)


def digits_in_latents(
    model: GMRFMCVAE,
    classifiers: Mapping[str, DigitClassifier],
    train: Images,
    true: Images,
    labels: Tensor,
    generator: torch.Generator,
    *,
    chunk: int = 250,
) -> list[Metric]:
    """Conditional coherence with something else instead of the learned prior.

    The unobserved latents are drawn from the conditional of the Gaussian with the moments of the aggregate posterior,
    or are that conditional's mean, or are the posterior means of the training sample whose observed latents are
    nearest. The first says what a Gaussian prior without a mask could give with these encoders, the last what the
    latents hold at all.

    Arguments:
        model: The trained model.
        classifiers: One for each modality.
        train: Training images that the moments and the neighbours are taken from.
        true: Test images, ``(N, C, H, W)`` each.
        labels: Their digits, ``(N,)``.
        generator: Source of randomness.
        chunk: Images encoded or decoded at a time.
    """
    number = len(next(iter(train.values())))
    means, covariances = [], []
    for start in range(0, number, chunk):
        q = model.posterior({m: x[start : start + chunk] for m, x in train.items()})
        means.append(q.mean)
        covariances.append(q.covariance_matrix.sum(0))
    mean = torch.cat(means)
    aggregate = aggregate_posterior(mean, torch.stack(covariances).sum(0) / number, model.block_sizes)
    neighbours = aggregate.split(mean)
    seen: dict[str, dict[tuple[str, ...], dict[str, Tensor]]] = {"sample": {}, "mean": {}, "nearest": {}}
    for m, x in true.items():
        parts: dict[str, list[dict[str, Tensor]]] = {how: [] for how in seen}
        for rows in x.split(chunk):
            z = model.unary_posterior(m, rows).rsample(generator=generator)
            conditional = aggregate.condition({m: z})
            nearest = torch.cdist(z, neighbours[m]).argmin(1)
            latents = {
                "sample": conditional.split(conditional.rsample(generator=generator)),
                "mean": conditional.split(conditional.mean),
                "nearest": {k: v[nearest] for k, v in neighbours.items() if k != m},
            }
            for how, found in latents.items():
                parts[how].append({k: v.clamp(0, 1) for k, v in model.decode(found).items()})
        for how, pieces in parts.items():
            images = {k: torch.cat([p[k] for p in pieces]) for k in pieces[0]}
            seen[how][m,] = classify({k: classifiers[k] for k in images}, images)
    moments = f"conditional of the Gaussian with the moments of the aggregate posterior of {number:,} training samples"
    texts = {
        "sample": f"unobserved latents drawn from the {moments}",
        "mean": f"unobserved latents at the mean of the {moments}",
        "nearest": f"unobserved latents of that of {number:,} training samples whose observed latents are nearest",
    }
    return [
        Metric(
            f"test/latents-{how}/coherence", conditional_coherence(seen[how], labels.cpu()).mean, "1", len(labels), t
        )
        for how, t in texts.items()
    ]
