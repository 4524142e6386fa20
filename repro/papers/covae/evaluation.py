"""What is measured of every run of CoVAE's experiments: likelihoods, and CoVAE's prior."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from math import isfinite

import torch
from torch import Tensor

from repro.datasets import Dataset
from repro.metrics.correlation import canonical_correlations, participation_ratio
from repro.model import MultimodalModel
from repro.papers.covae.likelihoods import posterior_predictive_log_likelihood
from repro.records import Metric

__all__ = ["likelihood_metrics", "null_correlation", "prior_metrics", "whole"]


def whole(data: Dataset, device: str) -> dict[str, Tensor]:
    """All of a split as one batch."""
    return next(iter(data.to(device).batches(len(data), shuffle=False)))


def null_correlation(samples: int, first: int, second: int) -> float:
    """Mean sample canonical correlation of independent standard normal features: the bias at no correlation."""
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(samples, d, generator=g) for d in (first, second))
    return float(canonical_correlations(x, y).mean())


def prior_metrics(model: MultimodalModel, train_samples: int) -> list[Metric]:
    """The prior's correlations, what Deep CCA found and with what bias, and the effective dimension.

    Nothing of a model whose prior has no correlations.
    """
    if not hasattr(model, "fitted_correlations"):
        return []
    sizes = list(model.block_sizes.values())
    held_out = round(model.held_out * train_samples)
    fit = train_samples - held_out
    text = "mean over canonical pairs of the encoders' means"
    values = {
        "prior/correlation": (float(model.prior.correlations().mean()), fit, "mean correlation of the trained prior"),
        "prior/participation-ratio": (
            float(participation_ratio(model.prior().covariance_matrix)),
            1,
            f"(sum of eigenvalues)^2 / sum of their squares, of {sum(sizes)} latents",
        ),
    }
    if model.pretraining != "none":
        values |= {
            "deep-cca/fitted": (float(model.fitted_correlations.mean()), fit, f"{text}, on the samples of the fit"),
            "deep-cca/held-out": (float(model.held_out_correlations.mean()), held_out, f"{text}, on held-out samples"),
            "deep-cca/bias": (
                null_correlation(fit, *sizes[:2]),
                fit,
                "mean sample canonical correlation of as many independent normal features and samples as in the fit",
            ),
        }
    return [Metric(name, value, "1", max(1, n), protocol) for name, (value, n, protocol) in values.items()]


def likelihood_metrics(
    model: MultimodalModel,
    batch: Mapping[str, Tensor],
    number: int,
    device: str,
    seed: int,
    predictive: int | None = None,
    *,
    conditional: bool = True,
    finite: bool = False,
) -> list[Metric]:
    """Joint and conditional negative log-likelihoods, each under the name of its definition.

    Nothing of a model without a likelihood, and no predictive one where p(x | z) is not known.

    Arguments:
        model: A CoVAE or a baseline.
        batch: All modalities.
        number: Importance samples.
        device: Where the model is.
        seed: Seed of the samples.
        predictive: Samples of the predictive likelihoods; as many as importance samples if None.
        conditional: Whether those of each modality given each other one are estimated beside the joint one.
        finite: Whether a model of which some estimate is not finite has none at all: its posterior may be so narrow
            that the density at its own samples is beyond their precision, which makes the finite ones wrong too.

    Raises:
        RecordError: If an estimate is not finite, and that is not to be left out.
    """
    predictive = predictive or number

    def generator(stream: int) -> torch.Generator:
        return torch.Generator(device).manual_seed(1000 * seed + stream)

    def note(name: str, value: float, number: int, protocol: str) -> None:
        if finite and not isfinite(value):
            beyond.append(name)
        else:
            found.append(Metric(name, value, "nats", number, protocol))

    found: list[Metric] = []
    beyond: list[str] = []
    size = len(next(iter(batch.values())))
    text = f"importance-weighted, {number} samples a point, mean over points"
    try:
        joint = -model.log_likelihood(batch, num_importance_samples=number, generator=generator(50)).mean()
    except NotImplementedError:
        return []
    note("test/nll/joint", float(joint), size, f"-ln p(x), {text}")
    if library := getattr(model, "library_nll", None):  # what a baseline's library computes itself
        few = {m: x[:100] for m, x in batch.items()}
        own = library(few, num_importance_samples=100, generator=torch.Generator().manual_seed(seed))
        note("test/nll/joint-multivae", own, len(next(iter(few.values()))), "multivae's own, 100 samples")
        same = -model.log_likelihood(few, num_importance_samples=100, generator=generator(51)).mean()
        note("test/nll/joint-of-those-points", float(same), len(few[next(iter(few))]), f"-ln p(x), {text}")
    for index, (observed, missing) in enumerate(permutations(model.modalities, 2) if conditional else ()):
        x, given = {missing: batch[missing]}, {observed: batch[observed]}
        ratio = -model.log_likelihood(
            x, given=given, num_importance_samples=number, generator=generator(60 + index)
        ).mean()
        name = f"test/nll/{missing}-given-{observed}"
        ratio_text = f"-ln p(x, x_o) + ln p(x_o), each {text}"
        note(f"{name}/ratio", float(ratio), size, ratio_text)
        if not hasattr(model, "likelihood"):
            continue
        density = -posterior_predictive_log_likelihood(
            model, x, given, num_samples=predictive, generator=generator(70 + index)
        ).mean()
        predictive_text = f"-ln of the mean of p(x_m | z) over {predictive} samples of what is inferred from x_o alone"
        note(f"{name}/posterior-predictive", float(density), size, predictive_text)
    return [] if beyond else found
