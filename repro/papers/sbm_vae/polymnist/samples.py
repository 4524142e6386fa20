"""The samples that SBM-VAE's qualitative figures show, chosen by a fixed rule."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from repro.datasets import Dataset
from repro.datasets.base import first_of_each_class
from repro.model import MultimodalModel, TrainableModel
from repro.papers.sbm_vae.model import SBMVAE
from repro.records import RunSpec

__all__ = ["SHOWN", "draw_samples"]

SHOWN = (0, 2, 5)  # modalities of figures 24, 3 with 23, and 25, counted from 0
# Samples of each digit, and joint ones: of up to five modalities, and of more, so that the file stays below 300 kB.
FEW, MANY = (4, 10), (2, 6)


@torch.no_grad()
def draw_samples(model: TrainableModel, test: Dataset, spec: RunSpec, device: str = "cpu") -> dict[str, Tensor]:
    """Four samples of some modalities given all others of the first test image of each digit, and ten joint samples.

    Two and six where there are more than five modalities. The first ones drawn with one seed, none selected. Where
    there is an energy it guides the conditional ones.

    Returns:
        ``given/<m>`` ``(samples, digits, C, H, W)`` and ``joint/<m>`` ``(samples, C, H, W)``, all as bytes. The true
        images are the dataset's and are not stored again.

    Faces and spoken digits have pictures of their own.

    Raises:
        ValueError: If the split has no labels.
    """
    if spec.dataset == "celebamask_hq":
        from repro.papers.sbm_vae.celeba.samples import draw_faces

        return draw_faces(model, test, spec, device)
    if spec.dataset == "mhd":
        from repro.papers.sbm_vae.mhd.evaluation import draw_mhd

        return draw_mhd(model, test, spec, device)
    assert isinstance(model, MultimodalModel)
    if test.labels is None:
        raise ValueError(f"{test.name} has no labels to choose pictures by")
    rows = first_of_each_class(test.labels)
    true = {m: torch.stack([test[i][m] for i in rows]).to(device) for m in test.modalities}
    generator = torch.Generator(device).manual_seed(spec.params["evaluation"]["seed"] + 7)
    names: list[str] = list(test.modalities)
    conditional, joint = FEW if len(names) <= 5 else MANY
    found: dict[str, Tensor] = {}
    options: dict[str, Any] = {}
    if isinstance(model, SBMVAE) and model.energy is None:
        options["gamma"] = 0.0
    for k in SHOWN:
        if k < len(names):
            m = names[k]
            known = {n: x for n, x in true.items() if n != m}
            drawn = model.generate(conditional, given=known, generator=generator, **options)
            found[f"given/{m}"] = drawn[m]
    found |= {f"joint/{m}": x for m, x in model.generate(joint, generator=generator).items()}
    return {name: x.float().clamp(0, 1).mul(255).round().to(torch.uint8).cpu() for name, x in found.items()}
