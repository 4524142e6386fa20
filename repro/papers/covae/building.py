"""Builds each of the eight models with the same networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from repro.baselines import METHODS, build_baseline
from repro.baselines.joint import build_joint_baseline
from repro.datasets.base import ModalitySpec, specs
from repro.datasets.card import load_card
from repro.model import MultimodalModel
from repro.papers.covae.model import CoVAE
from repro.papers.covae.networks import build_networks
from repro.papers.covae.posterior import num_covariance_entries
from repro.records import RunSpec

__all__ = ["build", "build_run"]

NETWORK_OPTIONS = ("widths", "dropout", "joint_hidden")


def build(method: str, modalities: Mapping[str, ModalitySpec], settings: Mapping[str, Any]) -> MultimodalModel:
    """The untrained model of a method.

    Arguments:
        method: ``"covae"`` or a baseline's name.
        modalities: Name to :class:`ModalitySpec`.
        settings: What a specification's ``params["model"]`` holds.

    Raises:
        ValueError: As the models and networks do.
    """
    options = dict(settings)
    kind = options.pop("networks")
    network = {name: options.pop(name) for name in NETWORK_OPTIONS if name in options}
    if method == "covae":
        sizes = {m: int(options["latent_dims"][m]) for m in modalities}
        dims = list(sizes.values())
        outputs = sum(dims) + num_covariance_entries(options["posterior"], dims)
        made = build_networks(kind, modalities, encoded=sizes, decoded=sizes, joint_outputs=outputs, **network)
        return CoVAE(modalities, encoders=made.encoders, joint_encoder=made.joint, decoders=made.decoders, **options)
    size = dict.fromkeys(modalities, options["latent_dim"] + options["specific_dim"])
    outputs = 2 * options["latent_dim"] if method == "jmvae" else 0
    made = build_networks(kind, modalities, encoded=size, decoded=size, joint_outputs=outputs, **network)
    if method in METHODS:
        return build_baseline(method, modalities, encoders=made.encoders, decoders=made.decoders, **options)
    return build_joint_baseline(
        method, modalities, encoders=made.encoders, decoders=made.decoders, joint_encoder=made.joint, **options
    )


def build_run(spec: RunSpec) -> MultimodalModel:
    """The untrained model of a run, of the modalities of its dataset without the latents that they were drawn from."""
    modalities = {m: s for m, s in specs(load_card(spec.dataset)).items() if m not in ("z0", "z1")}
    return build(spec.method, modalities, spec.params["model"])
