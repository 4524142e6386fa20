"""Runs on MHD: data, models with digit classifiers beside them, coherence of images and spoken digits, images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from repro.datasets import Dataset, load_dataset
from repro.datasets.base import first_of_each_class, specs
from repro.datasets.card import load_card
from repro.metrics.coherence import agreement_curve, conditional_coherence
from repro.model import TrainableModel
from repro.papers.sbm_vae.building import build_sbm
from repro.papers.sbm_vae.celeba.models import build_face_baseline
from repro.papers.sbm_vae.sampling import sampling_text
from repro.papers.sbm_vae.supervised import ModalityClassifiers, WithClassifier, with_classifier
from repro.records import Metric, RunSpec

__all__ = ["build_mhd", "draw_mhd", "evaluate_mhd", "load_mhd"]

MODALITIES = ("image", "audio")
CHUNK, JOINT = 1000, 10


def load_mhd(spec: RunSpec) -> dict[str, Dataset]:
    """The training and the test split of image and audio; the published files have no validation split.

    Raises:
        FetchError: If the files are not placed; it says where they are to be had.
    """
    sizes = {"train": spec.params["data"]["train_samples"], "test": spec.params["evaluation"]["num_samples"]}
    found = {split: load_dataset("mhd", split=split) for split in sizes}
    return {s: d if sizes[s] is None else d.first(min(sizes[s], len(d))) for s, d in found.items()}


def build_mhd(spec: RunSpec) -> WithClassifier:
    """The untrained model of a run on MHD, and the evaluation classifiers that it is measured with."""
    every = specs(load_card("mhd"))
    modalities = {m: every[m] for m in MODALITIES}
    settings = dict(spec.params["model"])
    widths = settings.pop("judge_widths")
    model: TrainableModel
    if spec.method == "sbm_vae":
        model = build_sbm(modalities, settings, spec.params["evaluation"]["sampling"])
    else:
        model = build_face_baseline(spec.method, modalities, **settings)
    return WithClassifier.build(model, ModalityClassifiers, widths=widths)


def _inner(model: TrainableModel) -> tuple[TrainableModel, TrainableModel]:
    inner, classifiers = with_classifier(model)
    if classifiers is None:
        raise ValueError(f"coherence on MHD needs digit classifiers beside the model, {type(model).__name__} has none")
    return inner, classifiers


def _labels(classifiers: TrainableModel, modality: str, x: Tensor) -> Tensor:
    x = x.clamp(0, 1) if modality == "image" else x
    if not bool(torch.isfinite(x).all()):
        raise ValueError(f"generated {modality} has values that are not finite")
    return torch.cat([classifiers.networks[modality](part).argmax(1) for part in x.split(CHUNK)]).cpu()


@torch.no_grad()
def evaluate_mhd(
    model: TrainableModel, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu"
) -> list[Metric]:
    """All metrics of a run on MHD: Table 8's coherences, and the classifiers' accuracy on true samples.

    A digit classifier of each modality, trained on the training split as part of the run, labels what is generated:
    given the other modality against the test label, joint samples against each other. The paper does not say what
    measures coherence.

    Raises:
        ValueError: If the test split has no labels, or there are no classifiers beside the model.
    """
    test = data["test"]
    if test.labels is None:
        raise ValueError(f"{test.name} has no labels to measure coherence by")
    model.to(device).eval()
    inner, classifiers = _inner(model)
    settings, number, labels = spec.params["evaluation"], len(test), test.labels.cpu()
    text = sampling_text(inner)
    parts: dict[str, list[Tensor]] = {}

    def note(name: str, found: Tensor) -> None:
        parts.setdefault(name, []).append(found)

    generators = {k: torch.Generator(device).manual_seed(1000 * settings["seed"] + k) for k in range(3)}
    for batch in test.batches(CHUNK, shuffle=False):
        true = {m: batch[m].to(device) for m in MODALITIES}
        joint = inner.generate(len(true["image"]), generator=generators[0])
        for k, (o, m) in enumerate((("audio", "image"), ("image", "audio")), 1):
            drawn = inner.generate(1, given={o: true[o]}, generator=generators[k])[m][0]
            note(f"{o}-to-{m}", _labels(classifiers, m, drawn))
            note(f"joint/{m}", _labels(classifiers, m, joint[m].float()))
            note(f"true/{m}", _labels(classifiers, m, true[m]))
    found = {name: torch.cat(x) for name, x in parts.items()}
    coherence = conditional_coherence(
        {("audio",): {"image": found["audio-to-image"]}, ("image",): {"audio": found["image-to-audio"]}}, labels
    )
    metrics = [
        Metric(f"test/{o[0]}-to-{m}/coherence", v, "1", number, f"share of right digits, {m} given {o[0]}; {text}")
        for (o, m), v in coherence.values.items()
    ]
    agree = agreement_curve({m: found[f"joint/{m}"] for m in MODALITIES}).at_least[-1]
    metrics.append(Metric("test/joint/coherence", agree, "1", number, f"share of equal digits, joint samples; {text}"))
    for m in MODALITIES:
        right = float((found[f"true/{m}"] == labels).double().mean())
        metrics.append(Metric(f"test/floor/{m}", right, "1", number, f"the classifier's accuracy on true {m}"))
    return metrics


def _bytes(x: Tensor, limits: Sequence[float]) -> Tensor:
    low, high = limits
    return ((x.float() - low) / (high - low)).clamp(0, 1).mul(255).round().to(torch.uint8).cpu()


@torch.no_grad()
def draw_mhd(model: TrainableModel, test: Dataset, spec: RunSpec, device: str = "cpu") -> dict[str, Tensor]:
    """Ten joint samples, and one of each modality given the other of the first test sample of each digit.

    The first ones drawn with one seed, none selected. Audio is its spectrogram, from the least to the largest value of
    the true test split. No true sample is kept: the dataset's licence is not stated.

    Returns:
        ``joint/<m>`` and ``given-<o>/<m>``, bytes ``(samples, 1, H, W)``; fewer given where the split has fewer digits.

    Raises:
        ValueError: If the split has no labels.
    """
    if test.labels is None:
        raise ValueError(f"{test.name} has no labels to choose images by")
    inner, _ = _inner(model)
    rows = first_of_each_class(test.labels, JOINT)
    audio = test.data["audio"]
    limits = {"image": (0.0, 1.0), "audio": (float(audio.min()), float(audio.max()))}
    generator = torch.Generator(device).manual_seed(spec.params["evaluation"]["seed"] + 7)
    found = {f"joint/{m}": x for m, x in inner.generate(len(rows), generator=generator).items()}
    for o, m in (("audio", "image"), ("image", "audio")):
        given = torch.stack([test[i][o] for i in rows]).to(device)
        found[f"given-{o}/{m}"] = inner.generate(1, given={o: given}, generator=generator)[m][0]
    return {name: _bytes(x, limits[name.rpartition("/")[2]]) for name, x in found.items()}
