"""Settings of all models with the same encoders, decoders and latents in all, and one budget; needs no torch.

What :func:`~repro.papers.compare.building.build_alike` builds of three modalities or so of any shapes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from repro.papers.compare.methods import REGULARISED, SCORE, VARIANTS, weighted_settings
from repro.papers.compare.priors.settings import SDE
from repro.papers.mrf_mvae.skewed.experiment import spec as skewed_spec
from repro.papers.sbm_vae.settings import METHODS

__all__ = ["CANONICAL", "SCORED", "alike_model", "alike_training", "private_latents"]

CANONICAL, SCORED = 0.1, 0.5  # the share of the epochs that Deep CCA has of CoVAE's, the score model of its own


def private_latents(latent_dim: int, number: int) -> dict[str, int]:
    """Shared and private latents of MMVAE+ and DMVAE: as many in all as modalities have that have their own.

    Arguments:
        latent_dim: Latents a modality of the models of which each has its own, half of which are private here.
        number: Modalities.
    """
    own = latent_dim // 2
    return {"latent_dim": number * (latent_dim - own), "specific_dim": own}


def alike_model(
    method: str,
    weight: float,
    p: Mapping[str, Any],
    *,
    modalities: Sequence[str],
    latent_dim: int,
    networks: Mapping[str, Any],
) -> dict[str, Any]:
    """A method's settings.

    Arguments:
        method: One of :data:`~repro.papers.compare.methods.LABELS`.
        weight: That of the KL term or of what the model has in its place.
        p: A profile's ``potential_widths`` and ``chains`` of NN-MRF, ``score`` of score models, and the share
            ``held_out`` of CoVAE's ``canonical`` correlations.
        modalities: Their names.
        latent_dim: Latents a modality where each has its own; as many times that as there are modalities are shared
            where there are none.
        networks: Kind and sizes of encoders and decoders, as :func:`~repro.papers.covae.networks.build_networks` takes
            them.
    """
    if method in VARIANTS:
        own = dict(skewed_spec(VARIANTS[method], 0, "paper", beta=weight).params["model"])
        for name in ("variant", "width", "layers", "output", "hidden_dtype"):
            del own[name]
        own |= {**networks, "latent_dim": latent_dim}
        return own | ({"potential_widths": p["potential_widths"], "chains": p["chains"]} if method == "nnmrf" else {})
    if method in SCORE:
        own = {**networks, "kind": METHODS[method]["kind"], "latent_dim": latent_dim, "latents": "sample"}
        own |= {"regularisation" if method in REGULARISED else "beta": weight}
        own |= {"noise_variance": 0.01} if method in REGULARISED else {}
        return own | {"sde": list(SDE), "score": p["score"], "multi_time": method == "mld"}
    own = weighted_settings(method, latent_dim * len(modalities), tuple(modalities[:2]), networks, weight)
    if method == "covae":
        own |= {"latent_dims": dict.fromkeys(modalities, latent_dim), "held_out": p["canonical"]["held_out"]}
    elif own["specific_dim"]:
        own |= private_latents(latent_dim, len(modalities))
    return own


def alike_training(
    method: str, epochs: int, common: Mapping[str, Any], patience: Mapping[str, Any] | None, canonical_batch: int
) -> dict[str, Any]:
    """One budget: the epochs of all stages together, at most so many where there is patience.

    Arguments:
        method: One of :data:`~repro.papers.compare.methods.LABELS`.
        epochs: Of all stages together.
        common: What the training of all methods has.
        patience: What ends a stage before, but Deep CCA; None for exactly as many epochs.
        canonical_batch: Samples in a batch of Deep CCA, as many as its correlations need.
    """
    training = {**common, **(patience or {})}
    if method == "covae":
        own, stage = max(1, round(CANONICAL * epochs)), "deep_cca"
        settings = {"batch_size": canonical_batch} | ({} if patience is None else {"patience": None})
    elif method in SCORE:
        own, stage, settings = max(1, round(SCORED * epochs)), "score", {}
    else:
        return {"epochs": epochs, **training}
    return {"epochs": epochs - own, **training, "stages": {stage: {"epochs": own, **settings}}}
