"""The baselines MVAE, MMVAE, MoPoE-VAE, MMVAE+, MVTCAE, JMVAE and DMVAE: models and losses from multivae, all else
from this package.

Every field of multivae's configurations is pinned here, and only its losses are taken; posteriors, generation and
likelihoods are those of :mod:`repro.baselines.inference`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from typing import Any

import torch
from multivae.data.datasets.base import MultimodalBaseDataset
from multivae.models import (
    DMVAE,
    JMVAE,
    MMVAE,
    MVAE,
    MVTCAE,
    DMVAEConfig,
    JMVAEConfig,
    MMVAEConfig,
    MMVAEPlus,
    MMVAEPlusConfig,
    MoPoE,
    MoPoEConfig,
    MVAEConfig,
    MVTCAEConfig,
)
from multivae.models.base import BaseDecoder, BaseEncoder, BaseMultiVAE, ModelOutput
from multivae.models.nn.base_architectures import BaseJointEncoder
from torch import Tensor, nn

from repro.baselines.inference import (
    DecoderDensity,
    DecodesOnce,
    DrawsSubsets,
    EncodesOnce,
    ExpertMixtureModel,
    Posterior,
)
from repro.datasets.base import ModalitySpec, check_name
from repro.datasets.scalars import flag, real_number
from repro.model import Loss, Stage, isolated_rng, networks_by_name
from repro.networks.construction import rebuildable
from repro.networks.mlp import MLP, GaussianMLPEncoder

__all__ = [
    "METHODS",
    "Baseline",
    "BaselineDecoder",
    "BaselineEncoder",
    "BaselineSettings",
    "build_baseline",
    "multivae_fields",
]

LIKELIHOODS = {"gaussian": "normal", "laplace": "laplace"}  # this package's name to multivae's

Subsets = list[tuple[str, ...]]


# Each network is called once a step, and small batches reach every subset.
# Classes under names of this module's, by which they are pickled.
class _MVAE(EncodesOnce, MVAE):
    pass


class _MoPoE(DrawsSubsets, MoPoE):
    pass


class _MMVAE(DecodesOnce, MMVAE):
    pass


class _MMVAEPlus(DecodesOnce, MMVAEPlus):
    pass


def _whole(names: Sequence[str]) -> Subsets:
    return [tuple(names)]


def _singles(names: Sequence[str]) -> Subsets:
    return [(m,) for m in names]


def _all_subsets(names: Sequence[str]) -> Subsets:
    return list(chain.from_iterable(combinations(names, n) for n in range(1, len(names) + 1)))


@dataclass(frozen=True)
class BaselineSettings:
    """What defines a baseline besides its networks.

    Arguments:
        method: One of ``METHODS``.
        modalities: Name to :class:`ModalitySpec`.
        latent_dim: Shared latents.
        specific_dim: Private latents of each modality: needed by MMVAE+ and DMVAE, optional for MoPoE, 0 for others.
        beta: Weight of the KL divergences from the prior relative to a likelihood of unit scale.
        likelihood: ``"gaussian"`` or ``"laplace"``.
        subsampling: Whether MVAE adds the ELBO of each modality alone.
        alpha: MVTCAE: weight of the total correlation's part, in [0, 1]. JMVAE: weight of the divergences of the joint
            posterior from each modality's own, relative to a likelihood of unit scale. The others have none, 0.

    Raises:
        ValueError: If a value is out of its range, of no such type, or does not fit the method.
    """

    method: str
    modalities: Mapping[str, ModalitySpec]
    latent_dim: int
    specific_dim: int
    beta: float
    likelihood: str
    subsampling: bool = False
    alpha: float = 0.0

    def __post_init__(self) -> None:
        for m in self.modalities:
            check_name(m)
        if self.method not in METHODS:
            raise ValueError(f"unknown method {self.method!r}; one of {', '.join(METHODS)}")
        if self.likelihood not in LIKELIHOODS:
            raise ValueError(f"unknown likelihood {self.likelihood!r}; one of {', '.join(LIKELIHOODS)}")
        method = METHODS[self.method]
        if self.latent_dim < 1 or self.specific_dim < 0 or (self.specific_dim > 0) not in method.specific:
            raise ValueError(f"{self.method} takes no latent_dim {self.latent_dim}, specific_dim {self.specific_dim}")
        beta = real_number("beta", self.beta, "positive and finite", lambda x: x > 0)
        if flag("subsampling", self.subsampling) and self.method != "mvae":
            raise ValueError(f"subsampling is an option of mvae, not of {self.method}")
        alpha = real_number("alpha", self.alpha)
        if not 0 <= alpha <= method.largest_alpha:
            raise ValueError(f"alpha is {alpha}; {self.method} takes one in [0, {method.largest_alpha:g}]")
        object.__setattr__(self, "beta", beta)
        object.__setattr__(self, "alpha", alpha)
        # multivae keys the subsets of modalities by their joined names, and the prior p among those r_m by "shared".
        names = list(self.modalities)
        ambiguous = len({"_".join(sorted(s)) for s in _all_subsets(names)}) < 2 ** len(names) - 1
        if method.joins_names and ("shared" in names or ambiguous):
            raise ValueError(f"modality names {names} must not be 'shared' or be ambiguous joined by '_'")

    @property
    def noise_scale(self) -> float:
        """Scale of the likelihood under which β is 1 (the objective β times an ELBO): √β if Gaussian, β if Laplace."""
        return math.sqrt(self.beta) if self.likelihood == "gaussian" else self.beta


@dataclass(frozen=True)
class Method:
    """What tells one baseline from another.

    Arguments:
        model: Its class in multivae.
        config: The class of its configuration.
        fields: The configuration's fields that are not common to all methods, from the settings.
        components: The subsets of the observed modalities whose products of experts are mixed uniformly.
        prior_expert: Whether the prior is a factor of a product of n of all M encoders.
        specific: Which of "with private latents" are possible.
        sums_batch: Whether multivae's loss is summed over the batch instead of averaged.
        ignores_beta: Whether multivae's loss leaves ``beta`` out, so that the likelihood's scale has to stand for it.
        joins_names: Whether multivae keys subsets of modalities by their joined names.
        alpha: multivae's default, which CoVAE's paper keeps.
        largest_alpha: What it may be.
        joint_encoder: Whether a network of all modalities gives the posterior where all are observed.
    """

    model: type[BaseMultiVAE]
    config: type
    fields: Callable[[BaselineSettings], dict[str, Any]]
    components: Callable[[Sequence[str]], Subsets]
    prior_expert: Callable[[int, int], bool]
    specific: tuple[bool, ...] = (False,)
    sums_batch: bool = False
    ignores_beta: bool = False
    joins_names: bool = True
    alpha: float = 0.0
    largest_alpha: float = 0.0
    joint_encoder: bool = False

    @property
    def library(self) -> type[BaseMultiVAE]:
        """multivae's own class, whatever this package adds to it."""
        return next(c for c in self.model.__mro__ if c.__module__.startswith("multivae."))


