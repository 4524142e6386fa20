"""How an image run is measured: coherence, Frechet distances, SSIM and centres of mass, each protocol by name.

Metric names are ``test/<task>/<measure>``, and ``test/floor/<measure>`` for the same between true images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from statistics import fmean

import torch
from torch import Tensor

from repro.baselines.training_points import TrainingPoints
from repro.datasets import Dataset
from repro.datasets.base import first_of_each_class
from repro.datasets.biked_rendered import overlay
from repro.metrics.bikes import centre_distance, joint_centre_distance
from repro.metrics.coherence import agreement_curve, classify, conditional_coherence, unconditional_coherence
from repro.metrics.frechet import (
    FID_FEATURE,
    FeatureStatistics,
    batch_statistics,
    frechet_distance,
    noise_floor,
    pixel_feature_name,
    pixel_features,
)
from repro.metrics.inception import InceptionUnavailableError, load_inception
from repro.metrics.ssim import DATA_RANGES, structural_similarity
from repro.model import MultimodalModel
from repro.papers.gmrf_mcvae.images.building import build, load
from repro.papers.gmrf_mcvae.images.latents import TRAINING_SAMPLES, digits_in_latents, digits_in_reconstructions
from repro.papers.gmrf_mcvae.images.settings import RECONSTRUCTIONS, SHOWN_CLASSES
from repro.records import Metric, RunSpec
from repro.weights.shipped import load_classifier

__all__ = ["build", "evaluate_images", "figure_samples", "generated_images", "load"]

Images = dict[str, Tensor]
CHUNK = 250
INCEPTION_DIM = 2048
MEANS = "decoder means, clipped to [0, 1]"
UNCONDITIONAL = f"unconditional: z from the prior, {MEANS}"
CONDITIONAL = f"conditional on one modality, averaged over which one, one sample for each test image, {MEANS}"
# Task to the options of GMRF MCVAE's conditional sampling that are measured beside the draw.
PROTOCOLS: Mapping[str, Mapping[str, str | float]] = {
    "conditional-componentwise": {"protocol": "componentwise"},
    "conditional-covariance-as-scale": {"protocol": "componentwise_covariance_as_scale"},
    "conditional-mean": {"protocol": "mean"},
    "conditional-temperature-0.5": {"temperature": 0.5},
}
PALUMBO = "share of generated images with the observed digit, over all pairs of an observed and a generated modality"


def generated_images(
    model: MultimodalModel,
    number: int,
    generator: torch.Generator,
    given: Mapping[str, Tensor] | None = None,
    **o: str | float,
) -> Images:
    """Decoder means clipped to [0, 1], drawn in chunks: jointly, or one for each row of what is given.

    Arguments:
        model: The model.
        number: Samples, as many as rows of ``given``.
        generator: Source of randomness, on the model's device.
        given: Observed modalities.
        o: Further options of the model's ``generate``.

    Raises:
        ValueError: If a generated value is not a number; it names the modality.
    """
    parts = []
    for start in range(0, number, CHUNK):
        size = min(CHUNK, number - start)
        if given is None:
            parts.append(model.generate(size, generator=generator, **o))
        else:
            rows = {m: x[start : start + size] for m, x in given.items()}
            parts.append({m: x[0] for m, x in model.generate(1, given=rows, generator=generator, **o).items()})
    images = {m: torch.cat([p[m] for p in parts]) for m in parts[0]}
    for m, x in images.items():
        if not bool(torch.isfinite(x).all()):
            raise ValueError(f"generated images of {m!r} are not finite")
    return {m: x.float().clamp_(0, 1) for m, x in images.items()}


class _Features:
    """One kind of features: its name, and statistics of each modality's true images, computed once."""

    def __init__(self, name: str, extract: Mapping[str, Callable[[Tensor], Tensor]], low_rank: bool) -> None:
        self.name, self.extract, self.low_rank = name, extract, low_rank
        self.true: dict[str, FeatureStatistics] = {}

    def statistics(self, modality: str, images: Tensor) -> FeatureStatistics:
        extract = self.extract.get(modality) or self.extract[""]
        return batch_statistics(extract, images.split(CHUNK), self.name)

    def distance(self, modality: str, true: Tensor, images: Tensor) -> float:
        if modality not in self.true:
            self.true[modality] = self.statistics(modality, true)
        other = self.statistics(modality, images)
        return frechet_distance(self.true[modality], other, allow_low_rank=self.low_rank).value

    def floor(self, modality: str, one: Tensor, other: Tensor) -> float:
        a, b = self.statistics(modality, one), self.statistics(modality, other)
        return noise_floor(a, b, allow_low_rank=self.low_rank).value


