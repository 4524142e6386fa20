"""Fine-tuning of SBM-VAE's decoders on latents that the score model draws for dropped modalities."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from repro.model import Loss
from repro.papers.sbm_vae.autoencoders import Autoencoders
from repro.papers.sbm_vae.sampling import FAST, SamplingSettings, sample_latents
from repro.papers.sbm_vae.score import LatentScore

__all__ = ["finetune_loss"]


def finetune_loss(
    autoencoders: Autoencoders,
    score: LatentScore,
    z: Tensor,
    batch: Mapping[str, Tensor],
    drop: float,
    sampling: SamplingSettings = FAST,
) -> Loss:
    r"""Minus the log-likelihood of dropped modalities, decoded from latents drawn given the others.

    .. math:: \max_\psi \; \mathbb{E}_{q(z_u \mid z_o, x_o)} \ln p_\psi(x_u \mid z_u)

    Each modality of each sample is dropped with probability p; one, chosen at random, is always kept.

    Arguments:
        autoencoders: Their decoders have gradients.
        score: The score model, which is put into evaluation mode.
        z: Standardised latents ``(batch, M, D)``.
        batch: The modalities themselves.
        drop: The probability p.
        sampling: How latents are drawn.

    Source: SBM-VAE, appendix A.5.1, eq. 11 (there with a score model of another kind).
    """
    names = list(autoencoders.modalities)
    with torch.no_grad():
        score.eval()
        kept = torch.rand(len(z), len(names), device=z.device) >= drop
        kept[torch.arange(len(z), device=z.device), torch.randint(len(names), (len(z),), device=z.device)] = True
        if bool(kept.all()):
            kept[0, int(torch.randint(len(names), ()))] = False
        drawn = score.restore(sample_latents(score, len(z), sampling, values=z, observed=kept))
    costs = torch.zeros((), device=z.device)
    for k, m in enumerate(names):
        if bool((dropped := ~kept[:, k]).any()):
            found = autoencoders.parameters_of(m, drawn[dropped, k])
            costs = costs - autoencoders.log_prob(m, batch[m][dropped], found).sum()
    total = costs / (~kept).sum()
    return Loss(total, {"dropped": total.detach()})
