"""Every metric on a second device: what is measured on a GPU is what is measured on the CPU.

On the pretended device of :mod:`tests.support.pretend` in CI, and marked ``cuda`` on a GPU where there is one. Every
public function of ``repro.metrics`` that takes tensors has a call here; samples and truth lie on the device, and where
a metric takes the two from different devices, on both. :data:`FAULTS` puts faults back, one at a time.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import repro.metrics
from repro.metrics import (
    bikes,
    calibration,
    clustering,
    coherence,
    correlation,
    energy,
    frechet,
    inception,
    likelihood,
    mmd,
    omics,
    ssim,
    tails,
    transport,
)
from repro.networks.classifiers import ARCHITECTURES, digit_classifier
from tests.support.pretend import MixedDevicesError, devices, pretend, pretending

Samples = dict[str, Tensor]


def drawn(seed: int, *shape: int, number: int = 2) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.rand(*shape, generator=g) for _ in range(number)]


def pairs(place: str, other: str | None = None, number: int = 400) -> tuple[Samples, Samples]:
    """Samples of three modalities of two coordinates, of which the first depend on one another."""
    found = []
    for seed, where in ((1, place), (2, other or place)):
        a, b, c = drawn(seed, number, 2, number=3)
        found.append({m: x.to(where) for m, x in {"a": a, "b": 0.7 * a + 0.3 * b, "c": c}.items()})
    return found[0], found[1]


def features(place: str, number: int = 60) -> tuple[Tensor, Tensor]:
    x, noise = drawn(3, number, 4)
    return x.to(place), (x[:, :3] + 0.5 * noise[:, :3]).to(place)


def pictures(place: str, other: str | None = None, channels: int = 1) -> tuple[Tensor, Tensor]:
    x, y = drawn(4, 12, channels, 28, 28)
    return x.to(place), y.to(other or place)


def labels(place: str) -> Samples:
    g = torch.Generator().manual_seed(5)
    return {m: torch.randint(3, (50,), generator=g).to(place) for m in "abc"}


def inked(place: str) -> tuple[Samples, Samples]:
    x, y = pictures(place)
    return {"wheel": x, "frame": y}, {"wheel": y, "frame": x}


def statistics(place: str, number: int = 40) -> frechet.FeatureStatistics:
    parts = drawn(6, number, 8)[0].to(place).split(7)
    return frechet.batch_statistics(lambda x: 2 * x, parts, "doubled")


def distance(place: str, other: str, number: int = 40) -> Any:
    shifted = frechet.feature_statistics(drawn(7, number, 8)[0].to(other), "doubled")
    return frechet.frechet_distance(statistics(place, number), shifted, allow_low_rank=number < 9)


class Pooled(nn.Module):
    """As small as a network of Inception's kind can be: bytes to a tuple of features."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([1.0, 0.5, 0.25]) / 255)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Means of the channels."""
        return (self.scale * images.to(self.scale).mean((2, 3)),)


