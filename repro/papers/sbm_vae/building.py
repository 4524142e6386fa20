"""Models and data of SBM-VAE's runs, from their specifications."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from repro import baselines
from repro.datasets import load_dataset
from repro.datasets.base import Dataset, ModalitySpec, fingerprint, specs
from repro.datasets.card import load_card
from repro.distributions.diffusion import VPSDE
from repro.model import MultimodalModel, resolved_settings
from repro.networks.construction import rebuildable
from repro.networks.soft_intro import SoftIntroDecoder, SoftIntroEncoder
from repro.papers.sbm_vae.autoencoders import Autoencoders
from repro.papers.sbm_vae.guidance import ContrastiveEncoders, PairEnergy
from repro.papers.sbm_vae.model import SBMVAE
from repro.papers.sbm_vae.sampling import SamplingSettings
from repro.papers.sbm_vae.score import LatentScore
from repro.papers.sbm_vae.settings import METHODS
from repro.records import RunSpec

__all__ = ["build", "build_sbm", "first_modalities", "load"]


@rebuildable
class _GaussianHeads(nn.Module):
    """The paper's encoder as the baselines take one: mean and log-variance, in a lower precision where asked."""

    def __init__(self, encoder: nn.Module, compute_dtype: str) -> None:
        super().__init__()
        self.encoder, self.low = encoder, compute_dtype == "bfloat16"

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.training and self.low):
            found = self.encoder(x)
        mean, log_variance = found.float().chunk(2, -1)
        return mean, log_variance


@rebuildable
class _Decoder(nn.Module):
    """The paper's decoder, in a lower precision where asked."""

    def __init__(self, decoder: nn.Module, compute_dtype: str) -> None:
        super().__init__()
        self.decoder, self.low = decoder, compute_dtype == "bfloat16"

    def forward(self, z: Tensor) -> Tensor:
        with torch.autocast(z.device.type, torch.bfloat16, enabled=self.training and self.low):
            found = self.decoder(z)
        return found.float()


def first_modalities(data: Dataset, number: int) -> Dataset:
    """The split with its first modalities alone.

    Raises:
        ValueError: If there are not as many.
    """
    names = list(data.modalities)[:number]
    if len(names) < number:
        raise ValueError(f"{data.name} has {len(names)} modalities, {number} are asked for")
    if len(names) == len(data.modalities):
        return data
    kept = {m: data.data[m] for m in names}
    known = dict(data.provenance) | {"sha256": fingerprint(kept, data.labels), "modalities": number}
    return replace(data, modalities={m: data.modalities[m] for m in names}, data=kept, provenance=known)


def load(spec: RunSpec) -> dict[str, Dataset]:
    """The training, the validation and the test split of a run."""
    data, number = spec.params["data"], spec.params["evaluation"]["num_samples"]
    sizes = {"train": data["train_samples"], "validation": number, "test": number}
    found = {}
    for split, size in sizes.items():
        whole = load_dataset(spec.dataset, split=split)
        part = whole if size is None else whole.first(min(size, len(whole)))
        found[split] = first_modalities(part, data["modalities"])
    return found


# What build_sbm takes, and the paper's values for Extended PolyMNIST; the sizes of networks are their own defaults.
SETTINGS: dict[str, Any] = {
    "kind": "vae",
    "latent_dim": 64,
    "beta": 0.1,
    "likelihoods": None,
    "regularisation": 1e-5,
    "noise_variance": 0.01,
    "widths": (64, 128, 256),
    "hidden": (256, 256),
    "compute_dtype": "float32",
    "latents": "sample",
    "sde": (0.1, 5.0),
    "weighting": "variance",
    "score": {},
    "multi_time": False,
    "energy": None,
    "embedding_dim": 0,
    "gamma": 1000 / 256,
    "missing": 0.0,
    "finetune_drop": 0.0,
}


def build_sbm(
    modalities: Mapping[str, ModalitySpec],
    settings: Mapping[str, Any] | None = None,
    sampling: Mapping[str, Any] | None = None,
) -> SBMVAE:
    """An untrained SBM-VAE.

    Arguments:
        modalities: Name to :class:`~repro.model.ModalitySpec`.
        settings: All or some of ``SETTINGS``, the ``model`` part of a specification: arguments of
            :class:`Autoencoders`, of :class:`SBMVAE` and of :class:`LatentScore` (``score`` has its further ones),
            ``energy`` with the widths of the pair energy and ``embedding_dim`` of the contrastive encoders, which there
            are none of by default.
        sampling: All or some of the arguments of :class:`SamplingSettings`, the ``sampling`` part; the paper's by
            default.

    Raises:
        ValueError: If there is no such setting, or as the parts do.
    """
    s = resolved_settings(settings, SETTINGS, "SBM-VAE")
    known = {f.name: f.default for f in fields(SamplingSettings)}
    sampling = resolved_settings(sampling, known, "the sampling")
    sde, number, dim = VPSDE(*s["sde"]), len(modalities), s["latent_dim"]
    networks = {"widths": s["widths"], "hidden": s["hidden"]}
    autoencoders = Autoencoders(
        modalities,
        kind=s["kind"],
        latent_dim=dim,
        beta=s["beta"],
        likelihoods=s["likelihoods"],
        regularisation=s["regularisation"],
        noise_variance=s["noise_variance"],
        compute_dtype=s["compute_dtype"],
        **networks,
    )
    score = LatentScore(
        number,
        dim,
        sde=sde,
        weighting=s["weighting"],
        multi_time=s["multi_time"],
        context_dim=s["embedding_dim"],
        compute_dtype=s["compute_dtype"],
        **s["score"],
    )
    energy = PairEnergy(number, dim, sde, s["energy"]) if s["energy"] else None
    contrastive = None
    if s["embedding_dim"]:
        contrastive = ContrastiveEncoders(modalities, embedding_dim=s["embedding_dim"], **networks)
    return SBMVAE(
        modalities,
        autoencoders,
        score,
        energy=energy,
        contrastive=contrastive,
        gamma=s["gamma"],
        sampling=SamplingSettings(**sampling),
        latents=s["latents"],
        missing=s["missing"],
        finetune_drop=s["finetune_drop"],
    )


def build(spec: RunSpec) -> MultimodalModel:
    """The untrained model of a run."""
    every = specs(load_card(spec.dataset))
    modalities = dict(list(every.items())[: spec.params["data"]["modalities"]])
    settings = dict(spec.params["model"])
    if spec.method in METHODS:
        return build_sbm(modalities, settings, spec.params["evaluation"]["sampling"])
    widths, dtype = settings.pop("widths"), settings.pop("compute_dtype")
    size = settings["latent_dim"] + settings["specific_dim"]
    encoders = {
        m: _GaussianHeads(SoftIntroEncoder(s.shape, 2 * size, widths=widths), dtype) for m, s in modalities.items()
    }
    decoders = {m: _Decoder(SoftIntroDecoder(s.shape, size, widths=widths), dtype) for m, s in modalities.items()}
    return baselines.build_baseline(spec.method, modalities, encoders=encoders, decoders=decoders, **settings)
