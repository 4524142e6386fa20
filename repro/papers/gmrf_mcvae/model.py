"""GMRF MCVAE: a multi-component VAE whose posterior and prior are Gaussian Markov random fields."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence
from torch.nn.functional import softplus

from repro.datasets.base import ModalitySpec
from repro.datasets.scalars import real_number, whole_number
from repro.distributions.block_gaussian import BlockGaussian
from repro.distributions.covariance import (
    block_dominant_scale_tril,
    cholesky_scale_tril,
    num_cross_entries,
    off_diagonal_mask,
    random_mask,
)
from repro.metrics.likelihood import gaussian_log_prob, importance_weighted, laplace_log_prob
from repro.model import Loss, MultimodalModel, Stage, evaluating, networks_by_name
from repro.networks.mlp import MLP, GaussianMLPEncoder, output_linear
from repro.papers.gmrf_mcvae.prior import COVARIANCES, BlockGaussianPrior, num_off_diagonal

__all__ = ["CONDITIONAL_PROTOCOLS", "GMRFMCVAE"]

CONDITIONAL_PROTOCOLS = ("joint", "componentwise", "componentwise_covariance_as_scale", "mean")
VARIANCES = ("exponential", "softplus_plus_one")


def _positive(name: str, value: Any) -> float:
    return real_number(name, value, "positive and finite", lambda x: x > 0)


def _drawn(
    draw: Callable[..., Tensor], shape: Sequence[int], device: torch.device, generator: torch.Generator | None
) -> Tensor:
    """Noise drawn on the generator's device, moved to the model's."""
    return draw(shape, generator=generator, device=device if generator is None else generator.device).to(device)


class GMRFMCVAE(MultimodalModel):
    r"""Multi-component VAE with a Gaussian Markov random field as posterior and as prior.

    .. math::
        L = \frac{1}{B} \sum_b \Big[ \sum_i -\ln p(x_i \mid z_i)
            + \beta \, KL\big(N(\mu_\phi(X), \Sigma_\phi(X)) \,\|\, N(\mu, \Sigma)\big) \Big]

    Encoder i gives the mean and the diagonal of block i; a global encoder, fed with a linear embedding of every
    encoder's last hidden layer, gives the entries beside the diagonal. Decoder i sees block i alone.

    What a published beta is relative to: with ``reduction="sum"`` the negative log-likelihood is in nats a sample,
    summed over the values of all modalities. With ``"mean"`` each modality's is averaged over its n values, as in the
    author's code, so that the same beta weighs the KL term n times as much. Up to a factor the loss is the negative
    ELBO of a likelihood with the scale :meth:`noise_scale`.

    Arguments:
        modalities: Name to :class:`~repro.model.ModalitySpec`.
        latent_dim: Latents a modality, d.
        posterior: ``"cholesky"`` (MRF MVAE, section 3.1.1: exponential diagonal) or ``"block_dominant"`` (section
            III-C5 with diagonal :math:`\Sigma_{jj}`).
        prior: ``"cholesky"``, ``"block_dominant"`` or ``"standard"``.
        beta: Weight of the KL term.
        likelihood: ``"gaussian"`` or ``"laplace"``.
        scale: Standard deviation, or the Laplace distribution's b, of the likelihood, in the data's unit.
        reduction: ``"sum"`` or ``"mean"`` over the values of a modality.
        output: ``"linear"`` or ``"sigmoid"``, the decoders' last activation.
        dominance: ``"element"`` or ``"block"``, the form of the block-dominant construction.
        epsilon: Its epsilon (erratum E9: 0.9 to 0.95 in float32).
        delta: Its delta.
        kept: Share of the entries beside the diagonal that are free, in (0, 1], in posterior and prior each: of a
            Cholesky factor's, or of the cross-block ones of the block-dominant construction; the others are zero.
        mask_seed: Which entries: a uniform draw by this seed.
        variance: How an encoder's output u becomes the variance of its block: ``"exponential"``, e^u, or
            ``"softplus_plus_one"``, ln(1 + e^u) + 1, as in the author's later code.
        prior_start: Value at which the prior's entries beside the diagonal start, 0.1 in the author's later code; None
            draws them near zero.
        ramp: Betas of the stages of training that go before that of ``beta``, in order; none by default.
        encoders: Modules with ``features``, ``heads`` and ``feature_dim``; Table IV's if None.
        decoders: Modules from ``(batch, d)`` to the flattened modality; Table IV's if None.
        hidden_dtype: Type of Table IV's hidden layers, such as ``torch.bfloat16``.

    Raises:
        ValueError: If an option is none of those named, or a number is of no such type or out of its range.

    Source: GMRF MCVAE, sections III-C, -C1 and -C2, Table IV, eq. 1, 8, 9, 10; errata E9, E10, E17.
    """

    def __init__(
        self,
        modalities: Mapping[str, ModalitySpec],
        *,
        latent_dim: int = 2,
        posterior: str = "cholesky",
        prior: str = "cholesky",
        beta: float = 0.001,
        likelihood: str = "gaussian",
        scale: float = 1.0,
        reduction: str = "sum",
        output: str = "linear",
        dominance: str = "element",
        epsilon: float = 0.9,
        delta: float = 1e-6,
        kept: float = 1.0,
        mask_seed: int = 0,
        variance: str = "exponential",
        prior_start: float | None = None,
        ramp: Sequence[float] = (),
        encoders: Mapping[str, nn.Module] | None = None,
        decoders: Mapping[str, nn.Module] | None = None,
        hidden_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(modalities)
        choices = {
            "posterior": (posterior, COVARIANCES),
            "likelihood": (likelihood, ("gaussian", "laplace")),
            "reduction": (reduction, ("sum", "mean")),
            "dominance": (dominance, ("element", "block")),
            "variance": (variance, VARIANCES),
        }
        for name, (value, allowed) in choices.items():
            if not isinstance(value, str) or value not in allowed:
                raise ValueError(f"{name} is {value!r}, must be one of {allowed}")
        latent_dim = whole_number("latent_dim", latent_dim)
        if latent_dim < 1:
            raise ValueError(f"latent_dim is {latent_dim}, must be positive")
        beta, scale, delta = (_positive(n, v) for n, v in (("beta", beta), ("scale", scale), ("delta", delta)))
        epsilon = real_number("epsilon", epsilon, "in (0, 1)", lambda x: 0 < x < 1)
        kept = real_number("kept", kept, "in (0, 1]", lambda x: 0 < x <= 1)
        if prior_start is not None:
            prior_start = real_number("prior_start", prior_start, "a finite number or None")
        if isinstance(ramp, str) or not isinstance(ramp, Iterable):
            raise ValueError(f"ramp is {ramp!r}, must be a sequence of betas")
        ramp = [_positive("ramp's beta", b) for b in ramp]
        if len({*ramp, beta}) <= len(ramp):
            raise ValueError(f"ramp is {ramp}, must be different positive betas, none of them {beta}")
        self.block_sizes = dict.fromkeys(self.modalities, latent_dim)
        self.posterior_covariance = posterior
        self.beta, self.likelihood, self.scale, self.reduction = beta, likelihood, scale, reduction
        self.dominance, self.epsilon, self.delta = dominance, epsilon, delta
        self.variance = variance
        self.ramp = {f"beta {b:g}": b for b in ramp}
        if encoders is None:
            encoders = {
                m: GaussianMLPEncoder(s.numel, latent_dim, hidden_dtype=hidden_dtype) for m, s in modalities.items()
            }
        if decoders is None:
            decoders = {
                m: MLP(latent_dim, (256, 256), s.numel, output=output, hidden_dtype=hidden_dtype)
                for m, s in modalities.items()
            }
        self.encoders = nn.ModuleDict(networks_by_name("encoders", encoders, self.modalities))
        self.decoders = nn.ModuleDict(networks_by_name("decoders", decoders, self.modalities))
        self.embeddings = nn.ModuleDict({m: nn.Linear(e.feature_dim, latent_dim) for m, e in self.encoders.items()})
        self.global_encoder = MLP(
            latent_dim * len(self.modalities), (128, 128, 128), num_off_diagonal(posterior, self.block_sizes)
        )
        self.register_buffer("mask", self._mask(posterior, kept, mask_seed), persistent=False)
        self.prior = BlockGaussianPrior(
            self.block_sizes,
            prior,
            dominance=dominance,
            epsilon=epsilon,
            delta=delta,
            mask=self._mask(prior, kept, mask_seed),
            start=prior_start,
        )

    def _mask(self, covariance: str, kept: float, seed: int) -> Tensor | None:
        if kept == 1 or covariance == "standard":
            return None
        if covariance == "cholesky":
            return off_diagonal_mask(self.block_sizes, kept, seed, entries="all")
        return random_mask(num_cross_entries(self.block_sizes), kept, seed)

    def stages(self) -> Sequence[Stage]:
        """One stage for each beta of the ramp, then that of ``beta``."""
        return (*(Stage(name) for name in self.ramp), Stage())

    def capacity(self) -> int:
        """Free numbers of one posterior: means and covariance entries (erratum E10)."""
        total = sum(self.block_sizes.values())
        free = num_off_diagonal(self.posterior_covariance, self.block_sizes)
        return 2 * total + (free if self.mask is None else int(self.mask.sum()))

    def _noise_scale(self, modality: str) -> float:
        r"""Scale of the likelihood under which the loss is a negative ELBO, up to a factor.

        .. math:: s \sqrt{\beta'} \text{ (Gaussian)}, \qquad b \beta' \text{ (Laplace)}

        where :math:`\beta' = \beta`, or :math:`n \beta` under ``reduction="mean"`` over n values.
        """
        weight = self.beta * (self.modalities[modality].numel if self.reduction == "mean" else 1)
        return self.scale * (math.sqrt(weight) if self.likelihood == "gaussian" else weight)

    def posterior(self, batch: Mapping[str, Tensor]) -> BlockGaussian:
        """The joint posterior q(z | X) of a batch of all modalities (eq. 7 and 10)."""
        means, log_diagonals, embedded = [], [], []
        for m, encoder in self.encoders.items():
            features = encoder.features(batch[m])
            mean, raw = encoder.heads(features)
            means.append(mean)
            log_diagonals.append(self._log_variance(raw) / 2)
            embedded += output_linear(features, self.embeddings[m])
        mean, log_diagonal = torch.cat(means, -1), torch.cat(log_diagonals, -1)
        off_diagonal = self.global_encoder(torch.cat(embedded, -1))
        if self.posterior_covariance == "cholesky":
            tril = cholesky_scale_tril(log_diagonal, off_diagonal, self.mask)
        else:
            if self.mask is not None:
                off_diagonal = off_diagonal.masked_fill(~self.mask, 0.0)
            tril = block_dominant_scale_tril(
                (2 * log_diagonal).exp(),
                off_diagonal,
                self.block_sizes,
                epsilon=self.epsilon,
                delta=self.delta,
                form=self.dominance,
            )
        return BlockGaussian(mean, tril, self.block_sizes, validate_args=False)

    def _log_variance(self, raw: Tensor) -> Tensor:
        return raw if self.variance == "exponential" else (softplus(raw) + 1).log()

    def _encoded(self, modality: str, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of a block from its own encoder."""
        mean, raw = self.encoders[modality](x)
        return mean, self._log_variance(raw)

    def unary_posterior(self, modality: str, x: Tensor) -> BlockGaussian:
        """q(z_j | x_j) from encoder j alone, which conditional generation starts from (section III-C5)."""
        mean, log_variance = self._encoded(modality, x)
        sizes = {modality: self.block_sizes[modality]}
        return BlockGaussian(mean, torch.diag_embed((log_variance / 2).exp()), sizes, validate_args=False)

    @torch.no_grad()
    def latent_means(self, given: Mapping[str, Tensor]) -> Tensor:
        r"""Means of all latents given some modalities, ``(batch, M d)``, which classifiers read.

        .. math:: E_{q(z \mid X)}[z], \qquad \text{or} \quad
            \big(\mu_T, \; E_p[z_{-T} \mid z_T = \mu_T]\big), \quad \mu_j = E_{q(z_j \mid x_j)}[z_j],

        of the joint posterior where all modalities are given, and otherwise of the blocks of those that are, T, by
        their own encoders, and of the other blocks by the prior's conditional at those means. The Gaussian's is linear
        in what is observed, so that it is the exact mean of what conditional generation draws.

        Arguments:
            given: Observed modalities, all or some.

        Raises:
            ValueError: If names or shapes do not fit.

        Source: GMRF MCVAE, sections III-C1 and III-C5, eq. 7 and 9.
        """
        self.check_batch(given, subset=True)
        with evaluating(self):
            if len(given) == len(self.modalities):
                return self.posterior(given).mean
            means = {m: self.unary_posterior(m, given[m]).mean for m in self.modalities if m in given}
        conditional = self.prior().condition(means)
        blocks = means | conditional.split(conditional.mean)
        return torch.cat([blocks[m] for m in self.modalities], -1)

    def decode(self, z: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Decoders' means for blocks of shape ``(*batch, d)``, each ``(*batch, *spec.shape)``."""
        return {m: self.decoders[m](v).reshape(*v.shape[:-1], *self.modalities[m].shape) for m, v in z.items()}

    def log_prob(self, modality: str, x: Tensor, mean: Tensor, scale: float) -> Tensor:
        """ln p(x | mean) summed over the event's values; leading shapes broadcast."""
        density = gaussian_log_prob if self.likelihood == "gaussian" else laplace_log_prob
        return density(x, mean, scale, event_dims=len(self.modalities[modality].shape))

    def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
        """Negative log-likelihood plus the stage's beta times the closed-form KL divergence."""
        self.check_batch(batch)
        posterior = self.posterior(batch)
        means = self.decode(posterior.split(posterior.rsample()))
        reconstruction = torch.zeros((), device=posterior.mean.device)
        for m, mean in means.items():
            term = -self.log_prob(m, batch[m], mean, self.scale).mean()
            reconstruction = reconstruction + (term / self.modalities[m].numel if self.reduction == "mean" else term)
        kl = kl_divergence(posterior, self.prior()).mean()
        terms = {"reconstruction": reconstruction.detach(), "kl": kl.detach()}
        beta = self.beta if stage is None else self.ramp.get(stage.name, self.beta)
        return Loss(reconstruction + beta * kl, terms)

    def _generate(
        self,
        num_samples: int,
        *,
        given: Mapping[str, Tensor] | None,
        generator: torch.Generator | None,
        sample_likelihood: bool,
        protocol: str = "joint",
        temperature: float = 1.0,
    ) -> dict[str, Tensor]:
        """Samples all modalities from the prior, or given some of them through the prior's conditional.

        Arguments:
            num_samples, generator: As :meth:`~repro.model.MultimodalModel.generate`.
            given: Observed modalities. Some: each z_j is drawn from its own encoder's q(z_j | x_j). All: from the joint
                posterior q(z | X), which the decoders were trained with (erratum E19).
            sample_likelihood: Whether to add noise of :meth:`noise_scale` to the decoders' means.
            protocol: How the unobserved blocks are drawn; without ``given`` all protocols draw from the prior alike.
                ``"joint"``: together, from the prior's conditional.
                ``"componentwise"``: each alone, from its own conditional (eq. 9), so that they are independent of one
                another given the observed. ``"componentwise_covariance_as_scale"``: the same, with z_j drawn with the
                diagonal covariance instead of the standard deviation, as the author's released code does, by its own
                encoder where all are given too.
                ``"mean"``: none is drawn, they are at the mean of the prior's conditional given the drawn z_j.
            temperature: Factor of the deviation of what is drawn from the prior, or from its conditional, from its
                mean, positive; 1 for the distribution itself. It changes nothing where neither is drawn from: under
                ``given`` with ``"mean"``, or of all modalities.

        Raises:
            ValueError: If the protocol is unknown, the temperature is no positive number, or what is decoded overflows
                at it.
        """
        if not isinstance(protocol, str) or protocol not in CONDITIONAL_PROTOCOLS:
            raise ValueError(f"protocol is {protocol!r}, must be one of {CONDITIONAL_PROTOCOLS}")
        largest = torch.finfo(self.dtype).max
        allowed = f"a positive number under {largest:.2g}"
        temperature = real_number("temperature", temperature, allowed, lambda x: 0 < x < largest)
        prior = self.prior()
        if given is None:
            z = prior.split(_tempered(prior, (num_samples,), temperature, generator))
        else:
            z = self._conditional_latents(prior, given, num_samples, protocol, temperature, generator)
        out = self.decode({m: z[m] for m in self.modalities})
        if temperature > 1 and not all(bool(x.isfinite().all()) for x in out.values()):
            raise ValueError(f"temperature is {temperature:g}, must be smaller: what is decoded at it is not finite")
        if sample_likelihood:
            out = {m: x + self._noise(m, x, generator) for m, x in out.items()}
        return out

    def _conditional_latents(
        self,
        prior: BlockGaussian,
        given: Mapping[str, Tensor],
        num_samples: int,
        protocol: str,
        temperature: float,
        generator: torch.Generator | None,
    ) -> dict[str, Tensor]:
        z: dict[str, Tensor] = {}
        if len(given) == len(self.modalities) and protocol != "componentwise_covariance_as_scale":
            return self._joint_latents(given, num_samples, generator)
        for m, x in given.items():
            mean, log_variance = self._encoded(m, x)
            exponent = 1.0 if protocol == "componentwise_covariance_as_scale" else 0.5
            noise = _drawn(torch.randn, (num_samples, *mean.shape), mean.device, generator)
            z[m] = mean + (exponent * log_variance).exp() * noise
        if len(z) == len(self.modalities):
            return z
        conditional = prior.condition(z)
        if protocol == "mean":
            return z | conditional.split(conditional.mean)
        if protocol == "joint":
            return z | conditional.split(_tempered(conditional, (), temperature, generator))
        for m in conditional.block_sizes:
            z[m] = _tempered(conditional.marginal([m]), (), temperature, generator)
        return z

    def _joint_latents(
        self, batch: Mapping[str, Tensor], num_samples: int, generator: torch.Generator | None
    ) -> dict[str, Tensor]:
        """Draws ``(num_samples, batch, d)`` of all blocks from the joint posterior of a batch of all modalities."""
        q = self.posterior(batch)
        return q.split(q.rsample((num_samples,), generator=generator))

    def _noise(self, modality: str, x: Tensor, generator: torch.Generator | None) -> Tensor:
        scale = self.noise_scale(modality)
        if self.likelihood == "gaussian":
            return scale * _drawn(torch.randn, x.shape, x.device, generator)
        u = _drawn(torch.rand, x.shape, x.device, generator) - 0.5
        return -scale * u.sign() * torch.log1p(-2 * u.abs().clamp(max=0.5 - 1e-7))

    def _proposals(self, batch: Mapping[str, Tensor]) -> list[Any]:
        """The joint posterior where all modalities are there, the unary posteriors otherwise, in the model's order."""
        if len(batch) == len(self.modalities):
            return [self.posterior(batch)]
        return [self.unary_posterior(m, batch[m]) for m in self.modalities if m in batch]

    def _log_marginal(self, batch: Mapping[str, Tensor], num: int, generator: torch.Generator | None) -> Tensor:
        r"""The importance-weighted estimate of ln p(x_S) in nats, ``(batch,)``.

        .. math:: \ln \frac{1}{K} \sum_k \frac{p(x_S \mid z_S^k) \, p(z_S^k)}{q(z_S^k \mid x_S)}, \quad z^k \sim q

        The proposal is the joint posterior where all modalities are there and the product of the unary posteriors
        otherwise; the likelihood has the scale :meth:`noise_scale`.
        """
        names = [m for m in self.modalities if m in batch]
        prior, proposals = self.prior(), self._proposals(batch)
        if len(names) < len(self.modalities):
            prior = prior.marginal(names)

        def log_weight(k: int) -> Tensor:
            draws = [q.rsample((k,), generator=generator) for q in proposals]
            log_q = sum(q.log_prob(v) for q, v in zip(proposals, draws, strict=True))
            z = torch.cat(draws, -1)
            means = self.decode(prior.split(z))
            log_p = sum(self.log_prob(m, batch[m], means[m], self.noise_scale(m)) for m in names)
            return log_p + prior.log_prob(z) - log_q

        return importance_weighted(log_weight, num)


def _tempered(
    p: BlockGaussian, shape: tuple[int, ...], temperature: float, generator: torch.Generator | None
) -> Tensor:
    """Draws whose deviation from the mean is that of the distribution times the temperature."""
    z = p.rsample(shape, generator=generator)
    return z if temperature == 1 else torch.lerp(p.mean.expand_as(z), z, temperature)
