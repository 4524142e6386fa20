"""CoVAE: a multimodal VAE whose latents have one block a modality and a prior that correlates them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

from repro.datasets.base import Dataset, ModalitySpec
from repro.distributions.block_gaussian import BlockGaussian
from repro.metrics.likelihood import importance_weighted
from repro.model import Loss, MultimodalModel, Stage, evaluating, networks_by_name
from repro.papers.covae.deep_cca import (
    PRETRAINING,
    align,
    encoder_means,
    fold_into_head,
    held_out_parts,
    pretraining_loss,
)
from repro.papers.covae.observation import Observation
from repro.papers.covae.posterior import POSTERIORS, posterior_scale_tril
from repro.papers.covae.prior import CorrelatedPrior

__all__ = ["CoVAE", "LatentSampler"]

DECODED_ROWS = 8192  # latents decoded at once, which bounds the memory


class LatentSampler(Protocol):
    """What draws latents of all modalities, such as a fit to the aggregate posterior."""

    def sample(self, num_samples: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Latents of shape ``(num_samples, D)``."""


class CoVAE(MultimodalModel):
    r"""Multimodal VAE with one block of latents for each modality and a prior that correlates the blocks.

    The joint posterior is N(μ(x), L Lᵀ + εI); the prior is N(0, Σ_prior), filled from a first stage of Deep CCA on the
    means of the modalities' own encoders; decoder k sees block k alone. The second stage minimises
    :math:`L_{joint} + \lambda \sum_k L_{cond,k}`, averaged over the batch, with

    .. math::
        L_{joint} = -\mathbb E_{q(z \mid x)} \sum_k \ln p(x_k \mid z_k) + \beta\, KL(q(z \mid x) \,\|\, p(z))

    .. math::
        L_{cond,k} = -\mathbb E_{q_k(z_k \mid x_k)\, p(z_{-k} \mid z_k)} \sum_j \ln p(x_j \mid z_j)
            + \beta\, KL(q_k(z_k \mid x_k) \,\|\, p(z_k))

    Both are negative ELBOs at β = 1 (erratum E13). All sets of latents of a step are decoded as one batch, so that
    batch normalisation sees in training the mixture that its running statistics describe.

    Arguments:
        modalities: Name to :class:`ModalitySpec`.
        latent_dims: Modality to its number of latents; they may differ.
        encoders: Modality to a network that gives mean and log-variance, ``(batch, d)`` each, with the mean from a
            linear layer called ``mean``.
        joint_encoder: Maps a batch of all modalities to means, logarithms of the covariance factor's diagonal and its
            other entries, ``(batch, D + entries)``; see :func:`~repro.papers.covae.posterior.num_covariance_entries`.
        decoders: Modality to a network from ``(batch, d)`` to the modality, flattened or not.
        posterior: ``"cholesky"``, or ``"cross_diagonal"`` for two modalities (Figure 11).
        trainable_prior: Whether Σ_prior is trained in the second stage; the paper freezes it (Figure 11 compares).
        marginal_variance: Whether the prior's standard deviations are learned (appendix B.2).
        pretraining: ``"cca"``, ``"distance_correlation"`` (MLOmics) or ``"none"`` (the prior stays as it is set).
        held_out: Fraction of the training split that Deep CCA does not see and correlations are estimated on.
        ridge: Of the Deep CCA loss.
        beta: Weight of the KL divergences.
        cross_weight: λ; the paper states none.
        likelihood: ``"gaussian"`` or ``"laplace"``.
        scale: Scale of the likelihood in the data's unit.
        epsilon: ε.

    Raises:
        ValueError: If an option is none of those named, a number is out of range, networks or sizes are missing, an
            encoder is narrower than its latents under Deep CCA, or there are fewer than two modalities.

    Source: CoVAE, section 2.2, equations 2 to 4, Algorithm 1; errata E13, E14.
    """

    def __init__(
        self,
        modalities: Mapping[str, ModalitySpec],
        *,
        latent_dims: Mapping[str, int],
        encoders: Mapping[str, nn.Module],
        joint_encoder: nn.Module,
        decoders: Mapping[str, nn.Module],
        posterior: str = "cholesky",
        trainable_prior: bool = False,
        marginal_variance: bool = False,
        pretraining: str = "cca",
        held_out: float = 0.1,
        ridge: float = 1e-3,
        beta: float = 1.0,
        cross_weight: float = 1.0,
        likelihood: str = "gaussian",
        scale: float = 1.0,
        epsilon: float = 1e-3,
    ) -> None:
        super().__init__(modalities)
        choices = (("posterior", posterior, POSTERIORS), ("pretraining", pretraining, PRETRAINING))
        for name, value, allowed in choices:
            if value not in allowed:
                raise ValueError(f"{name} is {value!r}, must be one of {allowed}")
        for name, number in {"beta": beta, "epsilon": epsilon, "held_out": held_out}.items():
            if not number > 0:
                raise ValueError(f"{name} is {number}, must be positive")
        if cross_weight < 0 or ridge < 0 or held_out >= 1:
            raise ValueError(f"cross_weight {cross_weight}, ridge {ridge} or held_out {held_out} is out of range")
        if posterior == "cross_diagonal" and len(modalities) != 2:
            raise ValueError(f"the cross-diagonal posterior is for two modalities, not {list(modalities)}")
        latent_dims = networks_by_name("latent_dims", latent_dims, self.modalities)
        self.block_sizes = {m: int(size) for m, size in latent_dims.items()}
        self.posterior_form, self.pretraining = posterior, pretraining
        self.held_out, self.ridge, self.beta, self.cross_weight = held_out, ridge, beta, cross_weight
        self.observation, self.epsilon = Observation(likelihood, scale), epsilon
        self.encoders = nn.ModuleDict(networks_by_name("encoders", encoders, self.modalities))
        self.joint_encoder = joint_encoder
        self.decoders = nn.ModuleDict(networks_by_name("decoders", decoders, self.modalities))
        for m, encoder in self.encoders.items():
            if not isinstance(getattr(encoder, "mean", None), nn.Linear):
                raise ValueError(f"the encoder of {m!r} needs a linear layer called mean, which Deep CCA's map goes to")
            if pretraining != "none" and encoder.mean.in_features < (size := self.block_sizes[m]):
                raise ValueError(
                    f"the encoder of {m!r} has {encoder.mean.in_features} features for {size} latents, whose means "
                    "would depend on one another; Deep CCA needs a wider network or fewer latents"
                )
        self.prior = CorrelatedPrior(self.block_sizes, trainable=trainable_prior, marginal_variance=marginal_variance)
        self.register_buffer("aligned", torch.tensor(pretraining == "none"))
        for name in ("fitted_correlations", "held_out_correlations"):
            self.register_buffer(name, torch.zeros(min(list(self.block_sizes.values())[:2])))

    def _noise_scale(self, modality: str) -> float:
        r""":math:`s \sqrt\beta` if Gaussian, :math:`b \beta` if Laplace, the same for all modalities."""
        weight = math.sqrt(self.beta) if self.observation.likelihood == "gaussian" else self.beta
        return self.observation.scale * weight

    @property
    def likelihood(self) -> str:
        """``"gaussian"`` or ``"laplace"``."""
        return self.observation.likelihood

    def stages(self) -> Sequence[Stage]:
        """Deep CCA of the modalities' own encoders, unless there is none, then the whole model."""
        first = [] if self.pretraining == "none" else [Stage("deep_cca", ("encoders.",))]
        return [*first, Stage("train")]

    def smallest_batch(self, stage: Stage) -> int:
        """Deep CCA needs two samples more than latents, or four for distance correlations."""
        if stage.name != "deep_cca":
            return super().smallest_batch(stage)
        least = 4 if self.pretraining == "distance_correlation" else max(self.block_sizes.values()) + 2
        return max(least, super().smallest_batch(stage))

    def check_data(self, data: Dataset) -> None:
        """Refuses a split whose fitted or held-out part is too small for Deep CCA and what is estimated after it.

        Raises:
            ValueError: If one is.
        """
        if self.pretraining == "none":
            return
        fit, held_out = (len(part) for part in held_out_parts(data, self.held_out))
        sizes = self.block_sizes.values()
        least = max(max(sizes) + 2, self.smallest_batch(self.stages()[0]))
        if fit < least:
            raise ValueError(f"{data.name}: Deep CCA is fitted on {fit} samples of {len(data)}, needs at least {least}")
        if len(sizes) > 2 and held_out < (least := sum(sizes) + 2):
            raise ValueError(
                f"{data.name}: {held_out} of {len(data)} samples are held out for {sum(sizes)} latents in all; needs "
                f"at least {least}: a larger share held_out, or fewer latents"
            )

    def stage_data(self, stage: Stage, data: Dataset) -> Dataset:
        """Leaves the held-out part out of Deep CCA; at the start of the second stage fills the prior, once.

        Raises:
            ValueError: If the parts are too small, or an encoding is constant.
        """
        if self.pretraining == "none" or (stage.name != "deep_cca" and bool(self.aligned)):
            return data
        fit, held_out = held_out_parts(data, self.held_out)
        if stage.name == "deep_cca":
            return fit
        self.align(fit, held_out)
        return data

    @torch.no_grad()
    def align(self, fit: Dataset, held_out: Dataset) -> None:
        """Turns the encoders' outputs into canonical coordinates and fills Σ_prior with their held-out correlations.

        Arguments:
            fit: Samples that the map is fitted on.
            held_out: Others, that the correlations are estimated on.
        """
        found = align(encoder_means(self.encoders, fit), encoder_means(self.encoders, held_out), self.block_sizes)
        for m, encoder in self.encoders.items():
            fold_into_head(encoder.mean, found.means[m], found.weights[m])
        if len(self.block_sizes) == 2:
            self.prior.set_correlations(found.correlations)
        else:
            self.prior.set_covariance(found.covariance)
        self.fitted_correlations.copy_(found.fitted)
        self.held_out_correlations.copy_(found.held_out)
        self.aligned.fill_(True)

    def posterior(self, batch: Mapping[str, Tensor]) -> BlockGaussian:
        """The joint posterior q(z | x) of a batch of all modalities."""
        sizes = list(self.block_sizes.values())
        output = self.joint_encoder({m: batch[m] for m in self.modalities})
        mean, entries = output[:, : sum(sizes)], output[:, sum(sizes) :]
        tril = posterior_scale_tril(self.posterior_form, entries, sizes, self.epsilon)
        return BlockGaussian(mean, tril, self.block_sizes, validate_args=False)

    def unary_posterior(self, modality: str, x: Tensor) -> BlockGaussian:
        """q_k(z_k | x_k) of one modality's own encoder."""
        mean, log_variance = self.encoders[modality](x)
        sizes = {modality: self.block_sizes[modality]}
        return BlockGaussian(mean, torch.diag_embed((0.5 * log_variance).exp()), sizes, validate_args=False)

    def posterior_components(self) -> int:
        """Components of the posterior given all modalities: it is one Gaussian."""
        return 1

    def latent_means(self, given: Mapping[str, Tensor]) -> Tensor:
        """Means of all latents given all modalities, ``(batch, sum of blocks)``; given one, of its own encoder.

        Raises:
            ValueError: If names or shapes do not fit, or some are given, but neither one nor all.
        """
        self.check_batch(given, subset=True)
        if len(given) not in (1, len(self.modalities)):
            raise ValueError(f"{list(given)} are given; one modality is needed, or all of {list(self.modalities)}")
        with evaluating(self):
            if len(given) == len(self.modalities):
                return self.posterior(given).mean
            ((modality, x),) = given.items()
            return self.unary_posterior(modality, x).mean

    def weight_terms(
        self, batch: Mapping[str, Tensor], num_samples: int, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        r"""ln p(x|z), ln p(z) and ln q(z|x) of samples of the posterior, each ``(num_samples, batch)``, in nats.

        Source: CoVAE, equation 10.
        """
        q, prior = self.proposal(batch)
        z = q.rsample((num_samples,), generator=generator)
        means = self.decode(q.split(z))
        terms = [self.log_prob(m, batch[m], x, self.noise_scale(m)) for m, x in means.items()]
        return torch.stack(terms).sum(0), prior.log_prob(z), q.log_prob(z)

    def decode(self, z: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Decoders' means for blocks of shape ``(*any, d)``, each ``(*any, *spec.shape)``."""
        return {m: self.decode_one(m, v) for m, v in z.items()}

    def decode_one(self, modality: str, z: Tensor) -> Tensor:
        """One decoder's mean, ``(*any, *spec.shape)``, for a block of shape ``(*any, d)``."""
        rows = z.flatten(0, -2)
        chunks = [rows] if torch.is_grad_enabled() else rows.split(DECODED_ROWS)
        x = torch.cat([self.decoders[modality](chunk) for chunk in chunks])
        return x.reshape(*z.shape[:-1], *self.modalities[modality].shape)

    def log_prob(self, modality: str, x: Tensor, mean: Tensor, scale: float | None = None) -> Tensor:
        """ln p(x | mean) in nats, summed over the event's values; leading shapes broadcast.

        Arguments:
            modality: One of the model's.
            x: Its values.
            mean: A decoder's mean.
            scale: Of the likelihood; that of the loss if None, :meth:`noise_scale` where ln p is estimated.
        """
        observation = self.observation if scale is None else replace(self.observation, scale=scale)
        return observation.log_prob(x, mean, len(self.modalities[modality].shape))

    def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
        """The loss of a stage: Deep CCA's, or that of equations 3 and 4. It draws from torch's global generator.

        Raises:
            ValueError: If names or shapes do not fit, or, under Deep CCA, the batch is too small or a latent constant.
        """
        self.check_batch(batch)
        stage = stage or self.stages()[0]
        if stage.name == "deep_cca":
            means = {m: e(batch[m])[0] for m, e in self.encoders.items()}
            terms = pretraining_loss(self.pretraining, means, self.ridge)
            return Loss(torch.stack(list(terms.values())).sum(), {k: v.detach() for k, v in terms.items()})
        prior, q = self.prior(), self.posterior(batch)
        sets = [q.split(q.rsample())]
        kls = {"kl": kl_divergence(q, prior).mean()}
        for m in self.modalities:
            unary = self.unary_posterior(m, batch[m])
            z = {m: unary.rsample()}
            rest = prior.condition(z)
            sets.append(z | rest.split(rest.rsample()))
            kls[f"kl_{m}"] = kl_divergence(unary, prior.marginal([m])).mean()
        nll: dict[str, list[Tensor]] = {}
        for j in self.modalities:
            means = self.decode_one(j, torch.stack([s[j] for s in sets]))
            nll[j] = list(-self.log_prob(j, batch[j], means).mean(-1))
        joint = torch.stack([parts[0] for parts in nll.values()]).sum()
        cross = torch.stack([p for parts in nll.values() for p in parts[1:]]).sum()
        cross_kl = torch.stack([kl for name, kl in kls.items() if name != "kl"]).sum()
        total = joint + self.beta * kls["kl"] + self.cross_weight * (cross + self.beta * cross_kl)
        terms = {"reconstruction": joint, "cross_reconstruction": cross, **kls}
        return Loss(total, {name: value.detach() for name, value in terms.items()})

    @torch.no_grad()
    def latents(
        self, num_samples: int, given: Mapping[str, Tensor], generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Latents of all modalities given some of them, ``(num_samples, batch, d)`` each.

        Given all, they are drawn from the joint posterior. Given some, z_k of each is drawn from its own encoder's
        posterior, and the rest from the prior's conditional on these samples (equation 2 with a sample, erratum E13).

        Raises:
            ValueError: If names or shapes do not fit.
        """
        self.check_batch(given, subset=True)
        if len(given) == len(self.modalities):
            q = self.posterior(given)
            return q.split(q.rsample((num_samples,), generator=generator))
        z = {
            m: self.unary_posterior(m, given[m]).rsample((num_samples,), generator=generator)
            for m in self.modalities
            if m in given
        }
        rest = self.prior().condition(z)
        z |= rest.split(rest.rsample(generator=generator))
        return {m: z[m] for m in self.modalities}

    def _generate(
        self,
        num_samples: int,
        *,
        given: Mapping[str, Tensor] | None,
        generator: torch.Generator | None,
        sample_likelihood: bool,
        sampler: LatentSampler | None = None,
    ) -> dict[str, Tensor]:
        """Samples all modalities, jointly or given some of them; see :meth:`latents`.

        Arguments:
            num_samples, given, generator, sample_likelihood: As in the interface.
            sampler: What draws joint latents in the prior's place, such as a fit to the aggregate posterior.

        Raises:
            ValueError: If there is both ``given`` and a ``sampler``, or the sampler does not sample.
        """
        if sampler is not None and not callable(getattr(sampler, "sample", None)):
            raise ValueError(f"sampler is {sampler!r}, must have a method sample")
        if given is not None and sampler is not None:
            raise ValueError("a sampler draws joint latents; it has no place where modalities are given")
        if given is not None:
            z = self.latents(num_samples, given, generator)
        elif sampler is not None:
            z = self.prior().split(sampler.sample(num_samples, generator=generator))
        else:
            prior = self.prior()
            z = prior.split(prior.rsample((num_samples,), generator=generator))
        out = self.decode(z)
        if sample_likelihood:
            noise = {
                m: replace(self.observation, scale=self.noise_scale(m)).noise(x, generator) for m, x in out.items()
            }
            out = {m: x + noise[m] for m, x in out.items()}
        return out

    def proposal(self, x: Mapping[str, Tensor]) -> tuple[BlockGaussian, BlockGaussian]:
        """The importance sampler's proposal for some modalities' latents, and the prior of the same."""
        names = [m for m in self.modalities if m in x]
        prior = self.prior()
        if len(names) == len(self.modalities):
            return self.posterior(x), prior
        parts = [self.encoders[m](x[m]) for m in names]
        mean, log_variance = (torch.cat(v, -1) for v in zip(*parts, strict=True))
        sizes = {m: self.block_sizes[m] for m in names}
        q = BlockGaussian(mean, torch.diag_embed((0.5 * log_variance).exp()), sizes, validate_args=False)
        return q, prior.marginal(names)

    def _log_marginal(self, x: Mapping[str, Tensor], num: int, generator: torch.Generator | None) -> Tensor:
        r"""The importance-weighted estimate of ln p(x_S) in nats, ``(batch,)``.

        .. math:: \ln \frac{1}{K} \sum_k \frac{p(x_S \mid z_S^k) \, p(z_S^k)}{q(z_S^k \mid x_S)}, \quad z^k \sim q

        The proposal is the joint posterior where all modalities are there and the product of the modalities' own
        posteriors otherwise. The likelihood has the scale :meth:`noise_scale`, which at the paper's β = 1, that of all
        recorded runs, is the loss's.
        """
        q, prior = self.proposal(x)

        def log_weight(k: int) -> Tensor:
            z = q.rsample((k,), generator=generator)
            total = prior.log_prob(z) - q.log_prob(z)
            for m, block in q.split(z).items():
                total = total + self.log_prob(m, x[m], self.decode_one(m, block), self.noise_scale(m))
            return total

        return importance_weighted(log_weight, num)
