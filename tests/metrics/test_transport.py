"""Transport distances against closed forms, scipy, and the scale that the published table has."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import wasserstein_distance

from repro.metrics.tails import tail_error
from repro.metrics.transport import (
    PairwiseDistance,
    histogram_value_wasserstein,
    noise_floor,
    optimal_transport,
    sliced_wasserstein,
)


def copula(n: int, seed: int, sign: float = 1.0) -> dict[str, torch.Tensor]:
    """Four components with U(0, 1) coordinates and Gaussian copulas R_kl = ((-1)^j)^(k+l) 0.9."""
    generator = torch.Generator().manual_seed(seed)
    k = torch.arange(1, 5, dtype=torch.float64)
    coordinates = []
    for j in (1, 2):
        correlation = ((-1.0) ** j) ** (k[:, None] + k[None, :]) * 0.9
        correlation.fill_diagonal_(1.0)
        z = torch.randn(n, 4, generator=generator, dtype=torch.float64) @ torch.linalg.cholesky(correlation).T
        coordinates.append(torch.special.ndtr(z))
    x = torch.stack(coordinates, -1)
    # x -> 1 - x of every second component turns the sign of the correlation with its neighbours.
    return {f"x{i + 1}": x[:, i] if sign > 0 or i % 2 == 0 else 1.0 - x[:, i] for i in range(4)}


def uniform(n: int, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {f"x{i}": torch.rand(n, 2, generator=generator, dtype=torch.float64) for i in range(1, 5)}


def noisy(x: dict[str, torch.Tensor], std: float, *, clip: bool = True) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(99)
    out = {m: v + std * torch.randn(v.shape, generator=generator, dtype=v.dtype) for m, v in x.items()}
    return {m: v.clamp(0.0, 1.0) for m, v in out.items()} if clip else out


def pair(points: torch.Tensor) -> dict[str, torch.Tensor]:
    """Two modalities of one coordinate that together are the planar sample ``points``."""
    return {"a": points[:, :1], "b": points[:, 1:]}


@pytest.fixture(scope="module")
def true() -> dict[str, torch.Tensor]:
    return copula(10_000, 0)


@pytest.fixture(scope="module")
def second() -> dict[str, torch.Tensor]:
    return copula(10_000, 1)


def test_pairwise_distance_averages_pairs_at_each_coordinate() -> None:
    distance = PairwiseDistance({("a", "b", 0): 1.0, ("a", "c", 0): 3.0, ("a", "b", 1): 5.0, ("a", "c", 1): 7.0}, 10)
    assert (distance.dimension(0), distance.dimension(1), distance.mean) == (2.0, 6.0, 4.0)
    with pytest.raises(ValueError, match="no coordinate 2"):
        distance.dimension(2)


# The scale of GMRF MCVAE Table I: bands hold the spread over seeds (0.024 for the floor).
@pytest.mark.parametrize(
    ("make", "expected", "tolerance"),
    [
        (lambda b: b, 0.38, 0.07),
        (lambda b: noisy(b, 0.03), 0.51, 0.08),
        (lambda b: noisy(b, 0.05), 1.00, 0.12),
        (lambda b: noisy(b, 0.1), 2.67, 0.15),
        (lambda b: uniform(10_000, 2), 9.16, 0.08),
    ],
    ids=["floor", "noise 0.03", "noise 0.05", "noise 0.1", "independent"],
)
def test_histogram_values_have_the_published_scale(true, second, make, expected, tolerance) -> None:
    result = histogram_value_wasserstein(true, make(second))
    assert len(result.values) == 12
    assert result.num_samples == 10_000
    assert result.mean == pytest.approx(expected, abs=tolerance)


def test_histogram_floor_falls_with_the_number_of_samples() -> None:
    floors = [
        np.mean([histogram_value_wasserstein(copula(n, 10 + 2 * s), copula(n, 11 + 2 * s)).mean for s in range(4)])
        for n in (1_000, 5_000)
    ]
    assert floors == pytest.approx([0.82, 0.52], abs=0.1)


def test_histogram_bins_follow_each_samples_own_range(true, second) -> None:
    # Values outside [0, 1] stretch the bins: the same noise scores about three times as high when it is not clipped.
    clipped = histogram_value_wasserstein(true, noisy(second, 0.03)).mean
    assert histogram_value_wasserstein(true, noisy(second, 0.03, clip=False)).mean > 2.5 * clipped
    # An affine map of a coordinate leaves the histogram as it was, so it cannot be seen.
    shrunk = {m: 0.25 * x + 3.0 for m, x in true.items()}
    assert histogram_value_wasserstein(true, shrunk).mean < 0.05
    assert sliced_wasserstein(true, shrunk).mean > 1_000.0


def test_histogram_values_of_point_masses_have_a_closed_form() -> None:
    # True: a quarter in each of the four corners; generated: half in each of two. Over 100 bins the sorted masses
    # differ by 1/4 in the four largest: two of 1/2 against 1/4, two of 1/4 against 0.
    corners = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    diagonal = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
    result = histogram_value_wasserstein(pair(corners), pair(diagonal))
    assert result.mean == pytest.approx(1000.0 * 4 * 0.25 / 100)


def test_the_papers_reading_cannot_see_wrong_signs_but_transport_can(true, second) -> None:
    wrong = copula(10_000, 1, sign=-1.0)
    assert histogram_value_wasserstein(true, wrong).mean == pytest.approx(
        noise_floor(histogram_value_wasserstein, true, second).mean, abs=0.02
    )
    floor = noise_floor(optimal_transport, true, second, num_samples=300).mean
    assert optimal_transport(true, wrong, num_samples=300).mean > 3.0 * floor
    floor = noise_floor(sliced_wasserstein, true, second, num_projections=8).mean
    assert sliced_wasserstein(true, wrong, num_projections=8).mean > 10.0 * floor


def test_optimal_transport_is_the_euclidean_one_distance() -> None:
    p, q = (torch.rand(200, 2, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in (0, 1))
    cost = torch.cdist(p, q).numpy()
    rows, columns = linear_sum_assignment(cost)
    result = optimal_transport(pair(p), pair(q))
    assert result.num_samples == 200
    assert result.mean == pytest.approx(1000.0 * cost[rows, columns].mean(), rel=1e-9)
    assert optimal_transport(pair(p), pair(p.flip(0))).mean == pytest.approx(0.0, abs=1e-9)
    shift = torch.tensor([0.3, -0.4], dtype=torch.float64)
    assert optimal_transport(pair(p), pair(p + shift)).mean == pytest.approx(500.0, rel=1e-9)


def test_optimal_transport_takes_the_first_samples(true, second) -> None:
    first = {m: x[:150] for m, x in second.items()}
    expected = optimal_transport({m: x[:150] for m, x in true.items()}, first)
    assert optimal_transport(true, second, num_samples=150) == expected


@pytest.mark.slow
def test_optimal_transport_at_2000_samples_has_the_recorded_scale(true, second) -> None:
    # One pair of the six; all twelve give 16 to 25 for two true samples and about 200 for independent components.
    a, b, u = ({m: x[:, 1:] for m, x in list(s.items())[:2]} for s in (true, second, uniform(2_000, 2)))
    a, b = ({m: x[:2_000] for m, x in s.items()} for s in (a, b))
    assert 12.0 < noise_floor(optimal_transport, a, b).mean < 35.0
    assert optimal_transport(a, u).mean == pytest.approx(200.0, abs=12.0)


@pytest.mark.parametrize(("order", "factor"), [(1, 2 / math.pi), (2, math.sqrt(0.5))])
def test_sliced_distance_of_a_translation_has_a_closed_form(order: int, factor: float) -> None:
    p = torch.randn(300, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    q = p + torch.tensor([0.6, 0.8], dtype=torch.float64)
    result = sliced_wasserstein(pair(p), pair(q), order=order, num_projections=64)
    assert result.mean == pytest.approx(1000.0 * factor, rel=1e-3)


def test_sliced_distance_averages_one_dimensional_distances() -> None:
    p, q = (torch.rand(100, 2, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in (0, 1))
    angles = (np.arange(8) + 0.5) * np.pi / 8
    directions = np.stack([np.cos(angles), np.sin(angles)], 1)
    expected = np.mean([wasserstein_distance(p.numpy() @ d, q.numpy() @ d) for d in directions])
    assert sliced_wasserstein(pair(p), pair(q), num_projections=8).mean == pytest.approx(1000.0 * expected, rel=1e-9)


def test_sliced_distance_is_under_the_transport_distance_and_few_directions_suffice(true, second) -> None:
    a, b, u = ({m: x[:300] for m, x in s.items()} for s in (true, second, uniform(300, 2)))
    for generated in (b, u):
        sliced, exact = sliced_wasserstein(a, generated), optimal_transport(a, generated)
        assert all(sliced.values[key] <= exact.values[key] + 1e-9 for key in exact.values)
    many = sliced_wasserstein(a, u, num_projections=512).mean
    assert sliced_wasserstein(a, u).mean == pytest.approx(many, rel=2e-3)


@pytest.mark.parametrize("metric", [histogram_value_wasserstein, optimal_transport, sliced_wasserstein])
def test_bad_input_is_named(metric) -> None:
    good = {m: x[:20] for m, x in copula(20, 0).items()}
    with pytest.raises(ValueError, match="generated has modalities"):
        metric(good, {m: x for m, x in good.items() if m != "x3"})
    with pytest.raises(ValueError, match="'x2' of generated has shape"):
        metric(good, {**good, "x2": good["x2"][:10]})
    with pytest.raises(ValueError, match="expected \\(N, D\\)"):
        metric({m: x[:, 0] for m, x in good.items()}, good)
    broken = good["x4"].clone()
    broken[3, 1] = float("nan")
    with pytest.raises(ValueError, match="'x4' of generated has values that are not finite"):
        metric(good, {**good, "x4": broken})
    with pytest.raises(ValueError, match="at least two modalities"):
        metric({"x1": good["x1"]}, {"x1": good["x1"]})


def test_options_and_noise_floor_are_checked(true) -> None:
    with pytest.raises(ValueError, match="bins is 0"):
        histogram_value_wasserstein(true, true, bins=0)
    with pytest.raises(ValueError, match="num_samples is 0"):
        optimal_transport(true, true, num_samples=0)
    with pytest.raises(ValueError, match="num_projections is 0"):
        sliced_wasserstein(true, true, num_projections=0)
    with pytest.raises(ValueError, match="'x1' is the same in both"):
        noise_floor(sliced_wasserstein, true, true)


@pytest.mark.parametrize("metric", [histogram_value_wasserstein, optimal_transport, sliced_wasserstein, tail_error])
def test_samples_are_tensors_by_name(metric, true) -> None:
    arrays = {m: x.numpy() for m, x in true.items()}
    for generated, message in (
        (arrays, r"^modality 'x1' of generated is a ndarray, must be a tensor$"),
        (true["x1"], r"^generated is a Tensor, must be a mapping from each modality's name$"),
        (None, r"^generated is a NoneType, must be a mapping from each modality's name$"),
    ):
        with pytest.raises(ValueError, match=message):
            metric(true, generated)
