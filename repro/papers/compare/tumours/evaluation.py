"""How a model is measured on the tumours: classes from latents, predicted features and likelihoods, as CoVAE measures.

Names are those of CoVAE's own experiment, ``test/<classes|transfer|mae|spearman|nll>/...``, and
``test/neighbour/...``, ``test/features/...`` and ``test/mean/...`` of the data alone. Predictions given both modalities
are the ceiling of a model's own encoders and decoders.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from repro.baselines.training_points import TrainingPoints
from repro.datasets import Dataset
from repro.metrics.clustering import CLASSIFIER, fit_classifier, score_classifier
from repro.metrics.omics import mean_absolute_error
from repro.model import MultimodalModel
from repro.papers.compare.building import build_alike as build
from repro.papers.compare.measures import costs, renamed
from repro.papers.covae.evaluation import likelihood_metrics, prior_metrics, whole
from repro.papers.covae.omics.evaluation import class_metrics, prediction_metrics
from repro.records import Metric, RunSpec

__all__ = ["build", "data_metrics", "evaluate"]


@torch.no_grad()
def data_metrics(data: Mapping[str, Dataset], device: str, seed: int) -> list[Metric]:
    """What is reached without a model: by the nearest training points, a classifier of the features, their means.

    Arguments:
        data: The splits ``"train"`` and ``"test"``, with classes.
        device: Where to compute.
        seed: Of the evaluation.
    """
    splits = {s: whole(data[s], device) for s in ("train", "test")}
    labels = {s: data[s].labels.cpu().numpy() for s in ("train", "test")}
    points = TrainingPoints(data["train"].to(device))
    found = renamed(prediction_metrics(points, splits["test"], 1, device, seed), "test", "test/neighbour")
    features = {s: torch.cat(list(batch.values()), 1) for s, batch in splits.items()}
    scores = score_classifier(fit_classifier(features["train"], labels["train"]), features["test"], labels["test"])
    size = len(labels["test"])
    for name in ("accuracy", "nmi", "ari"):
        text = f"{CLASSIFIER}, here of the features of both modalities themselves"
        found.append(Metric(f"test/features/classes/{name}", getattr(scores, name), "1", size, text))
    for m, x in splits["test"].items():
        error = mean_absolute_error(splits["train"][m].mean(0).expand_as(x), x)
        text = "absolute error of each feature's mean over the training split"
        found.append(Metric(f"test/mean/mae/{m}", error, "standard deviations", size, text))
    return found


@torch.no_grad()
def evaluate(model: MultimodalModel, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu") -> list[Metric]:
    """All metrics of a run: of the choice of weight on the validation split alone, else on the test split.

    Arguments:
        model: The trained model.
        data: As the experiment loads it.
        spec: The run.
        device: Where to compute.
    """
    model.to(device).eval()
    settings = spec.params["evaluation"]
    split, seed, draws = settings["split"], settings["seed"], settings["draws"]
    batch = whole(data[split], device)
    found = prediction_metrics(model, batch, draws, device, seed, split)
    if split == "validation":
        return found
    splits = {"train": whole(data["train"], device), "test": batch}
    labels = {s: data[s].labels.cpu().numpy() for s in splits}
    found = class_metrics(model, splits, labels) + found
    if asked := settings.get("likelihood"):
        few = {m: x[: asked["points"]] for m, x in batch.items()}
        number, predictive = asked["importance_samples"], asked["predictive_samples"]
        found += likelihood_metrics(model, few, number, device, seed, predictive, finite=True)
    found += prior_metrics(model, len(data["train"])) + data_metrics(data, device, seed)
    return found + costs(model, data["test"], spec, device)
