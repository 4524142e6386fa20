"""Stage II of SBM-VAE: the score model over the stacked latents of all modalities."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from repro.distributions.diffusion import VPSDE, WEIGHTINGS, denoising_loss, draw_noise, draw_times
from repro.networks.construction import rebuildable
from repro.networks.unet import ScoreUNet

__all__ = ["LatentScore"]

# Latents that hardly vary are not blown up to unit variance: their noise is the autoencoder's rounding.
LEAST_SCALE = 1e-4


@rebuildable
class LatentScore(nn.Module):
    r"""The score of diffused standardised latents, a U-Net on images with one channel a modality.

    .. math:: s_\theta(z_t, t) = -\epsilon_\theta(z_t, t) / \sigma_t, \quad
        z_0 = (z - \mu) / \varsigma \text{ by coordinate}

    Sampling uses an average of the weights, :math:`\bar\theta \leftarrow d \bar\theta + (1 - d) \theta` with
    :math:`d = \min(d_{max}, (1 + n) / (10 + n))` at step n. It takes in the weights that a step starts from. As long as
    nothing was trained it is the network as it was made.

    With ``multi_time`` the network has one time a modality: in training a random subset of modalities stays clean at
    time 0, and only the others' scores are learned. That is MLD, whose conditional score is exact where this one's is
    not: the joint score only ever sees observed latents diffused.

    Arguments:
        num_modalities: M.
        latent_dim: D, a square number.
        sde: The diffusion; Table 4's by default, (0.1, 5) from ten modalities on and (1, 5) below.
        weighting: Of the score-matching loss, ``"variance"`` or ``"unweighted"`` (erratum E11).
        decay: The largest d of the average.
        width, multipliers, blocks: Of :class:`~repro.networks.unet.ScoreUNet`.
        context_dim: Size of the embedding that conditions the score (contrastive guidance), 0 for none.
        multi_time: Whether to train as MLD does.
        compute_dtype: ``"float32"`` or ``"bfloat16"``, what the network computes in.

    Raises:
        ValueError: If the latents are no square image or another number is out of range.

    Source: SBM-VAE, section 2 and appendix A.2; errata E11 and E12. Bounoua et al., "Multi-modal latent diffusion",
    2024, for ``multi_time``.
    """

    def __init__(
        self,
        num_modalities: int,
        latent_dim: int,
        *,
        sde: VPSDE | None = None,
        weighting: str = "variance",
        decay: float = 0.9999,
        width: int = 64,
        multipliers: Sequence[int] = (1, 2, 2),
        blocks: int = 2,
        context_dim: int = 0,
        multi_time: bool = False,
        compute_dtype: str = "float32",
    ) -> None:
        super().__init__()
        size = math.isqrt(latent_dim)
        if size * size != latent_dim:
            raise ValueError(f"{latent_dim} latents a modality are no square image; 64 and 256 are the papers'")
        if weighting not in WEIGHTINGS:
            raise ValueError(f"weighting is {weighting!r}, must be one of {WEIGHTINGS}")
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}, must be in [0, 1)")
        if compute_dtype not in ("float32", "bfloat16"):
            raise ValueError(f"compute_dtype is {compute_dtype!r}, must be 'float32' or 'bfloat16'")
        self.num_modalities, self.latent_dim, self.size = num_modalities, latent_dim, size
        self.sde = sde or VPSDE(0.1 if num_modalities >= 10 else 1.0, 5.0)
        self.weighting, self.decay, self.multi_time, self.compute_dtype = weighting, decay, multi_time, compute_dtype
        self.network = ScoreUNet(
            num_modalities,
            size,
            width=width,
            multipliers=multipliers,
            blocks=blocks,
            num_times=num_modalities if multi_time else 1,
            context_dim=context_dim,
        )
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.location: Tensor
        self.scale: Tensor
        self.updates: Tensor
        self.seen: Tensor
        self.register_buffer("location", torch.zeros(num_modalities, latent_dim))
        self.register_buffer("scale", torch.ones(num_modalities, latent_dim))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.register_buffer("seen", torch.full((num_modalities,), torch.nan), persistent=False)

    @torch.no_grad()
    def fit(self, mean: Tensor, scale: Tensor, present: Tensor | None = None) -> None:
        """Takes location and scale of the latents of a training split.

        Arguments:
            mean: Means of q(z | x), ``(N, M, D)``.
            scale: Their standard deviations, 0 for points.
            present: ``(N, M)``, 0 where a modality is missing; those are left out.

        Raises:
            ValueError: If the shape is another.
        """
        self.check(mean)
        share = torch.ones_like(mean[..., :1]) if present is None else present.unsqueeze(-1)
        count = share.sum(0).clamp(min=1)
        self.location.copy_((share * mean).sum(0) / count)
        variance = (share * ((mean - self.location).square() + scale.square())).sum(0) / count
        self.scale.copy_(variance.sqrt().clamp(min=LEAST_SCALE))

    def check(self, z: Tensor) -> None:
        """Raises ValueError unless latents are ``(..., M, D)`` of this network."""
        if tuple(z.shape[-2:]) != (self.num_modalities, self.latent_dim):
            raise ValueError(
                f"latents have shape {tuple(z.shape)}, the score network is for (batch, {self.num_modalities} "
                f"modalities, {self.latent_dim})"
            )

    def standardise(self, z: Tensor) -> Tensor:
        """Latents of the autoencoders as the score model has them."""
        return (z - self.location) / self.scale

    def restore(self, z: Tensor) -> Tensor:
        """The inverse of :meth:`standardise`."""
        return z * self.scale + self.location

    @torch.no_grad()
    def update_average(self) -> None:
        """Takes the present weights into the average, once however often it is called between two steps.

        A batch that is divided into parts has several losses a step; that weights were not stepped in between shows in
        the last layer's bias. Nothing here makes a GPU wait.
        """
        changed = (self.network.output.bias != self.seen).any()
        self.seen.copy_(self.network.output.bias)
        self.updates += changed
        n = self.updates.to(self.location)
        weight = torch.where(changed, 1 - ((1 + n) / (10 + n)).clamp(max=self.decay), torch.zeros_like(n))
        averages, current = list(self.average.parameters()), list(self.network.parameters())
        steps = torch._foreach_sub(current, averages)
        torch._foreach_mul_(steps, weight)
        torch._foreach_add_(averages, steps)

    def noise(self, z: Tensor, t: Tensor, context: Tensor | None = None) -> Tensor:
        """The noise predicted in ``(batch, M, D)`` at times ``(batch,)``, or ``(batch, M)`` under ``multi_time``.

        The network in training mode, its average in evaluation mode.
        """
        network = self.network if self.training else self.average
        images = z.unflatten(-1, (self.size, self.size))
        with torch.autocast(z.device.type, torch.bfloat16, enabled=self.compute_dtype == "bfloat16"):
            found = network(images, t, context)
        return found.flatten(-2).to(z.dtype)

    def forward(self, z: Tensor, t: Tensor, context: Tensor | None = None, *, observed: Tensor | None = None) -> Tensor:
        """The score at standardised latents ``(batch, M, D)``.

        Arguments:
            z: The latents, diffused to time t; under ``multi_time`` observed ones clean.
            t: 0-dimensional or ``(batch,)``.
            context: Embeddings ``(batch, context_dim)``; None for none.
            observed: Under ``multi_time``, which modalities are clean, ``(batch or 1, M, 1)``.
        """
        self.check(z)
        times = t.expand(len(z))
        if self.multi_time:
            each = times.unsqueeze(-1).expand(-1, self.num_modalities)
            if observed is not None:
                each = torch.where(observed[..., 0], torch.zeros_like(each), each)
            times_in = each
        else:
            times_in = times
        return -self.noise(z, times_in, context) / self.sde.sigma(times)[:, None, None]

    def loss(self, z: Tensor, context: Tensor | None = None, present: Tensor | None = None) -> Tensor:
        """Score matching on clean standardised latents ``(batch, M, D)``, a scalar a coordinate (mean over them).

        Arguments:
            z: The latents.
            context: Embeddings that condition the score.
            present: ``(batch, M)``, 0 where a modality is missing: its latents are filled with noise and its score is
                masked (appendix A.10.1).
        """
        self.check(z)
        mask = None
        if present is not None:
            mask = present.unsqueeze(-1)
            z = torch.where(mask > 0, z, torch.randn_like(z))
        if self.multi_time:
            return self._multi_time_loss(z, mask) / z[0].numel()
        found = denoising_loss(lambda x, t: self(x, t, context), self.sde, z, weighting=self.weighting, mask=mask)
        return found / z[0].numel()

    def _multi_time_loss(self, z: Tensor, mask: Tensor | None) -> Tensor:
        clean = random_subsets(len(z), self.num_modalities, z.device)
        t = draw_times(len(z), 1e-5, z, None)
        noise = draw_noise(z, None)
        diffused = torch.where(clean, z, self.sde.perturb(z, t, noise))
        error = self.sde.sigma(t)[:, None, None] * self(diffused, t, observed=clean) + noise
        weight = (~clean).to(z) if mask is None else (~clean) * mask
        if self.weighting == "unweighted":
            weight = weight / self.sde.sigma(t).square()[:, None, None]
        return (weight * error.square()).flatten(1).sum(1).mean()


def random_subsets(number: int, num_modalities: int, device: torch.device) -> Tensor:
    """Random subsets of the modalities, ``(number, M, 1)``: empty in half the cases, else of a size from 1 to M - 1.

    Source: Bounoua et al., 2024, section 5 (the joint task with probability one half).
    """
    size = torch.randint(1, max(2, num_modalities), (number, 1), device=device)
    size = size * (torch.rand(number, 1, device=device) < 0.5)
    rank = torch.rand(number, num_modalities, device=device).argsort(1).argsort(1)
    return (rank < size.clamp(max=num_modalities - 1)).unsqueeze(-1)
