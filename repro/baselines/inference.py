"""Generation and likelihoods of models whose posterior is a uniform mixture of products of Gaussian experts.

Written from the encoders' and decoders' outputs alone, since the library behind the baselines draws one expert for a
whole batch, shares one private code between modalities, and drops dimensions of size one. It also calls a decoder once
for every encoder: the mixins here call each network once a step, on the same draws.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Laplace, Normal

from repro.datasets.base import ModalitySpec
from repro.metrics.likelihood import (
    gaussian_log_prob,
    laplace_log_prob,
    mixture_log_prob,
    stratified_importance_weighted,
)
from repro.model import MultimodalModel, evaluating

__all__ = ["DecoderDensity", "DecodesOnce", "DrawsSubsets", "EncodesOnce", "ExpertMixtureModel", "Posterior"]

DECODED_ROWS = 8192  # latents decoded at once, which bounds the memory


@dataclass(frozen=True)
class Posterior:
    """An approximate posterior given some modalities.

    Arguments:
        means: Of the components of the uniform mixture for shared latents, ``(components, batch, latent_dim)``.
        scales: Their standard deviations, of the same shape.
        private: Name of an observed modality to mean and standard deviation of its private latents, each ``(batch,
            specific_dim)``; empty where there are none.
    """

    means: Tensor
    scales: Tensor
    private: Mapping[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class DecoderDensity:
    """ln p(x | mean) of every value, as multivae has it, in a form that can be pickled, unlike the library's closures.

    Arguments:
        likelihood: ``"gaussian"`` or ``"laplace"``.
        scale: Its scale.
    """

    likelihood: str
    scale: float

    def __call__(self, mean: Tensor, x: Tensor) -> Tensor:
        """Of the shape of ``x``."""
        density = Normal if self.likelihood == "gaussian" else Laplace
        return density(mean, self.scale).log_prob(x)


def _randn(shape: Sequence[int], like: Tensor, generator: torch.Generator | None) -> Tensor:
    device = like.device if generator is None else generator.device
    return torch.randn(*shape, generator=generator, device=device, dtype=like.dtype).to(like.device)


class ExpertMixtureModel(MultimodalModel):
    r"""A model with prior N(0, I), Gaussian encoders and a posterior that mixes products of them.

    .. math:: q(z \mid x_O) = \frac1S \sum_{s=1}^S \mathcal N(z; \mu_s, \Sigma_s), \qquad
        \Sigma_s^{-1} = c_s I + \sum_{m \in s} \Sigma_m^{-1}, \quad \mu_s = \Sigma_s \sum_{m \in s} \Sigma_m^{-1} \mu_m

    where the components s are sets of observed modalities, and c is 1 where the prior is one of the experts, else 0.
    Private latents, if any, have the posterior of their own encoder, and the prior where it is not observed.

    Arguments:
        modalities: Name to :class:`ModalitySpec`.
        latent_dim: Shared latents.
        specific_dim: Private latents of each modality.
        likelihood: ``"gaussian"`` or ``"laplace"``.
        noise_scale: Scale of the likelihood, for all modalities.
    """

    def __init__(
        self,
        modalities: Mapping[str, ModalitySpec],
        *,
        latent_dim: int,
        specific_dim: int,
        likelihood: str,
        noise_scale: float,
    ) -> None:
        super().__init__(modalities)
        self.latent_dim, self.specific_dim = latent_dim, specific_dim
        self.likelihood, self._scale = likelihood, noise_scale

    def _noise_scale(self, modality: str) -> float:
        """The same for all modalities."""
        return self._scale

    @abstractmethod
    def experts(self, observed: Sequence[str]) -> list[tuple[tuple[str, ...], bool]]:
        """The components of the mixture given some modalities: whose encoders each multiplies, and if the prior too."""

    @abstractmethod
    def moments(self, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of an encoder, each ``(batch, latent_dim + specific_dim)``, shared latents first."""

    @abstractmethod
    def reconstruction(self, name: str, z: Tensor) -> Tensor:
        """The decoder's mean ``(rows, *spec.shape)`` of latents ``(rows, latent_dim + specific_dim)``."""

    def posterior(self, given: Mapping[str, Tensor]) -> Posterior:
        """The approximate posterior given any non-empty set of modalities.

        Arguments:
            given: Name to tensor of shape ``(batch, *spec.shape)``.

        Raises:
            ValueError: If names or shapes do not fit.
        """
        self.check_batch(given, subset=True)
        observed = [m for m in self.modalities if m in given]
        moments = {m: self.moments(m, given[m]) for m in observed}
        means, scales = [], []
        for names, prior_expert in self.experts(observed):
            mean = torch.stack([moments[m][0][:, : self.latent_dim] for m in names])
            precision = torch.stack([-moments[m][1][:, : self.latent_dim] for m in names]).exp()
            total = precision.sum(0) + float(prior_expert)
            means.append((precision * mean).sum(0) / total)
            scales.append(total.rsqrt())
        private = {}
        if self.specific_dim:
            for m, (mean, log_variance) in moments.items():
                private[m] = mean[:, self.latent_dim :], (0.5 * log_variance[:, self.latent_dim :]).exp()
        return Posterior(torch.stack(means), torch.stack(scales), private)

    def posterior_components(self) -> int:
        """Components of the posterior given all modalities."""
        return len(self.experts(list(self.modalities)))

    def latent_means(self, given: Mapping[str, Tensor]) -> Tensor:
        """Means of the shared latents given some modalities, ``(batch, latent_dim)``: of its components' means."""
        with evaluating(self):
            return self.posterior(given).means.mean(0)

    def weight_terms(
        self, batch: Mapping[str, Tensor], num_samples: int, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        r"""ln p(x|z), ln p(z) and ln q(z|x) of samples of the posterior, each ``(num_samples, batch)``, in nats.

        Samples are spread evenly over the components, and q is the density of the whole mixture.

        Arguments:
            batch: All modalities.
            num_samples: A multiple of :meth:`posterior_components`.
            generator: Source of randomness.
        """
        q = self.posterior(batch)
        each = num_samples // len(q.means)

        def draw(mean: Tensor, scale: Tensor, count: int) -> Tensor:
            return mean + scale * _randn((count, *mean.shape), mean, generator)

        z = torch.cat([draw(mean, scale, each) for mean, scale in zip(q.means, q.scales, strict=True)])
        zero = z.new_zeros(())
        log_prior = gaussian_log_prob(z, zero, 1.0)
        log_posterior = mixture_log_prob(z, q.means, q.scales)
        density = gaussian_log_prob if self.likelihood == "gaussian" else laplace_log_prob
        likelihood = torch.zeros_like(log_prior)
        for m, spec in self.modalities.items():
            code = z
            if self.specific_dim:
                w = draw(*q.private[m], num_samples)
                log_prior = log_prior + gaussian_log_prob(w, zero, 1.0)
                log_posterior = log_posterior + gaussian_log_prob(w, *q.private[m])
                code = torch.cat([z, w], -1)
            mean = self.reconstruction(m, code.flatten(0, 1)).reshape(*code.shape[:-1], *spec.shape)
            likelihood = likelihood + density(batch[m], mean, self.noise_scale(m), event_dims=len(spec.shape))
        return likelihood, log_prior, log_posterior

    def _generate(
        self,
        num_samples: int,
        *,
        given: Mapping[str, Tensor] | None,
        generator: torch.Generator | None,
        sample_likelihood: bool,
    ) -> dict[str, Tensor]:
        """Samples every modality, jointly from the prior or given some of them from the approximate posterior.

        Given some, each sample draws its own component of the mixture, private latents of observed modalities from
        their posteriors, and those of each other modality from N(0, I). Arguments and results are those of the
        interface; the noise has the scale :meth:`noise_scale` and is not clipped to a modality's range.
        """
        like = next(p for p in self.parameters() if p.is_floating_point())
        private: Mapping[str, tuple[Tensor, Tensor]] = {}
        if given is None:
            z = _randn((num_samples, self.latent_dim), like, generator)
        else:
            posterior = self.posterior(given)
            private = posterior.private
            components, size, _ = posterior.means.shape
            device = like.device if generator is None else generator.device
            chosen = torch.randint(components, (num_samples, size), generator=generator, device=device).to(like.device)
            point = torch.arange(size, device=like.device)
            noise = _randn((num_samples, size, self.latent_dim), like, generator)
            z = posterior.means[chosen, point] + posterior.scales[chosen, point] * noise
        result = {}
        for m in self.modalities:
            w = _randn((*z.shape[:-1], self.specific_dim), like, generator)
            if m in private:
                w = private[m][0] + private[m][1] * w
            result[m] = self._decode(m, torch.cat([z, w], -1))
        if sample_likelihood:  # after all latents, so that one seed gives the same means with noise and without
            result = {m: x + self._scale * self._unit_noise(x, generator) for m, x in result.items()}
        return result

    def _log_marginal(self, x: Mapping[str, Tensor], num_samples: int, generator: torch.Generator | None) -> Tensor:
        r"""Importance-weighted log-likelihood under the prior N(0, I) and a likelihood of scale :meth:`noise_scale`.

        The proposal is the approximate posterior of the modalities, stratified over its components. Given other
        modalities, ln p(x | x_g) is the difference of two such estimates: consistent for the model's true conditional,
        unlike the mean of p(x|z) over q(z|x_g), which is right only where q is the true posterior (erratum E16).

        Raises:
            ValueError: If there are fewer samples than components of the mixture.
        """
        q = self.posterior(x)
        log_prob = gaussian_log_prob if self.likelihood == "gaussian" else laplace_log_prob
        zero = torch.zeros_like(q.means[0, 0, 0])

        def draw(mean: Tensor, scale: Tensor, k: int) -> Tensor:
            return mean + scale * _randn((k, *mean.shape), mean, generator)

        def log_weight(component: int, k: int) -> Tensor:
            z = draw(q.means[component], q.scales[component], k)
            total = gaussian_log_prob(z, zero, 1.0) - mixture_log_prob(z, q.means, q.scales)
            for m in (m for m in self.modalities if m in x):
                w = z[..., :0]
                if self.specific_dim:
                    w = draw(*q.private[m], k)
                    total = total + gaussian_log_prob(w, zero, 1.0) - gaussian_log_prob(w, *q.private[m])
                mean = self._decode(m, torch.cat([z, w], -1))
                total = total + log_prob(x[m], mean, self.noise_scale(m), event_dims=len(self.modalities[m].shape))
            return total

        strata = [lambda k, s=s: log_weight(s, k) for s in range(len(q.means))]
        return stratified_importance_weighted(strata, num_samples)

    def _decode(self, name: str, z: Tensor) -> Tensor:
        rows = [self.reconstruction(name, chunk) for chunk in z.flatten(0, -2).split(DECODED_ROWS)]
        return torch.cat(rows).unflatten(0, z.shape[:-1])

    def _unit_noise(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        if self.likelihood == "gaussian":
            return _randn(like.shape, like, generator)
        device = like.device if generator is None else generator.device
        a, b = torch.empty(2, *like.shape, device=device, dtype=like.dtype).exponential_(generator=generator)
        return (a - b).to(like.device)  # the difference of two standard exponentials is Laplace of scale 1

    def log_normaliser(self, scale: float) -> float:
        """Minus the log-density, in nats a value, of the likelihood of a scale at its mode."""
        return math.log(2 * math.pi * scale**2) / 2 if self.likelihood == "gaussian" else math.log(2 * scale)


class EncodesOnce:
    """For MVAE with sub-sampling: each encoder is called once for all subsets of modalities that it is part of."""

    encoders: Any

    def forward(self, inputs: Any, **options: Any) -> Any:
        """The library's loss, from one pass through each encoder."""
        self._encoded = {m: self.encoders[m](x) for m, x in inputs.data.items()}
        try:
            return super().forward(inputs, **options)  # type: ignore[misc]
        finally:
            self._encoded = {}

    def compute_mu_log_var_subset(self, inputs: Any, subset: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the product of the subset's experts and the prior."""
        known = getattr(self, "_encoded", {})  # of the step; empty outside of one, as when the library encodes
        outputs = [known[m] if m in known else self.encoders[m](inputs.data[m]) for m in self.encoders if m in subset]
        log_precisions = torch.stack([torch.zeros_like(outputs[0].embedding), *(-o.log_covariance for o in outputs)])
        total = log_precisions.logsumexp(0)
        weights = (log_precisions[1:] - total).exp()
        return (weights * torch.stack([o.embedding for o in outputs])).sum(0), -total


class DrawsSubsets:
    """For MoPoE in batches of fewer samples than subsets, as 16 samples of 5 modalities are: each draws another subset.

    The library gives every subset floor(n / number of subsets) samples and the last one the rest, so that with fewer
    samples than subsets all of them go to the product of all modalities, and no other subset learns to be decoded.
    """

    def deterministic_mixture_component_selection(
        self, means: Tensor, log_variances: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of one component for each sample, ``(n, d)``, from ``(components, n, d)``."""
        components, samples = means.shape[:2]
        if samples >= components:
            return super().deterministic_mixture_component_selection(means, log_variances, weights)  # type: ignore[misc]
        chosen = torch.randperm(components)[:samples].to(means.device)
        rows = torch.arange(samples, device=means.device)
        return means[chosen, rows], log_variances[chosen, rows]


class DecodesOnce:
    """For MMVAE and MMVAE+: the M^2 reconstructions of a step come from M calls, one of each decoder."""

    encoders: Any
    decoders: Any

    def forward(self, inputs: Any, **options: Any) -> Any:
        """The library's loss of the ELBO form, on draws in the library's order; given options, its own pass."""
        if options:
            return super().forward(inputs, **options)  # type: ignore[misc]
        plus = hasattr(self, "modalities_specific_dim")
        deviation = self._log_var_to_std if plus else self.log_var_to_std  # type: ignore[attr-defined]
        posteriors: dict[str, Any] = {}
        drawn: dict[str, Any] = {}
        latents: dict[str, dict[str, Tensor]] = {}
        for m, x in inputs.data.items():
            out = self.encoders[m](x)
            shared = self.post_dist(out.embedding, deviation(out.log_covariance))  # type: ignore[attr-defined]
            z = shared.rsample([1])
            posteriors[m], drawn[m], latents[m] = shared, z, dict.fromkeys(inputs.data, z)
            if plus:
                own = self.post_dist(out.style_embedding, deviation(out.style_log_covariance))  # type: ignore[attr-defined]
                w = own.rsample([1])
                posteriors[m], drawn[m] = {"u": shared, "w": own}, {"u": z, "w": w}
                codes = {n: w if n == m else self._auxiliary(n, w) for n in inputs.data}
                latents[m] = {n: torch.cat([z, code], -1) for n, code in codes.items()}
        images = self._decode_all(latents)
        combine = self._iwae_looser if plus else self.iwae_looser  # type: ignore[attr-defined]
        return combine(posteriors, drawn, images, inputs)

    def _auxiliary(self, name: str, like: Tensor) -> Tensor:
        """A private code from the auxiliary prior of a modality."""
        deviation = self._log_var_to_std(self.logvars_priors[name])  # type: ignore[attr-defined]
        mean = self.mean_priors[name]  # type: ignore[attr-defined]
        shape = like.shape[1:]
        return self.prior_dist(mean.expand(shape), deviation.expand(shape)).rsample([1])  # type: ignore[attr-defined]

    def _decode_all(self, latents: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
        """Encoder's to decoder's name to reconstructions, ``(1, batch, *shape)``."""
        images: dict[str, dict[str, Tensor]] = {m: {} for m in latents}
        for n in latents:
            rows = torch.cat([codes[n][0] for codes in latents.values()])
            parts = self.decoders[n](rows).reconstruction.chunk(len(latents))
            for m, part in zip(latents, parts, strict=True):
                images[m][n] = part[None]
        return images
