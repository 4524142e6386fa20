"""NN-MRF MVAE: a Gaussian Markov random field as posterior, one with neural potentials as prior."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from repro.datasets.base import ModalitySpec
from repro.distributions.block_gaussian import BlockGaussian
from repro.distributions.log_partition import batch_log_weights, importance_sample_size, log_partition_per_sample
from repro.distributions.mcmc import MCMCDiagnostics
from repro.distributions.pairwise_mrf import PairwiseMRF
from repro.metrics.likelihood import importance_weighted
from repro.model import Loss, Stage, evaluating
from repro.papers.mrf_mvae.base import MRFMVAE
from repro.papers.mrf_mvae.neural_prior import ChainSettings, NeuralMRFPrior

__all__ = ["NNMRFMVAE", "PARTITIONS"]

PARTITIONS = ("batch", "per_sample")
# Points whose posteriors make the mixture in an estimate of ln Z for a likelihood: the cost grows with their square.
MIXTURE_POINTS = 128
# Scales by which the Gaussian fitted to the prior's draws is widened, as a proposal for that prior.
WIDENING = 1.3


class NNMRFMVAE(MRFMVAE):
    r"""Multimodal VAE with a Gaussian posterior and a prior of neural potentials, known up to its constant Z.

    .. math::
        L = -\mathbb{E}_q[\ln p(X \mid z)] + \beta \bigl(\mathbb{E}_q[\ln q(z \mid X)]
        - \mathbb{E}_q[\ln \tilde p(z)] + \ln \hat Z\bigr), \quad
        \ln \tilde p(z) = \sum_{i < j} \psi_{ij} + \sum_i \psi_i - \frac{\lVert z \rVert^2}{2 \tau^2}

    ln Z is estimated from samples, in one of two ways. ``"batch"`` (the default, erratum E6): one for the batch, from
    the mixture of its posteriors and a wide Gaussian; the entropy of q is in closed form. ``"per_sample"``, eq. 15 as
    printed: one for each point, from the very draws of the other terms, whose ln q is sampled too. That one is
    degenerate, and with one draw the KL term is exactly 0. Both are low in the mean, so that the loss is not a strict
    bound; the logged ``partition_sample_size`` tells how far to trust the first.

    The likelihood and the meaning of beta are those of :class:`~repro.papers.mrf_mvae.base.MRFMVAE`. Conditional
    generation clamps the observed blocks.

    Arguments:
        modalities: Name to :class:`~repro.model.ModalitySpec`.
        latent_dim: Latents a modality.
        beta: Weight of the KL term; 0.0078 and 0.0085 are the published ones.
        potential_widths: Sizes of the potentials' hidden layers.
        confinement: τ in units of z. At 1, and with potentials near 0 at the start, the prior starts as the standard
            Gaussian, which the batch's wide Gaussian covers. None is the paper's, with which Z need not exist.
        partition: ``"batch"`` or ``"per_sample"``.
        num_samples: Draws K for each point, for all terms of the loss.
        partition_samples: Points of the estimate of ln Z that :meth:`log_likelihood` takes.
        chains: How the prior is sampled.
        likelihood: ``"gaussian"`` or ``"laplace"``.
        scale: Scale of the likelihood in the data's unit.
        reduction: ``"sum"`` or ``"mean"`` over the values of a modality.
        hidden_dtype: Type of the potentials' hidden layers after the first.
        encoders, decoders: As :class:`~repro.papers.mrf_mvae.base.MRFMVAE`.

    Raises:
        ValueError: If an option is none of those named, or a number is out of range.

    Source: MRF MVAE, section 3.1.3, eq. 15 and 28 to 31, appendix D.2; errata E6 and E7.
    """

    def __init__(
        self,
        modalities: Mapping[str, ModalitySpec],
        *,
        latent_dim: int = 8,
        beta: float = 0.0078,
        potential_widths: Sequence[int] = (1024, 1024, 1024),
        confinement: float | None = 1.0,
        partition: str = "batch",
        num_samples: int = 1,
        partition_samples: int = 4096,
        chains: ChainSettings | None = None,
        likelihood: str = "gaussian",
        scale: float = 1.0,
        reduction: str = "sum",
        hidden_dtype: torch.dtype | None = None,
        encoders: Mapping[str, nn.Module] | None = None,
        decoders: Mapping[str, nn.Module] | None = None,
    ) -> None:
        if partition not in PARTITIONS:
            raise ValueError(f"partition is {partition!r}, must be one of {PARTITIONS}")
        for name, number in {"num_samples": num_samples, "partition_samples": partition_samples}.items():
            if number < 1:
                raise ValueError(f"{name} is {number}, must be at least 1")
        super().__init__(
            modalities,
            latent_dim=latent_dim,
            beta=beta,
            likelihood=likelihood,
            scale=scale,
            reduction=reduction,
            encoders=encoders,
            decoders=decoders,
        )
        self.partition, self.num_samples, self.partition_samples = partition, num_samples, partition_samples
        self.chains = ChainSettings() if chains is None else chains
        self.diagnostics: MCMCDiagnostics | None = None  # of the last sampling
        self.prior = NeuralMRFPrior(
            self.block_sizes, widths=potential_widths, confinement=confinement, hidden_dtype=hidden_dtype
        )

    def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
        """Negative log-likelihood plus beta times the estimated KL divergence.

        Raises:
            ValueError: If names or shapes do not fit, or a potential is NaN.
        """
        self.check_batch(batch)
        posterior, density = self.posterior(batch), self.prior().log_prob_unnormalized
        z = posterior.rsample((self.num_samples,))
        cross = density(z).mean()
        terms = {}
        if self.partition == "batch":
            weights = batch_log_weights(density, posterior, z)
            log_partition = weights.logsumexp(0) - math.log(len(weights))
            negative_entropy = -posterior.entropy().mean()
            terms["partition_sample_size"] = importance_sample_size(weights.detach())
        else:
            log_partition = log_partition_per_sample(density, posterior, z).mean()
            negative_entropy = posterior.log_prob(z).mean()
        kl = negative_entropy - cross + log_partition
        reconstruction = self.reconstruction(batch, z)
        logged = {"reconstruction": reconstruction, "kl": kl, "log_partition": log_partition}
        return Loss(reconstruction + self.beta * kl, {k: v.detach() for k, v in logged.items()} | terms)

    def _sample(
        self,
        field: PairwiseMRF,
        num_chains: int,
        num_kept: int,
        like: Tensor,
        generator: torch.Generator | None,
        start: Tensor | None = None,
    ) -> Tensor:
        """Kept draws ``(num_kept, num_chains, *batch, D)``.

        Chains start at standard normal draws, or each at a row of ``start``, ``(S, D)``, taken at random.
        """
        chains = self.chains
        shape = (num_chains, *field.batch_shape, *field.event_shape)
        device = like.device if generator is None else generator.device
        if start is None:
            initial = torch.randn(shape, generator=generator, dtype=like.dtype, device=device).to(like.device)
        else:
            rows = torch.randint(len(start), shape[:-1], generator=generator, device=device)
            initial = start[rows.to(start.device)].to(like)
        draws, self.diagnostics = field.sample(
            num_chains=num_chains,
            num_steps=num_kept * chains.thinning,
            sampler=chains.sampler,
            burn_in=chains.burn_in,
            thinning=chains.thinning,
            step_size=chains.step_size,
            initial=initial,
            generator=generator,
        )
        return draws

    @torch.no_grad()
    def sample_prior(
        self, num_samples: int, generator: torch.Generator | None = None, start: Tensor | None = None
    ) -> Tensor:
        """Latents ``(num_samples, D)`` by Markov chains, the newest draws of each; see :class:`ChainSettings`.

        :attr:`diagnostics` then holds acceptance rate, effective sample size and split R-hat of that run.

        Arguments:
            num_samples: How many.
            generator: Source of randomness.
            start: Latents ``(S, D)``, such as draws of posteriors: each chain starts at one of them taken at random,
                instead of at a standard normal draw. Chains that leave their mode have the same law from either start.

        Raises:
            ValueError: If ``start`` does not fit or is not finite.
        """
        if start is not None and not isinstance(start, Tensor):
            raise ValueError(f"start is a {type(start).__name__}, must be a tensor")
        if start is not None and (
            start.ndim != 2 or start.shape[1] != sum(self.block_sizes.values()) or not len(start)
        ):
            raise ValueError(f"start has shape {tuple(start.shape)}, (S, {sum(self.block_sizes.values())}) is needed")
        if start is not None and bool((broken := ~start.isfinite().all(1)).any()):
            raise ValueError(f"start has {int(broken.sum())} of {len(start)} rows that are not finite; all must be")
        chains = min(num_samples, self.chains.num_chains)
        needed = math.ceil(num_samples / chains)
        like = next(self.parameters())
        draws = self._sample(self.prior(), chains, max(needed, self.chains.num_kept), like, generator, start)
        return draws[-needed:].flatten(0, 1)[:num_samples]

    def _generate(
        self,
        num_samples: int,
        *,
        given: Mapping[str, Tensor] | None,
        generator: torch.Generator | None,
        sample_likelihood: bool,
        start: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Samples all modalities from the prior, or given some of them with their blocks clamped.

        Arguments:
            num_samples: Joint samples, or samples for each conditioning point, each by a chain of its own.
            given: Observed modalities. Some: each z_j is drawn from its own encoder's q(z_j | x_j) and held. All: from
                the joint posterior q(z | X) (erratum E19).
            generator: Source of randomness.
            sample_likelihood: Whether to add noise of :meth:`noise_scale` to the decoders' means.
            start: As :meth:`sample_prior`, without ``given`` alone.

        Returns:
            Name to ``(num_samples, *shape)``, or ``(num_samples, batch, *shape)`` under ``given``. The run's
            :attr:`diagnostics` are kept; under ``given`` they are of each point by itself.

        Raises:
            ValueError: If a potential is NaN, or there is a ``start`` under ``given``.
        """
        if given is None:
            z = self._split(self.sample_prior(num_samples, generator, start))
            return self._decoded(z, sample_likelihood, generator)
        if start is not None:
            raise ValueError("start is of chains of the whole prior, and some modalities are given")
        z = self._observed(given, num_samples, generator)
        if len(z) < len(self.modalities):
            field = self.prior().condition(z)
            draws = self._sample(field, 1, self.chains.num_kept, next(iter(z.values())), generator)
            z |= field.split(draws[-1, 0])
        return self._decoded(z, sample_likelihood, generator)

    @torch.no_grad()
    def latent_means(
        self, given: Mapping[str, Tensor], *, num_samples: int = 8, generator: torch.Generator | None = None
    ) -> Tensor:
        """Means of all latents given some modalities, ``(batch, M d)``, which classifiers read.

        Of the joint posterior where all modalities are given. Otherwise of the observed blocks by their own encoders,
        and of the others by Markov chains of the field that is clamped to those means, whose conditional has no mean in
        closed form: the average of the chains' kept draws.

        Arguments:
            given: Observed modalities, all or some.
            num_samples: Chains a point.
            generator: Source of randomness; a new one of seed 0 if None, so that the result is the same each time.

        Raises:
            ValueError: If names or shapes do not fit, there are no chains, or a potential is NaN.

        Source: MRF MVAE, section 3.1.3 and appendix D.2.
        """
        self.check_batch(given, subset=True)
        if num_samples < 1:
            raise ValueError(f"num_samples is {num_samples}, must be at least 1")
        with evaluating(self):
            if len(given) == len(self.modalities):
                return self.posterior(given).mean
            means = {m: self.unary_posterior(m, given[m]).mean for m in self.modalities if m in given}
        like = next(iter(means.values()))
        generator = torch.Generator(like.device).manual_seed(0) if generator is None else generator
        field = self.prior().condition(means)
        draws = self._sample(field, num_samples, self.chains.num_kept, like, generator)
        blocks = means | field.split(draws.mean((0, 1)))
        return torch.cat([blocks[m] for m in self.modalities], -1)

    def _reference(self, generator: torch.Generator | None) -> BlockGaussian:
        """The Gaussian of the moments of draws of the prior, widened: a proposal for it."""
        number = max(self.chains.num_chains, 10 * sum(self.block_sizes.values()))
        draws = self.sample_prior(number, generator)
        covariance = WIDENING**2 * draws.T.cov()
        return BlockGaussian.from_covariance(draws.mean(0), covariance, self.block_sizes, validate_args=False)

    @torch.no_grad()
    def log_partition(
        self, batch: Mapping[str, Tensor] | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """An estimate of the prior's ln Z in nats, and the effective number of points that it rests on.

        The points are those of erratum E6, ``partition_samples`` in all, with the Gaussian fitted to Markov chain draws
        of the prior as the wide one. The estimate is low in the mean, by about half the inverse of that number as long
        as it is not small.

        Arguments:
            batch: All modalities, the posteriors of whose first 128 points give half of the points. None, or only
                some modalities: the wide Gaussian gives all.
            generator: Source of randomness.
        """
        density, wide = self.prior().log_prob_unnormalized, self._reference(generator)
        if batch is not None and len(batch) == len(self.modalities):
            posterior = self.posterior({m: x[:MIXTURE_POINTS] for m, x in batch.items()})
            draws = math.ceil(self.partition_samples / 2 / posterior.batch_shape[0])
            samples = posterior.rsample((draws,), generator=generator)
            weights = batch_log_weights(density, posterior, samples, wide=wide, generator=generator)
        else:
            points = wide.rsample((self.partition_samples,), generator=generator)
            weights = density(points) - wide.log_prob(points)
        return weights.logsumexp(0) - math.log(len(weights)), importance_sample_size(weights)

    def _log_likelihood(
        self,
        batch: Mapping[str, Tensor],
        *,
        given: Mapping[str, Tensor] | None,
        num_importance_samples: int,
        generator: torch.Generator | None,
        log_partition: float | Tensor | None = None,
    ) -> Tensor:
        r"""Importance-weighted estimate of ln p(x_S), or of ln p(x_S | x_T), in nats, ``(batch,)``.

        .. math:: \ln \frac{1}{K} \sum_k \frac{p(x_S \mid z_S^k) \, \tilde p(z^k)}{q(z^k \mid x_S)} - \ln \hat Z

        The proposal is the joint posterior where all modalities are there. Otherwise the observed blocks come from
        the unary posteriors, and the others, which no marginal of the field is known without, from the conditional of
        a Gaussian fitted to draws of the prior.

        This is an estimate and no bound: its first term is low in the mean, the less the larger K, and so is ln Z,
        which raises all values alike. Under ``given`` the result is a difference in which Z cancels.

        Arguments:
            batch, given, num_importance_samples, generator: As :class:`~repro.model.MultimodalModel`.
            log_partition: ln Z, to be the same for several batches; None for :meth:`log_partition` of this one.
        """
        unnormalized = super()._log_likelihood(
            batch, given=given, num_importance_samples=num_importance_samples, generator=generator
        )
        if given is not None:
            return unnormalized
        return unnormalized - (self.log_partition(batch, generator)[0] if log_partition is None else log_partition)

    def _log_marginal(self, batch: Mapping[str, Tensor], num: int, generator: torch.Generator | None) -> Tensor:
        """The importance-weighted estimate without ln Z."""
        names = [m for m in self.modalities if m in batch]
        prior, complete = self.prior(), len(names) == len(self.modalities)
        posterior = self.posterior(batch) if complete else None
        reference = None if complete else self._reference(generator)

        def log_weight(k: int) -> Tensor:
            if posterior is not None:
                joint = posterior.rsample((k,), generator=generator)
                z, log_q = self._split(joint), posterior.log_prob(joint)
            else:
                proposals = {m: self.unary_posterior(m, batch[m]) for m in names}
                z = {m: q.rsample((k,), generator=generator) for m, q in proposals.items()}
                rest = reference.condition(z)
                others = rest.rsample(generator=generator)
                log_q = sum(q.log_prob(z[m]) for m, q in proposals.items()) + rest.log_prob(others)
                z |= rest.split(others)
            means = self.decode({m: z[m] for m in names})
            log_p = sum(self.log_prob(m, batch[m], means[m], self.noise_scale(m)) for m in names)
            return log_p + prior.log_prob_unnormalized(prior.join(z)) - log_q

        return importance_weighted(log_weight, num)
