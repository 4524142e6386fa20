"""What is no tensor is named by its argument, in every metric that takes tensors alone."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import repro.metrics
from repro.metrics import (
    bikes,
    calibration,
    coherence,
    correlation,
    energy,
    frechet,
    likelihood,
    mmd,
    ssim,
    tails,
    transport,
)

X = torch.rand(60, 3, generator=torch.Generator().manual_seed(0))
IMAGES = X.flatten()[:98].expand(2, 98).reshape(2, 1, 7, 14).tile(1, 1, 2, 1)
SAMPLES = {"a": X, "b": X.flip(0)}
LABELS = {"a": torch.arange(6), "b": torch.arange(6).flip(0)}

# Each takes one argument, what lies at its metric's first place or at the place that is left open.
METRICS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "centres_of_mass": (bikes.centres_of_mass, IMAGES),
    "centre_distance": (partial(bikes.centre_distance, {"a": IMAGES}), {"a": IMAGES}),
    "joint_centre_distance": (partial(bikes.joint_centre_distance, {"a": IMAGES}), {"a": IMAGES}),
    "interval_coverage": (lambda x: calibration.interval_coverage(X.expand(40, 60, 3), x), X),
    "classify": (partial(coherence.classify, {"a": lambda x: x.flatten(1)[:, :4]}), {"a": IMAGES}),
    "unconditional_coherence": (coherence.unconditional_coherence, LABELS),
    "agreement_curve": (coherence.agreement_curve, LABELS),
    "conditional_coherence": (
        lambda x: coherence.conditional_coherence({("c",): x}, torch.arange(6)),
        LABELS,
    ),
    "canonical_correlations": (partial(correlation.canonical_correlations, X), X.flip(0)),
    "cca_loss": (partial(correlation.cca_loss, X), X.flip(0)),
    "fit_canonical_map": (partial(correlation.fit_canonical_map, X), X.flip(0)),
    "distance_correlation": (partial(correlation.distance_correlation, X), X.flip(0)),
    "distance_correlation_unbiased": (partial(correlation.distance_correlation_unbiased, X), X.flip(0)),
    "participation_ratio": (correlation.participation_ratio, torch.eye(3)),
    "energy_score": (partial(energy.energy_score, X.expand(4, 60, 3)), X),
    "feature_statistics": (lambda x: frechet.feature_statistics(x, "features"), X),
    "batch_statistics": (lambda x: frechet.batch_statistics(lambda batch: batch, [x], "features"), X),
    "pixel_features": (frechet.pixel_features, IMAGES),
    "gaussian_log_prob": (lambda x: likelihood.gaussian_log_prob(x, X, 1.0), X),
    "laplace_log_prob": (lambda x: likelihood.laplace_log_prob(x, X, 1.0), X),
    "mixture_log_prob": (lambda x: likelihood.mixture_log_prob(x, X[None], X[None] + 1), X[None]),
    "rbf_kernel": (lambda x: mmd.rbf_kernel(X, x, 1.0), X),
    "median_bandwidth": (partial(mmd.median_bandwidth, X), X),
    "mmd_squared": (partial(mmd.mmd_squared, X), X),
    "structural_similarity": (partial(ssim.structural_similarity, IMAGES), IMAGES),
    "tail_dependence": (lambda x: tails.tail_dependence(X[:, 0], x, 0.6), X[:, 1]),
    "pairwise_tail_dependence": (partial(tails.pairwise_tail_dependence, level=0.6), SAMPLES),
    "tail_error": (partial(tails.tail_error, SAMPLES, level=0.6), SAMPLES),
    "histogram_value_wasserstein": (partial(transport.histogram_value_wasserstein, SAMPLES), SAMPLES),
    "optimal_transport": (partial(transport.optimal_transport, SAMPLES), SAMPLES),
    "sliced_wasserstein": (partial(transport.sliced_wasserstein, SAMPLES), SAMPLES),
    "noise_floor": (
        partial(transport.noise_floor, transport.sliced_wasserstein, {"a": X + 1, "b": X + 2}),
        SAMPLES,
    ),
}
# They take statistics, arrays too, or functions that give tensors.
OTHERS = {"frechet_distance", "inception_features", "load_inception", "importance_weighted"}
OTHERS |= {"stratified_importance_weighted", "class_scores", "fit_classifier", "score_classifier"}
OTHERS |= {"mean_absolute_error", "constant_features", "spearman_per_feature", "optional_inception"}


def test_every_metric_is_here() -> None:
    found = set()
    for info in pkgutil.iter_modules(repro.metrics.__path__):
        module = importlib.import_module(f"repro.metrics.{info.name}")
        for name in module.__all__:
            member = getattr(module, name)
            if inspect.isfunction(member) and any(t in str(inspect.signature(member)) for t in ("Tensor", "Samples")):
                found.add(name)
    assert found - OTHERS == set(METRICS)


@pytest.mark.parametrize("name", METRICS)
def test_what_is_no_tensor_is_named(name: str) -> None:
    metric, sound = METRICS[name]
    metric(sound)
    if isinstance(sound, dict):
        arrays = {m: x.numpy() for m, x in sound.items()}
        with pytest.raises(ValueError, match=r"^modality 'a' of .* is a ndarray, must be a tensor$"):
            metric(arrays)
        for wrong in (next(iter(sound.values())), None, [1.0]):
            kind = type(wrong).__name__
            with pytest.raises(ValueError, match=f" is a {kind}, must be a mapping from each modality's name$"):
                metric(wrong)
        return
    for wrong in (sound.numpy(), None, sound.tolist()):
        with pytest.raises(ValueError, match=rf" is a {type(wrong).__name__}, must be a tensor$"):
            metric(wrong)


def test_a_frechet_distance_takes_statistics() -> None:
    sound = frechet.feature_statistics(X, "features")
    for arguments in ((X, sound), (sound, np.zeros((4, 3)))):
        with pytest.raises(ValueError, match=r"takes FeatureStatistics, got a (Tensor|ndarray)$"):
            frechet.frechet_distance(*arguments)
        with pytest.raises(ValueError, match="takes FeatureStatistics"):
            frechet.noise_floor(*arguments)


def test_what_was_generated_is_by_what_is_observed() -> None:
    with pytest.raises(ValueError, match=r"^predictions are a list, must be a mapping from what is observed$"):
        coherence.conditional_coherence([LABELS], torch.arange(6))
