"""VAEGAN on MNIST, whose decoder draws the pairs of correlated MNIST (CoVAE, section 3)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from repro.datasets.base import ModalitySpec
from repro.model import Loss, Stage, TrainableModel
from repro.networks.vaegan import Decoder, Discriminator, Encoder

__all__ = ["VAEGAN"]


class VAEGAN(TrainableModel):
    r"""A variational autoencoder that is compared with its data by the features of a discriminator.

    With :math:`z \sim q(z|x)`, :math:`\tilde x = g(z)`, :math:`x_p = g(z_p)`, :math:`z_p \sim N(0, I)` and the
    discriminator's features :math:`f` and probability :math:`D`, encoder, decoder and discriminator minimise

    .. math::
        L_e &= KL(q(z|x) \,\|\, N(0, I)) + R, \qquad R = \tfrac12 \|f(x) - f(\tilde x)\|^2 \\
        L_g &= (1 - a) R - a L_d \\
        L_d &= -\log D(x) - \log(1 - D(x_p))

    In a step where one of the two terms of :math:`L_d` is under :math:`e - m` the discriminator rests, where one is
    over :math:`e + m` the decoder rests, and where both would, neither does.

    Under ``gradients="separate"`` each descends its own loss alone. Under ``"accumulated"``, the default, gradients
    add up as they do in pythae's trainer, which the paper used: what descends is

    .. math:: L_e + L_g \text{ (encoder)}, \qquad L_g + L_d \text{ (decoder)}, \qquad L_d \text{ (discriminator)}

    with the second term of encoder and decoder only in steps where decoder and discriminator, respectively, learn. So
    the decoder turns against the discriminator in the steps in which that rests, and helps it a little in the others.
    Either way training can come to a halt in its first epoch: the discriminator rests in nearly every step, and the
    images become patterns of dots. The term ``discriminator_rests`` shows it (erratum E18).

    Source: CoVAE, section 3, for the settings; losses, rests and gradients as in pythae's ``VAEGAN`` and
    ``CoupledOptimizerAdversarialTrainer``.

    Arguments:
        modalities: One modality of shape (1, 28, 28) in [0, 1].
        latent_dim: Number of latents D.
        adversarial_scale: Weight a in [0, 1].
        margin: Margin m.
        equilibrium: Equilibrium e.
        gradients: ``"accumulated"`` or ``"separate"``.
        compute_dtype: Type that the networks compute in; losses stay in float32.

    Raises:
        ValueError: If there is not one such modality, the weight is outside [0, 1], or ``gradients`` is unknown.
    """

    def __init__(
        self,
        modalities: Mapping[str, ModalitySpec],
        *,
        latent_dim: int = 10,
        adversarial_scale: float = 0.8,
        margin: float = 0.4,
        equilibrium: float = 0.68,
        gradients: str = "accumulated",
        compute_dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(modalities)
        shapes = {m: s.shape for m, s in modalities.items()}
        if list(shapes.values()) != [(1, 28, 28)]:
            raise ValueError(f"the VAEGAN has one modality of shape (1, 28, 28), got {shapes}")
        if not 0 <= adversarial_scale <= 1:
            raise ValueError(f"adversarial_scale is {adversarial_scale}, must be in [0, 1]")
        if gradients not in ("accumulated", "separate"):
            raise ValueError(f"gradients is {gradients!r}, must be 'accumulated' or 'separate'")
        self.encoder, self.decoder, self.discriminator = Encoder(latent_dim), Decoder(latent_dim), Discriminator()
        self.latent_dim, self.adversarial_scale = latent_dim, adversarial_scale
        self.margin, self.equilibrium, self.compute_dtype = margin, equilibrium, compute_dtype
        self.gradients = gradients

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x), each ``(batch, latent_dim)`` in float32."""
        mean, log_variance = self.encoder(x)
        return mean.float(), log_variance.float()

    def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
        """The three losses of a batch; ``total`` is their sum, for the log."""
        self.check_batch(batch)
        (x,) = batch.values()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.compute_dtype is torch.bfloat16):
            mean, log_variance = self.encode(x)
            z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
            features = self.discriminator.features(x)
            decoded = self.decoder(z)
            reconstructed = self.discriminator.features(decoded)
            real = self.discriminator.logits(features).float()
            generated = self.discriminator(self.decoder(torch.randn_like(z))).float()
        kl = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1).mean()
        reconstruction = 0.5 * (features.float() - reconstructed.float()).square().flatten(1).sum(1).mean()
        real_cost = F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
        generated_cost = F.binary_cross_entropy_with_logits(generated, torch.zeros_like(generated))
        adversarial = real_cost + generated_cost
        losses = {
            "encoder.": kl + reconstruction,
            "decoder.": (1 - self.adversarial_scale) * reconstruction - self.adversarial_scale * adversarial,
            "discriminator.": adversarial,
        }
        total = sum(losses.values(), torch.zeros_like(kl))
        # Encoder and decoder reach the feature distance through the decoded image alone: its gradient there is taken
        # once, and a linear function with that gradient stands for the distance in both losses.
        if torch.is_grad_enabled():
            (slope,) = torch.autograd.grad(reconstruction, decoded, retain_graph=True)
            linear = (slope * decoded).sum()
            linear = linear + (reconstruction - linear).detach()
            losses["encoder."] = kl + linear
            losses["decoder."] = (1 - self.adversarial_scale) * linear - self.adversarial_scale * adversarial
        low, high = sorted((float(real_cost.detach()), float(generated_cost.detach())))
        rests = {
            "discriminator.": low < self.equilibrium - self.margin,
            "decoder.": high > self.equilibrium + self.margin,
        }
        if all(rests.values()):
            rests = dict.fromkeys(rests, False)
        if self.gradients == "accumulated":
            if not rests["decoder."]:
                losses["encoder."] = losses["encoder."] + losses["decoder."]
            if not rests["discriminator."]:
                losses["decoder."] = losses["decoder."] + adversarial
        terms = {"kl": kl, "reconstruction": reconstruction, "real": real_cost, "generated": generated_cost}
        terms |= {f"{k[:-1]}_rests": kl.new_tensor(float(v)) for k, v in rests.items()}
        return Loss(
            total=total,
            terms={k: v.detach() for k, v in terms.items()},
            parts={k: v for k, v in losses.items() if not rests.get(k)},
        )

    def sample(self, num_samples: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Images ``(num_samples, 1, 28, 28)`` of latents from N(0, I)."""
        device = next(self.parameters()).device
        return self.decoder(torch.randn(num_samples, self.latent_dim, generator=generator, device=device))
