"""The energy score: a closed form, what it prefers, and that the number of samples does not bias it."""

from __future__ import annotations

from math import pi, sqrt

import pytest
import torch

from repro.metrics.energy import energy_score


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_of_one_dimension_it_is_the_ranked_probability_score() -> None:
    """Of a standard normal prediction at y = 0 it is 2 φ(0) - 1 / √π."""
    draws = torch.randn(2000, 20, 1, generator=generator())
    found = energy_score(draws, torch.zeros(20, 1))
    expected = 2 / sqrt(2 * pi) - 1 / sqrt(pi)
    assert found.shape == (20,)
    # One sample's error has a deviation of about 0.3 / √2000 and the twenty are independent.
    assert float(found.mean()) == pytest.approx(expected, abs=5 * 0.3 / sqrt(2000 * 20))


def test_two_samples_by_hand() -> None:
    samples = torch.tensor([[[0.0, 0.0]], [[6.0, 8.0]]])
    assert float(energy_score(samples, torch.tensor([[3.0, 4.0]]))) == pytest.approx(5.0 - 10.0 / 2)
    images = samples.reshape(2, 1, 1, 2)
    assert torch.equal(energy_score(images, torch.tensor([[[3.0, 4.0]]])), torch.zeros(1, dtype=torch.float64))


def test_the_true_distribution_is_preferred() -> None:
    """To its mean without spread, to a wider one, and to one of another mean."""
    n, d = 4000, 20
    true = torch.randn(n, d, generator=generator(1))
    draws = torch.randn(16, n, d, generator=generator(2))
    scores = {
        name: float(energy_score(x, true).mean())
        for name, x in {"true": draws, "mean": 0 * draws, "wide": 1.5 * draws, "shifted": draws + 0.3}.items()
    }
    assert min(scores, key=scores.__getitem__) == "true"


def test_the_number_of_samples_does_not_bias_it() -> None:
    n = 20_000
    true = torch.randn(n, 3, generator=generator(1))
    few, many = (energy_score(torch.randn(k, n, 3, generator=generator(2)), true) for k in (2, 8))
    error = sqrt(float(few.var() + many.var()) / n)
    assert float(few.mean()) == pytest.approx(float(many.mean()), abs=5 * error)


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match=r"samples \(4, 3, 2\) must be"):
        energy_score(torch.zeros(4, 3, 2), torch.zeros(2, 2))
    with pytest.raises(ValueError, match="1 sample has no spread; needs at least 2"):
        energy_score(torch.zeros(1, 3, 2), torch.zeros(3, 2))
