"""How a model is measured on MNIST triples: MRF MVAE's coherences and Fréchet distances, likelihood, and ceilings.

Names are those of MRF MVAE's own experiment, ``<split>/<unconditional|conditional|true>/...``; beside them
``test/reconstruction/...``, which is the ceiling of a model's own encoders and decoders, and ``test/nearest/...``,
which the data alone have in a model's place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from repro.baselines.training_points import TrainingPoints
from repro.datasets import Dataset
from repro.model import MultimodalModel
from repro.papers.compare.building import build_alike as build
from repro.papers.compare.measures import costs
from repro.papers.covae.evaluation import likelihood_metrics, prior_metrics
from repro.papers.mrf_mvae.triples.evaluation import (
    TripleTasks,
    conditional,
    protocols,
    reconstruction,
    truth,
    unconditional,
)
from repro.records import Metric, RunSpec

__all__ = ["build", "evaluate", "nearest_metrics"]


def _conditional(tasks: TripleTasks) -> list[Metric]:
    """Given each of the first two modalities, by the paper's protocol."""
    return conditional(tasks, *protocols(tasks.model)[0])


def nearest_metrics(tasks: TripleTasks, train: Dataset) -> list[Metric]:
    """What is reached given one of the first two without a model, by the training triple that is nearest in its pixels.

    Arguments:
        tasks: What triples are compared with, and by.
        train: The training split.
    """
    prefix, text = f"{tasks.split}/", "the nearest training triple in a model's place"
    return [
        replace(m, name=f"{prefix}nearest/{m.name.removeprefix(prefix)}", protocol=f"{text}; {m.protocol}")
        for m in _conditional(tasks.of(TrainingPoints(train.to(tasks.device).floats())))
    ]


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
    tasks = TripleTasks(model, data, spec, device, ["classifier"])
    found = unconditional(tasks) + _conditional(tasks)
    if tasks.split == "validation":
        return found
    found += reconstruction(tasks) + truth(tasks, data) + nearest_metrics(tasks, data["train"])
    settings = spec.params["evaluation"]
    if asked := settings.get("likelihood"):
        few = {m: x[: asked["points"]] for m, x in tasks.true.items()}
        number, seed = asked["importance_samples"], settings["seed"]
        found += likelihood_metrics(model, few, number, device, seed, conditional=False, finite=True)
    found += prior_metrics(model, len(data["train"]))
    return found + costs(model, data["test"], spec, device)
