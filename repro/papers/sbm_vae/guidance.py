"""Coherence guidance of SBM-VAE: a pair energy by noise-contrastive estimation, and contrastive encoders."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro.datasets.base import ModalitySpec
from repro.distributions.diffusion import VPSDE, Score, draw_noise, draw_times
from repro.networks.construction import rebuildable
from repro.networks.mlp import MLP
from repro.networks.unet import time_embedding
from repro.papers.sbm_vae.autoencoders import feature_network

__all__ = ["ContrastiveEncoders", "PairEnergy", "guided_score", "info_nce"]

TIME_FEATURES = 32


@rebuildable
class PairEnergy(nn.Module):
    r"""Energy of the latents of two modalities: low where they belong together.

    .. math::
        \max_\omega \; \mathbb{E} \ln \frac{1}{1 + e^{E_\omega(z_o, z_u)}}
        + \mathbb{E} \ln \frac{1}{1 + e^{-E_\omega(z_o, z_n)}}

    with :math:`z_n` the same modality's latents of another sample, all diffused to one random time. The optimum is the
    negative pointwise mutual information of the diffused latents, so that :math:`\gamma = 1` counts one observed
    modality twice. One fully connected network with softplus serves all ordered pairs: it is told which two modalities
    it sees, and the time.

    Arguments:
        num_modalities: M.
        latent_dim: D.
        sde: The perturbation kernel, the score model's.
        widths: Hidden layers.

    Raises:
        ValueError: If there are fewer than two modalities.

    Source: SBM-VAE, section 2.2.1, eq. 7, and appendix A.2.
    """

    def __init__(
        self, num_modalities: int, latent_dim: int, sde: VPSDE, widths: Sequence[int] = (512, 512, 512)
    ) -> None:
        super().__init__()
        if num_modalities < 2:
            raise ValueError(f"a pair energy needs at least two modalities, got {num_modalities}")
        self.num_modalities, self.latent_dim, self.sde = num_modalities, latent_dim, sde
        inputs = 2 * latent_dim + 2 * num_modalities + TIME_FEATURES
        self.network = MLP(inputs, tuple(widths), 1, activation=nn.Softplus)

    def forward(self, z_o: Tensor, z_u: Tensor, o: Tensor, u: Tensor, t: Tensor) -> Tensor:
        """Energies ``(batch,)``.

        Arguments:
            z_o: Diffused latents of the observed modality, ``(batch, D)``.
            z_u: Those of the unobserved one.
            o: Its index, ``(batch,)``.
            u: The other's.
            t: Times ``(batch,)``.
        """
        which = F.one_hot(torch.stack([o, u], 1), self.num_modalities).flatten(1).to(z_o)
        return self.network(torch.cat([z_o, z_u, which, time_embedding(t, TIME_FEATURES)], 1)).squeeze(-1)

    def loss(self, z: Tensor, present: Tensor | None = None) -> Tensor:
        """Minus eq. 7 for one random pair of modalities a sample, from standardised latents ``(batch, M, D)``.

        Arguments:
            z: The latents.
            present: ``(batch, M)``, 0 where a modality is missing; pairs with such a one do not count.

        Raises:
            ValueError: If there is one sample only, so that no other one can replace it.
        """
        number, device = len(z), z.device
        if number < 2:
            raise ValueError("noise-contrastive estimation needs at least two samples, got one")
        rows = torch.arange(number, device=device)
        o = torch.randint(self.num_modalities, (number,), device=device)
        u = (o + torch.randint(1, self.num_modalities, (number,), device=device)) % self.num_modalities
        others = (rows + torch.randint(1, number, (), device=device)) % number
        t = draw_times(number, 1e-5, z, None)
        diffuse = lambda x: self.sde.perturb(x, t, draw_noise(x, None))  # noqa: E731
        z_o, z_u, z_n = diffuse(z[rows, o]), diffuse(z[rows, u]), diffuse(z[others, u])
        costs = F.softplus(self(z_o, z_u, o, u, t)) + F.softplus(-self(z_o, z_n, o, u, t))
        if present is None:
            return costs.mean()
        share = present[rows, o] * present[rows, u] * present[others, u]
        return (share * costs).sum() / share.sum().clamp(min=1)

    def gradient(self, z: Tensor, t: Tensor, o: int, u: int) -> Tensor:
        """Each sample's own gradient of its energy with respect to z_u, ``(batch, D)``."""
        with torch.inference_mode(False), torch.enable_grad():
            z_u = z[:, u].clone().detach().requires_grad_()
            index = torch.full((len(z),), o, device=z.device)
            # A sum over independent samples: its gradient is each sample's own, not the batch mean's.
            energy = self(z[:, o].clone().detach(), z_u, index, torch.full_like(index, u), t.expand(len(z)))
            (found,) = torch.autograd.grad(energy.sum(), z_u)
        return found