def classified(place: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ARCHITECTURES:
        torch.manual_seed(0)
        network = digit_classifier(name).to(place).eval()
        x = pictures(place, channels=network.shape[0])[0]
        with torch.no_grad():
            found |= {f"{name} features": network.features(x), f"{name} logits": network(x)}
        found[name] = coherence.classify({"m": network}, {"m": x}, batch_size=5)["m"]
    return found


def fitted(place: str) -> Any:
    z, y = features(place)[0], (features("cpu")[0][:, 0] > 0.5).long().to(place)
    return clustering.score_classifier(clustering.fit_classifier(z, y), z, y)


def canonical(place: str) -> Any:
    x, y = features(place)
    found = correlation.fit_canonical_map(x[:40], y[:40])
    return [found.correlations(x[40:], y[40:]), found.fitted]


def weighted(place: str) -> list[Tensor]:
    x, y = features(place)
    weight = lambda k: torch.stack([x.sum(1) * (i + 1) for i in range(k)])  # noqa: E731
    return [
        likelihood.importance_weighted(weight, 5, chunk_size=2),
        likelihood.stratified_importance_weighted([weight, weight], 5),
        likelihood.gaussian_log_prob(x[:, :3], y, 0.5),
        likelihood.laplace_log_prob(x[:, :3], y, 0.1 + y),
        likelihood.mixture_log_prob(x[None], x[None], 0.1 + x[None]),
    ]


def frechet_options(place: str) -> list[Any]:
    x, y = (frechet.pixel_features(x, "byte")[:, :6] for x in pictures(place))
    a, b = (frechet.feature_statistics(v, frechet.pixel_feature_name("byte")) for v in (x, y))
    return [frechet.noise_floor(a, b), a.covariance, a.merge(b).mean]


def with_labels_of_the_cpu(place: str) -> Any:
    predicted = {("a",): {"b": labels(place)["b"]}, ("a", "c"): {"b": labels(place)["c"]}}
    return coherence.conditional_coherence(predicted, labels("cpu")["a"])


# What is measured, by the functions that it calls: from where samples lie, and where the truth lies, to the values.
METRICS: dict[str, Callable[[str, str], Any]] = {
    "bikes.centre_distance": lambda d, _: bikes.centre_distance(*inked(d)),
    "bikes.joint_centre_distance": lambda d, _: bikes.joint_centre_distance(*inked(d)),
    "bikes.centres_of_mass": lambda d, _: bikes.centres_of_mass(pictures(d)[0]),
    "calibration.interval_coverage": lambda d, _: calibration.interval_coverage(
        drawn(8, 99, 20, 2)[0].to(d), drawn(9, 20, 2)[0].to(d)
    ),
    "energy.energy_score": lambda d, _: energy.energy_score(drawn(8, 9, 20, 2)[0].to(d), drawn(9, 20, 2)[0].to(d)),
    "clustering.fit_classifier clustering.score_classifier": lambda d, _: fitted(d),
    "coherence.classify": lambda d, _: classified(d),
    "coherence.unconditional_coherence": lambda d, _: coherence.unconditional_coherence(labels(d)),
    "coherence.agreement_curve": lambda d, _: coherence.agreement_curve(labels(d)),
    "coherence.conditional_coherence": lambda d, _: with_labels_of_the_cpu(d),
    "correlation.canonical_correlations": lambda d, _: correlation.canonical_correlations(*features(d)),
    "correlation.cca_loss": lambda d, _: correlation.cca_loss(*features(d)),
    "correlation.fit_canonical_map": lambda d, _: canonical(d),
    "correlation.distance_correlation": lambda d, _: correlation.distance_correlation(*features(d)),
    "correlation.distance_correlation_unbiased": lambda d, _: correlation.distance_correlation_unbiased(*features(d)),
    "correlation.participation_ratio": lambda d, _: correlation.participation_ratio(features(d)[0].T.cov()),
    "frechet.frechet_distance frechet.batch_statistics": lambda d, o: distance(d, o),
    "frechet.frechet_distance of thin factors": lambda d, o: distance(d, o, 6),
    "frechet.noise_floor frechet.feature_statistics frechet.pixel_features": lambda d, _: frechet_options(d),
    "inception.InceptionFeatures": lambda d, o: inception.InceptionFeatures(Pooled().to(d), "pooled")(pictures(o)[0]),
    "likelihood.importance_weighted likelihood.stratified_importance_weighted likelihood.gaussian_log_prob"
    " likelihood.laplace_log_prob likelihood.mixture_log_prob": lambda d, _: weighted(d),
    "mmd.mmd_squared mmd.median_bandwidth": lambda d, _: mmd.mmd_squared(features(d)[0], features(d)[0] ** 2),
    "mmd.mmd_squared mmd.rbf_kernel": lambda d, _: mmd.mmd_squared(
        features(d)[0], features(d)[0] ** 2, bandwidth=0.5, unbiased=False
    ),
    "omics.mean_absolute_error": lambda d, o: omics.mean_absolute_error(features(d)[0], features(o)[0] ** 2),
    "omics.spearman_per_feature": lambda d, o: omics.spearman_per_feature(features(d)[0][:, :3], features(o)[1]),
    "omics.constant_features": lambda d, _: omics.constant_features(features(d)[0]),
    "ssim.structural_similarity": lambda d, o: ssim.structural_similarity(*pictures(d, o), batch_size=5),
    "ssim.structural_similarity of bytes": lambda d, o: ssim.structural_similarity(
        *pictures(d, o, 3), reading="byte", border="reflect"
    ),
    "tails.tail_dependence": lambda d, _: tails.tail_dependence(*(x[:, 0] for x in list(pairs(d)[0].values())[:2])),
    "tails.pairwise_tail_dependence": lambda d, _: tails.pairwise_tail_dependence(pairs(d)[0]),
    "tails.tail_error": lambda d, o: tails.tail_error(*pairs(d, o)),
    "transport.histogram_value_wasserstein": lambda d, o: transport.histogram_value_wasserstein(*pairs(d, o)),
    "transport.optimal_transport": lambda d, o: transport.optimal_transport(*pairs(d, o), num_samples=50),
    "transport.sliced_wasserstein": lambda d, o: transport.sliced_wasserstein(*pairs(d, o)),
    "transport.noise_floor": lambda d, _: transport.noise_floor(transport.sliced_wasserstein, *pairs(d)),
}
# Functions without tensors, or that read files.
OTHERS = {"clustering.class_scores", "frechet.pixel_feature_name", "inception.inception_features"}
OTHERS |= {f"inception.{n}" for n in ("load_inception", "optional_inception", "unavailable_reason", "weights_path")}
OTHERS |= {"arguments.check_samples", "arguments.check_tensors"}  # which look at types alone


@pytest.fixture(params=[pytest.param(d, marks=pytest.mark.cuda) if d == "cuda" else d for d in devices()])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """The pretended device, and a GPU where there is one."""
    with pretending() if request.param == pretend() else nullcontext():
        yield request.param


def values(found: Any) -> dict[str, np.ndarray]:
    """All numbers of a result, by where they stand."""
    if isinstance(found, Tensor):
        return {"": found.detach().cpu().double().numpy()}
    if isinstance(found, int | float | np.ndarray | np.generic):
        return {"": np.asarray(found, dtype=np.float64)}
    if isinstance(found, str | None):
        return {}
    if is_dataclass(found):
        found = {f.name: getattr(found, f.name) for f in fields(found)}
    items = found.items() if isinstance(found, Mapping) else enumerate(found)
    return {f"{name}.{inner}": x for name, part in items for inner, x in values(part).items()}


def assert_same(found: Any, expected: Any, device: str) -> None:
    a, b = values(found), values(expected)
    assert list(a) == list(b)
    assert b
    least = 1e-6 if device == pretend() else 1e-4
    for name in b:
        np.testing.assert_allclose(a[name], b[name], rtol=least, atol=least, err_msg=name)


def test_every_metric_has_a_call() -> None:
    called = {name for key in METRICS for name in key.split() if "." in name} | OTHERS
    for module in pkgutil.iter_modules(repro.metrics.__path__):
        found = importlib.import_module(f"repro.metrics.{module.name}")
        for name in found.__all__:
            if inspect.isfunction(getattr(found, name)):
                assert f"{module.name}.{name}" in called


@pytest.mark.parametrize("name", METRICS)
def test_metrics_on_a_device(name: str, device: str) -> None:
    assert_same(METRICS[name](device, device), METRICS[name]("cpu", "cpu"), device)


@pytest.mark.parametrize("name", METRICS)
def test_metrics_of_samples_on_a_device_against_a_truth_on_the_cpu(name: str, device: str) -> None:
    assert_same(METRICS[name](device, "cpu"), METRICS[name]("cpu", "cpu"), device)


def without_the_device(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *args, device=None, **options: make(*args, **options)


def left_where_it_is(x: Tensor, *where: Any) -> Tensor:
    return x


# A fault, how it is put back, the metric that fails on it, and how.
FAULTS: dict[str, tuple[str, Any, str, type[Exception] | tuple[type[Exception], ...]]] = {
    "positions of pixels made on the CPU": (
        "repro.metrics.bikes.torch.arange",
        without_the_device(torch.arange),
        "bikes.centres_of_mass",
        MixedDevicesError,
    ),
    "an identity made on the CPU": (
        "repro.metrics.correlation.torch.eye",
        without_the_device(torch.eye),
        "correlation.distance_correlation_unbiased",
        MixedDevicesError,
    ),
    "labels that are not fetched": (
        "repro.metrics.clustering._classes",
        np.asarray,
        "clustering.fit_classifier clustering.score_classifier",
        (RuntimeError, TypeError),
    ),
    "sorting by NumPy on whatever device": (
        "repro.metrics.transport._sorted",
        lambda x: torch.from_numpy(np.sort(x.numpy(), axis=-1)),
        "transport.sliced_wasserstein",
        (RuntimeError, TypeError),
    ),
    "latents that are not fetched": (
        "repro.metrics.clustering._numpy",
        lambda z: z.detach().double().numpy(),
        "clustering.fit_classifier clustering.score_classifier",
        (RuntimeError, TypeError),
    ),
    "statistics that stay on two devices": (
        "repro.metrics.frechet._root_trace",
        lambda a, b: float((a.covariance @ b.covariance).trace()),
        "frechet.frechet_distance frechet.batch_statistics",
        MixedDevicesError,
    ),
    "a truth that stays on the CPU": (
        "torch.Tensor.to",
        lambda x, *where, _to=torch.Tensor.to, **options: _to(x, *(w for w in where if isinstance(w, torch.dtype))),
        "ssim.structural_similarity",
        MixedDevicesError,
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_seen(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, wrong, name, error = FAULTS[fault]
    with pretending():
        call = partial(METRICS[name], pretend(), "cpu")
        if name.startswith("ssim"):  # whose samples would stay on the CPU too, were they made after the fault
            call = partial(ssim.structural_similarity, *pictures(pretend(), "cpu"))
        call()
        monkeypatch.setattr(where, wrong)
        with pytest.raises(error):
            call()
