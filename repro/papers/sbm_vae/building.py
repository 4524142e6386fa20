"""Models and data of SBM-VAE's runs, from their specifications."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from repro.datasets import load_dataset
from repro.datasets.base import Dataset, ModalitySpec, fingerprint, specs
from repro.datasets.card import load_card
from repro.distributions.diffusion import VPSDE
from repro.model import MultimodalModel
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


def build_sbm(
    modalities: Mapping[str, ModalitySpec], settings: Mapping[str, Any], sampling: Mapping[str, Any]
) -> SBMVAE:
    """An untrained SBM-VAE of the ``model`` and the ``sampling`` part of a specification."""
    s = dict(settings)
    sde, number, dim = VPSDE(*s["sde"]), len(modalities), s["latent_dim"]
    networks = {"widths": s["widths"]} | ({"hidden": s["hidden"]} if "hidden" in s else {})
    autoencoders = Autoencoders(
        modalities,
        kind=s["kind"],
        latent_dim=dim,
        beta=s["beta"],
        likelihoods=s.get("likelihoods"),
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
    from repro.baselines import build_baseline
    from repro.baselines.joint import JOINT_METHODS, build_joint_baseline

    widths, dtype = settings.pop("widths"), settings.pop("compute_dtype")
    size = settings["latent_dim"] + settings["specific_dim"]
    encoders = {
        m: _GaussianHeads(SoftIntroEncoder(s.shape, 2 * size, widths=widths), dtype) for m, s in modalities.items()
    }
    decoders = {m: _Decoder(SoftIntroDecoder(s.shape, size, widths=widths), dtype) for m, s in modalities.items()}
    maker = build_joint_baseline if spec.method in JOINT_METHODS else build_baseline
    return maker(spec.method, modalities, encoders=encoders, decoders=decoders, **settings)
