"""Builds each of the eight models with the same networks."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

from repro.baselines import METHODS, build_baseline
from repro.datasets.base import ModalitySpec, specs
from repro.datasets.card import load_card
from repro.model import MultimodalModel, networks_by_name, resolved_settings
from repro.papers.covae.model import CoVAE
from repro.papers.covae.networks import build_networks
from repro.papers.covae.posterior import num_covariance_entries
from repro.records import RunSpec

__all__ = ["build", "build_run", "observed", "settings_of"]

# Arguments of the networks; those of the models are their own.
NETWORK_OPTIONS = ("widths", "dropout", "joint_hidden", "hidden_dtype")
PARTS = ("self", "modalities", "method", "encoders", "decoders", "joint_encoder")
LATENTS = 4
PRIVATE = ("mmvae_plus", "dmvae")  # the methods that need private latents


def settings_of(method: str, modalities: Mapping[str, ModalitySpec]) -> dict[str, Any]:
    """Every setting of a method that :func:`build` takes, with its default.

    ``networks`` is ``"mlp"`` and its further settings are those of
    :func:`~repro.papers.covae.networks.build_networks`. There are four latents a modality (``latent_dims`` of CoVAE) or
    four shared ones (``latent_dim`` of a baseline; MMVAE+ and DMVAE have as many private ones, ``specific_dim``). All
    others have the model's own default, and β is 1 where the model has none.

    Raises:
        ValueError: If there is no such method.
    """
    if method == "covae":
        model, own = CoVAE.__init__, {"latent_dims": dict.fromkeys(modalities, LATENTS)}
    elif method in METHODS:
        model = build_baseline
        own = {"latent_dim": LATENTS, "specific_dim": LATENTS if method in PRIVATE else 0, "beta": 1.0}
    else:
        raise ValueError(f"unknown method {method!r}; one of covae, {', '.join(METHODS)}")
    network = signature(build_networks).parameters
    found = {"networks": "mlp", **{name: network[name].default for name in NETWORK_OPTIONS}}
    taken = {n: p.default for n, p in signature(model).parameters.items() if n not in (*PARTS, *found)}
    return {**found, **taken, **own}


def build(
    method: str, modalities: Mapping[str, ModalitySpec], settings: Mapping[str, Any] | None = None
) -> MultimodalModel:
    """The untrained model of a method.

    Arguments:
        method: ``"covae"`` or a baseline's name.
        modalities: Name to :class:`ModalitySpec`.
        settings: All or some of the settings of :func:`settings_of`, such as ``{"beta": 0.03}``; what a specification's
            ``params["model"]`` holds. CoVAE's ``latent_dims`` may be one number for all modalities.

    Raises:
        ValueError: If there is no such method or setting, or as the models and networks do.
    """
    options = resolved_settings(settings, settings_of(method, modalities), method)
    kind = options.pop("networks")
    network = {name: options.pop(name) for name in NETWORK_OPTIONS}
    if method == "covae":
        dims = options["latent_dims"]
        dims = dims if isinstance(dims, Mapping) else dict.fromkeys(modalities, dims)
        named = networks_by_name("latent_dims", dims, modalities)
        options["latent_dims"] = sizes = {m: int(size) for m, size in named.items()}
        dims = list(sizes.values())
        outputs = sum(dims) + num_covariance_entries(options["posterior"], dims)
        made = build_networks(kind, modalities, encoded=sizes, decoded=sizes, joint_outputs=outputs, **network)
        return CoVAE(modalities, encoders=made.encoders, joint_encoder=made.joint, decoders=made.decoders, **options)
    size = dict.fromkeys(modalities, options["latent_dim"] + options["specific_dim"])
    outputs = 2 * options["latent_dim"] if method == "jmvae" else 0
    made = build_networks(kind, modalities, encoded=size, decoded=size, joint_outputs=outputs, **network)
    return build_baseline(
        method, modalities, encoders=made.encoders, decoders=made.decoders, joint_encoder=made.joint, **options
    )


def observed(dataset: str) -> dict[str, ModalitySpec]:
    """A dataset's modalities without the latents that they were drawn from."""
    return {m: s for m, s in specs(load_card(dataset)).items() if m not in ("z0", "z1")}


def build_run(spec: RunSpec) -> MultimodalModel:
    """The untrained model of a run, of the modalities of its dataset without the latents that they were drawn from."""
    return build(spec.method, observed(spec.dataset), spec.params["model"])
