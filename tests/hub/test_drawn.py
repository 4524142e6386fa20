"""Draws of models that ship are as near to the truth as their records say, within the error of 500 samples."""

from __future__ import annotations

import math

import pytest
import torch

from repro.datasets import load_dataset
from repro.hub.load import load_model
from repro.hub.manifest import entries, packaged_files
from repro.metrics.transport import PairwiseDistance, histogram_value_wasserstein

NUMBER = 500
METRIC = "test/unconditional/mean/histogram/mean"
SHIPPED = [n for n, e in entries().items() if packaged_files(e) and e.metric == METRIC]


def mean(distance: PairwiseDistance) -> float:
    return sum(distance.dimension(c) for c in (0, 1)) / 2


@pytest.mark.parametrize("name", SHIPPED)
def test_five_hundred_draws_agree_with_the_record(name: str) -> None:
    true, other = (
        dict(load_dataset("copula", split=split, seed=0, num_samples=NUMBER).data) for split in ("test", "reference")
    )
    # By the triangle inequality a distance of samples is off by those of both samples to what they are drawn from, each
    # of which is that of two independent samples over the square root of 2.
    error = math.sqrt(2) * mean(histogram_value_wasserstein(true, other))
    drawn = load_model(name).generate(NUMBER, generator=torch.Generator().manual_seed(0))
    found = mean(histogram_value_wasserstein(true, {m: x.clamp(0, 1) for m, x in drawn.items()}))
    assert abs(found - entries()[name].value) <= error
    # Where modalities belong to other samples, the distance is more than an error of that size.
    shuffled = {m: x.clamp(0, 1).roll(7 * k, 0) for k, (m, x) in enumerate(drawn.items())}
    assert mean(histogram_value_wasserstein(true, shuffled)) > error
