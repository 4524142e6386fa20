"""How a run on Extended PolyMNIST is measured: coherence, Frechet distances, recovered latents, quality against cost.

Names are ``test/<task>/<how>/<measure>/<part>``; how is ``plain`` or ``guided``, and part a modality, ``mean`` or a
number of modalities.
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
from repro.datasets.base import first_of_each_class
from repro.metrics.coherence import agreement_curve, classify
from repro.metrics.frechet import FID_FEATURE, FeatureStatistics, batch_statistics, frechet_distance
from repro.metrics.inception import optional_inception
from repro.model import MultimodalModel
from repro.papers.sbm_vae.building import build, load
from repro.papers.sbm_vae.sampling import SamplingSettings, guidance_options, has_score, sampling_text
from repro.records import Metric, RunSpec
from repro.weights.shipped import load_classifier

__all__ = ["SHOWN", "Evaluation", "build", "draw_samples", "evaluate_polymnist", "load"]

Images = dict[str, Tensor]
CHUNK = 1000
NEIGHBOURS = 2000  # test points for which the nearest training points are looked for
CLASSIFIER = "classifier of Extended PolyMNIST"
NOT_MEASURED = "not measured in this profile"
SHOWN = (0, 2, 5)  # modalities of figures 24, 3 with 23, and 25, counted from 0
# Samples of each digit, and joint ones: of up to five modalities, and of more, so that the file stays below 300 kB.
FEW, MANY = (4, 10), (2, 6)


class Evaluation:
    """What the metrics of one run share: true images, the classifier, features, a stream of random numbers a task."""

    def __init__(self, model: MultimodalModel, data: Mapping[str, Dataset], spec: RunSpec, device: str) -> None:
        self.model, self.device, self.settings = model, device, spec.params["evaluation"]
        test = data["test"]
        if test.labels is None:
            raise ValueError(f"{test.name} has no labels to measure coherence by")
        self.labels, self.names, self.number = test.labels, list(test.modalities), len(test)
        self.true = _images(test, device)
        self.other = _images(data["validation"], device)
        classifier = load_classifier(test.name).to(device)
        self.classifiers = dict.fromkeys(self.names, classifier)
        self.extract: dict[str, Any] = {CLASSIFIER: classifier.features}
        self.statistics: dict[tuple[str, str], FeatureStatistics] = {}
        self.unavailable = NOT_MEASURED
        if self.settings["inception"]:
            inception, self.unavailable = optional_inception(device)
            self.extract |= inception

    def generator(self, stream: int) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(100_000 * self.settings["seed"] + stream)

    def draw(self, stream: int, given: Sequence[str] = (), number: int | None = None, **options: Any) -> Images:
        """Decoders' means clipped to [0, 1]: joint samples, or one for each of the first test images."""
        number, generator = number or self.number, self.generator(stream)
        if not given:  # nothing observed, nothing to guide by
            options.pop("gamma", None)
        parts = []
        for start in range(0, number, CHUNK):
            rows = slice(start, min(start + CHUNK, number))
            if given:
                known = {m: self.true[m][rows] for m in given}
                found = self.model.generate(1, given=known, generator=generator, **options)
                parts.append({m: x[0] for m, x in found.items()})
            else:
                parts.append(self.model.generate(rows.stop - rows.start, generator=generator, **options))
        return {m: torch.cat([p[m] for p in parts]).float().clamp(0, 1) for m in self.names}

    def accuracy(self, images: Images) -> dict[str, float]:
        """Share of each modality's images that show the test image's digit."""
        found = classify(self.classifiers, images)
        return {m: float((y == self.labels[: len(y)].cpu()).double().mean()) for m, y in found.items()}

    def frechet(self, images: Images) -> dict[str, dict[str, float]]:
        """Kind of features to each modality's distance from the true test images."""
        found: dict[str, dict[str, float]] = {}
        for feature, extract in self.extract.items():
            for m, x in images.items():
                if (feature, m) not in self.statistics:
                    self.statistics[feature, m] = batch_statistics(extract, self.true[m].split(CHUNK), feature)
                other = batch_statistics(extract, x.split(CHUNK), feature)
                value = frechet_distance(self.statistics[feature, m], other, allow_low_rank=True).value
                found.setdefault(_key(feature), {})[m] = value
        return found

    def hows(self) -> dict[str, dict[str, Any]]:
        """Ways to sample the model: with and without the energy's guidance where it has one."""
        return guidance_options(self.model)


def _images(data: Dataset, device: str) -> Images:
    parts = list(data.batches(CHUNK, shuffle=False))
    return {m: torch.cat([p[m] for p in parts]).to(device) for m in data.modalities}


def _key(feature: str) -> str:
    return "fid" if feature == FID_FEATURE else "frechet"


def _listed(prefix: str, values: Mapping[str, float], number: int, text: str) -> list[Metric]:
    """A metric a modality and their mean."""
    found = [Metric(f"{prefix}/{m}", v, "1", number, text) for m, v in values.items()]
    return [*found, Metric(f"{prefix}/mean", fmean(values.values()), "1", number, f"{text}; mean over modalities")]


