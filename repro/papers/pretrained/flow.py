"""The flow of correlated MNIST, fitted to the aggregate posterior of the shipped VAEGAN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from repro.datasets.base import ModalitySpec
from repro.model import Loss, Stage, TrainableModel
from repro.networks.flow import LatentFlow
from repro.networks.vaegan import Encoder
from repro.weights.shipped import load_config, load_tensors

__all__ = ["EncodingFlow"]


class EncodingFlow(TrainableModel):
    r"""A masked autoregressive flow trained on samples of the VAEGAN's aggregate posterior.

    .. math:: L = -E_x E_{z \sim q(z|x)} \log p_{flow}(z)

    Source: CoVAE, section 3.1, equation 7.

    Arguments:
        modalities: MNIST's one modality.
        transforms: Number of steps of the flow.
        hidden: Sizes of the hidden layers of each step.
        encoder: The encoder; that which ships with the package if None.
    """

    def __init__(
        self,
        modalities: Mapping[str, ModalitySpec],
        *,
        transforms: int = 5,
        hidden: Sequence[int] = (128, 128),
        encoder: Encoder | None = None,
    ) -> None:
        super().__init__(modalities)
        if encoder is None:
            encoder = Encoder(**load_config("vaegan-encoder"))
            encoder.load_state_dict({k: v.float() for k, v in load_tensors("vaegan-encoder").items()})
        self.encoder = encoder.requires_grad_(False)
        self.flow = LatentFlow(encoder.mean.out_features, transforms, hidden)

    def stages(self) -> Sequence[Stage]:
        """The flow alone is trained."""
        return (Stage("flow", ("flow.",)),)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Samples of q(z|x), ``(batch, latent_dim)``, drawn from the global generator."""
        mean, log_variance = self.encoder(x)
        return mean + (0.5 * log_variance).exp() * torch.randn_like(mean)

    def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
        """Mean negative log-density of encodings, in nats."""
        self.check_batch(batch)
        (x,) = batch.values()
        nll = self.flow.loss(self.encode(x))
        return Loss(nll, {"nll": nll.detach()})
