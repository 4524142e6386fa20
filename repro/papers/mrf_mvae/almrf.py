"""ALMRF MVAE: posterior and prior are asymmetric Laplace, tied by a maximum mean discrepancy."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from repro.datasets.base import ModalitySpec
from repro.distributions.asymmetric_laplace import AsymmetricLaplace
from repro.distributions.covariance import cholesky_scale_tril
from repro.metrics.mmd import mmd_squared
from repro.model import Loss, Stage
from repro.networks.mlp import output_linear
from repro.papers.gmrf_mcvae.prior import num_off_diagonal
from repro.papers.mrf_mvae.base import MRFMVAE

__all__ = ["ALMRFMVAE", "CONDITIONALS", "PENALTIES", "PROTOCOLS", "AsymmetricLaplacePrior"]

CONDITIONALS = ("exact", "matched")
PROTOCOLS = ("joint", "componentwise")
PENALTIES = ("aggregated", "per_point")
# Of a draw, in units of the proposal's scale: more than that, and its density is lost.
MOST_ROUNDING = 0.1
# The unbiased estimate is at least -2 / N, so that 1 + MMD^2 stays away from 0 from three samples on.
MIN_UNBIASED = 3


class AsymmetricLaplacePrior(nn.Module):
    r"""A learned asymmetric Laplace distribution :math:`p(z) = \mathcal{AL}(m, L L^\top)` with a full factor L.

    It starts near the symmetric distribution of unit covariance.

    Arguments:
        block_sizes: Modality to the number of its latents.
        location: Whether it has a location of its own (erratum E2); the paper's has none.

    Source: MRF MVAE, section 3.1.2.
    """

    def __init__(self, block_sizes: Mapping[str, int], *, location: bool = False) -> None:
        super().__init__()
        self.block_sizes = dict(block_sizes)
        total = sum(self.block_sizes.values())
        self.m = nn.Parameter(torch.zeros(total))
        self.log_diagonal = nn.Parameter(torch.zeros(total))
        self.off_diagonal = nn.Parameter(0.01 * torch.randn(num_off_diagonal("cholesky", self.block_sizes)))
        self.loc = nn.Parameter(torch.zeros(total)) if location else None

    def forward(self) -> AsymmetricLaplace:
        """The prior as a distribution without batch shape."""
        tril = cholesky_scale_tril(self.log_diagonal, self.off_diagonal)
        return AsymmetricLaplace(self.m, tril, self.block_sizes, self.loc, validate_args=False)


class ALMRFMVAE(MRFMVAE):
    r"""Multimodal VAE with asymmetric Laplace posterior and prior, trained by the MMD surrogate objective.

    .. math::
        L = -\mathbb{E}_{q(z \mid X)}[\ln p(X \mid z)] + \beta \ln\bigl(1 + \mathrm{MMD}_k^2(q, p)\bigr), \quad
        k(z, z') = e^{-\lVert z - z' \rVert^2 / 2 h^2}

    This is a surrogate and no bound: the paper's lemma 1, KL ≤ ln(1 + MMD²), is false, the inequality being the other
    way round, and the penalty is at most ln 3 (erratum E5). Do not report it as a likelihood. β, 1 in eq. 12, has to
    be chosen with that ceiling in mind, beside a reconstruction term of tens of nats.

    Which q enters: eq. 12 writes q(z | X), so that every data point's posterior would be drawn towards the whole
    prior. ``penalty="aggregated"`` is the practical form of eq. 35, and that of the MMD-VAE it refers to: one draw
    for each point of the batch (the draw of the reconstruction), a sample of the aggregate posterior, against as many
    draws of the prior. ``"per_point"`` is eq. 12 to the letter, with ``num_penalty_samples`` draws for each point.

    Encoders, covariance encoder and likelihood are those of :class:`~repro.papers.mrf_mvae.base.MRFMVAE`; the
    encoder's "mean" is the skew m. An AL distribution has no location, so its mode stays at 0 (erratum E2);
    ``location=True`` gives posterior and prior one.

    :meth:`log_likelihood` is importance weighted, with the AL posterior (or the product of the unary ones) as proposal
    and the AL prior's exact marginal; it is a lower bound in the mean whatever the training objective. Nothing in that
    objective keeps a single point's posterior from collapsing, only the aggregate counts: where it is so narrow that
    draws are rounded out of it (:attr:`~repro.distributions.generalized_hyperbolic.GeneralizedHyperbolic.rounding`
    above 0.1), there is no estimate, and the point's value is NaN.
    :meth:`noise_scale` is the likelihood's scale at which the reconstruction term weighs 1 beside the penalty.

    Arguments:
        modalities: Name to :class:`~repro.model.ModalitySpec`.
        latent_dim: Latents a modality.
        beta: Weight β of the penalty.
        bandwidth: h in units of z, or ``"median"``: the median distance of the pooled draws of the step, without
            gradient. It follows the latents' scale, which the learned prior leaves free. The paper names none.
        unbiased: Whether the unbiased estimate of MMD² is taken (at least three samples), or the biased one.
        penalty: ``"aggregated"`` or ``"per_point"``.
        num_penalty_samples: Draws for each point under ``"per_point"``.
        location: Whether posterior and prior have a location.
        likelihood: ``"gaussian"`` or ``"laplace"``.
        scale: Scale of the likelihood in the data's unit.
        reduction: ``"sum"`` or ``"mean"`` over the values of a modality.
        encoders, decoders: As :class:`~repro.papers.mrf_mvae.base.MRFMVAE`.

    Raises:
        ValueError: If an option is none of those named, or a number is out of range.

    Source: MRF MVAE, section 3.1.2, eq. 10 to 14 and 35, appendix D.2; errata E1 to E5.
    """

    def __init__(
        self,
        modalities: Mapping[str, ModalitySpec],
        *,
        latent_dim: int = 8,
        beta: float = 1.0,
        bandwidth: float | str = "median",
        unbiased: bool = True,
        penalty: str = "aggregated",
        num_penalty_samples: int = 16,
        location: bool = False,
        likelihood: str = "gaussian",
        scale: float = 1.0,
        reduction: str = "sum",
        encoders: Mapping[str, nn.Module] | None = None,
        decoders: Mapping[str, nn.Module] | None = None,
    ) -> None:
        if penalty not in PENALTIES:
            raise ValueError(f"penalty is {penalty!r}, must be one of {PENALTIES}")
        if bandwidth != "median" and not (isinstance(bandwidth, int | float) and bandwidth > 0):
            raise ValueError(f"bandwidth is {bandwidth!r}, must be 'median' or a positive number")
        if penalty == "per_point" and num_penalty_samples < (MIN_UNBIASED if unbiased else 1):
            raise ValueError(
                f"num_penalty_samples is {num_penalty_samples}, must be at least {MIN_UNBIASED} (1 with unbiased=False)"
            )
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
        self.bandwidth, self.unbiased = bandwidth, unbiased
        self.penalty, self.num_penalty_samples = penalty, num_penalty_samples
        self.locations = (
            nn.ModuleDict({m: nn.Linear(e.feature_dim, latent_dim) for m, e in self.encoders.items()})
            if location
            else None
        )
        self.prior = AsymmetricLaplacePrior(self.block_sizes, location=location)

    def capacity(self) -> int:
        """Free numbers of one posterior: skews, entries of the factor, and locations where it has them."""
        return super().capacity() + (0 if self.locations is None else sum(self.block_sizes.values()))

    def posterior(self, batch: Mapping[str, Tensor]) -> AsymmetricLaplace:
        """The joint posterior q(z | X) of a batch of all modalities (Figure 1, section 3.1.2)."""
        skews, log_diagonals, embedded, locations = [], [], [], []
        for m, encoder in self.encoders.items():
            features = encoder.features(batch[m])
            skew, log_variance = encoder.heads(features)
            skews.append(skew)
            log_diagonals.append(log_variance / 2)
            embedded += output_linear(features, self.embeddings[m])
            if self.locations is not None:
                locations += output_linear(features, self.locations[m])
        off_diagonal = self.global_encoder(torch.cat(embedded, -1))
        tril = cholesky_scale_tril(torch.cat(log_diagonals, -1), off_diagonal)
        loc = torch.cat(locations, -1) if locations else None
        return AsymmetricLaplace(torch.cat(skews, -1), tril, self.block_sizes, loc, validate_args=False)

    def unary_posterior(self, modality: str, x: Tensor) -> AsymmetricLaplace:
        """q(z_j | x_j) from encoder j alone, which conditional generation starts from."""
        encoder = self.encoders[modality]
        features = encoder.features(x)
        skew, log_variance = encoder.heads(features)
        loc = None if self.locations is None else output_linear(features, self.locations[modality])[0]
        sizes = {modality: self.block_sizes[modality]}
        return AsymmetricLaplace(skew, torch.diag_embed((log_variance / 2).exp()), sizes, loc, validate_args=False)

    @torch.no_grad()
    def latent_means(self, given: Mapping[str, Tensor]) -> Tensor:
        """As :meth:`GMRFMCVAE.latent_means <repro.papers.gmrf_mcvae.model.GMRFMCVAE.latent_means>`.

        Of blocks that are not observed, the mean of the generalised hyperbolic conditional at the observed blocks'
        means, which is not linear in those: near the mean of what conditional generation draws, not equal to it.

        Source: MRF MVAE, section 3.1.2, corollary 1; erratum E3.
        """
        return super().latent_means(given)

    def smallest_batch(self, stage: Stage) -> int:
        """Three under the unbiased aggregated penalty."""
        least = MIN_UNBIASED if self.penalty == "aggregated" and self.unbiased else 1
        return max(least, super().smallest_batch(stage))

    def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
        """The MMD surrogate objective, negated.

        Raises:
            ValueError: If names or shapes do not fit, or the unbiased aggregated penalty meets fewer than three points.
        """
        size = self.check_batch(batch)
        posterior, prior = self.posterior(batch), self.prior()
        if self.penalty == "aggregated":
            if self.unbiased and size < MIN_UNBIASED:
                raise ValueError(
                    f"a batch of {size} is too small for the unbiased estimate of the MMD, which needs "
                    f"{MIN_UNBIASED}; use unbiased=False"
                )
            z = posterior.rsample()
            own, other = z, prior.rsample((size,))
        else:
            draws = posterior.rsample((self.num_penalty_samples,))
            z, own = draws[0], draws.transpose(0, 1)
            other = prior.rsample((size, self.num_penalty_samples))
        mmd = mmd_squared(own, other, bandwidth=self.bandwidth, unbiased=self.unbiased)
        penalty = mmd.log1p().mean()
        reconstruction = self.reconstruction(batch, z)
        terms = {
            "reconstruction": reconstruction.detach(),
            "mmd_squared": mmd.detach().mean(),
            "penalty": penalty.detach(),
        }
        return Loss(reconstruction + self.beta * penalty, terms)

    def _log_marginal(self, batch: Mapping[str, Tensor], num: int, generator: torch.Generator | None) -> Tensor:
        """As :class:`~repro.papers.gmrf_mcvae.model.GMRFMCVAE`'s; NaN where a proposal has collapsed."""
        found = super()._log_marginal(batch, num, generator)
        moved = torch.stack([q.rounding.expand(found.shape) for q in self._proposals(batch)])
        return found.masked_fill((moved > MOST_ROUNDING).any(0), torch.nan)

    def _generate(
        self,
        num_samples: int,
        *,
        given: Mapping[str, Tensor] | None,
        generator: torch.Generator | None,
        sample_likelihood: bool,
        protocol: str = "joint",
        conditional: str = "exact",
    ) -> dict[str, Tensor]:
        """Samples all modalities from the prior, or given some of them through the prior's conditional.

        Arguments:
            num_samples, generator: As :meth:`~repro.model.MultimodalModel.generate`.
            given: Observed modalities. Some: each z_j is drawn from its own encoder's q(z_j | x_j). All: from the joint
                posterior q(z | X) (erratum E19).
            sample_likelihood: Whether to add noise of :meth:`noise_scale` to the decoders' means.
            protocol: ``"joint"``: the unobserved blocks together. ``"componentwise"``: each alone from its own
                conditional, as corollary 1 is written, so that they are independent given the observed.
            conditional: ``"exact"``, the generalised hyperbolic distribution of corollary 1 (erratum E3);
                ``"matched"``, the Gaussian of its mean and covariance, as appendix D.2 samples (erratum E4).

        Raises:
            ValueError: If an option is unknown.
        """
        for name, value, allowed in (("protocol", protocol, PROTOCOLS), ("conditional", conditional, CONDITIONALS)):
            if value not in allowed:
                raise ValueError(f"{name} is {value!r}, must be one of {allowed}")
        prior = self.prior()
        if given is None:
            return self._decoded(
                prior.split(prior.rsample((num_samples,), generator=generator)), sample_likelihood, generator
            )
        z = self._observed(given, num_samples, generator)
        if len(z) < len(self.modalities):
            rest = prior.condition(z)
            groups = [list(rest.block_sizes)] if protocol == "joint" else [[m] for m in rest.block_sizes]
            for names in groups:
                part = rest.marginal(names)
                part = part.matched_gaussian() if conditional == "matched" else part
                z |= part.split(part.rsample(generator=generator))
        return self._decoded(z, sample_likelihood, generator)