def _sampled(run: Evaluation) -> str:
    return f"{sampling_text(run.model)}, clipped to [0, 1]"


def _unconditional(run: Evaluation) -> list[Metric]:
    images, text = run.draw(1), f"joint samples, {_sampled(run)}"
    labels = classify(run.classifiers, images)
    curve = agreement_curve(labels).at_least
    found = [
        Metric(f"test/unconditional/plain/agree/{k}", share, "1", run.number, f"share with {k} equal digits; {text}")
        for k, share in enumerate(curve, 1)
        if k > 1
    ]
    counts = torch.stack([torch.bincount(y, minlength=10) for y in labels.values()]).sum(0)
    shares = counts.double() / counts.sum()
    found += [
        Metric(f"test/unconditional/plain/digit/{d}", float(s), "1", int(counts.sum()), f"share of this digit; {text}")
        for d, s in enumerate(shares)
    ]
    for key, values in run.frechet(images).items():
        found += _listed(f"test/unconditional/plain/{key}", values, run.number, f"Frechet distance; {text}")
    return found


def _given_the_rest(run: Evaluation) -> list[Metric]:
    found = []
    for how, options in run.hows().items():
        accuracy, distances = {}, {}
        for k, m in enumerate(run.names):
            images = {m: run.draw(10 + k, [n for n in run.names if n != m], **options)[m]}
            accuracy |= run.accuracy(images)
            for key, values in run.frechet(images).items():
                distances.setdefault(key, {}).update(values)
        text = f"each modality given all others, {how}, {_sampled(run)}"
        found += _listed(f"test/rest/{how}/coherence", accuracy, run.number, f"share of right digits; {text}")
        for key, values in distances.items():
            found += _listed(f"test/rest/{how}/{key}", values, run.number, f"Frechet distance; {text}")
    return found


def _by_observed(run: Evaluation) -> list[Metric]:
    """The first and the last modality given 1, 2, ... of the others, in their order (figures 8, 9, 12 and 13)."""
    found = []
    for how, options in run.hows().items():
        for target, others in ((run.names[-1], run.names[:-1]), (run.names[0], run.names[1:])):
            for n in range(1, len(others)):  # given all others is among the metrics above
                images = {target: run.draw(100 + n, others[:n], **options)[target]}
                text = f"{target} given {n} modalities, {how}, {_sampled(run)}"
                values = {"coherence": run.accuracy(images)[target]}
                values |= {key: v[target] for key, v in run.frechet(images).items()}
                prefix = f"test/observed/{how}"
                found += [Metric(f"{prefix}/{k}/{target}/{n}", v, "1", run.number, text) for k, v in values.items()]
    return found


def _recovered(run: Evaluation) -> list[Metric]:
    """Table 7: cosine similarity of encoded latents and those generated given the rest."""
    if not has_score(run.model):
        return []
    found = []
    for how, options in run.hows().items():
        values = {}
        for k, m in enumerate(run.names):
            rows = {n: x[:CHUNK] for n, x in run.true.items()}
            known = {n: x for n, x in rows.items() if n != m}
            drawn = run.model.sample(1, given=known, generator=run.generator(200 + k), **options)[0, :, k]
            encoded = run.model.latents_of({m: rows[m]})[0][:, k]
            drawn, encoded = (z * run.model.score.scale[k] + run.model.score.location[k] for z in (drawn, encoded))
            values[m] = float(torch.cosine_similarity(drawn, encoded, dim=-1).double().mean())
        text = f"cosine of the mean of q(z | x) and z drawn given all other modalities, {how}, {_sampled(run)}"
        found += _listed(f"test/rest/{how}/cosine", values, min(CHUNK, run.number), text)
    return found


def _against_evaluations(run: Evaluation) -> list[Metric]:
    """Joint agreement and the first modality's digit given the rest, for each sampler and number of steps.

    Nothing of a model without a score.
    """
    if not has_score(run.model):
        return []
    found, number = [], min(run.settings["curve_samples"], run.number)
    for k, (name, steps) in enumerate(run.settings["nfe"]):
        ode = name == "dpm_solver_ode"
        sampling = SamplingSettings("dpm_solver" if ode else name, num_steps=steps)
        sampling = replace(sampling, stochasticity=0.0) if ode else sampling
        text = f"{name}, {steps} steps, {sampling.evaluations} evaluations"
        joint = run.draw(300 + k, number=number, sampling=sampling)
        everything = agreement_curve(classify(run.classifiers, joint)).at_least[-1]
        first, rest = run.names[0], run.names[1:]
        given = run.draw(400 + k, rest, number=number, sampling=sampling, gamma=0.0)
        prefix = f"test/nfe/{name}/{sampling.evaluations}"
        found.append(Metric(f"{prefix}/joint", everything, "1", number, f"share with all digits equal; {text}"))
        accuracy = run.accuracy({first: given[first]})[first]
        found.append(Metric(f"{prefix}/given", accuracy, "1", number, f"{first} given the rest, right digits; {text}"))
    return found