METHODS: dict[str, Method] = {
    # Wu and Goodman, 2018. Without warm-up: the library trains at beta = 0 where it is not told the epoch.
    "mvae": Method(
        _MVAE,
        MVAEConfig,
        lambda s: {"use_subsampling": s.subsampling, "k": 0, "warmup": 0, "beta": s.beta},
        _whole,
        lambda n, total: True,
    ),
    # Shi et al., 2019, as an ELBO with one sample of each expert, and Gaussian instead of Laplace latents.
    "mmvae": Method(
        _MMVAE,
        MMVAEConfig,
        lambda s: {
            "K": 1,
            "prior_and_posterior_dist": "normal",
            "learn_prior": False,
            "beta": 1.0,
            "loss": "iwae_looser",
        },
        _singles,
        lambda n, total: False,
        sums_batch=True,
        ignores_beta=True,
    ),
    # Sutter et al., 2021. As in the authors' code, the prior is an expert of the product of all modalities only.
    "mopoe": Method(
        _MoPoE,
        MoPoEConfig,
        lambda s: {
            "subsets": None,
            "beta": s.beta,
            "beta_style": 1.0,
            "modalities_specific_dim": dict.fromkeys(s.modalities, s.specific_dim) if s.specific_dim else None,
        },
        _all_subsets,
        lambda n, total: n == total,
        specific=(False, True),
    ),
    # Palumbo et al., 2023, as an ELBO with one sample of each expert. In training, a modality reconstructed from
    # another draws its private code from an auxiliary prior of learned scale (the paper's r_m); in generation private
    # codes come from the prior p(w) = N(0, I), which "joint_prior" names.
    "mmvae_plus": Method(
        _MMVAEPlus,
        MMVAEPlusConfig,
        lambda s: {
            "K": 1,
            "prior_and_posterior_dist": "normal",
            "learn_shared_prior": False,
            "learn_modality_prior": True,
            "beta": s.beta,
            "modalities_specific_dim": s.specific_dim,
            "reconstruction_option": "joint_prior",
            "loss": "iwae_looser",
        },
        _singles,
        lambda n, total: False,
        specific=(True,),
        sums_batch=True,
    ),
    # Hwang et al., 2021.
    "mvtcae": Method(
        MVTCAE,
        MVTCAEConfig,
        lambda s: {"beta": s.beta, "alpha": s.alpha},
        _whole,
        lambda n, total: False,
        joins_names=False,
        alpha=0.1,
        largest_alpha=1.0,
    ),
    # Suzuki et al., 2016. Without warm-up: the library anneals by an epoch that the loop does not tell.
    "jmvae": Method(
        JMVAE,
        JMVAEConfig,
        lambda s: {"beta": s.beta, "alpha": s.alpha, "warmup": 0},
        _whole,
        lambda n, total: False,
        joins_names=False,
        alpha=0.1,
        largest_alpha=math.inf,
        joint_encoder=True,
    ),
    # Lee and Pavlovic, 2021.
    "dmvae": Method(
        DMVAE,
        DMVAEConfig,
        lambda s: {
            "beta": s.beta,
            "modalities_specific_dim": dict.fromkeys(s.modalities, s.specific_dim),
            "modalities_specific_betas": dict.fromkeys(s.modalities, s.beta),
        },
        _whole,
        lambda n, total: True,
        specific=(True,),
        joins_names=False,
    ),
}


