"""How a model is measured on the asymmetric Laplace copula: errors of its tails, and distances, the exact one too.

Names are those of MRF MVAE's own comparison, ``<split>/<unconditional|conditional>/mean/<what>``, with
``.../transport/mean`` beside, and ``test/reconstruction/...``, ``test/neighbour/...`` and ``test/floor/true/...`` of
the ceilings.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from repro.baselines.training_points import TrainingPoints
from repro.datasets import Dataset
from repro.model import MultimodalModel
from repro.papers.compare.building import build_compared as build
from repro.papers.compare.measures import costs, likelihood, reconstruction, renamed
from repro.papers.gmrf_mcvae.copula.evaluation import CopulaTasks, floor_metrics
from repro.papers.mrf_mvae.skewed.evaluation import evaluate as evaluate_tails
from repro.records import Metric, RunSpec

__all__ = ["build", "evaluate"]

EXACT = ("transport",)
MEANS = ("mean",)


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
    found = evaluate_tails(model, data, spec, device, outputs=MEANS)
    if spec.params["evaluation"]["split"] == "validation":
        return found
    tasks = CopulaTasks(model, data["test"], spec, device)
    found += tasks.unconditional("mean", EXACT) + tasks.conditional("mean", EXACT)
    found += reconstruction(model, tasks, EXACT)
    points = TrainingPoints(data["train"].to(device))
    nearest = evaluate_tails(points, {"test": data["test"]}, spec, device, outputs=())
    nearest += CopulaTasks(points, data["test"], spec, device).conditional("mean", EXACT)
    found += renamed(nearest, "test/conditional/mean", "test/neighbour")
    found += [m for m in floor_metrics(tasks, data["reference"]) if "/transport/" in m.name]
    return found + likelihood(model, data["test"], spec, device) + costs(model, data["test"], spec, device)
