"""The baselines MVTCAE, JMVAE and DMVAE, beside those of :mod:`repro.baselines`, and multivae's own likelihoods.

As there, models and losses are multivae's with every field pinned; posteriors, generation and likelihoods are those of
:mod:`repro.baselines.inference`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from multivae.data.datasets.base import MultimodalBaseDataset
from multivae.models import DMVAE, JMVAE, MMVAE, MVAE, MVTCAE, DMVAEConfig, JMVAEConfig, MMVAEPlus, MoPoE, MVTCAEConfig
from multivae.models.base import BaseMultiVAE, ModelOutput
from multivae.models.nn.base_architectures import BaseJointEncoder
from torch import Tensor, nn

from repro.baselines.inference import DecoderDensity, ExpertMixtureModel, Posterior
from repro.baselines.models import LIKELIHOODS, METHODS, Baseline, BaselineDecoder, BaselineEncoder, multivae_fields
from repro.datasets.base import ModalitySpec, check_name
from repro.model import Loss, Stage, isolated_rng
from repro.networks.construction import rebuildable
from repro.networks.mlp import MLP, GaussianMLPEncoder

__all__ = [
    "JOINT_METHODS",
    "JointBaseline",
    "JointBaselineSettings",
    "build_joint_baseline",
    "joint_multivae_fields",
    "multivae_joint_nll",
]

MODELS: dict[str, tuple[type[BaseMultiVAE], type]] = {
    "mvtcae": (MVTCAE, MVTCAEConfig),  # Hwang et al., 2021
    "jmvae": (JMVAE, JMVAEConfig),  # Suzuki et al., 2016
    "dmvae": (DMVAE, DMVAEConfig),  # Lee and Pavlovic, 2021
}
JOINT_METHODS = tuple(MODELS)
OTHERS = {"mvae": MVAE, "mmvae": MMVAE, "mopoe": MoPoE, "mmvae_plus": MMVAEPlus}
ALPHAS = {"mvtcae": 0.1, "jmvae": 0.1, "dmvae": 0.0}  # multivae's defaults; CoVAE's paper changes none


@dataclass(frozen=True)
class JointBaselineSettings:
    """What defines such a baseline besides its networks.

    Arguments:
        method: ``"mvtcae"``, ``"jmvae"`` or ``"dmvae"``.
        modalities: Name to :class:`ModalitySpec`.
        latent_dim: Shared latents.
        specific_dim: Private latents of each modality: needed by DMVAE, 0 for the others.
        beta: Weight of the KL divergences relative to a likelihood of unit scale.
        likelihood: ``"gaussian"`` or ``"laplace"``.
        alpha: MVTCAE: weight of the total correlation's part, in [0, 1]. JMVAE: weight of the divergences of the joint
            posterior from each modality's own, relative to a likelihood of unit scale. DMVAE has none, 0.

    Raises:
        ValueError: If a value is out of its range or does not fit the method.
    """

    method: str
    modalities: Mapping[str, ModalitySpec]
    latent_dim: int
    specific_dim: int
    beta: float
    likelihood: str
    alpha: float

    def __post_init__(self) -> None:
        if self.method not in MODELS:
            raise ValueError(f"unknown method {self.method!r}; one of {', '.join(JOINT_METHODS)}")
        if self.likelihood not in LIKELIHOODS:
            raise ValueError(f"unknown likelihood {self.likelihood!r}; one of {', '.join(LIKELIHOODS)}")
        private = self.method == "dmvae"
        if self.latent_dim < 1 or self.specific_dim < 0 or (self.specific_dim > 0) != private:
            raise ValueError(f"{self.method} takes no latent_dim {self.latent_dim}, specific_dim {self.specific_dim}")
        if not 0 < self.beta < math.inf:
            raise ValueError(f"beta is {self.beta}, must be positive and finite")
        largest = {"mvtcae": 1.0, "jmvae": math.inf, "dmvae": 0.0}[self.method]
        if not 0 <= self.alpha <= largest or math.isinf(self.alpha):
            raise ValueError(f"alpha is {self.alpha}; {self.method} takes one in [0, {largest:g}]")
        for m in self.modalities:
            check_name(m)

    @property
    def noise_scale(self) -> float:
        """Scale of the likelihood under which β is 1: √β if Gaussian, β if Laplace, as for the other baselines."""
        return math.sqrt(self.beta) if self.likelihood == "gaussian" else self.beta


def joint_multivae_fields(settings: JointBaselineSettings) -> dict[str, Any]:
    """Every field of the method's configuration in multivae, as this package pins it."""
    own: dict[str, Any] = {"beta": settings.beta}
    if settings.method == "dmvae":
        own["modalities_specific_dim"] = dict.fromkeys(settings.modalities, settings.specific_dim)
        own["modalities_specific_betas"] = dict.fromkeys(settings.modalities, settings.beta)
    else:
        own["alpha"] = settings.alpha
    if settings.method == "jmvae":
        own["warmup"] = 0  # it anneals by an epoch that the loop does not tell
    return {
        "n_modalities": len(settings.modalities),
        "latent_dim": settings.latent_dim,
        "input_dims": {m: spec.shape for m, spec in settings.modalities.items()},
        "uses_likelihood_rescaling": False,
        "rescale_factors": None,
        "decoders_dist": dict.fromkeys(settings.modalities, LIKELIHOODS[settings.likelihood]),
        "decoder_dist_params": {m: {"scale": 1.0} for m in settings.modalities},
        "custom_architectures": [],
        **own,
    }


