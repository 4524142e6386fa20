"""Likelihoods of all eight models by one definition each: the terms of IWAE weights, and the paper's conditional."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from repro.baselines.inference import ExpertMixtureModel
from repro.metrics.likelihood import gaussian_log_prob, importance_weighted, laplace_log_prob
from repro.papers.covae.model import CoVAE

__all__ = ["Decomposition", "decompose", "evenly_spread", "posterior_predictive_log_likelihood"]

DENSITIES = {"gaussian": gaussian_log_prob, "laplace": laplace_log_prob}


@dataclass(frozen=True)
class Decomposition:
    r"""The terms of importance-weighted samples from the approximate posterior given all modalities, in nats.

    .. math:: \ln w_k = \ln p(x \mid z_k) + \ln p(z_k) - \ln q(z_k \mid x)

    Arguments:
        reconstruction: :math:`\ln p(x \mid z_k)`, ``(K, batch)``.
        prior: :math:`\ln p(z_k)`, private latents included.
        posterior: :math:`-\ln q(z_k \mid x)`, with q the density of the whole mixture.

    Source: CoVAE, equation 10 and Figure 14.
    """

    reconstruction: Tensor
    prior: Tensor
    posterior: Tensor

    def log_likelihood(self) -> Tensor:
        """The estimate that these samples make, ``(batch,)``: the logarithm of the weights' mean."""
        weights = self.reconstruction + self.prior + self.posterior
        return weights.logsumexp(0) - math.log(len(weights))


def evenly_spread(model: CoVAE | ExpertMixtureModel, num_samples: int) -> int:
    """The multiple of the number of a posterior's components that :func:`decompose` takes, at most the wanted number.

    One sample of each component if there are more components than samples wanted.

    Arguments:
        model: A CoVAE or a baseline.
        num_samples: The wanted number.
    """
    components = model.posterior_components()
    return components * max(1, num_samples // components)


@torch.no_grad()
def decompose(
    model: CoVAE | ExpertMixtureModel,
    batch: Mapping[str, Tensor],
    *,
    num_samples: int,
    generator: torch.Generator | None = None,
) -> Decomposition:
    """Draws from the posterior given all modalities and keeps the terms of the weights apart.

    The samples of a mixture are spread evenly over its components, K over S each, so K must be a multiple of S.

    Arguments:
        model: A CoVAE or a baseline.
        batch: All modalities.
        num_samples: K.
        generator: Source of randomness.

    Raises:
        ValueError: If names or shapes do not fit, or K is no positive multiple of the number of components.
    """
    model.check_batch(batch)
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}, must be at least 1")
    if num_samples % (components := model.posterior_components()):
        raise ValueError(f"{num_samples} samples do not divide over {components} components of the mixture")
    likelihood, prior, posterior = model.weight_terms(batch, num_samples, generator)
    return Decomposition(likelihood, prior, -posterior)


@torch.no_grad()
def posterior_predictive_log_likelihood(
    model: CoVAE | ExpertMixtureModel,
    batch: Mapping[str, Tensor],
    given: Mapping[str, Tensor],
    *,
    num_samples: int = 1000,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Log of the mean of p(x_m | z) over what the model infers from the other modalities, as the paper conditions.

    .. math:: \ln \frac1K \sum_k p(x_m \mid z_m^k), \qquad z^k \sim q(z \mid x_o)

    with z from the prior's conditional on a sample of z_o for CoVAE, and private latents of x_m from their prior. It is
    the true conditional likelihood of the model only where q is its true posterior, and else that of another predictive
    distribution: for that of the model see :meth:`~repro.model.MultimodalModel.log_likelihood` with ``given``.

    Arguments:
        model: A CoVAE or a baseline.
        batch: The missing modalities, whose likelihood is estimated.
        given: The observed ones.
        num_samples: K.
        generator: Source of randomness.

    Returns:
        Nats, ``(batch,)``.

    Raises:
        ValueError: If names or shapes do not fit, a modality is in both, K is under 1, or the likelihood is neither
            Gaussian nor Laplace.

    Source: CoVAE, Table 2 and Figure 8; erratum E16.
    """
    model.check_batch(batch, subset=True)
    if both := [m for m in batch if m in given]:
        raise ValueError(f"modalities {both} are both in the batch {list(batch)} and given {list(given)}")
    if model.likelihood not in DENSITIES:
        raise ValueError(f"the likelihood is {model.likelihood!r}, must be one of {', '.join(DENSITIES)}")
    density = DENSITIES[model.likelihood]

    def log_weight(k: int) -> Tensor:
        means = model.generate(k, given=given, generator=generator)
        terms = [
            density(x, means[m], model.noise_scale(m), event_dims=len(model.modalities[m].shape))
            for m, x in batch.items()
        ]
        return torch.stack(terms).sum(0)

    return importance_weighted(log_weight, num_samples, chunk_size=50)