def _by_steps(run: Evaluation) -> list[Metric]:
    """The last modality given 1, 2, ... of the others by the predictor-corrector of several N (figure 11).

    Nothing of a model without a score.
    """
    if not has_score(run.model):
        return []
    found, number = [], min(run.settings["steps_samples"], run.number)
    target, others = run.names[-1], run.names[:-1]
    for k, steps in enumerate(run.settings["steps"]):
        sampling = SamplingSettings("predictor_corrector", num_steps=steps)
        for how, options in run.hows().items():
            for n in range(1, len(others) + 1):
                stream = 500 + 20 * k + n  # the same noise with and without guidance
                images = run.draw(stream, others[:n], number=number, sampling=sampling, **options)
                share = run.accuracy({target: images[target]})[target]
                text = (
                    f"share of right digits; {target} given {n} modalities, {how}, predictor_corrector, {steps} steps, "
                    f"{sampling.evaluations} evaluations; decoder means, clipped to [0, 1]"
                )
                found.append(Metric(f"test/steps/{how}/{steps}/coherence/{target}/{n}", share, "1", number, text))
    return found


def _floors(run: Evaluation) -> list[Metric]:
    """What true images score: the classifier's accuracy, the distance of two splits, and reconstructions."""
    found = _listed("test/floor/coherence", run.accuracy(run.true), run.number, "true test images, right digits")
    for key, values in run.frechet(run.other).items():
        found += _listed(f"test/floor/{key}", values, len(run.other[run.names[0]]), "true validation and test images")
    images = run.draw(2, run.names)
    text = "reconstructions of the means of q(z | x)" if has_score(run.model) else "decoded given all modalities"
    found += _listed("test/reconstruction/coherence", run.accuracy(images), run.number, f"right digits; {text}")
    for key, values in run.frechet(images).items():
        found += _listed(f"test/reconstruction/{key}", values, run.number, f"Frechet distance; {text}")
    errors = {m: float((x - run.true[m]).square().double().mean()) for m, x in images.items()}
    found += _listed("test/reconstruction/mse", errors, run.number, f"squared error a value; {text}")
    if FID_FEATURE not in run.extract:
        found.append(Metric("test/fid/available", 0.0, "1", 0, run.unavailable))
    return found


def _nearest(run: Evaluation, train: Dataset) -> list[Metric]:
    """Coherence without a model: each modality of the training point whose others are nearest."""
    points = copy(run)
    points.model, points.number = TrainingPoints(train.to(run.device).floats()), min(NEIGHBOURS, run.number)
    right = {}
    for m in run.names:
        images = points.draw(0, [n for n in run.names if n != m])
        right |= run.accuracy({m: images[m]})
    text = f"share of right digits; each modality of that of {len(train):,} training points whose others are nearest"
    return _listed("test/nearest/coherence", right, points.number, f"{text} in pixels, in a model's place")


@torch.no_grad()
def evaluate_polymnist(
    model: MultimodalModel, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu"
) -> list[Metric]:
    """All metrics of a run on Extended PolyMNIST.

    Joint samples (figures 5, 6 and 20), every modality given all others (Tables 5 to 7, figures 14 and 15), the first
    and the last one given more and more others (figures 8, 9, 12 and 13) and by N (figure 11), quality against
    evaluations of the score, and what true images, reconstructions and the nearest training points score.
    """
    model.to(device).eval()
    run = Evaluation(model, data, spec, device)
    parts = (_floors, _unconditional, _given_the_rest, _by_observed, _recovered, _against_evaluations, _by_steps)
    return [metric for part in parts for metric in part(run)] + _nearest(run, data["train"])


@torch.no_grad()
def draw_samples(model: MultimodalModel, test: Dataset, spec: RunSpec, device: str = "cpu") -> dict[str, Tensor]:
    """Four samples of some modalities given all others of the first test image of each digit, and ten joint samples.

    Two and six where there are more than five modalities. The first ones drawn with one seed, none selected. Where
    there is an energy it guides the conditional ones.

    Returns:
        ``given/<m>`` ``(samples, digits, C, H, W)`` and ``joint/<m>`` ``(samples, C, H, W)``, all as bytes. The true
        images are the dataset's and are not stored again.

    Raises:
        ValueError: If the split has no labels.
    """
    if test.labels is None:
        raise ValueError(f"{test.name} has no labels to choose images by")
    rows = first_of_each_class(test.labels)
    true = {m: torch.stack([test[i][m] for i in rows]).to(device) for m in test.modalities}
    generator = torch.Generator(device).manual_seed(spec.params["evaluation"]["seed"] + 7)
    names: list[str] = list(test.modalities)
    conditional, joint = FEW if len(names) <= 5 else MANY
    found: dict[str, Tensor] = {}
    options = list(guidance_options(model).values())[-1]
    for k in SHOWN:
        if k < len(names):
            m = names[k]
            known = {n: x for n, x in true.items() if n != m}
            drawn = model.generate(conditional, given=known, generator=generator, **options)
            found[f"given/{m}"] = drawn[m]
    found |= {f"joint/{m}": x for m, x in model.generate(joint, generator=generator).items()}
    return {name: x.float().clamp(0, 1).mul(255).round().to(torch.uint8).cpu() for name, x in found.items()}
