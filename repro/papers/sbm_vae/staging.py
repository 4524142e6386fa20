"""What the stages of SBM-VAE train on: the split with missing modalities marked, or its latents, encoded once."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from repro.datasets.base import Dataset, ModalitySpec
from repro.papers.sbm_vae.autoencoders import Autoencoders
from repro.papers.sbm_vae.guidance import ContrastiveEncoders

__all__ = ["cached_latents", "column", "missing_mask", "with_present"]

MISSING_SEED = 0  # which samples lack what is part of the data, the same for all methods and seeds
ENCODED_AT_ONCE = 1000


def column(name: str, modalities: Collection[str]) -> str:
    """The name of what a batch carries beside modalities or in their place, which is none of theirs."""
    while name in modalities:
        name += "_"
    return name


def missing_mask(number: int, num_modalities: int, share: float, device: torch.device) -> Tensor | None:
    """Which modalities of which samples are there, ``(number, M)`` of 0 and 1; None where nothing is missing.

    From each modality the same number of samples is taken away, at random and independently of the other modalities. A
    sample that would lack all of them keeps one.

    Source: SBM-VAE, appendix A.10.1: "we first remove 20% from each modality randomly and then mix them".
    """
    if share == 0:
        return None
    generator = torch.Generator().manual_seed(MISSING_SEED)
    present = torch.ones(number, num_modalities)
    for k in range(num_modalities):
        present[torch.randperm(number, generator=generator)[: round(share * number)], k] = 0
    empty = (present.sum(1) == 0).nonzero().flatten()
    present[empty, torch.randint(num_modalities, (len(empty),), generator=generator)] = 1
    return present.to(device)


def with_present(data: Dataset, present: Tensor | None) -> Dataset:
    """The split whose batches carry ``"present"`` too (:func:`column`); itself where nothing is missing.

    The values of what is missing are replaced by those of samples that have the modality: nothing of them enters
    training, not even by way of a batch normalisation's statistics.

    Arguments:
        data: The split.
        present: ``(N, M)`` of 0 and 1, or None.

    Raises:
        ValueError: If the split is padded, the shape is another, or no sample has one of the modalities.
    """
    if present is None:
        return data
    if tuple(present.shape) != (len(data), len(data.modalities)):
        raise ValueError(
            f"{data.name}: which modalities are present has shape {tuple(present.shape)}, expected "
            f"{(len(data), len(data.modalities))}"
        )
    if data.padding:
        raise ValueError(f"{data.name}: missing modalities are marked on data that is not padded")
    name = column("present", data.modalities)
    modalities = dict(data.modalities) | {name: ModalitySpec(tuple(present.shape[1:]), "binary", (0.0, 1.0))}
    filled = {m: _filled(x, present[:, k] > 0, f"{data.name}: {m}") for k, (m, x) in enumerate(data.data.items())}
    return replace(data, modalities=modalities, data=filled | {name: present})


def _filled(x: Tensor, there: Tensor, where: str) -> Tensor:
    """Values whose missing rows are those of other samples, in turn."""
    known, lacking = there.nonzero().flatten(), (~there).nonzero().flatten()
    if not len(known):
        raise ValueError(f"{where} is missing in all samples")
    if not len(lacking):
        return x
    x = x.clone()
    x[lacking] = x[known[torch.arange(len(lacking), device=known.device) % len(known)]]
    return x


def cached_latents(
    autoencoders: Autoencoders,
    contrastive: ContrastiveEncoders | None,
    data: Dataset,
    present: Tensor | None,
    *,
    sampled: bool,
) -> Dataset:
    """A split's latents as a split of their own.

    Arguments:
        autoencoders: The encoders, which are put into evaluation mode.
        contrastive: Where their embeddings condition the score.
        data: The split.
        present: Which modalities are there; None for all.
        sampled: Whether q's standard deviations are kept, or set to 0 so that its mean is trained on.

    Returns:
        ``"mean"`` and ``"scale"`` of shape ``(N, M, D)``, and where there are any ``"embedding"`` ``(N, M, E)`` and
        ``"present"`` ``(N, M)``, under names that no modality has (:func:`column`). Latents of what is missing are 0.
    """
    autoencoders.eval()
    columns: dict[str, list[Tensor]] = {"mean": [], "scale": []}
    for batch in data.batches(ENCODED_AT_ONCE, shuffle=False):
        pairs = [autoencoders.encode(m, batch[m]) for m in autoencoders.modalities]
        columns["mean"].append(torch.stack([mean for mean, _ in pairs], 1))
        columns["scale"].append(torch.stack([scale for _, scale in pairs], 1))
        if contrastive is not None:
            contrastive.eval()
            embedded = torch.stack([contrastive.embed(m, batch[m]) for m in autoencoders.modalities], 1)
            columns.setdefault("embedding", []).append(embedded)
    found: Mapping[str, Tensor] = {name: torch.cat(parts) for name, parts in columns.items()}
    if not sampled:
        found = dict(found) | {"scale": torch.zeros_like(found["scale"])}
    if present is not None:
        found = {name: x * present.unsqueeze(-1) for name, x in found.items()} | {"present": present}
    found = {column(name, data.modalities): x for name, x in found.items()}
    modalities = {name: ModalitySpec(tuple(x.shape[1:])) for name, x in found.items()}
    return Dataset(f"{data.name} latents", data.split, modalities, found)
