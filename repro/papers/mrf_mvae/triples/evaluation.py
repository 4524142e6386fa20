"""How a run on MNIST triples is measured: coherence, and Frechet distances between features, each under its own name.

The first two modalities show the same digit, the third any. Coherence asks what can be asked of such data: without
conditions, whether the first two agree; given one of them, whether the other has the label of what was observed. The
third counts for Frechet distances alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from repro import datasets
from repro.datasets import Dataset
from repro.metrics.coherence import classify, conditional_coherence, unconditional_coherence
from repro.metrics.frechet import (
    FeatureStatistics,
    batch_statistics,
    frechet_distance,
    noise_floor,
    pixel_feature_name,
    pixel_features,
)
from repro.metrics.inception import InceptionUnavailableError, load_inception
from repro.model import MultimodalModel
from repro.papers.mrf_mvae.mixing import chain_metrics
from repro.papers.mrf_mvae.triples.readings import reading
from repro.papers.mrf_mvae.variants import build
from repro.records import Metric, RunSpec
from repro.weights.shipped import load_classifier

__all__ = [
    "ALIKE",
    "FEATURES",
    "INCEPTION",
    "TripleTasks",
    "build",
    "conditional",
    "evaluate",
    "figure_samples",
    "protocols",
    "reconstruction",
    "truth",
    "unconditional",
]

ALIKE = ("m0", "m1")
CHUNK = 1000
SHOWN = 10
NEIGHBOURS = 10_000
RECONSTRUCTION_STREAM = 20  # of the evaluation's seed

# Name in a metric to what the features are called.
FEATURES = {
    "classifier": "the MNIST classifier's 128 hidden activations",
    "logits": "the MNIST classifier's 10 logits",
    "pixels": pixel_feature_name("unit"),
}
# What the published numbers may have been measured with: name in a metric to layer and input range of Inception.
INCEPTION = {
    "inception": ("2048", "right"),
    "inception-unit-as-bytes": ("2048", "unit as bytes"),
    "inception-logits": ("logits_unbiased", "right"),
}

Extract = Callable[[Tensor], Tensor]


def _extractors(classifier: nn.Module, features: Sequence[str] | None) -> dict[str, tuple[Extract, str]]:
    """Name in a metric to function and name of its features; Inception's where its weights are on this machine."""
    found: dict[str, tuple[Extract, str]] = {
        "classifier": (classifier.features, FEATURES["classifier"]),
        "logits": (classifier, FEATURES["logits"]),
        "pixels": (pixel_features, FEATURES["pixels"]),
    }
    if features is not None:
        return {k: found[k] for k in features}
    for name, (layer, input_range) in INCEPTION.items():
        try:
            network = load_inception(layer=layer, input_range=input_range)
        except InceptionUnavailableError:
            break
        found[name] = (network, network.name)
    return found