class _Evaluation:
    """Everything that the metrics of one run need, with one stream of random numbers a task."""

    def __init__(self, model: MultimodalModel, data: Mapping[str, Dataset], spec: RunSpec, device: str) -> None:
        self.model, self.spec, self.device = model, spec, device
        test = data["test"]
        self.labels = test.labels
        self.true = _images(test, device)
        self.other = _images(data["validation"], device) if "validation" in data else None
        self.number = len(test)
        self.settings = spec.params["evaluation"]
        self.bikes = self.settings["features"] == "pixels"
        self.classifiers = {} if self.bikes else {m: load_classifier(test.name, m).to(device) for m in self.true}
        if self.bikes:
            self.true["whole"] = overlay(self.true)
            if self.other is not None:
                self.other["whole"] = overlay(self.other)
        self.features, self.missing = self._features()

    def generator(self, stream: int) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(1000 * self.settings["seed"] + stream)

    def _features(self) -> tuple[dict[str, _Features], list[Metric]]:
        if self.bikes:
            found = {"frechet-pixels": _Features(pixel_feature_name("unit"), {"": pixel_features}, True)}
        else:
            own = {m: c.features for m, c in self.classifiers.items()}
            pilot = self.settings.get("split", "test") != "test"  # which a smoke run has 50 images for
            few = self.number // 2 <= max(c.feature_dim for c in self.classifiers.values())  # a half, for the floor
            found = {"frechet-classifier": _Features("classifier of each modality", own, pilot and few)}
        reason = "FID is left out of this profile: Inception takes longer than the training"
        try:
            inception = load_inception()
        except InceptionUnavailableError as error:
            return found, [Metric("test/fid/available", 0.0, "1", 0, str(error))]
        if not self.settings["inception"]:
            return found, [Metric("test/fid/available", 0.0, "1", 0, reason)]
        inception.network.to(self.device)
        found["fid"] = _Features(FID_FEATURE, {"": inception}, self.number <= INCEPTION_DIM)
        return found, []

    def drawn(self, stream: int, given: str | None = None, **options: str | float) -> Images:
        known = None if given is None else {given: self.true[given]}
        images = generated_images(self.model, self.number, self.generator(stream), known, **options)
        if self.bikes:
            # What is observed is part of the whole bicycle as it is.
            images["whole"] = overlay({m: self.true[m] if m == given else x for m, x in images.items()})
        return images

    def unconditional(self) -> list[Metric]:
        images = self.drawn(1)
        found = []
        for key, features in self.features.items():
            each = {m: features.distance(m, self.true[m], x) for m, x in images.items()}
            found += self._frechet("unconditional", UNCONDITIONAL, key, features, each)
        if not self.bikes:
            found += self._coherence("unconditional", UNCONDITIONAL, classify(self.classifiers, images))
        return found

    def _frechet(
        self, task: str, protocol: str, key: str, features: _Features, each: Mapping[str, float], number: int = 0
    ) -> list[Metric]:
        number = number or self.number
        text = f"{protocol}; Frechet distance, {features.name}, {number:,} samples a side"
        text += ", fewer than features: to be read against the floor alone" if features.low_rank else ""
        parts = [v for m, v in each.items() if m != "whole"]
        found = [Metric(f"test/{task}/{key}", fmean(parts), "1", number, f"{text}; mean over the modalities")]
        if "whole" in each:
            found.append(Metric(f"test/{task}/{key}/whole", each["whole"], "1", number, f"{text}; whole bicycle"))
        return found

    def _coherence(self, task: str, protocol: str, labels: Mapping[str, Tensor]) -> list[Metric]:
        all_agree, curve = unconditional_coherence(labels), agreement_curve(labels)
        text = f"{protocol}; share of samples in which the classifiers see one digit in"
        found = [
            Metric(f"test/{task}/coherence", all_agree.value, "1", self.number, f"{text} all modalities"),
            Metric(
                f"test/{task}/digits", all_agree.num_labels, "1", self.number, f"{protocol}; different digits predicted"
            ),
        ]
        for k, share in enumerate(curve.at_least[1:], 2):
            found.append(
                Metric(f"test/{task}/coherence/at_least_{k}", share, "1", self.number, f"{text} at least {k} of them")
            )
        return found

    def conditional(self, name: str = "conditional", drawn: str = CONDITIONAL, **options: str | float) -> list[Metric]:
        """All measures under a protocol of the model's conditional sampling; its own by default.

        Arguments:
            name: The task's name in the metrics.
            drawn: What is measured, in words.
            options: Of the model's ``generate``.
        """
        said = (v.replace("_", " ") if isinstance(v, str) else f"{k} {v:g}" for k, v in options.items())
        text, protocol = ", ".join((drawn, *said)), name != "conditional"
        labels: dict[tuple[str, ...], dict[str, Tensor]] = {}
        # Of a further protocol, what costs little: no Inception features, and SSIM in its own reading.
        used = {k: f for k, f in self.features.items() if not protocol or k != "fid"}
        readings = list(DATA_RANGES)[: 1 if protocol else None]
        frechet: dict[str, dict[str, list[float]]] = {key: {} for key in used}
        similar: dict[tuple[str, str], list[float]] = {}
        centres: list[float] = []
        joint: list[float] = []
        blank: list[float] = []
        for stream, observed in enumerate((m for m in self.true if m != "whole"), 2):
            images = self.drawn(stream, observed, **options)
            targets = {m: x for m, x in images.items() if m != observed}
            for key, features in used.items():
                for m, x in targets.items():
                    frechet[key].setdefault(m, []).append(features.distance(m, self.true[m], x))
            for reading in readings:
                for m, x in targets.items():
                    pairs = slice(self.settings["ssim_samples"])
                    value = structural_similarity(x[pairs], self.true[m][pairs], reading=reading).mean
                    similar.setdefault((reading, "whole" if m == "whole" else "parts"), []).append(value)
            if self.bikes:
                self._centres(targets, centres, joint, blank)
            else:
                labels[observed,] = classify(self.classifiers, targets)
        found = []
        for key, features in used.items():
            found += self._frechet(name, text, key, features, {m: fmean(v) for m, v in frechet[key].items()})
        found += [
            Metric(
                f"test/{name}/ssim" + ("" if reading == "unit" else f"/{reading}") + ("/whole" if p == "whole" else ""),
                fmean(values),
                "1",
                min(self.settings["ssim_samples"] or self.number, self.number),
                f"{text}; SSIM with the test image of the same sample, data_range {DATA_RANGES[reading]:g}"
                + ("; whole bicycle" if p == "whole" else "; mean over generated modalities"),
            )
            for (reading, p), values in similar.items()
        ]
        if not self.bikes:
            palumbo = conditional_coherence(labels, self.labels)
            found.append(Metric(f"test/{name}/coherence", palumbo.mean, "1", self.number, f"{text}; {PALUMBO}"))
        if self.bikes:
            found += self._centre_metrics(name, text, centres, joint, blank)
        return found

    def _centres(
        self, targets: Mapping[str, Tensor], centres: list[float], joint: list[float], blank: list[float]
    ) -> None:
        parts = {m: x for m, x in targets.items() if m != "whole"}
        true = {m: self.true[m] for m in parts}
        try:
            distance = centre_distance(true, parts)
            centres.append(distance.mean)
            blank.append(1 - sum(distance.num_generated.values()) / (len(parts) * self.number))
            joint.append(joint_centre_distance(true, parts))
        except ValueError:  # no image of a component has ink: the cell says so
            return

    def _centre_metrics(
        self, name: str, text: str, centres: Sequence[float], joint: Sequence[float], blank: Sequence[float]
    ) -> list[Metric]:
        conditions = len(self.true) - 1
        rule = "1-Wasserstein distance of the centres of mass of the generated components, in pixels"
        found = []
        if len(centres) == conditions:
            found.append(Metric(f"test/{name}/centres", fmean(centres), "pixel", self.number, f"{text}; {rule}, mean"))
            share = f"{text}; share of generated pictures without ink, left out of the centres"
            found.append(Metric(f"test/{name}/blank", fmean(blank), "1", self.number, share))
        if len(joint) == conditions:
            all_of_them = f"{text}; {rule}, of the vector of all of them"
            found.append(Metric(f"test/{name}/centres/joint", fmean(joint), "pixel", self.number, all_of_them))
        return found

    def nearest(self, train: Dataset) -> list[Metric]:
        """What is reached without a model, by the training sample that is nearest in the pixels of what is given."""
        points = copy(self)
        points.model = TrainingPoints(train.to(self.device).floats())
        return points.conditional("nearest", "the training sample whose observed modality is nearest in pixels")

    def latents(self, train: Dataset) -> list[Metric]:
        """Digits in reconstructions and, for GMRF MCVAE, in latents without its prior; of bicycles SSIM."""
        if self.bikes:
            true = {m: x for m, x in self.true.items() if m != "whole"}
            images = generated_images(self.model, self.number, self.generator(20), true)
            pairs = slice(self.settings["ssim_samples"])
            value = fmean(structural_similarity(x[pairs], true[m][pairs]).mean for m, x in images.items())
            text = f"{RECONSTRUCTIONS}; SSIM with the test image, data_range 1, mean over the components"
            number = len(next(iter(true.values()))[pairs])
            return [Metric("test/reconstruction/ssim", value, "1", number, text)]
        common = (self.classifiers, self.true, self.labels)
        found = digits_in_reconstructions(self.model, *common, self.generator(20))
        if "protocol" in self.model.generation_options:  # its latents have a joint posterior and a field as prior
            known = _images(train.first(min(TRAINING_SAMPLES, len(train))), self.device)
            found += digits_in_latents(self.model, self.classifiers, known, *common[1:], self.generator(21))
        return found

    def floor(self) -> list[Metric]:
        """Two halves of the test images, or test against validation images where there are any: no model involved."""
        half = self.number // 2
        if self.other is None:
            one, other = ({m: x[s] for m, x in self.true.items()} for s in (slice(half), slice(half, 2 * half)))
            text = "two halves of the true test images"
        else:
            size = min(self.number, len(next(iter(self.other.values()))))
            one, other = ({m: x[:size] for m, x in side.items()} for side in (self.true, self.other))
            text = "true test images and as many true validation images"
        number, found = len(next(iter(one.values()))), []
        for key, features in self.features.items():
            each = {m: features.floor(m, one[m], other[m]) for m in one}
            found += self._frechet("floor", text, key, features, each, number)
        for reading in DATA_RANGES:
            values = {m: structural_similarity(other[m], one[m], reading=reading).mean for m in one}
            suffix, rule = "" if reading == "unit" else f"/{reading}", f"SSIM, data_range {DATA_RANGES[reading]:g}"
            mean = fmean(v for m, v in values.items() if m != "whole")
            pairs = f"pairs that have nothing to do with one another, of {text}; {rule}"
            found.append(Metric(f"test/floor/ssim{suffix}", mean, "1", number, pairs))
            if "whole" in values:
                found.append(
                    Metric(f"test/floor/ssim{suffix}/whole", values["whole"], "1", number, f"{pairs}; whole bicycle")
                )
        if self.bikes:
            parts = [{m: x for m, x in side.items() if m != "whole"} for side in (one, other)]
            distance = centre_distance(*parts).mean
            found.append(Metric("test/floor/centres", distance, "pixel", number, f"{text}; centres of mass"))
            joint = joint_centre_distance(*parts)
            found.append(
                Metric("test/floor/centres/joint", joint, "pixel", number, f"{text}; centres, of all together")
            )
            return found
        labels = classify(self.classifiers, self.true)
        found += self._coherence("floor", "true test images", labels)
        right = fmean(float((x == self.labels.cpu()).double().mean()) for x in labels.values())
        text = "true test images; share whose digit the classifiers see, mean over the modalities"
        found.append(Metric("test/floor/accuracy", right, "1", self.number, text))
        return found


