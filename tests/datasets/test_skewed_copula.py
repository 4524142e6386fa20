"""The skewed copula dataset against its definition, by quadrature over the mixing variable; its card's numbers too."""

from __future__ import annotations

import math
import re
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad
from scipy.special import ndtr, ndtri, owens_t

from repro.datasets import load_card, load_dataset
from repro.datasets.base import fingerprint
from repro.datasets.skewed_copula import marginal_cdf, sample
from repro.metrics.tails import CORNERS, pairwise_tail_dependence, tail_error

SPLITS = ("train", "validation", "test", "reference")
SIGNS = ((1, 1), (-1, -1), (1, -1), (-1, 1))  # of CORNERS: 1 where the variable is high
CONCORDANT, OPPOSED = (1.0, 1.0, 0.5), (1.0, 1.0, -0.5)


def normal_orthant(h: np.ndarray, k: np.ndarray, r: np.ndarray | float) -> np.ndarray:
    """P(X < h, Y < k) of standard normal variables of correlation r, by Owen's T; h and k are not 0."""
    s = np.sqrt(1 - np.square(r))
    t = owens_t(h, (k - r * h) / (h * s)) + owens_t(k, (h - r * k) / (k * s))
    return (ndtr(h) + ndtr(k)) / 2 - t - (h * k < 0) / 2


def quantile(skew: float, p: float) -> float:
    """The p-quantile of AL(m, 1), by scipy's asymmetric Laplace distribution."""
    return float(reference_of(skew).ppf(p))


def reference_of(skew: float) -> stats.rv_continuous:
    gamma = math.sqrt(skew**2 + 2)
    kappa = math.sqrt((gamma - skew) / (gamma + skew))
    return stats.laplace_asymmetric(kappa, scale=1 / math.sqrt(2))


