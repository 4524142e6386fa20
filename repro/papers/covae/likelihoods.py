"""Likelihoods of all eight models by one definition each: the terms of IWAE weights, and the paper's conditional."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from repro.baselines.inference import ExpertMixtureModel
from repro.metrics.likelihood import gaussian_log_prob, importance_weighted, laplace_log_prob, mixture_log_prob
from repro.papers.covae.model import CoVAE

__all__ = ["Decomposition", "decompose", "evenly_spread", "posterior_predictive_log_likelihood"]


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


@torch.no_grad()
def evenly_spread(model: CoVAE | ExpertMixtureModel, batch: Mapping[str, Tensor], num_samples: int) -> int:
    """The multiple of the number of a posterior's components that :func:`decompose` takes, at most the wanted number.

    One sample of each component if there are more components than samples wanted.

    Arguments:
        model: A CoVAE or a baseline.
        batch: All modalities, of any points.
        num_samples: The wanted number.
    """
    components = 1 if isinstance(model, CoVAE) else len(model.posterior(batch).means)
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
    if isinstance(model, CoVAE):
        q, prior = model.proposal(batch)
        z = q.rsample((num_samples,), generator=generator)
        means = model.decode(q.split(z))
        likelihood = torch.stack([model.log_prob(m, batch[m], x, model.noise_scale(m)) for m, x in means.items()]).sum(
            0
        )
        return Decomposition(likelihood, prior.log_prob(z), -q.log_prob(z))
    posterior = model.posterior(batch)
    components = len(posterior.means)
    if num_samples % components:
        raise ValueError(f"{num_samples} samples do not divide over {components} components of the mixture")
    each = num_samples // components

    def draw(mean: Tensor, scale: Tensor, count: int) -> Tensor:
        device = mean.device if generator is None else generator.device
        noise = torch.randn(count, *mean.shape, generator=generator, device=device, dtype=mean.dtype)
        return mean + scale * noise.to(mean.device)

    parts = zip(posterior.means, posterior.scales, strict=True)
    z = torch.cat([draw(mean, scale, each) for mean, scale in parts])
    zero = z.new_zeros(())
    log_prior = gaussian_log_prob(z, zero, 1.0)
    log_posterior = mixture_log_prob(z, posterior.means, posterior.scales)
    density = gaussian_log_prob if model.likelihood == "gaussian" else laplace_log_prob
    likelihood = torch.zeros_like(log_prior)
    for m, spec in model.modalities.items():
        code = z
        if model.specific_dim:
            w = draw(*posterior.private[m], num_samples)
            log_prior = log_prior + gaussian_log_prob(w, zero, 1.0)
            log_posterior = log_posterior + gaussian_log_prob(w, *posterior.private[m])
            code = torch.cat([z, w], -1)
        mean = model.reconstruction(m, code.flatten(0, 1)).reshape(*code.shape[:-1], *spec.shape)
        likelihood = likelihood + density(batch[m], mean, model.noise_scale(m), event_dims=len(spec.shape))
    return Decomposition(likelihood, log_prior, -log_posterior)


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
        ValueError: If names or shapes do not fit, a modality is in both, or K is under 1.

    Source: CoVAE, Table 2 and Figure 8; erratum E16.
    """
    model.check_batch(batch, subset=True)
    if both := [m for m in batch if m in given]:
        raise ValueError(f"modalities {both} are both in the batch {list(batch)} and given {list(given)}")
    likelihood = model.observation.likelihood if isinstance(model, CoVAE) else model.likelihood
    density = gaussian_log_prob if likelihood == "gaussian" else laplace_log_prob

    def log_weight(k: int) -> Tensor:
        means = model.generate(k, given=given, generator=generator)
        terms = [
            density(x, means[m], model.noise_scale(m), event_dims=len(model.modalities[m].shape))
            for m, x in batch.items()
        ]
        return torch.stack(terms).sum(0)

    return importance_weighted(log_weight, num_samples, chunk_size=50)
