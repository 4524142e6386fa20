"""Appendix E's objective, for a prior and a posterior that are both Markov random fields known up to a constant."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["generalized_elbo", "generalized_surrogate", "log_partition_surrogate"]

Energy = Callable[[Tensor], Tensor]


def generalized_elbo(
    log_likelihood: Tensor,
    prior_energy: Tensor,
    posterior_energy: Tensor,
    log_partition_prior: Tensor | float,
    log_partition_posterior: Tensor | float,
) -> Tensor:
    r"""The evidence lower bound of two fields, from values at samples of the posterior.

    .. math::
        \mathbb{E}_q[\ln p(X \mid z)] - \ln \frac{Z_p}{Z_q} - \mathbb{E}_q[E_p(z) - E_q(z)], \quad
        p(z) = \frac{e^{-E_p(z)}}{Z_p}, \quad q(z \mid X) = \frac{e^{-E_q(z)}}{Z_q}

    Eq. 37 is printed without the logarithm of p(X | z) (erratum E7). The energies are sums over blocks and pairs,
    such as :meth:`repro.distributions.PairwiseMRF.energy`.

    Arguments:
        log_likelihood: ln p(X | z) in nats at K samples of q, ``(K, *batch)``.
        prior_energy: E_p at the same, ``(K, *batch)``.
        posterior_energy: E_q at the same, ``(K, *batch)``.
        log_partition_prior: ln Z_p, or an estimate.
        log_partition_posterior: ln Z_q for each point, ``(*batch)``, or an estimate.

    Returns:
        Nats, ``(*batch)``. With exact constants its mean over samples is a lower bound of ln p(X).

    Raises:
        ValueError: If the values' shapes differ.

    Source: MRF MVAE, eq. 37; GMRF MCVAE, eq. 18.
    """
    _check(log_likelihood=log_likelihood, prior_energy=prior_energy, posterior_energy=posterior_energy)
    terms = log_likelihood - prior_energy + posterior_energy
    return terms.mean(0) - log_partition_prior + log_partition_posterior


def log_partition_surrogate(energy: Tensor) -> Tensor:
    r"""A scalar whose gradient estimates that of ln Z; its value is not ln Z.

    .. math:: \nabla_\theta \ln Z_\theta = -\mathbb{E}_{p_\theta}[\nabla_\theta E_\theta(z)]

    Arguments:
        energy: E_θ at K samples of its own field, ``(K, *batch)``. The samples must be constants to the gradient.

    Returns:
        :math:`-\frac{1}{K} \sum_k E_\theta(z_k)`, ``(*batch)``.

    Source: MRF MVAE, eq. 38; GMRF MCVAE, eq. 19.
    """
    return -energy.mean(0)


def generalized_surrogate(
    log_likelihood: Callable[[Tensor], Tensor],
    prior: Energy,
    posterior: Energy,
    posterior_samples: Tensor,
    prior_samples: Tensor,
) -> Tensor:
    r"""A scalar for each point whose gradient is an unbiased estimate of that of the evidence lower bound.

    .. math::
        \nabla_\theta &= \mathbb{E}_p[\nabla_\theta E_p] - \mathbb{E}_q[\nabla_\theta E_p] \\
        \nabla_\phi &= -\mathrm{Cov}_q\bigl(f(z), \nabla_\phi E_q(z)\bigr), \quad
        f(z) = \ln p(X \mid z) - E_p(z) + E_q(z) \\
        \nabla_\psi &= \mathbb{E}_q[\nabla_\psi \ln p(X \mid z)]

    for the parameters θ of the prior, φ of the posterior and ψ of the likelihood. No constant Z is needed. Samples of
    a general field, drawn by a Markov chain, have no gradient with respect to φ, so that the posterior's is the score
    function's; in it ln Z_q, ∇ ln Z_q by eq. 38 and the direct gradient of E_q combine into the covariance, estimated
    with K - 1 (unbiased for independent samples). Its variance grows with that of f: a posterior with
    reparameterised samples is to be preferred where there is one.

    Arguments:
        log_likelihood: Samples ``(K, *batch, D)`` to ln p(X | z) in nats, ``(K, *batch)``.
        prior: E_p, samples to energies in the same shapes.
        posterior: E_q, samples ``(K, *batch, D)`` to ``(K, *batch)``, with φ's dependence on X inside.
        posterior_samples: Samples of q(z | X), ``(K, *batch, D)`` with K at least 2; taken as constants.
        prior_samples: Samples of p(z), ``(R, D)``; taken as constants.

    Returns:
        ``(*batch)``, to be maximised after averaging; only the gradient has a meaning.

    Raises:
        ValueError: If there are fewer than two samples of q or none of p, or values have a wrong shape.

    Source: MRF MVAE, eq. 37 and 38; GMRF MCVAE, eq. 18 and 19.
    """
    if len(posterior_samples) < 2 or len(prior_samples) < 1:
        raise ValueError(
            f"{len(posterior_samples)} samples of the posterior and {len(prior_samples)} of the prior; "
            "at least 2 and 1 are needed"
        )
    z, z_prior = posterior_samples.detach(), prior_samples.detach()
    fit, energy_p, energy_q = log_likelihood(z), prior(z), posterior(z)
    _check(log_likelihood=fit, prior_energy=energy_p, posterior_energy=energy_q, samples=z[..., 0])
    with torch.no_grad():
        f = fit - energy_p + energy_q
        weights = (f - f.mean(0)) / (len(z) - 1)
    own = (fit - energy_p).mean(0) - (weights * energy_q).sum(0)
    return own - log_partition_surrogate(prior(z_prior))


def _check(**values: Tensor) -> None:
    shapes = {name: tuple(value.shape) for name, value in values.items()}
    if len(set(shapes.values())) != 1 or not next(iter(shapes.values())):
        raise ValueError(f"values at samples must share one shape (K, *batch), got {shapes}")
