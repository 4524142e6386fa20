"""How a model is measured on the copula: Table I's three distances of joint samples and given one modality.

Names are ``<split>/<unconditional|conditional>/mean/<distance>/<dim1|dim2|mean>``, as in Table I's own experiment, and
``test/reconstruction/...``, ``test/neighbour/...`` and ``test/floor/true/...`` of the ceilings.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from repro.baselines.training_points import TrainingPoints
from repro.datasets import Dataset
from repro.datasets.card import load_card
from repro.datasets.copula import log_density
from repro.model import MultimodalModel
from repro.papers.compare.building import build_compared as build
from repro.papers.compare.measures import costs, likelihood, reconstruction, renamed
from repro.papers.gmrf_mcvae.copula.evaluation import DISTANCES, CopulaTasks, floor_metrics
from repro.papers.mrf_mvae.mixing import JOINT, chain_metrics
from repro.records import Metric, RunSpec

__all__ = ["CHOSEN_BY", "build", "evaluate"]

CHOSEN_BY = ("histogram", "sliced")  # Table I's choice of beta


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
    if spec.params["evaluation"]["split"] == "validation":
        chosen = CopulaTasks(model, data["validation"], spec, device)
        return chosen.unconditional("mean", CHOSEN_BY) + chosen.conditional("mean", CHOSEN_BY)
    tasks, every = CopulaTasks(model, data["test"], spec, device), tuple(DISTANCES)
    found = tasks.unconditional("mean", every) + chain_metrics(model, JOINT, len(data["test"]))
    found += tasks.conditional("mean", every)
    found += reconstruction(model, tasks, every)
    nearest = CopulaTasks(TrainingPoints(data["train"].to(device)), data["test"], spec, device)
    found += renamed(nearest.conditional("mean", every), "test/conditional/mean", "test/neighbour")
    found += floor_metrics(tasks, data["reference"])
    found += likelihood(model, data["test"], spec, device) + costs(model, data["test"], spec, device)
    values = {m: x.numpy() for m, x in data["test"].data.items()}
    density = log_density(values, rho=float(load_card("copula").generation["rho"]))
    text = "mean ln p(x) of all modalities under the density that the data were drawn from"
    return [*found, Metric("test/log_density", float(density.mean()), "nats", len(density), text)]
