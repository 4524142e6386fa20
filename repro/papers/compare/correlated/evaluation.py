"""How a run of the comparison is measured: latents, correlations read from images, Frechet distances, errors.

Names are ``test/<measure>/<task>``; the tasks are ``joint`` (nothing is given, for latents everything), ``given-one``
and ``given-two`` of the three modalities. ``test/<measure>/data`` is what true images have in a model's place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import fmean

import torch
from torch import Tensor

from repro.datasets import Dataset
from repro.datasets.base import ModalitySpec, specs
from repro.datasets.card import load_card
from repro.metrics.correlation import canonical_correlations
from repro.metrics.frechet import batch_statistics, frechet_distance
from repro.model import MultimodalModel
from repro.papers.compare.building import build
from repro.papers.compare.correlated.measures import (
    fit_readout,
    generated,
    latent_correlation,
    paired_correlation,
    pairs_of,
)
from repro.papers.mrf_mvae.mixing import JOINT, chain_metrics
from repro.records import Metric, RunSpec
from repro.weights.shipped import load_classifier

__all__ = ["build_run", "evaluate_triples", "images_of"]

CHUNK = 1000
FEATURES = "classifier of MNIST"
READ = "correlation of the latents that ridge regression reads from images, mean over coordinates and pairs"
HELD = "mean of the largest canonical correlations of the inputs of two decoders' first layers, mean over pairs"

Images = dict[str, Tensor]


@dataclass
class _Given:
    """What was generated given so many modalities, a value for each way to choose them."""

    crossing: list[float] = field(default_factory=list)  # an observed image with a generated one
    missing: list[float] = field(default_factory=list)  # two generated ones
    latents: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    images: dict[str, list[Tensor]] = field(default_factory=dict)


class _Triples:
    """The measures of one run, each from its own stream of the evaluation's seed."""

    def __init__(self, model: MultimodalModel, data: Mapping[str, Dataset], spec: RunSpec, device: str) -> None:
        self.model, self.device, self.settings = model, device, spec.params["evaluation"]
        self.names = list(model.modalities)
        self.true, self.train = _images(data["test"], device), _images(data["train"], device)
        self.number = len(data["test"])
        self.points = min(self.settings["points"], self.number)
        self.few = {m: x[: self.points] for m, x in self.true.items()}
        latents = {m: data["train_truth"].data[_latent(m)].to(device) for m in self.names}
        self.truth = {m: data["truth"].data[_latent(m)].to(device) for m in self.names}
        self.dim = self.truth[self.names[0]].shape[1]
        # One readout serves all modalities, as one decoder drew all of them.
        self.readout = fit_readout(
            torch.cat([self.train[m] for m in self.names]), torch.cat([latents[m] for m in self.names])
        )
        classifier = load_classifier("mnist").to(device)
        self.statistics = lambda x: batch_statistics(classifier.features, x.float().split(CHUNK), FEATURES)
        self.reference = {m: self.statistics(x) for m, x in self.true.items()}

    def generator(self, stream: int) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(1000 * self.settings["seed"] + stream)

    def read(self, a: Tensor, b: Tensor) -> float:
        return paired_correlation(self.readout(a), self.readout(b))

    def frechet(self, images: Mapping[str, Tensor]) -> float:
        found = [
            frechet_distance(self.reference[m], self.statistics(x), allow_low_rank=True).value
            for m, x in images.items()
        ]
        return fmean(found)

    def data(self) -> list[Metric]:
        """What true images have instead of a model's."""
        pairs, n = pairs_of(self.names), self.number
        canonical = fmean(float(canonical_correlations(self.truth[a], self.truth[b]).mean()) for a, b in pairs)
        read = fmean(self.read(self.true[a], self.true[b]) for a, b in pairs)
        fit = self.readout.determination(
            torch.cat([self.true[m] for m in self.names]), torch.cat([self.truth[m] for m in self.names])
        )
        others = {m: x[:n] for m, x in self.train.items()}
        error = fmean(float((self.few[m] - self.train[m].mean(0)).abs().mean()) for m in self.names)
        size = min(n, len(others[self.names[0]]))
        return [
            Metric(
                "test/latents/data", canonical, "1", n, "mean canonical correlation of true latents, mean over pairs"
            ),
            Metric("test/images/data", read, "1", n, f"{READ}; true test images"),
            Metric("test/readout/determination", fit, "1", n, "R^2 of the ridge regression on true test images"),
            Metric("test/frechet/data", self.frechet(others), "1", size, "as joint, of as many training images"),
            Metric("test/mae/data", error, "1", self.points, "absolute error of the mean training image"),
        ]

    def joint(self) -> list[Metric]:
        """Joint samples, and the latents given everything."""
        parts, chains = [], []
        generator = self.generator(1)
        for start in range(0, self.number, CHUNK):
            parts.append(generated(self.model, min(CHUNK, self.number - start), generator=generator)[0])
            chains.append(chain_metrics(self.model, JOINT, self.number))
        images = {m: torch.cat([p[m] for p in parts]) for m in self.names}
        # Each chunk has chains of its own; those that mix the least speak for all.
        worst = max(chains, key=lambda c: [m.value for m in c if m.name.endswith("/r_hat")])
        _, latents = generated(self.model, 1, given=self.true, generator=self.generator(2))
        read = fmean(self.read(images[a], images[b]) for a, b in pairs_of(self.names))
        distance = f"Frechet distance between features of the {FEATURES}, mean over modalities"
        found = []
        if latents:
            held = latent_correlation({m: z[0] for m, z in latents.items()}, pairs_of(self.names), self.dim)
            text = f"{HELD}; one sample given all modalities"
            found.append(Metric("test/latents/joint", held, "1", self.number, text))
        return [
            *found,
            *worst,
            Metric("test/images/joint", read, "1", self.number, f"{READ}; joint samples"),
            Metric("test/frechet/joint", self.frechet(images), "1", self.number, f"{distance}; joint samples"),
        ]

    def conditional(self, observed: int, stream: int) -> list[Metric]:
        """All ways to give so many of the modalities, at the first test points."""
        found = _Given(images={m: [] for m in self.names})
        for i, chosen in enumerate(combinations(self.names, observed)):
            self._given(chosen, found, self.generator(stream + i))
        task = {1: "given-one", 2: "given-two"}[observed]
        n, draws = self.points, self.settings["draws"]
        text = f"given {observed} of {len(self.names)} modalities, mean over which"
        metrics = []
        if found.latents:
            held = f"{HELD}; observed and missing, {text}"
            metrics.append(Metric(f"test/latents/{task}", fmean(found.latents), "1", n, held))
        metrics += [
            Metric(f"test/images/{task}", fmean(found.crossing), "1", n, f"{READ}; an observed and a missing, {text}"),
            Metric(
                f"test/frechet/{task}",
                self.frechet({m: torch.cat(x) for m, x in found.images.items()}),
                "1",
                n * len(next(iter(found.images.values()))),
                f"as joint; missing modalities, {text}",
            ),
            Metric(
                f"test/mae/{task}",
                fmean(found.errors),
                "1",
                n,
                f"absolute error of the mean of {draws} samples, {text}",
            ),
        ]
        if found.missing:
            protocol = f"{READ}; two missing modalities, {text}"
            metrics.append(Metric(f"test/images/{task}-missing", fmean(found.missing), "1", n, protocol))
        return metrics

    def _given(self, chosen: Sequence[str], found: _Given, generator: torch.Generator) -> None:
        given = {m: self.few[m] for m in chosen}
        images, latents = generated(self.model, self.settings["draws"], given=given, generator=generator)
        first, z = {m: x[0] for m, x in images.items()}, {m: x[0] for m, x in latents.items()}
        hidden = [m for m in self.names if m not in chosen]
        for m in hidden:
            found.images[m].append(first[m])
            found.errors.append(float((images[m].mean(0) - self.few[m]).abs().mean()))
            found.crossing += [self.read(given[o], first[m]) for o in chosen]
        found.missing += [self.read(first[a], first[b]) for a, b in pairs_of(hidden)]
        if z:
            found.latents.append(latent_correlation(z, [(o, m) for o in chosen for m in hidden], self.dim))