class TripleTasks:
    """The true images of a split, what samples are compared with them by, and the model that draws the samples.

    Arguments:
        model: In evaluation mode, on the device.
        data: The split that the run's evaluation names, among others.
        spec: The run; its evaluation has ``num_samples``, ``seed`` and ``split``.
        device: Where to compute.
        features: Keys of :data:`FEATURES` that Fréchet distances are taken in; those and Inception's where its weights
            are on this machine if None.
    """

    def __init__(
        self,
        model: MultimodalModel,
        data: Mapping[str, Dataset],
        spec: RunSpec,
        device: str,
        features: Sequence[str] | None = None,
    ) -> None:
        settings = spec.params["evaluation"]
        self.model, self.device, self.seed, self.split = model, device, settings["seed"], settings["split"]
        whole = data[self.split]
        self.number = min(settings["num_samples"], len(whole))
        chosen = whole.first(self.number).to(device).floats()
        self.true, self.labels = dict(chosen.data), chosen.labels
        self.classifier = load_classifier(whole.name).to(device)
        self.networks = dict.fromkeys(self.true, self.classifier)
        self.extractors = _extractors(self.classifier, features)
        self.reference = {m: self.statistics(x) for m, x in self.true.items()}

    def of(self, model: MultimodalModel) -> TripleTasks:
        """The same true images and measures, of samples of another model."""
        other = copy(self)
        other.model = model
        return other

    def generator(self, stream: int) -> torch.Generator:
        """One of the evaluation seed's streams."""
        return torch.Generator(self.device).manual_seed(1000 * self.seed + stream)

    def statistics(self, images: Tensor) -> dict[str, FeatureStatistics]:
        """Features to their mean and covariance over images ``(N, 1, 28, 28)`` in [0, 1]."""
        parts = images.split(CHUNK)
        return {k: batch_statistics(f, parts, feature) for k, (f, feature) in self.extractors.items()}

    def frechet(self, images: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
        """Features to modality to Frechet distance."""
        found: dict[str, dict[str, float]] = {k: {} for k in self.extractors}
        for m, x in images.items():
            for k, statistics in self.statistics(x).items():
                found[k][m] = frechet_distance(self.reference[m][k], statistics, allow_low_rank=True).value
        return found

    def labels_of(self, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Modality to the digits that the classifier sees, ``(N,)``."""
        return classify(self.networks, images)


def _clamped(samples: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Decoder means as images: linear decoders overshoot [0, 1] a little."""
    return {m: x.clamp(0.0, 1.0) for m, x in samples.items()}


def _frechet_metrics(
    prefix: str, protocol: str, found: Mapping[str, Mapping[str, float]], t: TripleTasks
) -> list[Metric]:
    metrics = []
    for k, by_modality in found.items():
        text = f"Frechet distance between {t.extractors[k][1]}; {protocol}"
        values = by_modality | {"mean": fmean(by_modality.values())}
        for m, value in values.items():
            which = "mean over what is generated" if m == "mean" else m
            metrics.append(Metric(f"{prefix}/frechet/{k}/{m}", value, "1", t.number, f"{text}; {which}"))
    return metrics


def unconditional(t: TripleTasks, name: str = "unconditional", how: str = "", **options: Any) -> list[Metric]:
    """Joint samples: whether the first two show one digit, how many digits there are, chains, and distances of all.

    Arguments:
        t: The model, and what its samples are compared with by.
        name: Of the task in metrics.
        how: What the protocol says of the samples beside their number.
        options: Of the model's generation.
    """
    samples = _clamped(t.model.generate(t.number, generator=t.generator(1), **options))
    protocol = f"{t.number:,} samples of the prior{how}, decoder means clipped to [0, 1]"
    predicted = t.labels_of(samples)
    agreeing = unconditional_coherence(predicted, modalities=ALIKE)
    prefix = f"{t.split}/{name}"
    metrics = [
        Metric(
            f"{prefix}/coherence",
            agreeing.value,
            "1",
            t.number,
            f"share of samples whose first two modalities show the same digit; {protocol}",
        ),
        Metric(
            f"{prefix}/digits",
            agreeing.num_labels,
            "1",
            t.number,
            f"different digits that the classifier sees in the first two modalities; {protocol}",
        ),
    ]
    return (
        metrics + chain_metrics(t.model, prefix, t.number) + _frechet_metrics(prefix, protocol, t.frechet(samples), t)
    )


def conditional(t: TripleTasks, name: str, protocol: str, options: Mapping[str, Any]) -> list[Metric]:
    """Given each of the first two modalities in turn: the accuracy of the other, and distances of both generated.

    Arguments:
        t: The model, and what its samples are compared with by.
        name, protocol, options: One of :func:`protocols`.
    """
    prefix, metrics = f"{t.split}/{name}", []
    predictions, distances = {}, {}
    for index, observed in enumerate(ALIKE):
        drawn = t.model.generate(1, given={observed: t.true[observed]}, generator=t.generator(2 + index), **options)
        images = _clamped({m: x[0] for m, x in drawn.items()})
        seen = t.labels_of(images)
        kept = seen.pop(observed)
        own = float((kept == t.labels.cpu()).double().mean())
        text = f"share of reconstructions of {observed} that show its digit; {protocol}"
        metrics.append(Metric(f"{prefix}/reconstructed/{observed}", own, "1", t.number, text))
        predictions[(observed,)] = {m: seen[m] for m in ALIKE if m != observed}
        for k, by_modality in t.frechet({m: x for m, x in images.items() if m != observed}).items():
            distances.setdefault(k, {}).update({f"{observed}-{m}": v for m, v in by_modality.items()})
        metrics += chain_metrics(t.model, f"{prefix}/{observed}", t.number)
    coherence = conditional_coherence(predictions, t.labels)
    text = f"share whose generated modality of the first two shows the observed one's digit; {protocol}"
    for (given, m), value in coherence.values.items():
        metrics.append(
            Metric(f"{prefix}/coherence/{given[0]}-{m}", value, "1", t.number, f"{text}; {m} given {given[0]}")
        )
    metrics.append(Metric(f"{prefix}/coherence", coherence.mean, "1", t.number, f"{text}; mean of both directions"))
    return metrics + _frechet_metrics(prefix, protocol, distances, t)


def _from_posteriors(t: TripleTasks, data: Mapping[str, Dataset]) -> list[Metric]:
    """Samples of the prior by chains that start at draws of training triples' posteriors, where the digits are.

    Chains from either start have one law once they have mixed. Where they have not, these show what the prior holds
    around the posteriors, and their split R-hat says that they stay there.
    """
    if "start" not in t.model.generation_options:
        return []
    train = data["train"].first(min(t.number, len(data["train"]))).to(t.device).floats().data
    start = t.model.posterior(train).rsample(generator=t.generator(7))
    how = f", chains started at draws of the posteriors of {len(start):,} training triples"
    return unconditional(t, "unconditional-from-posteriors", how, start=start)


def reconstruction(t: TripleTasks) -> list[Metric]:
    """The ceiling of a model's own encoders and decoders: true triples decoded given all three modalities.

    ``<split>/reconstruction/coherence`` is the share of the first two whose digit is seen, and beside it are distances.
    """
    drawn = t.model.generate(1, given=t.true, generator=t.generator(RECONSTRUCTION_STREAM))
    images = _clamped({m: x[0] for m, x in drawn.items()})
    prefix, protocol = f"{t.split}/reconstruction", "every true triple decoded given all three, clipped to [0, 1]"
    seen, true = t.labels_of({m: images[m] for m in ALIKE}), t.labels.cpu()
    share = fmean(float((seen[m] == true).double().mean()) for m in ALIKE)
    text = f"share of the first two modalities that show their digit; {protocol}"
    return [
        Metric(f"{prefix}/coherence", share, "1", t.number, text),
        *_frechet_metrics(prefix, protocol, t.frechet(images), t),
    ]


def truth(t: TripleTasks, data: Mapping[str, Dataset]) -> list[Metric]:
    """The same measures of true images: the classifier's share of agreement, and distances to training images.

    Arguments:
        t: What images are compared with, and by; its model takes no part.
        data: Its split ``"train"`` among others.
    """
    predicted = t.labels_of(t.true)
    agreeing = unconditional_coherence(predicted, modalities=ALIKE).value
    right = fmean(float((predicted[m] == t.labels.cpu()).double().mean()) for m in ALIKE)
    prefix, name = f"{t.split}/true", f"the {t.number:,} true triples"
    metrics = [
        Metric(f"{prefix}/coherence", agreeing, "1", t.number, f"share of {name} whose first two show the same digit"),
        Metric(f"{prefix}/accuracy", right, "1", t.number, f"share of the first two of {name} whose digit is seen"),
    ]
    other = data["train"].first(min(t.number, len(data["train"]))).to(t.device).floats().data
    distances: dict[str, dict[str, float]] = {k: {} for k in t.extractors}
    for m, x in other.items():
        for k, statistics in t.statistics(x).items():
            distances[k][m] = noise_floor(t.reference[m][k], statistics, allow_low_rank=True).value
    return metrics + _frechet_metrics(prefix, f"{name} and as many of training", distances, t)


def _neighbours(t: TripleTasks, data: Mapping[str, Dataset]) -> list[Metric]:
    """Conditional coherence without a prior: the other latents are those of the training triple that is nearest.

    It is what the encoders' latents allow. Where a prior's conditional falls short of it, the prior does not hold the
    dependence that they have. Nothing of a model without posteriors of single modalities.
    """
    if not hasattr(t.model, "unary_posterior"):
        return []
    train = data["train"].first(min(NEIGHBOURS, len(data["train"]))).to(t.device).floats().data
    means = {m: t.model.unary_posterior(m, train[m]).mean for m in ALIKE}
    predictions = {}
    for observed, other in (ALIKE, ALIKE[::-1]):
        z = t.model.unary_posterior(observed, t.true[observed]).mean
        nearest = torch.cdist(z, means[observed]).argmin(1)
        predictions[(observed,)] = t.labels_of(_clamped(t.model.decode({other: means[other][nearest]})))
    value = conditional_coherence(predictions, t.labels).mean
    text = (
        f"share as in conditional coherence, latents of the unobserved one taken from that of {len(train['m0']):,} "
        "training triples whose observed latents (posterior means) are nearest; mean of both directions"
    )
    return [Metric(f"{t.split}/neighbour/coherence", value, "1", t.number, text)]


def protocols(model: MultimodalModel) -> list[tuple[str, str, dict[str, Any]]]:
    """Protocols of a model's conditional generation: name in a metric, words, options; the paper's first."""
    text = "given each of the first two modalities of every true triple, one sample, decoder means clipped to [0, 1]"
    if "conditional" in model.generation_options:
        return [
            (
                "conditional",
                f"{text}; the Gaussian of the conditional's mean and covariance (appendix D.2, erratum E4)",
                {"conditional": "matched"},
            ),
            (
                "conditional-exact",
                f"{text}; the generalised hyperbolic conditional (corollary 1, erratum E3)",
                {"conditional": "exact"},
            ),
        ]
    return [("conditional", text, {})]


@torch.no_grad()
def evaluate(model: MultimodalModel, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu") -> list[Metric]:
    """All metrics of a run, named ``<split>/<unconditional|conditional|conditional-exact|true>/<what>``.

    Frechet distances are taken between as many true images of the split as are generated, in every space of features
    that is available: the classifier's, pixels in [0, 1], and Inception's where its weights are there.
    """
    model.to(device).eval()
    t = TripleTasks(model, data, spec, device)
    metrics = unconditional(t) + _from_posteriors(t, data)
    for name, protocol, options in protocols(model):
        metrics += conditional(t, name, protocol, options)
    return metrics + truth(t, data) + (_neighbours(t, data) if t.split == "test" else [])


@torch.no_grad()
def figure_samples(model: MultimodalModel, spec: RunSpec, device: str = "cpu") -> dict[str, Tensor]:
    """Bytes of the images: ten joint samples, and the first test triple of each digit with what is made given it.

    Keys are ``prior.<modality>``, ``true.<modality>`` and ``<observed>.<modality>``, each ``(10, 28, 28)``.
    """
    if spec.params["evaluation"]["split"] != "test":
        return {}
    test = datasets.load_dataset(spec.dataset, split="test", alike=reading(spec))
    rows = [int((test.labels == digit).nonzero()[0]) for digit in range(SHOWN)]
    true = {m: x[rows].to(device) for m, x in test.data.items()}
    seed = spec.params["evaluation"]["seed"]

    def generator(stream: int) -> torch.Generator:
        return torch.Generator(device).manual_seed(1000 * seed + stream)

    def as_bytes(samples: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {m: (x.clamp(0.0, 1.0) * 255).round().to(torch.uint8).reshape(-1, 28, 28) for m, x in samples.items()}

    _, _, options = protocols(model)[0]
    found = {f"true.{m}": x.reshape(-1, 28, 28) for m, x in true.items()}
    found |= {f"prior.{m}": x for m, x in as_bytes(model.generate(SHOWN, generator=generator(11))).items()}
    for index, observed in enumerate(ALIKE):
        given = {observed: true[observed].float() / 255.0}
        drawn = model.generate(1, given=given, generator=generator(12 + index), **options)
        found |= {f"{observed}.{m}": x for m, x in as_bytes({m: x[0] for m, x in drawn.items()}).items()}
    return found
