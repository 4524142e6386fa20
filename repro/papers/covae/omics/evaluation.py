"""How a run on omics data is measured, and what it keeps for the figures.

Classes from latents, reconstructions of features, likelihoods; correlations of features and samples in the plane.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from repro.datasets import Dataset
from repro.metrics.clustering import CLASSIFIER, fit_classifier, score_classifier
from repro.metrics.omics import constant_features, mean_absolute_error, spearman_per_feature
from repro.model import MultimodalModel
from repro.papers.covae.evaluation import likelihood_metrics, prior_metrics, whole
from repro.papers.covae.measures import latent_means
from repro.records import Metric, RunSpec

__all__ = [
    "class_metrics",
    "evaluate_omics",
    "feature_correlations",
    "omics_samples",
    "planes",
    "prediction_metrics",
    "predictions",
]


@torch.no_grad()
def predictions(
    model: MultimodalModel, batch: Mapping[str, Tensor], draws: int, device: str, seed: int
) -> dict[str, Tensor]:
    """Predicted features of both modalities given both, and of each given the other.

    Arguments:
        model: A CoVAE or a baseline of two modalities.
        batch: Both modalities.
        draws: Samples of latents, whose decoders' means are averaged.
        device: Where the model is.
        seed: Seed of the samples.

    Returns:
        ``"joint/<modality>"`` and ``"<observed>-to-<missing>"``, each averaged over the draws, and the latter also as
        ``"<observed>-to-<missing>/sample"`` for the first draw alone.
    """

    def generator(stream: int) -> torch.Generator:
        return torch.Generator(device).manual_seed(1000 * seed + stream)

    found = {f"joint/{m}": x.mean(0) for m, x in model.generate(draws, given=batch, generator=generator(1)).items()}
    first, second = model.modalities
    for i, (o, m) in enumerate(((first, second), (second, first))):
        drawn = model.generate(draws, given={o: batch[o]}, generator=generator(2 + i))[m]
        found |= {f"{o}-to-{m}": drawn.mean(0), f"{o}-to-{m}/sample": drawn[0]}
    return found


def feature_correlations(predicted: Tensor, true: Tensor) -> tuple[np.ndarray, int]:
    """Spearman's coefficient of every feature that varies in truth, 0 where the prediction alone is constant.

    Arguments:
        predicted: ``(samples, features)``.
        true: ``(samples, features)``.

    Returns:
        The coefficients, and how many predicted features are constant among those.

    Raises:
        ValueError: If no feature varies in truth.
    """
    varies = ~constant_features(true)
    if not varies.any():
        raise ValueError(f"all {len(varies)} features are constant in truth; no rank correlation exists")
    flat = constant_features(predicted) & varies
    rows = np.flatnonzero(varies & ~flat)
    result = np.zeros(len(varies))
    if len(rows):
        result[rows] = spearman_per_feature(predicted[:, rows], true[:, rows])
    return result[varies], int(flat.sum())


def class_metrics(
    model: MultimodalModel, splits: Mapping[str, Mapping[str, Tensor]], labels: Mapping[str, np.ndarray]
) -> list[Metric]:
    """Accuracy, NMI and ARI of the joint latents, and accuracy of a classifier that changes its modality.

    Nothing of a model without latents' means.

    Arguments:
        model: In evaluation mode.
        splits: ``"train"`` and ``"test"``, each one batch of two modalities.
        labels: Each split's classes, ``(N,)``.
    """
    if not hasattr(model, "latent_means"):
        return []
    size = len(labels["test"])
    train, test = (latent_means(model, splits[s]) for s in ("train", "test"))
    scores = score_classifier(fit_classifier(train, labels["train"]), test, labels["test"])
    found = [
        Metric(f"test/classes/{name}", getattr(scores, name), "1", size, f"{CLASSIFIER}; means given both modalities")
        for name in ("accuracy", "nmi", "ari")
    ]
    first, second = model.modalities
    means = {(s, m): latent_means(model, {m: splits[s][m]}) for s in splits for m in (first, second)}
    shared = min(means["train", m].shape[1] for m in (first, second))
    for o, m in ((first, second), (second, first)):
        classifier = fit_classifier(means["train", o][:, :shared], labels["train"])
        for target, name in ((m, f"{o}-to-{m}"), (o, f"{o}-alone")):
            value = score_classifier(classifier, means["test", target][:, :shared], labels["test"]).accuracy
            text = f"{CLASSIFIER}; accuracy, trained on means given {o}, tested on means given {target}"
            found.append(Metric(f"test/transfer/{name}", value, "1", size, text))
    return found


def prediction_metrics(
    model: MultimodalModel, batch: Mapping[str, Tensor], draws: int, device: str, seed: int, split: str = "test"
) -> list[Metric]:
    """Errors and rank correlations of predicted features, given both modalities and of each given the other.

    Arguments:
        model, batch, draws, device, seed: As :func:`predictions` takes them.
        split: The batch's, with which the metrics' names begin.

    Raises:
        ValueError: If no feature varies in truth.
    """
    found, size = [], len(next(iter(batch.values())))
    for name, values in predictions(model, batch, draws, device, seed).items():
        modality = name.removesuffix("/sample").replace("joint/", "").rpartition("-to-")[2]
        how = "the decoder's mean at one sample" if name.endswith("/sample") else f"decoder means of {draws} samples"
        error = mean_absolute_error(values, batch[modality])
        found.append(Metric(f"{split}/mae/{name}", error, "standard deviations", size, f"absolute error of {how}"))
        coefficients, flat = feature_correlations(values, batch[modality])
        text = f"mean over {len(coefficients)} features that vary, {flat} constant predictions as 0; {how}"
        found.append(Metric(f"{split}/spearman/{name}", float(coefficients.mean()), "1", size, text))
    return found


@torch.no_grad()
def evaluate_omics(
    model: MultimodalModel, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu"
) -> list[Metric]:
    """All metrics of a run on omics data, on the test split.

    Raises:
        ValueError: If a class of the test split is absent from the training split, or no feature varies.
    """
    model.to(device).eval()
    settings = spec.params["evaluation"]
    splits = {s: whole(data[s], device) for s in ("train", "test")}
    labels = {s: data[s].labels.cpu().numpy() for s in ("train", "test")}
    batch = splits["test"]
    found = class_metrics(model, splits, labels)
    found += prediction_metrics(model, batch, settings["draws"], device, settings["seed"])
    few = {m: x[: settings["points"]] for m, x in batch.items()}
    found += likelihood_metrics(model, few, settings["importance_samples"], device, settings["seed"])
    return found + prior_metrics(model, len(data["train"]))


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
