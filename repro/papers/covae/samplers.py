"""Samplers of joint latents fitted to the aggregate posterior, which take the prior's place in generation."""

from __future__ import annotations

import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor

from repro.datasets.base import Dataset
from repro.model import isolated_rng
from repro.networks.flow import LatentFlow
from repro.papers.covae.model import CoVAE

__all__ = ["FlowSampler", "MixtureSampler", "aggregate_latents", "fit_flow", "fit_mixture"]


@torch.no_grad()
def aggregate_latents(
    model: CoVAE, data: Dataset, *, generator: torch.Generator | None = None, batch_size: int = 1000
) -> Tensor:
    """One sample of the joint posterior for each sample of a split, ``(N, D)``: draws of the aggregate posterior."""
    batches = data.batches(batch_size, shuffle=False)
    return torch.cat([model.posterior(b).rsample(generator=generator) for b in batches])


class MixtureSampler:
    """A Gaussian mixture of full covariances.

    Arguments:
        weights: Of the components, ``(C,)``.
        means: ``(C, D)``.
        scale_trils: Cholesky factors of the covariances, ``(C, D, D)``.
    """

    def __init__(self, weights: Tensor, means: Tensor, scale_trils: Tensor) -> None:
        self.weights, self.means, self.scale_trils = weights, means, scale_trils

    def sample(self, num_samples: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Latents of shape ``(num_samples, D)``."""
        device = self.means.device if generator is None else generator.device
        chosen = torch.multinomial(self.weights.to(device), num_samples, replacement=True, generator=generator)
        noise = torch.randn(num_samples, self.means.shape[1], generator=generator, device=device)
        chosen, noise = chosen.to(self.means.device), noise.to(self.means)
        return self.means[chosen] + (self.scale_trils[chosen] @ noise.unsqueeze(-1)).squeeze(-1)


def fit_mixture(latents: Tensor, *, components: int = 10, seed: int = 0) -> MixtureSampler:
    """Fits scikit-learn's Gaussian mixture to latents.

    Arguments:
        latents: ``(N, D)``.
        components: Number of Gaussians.
        seed: Of the fit's start.

    Raises:
        ValueError: If there are not more samples than components.

    Source: CoVAE, section 2.2, "Generating from CoVAE".
    """
    if not 1 <= components < len(latents):
        raise ValueError(f"{components} components for {len(latents)} latents")
    fit = GaussianMixture(components, covariance_type="full", reg_covar=1e-5, random_state=seed)
    fit.fit(latents.detach().cpu().double().numpy())
    trils = torch.linalg.cholesky(torch.from_numpy(fit.covariances_))
    found = (torch.from_numpy(fit.weights_), torch.from_numpy(fit.means_), trils)
    return MixtureSampler(*(v.to(latents) for v in found))


class FlowSampler:
    """A masked autoregressive flow of standardised latents.

    Arguments:
        flow: The flow.
        mean: ``(D,)``.
        deviation: ``(D,)``.
    """

    def __init__(self, flow: LatentFlow, mean: Tensor, deviation: Tensor) -> None:
        self.flow, self.mean, self.deviation = flow, mean, deviation

    @torch.no_grad()
    def sample(self, num_samples: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Latents of shape ``(num_samples, D)``."""
        return self.mean + self.deviation * self.flow.sample(num_samples, generator=generator)


def fit_flow(
    latents: Tensor, *, steps: int = 1000, batch_size: int = 256, learning_rate: float = 1e-3, seed: int = 0
) -> FlowSampler:
    """Fits a masked autoregressive flow to latents by maximum likelihood with Adam.

    Arguments:
        latents: ``(N, D)``.
        steps: Gradient steps.
        batch_size: Latents a step, drawn with replacement.
        learning_rate: Of Adam.
        seed: Of parameters and batches.

    Raises:
        ValueError: If a latent is constant.

    Source: CoVAE, section 2.2 and appendix A.
    """
    mean, deviation = latents.mean(0), latents.std(0)
    if not bool((deviation > 0).all()):
        raise ValueError(f"latents {(deviation <= 0).nonzero().flatten().tolist()} are constant")
    x = ((latents - mean) / deviation).detach()
    with torch.enable_grad(), isolated_rng(seed):
        flow = LatentFlow(latents.shape[1], transforms=3, hidden=(64, 64)).to(latents)
        optimizer = torch.optim.Adam(flow.parameters(), lr=learning_rate)
        for _ in range(steps):
            rows = torch.randint(len(x), (batch_size,), device=x.device)
            optimizer.zero_grad()
            flow.loss(x[rows]).backward()
            optimizer.step()
    return FlowSampler(flow.requires_grad_(False).eval(), mean, deviation)
