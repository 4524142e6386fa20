"""Stage I of SBM-VAE: one autoencoder a modality, independent of one another, trained at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro.datasets.base import ModalitySpec, check_name
from repro.metrics.likelihood import gaussian_log_prob
from repro.model import Loss, networks_by_name
from repro.networks.construction import rebuildable
from repro.networks.mlp import MLP
from repro.networks.soft_intro import SoftIntroDecoder, SoftIntroEncoder

__all__ = ["KINDS", "LIKELIHOODS", "Autoencoders", "feature_network"]

KINDS = ("vae", "rae")
LIKELIHOODS = ("gaussian", "bernoulli")
# Log-variances outside this range are no use to any latent of the scale of one, and overflow in low precision.
LOG_VARIANCE_RANGE = (-20.0, 10.0)


def feature_network(spec: ModalitySpec, outputs: int, widths: Sequence[int], hidden: Sequence[int]) -> nn.Module:
    """An encoder from a modality to a vector: convolutional for images and spectrograms, fully connected elsewhere."""
    if len(spec.shape) == 3:
        return SoftIntroEncoder(spec.shape, outputs, widths=widths)
    return nn.Sequential(nn.Flatten(), MLP(spec.numel, tuple(hidden), outputs))


@rebuildable
class Autoencoders(nn.Module):
    r"""Unimodal VAEs, or regularised autoencoders, of the same latent size.

    .. math::
        L_{VAE} &= \sum_m -\ln p(x_m \mid z_m) + \beta_m \, KL\big(q(z_m \mid x_m) \,\|\, N(0, I)\big) \\
        L_{RAE} &= \sum_m \| x_m - D_m(z_m + \eta) \|^2 + \lambda \| z_m \|^2, \quad \eta \sim N(0, v I)

    Sums run over the values of a modality; the Gaussian likelihood has scale 1. No parameter is shared and every
    parameter's step is its own (Adam), so that training all at once is training each alone.

    Arguments:
        modalities: Name to :class:`~repro.model.ModalitySpec`.
        kind: ``"vae"`` or ``"rae"``.
        latent_dim: Latents a modality, D.
        beta: Weight of the KL term; one number or one a modality.
        likelihoods: Modality to ``"gaussian"`` or ``"bernoulli"``; by default Bernoulli for binary vectors.
        regularisation: The weight lambda of a RAE, one number or one a modality.
        noise_variance: The variance v of a RAE's noise, one number or one a modality.
        widths: Channels of the residual networks of images.
        hidden: Widths of the fully connected networks of everything else.
        compute_dtype: ``"float32"`` or ``"bfloat16"``, what the networks compute in while training.
        encoders: Modality to a network that gives mean and log-variance of a VAE, ``(batch, 2 D)``, or the latents of a
            RAE, ``(batch, D)``; those of appendix A.9 if None.
        decoders: Modality to a network from ``(*batch, D)`` to the flattened modality; those of appendix A.9 if None.

    Raises:
        ValueError: If an option is unknown, a number is not positive, or a mapping has other modalities.

    Source: SBM-VAE, eq. 1 to 3 and 10, appendices A.1, A.2 and A.9.
    """

    def __init__(
        self,
        modalities: Mapping[str, ModalitySpec],
        *,
        kind: str = "vae",
        latent_dim: int = 64,
        beta: float | Mapping[str, float] = 0.1,
        likelihoods: Mapping[str, str] | None = None,
        regularisation: float | Mapping[str, float] = 1e-5,
        noise_variance: float | Mapping[str, float] = 0.01,
        widths: Sequence[int] = (64, 128, 256),
        hidden: Sequence[int] = (256, 256),
        compute_dtype: str = "float32",
        encoders: Mapping[str, nn.Module] | None = None,
        decoders: Mapping[str, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        for m in modalities:
            check_name(m)
        if kind not in KINDS:
            raise ValueError(f"kind is {kind!r}, must be one of {KINDS}")
        if latent_dim < 1:
            raise ValueError(f"latent_dim is {latent_dim}, must be at least 1")
        if compute_dtype not in ("float32", "bfloat16"):
            raise ValueError(f"compute_dtype is {compute_dtype!r}, must be 'float32' or 'bfloat16'")
        self.modalities, self.kind, self.latent_dim = dict(modalities), kind, latent_dim
        self.beta = self._each("beta", beta)
        self.regularisation = self._each("regularisation", regularisation)
        self.noise_variance = self._each("noise_variance", noise_variance)
        defaults = {m: _default_likelihood(s) for m, s in modalities.items()}
        self.likelihoods = defaults | dict(likelihoods or {})
        if set(self.likelihoods) != set(defaults) or not set(self.likelihoods.values()) <= set(LIKELIHOODS):
            raise ValueError(f"likelihoods {self.likelihoods} must be {LIKELIHOODS} for modalities {list(defaults)}")
        for m, likelihood in self.likelihoods.items():
            bounds = self.modalities[m].bounds
            if likelihood == "bernoulli" and (bounds is None or not 0 <= bounds[0] < bounds[1] <= 1):
                raise ValueError(f"modality {m!r} has the range {bounds}; a Bernoulli likelihood needs one in [0, 1]")
        self.compute_dtype = compute_dtype
        outputs = 2 * latent_dim if kind == "vae" else latent_dim
        if encoders is None:
            encoders = {m: feature_network(s, outputs, widths, hidden) for m, s in modalities.items()}
        if decoders is None:
            decoders = {m: _decoder(s, latent_dim, widths, hidden) for m, s in modalities.items()}
        self.encoders = nn.ModuleDict(networks_by_name("encoders", encoders, modalities))
        self.decoders = nn.ModuleDict(networks_by_name("decoders", decoders, modalities))

    def _each(self, name: str, value: float | Mapping[str, float]) -> dict[str, float]:
        found = dict(value) if isinstance(value, Mapping) else dict.fromkeys(self.modalities, value)
        if set(found) != set(self.modalities) or not all(v > 0 and math.isfinite(v) for v in found.values()):
            raise ValueError(f"{name} is {value}, must be positive, one number or one for each of {[*self.modalities]}")
        return {m: float(found[m]) for m in self.modalities}

    def _autocast(self, x: Tensor) -> torch.autocast:
        return torch.autocast(x.device.type, torch.bfloat16, enabled=self.training and self.compute_dtype == "bfloat16")

    def encode(self, modality: str, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z | x), each ``(batch, D)``; the deviation of a RAE is 0."""
        with self._autocast(x):
            found = self.encoders[modality](x)
        found = _whole(found)
        if self.kind == "rae":
            return found, torch.zeros_like(found)
        mean, log_variance = found.chunk(2, -1)
        return mean, (0.5 * log_variance.clamp(*LOG_VARIANCE_RANGE)).exp()

    def parameters_of(self, modality: str, z: Tensor) -> Tensor:
        """What the decoder gives for ``(*batch, D)``: a Gaussian's mean, or a Bernoulli distribution's logits."""
        with self._autocast(z):
            found = self.decoders[modality](z)
        return _whole(found).reshape(*z.shape[:-1], *self.modalities[modality].shape)

    def decode(self, z: Tensor) -> dict[str, Tensor]:
        """Means of every modality, each ``(*batch, *spec.shape)``, for stacked latents ``(*batch, M, D)``."""
        means = {}
        for k, m in enumerate(self.modalities):
            found = self.parameters_of(m, z[..., k, :])
            means[m] = found.sigmoid() if self.likelihoods[m] == "bernoulli" else found
        return means

    def log_prob(self, modality: str, x: Tensor, parameters: Tensor, scale: float = 1.0) -> Tensor:
        """ln p(x | z) in nats, summed over the values of the modality; leading shapes broadcast."""
        dims = len(self.modalities[modality].shape)
        if self.likelihoods[modality] == "gaussian":
            return gaussian_log_prob(x, parameters, scale, event_dims=dims)
        x, parameters = torch.broadcast_tensors(x, parameters)
        found = -F.binary_cross_entropy_with_logits(parameters, x, reduction="none")
        return found.sum(tuple(range(-dims, 0)))

    def noise_scale(self, modality: str) -> float:
        """Scale of the Gaussian likelihood under which a VAE's loss is its negative ELBO, up to a factor."""
        return math.sqrt(self.beta[modality])

    def loss(self, batch: Mapping[str, Tensor], present: Tensor | None = None) -> Loss:
        """The sum of the modalities' losses.

        Arguments:
            batch: Name to tensor ``(batch, *spec.shape)``.
            present: ``(batch, M)``, 0 where a modality is missing; its loss is then left out.
        """
        terms: dict[str, Tensor] = {}
        total = torch.zeros((), device=next(iter(batch.values())).device)
        for k, (m, spec) in enumerate(self.modalities.items()):
            mean, scale = self.encode(m, batch[m])
            if self.kind == "vae":
                z = mean + scale * torch.randn_like(mean)
                reconstruction = -self.log_prob(m, batch[m], self.parameters_of(m, z))
                penalty = 0.5 * (mean.square() + scale.square() - 1 - 2 * scale.log()).sum(-1)
                weight, name = self.beta[m], "kl"
            else:
                z = mean + math.sqrt(self.noise_variance[m]) * torch.randn_like(mean)
                found = self.parameters_of(m, z)
                if self.likelihoods[m] == "gaussian":
                    reconstruction = (found - batch[m]).square().flatten(-len(spec.shape)).sum(-1)
                else:
                    reconstruction = -self.log_prob(m, batch[m], found)
                penalty, weight, name = mean.square().sum(-1), self.regularisation[m], "norm"
            share = 1.0 if present is None else present[:, k]
            count = len(mean) if present is None else present[:, k].sum().clamp(min=1)
            terms[f"reconstruction/{m}"] = (share * reconstruction).sum() / count
            terms[f"{name}/{m}"] = (share * penalty).sum() / count
            total = total + terms[f"reconstruction/{m}"] + weight * terms[f"{name}/{m}"]
        return Loss(total, {name: term.detach() for name, term in terms.items()})


def _whole(x: Tensor) -> Tensor:
    """Values of a lower precision in float32, others as they are."""
    return x.float() if x.dtype is torch.bfloat16 else x


def _default_likelihood(spec: ModalitySpec) -> str:
    return "bernoulli" if spec.kind == "binary" and len(spec.shape) < 3 else "gaussian"


def _decoder(spec: ModalitySpec, latent_dim: int, widths: Sequence[int], hidden: Sequence[int]) -> nn.Module:
    if len(spec.shape) == 3:
        return SoftIntroDecoder(spec.shape, latent_dim, widths=widths)
    return MLP(latent_dim, tuple(hidden), spec.numel)
