"""Centres of mass of drawn components, and their Wasserstein distances, against closed forms and scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch import Tensor

from repro.metrics.bikes import centre_distance, centres_of_mass, joint_centre_distance


def squares(*corners: tuple[int, int], size: int = 16, side: int = 3, darkness: float = 1.0) -> Tensor:
    """White pictures with one dark square each, whose centre is a pixel inward of its corner."""
    images = torch.ones(len(corners), 1, size, size)
    for image, (row, column) in zip(images, corners, strict=True):
        image[0, row : row + side, column : column + side] = 1.0 - darkness
    return images


def random_corners(count: int, seed: int, shift: int = 0) -> list[tuple[int, int]]:
    rows = torch.randint(0, 8, (count, 2), generator=torch.Generator().manual_seed(seed))
    return [(int(r) + shift, int(c)) for r, c in rows]


def test_centre_of_a_square_is_its_middle_pixel_whatever_its_darkness() -> None:
    for darkness in (1.0, 0.5, 0.11):
        found = centres_of_mass(squares((0, 0), (4, 9), darkness=darkness))
        assert torch.allclose(found, torch.tensor([[1.0, 1.0], [5.0, 10.0]], dtype=torch.float64))


def test_centre_weighs_by_darkness() -> None:
    image = torch.ones(1, 1, 4, 8)
    image[0, 0, 1, 0], image[0, 0, 1, 6] = 0.0, 0.5
    assert torch.allclose(centres_of_mass(image), torch.tensor([[1.0, 2.0]], dtype=torch.float64))


def test_faint_ground_does_not_count_and_a_blank_picture_has_no_centre() -> None:
    image = squares((4, 9))
    assert torch.equal(centres_of_mass(image.clamp(max=0.92)), centres_of_mass(image))
    assert bool(torch.isnan(centres_of_mass(torch.full((1, 1, 8, 8), 0.95))).all())
    assert bool(torch.isfinite(centres_of_mass(torch.full((1, 1, 8, 8), 0.95), threshold=0.01)).all())


def test_distance_of_shifted_pictures_is_the_shift() -> None:
    corners = random_corners(20, 0)
    true = {"a": squares(*corners), "b": squares(*corners)}
    moved = [(r + 3, c + 4) for r, c in corners]
    found = centre_distance(true, {"a": squares(*moved), "b": squares(*corners)})
    assert found.values == pytest.approx({"a": 5.0, "b": 0.0}, abs=1e-9)
    assert found.mean == pytest.approx(2.5)
    assert found.num_true == found.num_generated == {"a": 20, "b": 20}


@pytest.mark.parametrize("joint", [False, True])
def test_distance_is_the_best_assignment_s(joint: bool) -> None:
    true, generated = ({m: squares(*random_corners(25, 10 * side + k)) for k, m in enumerate("ab")} for side in (1, 2))
    sides = [{m: centres_of_mass(x).numpy() for m, x in side.items()} for side in (true, generated)]
    clouds = [[np.concatenate([s["a"], s["b"]], 1)] if joint else [s["a"], s["b"]] for s in sides]
    expected = []
    for p, q in zip(*clouds, strict=True):
        cost = cdist(p, q)
        expected.append(cost[linear_sum_assignment(cost)].mean())
    found = joint_centre_distance(true, generated) if joint else centre_distance(true, generated).mean
    assert found == pytest.approx(np.mean(expected), rel=1e-9)


def test_only_the_joint_distance_sees_components_that_do_not_belong_together() -> None:
    corners = random_corners(30, 3)
    true = {"a": squares(*corners), "b": squares(*corners)}
    mixed = {"a": true["a"], "b": true["b"].roll(1, 0)}
    assert centre_distance(true, mixed).mean == pytest.approx(0.0, abs=1e-9)
    assert joint_centre_distance(true, mixed) > 1.0


def test_blank_pictures_are_left_out_and_counted() -> None:
    corners = random_corners(10, 4)
    true = {"a": squares(*corners)}
    some = torch.cat([squares(*corners), torch.ones(5, 1, 16, 16)])
    found = centre_distance(true, {"a": some})
    assert found.values["a"] == pytest.approx(0.0, abs=1e-9)
    assert found.num_generated == {"a": 10}
    with pytest.raises(ValueError, match=r"no generated image of 'a' has a pixel darker than 0\.1"):
        centre_distance(true, {"a": torch.ones(4, 1, 16, 16)})
    with pytest.raises(ValueError, match="no generated sample has a pixel darker"):
        joint_centre_distance(true, {"a": torch.ones(4, 1, 16, 16)})


@pytest.mark.parametrize(
    ("images", "match"),
    [
        (torch.full((2, 1, 4, 4), 1.5), r"values in \[0, 1\]"),
        (torch.full((2, 1, 4, 4), float("nan")), r"values in \[0, 1\]"),
        (torch.ones(2, 1, 4, 4, dtype=torch.uint8), "uint8"),
        (torch.ones(2, 3, 4, 4), r"expected \(N, 1, H, W\)"),
        (torch.ones(0, 1, 4, 4), "all positive"),
    ],
)
def test_bad_images(images: Tensor, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        centres_of_mass(images)


def test_bad_calls() -> None:
    x = {"a": squares((1, 1), (2, 2))}
    with pytest.raises(ValueError, match=r"threshold is 1, must be in \[0, 1\)"):
        centres_of_mass(x["a"], threshold=1)
    with pytest.raises(ValueError, match=r"true components are \['a'\], generated ones \['b'\]"):
        centre_distance(x, {"b": x["a"]})
    with pytest.raises(ValueError, match="images of 'a' have shapes"):
        centre_distance(x, {"a": squares((1, 1), size=8)})
    uneven = {"a": x["a"], "b": x["a"][:1]}
    with pytest.raises(ValueError, match=r"true components have \[2, 1\] images"):
        joint_centre_distance(uneven, {"a": x["a"], "b": x["a"]})
