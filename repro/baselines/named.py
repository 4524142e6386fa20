"""Any model of multivae by its name, on the networks of a table's own baseline, behind the one interface.

The model, its loss, its encoding and its configuration are the library's, as they are: of the configuration only sizes
and warm-ups are set, and what a reader sets. The decoders' likelihood is this package's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import multivae.models
import torch
from multivae.data.datasets.base import MultimodalBaseDataset
from multivae.models.base import BaseMultiVAE, ModelOutput
from pydantic import ValidationError
from torch import Tensor, nn

from repro.baselines.inference import DECODED_ROWS, DecoderDensity
from repro.baselines.models import BaselineDecoder, BaselineEncoder
from repro.datasets.base import ModalitySpec
from repro.datasets.scalars import real_number
from repro.metrics.likelihood import gaussian_log_prob, stratified_importance_weighted
from repro.model import Loss, MultimodalModel, Stage, isolated_rng

__all__ = ["NOT_OFFERED", "NamedModel", "build_named", "named_models"]

# What the library's models need that no table's networks give, or that the training loop does not tell them.
NOT_OFFERED = {
    "CVAE": "it generates one modality given the others and draws no joint samples",
    "MHVAE": "it needs networks between its layers of latents, which no table has",
    "JNF": "it changes what it trains at an epoch that the library's trainer alone tells it",
    "TELBO": "it changes what it trains at an epoch that the library's trainer alone tells it",
}
# Models with latents of each modality beside shared ones: whether the configuration has a number for each modality.
PRIVATE = {"MMVAEPlus": False, "CMVAE": False, "DMVAE": True}
# Warm-ups count epochs that the library's trainer alone tells: the whole objective from the first step on.
WARM_UP = {"MVAE": 0, "JMVAE": 0, "Nexus": 1}
PROPOSAL_DRAWS, PROPOSAL_WIDENING = 64, 1.3  # of the likelihood's proposal


def named_models() -> dict[str, type[nn.Module]]:
    """Every model of the installed version, by its class's name."""
    module = multivae.models
    names = [n for n in dir(module) if hasattr(module, f"{n}Config") and n not in ("Auto", "BaseMultiVAE")]
    return {n: getattr(module, n) for n in names}


@dataclass(frozen=True)
class _Sizes:
    """What an encoder splits its outputs by."""

    latent_dim: int
    specific_dim: int


class _Encoder(BaselineEncoder):
    """With the size that the library's joint encoders ask for."""

    @property
    def latent_dim(self) -> int:
        """Of the shared latents."""
        return self.sizes[0]


def _rows(z: ModelOutput, part: slice) -> ModelOutput:
    found = ModelOutput(z=z.z[part], one_latent_space=z.one_latent_space)
    if "modalities_z" in z:
        found["modalities_z"] = {m: w[part] for m, w in z.modalities_z.items()}
    return found


class NamedModel(MultimodalModel):
    r"""A model of multivae.

    Samples and losses are the library's: it draws one component of a mixture for a whole batch where it does so. With
    one latent space, prior N(0, I) and the library's own way of decoding, a likelihood is estimated by importance
    sampling,

    .. math:: \ln p(x) \approx \ln \frac1K \sum_k \frac{p(z_k) \prod_m p(x_m \mid z_k)}{r(z_k)},

    with r a Gaussian of the moments of the approximate posterior's samples, widened: consistent whatever r is.

    Arguments:
        modalities: Name to :class:`~repro.datasets.base.ModalitySpec`.
        model: The library's model, whose decoders are of scale 1.
    """

    def __init__(self, modalities: Mapping[str, ModalitySpec], model: BaseMultiVAE) -> None:
        super().__init__(modalities)
        self.multivae = model

    def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
        """The library's loss, averaged over the batch; it draws from torch's global generator."""
        size = self.check_batch(batch)
        wanted = torch.is_grad_enabled()
        with torch.enable_grad():  # doubly reparametrised estimators hook gradients, whether there are any or not
            found = self.multivae(MultimodalBaseDataset(data={m: batch[m] for m in self.modalities}))
        total = found.loss_sum / size if "loss_sum" in found else found.loss
        return Loss(total if wanted else total.detach())

    def _noise_scale(self, modality: str) -> float:
        """The square root of beta, where the configuration has one; else 1."""
        return math.sqrt(getattr(self.multivae.model_config, "beta", 1.0))

    def _encoded(self, given: Mapping[str, Tensor], num: int) -> ModelOutput:
        size, like = len(next(iter(given.values()))), next(iter(given.values()))
        # Some models take all modalities and look at those that are asked for: the others are not a number.
        unknown = {m: like.new_full((size, *s.shape), math.nan) for m, s in self.modalities.items()}
        data = MultimodalBaseDataset(data={**unknown, **given})
        return self.multivae.encode(data, cond_mod=list(given), N=num, flatten=True)

    def _decoded(self, z: ModelOutput, leading: tuple[int, ...]) -> dict[str, Tensor]:
        parts = [slice(i, i + DECODED_ROWS) for i in range(0, len(z.z), DECODED_ROWS)]
        decoded = [self.multivae.decode(_rows(z, part)) for part in parts]
        return {m: torch.cat([d[m] for d in decoded]).reshape(*leading, *s.shape) for m, s in self.modalities.items()}

    def _generate(
        self,
        num_samples: int,
        *,
        given: Mapping[str, Tensor] | None,
        generator: torch.Generator | None,
        sample_likelihood: bool,
    ) -> dict[str, Tensor]:
        with isolated_rng(generator):
            if given is None:
                z = _rows(self.multivae.generate_from_prior(max(2, num_samples)), slice(num_samples))
                found = self._decoded(z, (num_samples,))
            else:
                size = len(next(iter(given.values())))
                found = self._decoded(self._encoded(given, num_samples), (num_samples, size))
            if sample_likelihood:
                found = {m: x + self.noise_scale(m) * torch.randn_like(x) for m, x in found.items()}
        return found

    def _log_marginal(self, batch: Mapping[str, Tensor], num: int, generator: torch.Generator | None) -> Tensor:
        model = self.multivae
        plain = type(model).generate_from_prior is BaseMultiVAE.generate_from_prior
        if not (plain and type(model).decode is BaseMultiVAE.decode):
            raise NotImplementedError(f"{type(model).__name__} has no likelihood here")
        with isolated_rng(generator):
            size = len(next(iter(batch.values())))
            z = self._encoded(batch, PROPOSAL_DRAWS).z.reshape(PROPOSAL_DRAWS, size, -1)
            mean, scale = z.mean(0), PROPOSAL_WIDENING * z.std(0) + 1e-6
            zero = torch.zeros_like(z[0, 0, 0])

            def log_weight(k: int) -> Tensor:
                draws = mean + scale * torch.randn(k, *mean.shape, device=mean.device, dtype=mean.dtype)
                found = self._decoded(ModelOutput(z=draws.flatten(0, 1), one_latent_space=True), (k, size))
                total = gaussian_log_prob(draws, zero, 1.0) - gaussian_log_prob(draws, mean, scale)
                for m, x in batch.items():
                    dims = len(self.modalities[m].shape)
                    total = total + gaussian_log_prob(x, found[m], self.noise_scale(m), event_dims=dims)
                return total

            return stratified_importance_weighted([log_weight], num)


