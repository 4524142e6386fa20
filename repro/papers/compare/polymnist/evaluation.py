"""How a model is measured on PolyMNIST: coherences and Fréchet distances of digits, likelihood, and ceilings.

Names are those of :mod:`repro.papers.compare.coherence`. Its reconstructions are the ceiling of a model's own encoders
and decoders, and its nearest training points what the data alone have in a model's place.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from repro.datasets import Dataset
from repro.datasets.base import specs
from repro.datasets.card import load_card
from repro.model import MultimodalModel
from repro.papers.compare.building import build_alike
from repro.papers.compare.coherence import digit_metrics
from repro.papers.compare.measures import costs
from repro.papers.covae.evaluation import likelihood_metrics, prior_metrics
from repro.records import Metric, RunSpec

__all__ = ["build", "evaluate"]

MATCHED = {"conditional": "matched"}  # ALMRF's Gaussian of its conditional's moments (erratum E4), as on MNIST triples


def build(spec: RunSpec) -> MultimodalModel:
    """The untrained model of a run, of the first modalities of the dataset."""
    every = specs(load_card(spec.dataset))
    return build_alike(spec, dict(list(every.items())[: spec.params["data"]["modalities"]]))


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
    split, options = settings["split"], MATCHED if "conditional" in model.generation_options else {}
    found = digit_metrics(model, data, spec, device, split=split, neighbours=split == "test", **options)
    if split == "validation":
        return found
    if asked := settings.get("likelihood"):
        few = data["test"].first(asked["points"]).to(device).floats().data
        number, seed = asked["importance_samples"], settings["seed"]
        found += likelihood_metrics(model, few, number, device, seed, conditional=False, finite=True)
    found += prior_metrics(model, len(data["train"]))
    return found + costs(model, data["test"], spec, device)