def _images(data: Dataset, device: str) -> Images:
    """All images of a split, in [0, 1] on the device."""
    parts = list(data.to(device).batches(1000, shuffle=False))
    return {m: torch.cat([p[m] for p in parts]) for m in data.modalities}


@torch.no_grad()
def evaluate_images(
    model: MultimodalModel, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu"
) -> list[Metric]:
    """All metrics of an image run on the test split, of a pilot on the held-out training images.

    Unconditional: Frechet distances and, for digits, coherence. Conditional on each modality alone: the same, SSIM by
    both data ranges and, for bicycles, distances of centres of mass; for GMRF MCVAE also with the further protocols of
    conditional sampling. What reconstructions hold and, for digits, latents; on the test split also what the nearest
    training samples reach in a model's place. The floor is the same between true images.

    Raises:
        ValueError: If there are too few samples for the features, or a generated image is not finite.
    """
    model.to(device).eval()
    split = spec.params["evaluation"].get("split", "test")
    if split != "test":  # a pilot: the held-out training images instead of the test split, which it never loads
        data = {"train": data["train"], "test": data[split]}
    evaluation = _Evaluation(model, data, spec, device)
    found = evaluation.unconditional() + evaluation.conditional()
    if "protocol" in model.generation_options:
        for name, options in PROTOCOLS.items():
            found += evaluation.conditional(name, **options)
    found += [*evaluation.latents(data["train"]), *evaluation.floor(), *evaluation.missing]
    if split == "test":
        return found + evaluation.nearest(data["train"])
    return [replace(m, name=m.name.replace("test/", f"{split}/", 1), protocol=f"{split}: {m.protocol}") for m in found]


