"""How a run on CelebAMask-HQ is measured: F1 of attributes and masks, Frechet distances of faces, an attack.

Names are ``test/<given>/<how>/<measure>/<modality>``. Given is ``nothing``, a modality, ``both`` (the other two) or
``attacked`` (an adversarial image); how is ``plain`` or ``guided``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro.datasets import Dataset
from repro.metrics.frechet import (
    FID_FEATURE,
    FeatureStatistics,
    batch_statistics,
    frechet_distance,
    pixel_feature_name,
    pixel_features,
)
from repro.metrics.inception import optional_inception
from repro.model import TrainableModel
from repro.papers.sbm_vae.celeba.models import build_faces, load_faces
from repro.papers.sbm_vae.f1 import PROTOCOL, sample_f1
from repro.papers.sbm_vae.robustness import percent_drop, transferred
from repro.papers.sbm_vae.sampling import guidance_options, has_score, sampling_text
from repro.papers.sbm_vae.supervised import predicts, with_classifier
from repro.records import Metric, RunSpec

__all__ = [
    "PIXELS",
    "SAMPLES",
    "SIDE",
    "build_faces",
    "draw_faces",
    "evaluate_faces",
    "load_faces",
    "small_pixels",
]

CHUNK, PIXEL_SIDE = 250, 16
SAMPLES, SIDE = 6, 64  # in figures: the paper shows 16 of 128 x 128; records are to stay small
PIXELS = f"{pixel_feature_name('unit')}, shrunk to {PIXEL_SIDE} x {PIXEL_SIDE}"
NOT_MEASURED = "not measured in this profile"
# What is generated given what; "both" stands for the two other modalities.
TASKS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "image": (("image",), ("attributes", "mask")),
    "mask": (("mask",), ("image",)),
    "attributes": (("attributes",), ("image",)),
    "image and mask": (("image", "mask"), ("attributes",)),
    "image and attributes": (("image", "attributes"), ("mask",)),
    "mask and attributes": (("mask", "attributes"), ("image",)),
}


def small_pixels(images: Tensor) -> Tensor:
    """Pixels of images at 16 x 16 as features, fewer than there are test images: the stand-in where there is no FID."""
    return pixel_features(F.adaptive_avg_pool2d(images, PIXEL_SIDE).clamp(0, 1))


class Faces:
    """What the metrics of one run share: true values, features, a stream of random numbers a task."""

    def __init__(self, model: TrainableModel, data: Mapping[str, Dataset], spec: RunSpec, device: str) -> None:
        self.model, self.judge = with_classifier(model)
        self.device, self.settings = device, spec.params["evaluation"]
        self.test, self.number = data["test"], len(data["test"])
        self.true = {m: _all(self.test, m, device) for m in ("mask", "attributes")}
        self.extract: dict[str, Any] = {PIXELS: small_pixels}
        self.statistics: dict[str, FeatureStatistics] = {}
        self.unavailable = NOT_MEASURED
        if self.settings["inception"]:
            inception, self.unavailable = optional_inception(device)
            self.extract |= inception

    def generator(self, stream: int) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(100_000 * self.settings["seed"] + stream)

    def draw(
        self,
        stream: int,
        given: Sequence[str],
        wanted: Sequence[str],
        *,
        replaced: Tensor | None = None,
        **options: Any,
    ) -> dict[str, Tensor]:
        """Decoders' means clipped to [0, 1], one for each test sample given some of its modalities, or joint ones.

        Arguments:
            stream: Number of the stream of random numbers.
            given: What is observed; nothing for joint samples.
            wanted: What is returned.
            replaced: Images to observe instead of the true ones.
            options: Of the model's ``generate``.
        """
        generator = self.generator(stream)
        parts: dict[str, list[Tensor]] = {m: [] for m in wanted}
        for start, batch in zip(range(0, self.number, CHUNK), self.test.batches(CHUNK, shuffle=False), strict=True):
            size = len(batch["attributes"])
            if given:
                known = {m: batch[m].to(self.device) for m in given}
                if replaced is not None:
                    known["image"] = replaced[start : start + size].to(self.device)
                found = {
                    m: x[0] for m, x in self.model.generate(1, given=known, generator=generator, **options).items()
                }
            else:
                found = self.model.generate(size, generator=generator, **options)
            for m in wanted:
                parts[m].append(found[m].float().clamp(0, 1))
        return {m: torch.cat(x) for m, x in parts.items()}

    def frechet(self, images: Tensor) -> dict[str, float]:
        """``"fid"`` where there are Inception weights, and ``"frechet"`` of pixels, from the true test images."""
        found = {}
        for feature, extract in self.extract.items():
            if feature not in self.statistics:
                batches = (b["image"].to(self.device) for b in self.test.batches(CHUNK, shuffle=False))
                self.statistics[feature] = batch_statistics(extract, batches, feature)
            other = batch_statistics(extract, images.split(CHUNK), feature)
            value = frechet_distance(self.statistics[feature], other, allow_low_rank=True).value
            found["fid" if feature == FID_FEATURE else "frechet"] = value
        return found

    def measured(self, prefix: str, found: Mapping[str, Tensor], text: str) -> list[Metric]:
        """F1 of attributes and masks and distances of images."""
        metrics = []
        for m, x in found.items():
            if m == "image":
                for key, value in self.frechet(x).items():
                    kind = "Inception features" if key == "fid" else PIXELS
                    said = f"Frechet distance, {kind}, of as many true test images; {text}"
                    metrics.append(Metric(f"{prefix}/{key}/image", value, "1", len(x), said))
            else:
                value = sample_f1(x, self.true[m])
                metrics.append(Metric(f"{prefix}/f1/{m}", value, "1", len(x), f"{PROTOCOL}; {text}"))
        return metrics

    def hows(self) -> dict[str, dict[str, Any]]:
        """Ways to sample the model: with and without the energy's guidance where it has one."""
        return guidance_options(self.model)


