"""The copula dataset against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from repro.datasets import exact, load_card, load_dataset
from repro.datasets.base import fingerprint
from repro.datasets.copula import correlation

SPLITS = ("train", "validation", "test", "reference")


def scores(dataset, coordinate: int) -> np.ndarray:
    """Gaussian scores of one coordinate of every modality, (N, 4)."""
    x = torch.stack([x[:, coordinate] for x in dataset.data.values()], dim=1)
    return stats.norm.ppf(np.clip(x.double().numpy(), 1e-7, 1 - 1e-7))


@pytest.mark.parametrize("split", SPLITS)
def test_hash_is_the_cards(split: str) -> None:
    dataset = load_dataset("copula", split)
    assert len(dataset) == load_card("copula").splits[split].count == 10_000
    assert fingerprint(dataset.data) == dataset.provenance["sha256"] == load_card("copula").splits[split].sha256
    assert dataset.provenance["source"] == "generated"
    assert (dataset.provenance["seed"], dataset.provenance["stream"]) == (0, split)
    assert all(x.dtype is torch.float32 and x.shape == (10_000, 2) for x in dataset.data.values())


@pytest.mark.parametrize("coordinate", [0, 1])
def test_correlation(coordinate: int) -> None:
    measured = np.corrcoef(scores(load_dataset("copula", "train"), coordinate).T)
    expected = correlation(coordinate + 1)
    # The standard error of a correlation of 0.9 from 10,000 samples is (1 - 0.81) / 100 = 0.0019.
    assert np.abs(measured - expected).max() < 5 * 0.0019
    k, m = np.triu_indices(4, 1)
    negative = (k + m) % 2 == 1 if coordinate == 0 else np.zeros(6, dtype=bool)
    assert np.array_equal(np.sign(measured[k, m]), np.where(negative, -1.0, 1.0))


def test_coordinates_are_independent() -> None:
    dataset = load_dataset("copula", "train")
    cross = np.corrcoef(scores(dataset, 0).T, scores(dataset, 1).T)[:4, 4:]
    assert np.abs(cross).max() < 0.05


@pytest.mark.parametrize("split", SPLITS)
def test_marginals_are_uniform(split: str) -> None:
    for x in load_dataset("copula", split).data.values():
        for coordinate in x.double().numpy().T:
            assert coordinate.min() >= 0.0
            assert coordinate.max() <= 1.0
            assert stats.kstest(coordinate, "uniform").pvalue > 1e-4


def test_streams_are_independent() -> None:
    drawn = [load_dataset("copula", split).data["m0"][:, 0].double().numpy() for split in SPLITS]
    drawn.append(load_dataset("copula", "train", seed=1).data["m0"][:, 0].double().numpy())
    assert np.abs(np.corrcoef(drawn) - np.eye(5)).max() < 0.05


def test_longer_draw_begins_with_the_shorter() -> None:
    long, short = (load_dataset("copula", "train", num_samples=n) for n in (10_007, 10_000))
    assert all(torch.equal(long.data[m][:10_000], short.data[m]) for m in short.data)
    assert len(load_dataset("copula", "test", num_samples=1)) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 0}, "num_samples is 0"),
        ({"num_samples": 2.5}, "num_samples is 2.5"),
        ({"seed": -1}, "seed is -1"),
        ({"sed": 1}, "did you mean seed"),
    ],
)
def test_wrong_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_dataset("copula", "train", **options)


def test_exact_functions_agree_with_scipy() -> None:
    x = np.linspace(-10.0, 10.0, 20_001)
    assert np.abs(exact.normal_cdf(x) - stats.norm.cdf(x)).max() < 1e-14
    z = np.linspace(-50.0, 0.0, 5_001)
    assert np.abs(exact.exp(z) / np.exp(z) - 1.0).max() < 1e-13
    u = exact.uniforms(50_000, 3, "test")
    assert np.abs(exact.log_unit(u) - np.log(u)).max() < 1e-14
    assert stats.kstest(u, "uniform").pvalue > 1e-4
    assert stats.kstest(exact.normals(50_001, 3, "test"), "norm").pvalue > 1e-4


def test_exact_integers() -> None:
    order = exact.permutation(1000, 0, "test")
    assert np.array_equal(np.sort(order), np.arange(1000))
    assert not np.array_equal(order, exact.permutation(1000, 1, "test"))
    drawn = exact.choice_below(7, exact.words(70_000, 0, "test"))
    assert set(np.unique(drawn)) == set(range(7))
    assert stats.chisquare(np.bincount(drawn)).pvalue > 1e-4
