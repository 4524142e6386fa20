"""What the two variants whose latents are not all Gaussian share with the Gaussian one, and with each other."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from repro.datasets.base import ModalitySpec
from repro.papers.gmrf_mcvae.model import GMRFMCVAE
from repro.papers.mrf_mvae.networks import fully_connected_networks

__all__ = ["MRFMVAE"]


class MRFMVAE(GMRFMCVAE):
    r"""The Gaussian model's encoders, decoders and likelihood, for other distributions of the latents.

    Encoder i gives a vector and the diagonal of :math:`L_{ii}`; the covariance encoder (3 x 128) gives all entries of
    L beside the diagonal, those within a block too (Figure 1's "diagonal block matrix" is read as a diagonal one, and
    appendix C.1 has "the off-diagonal elements" computed by that network).

    The published betas are relative to a likelihood whose scale is not stated. By default the negative log-likelihood
    is that of a Gaussian of unit scale, in nats, summed over all pixels; beta is then the variance of a pixel's noise
    (:meth:`noise_scale` is its root): 0.0078 is a standard deviation of 0.088 for values in [0, 1]. With
    ``reduction="mean"``, as in the author's later code, the same 0.0078 on 784 pixels is one of 2.5.

    Arguments:
        modalities: Name to :class:`~repro.model.ModalitySpec`.
        latent_dim: Latents a modality, d.
        beta: Weight of the term that ties posterior and prior.
        likelihood: ``"gaussian"`` or ``"laplace"``.
        scale: Scale of the likelihood in the data's unit.
        reduction: ``"sum"`` or ``"mean"`` over the values of a modality.
        encoders: Modules with ``features``, ``heads`` and ``feature_dim``; appendix D.2's if None.
        decoders: Modules from ``(batch, d)`` to the flattened modality; appendix D.2's if None.

    Raises:
        ValueError: As :class:`~repro.papers.gmrf_mcvae.model.GMRFMCVAE`.
    """

    def __init__(
        self,
        modalities: Mapping[str, ModalitySpec],
        *,
        latent_dim: int,
        beta: float,
        likelihood: str,
        scale: float,
        reduction: str,
        encoders: Mapping[str, nn.Module] | None,
        decoders: Mapping[str, nn.Module] | None,
    ) -> None:
        if encoders is None or decoders is None:
            own_encoders, own_decoders = fully_connected_networks(modalities, latent_dim)
            encoders = own_encoders if encoders is None else encoders
            decoders = own_decoders if decoders is None else decoders
        super().__init__(
            modalities,
            latent_dim=latent_dim,
            prior="standard",  # without parameters; the variant puts its own in this place
            beta=beta,
            likelihood=likelihood,
            scale=scale,
            reduction=reduction,
            encoders=encoders,
            decoders=decoders,
        )

    def reconstruction(self, batch: Mapping[str, Tensor], z: Tensor) -> Tensor:
        """Negative log-likelihood of a batch under latents ``(*samples, batch, D)``, averaged over both: a scalar."""
        total = z.new_zeros(())
        for m, mean in self.decode(self._split(z)).items():
            term = -self.log_prob(m, batch[m], mean, self.scale).mean()
            total = total + (term / self.modalities[m].numel if self.reduction == "mean" else term)
        return total

    def _split(self, z: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.block_sizes, z.split(list(self.block_sizes.values()), -1), strict=True))

    def _observed(
        self, given: Mapping[str, Tensor], num_samples: int, generator: torch.Generator | None
    ) -> dict[str, Tensor]:
        """Draws ``(num_samples, batch, d)`` of each observed block: all from the joint posterior, else each alone.

        Where all modalities are given, from q(z | X), which the decoders were trained with (erratum E19); otherwise
        each block from its own encoder's posterior.
        """
        if len(given) == len(self.modalities):
            return self._joint_latents(given, num_samples, generator)
        return {
            m: self.unary_posterior(m, given[m]).rsample((num_samples,), generator=generator)
            for m in self.modalities
            if m in given
        }

    def _decoded(
        self, z: Mapping[str, Tensor], sample_likelihood: bool, generator: torch.Generator | None
    ) -> dict[str, Tensor]:
        out = self.decode({m: z[m] for m in self.modalities})
        return {m: x + self._noise(m, x, generator) for m, x in out.items()} if sample_likelihood else out
