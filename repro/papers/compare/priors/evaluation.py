"""How a structure is measured: by the dataset's own metrics, and by the seconds of its fit and of its draws.

Metrics of the data have the names that they have in the dataset's own experiment. Beside them: ``fit/seconds``,
``fit/numbers``, and ``sampling/<joint|conditional>/seconds`` of 1,000 samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch

from repro.datasets import Dataset
from repro.datasets.base import specs
from repro.datasets.card import load_card
from repro.networks.cost import timed
from repro.papers.compare.building import unimodal_autoencoders
from repro.papers.compare.coherence import digit_metrics
from repro.papers.compare.correlated.evaluation import evaluate_triples as evaluate_correlated
from repro.papers.compare.correlated.evaluation import images_of
from repro.papers.compare.correlated.settings import DATASET as CORRELATED
from repro.papers.compare.measures import reconstruction
from repro.papers.compare.priors.model import StructuredAutoencoders
from repro.papers.compare.priors.settings import POLYMNIST, structure_of
from repro.papers.compare.priors.structures import build_structure
from repro.papers.gmrf_mcvae.copula.evaluation import (
    DISTANCES,
    CopulaTasks,
    floor_metrics,
)
from repro.papers.mrf_mvae.mixing import JOINT, chain_metrics
from repro.papers.mrf_mvae.triples.evaluation import evaluate as evaluate_triples
from repro.records import Metric, RunSpec

__all__ = ["build", "evaluate"]

GUIDED = "score_guided"  # acts where something is observed: its joint draws are those of the score model


def _costs(model: StructuredAutoencoders, data: Mapping[str, Dataset], spec: RunSpec, device: str) -> list[Metric]:
    """Fits the structure to the training split's encodings, and takes the time of that and of its draws."""
    encodings = model.encodings(data["train"].to(device))
    structure = build_structure(
        structure_of(spec), list(model.modalities), model.autoencoders.latent_dim, spec.params["structure"]
    )
    numbers, fitting = timed(lambda: model.fit(structure, encodings, spec.seed), device, processor=True)
    clock = "wall clock" if device.startswith("cuda") else "processor time"
    size = len(data["train"])
    found = [
        Metric("fit/seconds", fitting, "s", size, f"{clock} of fitting the structure to the training encodings"),
        Metric("fit/numbers", numbers, "1", size, "free numbers that the fit sets"),
    ]
    count = min(spec.params["evaluation"]["timed"], len(data["test"]))
    observed = next(iter(model.modalities))
    given = {observed: data["test"].first(count).to(device).floats().data[observed]}
    tasks = {"joint": (count, None), "conditional": (1, given)}
    if structure_of(spec) == GUIDED:
        tasks.pop("joint")
    for stream, (task, (number, condition)) in enumerate(tasks.items()):
        generator = torch.Generator(device).manual_seed(1000 * spec.params["evaluation"]["seed"] + 100 + stream)
        draw = partial(model.draw, number, condition, generator)
        _, seconds = timed(draw, device, processor=True)
        text = "joint" if condition is None else f"given {observed}, one a point"
        protocol = f"{clock} of drawing the latents of 1,000 samples, from {count:,} drawn at once; {text}"
        found.append(Metric(f"sampling/{task}/seconds", seconds * 1000 / count, "s", count, protocol))
    return found


def _copula(model: StructuredAutoencoders, data: Mapping[str, Dataset], spec: RunSpec, device: str) -> list[Metric]:
    """Table I's tasks on decoder means, with its three distances; of reconstructions too, and the noise floor."""
    tasks = CopulaTasks(model, data["test"], spec, device)
    found = []
    if structure_of(spec) != GUIDED:
        found = tasks.unconditional("mean", list(DISTANCES)) + chain_metrics(model, JOINT, len(data["test"]))
    found += tasks.conditional("mean", list(DISTANCES))
    text = "test points decoded from draws of their own encodings"
    found += reconstruction(model, tasks, list(DISTANCES), text)
    return found + floor_metrics(tasks, data["reference"])


EVALUATIONS = {
    "copula": _copula,
    "mnist_triples": evaluate_triples,
    CORRELATED: evaluate_correlated,
    POLYMNIST: digit_metrics,
}


def evaluate(
    model: StructuredAutoencoders, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu"
) -> list[Metric]:
    """Fits the run's structure to the training split's encodings, and measures it on the test split.

    Arguments:
        model: The trained autoencoders.
        data: As the experiment loads it.
        spec: The run.
        device: Where to compute.
    """
    model.to(device).eval()
    found = _costs(model, data, spec, device)
    metrics = EVALUATIONS[spec.dataset](model, data, spec, device)
    if structure_of(spec) == GUIDED:
        metrics = [m for m in metrics if not m.name.startswith("test/unconditional/") and not m.name.endswith("/joint")]
    return found + metrics


def build(spec: RunSpec) -> StructuredAutoencoders:
    """The autoencoders alone: the structure has no part in their initialisation, training or weights."""
    every = specs(load_card(spec.dataset))
    modalities = images_of(every) if spec.dataset == CORRELATED else every
    modalities = dict(list(modalities.items())[: spec.params["data"].get("modalities")])
    return StructuredAutoencoders(modalities, unimodal_autoencoders(modalities, **spec.params["model"]))
