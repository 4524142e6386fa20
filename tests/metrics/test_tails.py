"""Tail dependence against closed forms, counting, random breaks of ties, and the noise of true samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from repro.metrics.tails import CORNERS, MIN_TAIL, PairwiseTails, pairwise_tail_dependence, tail_dependence, tail_error
from repro.metrics.transport import noise_floor

Samples = dict[str, torch.Tensor]


def gaussian(n: int, rho: float, seed: int) -> torch.Tensor:
    """Pairs of correlation rho, (n, 2)."""
    z = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.stack([z[:, 0], rho * z[:, 0] + math.sqrt(1 - rho**2) * z[:, 1]], 1)


def sample(n: int, seed: int, rho: float = 0.7) -> Samples:
    """Three modalities of two coordinates, uniform, with one Gaussian factor."""
    g = torch.Generator().manual_seed(seed)
    z = math.sqrt(rho) * torch.randn(n, 1, 2, generator=g) + math.sqrt(1 - rho) * torch.randn(n, 3, 2, generator=g)
    return {name: torch.special.ndtr(z[:, k].double()) for k, name in enumerate("abc")}


def corner(values: dict[str, float]) -> list[float]:
    return [values[c] for c in CORNERS]


@pytest.mark.parametrize("level", [0.9, 0.99])
def test_independent_variables_have_one_minus_the_level(level: float) -> None:
    n = 100_000
    found = corner(tail_dependence(*gaussian(n, 0.0, 0).T, level))
    p = 1 - level
    # A share k / N of k draws without replacement.
    assert found == pytest.approx([p] * 4, abs=4 * math.sqrt(p * (1 - p) / (p * n)))


def test_monotone_variables() -> None:
    x = torch.randn(500, generator=torch.Generator().manual_seed(0))
    assert corner(tail_dependence(x, x.exp())) == [1.0, 1.0, 0.0, 0.0]
    assert corner(tail_dependence(x, -x)) == [0.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("rho", [0.5, 0.9, -0.7])
def test_gaussian_copula(rho: float, level: float) -> None:
    n, p = 200_000, 1 - level
    z = stats.norm.ppf(p)
    same, crossed = (
        float(stats.multivariate_normal.cdf([z, z], cov=[[1, r], [r, 1]], abseps=1e-10)) / p for r in (rho, -rho)
    )
    found = corner(tail_dependence(*gaussian(n, rho, 1).T, level))
    for value, expected in zip(found, (same, same, crossed, crossed), strict=True):
        assert value == pytest.approx(expected, abs=4 * math.sqrt(expected / (p * n)) + 1e-4)


def test_small_sample_by_counting() -> None:
    x, y = gaussian(73, 0.6, 2).T
    k = 24  # the whole number under 0.33 * 73 = 24.09
    high_x, high_y = set(x.argsort()[-k:].tolist()), set(y.argsort()[-k:].tolist())
    low_x, low_y = set(x.argsort()[:k].tolist()), set(y.argsort()[:k].tolist())
    expected = [len(a & b) / k for a, b in ((high_x, high_y), (low_x, low_y), (high_x, low_y), (low_x, high_y))]
    assert corner(tail_dependence(x, y, 0.67)) == pytest.approx(expected, abs=1e-12)


def test_symmetries() -> None:
    def found(x: torch.Tensor, y: torch.Tensor) -> list[float]:
        return corner(tail_dependence(x, y, 0.8))

    x, y = gaussian(2000, 0.2, 3).T
    upper, lower, upper_lower, lower_upper = found(x, y)
    assert len({upper, lower, upper_lower, lower_upper}) == 4
    assert found(torch.expm1(x), y**3) == [upper, lower, upper_lower, lower_upper]
    assert found(y, x) == [upper, lower, lower_upper, upper_lower]
    assert found(x, -y) == [upper_lower, lower_upper, upper, lower]
    assert found(-x, -y) == [lower, upper, lower_upper, upper_lower]


def test_ties_are_the_mean_over_random_orders() -> None:
    x, y = gaussian(400, 0.8, 4).T.clamp(-1.0, 1.0)
    assert int((x == 1.0).sum()) > 40
    found = corner(tail_dependence(x, y, 0.9))
    g = torch.Generator().manual_seed(5)
    noise = 1e-6 * torch.randn(500, 2, 400, generator=g, dtype=torch.float64)
    broken = np.array([corner(tail_dependence(x + a, y + b, 0.9)) for a, b in noise])
    assert np.all(np.abs(broken.mean(0) - found) <= 4 * broken.std(0) / math.sqrt(500) + 1e-12)
    assert broken.std(0)[0] > 0.01


def test_a_constant_is_independent() -> None:
    x = torch.linspace(0, 1, 1000)
    assert corner(tail_dependence(torch.zeros(1000), x)) == pytest.approx([0.05] * 4)
    assert corner(tail_dependence(torch.zeros(1000), torch.ones(1000))) == pytest.approx([0.05] * 4)


def test_pairs_and_means() -> None:
    x = sample(3000, 6)
    found = pairwise_tail_dependence({m: v.float().requires_grad_() for m, v in x.items()}, level=0.9)
    assert (found.level, found.num_tail, found.num_samples) == (0.9, 300, 3000)
    assert list(found.values) == [(i, j, c) for c in (0, 1) for i, j in (("a", "b"), ("a", "c"), ("b", "c"))]
    for (i, j, c), value in found.values.items():
        assert value == tail_dependence(x[i][:, c].float(), x[j][:, c].float(), 0.9)
    toy = PairwiseTails(
        {
            ("a", "b", 0): dict(zip(CORNERS, (1.0, 2.0, 3.0, 4.0), strict=True)),
            ("a", "c", 0): dict(zip(CORNERS, (3.0, 2.0, 5.0, 4.0), strict=True)),
            ("a", "b", 1): dict(zip(CORNERS, (8.0, 0.0, 0.0, 0.0), strict=True)),
        },
        0.95, 20, 400,
    )  # fmt: skip
    assert (toy.corner("upper"), toy.corner("upper", 0), toy.corner("upper_lower", 1)) == (4.0, 2.0, 0.0)
    assert (toy.dimension(0), toy.dimension(1)) == (3.0, 2.0)
    assert toy.mean == pytest.approx(32 / 12)
    with pytest.raises(ValueError, match="no corner 'middle'; there are upper, lower"):
        toy.corner("middle")
    with pytest.raises(ValueError, match=r"no coordinate 2; there are \[0, 1\]"):
        toy.dimension(2)


@pytest.mark.parametrize("marginals", ["true", "own"])
def test_error_is_the_difference_of_coefficients(marginals: str) -> None:
    true, other = sample(2000, 7), sample(2000, 8, rho=0.2)
    same = tail_error(true, {m: x.clone() for m, x in true.items()}, marginals=marginals)
    assert same.mean == 0.0
    found = tail_error(true, other, marginals=marginals)
    for (i, j, c), value in found.values.items():
        a, b, u, v = (s[m][:, c].numpy() for s in (true, other) for m in (i, j))
        bounds = (a, b) if marginals == "true" else (u, v)
        high, low = ([np.sort(x)[n] for x in bounds] for n in (-100, 99))
        beyond = [np.sum((u >= high[0]) & (v >= high[1])), np.sum((u <= low[0]) & (v <= low[1]))]
        beyond += [np.sum((u >= high[0]) & (v <= low[1])), np.sum((u <= low[0]) & (v >= high[1]))]
        expected = tail_dependence(true[i][:, c], true[j][:, c])
        for name, count in zip(CORNERS, beyond, strict=True):
            assert value[name] == pytest.approx(abs(count / 100 - expected[name]), abs=1e-12)


def test_a_marginal_that_misses_the_tail_counts() -> None:
    true = sample(2000, 9)
    squeezed = {m: 0.5 + 0.5 * (x - 0.5) for m, x in true.items()}
    assert tail_error(true, squeezed, marginals="own").mean == 0.0
    missed = tail_error(true, squeezed, marginals="true")
    assert missed.values == pairwise_tail_dependence(true).values
    # The logit times 4 puts more than the share of 0.05 beyond the true quantiles: too much in each tail.
    wide = {m: torch.sigmoid(4 * torch.logit(x)) for m, x in true.items()}
    beyond = tail_error(true, wide, marginals="true")
    assert beyond.corner("upper") > 1.0
    assert beyond.corner("lower") > 1.0
    assert tail_error(true, wide, marginals="own").mean == 0.0


def test_noise_floor_and_a_wrong_dependence() -> None:
    true, second, wrong = sample(10_000, 10), sample(10_000, 11), sample(10_000, 12, rho=0.5)
    for marginals in ("true", "own"):
        floor = noise_floor(tail_error, true, second, level=0.95, marginals=marginals)
        assert floor == tail_error(true, second, marginals=marginals)
        assert 0.0 < floor.corner("upper") < 0.06
        assert tail_error(true, wrong, marginals=marginals).corner("upper") > 0.08


@pytest.mark.parametrize("rho", [0.0, 0.7, 0.95])
def test_standard_errors_are_those_stated(rho: float) -> None:
    runs, n, k = 250, 1000, 50
    first, second = ([{"x": z[:, :1], "y": z[:, 1:]} for z in gaussian(runs * n, rho, s).split(n)] for s in (13, 14))
    values = np.array([pairwise_tail_dependence(s).corner("upper") for s in first])
    mean = values.mean()
    scatter = 1 + 4 / math.sqrt(2 * runs)  # of a standard deviation from so many runs
    assert values.std() < math.sqrt(mean * (1 - mean) / k) * scatter
    stated = math.sqrt(mean * (1 - mean) * (1 - mean / 2) / k)
    assert stated / scatter / 1.05 < values.std() < stated * scatter * 1.05
    for marginals, expected in (("true", math.sqrt(2 * mean * (1 - 0.05 * mean) / k)), ("own", math.sqrt(2) * stated)):
        errors = np.array(
            [tail_error(a, b, marginals=marginals).corner("upper") for a, b in zip(first, second, strict=True)]
        )
        assert errors.mean() == pytest.approx(0.8 * expected, rel=4 * 0.6 / 0.8 / math.sqrt(runs) + 0.05)


@pytest.mark.parametrize("level", [0.5, 1.0, -0.1, 95, math.nan, math.inf, "0.95", True, None])
def test_wrong_level(level: object) -> None:
    x = torch.rand(1000)
    with pytest.raises(ValueError, match=r"level is .*, must be a number in \(0.5, 1\)"):
        tail_dependence(x, x, level)


@pytest.mark.parametrize(("level", "needed"), [(0.95, 400), (0.99, 2000), (0.9, 200), (0.97, 667)])
def test_too_few_samples_say_how_many_are_needed(level: float, needed: int) -> None:
    x = torch.rand(needed, 2, generator=torch.Generator().manual_seed(0))
    assert pairwise_tail_dependence({"a": x, "b": x}, level=level).num_tail == MIN_TAIL == 20
    message = f"19 of {needed - 1} samples lie beyond level {level}; at least 20 must, which takes {needed} samples"
    with pytest.raises(ValueError, match=message):
        tail_dependence(x[1:, 0], x[1:, 1], level)


def test_wrong_samples() -> None:
    x = torch.rand(1000, 2)
    good = {"a": x, "b": x}
    with pytest.raises(ValueError, match=r"x has shape \(1000,\) and y \(999,\)"):
        tail_dependence(x[:, 0], x[1:, 1])
    with pytest.raises(ValueError, match=r"x has shape \(1000, 2\)"):
        tail_dependence(x, x)
    with pytest.raises(ValueError, match="modality 'y' of samples has values that are not finite"):
        tail_dependence(x[:, 0], torch.full((1000,), math.inf))
    with pytest.raises(ValueError, match="modality 'b' of generated has values that are not finite"):
        tail_error(good, {"a": x, "b": torch.full((1000, 2), math.nan)})
    with pytest.raises(ValueError, match=r"generated has modalities \['b', 'a'\]"):
        tail_error(good, {"b": x, "a": x})
    with pytest.raises(ValueError, match="at least two modalities"):
        pairwise_tail_dependence({"a": x})
    with pytest.raises(ValueError, match=r"'b' of samples has shape \(999, 2\), expected \(1000, 2\)"):
        pairwise_tail_dependence({"a": x, "b": x[1:]})
    with pytest.raises(ValueError, match=r"'a' of true has shape \(1000,\), expected \(N, D\)"):
        tail_error({"a": x[:, 0], "b": x[:, 0]}, good)
    with pytest.raises(ValueError, match=r"generated have shape \(900, 2\), expected that of true, \(1000, 2\)"):
        tail_error(good, {m: v[:900] for m, v in good.items()})
    with pytest.raises(ValueError, match="marginals is 'both', must be 'true' or 'own'"):
        tail_error(good, good, marginals="both")
