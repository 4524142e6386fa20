"""The log normalising constant of an unnormalised density, by importance sampling from approximate posteriors."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from repro.distributions.block_gaussian import BlockGaussian

__all__ = [
    "batch_log_weights",
    "importance_sample_size",
    "log_partition_batch",
    "log_partition_per_sample",
    "widened_mixture",
]


def _log_mean_exp(log_weights: Tensor) -> Tensor:
    return torch.logsumexp(log_weights, 0) - math.log(log_weights.shape[0])


def log_partition_per_sample(
    log_density: Callable[[Tensor], Tensor], posterior: BlockGaussian, samples: Tensor
) -> Tensor:
    r"""The paper's estimate of ln Z, one for each data point from its own posterior.

    .. math:: \ln \hat Z(x) = \ln \frac{1}{K} \sum_k \frac{\tilde p(z_k)}{q(z_k \mid x)}, \quad z_k \sim q(z \mid x)

    It is degenerate and stays for comparison (erratum E6): a posterior is much narrower than the prior, and its K
    samples miss nearly all of Z. With eight latents, a posterior variance of 0.1 and K = 100 it is 6 nats too low in
    the mean. With one sample, used again for the other terms of the objective, the KL divergence is exactly zero.
    :func:`log_partition_batch` is the estimator to use.

    Arguments:
        log_density: Unnormalised: points ``(*any, D)`` to nats ``(*any)``.
        posterior: q(z | x), of batch shape ``(*batch)``.
        samples: Draws of it, ``(K, *batch, D)``; gradients flow through them.

    Returns:
        Estimates in nats, ``(*batch)``.

    Raises:
        ValueError: If there is no sample, or their shape does not fit the posterior.

    Source: MRF MVAE, eq. 15 and 31.
    """
    _check_samples(posterior, samples)
    return _log_mean_exp(log_density(samples) - posterior.log_prob(samples))


def _check_samples(posterior: BlockGaussian, samples: Tensor) -> None:
    needed = posterior.batch_shape + posterior.event_shape
    if samples.ndim != len(needed) + 1 or samples.shape[1:] != needed or not len(samples):
        listed = ", ".join(map(str, ("K", *needed)))
        raise ValueError(f"samples have shape {tuple(samples.shape)}, ({listed}) with K >= 1 is needed")


def widened_mixture(posterior: BlockGaussian, widening: float = 1.5) -> BlockGaussian:
    r"""A Gaussian with the mean of the batch's mixture of posteriors, and its covariance widened.

    .. math::
        \mathcal{N}\bigl(\bar\mu, w^2 C\bigr), \quad
        C = \frac{1}{B} \sum_b \Sigma_b + (\mu_b - \bar\mu)(\mu_b - \bar\mu)^\top

    Arguments:
        posterior: B posteriors, of batch shape ``(B,)``.
        widening: w, by which scales are multiplied.

    Raises:
        ValueError: If the batch shape is not one-dimensional, or w is not positive.
    """
    _check_batch(posterior)
    if not widening > 0:
        raise ValueError(f"widening is {widening}, must be positive")
    centred = posterior.mean - posterior.mean.mean(0)
    covariance = posterior.covariance_matrix.mean(0) + centred.mT @ centred / len(centred)
    return BlockGaussian.from_covariance(posterior.mean.mean(0), widening**2 * covariance, posterior.block_sizes)


def _check_batch(posterior: BlockGaussian) -> None:
    if len(posterior.batch_shape) != 1:
        raise ValueError(f"the posterior has batch shape {tuple(posterior.batch_shape)}, (B,) is needed")


def batch_log_weights(
    log_density: Callable[[Tensor], Tensor],
    posterior: BlockGaussian,
    samples: Tensor,
    *,
    wide: BlockGaussian | None = None,
    num_wide: int | None = None,
    detach_proposals: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Log importance weights under the mixture of a batch's posteriors and a wide Gaussian.

    .. math::
        \ln w_n = \ln \tilde p(z_n) - \ln\Bigl(\frac{K}{N} \sum_b q(z_n \mid x_b) + \frac{R}{N} g(z_n)\Bigr),
        \quad N = K B + R

    The points are K draws of each of the B posteriors and R of g. Every point is weighted by the density of the whole
    mixture, whichever component it is from (the balance heuristic), so that a weight is at most N / R times p̃ / g:
    where g covers p̃, weights are bounded, however narrow the posteriors are.

    Arguments:
        log_density: Unnormalised: points ``(*any, D)`` to nats ``(*any)``.
        posterior: q(z | x_b), of batch shape ``(B,)``.
        samples: Draws of it, ``(K, B, D)``; those of the other terms of an objective may be used again.
        wide: g, without batch shape; None for :func:`widened_mixture` of the posterior.
        num_wide: R; None for K B, half of all.
        detach_proposals: Whether points and proposal densities are constants to the gradient: ln Z does not depend on
            the posteriors. Otherwise gradients flow through ``samples``, the posterior and g.
        generator: Source of the draws of g; None draws from torch's global generator.

    Returns:
        Log weights in nats, ``(N,)``.

    Raises:
        ValueError: If shapes do not fit, or ``num_wide`` is negative.

    Source: erratum E6; Veach and Guibas (1995), section 3.
    """
    _check_batch(posterior)
    _check_samples(posterior, samples)
    num_samples, num_posteriors = samples.shape[:2]
    if num_wide is None:
        num_wide = num_samples * num_posteriors
    if num_wide < 0:
        raise ValueError(f"num_wide is {num_wide}, must not be negative")
    with torch.set_grad_enabled(torch.is_grad_enabled() and not detach_proposals):
        wide = widened_mixture(posterior) if wide is None else wide
        if wide.batch_shape or wide.event_shape != posterior.event_shape:
            raise ValueError(f"wide is {wide}, one Gaussian over {posterior.event_shape[0]} coordinates is needed")
        points = torch.cat([samples.flatten(0, 1), wide.rsample((num_wide,), generator)])
        total = len(points)
        proposal = torch.logsumexp(posterior.log_prob(points.unsqueeze(1)), 1) + math.log(num_samples / total)
        if num_wide:
            proposal = torch.logaddexp(proposal, wide.log_prob(points) + math.log(num_wide / total))
    return log_density(points) - proposal