def guided_score(
    score: Score,
    energy: PairEnergy,
    gamma: float,
    observed: Sequence[int],
    generator: torch.Generator | None = None,
) -> Score:
    r"""The score of eq. 8, with a new random pair of an observed and an unobserved modality at every evaluation.

    .. math:: s(z_u) = s_\theta(z_u) - \gamma \nabla_{z_u} E_\omega(z_o, z_u)

    Arguments:
        score: The unguided score, of ``(batch, M, D)``.
        energy: The energy model.
        gamma: The strength for one sample. The released code takes the gradient of a batch's mean, so that its scale of
            1000 at batches of 256 is 1000 / 256 = 3.9 here.
        observed: Indices of the observed modalities.
        generator: Source of the pairs.

    Raises:
        ValueError: If no or every modality is observed, or gamma is not finite.

    Source: SBM-VAE, eq. 8; errata, "Released code against the paper (SBM)".
    """
    known = sorted(set(observed))
    hidden = [k for k in range(energy.num_modalities) if k not in known]
    if not known or not hidden:
        raise ValueError(
            f"guidance needs an observed and a hidden modality, {len(known)} of {energy.num_modalities} are observed"
        )
    if not math.isfinite(gamma):
        raise ValueError(f"the strength of guidance is {gamma}, must be finite")

    def draw(number: int) -> int:
        device = "cpu" if generator is None else generator.device
        return int(torch.randint(number, (), generator=generator, device=device))

    def guided(z: Tensor, t: Tensor) -> Tensor:
        found = score(z, t).clone()
        o, u = known[draw(len(known))], hidden[draw(len(hidden))]
        found[:, u] -= gamma * energy.gradient(z, t, o, u).to(found)
        return found

    return guided


def info_nce(a: Tensor, b: Tensor, scale: Tensor | float) -> Tensor:
    r"""The symmetric contrastive loss of paired unit vectors.

    .. math:: -\frac{1}{2 N} \sum_n \ln \frac{e^{s\, a_n \cdot b_n}}{\sum_k e^{s\, a_n \cdot b_k}}
        + \ln \frac{e^{s\, a_n \cdot b_n}}{\sum_k e^{s\, a_k \cdot b_n}}

    Arguments:
        a: Unit vectors ``(N, E)``.
        b: Their partners.
        scale: The inverse temperature s.

    Source: Radford et al., "Learning transferable visual models from natural language supervision", 2021, figure 3.
    """
    logits = scale * a @ b.T
    target = torch.arange(len(a), device=a.device)
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))


@rebuildable
class ContrastiveEncoders(nn.Module):
    """Encoders of all modalities into one space, trained as CLIP's are, whose embeddings condition the score.

    Arguments:
        modalities: Name to :class:`~repro.model.ModalitySpec`.
        embedding_dim: Size of the embeddings.
        features: Size of the encoders' vectors before the linear projection head.
        widths: Channels of the residual networks of images.
        hidden: Widths of the fully connected networks of everything else.

    Source: SBM-VAE, section 2.2.2 and appendix A.9 (the VAEs' encoders, and a linear head to 512).
    """

    def __init__(
        self,
        modalities: Mapping[str, ModalitySpec],
        *,
        embedding_dim: int = 512,
        features: int = 128,
        widths: Sequence[int] = (64, 128, 256),
        hidden: Sequence[int] = (256, 256),
    ) -> None:
        super().__init__()
        self.names, self.embedding_dim = list(modalities), embedding_dim
        self.encoders = nn.ModuleDict({m: feature_network(s, features, widths, hidden) for m, s in modalities.items()})
        self.heads = nn.ModuleDict({m: nn.Linear(features, embedding_dim) for m in modalities})
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def embed(self, modality: str, x: Tensor) -> Tensor:
        """Unit vectors ``(batch, embedding_dim)``."""
        return F.normalize(self.heads[modality](F.leaky_relu(self.encoders[modality](x), 0.2)), dim=-1)

    def loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The contrastive loss averaged over all pairs of modalities."""
        embedded = [self.embed(m, batch[m]) for m in self.names]
        scale = self.log_scale.exp().clamp(max=100.0)
        pairs = [(i, j) for i in range(len(embedded)) for j in range(i)]
        return torch.stack([info_nce(embedded[i], embedded[j], scale) for i, j in pairs]).mean()

    def context(self, embedded: Tensor, observed: Tensor) -> Tensor:
        """The mean embedding of the observed modalities, zeros where there is none.

        Arguments:
            embedded: Embeddings ``(batch, M, embedding_dim)``; those that are not observed may be anything finite.
            observed: ``(batch or 1, M)``, boolean.

        Returns:
            ``(batch, embedding_dim)``, times the root of its size so that entries are of the order of one.
        """
        share = observed.unsqueeze(-1).to(embedded)
        mean = (share * embedded).sum(1) / share.sum(1).clamp(min=1)
        return math.sqrt(self.embedding_dim) * mean
