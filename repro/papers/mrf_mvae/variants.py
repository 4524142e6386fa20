"""The three variants under one name and with one architecture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from repro.datasets.base import ModalitySpec, specs
from repro.datasets.card import load_card
from repro.papers.gmrf_mcvae.model import GMRFMCVAE
from repro.papers.mrf_mvae.almrf import ALMRFMVAE
from repro.papers.mrf_mvae.networks import fully_connected_networks
from repro.papers.mrf_mvae.neural_prior import ChainSettings
from repro.papers.mrf_mvae.nnmrf import NNMRFMVAE
from repro.records import RunSpec

__all__ = ["VARIANTS", "build", "build_variant"]

VARIANTS: dict[str, type[GMRFMCVAE]] = {"gmrf": GMRFMCVAE, "almrf": ALMRFMVAE, "nnmrf": NNMRFMVAE}


def build_variant(
    name: str,
    modalities: Mapping[str, ModalitySpec],
    *,
    latent_dim: int = 8,
    width: int = 1024,
    layers: int = 4,
    output: str = "linear",
    hidden_dtype: torch.dtype | None = None,
    **options: Any,
) -> GMRFMCVAE:
    """An untrained variant with "an identical architectural configuration", that of appendix D.2.

    Arguments:
        name: ``"gmrf"``, a Gaussian posterior and prior with full Cholesky factors
            (:class:`~repro.papers.gmrf_mcvae.model.GMRFMCVAE`); ``"almrf"`` (:class:`ALMRFMVAE`); ``"nnmrf"``
            (:class:`NNMRFMVAE`).
        modalities: Name to :class:`~repro.model.ModalitySpec`, in the order of the latent blocks.
        latent_dim: Latents a modality.
        width: Units of the encoders' and decoders' hidden layers.
        layers: Number of those layers.
        output: ``"linear"`` or ``"sigmoid"``, the decoders' last activation.
        hidden_dtype: Type of the hidden layers, such as ``torch.bfloat16``; of the potentials too.
        options: Further arguments of the variant, such as ``beta``, ``scale`` and ``reduction``.

    Raises:
        ValueError: If the name is unknown, or as the variant.

    Source: MRF MVAE, section 3.1 and appendix D.2.
    """
    if name not in VARIANTS:
        raise ValueError(f"unknown variant {name!r}; one of {', '.join(VARIANTS)}")
    encoders, decoders = fully_connected_networks(
        modalities, latent_dim, width=width, layers=layers, output=output, hidden_dtype=hidden_dtype
    )
    if name == "nnmrf":
        options["hidden_dtype"] = hidden_dtype
    return VARIANTS[name](modalities, latent_dim=latent_dim, encoders=encoders, decoders=decoders, **options)


def build(spec: RunSpec) -> GMRFMCVAE:
    """The untrained variant of a run."""
    settings = dict(spec.params["model"])
    dtype = settings.pop("hidden_dtype")
    if "chains" in settings:
        settings["chains"] = ChainSettings(**settings["chains"])
    return build_variant(
        settings.pop("variant"),
        specs(load_card(spec.dataset)),
        hidden_dtype=None if dtype == "float32" else getattr(torch, dtype),
        **settings,
    )