def build_named(
    modalities: Mapping[str, ModalitySpec], *, name: str, like: MultimodalModel, **settings: Any
) -> NamedModel:
    """A model of multivae in its default configuration, on the networks of a table's own baseline.

    Latents shared and private together are as many as the baseline's; half of them are private in models with both.

    Arguments:
        modalities: Name to :class:`~repro.datasets.base.ModalitySpec`.
        name: The library's class, such as ``"CRMVAE"``, in capitals or not.
        like: The table's own baseline, whose networks are taken.
        settings: Fields of the configuration, such as ``beta``.

    Raises:
        ValueError: If there is no such model, it is not offered, or a field is unknown, a size or out of its range.
    """
    models = named_models()
    name = next((n for n in models if n.lower() == name.lower()), name)
    if name in NOT_OFFERED:
        raise ValueError(f"multivae's {name} cannot be used: {NOT_OFFERED[name]}")
    if name not in models:
        raise ValueError(
            f"multivae has no model {name!r}; one of {', '.join(n for n in models if n not in NOT_OFFERED)}"
        )
    if not hasattr(like, "multivae"):
        raise ValueError("the table has no baseline of multivae's whose networks its other models could have")
    config = getattr(multivae.models, f"{name}Config")
    total = like.latent_dim + like.specific_dim
    own: dict[str, Any] = {
        "n_modalities": len(modalities),
        "latent_dim": total,
        "input_dims": {m: s.shape for m, s in modalities.items()},
        "decoders_dist": dict.fromkeys(modalities, "normal"),
        "decoder_dist_params": {m: {"scale": 1.0} for m in modalities},
        "uses_likelihood_rescaling": False,
        "custom_architectures": [],
    }
    possible = {f.name for f in fields(config)} - set(own) - {"name", "rescale_factors", "warmup"}
    if unknown := sorted(set(settings) - possible):
        raise ValueError(f"multivae's {name} has no setting {unknown} to change; it has {sorted(possible)}")
    for f in fields(config):  # the library would read texts and flags as numbers
        if f.type is float and f.name in settings:
            settings[f.name] = real_number(f.name, settings[f.name])
    specific = 0
    if name in PRIVATE:
        specific = settings.pop("modalities_specific_dim", total // 2)
        if not isinstance(specific, int) or not 0 < specific < total:
            raise ValueError(f"modalities_specific_dim is {specific!r}, must be from 1 to {total - 1}")
        own["latent_dim"] = total - specific
        own["modalities_specific_dim"] = dict.fromkeys(modalities, specific) if PRIVATE[name] else specific
    elif name == "Nexus":  # the networks are those of each modality's own latents, under as many of all
        own["modalities_specific_dim"] = dict.fromkeys(modalities, total)
    if name in WARM_UP:
        own["warmup"] = WARM_UP[name]
    sizes = _Sizes(total - specific, specific)
    try:
        chosen = config(**own, **settings)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))} is {first['input']!r}: {first['msg']}") from None
    if not 0 < getattr(chosen, "beta", 1.0) < math.inf:
        raise ValueError(f"beta is {chosen.beta}, must be positive and finite")
    if name == "MVTCAE" and not 0 <= chosen.alpha <= 1:
        raise ValueError(f"alpha is {chosen.alpha}, must be in [0, 1]")
    model = models[name](
        chosen,
        {m: _Encoder(m, like.multivae.encoders[m].network, sizes) for m in modalities},  # type: ignore[arg-type]
        {m: BaselineDecoder(like.multivae.decoders[m].network, s.shape) for m, s in modalities.items()},
    )
    model.recon_log_probs = dict.fromkeys(modalities, DecoderDensity("gaussian", 1.0))
    return NamedModel(modalities, model)
