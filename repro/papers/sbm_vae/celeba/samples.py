"""The samples that the figures on CelebAMask-HQ show, chosen by a fixed rule."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from repro.datasets import Dataset
from repro.model import MultimodalModel, TrainableModel
from repro.papers.sbm_vae.model import SBMVAE
from repro.papers.sbm_vae.supervised import WithClassifier
from repro.records import RunSpec

__all__ = ["SAMPLES", "SIDE", "draw_faces"]

SAMPLES, SIDE = 6, 64  # the paper shows 16 of 128 x 128; records are to stay small


@torch.no_grad()
def draw_faces(model: TrainableModel, test: Dataset, spec: RunSpec, device: str = "cpu") -> dict[str, Tensor]:
    """Joint samples, and samples given one modality of the first test face; the energy guides these where there is one.

    The first ones drawn with one seed, none selected. Of the true face only the 18 attributes are kept: images and
    masks must not be passed on, by the dataset's terms.

    Returns:
        ``joint/<m>`` and ``given-<o>/<m>`` for observed o and other modalities m, bytes: images and masks ``(6, C, 64,
        64)``, attributes ``(6, 18)`` of 0 and 1; and ``true/attributes``, ``(18,)``. Nothing for supervised networks.
    """
    model = model.model if isinstance(model, WithClassifier) else model
    if not isinstance(model, MultimodalModel):
        return {}
    generator = torch.Generator(device).manual_seed(spec.params["evaluation"]["seed"] + 7)
    options: dict[str, Any] = {}
    if isinstance(model, SBMVAE) and model.energy is None:
        options["gamma"] = 0.0
    first = {m: x[None].to(device) for m, x in test[0].items()}
    drawn = {f"joint/{m}": x for m, x in model.generate(SAMPLES, generator=generator).items()}
    for o in model.modalities:
        given = model.generate(SAMPLES, given={o: first[o]}, generator=generator, **options)
        drawn |= {f"given-{o}/{m}": x[:, 0] for m, x in given.items() if m != o}
    found = {name: _bytes(x) for name, x in drawn.items()}
    return found | {"true/attributes": first["attributes"][0].round().to(torch.uint8).cpu()}


def _bytes(x: Tensor) -> Tensor:
    if x.ndim == 2:
        return (x > 0.5).to(torch.uint8).cpu()
    small = F.adaptive_avg_pool2d(x.float().clamp(0, 1), SIDE)
    return small.mul(255).round().to(torch.uint8).cpu()
