"""Deep CCA pre-training: the losses, the held-out split, and Sigma_prior from canonical coordinates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import torch
from torch import Tensor, nn

from repro.datasets.base import Dataset
from repro.distributions.blocks import BlockSizes, as_block_sizes, cholesky_factor
from repro.metrics.correlation import cca_loss, distance_correlation_unbiased, fit_canonical_map
from repro.papers.covae.prior import MAX_CORRELATION, normalise_blocks

__all__ = [
    "PRETRAINING",
    "Alignment",
    "align",
    "encoder_means",
    "fold_into_head",
    "held_out_parts",
    "pretraining_loss",
]

PRETRAINING = ("cca", "distance_correlation", "none")
SHRINKAGE = 1e-3  # of the covariance of more than two modalities towards the identity, so that it is regular


def pretraining_loss(kind: str, means: Mapping[str, Tensor], ridge: float) -> dict[str, Tensor]:
    """The loss of every pair of modalities, under the name ``"<first>_<second>"``; their sum is what is minimised.

    Arguments:
        kind: ``"cca"``, minus the sum of the batch's canonical correlations; or ``"distance_correlation"``, minus the
            bias-corrected squared distance correlation.
        means: Modality to the encoder's means, ``(batch, d)``.
        ridge: Of the canonical correlations.

    Raises:
        ValueError: If the batch has not at least two samples more than latents (for the canonical correlations; four
            samples for the other), or a latent is constant over it.

    Source: CoVAE, Algorithm 1, line 1, and appendix B.2; erratum E14.
    """
    pairs = combinations(means, 2)
    if kind == "cca":
        return {f"{a}_{b}": cca_loss(means[a], means[b], ridge=ridge) for a, b in pairs}
    return {f"{a}_{b}": -distance_correlation_unbiased(means[a], means[b]) for a, b in pairs}


def held_out_parts(data: Dataset, fraction: float) -> tuple[Dataset, Dataset]:
    """A training split's own parts to fit and to hold out, drawn without replacement, always the same.

    Arguments:
        data: The training split.
        fraction: Of the samples that are held out, in (0, 1), rounded to the nearest number.

    Raises:
        ValueError: If a part would have fewer than four samples.
    """
    count = round(fraction * len(data))
    if not 4 <= count <= len(data) - 4:
        raise ValueError(f"{data.name}: {count} of {len(data)} training samples held out; both parts need at least 4")
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))

    def part(rows: Tensor) -> Dataset:
        labels = None if data.labels is None else data.labels[rows.to(data.labels.device)]
        return replace(data, data={m: x[rows.to(x.device)] for m, x in data.data.items()}, labels=labels)

    return part(order[count:].sort().values), part(order[:count].sort().values)


@torch.no_grad()
def encoder_means(encoders: Mapping[str, nn.Module], data: Dataset, batch_size: int = 1000) -> dict[str, Tensor]:
    """Means of every sample by each modality's own encoder, ``(N, d)``, with the encoders as in evaluation."""
    training = {m: e.training for m, e in encoders.items()}
    for e in encoders.values():
        e.eval()
    batches = [{m: e(x[m])[0] for m, e in encoders.items()} for x in data.batches(batch_size, shuffle=False)]
    for m, e in encoders.items():
        e.train(training[m])
    return {m: torch.cat([b[m] for b in batches]) for m in encoders}


@torch.no_grad()
def fold_into_head(head: nn.Linear, mean: Tensor, weight: Tensor) -> None:
    r"""Changes a linear layer so that it gives :math:`W (h - m)` instead of h.

    Arguments:
        head: The layer, with d outputs.
        mean: m, ``(d,)``.
        weight: W, ``(d, d)``.
    """
    bias = weight @ (head.bias.double() - mean)
    head.weight.copy_(weight @ head.weight.double())
    head.bias.copy_(bias)


@dataclass(frozen=True)
class Alignment:
    """Canonical coordinates of all modalities and how they are correlated.

    Arguments:
        means: Modality to the mean that is taken off.
        weights: Modality to the matrix that whitens (and, for two modalities, rotates) the rest.
        fitted: Correlations of the first two modalities' coordinates on the samples of the fit, biased upwards.
        held_out: The same correlations on held-out samples.
        covariance: Of the coordinates, by the held-out samples: unit blocks; for two modalities equation 5's form with
            correlations in [0, 0.999].
    """

    means: dict[str, Tensor]
    weights: dict[str, Tensor]
    fitted: Tensor
    held_out: Tensor
    covariance: Tensor

    @property
    def correlations(self) -> Tensor:
        """The held-out correlations as equation 5 takes them, in [0, 0.999]."""
        return self.held_out.clamp(0.0, MAX_CORRELATION)


def align(fit: Mapping[str, Tensor], held_out: Mapping[str, Tensor], block_sizes: BlockSizes) -> Alignment:
    r"""Whitens every modality's encodings on one part and estimates their correlations on another.

    Two modalities are rotated to their canonical directions, which gives equation 5's form. More than two are whitened
    only, and Σ is the held-out covariance after whitening its blocks, shrunk towards the identity by 1e-3, since no
    rotation makes all cross-covariances diagonal at once.

    Arguments:
        fit: Modality to encodings, ``(N, d)``, N at least d + 2.
        held_out: The same for other samples; for more than two modalities more samples than latents in all.
        block_sizes: Modality to d, in order.

    Raises:
        ValueError: If there are too few samples, an encoding is constant, or a covariance is singular.

    Source: CoVAE, equation 5 and Algorithm 1; erratum E14.
    """
    sizes = as_block_sizes(block_sizes)
    a, b, *others = names = list(sizes)
    found = fit_canonical_map(fit[a], fit[b])
    correlations = found.correlations(held_out[a], held_out[b])
    means, weights = {a: found.mean_x, b: found.mean_y}, {a: found.weight_x, b: found.weight_y}
    if not others:
        first, k = sizes[a], len(correlations)
        i = torch.arange(k)
        covariance = torch.eye(sum(sizes.values()), dtype=torch.float64, device=correlations.device)
        covariance[i, first + i] = covariance[first + i, i] = correlations.clamp(0.0, MAX_CORRELATION)
        return Alignment(means, weights, found.fitted, correlations, covariance)
    for m in others:
        pair = fit_canonical_map(fit[m], fit[a])
        means[m], weights[m] = pair.mean_x, pair.weight_x
    white = torch.cat([(held_out[m].double() - means[m]) @ weights[m].T for m in names], -1)
    if len(white) <= white.shape[1] + 1:
        raise ValueError(f"{len(white)} held-out samples for {white.shape[1]} latents in all; needs at least two more")
    covariance = normalise_blocks(white.T.cov(), sizes)
    identity = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    covariance = (1 - SHRINKAGE) * covariance + SHRINKAGE * identity
    cholesky_factor(covariance)
    return Alignment(means, weights, found.fitted, correlations, (covariance + covariance.T) / 2)
