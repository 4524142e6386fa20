"""Unimodal autoencoders whose latents are drawn from a structure that was fitted to their encodings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from repro.datasets.base import Dataset, ModalitySpec
from repro.distributions.block_gaussian import BlockGaussian
from repro.distributions.mcmc import MCMCDiagnostics
from repro.model import Loss, MultimodalModel, Stage
from repro.papers.compare.priors.structures import Structure
from repro.papers.sbm_vae.autoencoders import Autoencoders
from repro.papers.sbm_vae.staging import cached_latents

__all__ = ["StructuredAutoencoders"]

DECODED_AT_ONCE = 10_000


class StructuredAutoencoders(MultimodalModel):
    r"""Independent VAEs, one a modality, and a structure of their latents that they know nothing of.

    .. math:: p(x_{1:M}) = \int p(z_{1:M}) \prod_m p(x_m \mid z_m) \, dz

    The training loop trains the autoencoders alone, so that they and their weights are the same for all structures;
    :meth:`fit` then fits one to the encodings of the training split, standardised by coordinate. It is no part of the
    weights: a model that has one is refused by :meth:`save_pretrained`, as its samples would be lost.

    Arguments:
        modalities: Name to :class:`~repro.model.ModalitySpec`.
        autoencoders: Of these modalities.
    """

    def __init__(self, modalities: Mapping[str, ModalitySpec], autoencoders: Autoencoders) -> None:
        super().__init__(modalities)
        self.autoencoders = autoencoders
        self.structure: Structure | None = None
        self.fitted = False
        self.location, self.scale = torch.zeros(()), torch.ones(())

    def stages(self) -> Sequence[Stage]:
        return (Stage("autoencoders"),)

    def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
        """The sum of the autoencoders' losses."""
        self.check_batch(batch)
        return self.autoencoders.loss(batch)

    @torch.no_grad()
    def encodings(self, data: Dataset) -> Dataset:
        """Standardised ``"mean"`` and ``"scale"`` of each q(z | x), ``(N, M, D)``; sets location and scale by them."""
        raw = cached_latents(self.autoencoders, None, data, None, sampled=True)
        mean, scale = (raw.data[name] for name in ("mean", "scale"))
        self.location = mean.mean(0)
        self.scale = ((mean - self.location).square() + scale.square()).mean(0).sqrt()
        return replace(raw, data={"mean": (mean - self.location) / self.scale, "scale": scale / self.scale})

    @torch.no_grad()
    def fit(self, structure: Structure, encodings: Dataset, seed: int) -> int:
        """Fits a structure to :meth:`encodings`, from which the model then draws; returns its free numbers."""
        number = structure.fit(encodings, seed)
        self.structure, self.fitted = structure, True
        return number

    @property
    def diagnostics(self) -> MCMCDiagnostics | None:
        """Of the chains of the structure's last draws; None of a structure without chains."""
        return None if self.structure is None else self.structure.diagnostics

    def _fitted(self) -> Structure:
        if self.structure is None:
            raise ValueError("no structure is fitted to the encodings yet; call fit first")
        return self.structure

    def _noise_scale(self, modality: str) -> float:
        return self.autoencoders.noise_scale(modality)

    def unary_posterior(self, modality: str, x: Tensor) -> BlockGaussian:
        """q(z | x) of one modality, in the autoencoder's own coordinates."""
        mean, scale = self.autoencoders.encode(modality, x)
        return BlockGaussian(mean, torch.diag_embed(scale), {modality: mean.shape[-1]}, validate_args=False)

    def decode(self, z: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Decoders' means for some modalities' latents ``(*batch, D)`` in the autoencoder's own coordinates."""
        return {m: self.autoencoders.parameters_of(m, v) for m, v in z.items()}

    def draw(
        self, num_samples: int, given: Mapping[str, Tensor] | None, generator: torch.Generator | None
    ) -> tuple[Tensor, tuple[int, ...]]:
        """Standardised latents ``(rows, M, D)``, and the leading shape that the rows stand for.

        Observed latents are draws of their q(z | x), as all structures are fitted to.
        """
        if given is None:
            return self._fitted().sample(num_samples, generator), (num_samples,)
        size = len(next(iter(given.values())))
        like = next(self.autoencoders.parameters())
        dim = self.autoencoders.latent_dim
        values = torch.zeros(num_samples, size, len(self.modalities), dim, dtype=like.dtype, device=like.device)
        observed = []
        for k, m in enumerate(self.modalities):
            if m in given:
                z = self.unary_posterior(m, given[m]).rsample((num_samples,), generator)
                values[:, :, k] = (z - self.location[k]) / self.scale[k]
                observed.append(k)
        rows = values.flatten(0, 1)
        if len(observed) < len(self.modalities):
            rows = self._fitted().conditional(rows, observed, generator)
        return rows, (num_samples, size)

    def _generate(
        self,
        num_samples: int,
        *,
        given: Mapping[str, Tensor] | None,
        generator: torch.Generator | None,
        sample_likelihood: bool,
    ) -> dict[str, Tensor]:
        """Samples of the structure, decoded; given all modalities, reconstructions.

        Raises:
            ValueError: If no structure is fitted and one is needed, or noise is asked of a binary modality.
        """
        rows, lead = self.draw(num_samples, given, generator)
        z = rows * self.scale + self.location
        parts = [self.autoencoders.decode(chunk) for chunk in z.split(DECODED_AT_ONCE)]
        out = {m: torch.cat([p[m] for p in parts]).unflatten(0, lead) for m in self.modalities}
        if not sample_likelihood:
            return out
        device = z.device if generator is None else generator.device
        return {
            m: x + self.noise_scale(m) * torch.randn(x.shape, generator=generator, device=device).to(x)
            for m, x in out.items()
        }