def log_partition_batch(
    log_density: Callable[[Tensor], Tensor],
    posterior: BlockGaussian,
    samples: Tensor,
    *,
    wide: BlockGaussian | None = None,
    num_wide: int | None = None,
    detach_proposals: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""One estimate of ln Z for a batch, from all its posteriors and a wide Gaussian.

    .. math:: \ln \hat Z = \ln \frac{1}{N} \sum_n w_n

    The mean of w is exactly Z; that of its logarithm is lower, by about half the relative variance of the estimate of
    Z. :func:`importance_sample_size` of the weights tells how far to trust it.

    Arguments:
        log_density, posterior, samples, wide, num_wide, detach_proposals, generator: As :func:`batch_log_weights`.

    Returns:
        The estimate in nats, ``()``, differentiable in the parameters of ``log_density``.

    Raises:
        ValueError: As :func:`batch_log_weights`.

    Source: erratum E6, instead of MRF MVAE, eq. 31.
    """
    return _log_mean_exp(
        batch_log_weights(
            log_density,
            posterior,
            samples,
            wide=wide,
            num_wide=num_wide,
            detach_proposals=detach_proposals,
            generator=generator,
        )
    )


def importance_sample_size(log_weights: Tensor) -> Tensor:
    r"""The effective number of weighted points.

    .. math:: \frac{\bigl(\sum_n w_n\bigr)^2}{\sum_n w_n^2}

    Arguments:
        log_weights: ``(N, *rest)``, up to a constant.

    Returns:
        Between 1 and N, ``(*rest)``.

    Source: Kong (1992).
    """
    return (2 * torch.logsumexp(log_weights, 0) - torch.logsumexp(2 * log_weights, 0)).exp()
