"""Structural similarity against scikit-image's definition, closed forms, and the published column's scale."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from torchmetrics.functional.image import structural_similarity_index_measure

from repro.metrics.ssim import DATA_RANGES, structural_similarity


def definition(x: np.ndarray, y: np.ndarray, data_range: float) -> float:
    """Similarity of two images ``(C, H, W)`` by the definition, over the pixels whose window lies within the image."""

    def local(v: np.ndarray) -> np.ndarray:
        return gaussian_filter(v, 1.5, truncate=3.5, axes=(-2, -1))[..., 5:-5, 5:-5]

    mx, my = local(x), local(y)
    vx, vy, cov = local(x * x) - mx * mx, local(y * y) - my * my, local(x * y) - mx * my
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    full = ((2 * mx * my + c1) * (2 * cov + c2)) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return float(full.mean())


def waves(channels: int, height: int, width: int, phase: float) -> torch.Tensor:
    """An image in [0, 1] that no random generator is needed for."""
    c, i, j = torch.meshgrid(*(torch.arange(k, dtype=torch.float64) for k in (channels, height, width)), indexing="ij")
    return 0.5 + 0.3 * torch.sin(0.7 * i + 0.2 * j * j / width + c + phase) + 0.2 * torch.cos(0.9 * j - phase * i / 5.0)


def noise(n: int, seed: int, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, channels, 28, 28, generator=generator)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 28, 28), (1, 64, 40), (2, 11, 13)])
@pytest.mark.parametrize("reading", DATA_RANGES)
def test_values_are_those_of_the_definition(shape: tuple[int, int, int], reading: str) -> None:
    x = torch.stack([waves(*shape, phase) for phase in (0.0, 1.0, 2.0)])
    y = torch.stack([waves(*shape, phase) for phase in (0.1, 1.7, 5.0)])
    result = structural_similarity(x, y, reading=reading, batch_size=2)
    expected = [definition(a.numpy(), b.numpy(), DATA_RANGES[reading]) for a, b in zip(x, y, strict=True)]
    assert result.values.tolist() == pytest.approx(expected, rel=1e-10)
    assert result.mean == pytest.approx(np.mean(expected))
    assert result.num_pairs == 3
    single = structural_similarity(x.float(), y.float(), reading=reading)
    assert single.values.tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("border", "reading"), [("valid", "unit"), ("reflect", "unit"), ("valid", "byte")])
def test_values_are_those_of_torchmetrics(border: str, reading: str) -> None:
    x, y = noise(6, 0), noise(6, 1)
    x, y = torch.cat([x, y]), torch.cat([(x + y) / 2, x])
    options = {"sigma": 1.5, "data_range": DATA_RANGES[reading], "reduction": "none", "return_full_image": True}
    _, full = structural_similarity_index_measure(x.double(), y.double(), **options)
    full = full[..., 5:-5, 5:-5] if border == "valid" else full
    ours = structural_similarity(x, y, reading=reading, border=border).values
    assert ours.numpy() == pytest.approx(full.mean((1, 2, 3)).numpy(), abs=1e-12)


def test_values_are_those_of_scikit_image() -> None:
    # scikit-image 0.26.0: structural_similarity(x, y, data_range=1, gaussian_weights=True, sigma=1.5,
    # use_sample_covariance=False, channel_axis=0).
    x, y = waves(3, 28, 28, 0.0)[None], waves(3, 28, 28, 0.4)[None]
    assert structural_similarity(x, y).mean == pytest.approx(0.7347260720313713, rel=1e-9)
    assert structural_similarity(x, y, reading="byte").mean == pytest.approx(0.9987709916611882, rel=1e-9)


@pytest.mark.parametrize("border", ["valid", "reflect"])
def test_constant_images_have_a_closed_form(border: str) -> None:
    a, b = 0.8, 0.3
    x, y = (torch.full((2, 1, 16, 16), v, dtype=torch.float64) for v in (a, b))
    for reading, span in DATA_RANGES.items():
        c1 = (0.01 * span) ** 2
        result = structural_similarity(x, y, reading=reading, border=border)
        assert result.values.tolist() == pytest.approx([(2 * a * b + c1) / (a * a + b * b + c1)] * 2, rel=1e-9)


def test_reflected_border_takes_all_pixels() -> None:
    x, y = waves(1, 20, 20, 0.0)[None], waves(1, 20, 20, 0.9)[None]
    # Mirrored without repeating the edge, an image 10 pixels larger whose valid pixels are those of the first.
    larger = [torch.nn.functional.pad(v, (5, 5, 5, 5), mode="reflect") for v in (x, y)]
    reflected = structural_similarity(x, y, border="reflect").mean
    assert reflected == pytest.approx(structural_similarity(*larger).mean, rel=1e-10)
    assert abs(reflected - structural_similarity(x, y).mean) > 1e-4


def test_unrelated_images_score_as_published_at_the_wrong_data_range() -> None:
    # White noise: local means near 1/2, local variances near 1/12 times the mass that the window leaves.
    x, y = noise(40, 0), noise(40, 1)
    right = structural_similarity(x, y)
    wrong = structural_similarity(x, y, reading="byte")
    assert abs(right.mean) < 0.05
    assert wrong.mean == pytest.approx(0.995, abs=0.005)
    assert right.name == "SSIM"
    assert wrong.name == "SSIM read with data_range = 255"
    assert "data_range 1 " in right.protocol
    assert "data_range 255 " in wrong.protocol
    assert structural_similarity(x, x).mean == pytest.approx(1.0, abs=1e-6)


def test_pairs_are_compared_one_by_one() -> None:
    x = noise(5, 0, channels=1)
    shuffled = x[[1, 0, 2, 3, 4]]
    values = structural_similarity(shuffled, x, batch_size=2).values
    assert values[2:].tolist() == pytest.approx([1.0] * 3, abs=1e-6)
    assert values[:2].max() < 0.2
    back = structural_similarity(x, shuffled).values
    assert torch.allclose(values, back, atol=1e-6)


def test_bad_images_are_refused() -> None:
    x = torch.rand(2, 1, 16, 16)
    for bad in (math.nan, math.inf, -0.01, 1.01):
        broken = x.clone()
        broken[1, 0, 3, 3] = bad
        with pytest.raises(ValueError, match=r"generated images need floating-point values in \[0, 1\]"):
            structural_similarity(broken, x)
        with pytest.raises(ValueError, match="true images need"):
            structural_similarity(x, broken)
    with pytest.raises(ValueError, match=r"uint8"):
        structural_similarity(torch.zeros(2, 1, 16, 16, dtype=torch.uint8), x)
    with pytest.raises(ValueError, match=r"shape \(1, 1, 16, 16\), true ones \(2, 1, 16, 16\)"):
        structural_similarity(x[:1], x)
    with pytest.raises(ValueError, match="at least 11 x 11"):
        structural_similarity(x[..., :10], x[..., :10])
    with pytest.raises(ValueError, match="expected"):
        structural_similarity(x[0], x[0])
    for options in ({"reading": "255"}, {"border": "same"}, {"batch_size": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            structural_similarity(x, x, **options)


@given(a=st.floats(0, 1, width=32), b=st.floats(0, 1, width=32), reading=st.sampled_from(list(DATA_RANGES)))
@settings(max_examples=60, deadline=None)
def test_flat_images_have_their_closed_form(a: float, b: float, reading: str) -> None:
    """Without variance the similarity is that of the means alone; single precision has 0.997 for two equal greys."""
    images = [torch.full((1, 1, 16, 16), v) for v in (a, b)]
    c1 = (0.01 * DATA_RANGES[reading]) ** 2
    expected = (2 * a * b + c1) / (a * a + b * b + c1)
    assert structural_similarity(*images, reading=reading).mean == pytest.approx(expected, abs=1e-10)


@given(seed=st.integers(0, 10_000), scale=st.floats(0, 1e-2))
@settings(max_examples=20, deadline=None)
def test_no_value_is_above_one(seed: int, scale: float) -> None:
    x = noise(4, seed)
    near = (x + scale * noise(4, seed + 1)).clamp(0, 1)
    assert float(structural_similarity(x, near).values.max()) <= 1
    assert structural_similarity(x, x).values.tolist() == [1.0] * 4