def multivae_fields(settings: BaselineSettings) -> dict[str, Any]:
    """Every field of the method's configuration in multivae, as this package pins it."""
    method = METHODS[settings.method]
    scale = settings.noise_scale if method.ignores_beta else 1.0
    return {
        "n_modalities": len(settings.modalities),
        "latent_dim": settings.latent_dim,
        "input_dims": {m: spec.shape for m, spec in settings.modalities.items()},
        "uses_likelihood_rescaling": False,
        "rescale_factors": None,
        "decoders_dist": dict.fromkeys(settings.modalities, LIKELIHOODS[settings.likelihood]),
        "decoder_dist_params": {m: {"scale": scale} for m in settings.modalities},
        "custom_architectures": [],
        **method.fields(settings),
    }


class BaselineEncoder(BaseEncoder):
    """Splits a network's mean and log-variance, (batch, latent + specific), into multivae's shared and private ones."""

    def __init__(self, name: str, network: nn.Module, settings: BaselineSettings) -> None:
        super().__init__()
        self.name, self.network = name, network
        self.sizes = [settings.latent_dim, settings.specific_dim]
        self.kl: Tensor | None = None  # of the latest batch, for the log

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.network(x)
        expected = (len(x), sum(self.sizes))
        for what, y in (("mean", mean), ("log-variance", log_variance)):
            if tuple(y.shape) != expected:
                raise ValueError(f"encoder {self.name!r} gives a {what} of shape {tuple(y.shape)}, needs {expected}")
        return mean, log_variance

    def forward(self, x: Tensor) -> ModelOutput:
        mean, log_variance = self.moments(x)
        with torch.no_grad():
            self.kl = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(1).mean()
        (shared_mean, mean), (shared_log_variance, log_variance) = (
            y.split(self.sizes, 1) for y in (mean, log_variance)
        )
        output = ModelOutput(embedding=shared_mean, log_covariance=shared_log_variance)
        if self.sizes[1]:
            output["style_embedding"], output["style_log_covariance"] = mean, log_variance
        return output


class BaselineDecoder(BaseDecoder):
    """Reshapes a network's output to the modality."""

    def __init__(self, network: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.network, self.shape = network, shape

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.network(z).reshape(len(z), *self.shape))


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