def mixing_grid(nodes: int, end: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of an expectation over W ~ Exp(1), smooth in the root of W."""
    x, weight = np.polynomial.legendre.leggauss(nodes)
    root = (x + 1) * end / 2
    return root**2, weight * end / 2 * 2 * root * np.exp(-(root**2))


def true_tails(skew_a: float, skew_b: float, rho: float, level: float) -> list[float]:
    """The four coefficients of a pair: given W the pair is Gaussian."""
    w, weight = mixing_grid(600, 9.0)
    found = []
    for a, b in SIGNS:
        h, k = (s * (m * w - quantile(m, level if s > 0 else 1 - level)) for s, m in ((a, skew_a), (b, skew_b)))
        orthant = normal_orthant(h / np.sqrt(w), k / np.sqrt(w), a * b * rho)
        found.append(float((weight * orthant).sum()) / (1 - level))
    return found


def true_spearman(skew_a: float, skew_b: float, rho: float) -> float:
    """12 P(Y_a > Y'_a, Y_b > Y''_b) - 3 for independent copies, Gaussian given the three mixing variables."""
    grid, weight = mixing_grid(40, 6.0)
    w, u, v = np.meshgrid(grid, grid, grid, indexing="ij")
    weights = weight[:, None, None] * weight[:, None] * weight
    h, k = (m * (w - x) / np.sqrt(w + x) + 1e-290 for m, x in ((skew_a, u), (skew_b, v)))
    return 12 * float((weights * normal_orthant(h, k, rho * w / np.sqrt((w + u) * (w + v)))).sum()) - 3


def gaussian_tails(spearman: float, level: float) -> list[float]:
    """The four coefficients of the Gaussian copula of a rank correlation."""
    r, z = 2 * math.sin(math.pi * spearman / 6), ndtri(1 - level)
    same, crossed = (float(normal_orthant(z, z, x)) / (1 - level) for x in (r, -r))
    return [same, same, crossed, crossed]


def pairs() -> list[tuple[tuple[str, str, int], tuple[float, float, float]]]:
    """Every pair and coordinate with its skews and the correlation of its Gaussian part, from the card's words."""
    skew = ((1, 1, 1, 1), (1, -1, -1, 1))
    return [
        ((f"m{i}", f"m{j}", c), (skew[c][i], skew[c][j], -0.5 if c == 0 and (i + j) % 2 else 0.5))
        for c in (0, 1)
        for i, j in combinations(range(4), 2)
    ]


@pytest.mark.parametrize("split", SPLITS)
def test_hash_is_the_cards(split: str) -> None:
    dataset = load_dataset("skewed_copula", split)
    assert len(dataset) == load_card("skewed_copula").splits[split].count == 10_000
    assert fingerprint(dataset.data) == dataset.provenance["sha256"] == load_card("skewed_copula").splits[split].sha256
    assert dataset.provenance["matches_card"] is True
    assert (dataset.provenance["seed"], dataset.provenance["stream"]) == (0, split)
    assert all(x.dtype is torch.float32 and x.shape == (10_000, 2) for x in dataset.data.values())


@pytest.mark.parametrize("split", SPLITS)
def test_marginals_are_uniform(split: str) -> None:
    for x in load_dataset("skewed_copula", split).data.values():
        for coordinate in x.double().numpy().T:
            assert 0.0 <= coordinate.min() < 1e-3
            assert 0.999 < coordinate.max() <= 1.0
            assert stats.kstest(coordinate, "uniform").pvalue > 1e-4


@pytest.mark.parametrize("skew", [0.0, 1.0, -1.0, 0.3, -4.0])
def test_marginal_cdf_agrees_with_scipy(skew: float) -> None:
    reference = reference_of(skew)
    y = np.concatenate([np.linspace(-40, 40, 4001), [-1e-12, 0.0, 1e-12]])
    found = marginal_cdf(y, skew)
    assert np.abs(found - reference.cdf(y)).max() < 1e-13
    gamma = math.sqrt(skew**2 + 2)
    low = y[(y <= 0) & (y * (gamma + skew) > -199)]
    exact = np.exp((gamma + skew) * low) * (gamma - skew) / (2 * gamma)
    assert np.abs(marginal_cdf(low, skew) / exact - 1).max() < 1e-12
    assert low.min() * (gamma + skew) < -50 or skew < 0
    assert np.array_equal(marginal_cdf(np.array([-1e300, 1e300, -math.inf, math.inf]), skew) > 0.5, [0, 1, 0, 1])
    assert np.all(np.diff(marginal_cdf(np.linspace(-300, 300, 10_001), skew)) >= 0)


@pytest.mark.parametrize("skew", [1.0, -1.0, 2.5])
def test_marginal_cdf_is_that_of_the_mixture(skew: float) -> None:
    for y in (-2.0, -0.1, 0.4, 3.0, 9.0):

        def given(t: float, y: float = y) -> float:
            return 2 * t * math.exp(-t * t) * float(ndtr((y - skew * t * t) / t))

        expected = quad(given, 0, 1, epsabs=1e-12)[0] + quad(given, 1, 7, epsabs=1e-12)[0]
        assert float(marginal_cdf(np.array(y), skew)) == pytest.approx(expected, abs=1e-9)


def test_a_large_skew_cancels_nothing() -> None:
    # The rate gamma - m of the heavy tail is 1e-6, of which a difference of two numbers near 1e6 keeps four digits.
    y = np.array([1.0, 1e6, 1e7])
    assert marginal_cdf(y, 1e6) == pytest.approx(-np.expm1(-y * 1e-6), rel=1e-9)
    assert marginal_cdf(-y, -1e6) == pytest.approx(np.exp(-y * 1e-6), rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_tails_are_those_of_the_asymmetric_laplace_copula(level: float) -> None:
    n = 50_000
    data = load_dataset("skewed_copula", "train", num_samples=n).data
    found = pairwise_tail_dependence(data, level=level)
    assert len(found.values) == 12
    for key, (a, b, rho) in pairs():
        for name, expected in zip(CORNERS, true_tails(a, b, rho, level), strict=True):
            error = math.sqrt(expected / ((1 - level) * n))
            assert found.values[key][name] == pytest.approx(expected, abs=4 * error + 2e-4), (key, name)


def test_rank_correlations() -> None:
    data = load_dataset("skewed_copula", "test").data
    for (i, j, c), arguments in pairs():
        found = stats.spearmanr(data[i][:, c], data[j][:, c]).statistic
        assert found == pytest.approx(true_spearman(*arguments), abs=5 / math.sqrt(10_000))


def test_each_corner_is_the_heavy_one_of_some_pair() -> None:
    found = pairwise_tail_dependence(load_dataset("skewed_copula", "test").data)
    heavy = {(max(value, key=value.get), key[2]) for key, value in found.values.items()}
    assert heavy == {("upper", 0), *((corner, 1) for corner in CORNERS)}


def test_coordinates_are_independent() -> None:
    data = load_dataset("skewed_copula", "train").data
    first, second = (np.stack([x[:, c].double().numpy() for x in data.values()]) for c in (0, 1))
    # A mixing variable that coordinates shared would correlate them by a half, through the skews.
    for f in (lambda u: u, lambda u: np.abs(u - 0.5)):
        assert np.abs(np.corrcoef(f(first), f(second))[:4, 4:]).max() < 0.05


def test_streams_are_independent() -> None:
    drawn = [load_dataset("skewed_copula", split).data["m0"][:, 0].double().numpy() for split in SPLITS]
    drawn.append(load_dataset("skewed_copula", "train", seed=1).data["m0"][:, 0].double().numpy())
    drawn.append(load_dataset("copula", "train").data["m0"][:, 0].double().numpy())
    assert np.abs(np.corrcoef(drawn) - np.eye(6)).max() < 0.05


def test_longer_draw_begins_with_the_shorter() -> None:
    long, short = (load_dataset("skewed_copula", "train", num_samples=n) for n in (10_007, 10_000))
    assert all(torch.equal(long.data[m][:10_000], short.data[m]) for m in short.data)
    assert "matches_card" not in long.provenance
    assert len(load_dataset("skewed_copula", "test", num_samples=1)) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 0}, "skewed_copula: num_samples is 0"),
        ({"num_samples": 2.5}, "num_samples is 2.5"),
        ({"num_samples": True}, "num_samples is True"),
        ({"seed": -1}, "seed is -1"),
        ({"sed": 1}, "did you mean seed"),
    ],
)
def test_wrong_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_dataset("skewed_copula", "train", **options)


