"""The models of this paper's tables by the name of their method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from repro.baselines import build_baseline
from repro.datasets.base import ModalitySpec
from repro.model import MultimodalModel
from repro.papers.gmrf_mcvae.model import GMRFMCVAE

__all__ = ["build_method"]


def build_method(method: str, modalities: Mapping[str, ModalitySpec], **settings: Any) -> MultimodalModel:
    """An untrained model.

    Arguments:
        method: ``"gmrf_mcvae"``, or a baseline's name as :func:`repro.baselines.build_baseline` takes it.
        modalities: Name to :class:`~repro.datasets.base.ModalitySpec`.
        settings: Of the model.

    Raises:
        ValueError: As the models do.
    """
    if method == "gmrf_mcvae":
        return GMRFMCVAE(modalities, **settings)
    return build_baseline(method, modalities, **settings)
