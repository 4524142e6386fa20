"""The fully connected encoders and decoders of the comparison of variants (MRF MVAE, appendix D.2)."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from repro.datasets.base import ModalitySpec
from repro.networks.mlp import MLP, GaussianMLPEncoder

__all__ = ["fully_connected_networks"]


def fully_connected_networks(
    modalities: Mapping[str, ModalitySpec],
    latent_dim: int = 8,
    *,
    width: int = 1024,
    layers: int = 4,
    output: str = "linear",
    hidden_dtype: torch.dtype | None = None,
) -> tuple[dict[str, GaussianMLPEncoder], dict[str, MLP]]:
    """One encoder and one decoder a modality, which all three variants have alike.

    "Fully connected networks with four layers and 1024 hidden dimensions" is read as four hidden layers of 1024 with
    ReLU, and linear outputs beside them, as for the potentials' "three-layer, 1024-dimensional" and the covariance
    encoder's "three-layer [...] 128 hidden dimensions".

    Arguments:
        modalities: Name to :class:`~repro.model.ModalitySpec`; images are flattened.
        latent_dim: Latents a modality, d.
        width: Units of a hidden layer.
        layers: Number of hidden layers.
        output: ``"linear"``, the paper's, or ``"sigmoid"``, the decoders' last activation.
        hidden_dtype: Type that the hidden layers compute in, such as ``torch.bfloat16``; None for float32.

    Returns:
        Encoders from ``(batch, *shape)`` to two heads ``(batch, d)``, the mean (or skew) and the log-variance, and
        decoders from ``(batch, d)`` to the flattened modality.

    Raises:
        ValueError: If a number is not positive, or ``output`` is neither of the two.

    Source: MRF MVAE, appendix D.2, architecture and training details.
    """
    for name, number in {"latent_dim": latent_dim, "width": width, "layers": layers}.items():
        if number < 1:
            raise ValueError(f"{name} is {number}, must be positive")
    widths = (width,) * layers
    encoders = {
        m: GaussianMLPEncoder(s.numel, latent_dim, widths=widths, hidden_dtype=hidden_dtype)
        for m, s in modalities.items()
    }
    decoders = {
        m: MLP(latent_dim, widths, s.numel, output=output, hidden_dtype=hidden_dtype) for m, s in modalities.items()
    }
    return encoders, decoders
