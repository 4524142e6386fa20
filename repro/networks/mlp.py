"""Fully connected encoders and decoders (GMRF MCVAE Table IV, MRF MVAE Table 3)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from repro.networks.construction import rebuildable

__all__ = ["MLP", "GaussianMLPEncoder", "HiddenLayers", "output_linear"]


@rebuildable
class HiddenLayers(nn.Module):
    r"""A stack of fully connected layers, each followed by the activation.

    .. math:: h_0 = x, \qquad h_{k+1} = a(W_k h_k + b_k)

    Arguments:
        in_features: Size of the input; inputs of shape ``(batch, ...)`` are flattened to it.
        widths: Output size of each layer.
        activation: Constructor of the activation.
        hidden_dtype: Type that the layers compute in, such as ``torch.bfloat16``, and that their result has;
            parameters stay in float32. None for float32 throughout.
    """

    def __init__(
        self,
        in_features: int,
        widths: Sequence[int],
        *,
        activation: type[nn.Module] = nn.ReLU,
        hidden_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        sizes = [in_features, *widths]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.activation = activation()
        self.out_features = sizes[-1]
        self.hidden_dtype = hidden_dtype

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(*batch, in_features)`` to ``(*batch, widths[-1])``."""
        if self.hidden_dtype is None:
            for layer in self.layers:
                x = self.activation(layer(x))
            return x
        x = x.to(self.hidden_dtype)
        for layer in self.layers:
            x = self.activation(F.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype)))
        return x


class _OutputLinear(torch.autograd.Function):
    """A linear layer in the parameters' precision on features of a lower one.

    Gradients are products in the features' precision, as those of the hidden layers are: in float32, products with so
    few rows take several times as long.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(features, weight)
        return F.linear(features.to(weight.dtype), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features, weight = ctx.saved_tensors
        low = gradient.to(features.dtype)
        of_weight = low.flatten(0, -2).T @ features.flatten(0, -2)
        return low @ weight.to(low.dtype), of_weight.to(weight.dtype), gradient.flatten(0, -2).sum(0)


def output_linear(features: Tensor, *layers: nn.Linear) -> tuple[Tensor, ...]:
    """Linear layers on features of their own precision or a lower one; the results have the layers' precision."""
    if all(features.dtype == layer.weight.dtype for layer in layers):
        return tuple(layer(features) for layer in layers)
    weight, bias = torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers])
    return _OutputLinear.apply(features, weight, bias).split([layer.out_features for layer in layers], -1)


@rebuildable
class MLP(nn.Module):
    """Hidden layers and one linear output layer, optionally through a sigmoid.

    Table IV's decoder is ``MLP(latent, (256, 256), 2)``; the global encoder is ``MLP(inputs, (128,) * 3, outputs)``.

    Arguments:
        in_features: Size of the input.
        widths: Sizes of the hidden layers.
        out_features: Size of the output.
        activation: Constructor of the hidden activation.
        output: ``"linear"`` or ``"sigmoid"``.
        hidden_dtype: As in :class:`HiddenLayers`; the output layer always computes in float32.

    Raises:
        ValueError: If ``output`` is neither of the two.
    """

    def __init__(
        self,
        in_features: int,
        widths: Sequence[int],
        out_features: int,
        *,
        activation: type[nn.Module] = nn.ReLU,
        output: str = "linear",
        hidden_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if output not in ("linear", "sigmoid"):
            raise ValueError(f"output is {output!r}, must be 'linear' or 'sigmoid'")
        self.hidden = HiddenLayers(in_features, widths, activation=activation, hidden_dtype=hidden_dtype)
        self.linear = nn.Linear(self.hidden.out_features, out_features)
        self.output = output

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(*batch, in_features)`` to ``(*batch, out_features)``."""
        (y,) = output_linear(self.hidden(x), self.linear)
        return torch.sigmoid(y) if self.output == "sigmoid" else y


@rebuildable
class GaussianMLPEncoder(nn.Module):
    r"""Table IV's encoder: two hidden layers of 256, then one linear head for the mean and one for the log-variance.

    The table prints the mean heads as :math:`\sigma_{shared}`; they are the means. Where ``specific_dim`` is positive
    ("if factorized"), two more heads give the modality-specific mean and log-variance.

    Arguments:
        in_features: Size of the flattened modality.
        latent_dim: Latents of the shared heads.
        specific_dim: Latents of the modality-specific heads, 0 for none.
        widths: Sizes of the hidden layers.
        hidden_dtype: As in :class:`HiddenLayers`.
    """

    def __init__(
        self,
        in_features: int,
        latent_dim: int,
        *,
        specific_dim: int = 0,
        widths: Sequence[int] = (256, 256),
        hidden_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.hidden = HiddenLayers(in_features, widths, hidden_dtype=hidden_dtype)
        self.mean = nn.Linear(self.hidden.out_features, latent_dim)
        self.log_variance = nn.Linear(self.hidden.out_features, latent_dim)
        self.latent_dim, self.specific_dim = latent_dim, specific_dim
        if specific_dim:
            self.specific_mean = nn.Linear(self.hidden.out_features, specific_dim)
            self.specific_log_variance = nn.Linear(self.hidden.out_features, specific_dim)

    @property
    def feature_dim(self) -> int:
        """Size of :meth:`features`."""
        return self.hidden.out_features

    def features(self, x: Tensor) -> Tensor:
        """The last hidden layer, ``(batch, widths[-1])`` in ``hidden_dtype``, of inputs ``(batch, *shape)``."""
        return self.hidden(x.flatten(1))

    def heads(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance ``(batch, latent_dim)`` from :meth:`features`."""
        mean, log_variance = output_linear(features, self.mean, self.log_variance)
        return mean, log_variance

    def specific_heads(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Modality-specific mean and log-variance ``(batch, specific_dim)``."""
        mean, log_variance = output_linear(features, self.specific_mean, self.specific_log_variance)
        return mean, log_variance

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the shared latents, each ``(batch, latent_dim)``."""
        return self.heads(self.features(x))
