"""What runs keep for the figures: images of a fixed rule, terms of the likelihood, correlations of features."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from repro.datasets import Dataset
from repro.model import MultimodalModel
from repro.papers.covae.correlated_mnist.evaluation import whole
from repro.papers.covae.likelihoods import decompose
from repro.papers.covae.model import CoVAE
from repro.papers.covae.omics.evaluation import feature_correlations, predictions
from repro.records import RunSpec

__all__ = ["POINTS", "SAMPLES", "image_samples", "omics_samples", "planes"]

POINTS, SAMPLES = 2, 5  # the first test points, and five samples for each, as in Figures 16 and 17
TERM_POINTS = 100


def _bytes(x: Tensor) -> Tensor:
    return (x.clamp(0, 1) * 255).round().to(torch.uint8)


@torch.no_grad()
def image_samples(model: MultimodalModel, data: Dataset, spec: RunSpec, device: str = "cpu") -> dict[str, Tensor]:
    """Images and terms of the likelihood of a run on correlated MNIST.

    ``true/<m>``, ``given_m0/<m>``, ``given_m1/<m>`` and ``joint/<m>``: images as bytes, ``(POINTS, ...)`` or
    ``(SAMPLES, POINTS, ...)``. ``terms/<name>``: one term for each of 20 samples and 100 points, float32. Of the first
    seed alone.
    """
    if spec.seed:
        return {}
    model.to(device).eval()
    batch = whole(data, device)
    few = {m: x[:POINTS] for m, x in batch.items()}
    seed = spec.params["evaluation"]["seed"]
    found = {f"true/{m}": _bytes(x) for m, x in few.items()}
    for i, (name, observed) in enumerate(
        [("joint", list(few)), *((f"given_{o}", [o]) for o in few)]  # given both, and given each
    ):
        generator = torch.Generator(device).manual_seed(1000 * seed + 90 + i)
        drawn = model.generate(SAMPLES, given={m: few[m] for m in observed}, generator=generator)
        found |= {f"{name}/{m}": _bytes(x) for m, x in drawn.items()}
    points = {m: x[:TERM_POINTS] for m, x in batch.items()}
    components = 1 if isinstance(model, CoVAE) else len(model.posterior(few).means)
    number = components * max(1, 20 // components)
    generator = torch.Generator(device).manual_seed(1000 * seed + 99)
    terms = decompose(model, points, num_samples=number, generator=generator)
    return found | {f"terms/{n}": getattr(terms, n).float() for n in ("reconstruction", "prior", "posterior")}


@torch.no_grad()
def omics_samples(model: MultimodalModel, data: Dataset, spec: RunSpec, device: str = "cpu") -> dict[str, Tensor]:
    """What Figures 9 and 12 draw of the first seed's test split.

    ``spearman/<which>``: a coefficient for each feature. ``pca/<m>``, and ``umap/<m>`` where umap-learn is installed:
    the samples in the plane, ``(N, 2)``, with ``labels``.
    """
    if spec.seed:
        return {}
    model.to(device).eval()
    batch, settings = whole(data, device), spec.params["evaluation"]
    found = {}
    for name, values in predictions(model, batch, settings["draws"], device, settings["seed"]).items():
        if not name.endswith("/sample"):
            modality = name.replace("joint/", "").rpartition("-to-")[2]
            coefficients, _ = feature_correlations(values, batch[modality])
            found[f"spearman/{name}"] = torch.from_numpy(coefficients).float()
    if spec.method == "covae":
        found["labels"] = data.labels.cpu().to(torch.int64)
        for m, x in batch.items():
            points = planes(x.cpu().numpy(), settings["seed"])
            found |= {f"{name}/{m}": torch.from_numpy(p).float() for name, p in points.items()}
    return found


def planes(x: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Samples in the plane, by PCA and, where umap-learn is installed and there are enough samples, by UMAP.

    Arguments:
        x: ``(samples, features)``.
        seed: Of UMAP.

    Returns:
        Name to ``(samples, 2)``.
    """
    found = {"pca": PCA(2, svd_solver="full").fit_transform(x)}
    if find_spec("umap") is not None and len(x) > 15:
        from umap import UMAP

        found["umap"] = UMAP(random_state=seed, n_jobs=1).fit_transform(x)
    return found