@pytest.mark.parametrize(
    ("rho", "skew", "message"),
    [
        (1.0, [[1.0, 1.0]], "rho is 1.0, must be in"),
        (-0.1, [[1.0, 1.0]], "rho is -0.1"),
        (math.nan, [[1.0, 1.0]], "rho is nan"),
        (0.5, [[1.0, 1.0], [1.0]], "skew is .*, must be finite, one row a coordinate"),
        (0.5, [[1.0, math.inf]], "skew is"),
        (0.5, [], "skew is"),
        (0.5, [[]], "skew is"),
    ],
)
def test_wrong_parameters(rho: float, skew: list[list[float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample(10, 0, "train", rho=rho, skew=skew)


def test_table_of_the_card() -> None:
    body = load_card("skewed_copula").body
    rows = re.findall(r"^\| (concordant|opposed) \| (\S+) \|(.*)\|$", body, re.MULTILINE)
    assert [(kind, level) for kind, level, _ in rows] == [
        (kind, level) for kind in ("concordant", "opposed") for level in ("0.95", "0.99", "0.999")
    ]
    spearman = {"concordant": true_spearman(*CONCORDANT), "opposed": true_spearman(*OPPOSED)}
    for kind, level, cells in rows:
        heavy, light, side, other = true_tails(*(CONCORDANT if kind == "concordant" else OPPOSED), float(level))
        assert side == pytest.approx(other, abs=1e-9)
        same, _, crossed, _ = gaussian_tails(spearman[kind], float(level))
        assert [float(x) for x in cells.split("|")] == pytest.approx([heavy, light, side, same, crossed], abs=5.1e-4)
    assert f"({spearman['concordant']:.3f} for concordant pairs; {spearman['opposed']:.3f} in magnitude" in body


@pytest.mark.slow
def test_further_numbers_of_the_card() -> None:
    body = " ".join(load_card("skewed_copula").body.split())
    far, near = 1 - 1e-6, 0.999
    spearman = {kind: true_spearman(*kind) for kind in (CONCORDANT, OPPOSED)}
    ratios = [true_tails(*kind, near)[0] / gaussian_tails(spearman[kind], near)[0] for kind in (CONCORDANT, OPPOSED)]
    assert f"{ratios[0]:.1f} times (concordant) and {ratios[1]:.0f} times (opposed)" in body
    heavy, same = true_tails(*CONCORDANT, far)[0], gaussian_tails(spearman[CONCORDANT], far)[0]
    assert (
        f"at 1 - 1e-6 the heavy corner of a concordant pair still has {heavy:.3f}, the Gaussian one {same:.3f}" in body
    )
    upper, lower = true_tails(1.0, 1.0, 0.9, 0.95)[:2]
    weak_upper, weak_lower = true_tails(*CONCORDANT, 0.95)[:2]
    assert f"{upper:.2f} and {lower:.2f} in place of {weak_upper:.2f} and {weak_lower:.2f}" in body
    splits = [load_dataset("skewed_copula", split).data for split in ("test", "reference")]
    assert f"{tail_error(*splits, marginals='own').mean:.3f} between `test` and `reference`" in body
    differences = [
        abs(true - gaussian)
        for _, pair in pairs()
        for true, gaussian in zip(true_tails(*pair, 0.95), gaussian_tails(true_spearman(*pair), 0.95), strict=True)
    ]
    assert f"{np.mean(differences):.3f} for a Gaussian copula of the very same" in body