def _latent(modality: str) -> str:
    return modality.replace("m", "z")


def _images(data: Dataset, device: str) -> Images:
    """All of a split, in [0, 1]."""
    return next(iter(data.to(device).batches(len(data), shuffle=False)))


@torch.no_grad()
def evaluate_triples(
    model: MultimodalModel, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu"
) -> list[Metric]:
    """All metrics of a run on correlated MNIST of three modalities, on the test split.

    Arguments:
        model: The trained model.
        data: ``"train"`` and ``"test"``, and the same with latents as ``"train_truth"`` and ``"truth"``.
        spec: The run.
        device: Where to compute.
    """
    model.to(device).eval()
    run = _Triples(model, data, spec, device)
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    size = Metric("model/parameters", parameters, "1", 1, "trained parameters")
    return [size, *run.data(), *run.joint(), *run.conditional(1, 10), *run.conditional(2, 20)]


def images_of(modalities: Mapping[str, ModalitySpec]) -> dict[str, ModalitySpec]:
    """The images among a dataset's modalities, whose others are the latents that they were drawn from."""
    return {m: s for m, s in modalities.items() if s.kind == "image"}


def build_run(spec: RunSpec) -> MultimodalModel:
    """The untrained model of a run, of its dataset's images alone."""
    return build(
        spec.method,
        images_of(specs(load_card(spec.dataset))),
        spec.params["model"],
        spec.params["evaluation"].get("sampling"),
    )
