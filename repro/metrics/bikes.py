"""Where the components of an image lie: centres of mass of dark strokes on a white ground, and distances of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from scipy.spatial.distance import cdist
from torch import Tensor

from repro.metrics.arguments import check_samples, check_tensors

__all__ = ["CentreDistance", "centre_distance", "centres_of_mass", "joint_centre_distance"]

THRESHOLD = 0.1  # of darkness 1 - x: fainter pixels are the ground, whose sum would outweigh thin strokes


@dataclass(frozen=True)
class CentreDistance:
    """Wasserstein distances between clouds of centres of mass.

    Arguments:
        values: Component to distance in pixels.
        num_true: Component to true images with ink.
        num_generated: Component to generated images with ink.
    """

    values: Mapping[str, float]
    num_true: Mapping[str, int]
    num_generated: Mapping[str, int]

    @property
    def mean(self) -> float:
        """Mean over the components, in pixels."""
        return sum(self.values.values()) / len(self.values)


def centres_of_mass(images: Tensor, *, threshold: float = THRESHOLD) -> Tensor:
    r"""Centre of mass of each image's ink, ``(N, 2)``: row and column in pixels, NaN for an image without ink.

    .. math:: c = \frac{\sum_p w_p\, p}{\sum_p w_p}, \quad
        w_p = \begin{cases} 1 - x_p & \text{if } 1 - x_p > t \\ 0 & \text{else} \end{cases}

    over the centres p of the pixels, (0, 0) that of the first.

    Arguments:
        images: Shape ``(N, 1, H, W)`` in [0, 1], 1 the ground.
        threshold: Darkness t up to which a pixel is ground, in [0, 1).

    Raises:
        ValueError: If the shape is another, a value is not finite or outside [0, 1], or the threshold is not in [0, 1).

    Source: GMRF MCVAE, section IV-C (metrics); the paper gives no formula.
    """
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold is {threshold}, must be in [0, 1)")
    check_tensors(images=images)
    if images.ndim != 4 or images.shape[1] != 1 or 0 in images.shape:
        raise ValueError(f"images have shape {tuple(images.shape)}, expected (N, 1, H, W), all positive")
    if not images.is_floating_point() or not bool(((images >= 0) & (images <= 1)).all()):
        raise ValueError(f"images need floating-point values in [0, 1], got others or {images.dtype}")
    ink = 1.0 - images.detach()[:, 0].double()
    ink = torch.where(ink > threshold, ink, 0.0)
    total = ink.sum((1, 2))
    rows, columns = (torch.arange(n, device=ink.device, dtype=ink.dtype) for n in ink.shape[1:])
    return torch.stack([(ink.sum(2) * rows).sum(1), (ink.sum(1) * columns).sum(1)], 1) / total[:, None]


def centre_distance(
    true: Mapping[str, Tensor], generated: Mapping[str, Tensor], *, threshold: float = THRESHOLD
) -> CentreDistance:
    r"""Exact 1-Wasserstein distance between true and generated centres of mass, for each component.

    .. math:: \min_{\pi} \sum_{n, m} \pi_{nm} \| c_n - \hat c_m \|_2

    over the couplings of two uniform distributions. Images without ink have no centre and are left out on both
    sides; the result counts those that are left.

    Arguments:
        true: Component to images ``(N, 1, H, W)`` in [0, 1], white ground.
        generated: The same components and sizes; another N is allowed.
        threshold: As in :func:`centres_of_mass`.

    Raises:
        ValueError: If components or sizes differ, all images of a component are without ink, and as
            :func:`centres_of_mass`.
        RuntimeError: If the solver stops before the optimum.

    Source: GMRF MCVAE, Table III, column WS; the paper gives neither formula nor unit.
    """
    clouds = _clouds(true, generated, threshold)
    values, counts = {}, ({}, {})
    for name, sides in clouds.items():
        inked = [c[torch.isfinite(c).all(1)] for c in sides]
        for count, c, side in zip(counts, inked, ("true", "generated"), strict=True):
            if not len(c):
                raise ValueError(f"no {side} image of {name!r} has a pixel darker than {threshold:g}")
            count[name] = len(c)
        values[name] = _transport(*inked)
    return CentreDistance(values, *counts)


def joint_centre_distance(
    true: Mapping[str, Tensor], generated: Mapping[str, Tensor], *, threshold: float = THRESHOLD
) -> float:
    """Exact 1-Wasserstein distance, in pixels, between the vectors of all components' centres of mass.

    Unlike :func:`centre_distance` it sees whether the components of one image fit together. Samples with a component
    without ink are left out. Arguments and errors are those of :func:`centre_distance`.

    Raises:
        ValueError: Also if samples of a side differ in number, or none has ink in every component.
    """
    clouds = _clouds(true, generated, threshold)
    joined = []
    for side, name in enumerate(("true", "generated")):
        if len({len(c[side]) for c in clouds.values()}) > 1:
            raise ValueError(f"{name} components have {[len(c[side]) for c in clouds.values()]} images")
        centres = torch.cat([c[side] for c in clouds.values()], 1)
        joined.append(centres[torch.isfinite(centres).all(1)])
        if not len(joined[-1]):
            raise ValueError(f"no {name} sample has a pixel darker than {threshold:g} in every component")
    return _transport(*joined)


def _clouds(
    true: Mapping[str, Tensor], generated: Mapping[str, Tensor], threshold: float
) -> dict[str, tuple[Tensor, Tensor]]:
    check_samples(true=true, generated=generated)
    if not true or list(true) != list(generated):
        raise ValueError(f"true components are {list(true)}, generated ones {list(generated)}")
    for name in true:
        if true[name].shape[1:] != generated[name].shape[1:]:
            shapes = [tuple(side[name].shape) for side in (true, generated)]
            raise ValueError(f"images of {name!r} have shapes {shapes[0]} and {shapes[1]}")
    return {
        m: (centres_of_mass(true[m], threshold=threshold), centres_of_mass(generated[m], threshold=threshold))
        for m in true
    }


def _transport(a: Tensor, b: Tensor) -> float:
    import ot  # takes longer to import than a model to load

    cost = cdist(a.cpu().numpy(), b.cpu().numpy())
    distance, log = ot.emd2([], [], cost, numItermax=10_000_000, log=True)
    if log["warning"] is not None:
        raise RuntimeError(f"optimal transport of centres of mass: {log['warning']}")
    return float(distance)
