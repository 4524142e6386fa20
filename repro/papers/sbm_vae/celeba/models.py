"""Models and data of SBM-VAE's runs on CelebAMask-HQ: baselines with a Bernoulli modality and missing ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro.baselines import METHODS as BASELINES
from repro.baselines import Baseline, BaselineSettings
from repro.datasets import load_dataset
from repro.datasets.base import Dataset, ModalitySpec, specs
from repro.datasets.card import load_card
from repro.model import Loss, Stage, TrainableModel
from repro.networks.construction import rebuildable
from repro.networks.mlp import MLP
from repro.networks.soft_intro import SoftIntroDecoder
from repro.papers.sbm_vae.autoencoders import feature_network
from repro.papers.sbm_vae.building import build_sbm
from repro.papers.sbm_vae.settings import METHODS, SUPERVISED
from repro.papers.sbm_vae.staging import column, missing_mask, with_present
from repro.papers.sbm_vae.supervised import Supervised, WithClassifier
from repro.records import RunSpec

__all__ = ["FaceBaseline", "build_face_baseline", "build_faces", "load_faces"]


@rebuildable
class _Encoder(nn.Module):
    """A network of a vector as the baselines take one: mean and log-variance, in a lower precision where asked."""

    def __init__(self, network: nn.Module, low: bool) -> None:
        super().__init__()
        self.network, self.low = network, low

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.training and self.low):
            found = self.network(x)
        mean, log_variance = found.float().chunk(2, -1)
        return mean, log_variance


@rebuildable
class _Decoder(nn.Module):
    """A network to a modality, in a lower precision where asked."""

    def __init__(self, network: nn.Module, low: bool) -> None:
        super().__init__()
        self.network, self.low = network, low

    def forward(self, z: Tensor) -> Tensor:
        with torch.autocast(z.device.type, torch.bfloat16, enabled=self.training and self.low):
            found = self.network(z)
        return found.float()


def _bernoulli(logits: Tensor, x: Tensor) -> Tensor:
    return -F.binary_cross_entropy_with_logits(logits, x, reduction="none")


def _own_variances(module: nn.Module, arguments: Any, output: Any) -> None:
    # The library writes into the log-variances of what is missing, which a view of the network's output forbids.
    output["log_covariance"] = output["log_covariance"].clone()


class FaceBaseline(Baseline):
    """A baseline with some modalities of Bernoulli likelihood, and training with missing ones.

    Decoders of Bernoulli modalities give logits; their means are what generation gives. With ``missing`` a share of
    each modality is left out of training as for SBM-VAE (:func:`~repro.papers.sbm_vae.staging.missing_mask`), by the
    library's masks: a missing modality is in no expert and no reconstruction.
    """

    def __init__(
        self,
        settings: BaselineSettings,
        encoders: Mapping[str, nn.Module],
        decoders: Mapping[str, nn.Module],
        *,
        bernoulli: Sequence[str] = (),
        missing: float = 0.0,
    ) -> None:
        super().__init__(settings, encoders, decoders)
        if unknown := [m for m in bernoulli if m not in self.modalities]:
            raise ValueError(f"unknown modalities {unknown} of Bernoulli likelihood; there are {list(self.modalities)}")
        if not 0 <= missing < 1:
            raise ValueError(f"missing is {missing}, must be at least 0 and under 1")
        if missing and settings.method not in ("mopoe", "mvtcae"):
            raise ValueError(f"{settings.method} does not train with missing modalities")
        self.bernoulli, self.missing = tuple(bernoulli), missing
        for m in bernoulli:
            self.multivae.recon_log_probs[m] = _bernoulli
        if missing:
            for encoder in self.multivae.encoders.values():
                encoder.register_forward_hook(_own_variances)

    def stage_data(self, stage: Stage, data: Dataset) -> Dataset:
        """The split, with what is missing marked."""
        device = next(iter(data.data.values())).device
        return with_present(data, missing_mask(len(data), len(self.modalities), self.missing, device))

    def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
        """The objective in nats a sample, of a batch that may carry ``"present"``, ``(batch, M)`` of 0 and 1.

        Raises:
            ValueError: If names or shapes do not fit, or a sample lacks all modalities.
        """
        name = column("present", self.modalities)
        if name not in batch:
            return super().loss(batch, stage)
        present, whole = batch[name], {m: x for m, x in batch.items() if m != name}
        size = self.check_batch(whole)
        if tuple(present.shape) != (size, len(self.modalities)):
            raise ValueError(f"'present' has shape {tuple(present.shape)}, expected (batch, {len(self.modalities)})")
        if not bool(present.any(1).all()):
            raise ValueError("a sample lacks all modalities; there is nothing to train it with")
        masks = {m: present[:, k].bool() for k, m in enumerate(self.modalities)}
        total = self.multivae(SimpleNamespace(data=whole, masks=masks)).loss
        return Loss(total, {f"kl_{m}": self.multivae.encoders[m].kl for m in self.modalities})

    def reconstruction(self, name: str, z: Tensor) -> Tensor:
        """The mean ``(rows, *spec.shape)`` of latents ``(rows, latent_dim + specific_dim)``."""
        found = self.multivae.decoders[name](z).reconstruction
        return found.sigmoid() if name in self.bernoulli else found

    def _log_likelihood(self, *arguments: Any, **options: Any) -> Tensor:
        """As of the baselines, where no modality has a Bernoulli likelihood.

        Raises:
            ValueError: If one has.
        """
        if self.bernoulli:
            raise ValueError(f"no likelihood is estimated where {list(self.bernoulli)} have a Bernoulli one")
        return super()._log_likelihood(*arguments, **options)


def build_face_baseline(
    method: str,
    modalities: Mapping[str, ModalitySpec],
    *,
    widths: Sequence[int],
    hidden: Sequence[int],
    latent_dim: int,
    specific_dim: int = 0,
    beta: float,
    likelihood: str = "gaussian",
    bernoulli: Sequence[str] = (),
    missing: float = 0.0,
    compute_dtype: str = "float32",
) -> FaceBaseline:
    """Builds a baseline with the autoencoders' networks: residual ones of images, fully connected ones of vectors.

    Arguments:
        method: ``"mopoe"``, ``"mmvae_plus"`` or ``"mvtcae"``, or any other of the baselines.
        modalities: Name to :class:`~repro.model.ModalitySpec`.
        widths: Channels of the residual networks.
        hidden: Widths of the fully connected ones.
        latent_dim, specific_dim, beta, likelihood: Of the baselines' settings.
        bernoulli: Modalities whose decoders give logits.
        missing: Share of each modality that training lacks.
        compute_dtype: ``"float32"`` or ``"bfloat16"``, what networks compute in while training.

    Raises:
        ValueError: As the baselines' classes do; if a modality of ``bernoulli`` is unknown; if ``missing`` is not in
            [0, 1) or the method cannot train with it.

    Source: SBM-VAE, appendix A.9.
    """
    size, low = latent_dim + specific_dim, compute_dtype == "bfloat16"
    encoders: dict[str, nn.Module] = {}
    decoders: dict[str, nn.Module] = {}
    for m, s in modalities.items():
        encoders[m] = _Encoder(feature_network(s, 2 * size, widths, hidden), low)
        images = len(s.shape) == 3
        decoder = SoftIntroDecoder(s.shape, size, widths=widths) if images else MLP(size, tuple(hidden), s.numel)
        decoders[m] = _Decoder(decoder, low)
    alpha = BASELINES[method].alpha if method in BASELINES else 0.0
    settings = BaselineSettings(method, modalities, latent_dim, specific_dim, float(beta), likelihood, alpha=alpha)
    return FaceBaseline(settings, encoders, decoders, bernoulli=tuple(bernoulli), missing=missing)


def load_faces(spec: RunSpec) -> dict[str, Dataset]:
    """The training, the validation and the test split of a run on CelebAMask-HQ.

    Raises:
        FetchError: If the files are not placed; it says where they are to be had.
    """
    number = spec.params["evaluation"]["num_samples"]
    sizes = {"train": spec.params["data"]["train_samples"], "validation": number, "test": number}
    found = {split: load_dataset(spec.dataset, split=split) for split in sizes}
    return {s: d if sizes[s] is None else d.first(min(sizes[s], len(d))) for s, d in found.items()}


def build_faces(spec: RunSpec) -> TrainableModel:
    """The untrained model of a run on CelebAMask-HQ, with the network that is attacked beside it where there is one."""
    modalities, settings = specs(load_card(spec.dataset)), dict(spec.params["model"])
    if spec.method == SUPERVISED:
        return Supervised(modalities, widths=settings["widths"])
    model: TrainableModel
    if spec.method in METHODS:
        model = build_sbm(modalities, settings, spec.params["evaluation"]["sampling"])
    else:
        model = build_face_baseline(spec.method, modalities, **settings)
    if not spec.params["evaluation"]["attack"]:
        return model
    return WithClassifier.build(model, Supervised, widths=settings["widths"], targets=("attributes",))
