"""Log-densities and importance-weighted estimates of log-likelihoods, as pure functions of tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.distributions import Laplace, Normal

from repro.metrics.arguments import check_tensors

__all__ = [
    "gaussian_log_prob",
    "importance_weighted",
    "laplace_log_prob",
    "mixture_log_prob",
    "stratified_importance_weighted",
]


def _sum_last(x: Tensor, dims: int) -> Tensor:
    return x.flatten(-dims).sum(-1) if dims else x


def gaussian_log_prob(x: Tensor, mean: Tensor, scale: Tensor | float, *, event_dims: int = 1) -> Tensor:
    r"""Log-density of independent Gaussians, summed over the event.

    .. math:: \sum_i -\tfrac12 \left(\frac{x_i - \mu_i}{\sigma_i}\right)^2 - \log \sigma_i - \tfrac12 \log 2\pi

    Arguments:
        x: Values, ``(*batch, *event)``.
        mean: Means, broadcastable with ``x``.
        scale: Standard deviations, broadcastable with ``x``.
        event_dims: Number of last dimensions that make the event.

    Returns:
        Nats, of shape ``(*batch,)``.

    Raises:
        ValueError: If values or means are no tensor.
    """
    check_tensors(x=x, mean=mean)
    return _sum_last(Normal(mean, scale, validate_args=False).log_prob(x), event_dims)


def laplace_log_prob(x: Tensor, mean: Tensor, scale: Tensor | float, *, event_dims: int = 1) -> Tensor:
    r"""Log-density of independent Laplace variables, summed over the event.

    .. math:: \sum_i -\frac{|x_i - \mu_i|}{b_i} - \log 2 b_i

    Arguments:
        x: Values, ``(*batch, *event)``.
        mean: Locations, broadcastable with ``x``.
        scale: Scales b, broadcastable with ``x``; the standard deviation is √2 b.
        event_dims: Number of last dimensions that make the event.

    Returns:
        Nats, of shape ``(*batch,)``.

    Raises:
        ValueError: If values or means are no tensor.
    """
    check_tensors(x=x, mean=mean)
    return _sum_last(Laplace(mean, scale, validate_args=False).log_prob(x), event_dims)


def mixture_log_prob(z: Tensor, means: Tensor, scales: Tensor) -> Tensor:
    r"""Log-density of a uniform mixture of diagonal Gaussians.

    .. math:: \log \frac1S \sum_{s=1}^S \mathcal N(z; \mu_s, \operatorname{diag} \sigma_s^2)

    Arguments:
        z: Values, ``(samples, batch, dim)``.
        means: Means of the S components, ``(S, batch, dim)``.
        scales: Standard deviations of the components, ``(S, batch, dim)``.

    Returns:
        Nats, of shape ``(samples, batch)``.
    """
    # One component at a time: (S, samples, batch, dim) at once is too large for the 31 subsets of five modalities.
    components = [gaussian_log_prob(z, mean, scale) for mean, scale in zip(means, scales, strict=True)]
    return torch.stack(components).logsumexp(0) - math.log(len(components))


def importance_weighted(log_weight: Callable[[int], Tensor], num_samples: int, *, chunk_size: int = 100) -> Tensor:
    r"""Importance-weighted estimate of a log-likelihood, in bounded memory.

    .. math:: \log \hat p(x) = \log \frac1K \sum_{k=1}^K \frac{p(x, z_k)}{q(z_k \mid x)}, \qquad z_k \sim q(z \mid x)

    The estimate of p(x) is unbiased; that of log p(x) is a lower bound in expectation, tight as K grows (Burda et al.,
    2016, eq. 8).

    Arguments:
        log_weight: Maps k to the log-weights of k fresh samples, ``(k, *batch)``, in nats.
        num_samples: K.
        chunk_size: Most samples asked for in one call.

    Returns:
        Nats, of shape ``(*batch,)``.

    Raises:
        ValueError: If ``num_samples`` or ``chunk_size`` is under 1, or ``log_weight`` returns another number of
            samples than it was asked for.
    """
    if num_samples < 1 or chunk_size < 1:
        raise ValueError(f"num_samples {num_samples} and chunk_size {chunk_size} must be at least 1")
    total: Tensor | None = None
    for start in range(0, num_samples, chunk_size):
        k = min(chunk_size, num_samples - start)
        weights = log_weight(k)
        if weights.ndim < 1 or len(weights) != k:
            raise ValueError(f"log_weight({k}) has shape {tuple(weights.shape)}, its first dimension must be {k}")
        chunk = weights.logsumexp(0)
        total = chunk if total is None else torch.logaddexp(total, chunk)
    assert total is not None
    return total - math.log(num_samples)


def stratified_importance_weighted(
    log_weights: Sequence[Callable[[int], Tensor]], num_samples: int, *, chunk_size: int = 100
) -> Tensor:
    r"""Importance-weighted estimate with the samples spread evenly over the S components of a mixture proposal.

    .. math::
        \log \hat p(x) = \log \frac1S \sum_{s=1}^S \frac{1}{K_s} \sum_{k=1}^{K_s}
        \frac{p(x, z_{sk})}{\frac1S \sum_r q_r(z_{sk} \mid x)}, \qquad z_{sk} \sim q_s(z \mid x)

    With the density of the whole mixture as the denominator, the estimate of p(x) is unbiased for any K_s and has no
    more variance than that of samples whose components are drawn. Samples of one component alone are biased.

    Arguments:
        log_weights: For each component, maps k to the log-weights of k fresh samples of it, ``(k, *batch)``, in nats;
            the denominator is the density of the mixture.
        num_samples: Samples over all components; the first ones get one more where it does not divide.
        chunk_size: Most samples asked for in one call.

    Returns:
        Nats, of shape ``(*batch,)``.

    Raises:
        ValueError: If there is no component, or fewer samples than components.
    """
    size = len(log_weights)
    if not size or num_samples < size:
        raise ValueError(f"{num_samples} importance samples for {size} mixture components; each needs at least one")
    counts = [num_samples // size + (s < num_samples % size) for s in range(size)]
    strata = [importance_weighted(f, k, chunk_size=chunk_size) for f, k in zip(log_weights, counts, strict=True)]
    return torch.stack(strata).logsumexp(0) - math.log(size)
