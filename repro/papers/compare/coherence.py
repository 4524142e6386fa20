"""How samples of modalities that all show one digit are measured: coherence and Fréchet distances between features.

Names are ``<split>/<unconditional|given-one|given-rest|reconstruction|true>/<coherence|frechet/classifier/mean|...>``,
and those of training points in a model's place ``<split>/nearest/<given-one|given-rest>/...``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from repro.baselines.training_points import TrainingPoints
from repro.datasets import Dataset
from repro.metrics.coherence import classify, conditional_coherence, unconditional_coherence
from repro.model import MultimodalModel
from repro.papers.mrf_mvae.mixing import chain_metrics
from repro.papers.sbm_vae.polymnist.evaluation import Evaluation
from repro.records import Metric, RunSpec

__all__ = ["digit_metrics"]

DECODED = "decoder means clipped to [0, 1]"
# Streams of random numbers of the tasks.
JOINT, RECONSTRUCTED, GIVEN = 1, 2, 10


def _frechet(prefix: str, found: Mapping[str, float], number: int, text: str) -> list[Metric]:
    """The distance of what is generated, by name, and their mean."""
    name, text = f"{prefix}/frechet/classifier", f"Frechet distance between the classifier's hidden activations; {text}"
    metrics = [Metric(f"{name}/{m}", v, "1", number, text) for m, v in found.items()]
    return [*metrics, Metric(f"{name}/mean", fmean(found.values()), "1", number, f"{text}; mean")]


def _agreement(prefix: str, labels: Mapping[str, Tensor], text: str) -> list[Metric]:
    found = unconditional_coherence(labels)
    shown = f"share of {text} whose modalities all show the same digit"
    return [
        Metric(f"{prefix}/coherence", found.value, "1", found.num_samples, shown),
        Metric(f"{prefix}/digits", found.num_labels, "1", found.num_samples, f"different digits seen in {text}"),
    ]


def _shown(prefix: str, right: Mapping[str, float], number: int, text: str) -> Metric:
    return Metric(f"{prefix}/accuracy", fmean(right.values()), "1", number, f"share of {text} that show their digit")


def _joint(run: Evaluation, split: str) -> list[Metric]:
    images, text = run.draw(JOINT), f"{run.number:,} joint samples, {DECODED}"
    prefix = f"{split}/unconditional"
    found = _agreement(prefix, classify(run.classifiers, images), text)
    found += chain_metrics(run.model, prefix, run.number)
    return found + _frechet(prefix, run.frechet(images)["frechet"], run.number, text)


def _given(
    run: Evaluation, prefix: str, sets: Sequence[Sequence[str]], stream: int, words: str, options: Mapping[str, Any]
) -> list[Metric]:
    """One sample of what is not observed for each point of the split, given each of some sets of modalities."""
    predictions, distances, chains = {}, {}, []
    for k, observed in enumerate(sets):
        images = run.draw(stream + k, observed, **options)
        images = {m: x for m, x in images.items() if m not in observed}
        name = "+".join(observed)
        predictions[tuple(observed)] = classify(run.classifiers, images)
        distances |= {f"{name}-{m}": v for m, v in run.frechet(images)["frechet"].items()}
        chains += chain_metrics(run.model, f"{prefix}/{name}", run.number)
    coherence = conditional_coherence(predictions, run.labels)
    text = f"one sample of each other modality given {words} of every true point, {DECODED}"
    shown = f"share of generated images that show the point's digit; {text}"
    found = [
        Metric(f"{prefix}/coherence/{'+'.join(observed)}-{m}", v, "1", run.number, shown)
        for (observed, m), v in coherence.values.items()
    ]
    found.append(Metric(f"{prefix}/coherence", coherence.mean, "1", run.number, f"{shown}; mean"))
    return found + chains + _frechet(prefix, distances, run.number, text)


def _conditional(run: Evaluation, prefix: str, **options: Any) -> list[Metric]:
    """Given one modality, and given all but one."""
    rest = [tuple(n for n in run.names if n != m) for m in run.names]
    found = _given(run, f"{prefix}/given-one", [(m,) for m in run.names], GIVEN, "one modality", options)
    return found + _given(run, f"{prefix}/given-rest", rest, 2 * GIVEN, "all others", options)


def _nearest(run: Evaluation, prefix: str, train: Dataset) -> list[Metric]:
    """What is reached without a model, by the training point that is nearest in the pixels of what is given."""
    points = copy(run)
    points.model = TrainingPoints(train.to(run.device).floats())
    text = "the nearest training point in a model's place"
    return [replace(m, protocol=f"{text}; {m.protocol}") for m in _conditional(points, f"{prefix}/nearest")]


def _ceilings(run: Evaluation, split: str) -> list[Metric]:
    """What reconstructions and true images score; distances of other true images than those that all is compared to."""
    found = []
    shown = {"reconstruction": run.draw(RECONSTRUCTED, run.names), "true": run.true}
    compared = {"reconstruction": shown["reconstruction"], "true": run.other}
    words = {
        "reconstruction": f"{run.number:,} points decoded given all of their modalities, {DECODED}",
        "true": f"{run.number:,} true points",
    }
    for name, images in shown.items():
        prefix = f"{split}/{name}"
        found += _agreement(prefix, classify(run.classifiers, images), words[name])
        found.append(_shown(prefix, run.accuracy(images), run.number, words[name]))
        number = len(compared[name][run.names[0]])
        text = words[name] if name == "reconstruction" else f"{number:,} further true points"
        found += _frechet(prefix, run.frechet(compared[name])["frechet"], number, text)
    return found


@torch.no_grad()
def digit_metrics(
    model: MultimodalModel,
    data: Mapping[str, Dataset],
    spec: RunSpec,
    device: str = "cpu",
    *,
    split: str = "test",
    neighbours: bool = False,
    **options: Any,
) -> list[Metric]:
    """Coherence and Fréchet distances of joint samples and of those given one modality, or all but one.

    Coherence is the share of joint samples whose modalities all show one digit, or the share of generated images that
    show the digit of the point that was observed, as the dataset's classifier sees them. Fréchet distances are those
    between the classifier's hidden activations, of as many true images as generated ones.

    Arguments:
        model: The model.
        data: Split to points, labelled; beside the one that is measured on, ``"validation"`` or ``"train"`` has the
            further true images.
        spec: The run.
        device: Where to compute.
        split: The split that is measured on.
        neighbours: Whether training points in the model's place are measured too, given what it is given.
        options: Of the model's generation given some modalities.

    Raises:
        ValueError: If the split has no labels.
    """
    model.to(device).eval()
    other = data["validation" if split != "validation" else "train"].first(len(data[split]))
    run = Evaluation(model, {"test": data[split], "validation": other}, spec, device)
    found = _joint(run, split)
    found += _conditional(run, split, **options)
    found += _nearest(run, split, data["train"]) if neighbours else []
    return found + _ceilings(run, split)
