"""Draws of models that ship are as near to the truth as their records say, within the error of 500 samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch

from repro.datasets import load_dataset
from repro.hub.load import load_model
from repro.hub.manifest import entries, packaged_files
from repro.metrics.transport import PairwiseDistance, histogram_value_wasserstein, sliced_wasserstein

NUMBER, MANY = 500, 5000
# Headline metrics that need nothing but draws: the distance, and the range that draws are cut to before it.
DISTANCES: dict[str, tuple[Callable[..., PairwiseDistance], tuple[float, float] | None]] = {
    "test/unconditional/mean/histogram/mean": (histogram_value_wasserstein, (0.0, 1.0)),
    "test/unconditional/mean/sliced": (sliced_wasserstein, None),
}
SHIPPED = [n for n, e in entries().items() if packaged_files(e) and e.metric in DISTANCES]


@pytest.mark.parametrize("name", SHIPPED)
def test_five_hundred_draws_agree_with_the_record(name: str) -> None:
    entry = entries()[name]
    distance, limits = DISTANCES[entry.metric]
    true = dict(load_dataset(name.split("/")[1].split("-")[0], split="test").first(MANY).data)
    model, generator = load_model(name), torch.Generator().manual_seed(0)
    drawn, many = (
        {m: x.clamp(*limits) if limits else x for m, x in model.generate(n, generator=generator).items()}
        for n in (NUMBER, MANY)
    )

    def few(sample: Mapping[str, torch.Tensor], turned: int = 0) -> dict[str, torch.Tensor]:
        """The first of a sample, repeated to as many as there are in the others."""
        return {m: x[:NUMBER].roll(turned * k, 0).repeat(MANY // NUMBER, 1) for k, (m, x) in enumerate(sample.items())}

    # By the triangle inequality the distance of the few is off by that of either side's few to its many.
    error = distance(few(true), true).mean + distance(few(drawn), many).mean
    assert abs(distance(few(true), few(drawn)).mean - entry.value) <= error
    # Where modalities belong to other samples, draws are farther from those of the model.
    assert distance(few(drawn, 7), many).mean > distance(few(drawn), many).mean


def test_all_that_ship_on_the_copulas_are_drawn_from() -> None:
    assert {n for n, e in entries().items() if "copula" in n and packaged_files(e)} == set(SHIPPED)
    assert len(SHIPPED) >= 15