class _JointEncoder(BaseJointEncoder):
    """Splits a network's output, (batch, 2 latent), into multivae's mean and log-variance."""

    def __init__(self, network: nn.Module, latent_dim: int) -> None:
        super().__init__()
        self.network, self.latent_dim = network, latent_dim

    def moments(self, x: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        output = self.network(x)
        size = len(next(iter(x.values())))
        if tuple(output.shape) != (size, 2 * self.latent_dim):
            raise ValueError(
                f"the joint encoder gives {tuple(output.shape)}, needs ({size}, {2 * self.latent_dim}): mean and"
                " log-variance"
            )
        mean, log_variance = output.split(self.latent_dim, 1)
        return mean, log_variance

    def forward(self, x: Mapping[str, Tensor]) -> ModelOutput:
        mean, log_variance = self.moments(x)
        return ModelOutput(embedding=mean, log_covariance=log_variance)


@rebuildable
class _ConcatenatedEncoder(nn.Module):
    """All modalities, flattened and joined in order, through one fully connected network."""

    def __init__(self, modalities: Mapping[str, ModalitySpec], widths: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.names = tuple(modalities)
        self.network = MLP(sum(s.numel for s in modalities.values()), widths, outputs)

    def forward(self, x: Mapping[str, Tensor]) -> Tensor:
        return self.network(torch.cat([x[m].flatten(1) for m in self.names], 1))


class JointBaseline(ExpertMixtureModel):
    r"""MVTCAE, JMVAE or DMVAE of multivae behind this package's interface.

    Losses are averages over the batch in nats a sample, with p(x|z) of unit scale and β on every KL divergence from the
    prior. With q the posterior given all of M modalities and q_m that of modality m's encoder,

    .. math::
        \text{MVTCAE:}\quad \tfrac{M - \alpha}{M} \mathbb E_q[-\ln p(x \mid z)]
            + \beta \Big[(1 - \alpha) KL(q \,\|\, p) + \tfrac{\alpha}{M} \sum_m KL(q \,\|\, q_m) \Big]

    .. math::
        \text{JMVAE:}\quad \mathbb E_q[-\ln p(x \mid z)] + \beta\, KL(q \,\|\, p) + \alpha \sum_m KL(q \,\|\, q_m)

    DMVAE adds, to the negative ELBO of the joint posterior, that of each q_m, all modalities being reconstructed from
    each with their own private latents. Posteriors are, as in multivae: MVTCAE, the product of the observed
    modalities' encoders; DMVAE, the same with the prior as one more expert; JMVAE, the joint encoder given all and the
    product of encoders given some.

    Arguments:
        settings: Method, modalities, latents and likelihood.
        encoders: Name to network that gives a mean and a log-variance, each ``(batch, latent_dim + specific_dim)``:
            shared latents first, then private ones.
        decoders: Name to network that maps ``(batch, latent_dim + specific_dim)`` to ``spec.numel`` values a sample.
        joint_encoder: For JMVAE, a network from all modalities to ``(batch, 2 latent_dim)``; None for the others.

    Raises:
        ValueError: If a network is missing, or there is a joint encoder that the method does not use.
    """

    def __init__(
        self,
        settings: JointBaselineSettings,
        encoders: Mapping[str, nn.Module],
        decoders: Mapping[str, nn.Module],
        joint_encoder: nn.Module | None = None,
    ) -> None:
        super().__init__(
            settings.modalities,
            latent_dim=settings.latent_dim,
            specific_dim=settings.specific_dim,
            likelihood=settings.likelihood,
            noise_scale=settings.noise_scale,
        )
        for what, networks in (("encoders", encoders), ("decoders", decoders)):
            if set(networks) != set(self.modalities):
                raise ValueError(f"{what} are given for {list(networks)}, the modalities are {list(self.modalities)}")
        if (joint_encoder is not None) != (settings.method == "jmvae"):
            raise ValueError(f"jmvae, and it alone, needs a joint encoder; {settings.method} got {joint_encoder}")
        self.settings = settings
        model, config = MODELS[settings.method]
        joint = [] if joint_encoder is None else [_JointEncoder(joint_encoder, settings.latent_dim)]
        self.multivae = model(
            config(**joint_multivae_fields(settings)),
            {m: BaselineEncoder(m, encoders[m], settings) for m in self.modalities},
            {m: BaselineDecoder(decoders[m], spec.shape) for m, spec in self.modalities.items()},
            *joint,
        )
        self.multivae.recon_log_probs = dict.fromkeys(self.modalities, DecoderDensity(settings.likelihood, 1.0))

    def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
        """The objective of a batch, in nats a sample, and the KL divergence of each encoder's output from the prior.

        It draws from torch's global generator. Arguments and errors are those of the interface.
        """
        self.check_batch(batch)
        total = self.multivae(MultimodalBaseDataset(data={m: batch[m] for m in self.modalities})).loss
        return Loss(total, {f"kl_{m}": self.multivae.encoders[m].kl for m in self.modalities})

    def experts(self, observed: Sequence[str]) -> list[tuple[tuple[str, ...], bool]]:
        """One product of all observed modalities' encoders, for DMVAE with the prior."""
        return [(tuple(observed), self.settings.method == "dmvae")]

    def posterior(self, given: Mapping[str, Tensor]) -> Posterior:
        """The approximate posterior given any non-empty set of modalities; see the class."""
        if (
            self.settings.method == "jmvae"
            and self.check_batch(given, subset=True)
            and len(given) == len(self.modalities)
        ):
            mean, log_variance = self.multivae.joint_encoder.moments({m: given[m] for m in self.modalities})
            return Posterior(mean[None], (0.5 * log_variance).exp()[None], {})
        return super().posterior(given)

    moments = Baseline.moments
    reconstruction = Baseline.reconstruction


def build_joint_baseline(
    method: str,
    modalities: Mapping[str, ModalitySpec],
    *,
    latent_dim: int,
    specific_dim: int = 0,
    beta: float = 1.0,
    alpha: float | None = None,
    likelihood: str = "gaussian",
    output: str = "linear",
    widths: Sequence[int] = (256, 256),
    encoders: Mapping[str, nn.Module] | None = None,
    decoders: Mapping[str, nn.Module] | None = None,
    joint_encoder: nn.Module | None = None,
) -> JointBaseline:
    """Builds such a baseline, with fully connected networks unless others are given.

    Arguments not listed are those of :class:`JointBaselineSettings`, and of :class:`JointBaseline` for networks.

    Arguments:
        alpha: multivae's default, 0.1, if None.
        output: Last activation of the default decoders, ``"linear"`` or ``"sigmoid"``.
        widths: Hidden layers of the default networks.

    Raises:
        ValueError: As both classes and the networks do.
    """
    alpha = ALPHAS.get(method, 0.0) if alpha is None else float(alpha)
    settings = JointBaselineSettings(method, modalities, latent_dim, specific_dim, float(beta), likelihood, alpha)
    size = latent_dim + specific_dim
    if encoders is None:
        encoders = {m: GaussianMLPEncoder(s.numel, size, widths=widths) for m, s in modalities.items()}
    if decoders is None:
        decoders = {m: MLP(size, widths, s.numel, output=output) for m, s in modalities.items()}
    if joint_encoder is None and method == "jmvae":
        joint_encoder = _ConcatenatedEncoder(modalities, widths, 2 * latent_dim)
    return JointBaseline(settings, encoders, decoders, joint_encoder)


@torch.no_grad()
def multivae_joint_nll(
    model: Baseline | JointBaseline,
    batch: Mapping[str, Tensor],
    *,
    num_importance_samples: int = 1000,
    generator: torch.Generator | None = None,
) -> float:
    """Mean over a batch of the joint negative log-likelihood as multivae 1.0.3 itself computes it, in nats a sample.

    It is here to be shown beside :meth:`~repro.model.MultimodalModel.log_likelihood`, not to be used: DMVAE's adds up
    over points and chunks, MMVAE+'s leaves the last modality out (the library removes it from its caller's data: here,
    from a copy), and those of MMVAE and MoPoE draw all samples from one expert taken at random. The decoders have the
    scale that they are trained with in multivae: for MMVAE the model's noise scale, for all others 1.

    Arguments:
        model: A baseline.
        batch: All modalities.
        num_importance_samples: K.
        generator: Source of randomness.

    Raises:
        ValueError: If names or shapes do not fit.
    """
    size, settings = model.check_batch(batch), model.settings
    if isinstance(model, Baseline):  # the library's own class, whatever this package's is
        config = METHODS[settings.method].config(**multivae_fields(settings))
        networks = [dict(part.items()) for part in (model.multivae.encoders, model.multivae.decoders)]
        library = OTHERS[settings.method](config, *networks)
        library.load_state_dict(model.multivae.state_dict())
    else:
        library = model.multivae
    training = model.training
    with isolated_rng(generator):
        inputs = MultimodalBaseDataset(data={m: batch[m] for m in model.modalities})
        found = library.compute_joint_nll(inputs, K=num_importance_samples)
    model.train(training)  # it switches to evaluation
    return float(found) / size