class Baseline(ExpertMixtureModel):
    r"""One of multivae's models behind this package's interface.

    All are trained on the same scale, in nats a sample under a likelihood of unit scale:

    .. math:: \mathbb E_q\left[-\sum_m \log p(x_m \mid z)\right] + \beta\, \mathrm{KL}(q \,\|\, p)

    with p(x|z) = N(x; μ(z), I), or the Laplace density of scale 1. Up to the factor β and a constant this is the ELBO
    under a likelihood of scale :meth:`noise_scale`. MMVAE and MMVAE+ estimate the KL divergence of their mixtures with
    one sample of each expert; MoPoE averages those of its components, an upper bound; MMVAE+ counts the private code
    of the encoding modality only; MVAE with sub-sampling adds the ELBO of each modality alone. MoPoE gives each of its
    2^M − 1 components an equal share of the batch by position, the product of all modalities the remainder: shuffle.
    In a batch of fewer samples each draws another component.

    With q the posterior given all of M modalities and q_m that of modality m's encoder, the others' objectives are

    .. math::
        \text{MVTCAE:}\quad \tfrac{M - \alpha}{M} \mathbb E_q[-\ln p(x \mid z)]
            + \beta \Big[(1 - \alpha) KL(q \,\|\, p) + \tfrac{\alpha}{M} \sum_m KL(q \,\|\, q_m) \Big]

    .. math::
        \text{JMVAE:}\quad \mathbb E_q[-\ln p(x \mid z)] + \beta\, KL(q \,\|\, p) + \alpha \sum_m KL(q \,\|\, q_m)

    DMVAE adds, to the negative ELBO of the joint posterior, that of each q_m, all modalities being reconstructed from
    each with their own private latents. Posteriors are, as in multivae: MVTCAE, the product of the observed
    modalities' encoders; DMVAE, the same with the prior as one more expert (given one modality too, erratum B6);
    JMVAE, the joint encoder given all and the product of encoders given some.

    Arguments:
        settings: Method, modalities, latents and likelihood.
        encoders: Name to network that maps ``(batch, *spec.shape)`` to a mean and a log-variance, each ``(batch,
            latent_dim + specific_dim)``: shared latents first, then private ones.
        decoders: Name to network that maps ``(batch, latent_dim + specific_dim)`` to ``spec.numel`` values a sample.
        joint_encoder: For JMVAE, a network from all modalities to ``(batch, 2 latent_dim)``; None for the others.

    Raises:
        ValueError: If a network is missing, or there is a joint encoder that the method does not use.
    """

    def __init__(
        self,
        settings: BaselineSettings,
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
        encoders = networks_by_name("encoders", encoders, self.modalities)
        decoders = networks_by_name("decoders", decoders, self.modalities)
        self.settings = settings
        if (joint_encoder is not None) != self.method.joint_encoder:
            raise ValueError(f"jmvae, and it alone, needs a joint encoder; {settings.method} got {joint_encoder}")
        joint = [] if joint_encoder is None else [_JointEncoder(joint_encoder, settings.latent_dim)]
        self.multivae = self.method.model(
            self.method.config(**multivae_fields(settings)),
            {m: BaselineEncoder(m, encoders[m], settings) for m in self.modalities},
            {m: BaselineDecoder(decoders[m], spec.shape) for m, spec in self.modalities.items()},
            *joint,
        )
        scale = settings.noise_scale if self.method.ignores_beta else 1.0
        self.multivae.recon_log_probs = dict.fromkeys(self.modalities, DecoderDensity(settings.likelihood, scale))

    @property
    def method(self) -> Method:
        """What tells this baseline from the others."""
        return METHODS[self.settings.method]

    def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
        """The objective of a batch, in nats a sample, and the KL divergence of each encoder's output from the prior.

        It draws from torch's global generator. Arguments and errors are those of the interface.
        """
        size, beta = self.check_batch(batch), self.settings.beta
        total = self.multivae(MultimodalBaseDataset(data={m: batch[m] for m in self.modalities})).loss
        if self.method.sums_batch:
            total = total / size
        if self.method.ignores_beta:
            # Taken at the scale s of noise_scale: -log p_1 = beta (-log p_s - c_s) + c_1, with c the log-normalisers.
            values = sum(spec.numel for spec in self.modalities.values())
            total = beta * total + values * (
                self.log_normaliser(1.0) - beta * self.log_normaliser(self.settings.noise_scale)
            )
        return Loss(total, {f"kl_{m}": self.multivae.encoders[m].kl for m in self.modalities})

    def experts(self, observed: Sequence[str]) -> list[tuple[tuple[str, ...], bool]]:
        """The method's subsets of the observed modalities, and whether the prior is among the experts of each."""
        total = len(self.modalities)
        return [(names, self.method.prior_expert(len(names), total)) for names in self.method.components(observed)]

    def posterior(self, given: Mapping[str, Tensor]) -> Posterior:
        """The approximate posterior given any non-empty set of modalities; see the class."""
        if self.method.joint_encoder and self.check_batch(given, subset=True) and len(given) == len(self.modalities):
            mean, log_variance = self.multivae.joint_encoder.moments({m: given[m] for m in self.modalities})
            return Posterior(mean[None], (0.5 * log_variance).exp()[None], {})
        return super().posterior(given)

    def moments(self, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of an encoder, each ``(batch, latent_dim + specific_dim)``, shared latents first."""
        return self.multivae.encoders[name].moments(x)

    def reconstruction(self, name: str, z: Tensor) -> Tensor:
        """The decoder's mean ``(rows, *spec.shape)`` of latents ``(rows, latent_dim + specific_dim)``."""
        return self.multivae.decoders[name](z).reconstruction

    @torch.no_grad()
    def library_nll(
        self,
        batch: Mapping[str, Tensor],
        *,
        num_importance_samples: int = 1000,
        generator: torch.Generator | None = None,
    ) -> float:
        """Mean joint negative log-likelihood of a batch as multivae 1.0.3 itself computes it, in nats a sample.

        It is here to be shown beside :meth:`~repro.model.MultimodalModel.log_likelihood`, not to be used: DMVAE's adds
        up over points and chunks, MMVAE+'s leaves the last modality out (the library removes it from its caller's data:
        here, from a copy), and those of MMVAE and MoPoE draw all samples from one expert taken at random. The decoders
        have the scale that they are trained with in multivae: for MMVAE the model's noise scale, for all others 1.

        Arguments:
            batch: All modalities.
            num_importance_samples: K.
            generator: Source of randomness.

        Raises:
            ValueError: If names or shapes do not fit.
        """
        size, method, library = self.check_batch(batch), self.method, self.multivae
        if method.model is not method.library:
            networks = [dict(part.items()) for part in (library.encoders, library.decoders)]
            library = method.library(method.config(**multivae_fields(self.settings)), *networks)
            library.load_state_dict(self.multivae.state_dict())
        training = self.training
        with isolated_rng(generator):
            inputs = MultimodalBaseDataset(data={m: batch[m] for m in self.modalities})
            found = library.compute_joint_nll(inputs, K=num_importance_samples)
        self.train(training)  # it switches to evaluation
        return float(found) / size


def build_baseline(
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
    hidden_dtype: torch.dtype | None = None,
    subsampling: bool = False,
    encoders: Mapping[str, nn.Module] | None = None,
    decoders: Mapping[str, nn.Module] | None = None,
    joint_encoder: nn.Module | None = None,
) -> Baseline:
    """Builds a baseline, with Table IV's fully connected networks unless others are given.

    Table IV's separate heads for private latents are columns of one wider linear head here, the same function.
    Arguments not listed are those of :class:`BaselineSettings`, and of :class:`Baseline` for networks.

    Arguments:
        alpha: multivae's default if None: 0.1 for MVTCAE and JMVAE.
        output: Last activation of the default decoders, ``"linear"`` or ``"sigmoid"``.
        widths: Hidden layers of the default networks.
        hidden_dtype: Type that the hidden layers of the default networks compute in.
        subsampling: Off by default, while MVAE's own paper and most tables here have it on (erratum B4).

    Raises:
        ValueError: As both classes and the networks do.
    """
    if alpha is None:
        alpha = METHODS[method].alpha if method in METHODS else 0.0
    common = (method, modalities, latent_dim, specific_dim, beta, likelihood)
    settings = BaselineSettings(*common, subsampling=subsampling, alpha=alpha)
    size, options = latent_dim + specific_dim, {"hidden_dtype": hidden_dtype}
    if encoders is None:
        encoders = {m: GaussianMLPEncoder(s.numel, size, widths=widths, **options) for m, s in modalities.items()}
    if decoders is None:
        decoders = {m: MLP(size, widths, s.numel, output=output, **options) for m, s in modalities.items()}
    if joint_encoder is None and METHODS[method].joint_encoder:
        joint_encoder = _ConcatenatedEncoder(modalities, widths, 2 * latent_dim)
    return Baseline(settings, encoders, decoders, joint_encoder)