def _all(data: Dataset, modality: str, device: str) -> Tensor:
    return torch.cat([b[modality] for b in data.batches(CHUNK, shuffle=False)]).to(device)


def _generated(run: Faces) -> list[Metric]:
    """Joint images, and each task of Table 1."""
    text = sampling_text(run.model)
    found = run.measured("test/nothing/plain", run.draw(1, (), ("image",)), f"joint samples, {text}")
    for how, options in run.hows().items():
        for k, (name, (given, wanted)) in enumerate(TASKS.items()):
            drawn = run.draw(10 + k, given, wanted, **options)
            where = name if len(given) == 1 else "both"
            found += run.measured(f"test/{where}/{how}", drawn, f"given {name}, {how}, {text}")
    return found


def _predict(network: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([network(x).sigmoid() for x in images.split(CHUNK)])


def _attacked(run: Faces, clean: Sequence[Metric]) -> list[Metric]:
    """Attributes given adversarial images, made on a supervised network of the run's own."""
    judge, epsilon = run.model if predicts(run.model) else run.judge, run.settings["attack"]
    if judge is None or not epsilon:
        return []
    images, true = _all(run.test, "image", run.device), run.true["attributes"]
    moved = transferred(judge.networks["attributes"], images, true, epsilon, batch_size=CHUNK)
    source = f"FGSM, epsilon {epsilon:g} of images in [0, 1], on a supervised classifier of the true attributes"
    own = {"clean": images, "attacked": moved}
    scores = {k: sample_f1(_predict(judge.networks["attributes"], x), true) for k, x in own.items()}
    found = [
        Metric(f"test/classifier/{k}/f1/attributes", v, "1", run.number, f"{PROTOCOL}; the attacked classifier's own")
        for k, v in scores.items()
    ]
    if run.model is judge:
        before, where = {"plain": scores["clean"]}, "the attacked classifier itself, no black box"
        after = {"plain": scores["attacked"]}
    else:
        before = {
            m.name.split("/")[2]: m.value for m in clean if m.name.startswith("test/image/") and "/f1/attr" in m.name
        }
        where = sampling_text(run.model)
        after = {
            how: sample_f1(run.draw(50, ("image",), ("attributes",), replaced=moved, **options)["attributes"], true)
            for how, options in run.hows().items()
        }
    for how, value in after.items():
        text = f"{source}; given the image alone, {how}, {where}"
        found.append(Metric(f"test/attacked/{how}/f1/attributes", value, "1", run.number, f"{PROTOCOL}; {text}"))
        if before[how] > 0:
            drop = percent_drop(before[how], value)
            found.append(Metric(f"test/attacked/{how}/drop/attributes", drop, "%", run.number, f"drop of F1; {text}"))
    return found


def _floors(run: Faces, data: Mapping[str, Dataset]) -> list[Metric]:
    """What needs no model: other true images, and the training split's most common attributes and pixels."""
    other = data["validation"]
    images = _all(other, "image", run.device)
    found = [
        Metric(f"test/floor/{key}/image", value, "1", len(other), "Frechet distance of true validation and test images")
        for key, value in run.frechet(images).items()
    ]
    for m, true in run.true.items():
        common = torch.zeros(true.shape[1:], dtype=torch.float64, device=run.device)
        for batch in data["train"].batches(CHUNK, shuffle=False):
            common += batch[m].to(run.device).double().sum(0)
        constant = (common / len(data["train"])).expand(true.shape)
        text = f"{PROTOCOL}; the training split's means predicted for every sample"
        found.append(Metric(f"test/floor/f1/{m}", sample_f1(constant, true), "1", run.number, text))
    if FID_FEATURE not in run.extract:
        found.append(Metric("test/fid/available", 0.0, "1", 0, run.unavailable))
    return found


def _reconstructed(run: Faces) -> list[Metric]:
    if not has_score(run.model):
        return []
    names = tuple(run.model.modalities)
    text = "reconstructions of the means of q(z | x)"
    return run.measured("test/reconstruction", run.draw(2, names, names), text)


@torch.no_grad()
def evaluate_faces(
    model: TrainableModel, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu"
) -> list[Metric]:
    """All metrics of a run on CelebAMask-HQ: Tables 1 to 3 and 11, floors and reconstructions.

    Distances are between all generated images and the true test images. The FID is of Inception features; where their
    weights are not available the record says so, and the same distance of small pixels stands beside it either way.
    """
    model.to(device).eval()
    run = Faces(model, data, spec, device)
    found = _floors(run, data)
    if predicts(run.model):
        images = _all(run.test, "image", device)
        drawn = {m: _predict(network, images) for m, network in run.model.networks.items()}
        made = run.measured("test/image/plain", drawn, "predicted from the image by supervised networks")
    else:
        made = _reconstructed(run) + _generated(run)
    return [*found, *made, *_attacked(run, made)]


@torch.no_grad()
def draw_faces(model: TrainableModel, test: Dataset, spec: RunSpec, device: str = "cpu") -> dict[str, Tensor]:
    """Joint samples, and samples given one modality of the first test face; the energy guides these where there is one.

    The first ones drawn with one seed, none selected. Of the true face only the 18 attributes are kept: images and
    masks must not be passed on, by the dataset's terms.

    Returns:
        ``joint/<m>`` and ``given-<o>/<m>`` for observed o and other modalities m, bytes: images and masks ``(6, C, 64,
        64)``, attributes ``(6, 18)`` of 0 and 1; and ``true/attributes``, ``(18,)``. Nothing for supervised networks.
    """
    model, _ = with_classifier(model)
    if predicts(model):
        return {}
    generator = torch.Generator(device).manual_seed(spec.params["evaluation"]["seed"] + 7)
    options = list(guidance_options(model).values())[-1]
    first = {m: x[None].to(device) for m, x in test[0].items()}
    drawn = {f"joint/{m}": x for m, x in model.generate(SAMPLES, generator=generator).items()}
    for o in model.modalities:
        given = model.generate(SAMPLES, given={o: first[o]}, generator=generator, **options)
        drawn |= {f"given-{o}/{m}": x[:, 0] for m, x in given.items() if m != o}
    found = {name: _bytes(x) for name, x in drawn.items()}
    return found | {"true/attributes": first["attributes"][0].round().to(torch.uint8).cpu()}


def _bytes(x: Tensor) -> Tensor:
    if x.ndim == 2:
        return (x > 0.5).to(torch.uint8).cpu()
    small = F.adaptive_avg_pool2d(x.float().clamp(0, 1), SIDE)
    return small.mul(255).round().to(torch.uint8).cpu()