def figure_samples(model: MultimodalModel, spec: RunSpec, device: str = "cpu") -> dict[str, Tensor]:
    """One conditional sample for the first test sample of each class, as bytes, with what it is conditioned on.

    Names are ``true/<condition>``, ``generated/<modality>`` and, for components of one image, ``true/whole``, each
    ``(classes, channels, size, size)``. Without labels, as BIKED's images are, they are the first test samples.
    """
    evaluation = spec.params["evaluation"]
    if evaluation.get("split", "test") != "test":
        return {}
    test = load(spec)["test"]
    if test.labels is None:
        rows = list(range(min(SHOWN_CLASSES, len(test))))
    else:
        rows = first_of_each_class(test.labels, SHOWN_CLASSES)
    true = {m: torch.stack([test[i][m] for i in rows]) for m in test.modalities}
    condition = evaluation["condition"]
    generator = torch.Generator(device).manual_seed(evaluation["seed"])
    drawn = model.generate(1, given={condition: true[condition].to(device)}, generator=generator)
    found = {f"true/{condition}": true[condition]} | {f"generated/{m}": x[0] for m, x in drawn.items()}
    if evaluation["features"] == "pixels":
        found["true/whole"] = overlay(true)
    return {name: x.float().clamp(0, 1).mul(255).round().to(torch.uint8) for name, x in found.items()}
