"""NAME: a linear-Gaussian model, whose conditional samples and likelihoods are exact. Replace what you like.

    repro run gmrf-table1 --profile quick --method NAME=FILE:build --set latent_dim=6

x_m = W_m z + mu_m + noise of standard deviation s_m, z ~ N(0, I), for every modality m, flattened.
"""

import torch
from torch import nn
from torch.distributions import LowRankMultivariateNormal

from repro.model import Loss, MultimodalModel

__all__ = ["build"]


class Model(MultimodalModel):
    def __init__(self, modalities, latent_dim):
        super().__init__(modalities)  # name to ModalitySpec: .shape of one sample, .numel its values, .range
        self.latent_dim = latent_dim
        self.weight = nn.ParameterDict({m: 0.1 * torch.randn(s.numel, latent_dim) for m, s in modalities.items()})
        self.mean = nn.ParameterDict({m: torch.zeros(s.numel) for m, s in modalities.items()})
        self.log_scale = nn.ParameterDict({m: torch.zeros(()) for m in modalities})

    def _density(self, names):
        """p(x) of some modalities, flattened and joined: N(mu, W W' + diag(s^2))."""
        noise = [(2 * self.log_scale[m]).exp().expand(self.modalities[m].numel) for m in names]
        mean, weight = (torch.cat([p[m] for m in names]) for p in (self.mean, self.weight))
        return LowRankMultivariateNormal(mean, weight, torch.cat(noise))

    def _log_marginal(self, batch, num, generator):  # log_likelihood, joint and conditional, follows from it
        return self._density(list(batch)).log_prob(torch.cat([x.flatten(1) for x in batch.values()], 1))

    def loss(self, batch, stage=None):
        """What training minimises: a scalar with a gradient, here the negative log-likelihood a sample."""
        return Loss(-self._log_marginal(batch, 1, None).mean())

    def _generate(self, num_samples, *, given, generator, sample_likelihood):
        """Every modality, (num_samples, *shape), or (num_samples, batch, *shape) given some modalities."""
        given = given or {}
        precision, scaled = torch.eye(self.latent_dim), torch.zeros(1, self.latent_dim)  # of z given x, by Bayes
        for m, x in given.items():
            weight = self.weight[m] * (-2 * self.log_scale[m]).exp()
            precision = precision.to(x) + self.weight[m].T @ weight
            scaled = scaled.to(x) + (x.flatten(1) - self.mean[m]) @ weight
        covariance = torch.linalg.inv(precision.to(self.mean[next(iter(self.mean))]))
        noise = torch.randn(num_samples, len(scaled), self.latent_dim, generator=generator, device=covariance.device)
        z = scaled.to(covariance) @ covariance + noise @ torch.linalg.cholesky(covariance).T
        found = {}
        for m, spec in self.modalities.items():
            x = z @ self.weight[m].T + self.mean[m]
            if sample_likelihood:
                x = x + self.log_scale[m].exp() * torch.randn(x.shape, generator=generator, device=x.device)
            found[m] = x.unflatten(-1, spec.shape)
        return found if given else {m: x[:, 0] for m, x in found.items()}


def build(modalities, latent_dim=6):
    return Model(modalities, latent_dim)
