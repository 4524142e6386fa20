"""The models of the comparisons with the same encoders and decoders, by the builders of their papers."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from repro.datasets.base import ModalitySpec, specs
from repro.datasets.card import load_card
from repro.distributions.diffusion import VPSDE
from repro.model import MultimodalModel, resolved_settings
from repro.networks.construction import rebuildable
from repro.papers.compare.methods import SCORE, VARIANTS
from repro.papers.covae.building import build as build_covae
from repro.papers.covae.building import build_run as build_covae_run
from repro.papers.covae.building import observed
from repro.papers.covae.networks import build_networks
from repro.papers.gmrf_mcvae.model import GMRFMCVAE
from repro.papers.mrf_mvae.neural_prior import ChainSettings
from repro.papers.mrf_mvae.variants import VARIANTS as VARIANT_CLASSES
from repro.papers.mrf_mvae.variants import build as build_variant_run
from repro.papers.sbm_vae.autoencoders import Autoencoders
from repro.papers.sbm_vae.building import build_sbm
from repro.papers.sbm_vae.model import SBMVAE
from repro.papers.sbm_vae.sampling import SamplingSettings
from repro.papers.sbm_vae.score import LatentScore
from repro.records import RunSpec

__all__ = ["build", "build_alike", "build_compared", "decoders", "unimodal_autoencoders"]

NETWORKS = ("widths", "dropout", "hidden_dtype")  # settings of the networks alone
SCORE_MODEL = {"beta": 0.1, "sde": (0.1, 5.0), "score": {"multipliers": (1, 2)}, "latents": "sample"}


@rebuildable
class _Heads(nn.Module):
    """An encoder of CoVAE's as GMRF MCVAE takes one: its last hidden layer, and mean and log-variance from that."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.feature_dim = encoder, encoder.feature_dim

    def features(self, x: Tensor) -> Tensor:
        return self.encoder.features(x)

    def heads(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.encoder.mean(features), self.encoder.log_variance(features)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.heads(self.features(x))


@rebuildable
class _Joined(nn.Module):
    """An encoder of CoVAE's as SBM-VAE's autoencoders take one: mean and log-variance in one vector."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(self.encoder(x), -1)


@rebuildable
class _Means(nn.Module):
    """An encoder of CoVAE's as a regularised autoencoder takes one: the mean alone, whose other head is dropped."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        del encoder.log_variance

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder.mean(self.encoder.features(x))


@rebuildable
class _Rows(nn.Module):
    """A decoder for latents of any leading shape."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, z: Tensor) -> Tensor:
        return self.decoder(z.flatten(0, -2)).flatten(1).unflatten(0, z.shape[:-1])


def _autoencoders(
    modalities: Mapping[str, ModalitySpec],
    encoders: Mapping[str, nn.Module],
    parts: Mapping[str, nn.Module],
    latent_dim: int,
    *,
    kind: str = "vae",
    **options: Any,
) -> Autoencoders:
    heads = {m: _Joined(e) if kind == "vae" else _Means(e) for m, e in encoders.items()}
    return Autoencoders(modalities, kind=kind, latent_dim=latent_dim, encoders=heads, decoders=parts, **options)


def unimodal_autoencoders(
    modalities: Mapping[str, ModalitySpec], *, latent_dim: int, beta: float, networks: str = "mlp", **options: Any
) -> Autoencoders:
    """Unimodal VAEs of one kind of networks.

    Arguments:
        modalities: Name to :class:`~repro.model.ModalitySpec`.
        latent_dim: Latents a modality.
        beta: Weight of the KL term.
        networks: The kind, see :func:`~repro.papers.covae.networks.build_networks`.
        options: What else that takes of the kind, such as ``widths``.
    """
    size = dict.fromkeys(modalities, latent_dim)
    made = build_networks(networks, modalities, encoded=size, decoded=size, **options)
    rows = {m: _Rows(d) for m, d in made.decoders.items()}
    return _autoencoders(modalities, made.encoders, rows, latent_dim, beta=beta)


def _score_model(
    modalities: Mapping[str, ModalitySpec],
    encoders: Mapping[str, nn.Module],
    parts: Mapping[str, nn.Module],
    settings: Mapping[str, Any],
    sampling: Mapping[str, Any],
) -> SBMVAE:
    own = {k: settings[k] for k in ("kind", "beta", "regularisation", "noise_variance") if k in settings}
    autoencoders = _autoencoders(modalities, encoders, parts, settings["latent_dim"], **own)
    score = LatentScore(
        len(modalities),
        settings["latent_dim"],
        sde=VPSDE(*settings["sde"]),
        multi_time=settings.get("multi_time", False),
        **settings["score"],
    )
    return SBMVAE(modalities, autoencoders, score, sampling=SamplingSettings(**sampling), latents=settings["latents"])


def build(
    method: str,
    modalities: Mapping[str, ModalitySpec],
    settings: Mapping[str, Any] | None = None,
    sampling: Mapping[str, Any] | None = None,
) -> MultimodalModel:
    """The untrained model of a method.

    Arguments:
        method: ``"covae"``, ``"gmrf_mcvae"`` or ``"sbm_vae"``.
        modalities: Name to :class:`~repro.model.ModalitySpec`.
        settings: What a specification's ``params["model"]`` holds, or some of it: for ``"covae"`` see
            :func:`repro.papers.covae.building.settings_of`; the others' networks are ``"mlp"`` of the default
            ``widths`` with four latents a modality (``latent_dim``), SBM-VAE has the settings ``SCORE_MODEL``, and
            GMRF MCVAE those of its class.
        sampling: SBM-VAE's sampler.

    Raises:
        ValueError: If the method or a setting is unknown, and as the models and networks do.
    """
    if method == "covae":
        return build_covae(method, modalities, settings)
    if method not in ("gmrf_mcvae", "sbm_vae"):
        raise ValueError(f"unknown method {method!r}; covae, gmrf_mcvae or sbm_vae")
    own = SCORE_MODEL
    if method == "gmrf_mcvae":
        parameters = signature(GMRFMCVAE.__init__).parameters
        own = {n: p.default for n, p in parameters.items() if n not in ("self", "modalities", "encoders", "decoders")}
    options = resolved_settings(settings, {**own, "networks": "mlp", "widths": (256, 256), "latent_dim": 4}, method)
    kind, widths = options.pop("networks"), options.pop("widths")
    size = dict.fromkeys(modalities, options["latent_dim"])
    made = build_networks(kind, modalities, encoded=size, decoded=size, widths=widths)
    rows = {m: _Rows(d) for m, d in made.decoders.items()}
    if method == "sbm_vae":
        return _score_model(modalities, made.encoders, rows, options, sampling or {})
    encoders = {m: _Heads(e) for m, e in made.encoders.items()}
    return GMRFMCVAE(modalities, encoders=encoders, decoders=rows, **options)


def build_compared(spec: RunSpec) -> MultimodalModel:
    """The untrained model of a run of :func:`repro.papers.compare.methods.method_spec`.

    Encoders and decoders of all have the same hidden layers; they differ in the latents that their heads give and take.
    """
    if spec.method in VARIANTS:
        return build_variant_run(spec)
    if spec.method in SCORE:
        return build_sbm(specs(load_card(spec.dataset)), spec.params["model"], spec.params["evaluation"]["sampling"])
    return build_covae_run(spec)


def build_alike(spec: RunSpec, modalities: Mapping[str, ModalitySpec] | None = None) -> MultimodalModel:
    """The untrained model of a run of a comparison, with the encoders and decoders of CoVAE's experiments.

    They differ in the latents that their heads give and take; a regularised autoencoder's encoder has the head for the
    mean alone.

    Arguments:
        spec: Its ``params["model"]`` has ``networks``, and ``widths``, ``dropout`` or ``hidden_dtype`` where those take
            it.
        modalities: Name to :class:`~repro.model.ModalitySpec`, of any shapes that the networks take; all of the run's
            dataset, without the latents that they were drawn from, if None.
    """
    modalities = observed(spec.dataset) if modalities is None else modalities
    settings = dict(spec.params["model"])
    if spec.method not in (*VARIANTS, *SCORE):
        return build_covae(spec.method, modalities, settings)
    kind, options = settings.pop("networks"), {k: settings.pop(k) for k in NETWORKS if k in settings}
    size = dict.fromkeys(modalities, settings["latent_dim"])
    made = build_networks(kind, modalities, encoded=size, decoded=size, **options)
    rows = {m: _Rows(d) for m, d in made.decoders.items()}
    if spec.method in SCORE:
        return _score_model(modalities, made.encoders, rows, settings, spec.params["evaluation"]["sampling"])
    encoders = {m: _Heads(e) for m, e in made.encoders.items()}
    if "chains" in settings:
        settings["chains"] = ChainSettings(**settings["chains"])
    return VARIANT_CLASSES[VARIANTS[spec.method]](modalities, encoders=encoders, decoders=rows, **settings)


def decoders(model: MultimodalModel) -> dict[str, nn.Module]:
    """Each modality's decoder, of any of the three models; none of a model that has no decoders by that name."""
    return {m: model.decoders[m] for m in model.modalities} if hasattr(model, "decoders") else {}
