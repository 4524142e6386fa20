r"""Frechet distances between feature vectors of true and generated images.

.. math:: d^2 = \| \mu_1 - \mu_2 \|^2 + \operatorname{tr} \left( \Sigma_1 + \Sigma_2
    - 2 (\Sigma_1^{1/2} \Sigma_2 \Sigma_1^{1/2})^{1/2} \right)

is the squared 2-Wasserstein distance between the Gaussians with the features' means and covariances. It is called FID
for the features of one network alone, Inception v3 as :mod:`repro.metrics.inception` loads it. With any other features
it has another scale, and the name says which they are.

Source: Dowson and Landau, "The Frechet distance between multivariate normal distributions", 1982; Heusel et al., "GANs
trained by a two time-scale update rule converge to a local Nash equilibrium", 2017.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from repro.metrics.arguments import check_tensors

__all__ = [
    "FID_FEATURE",
    "PIXEL_SCALES",
    "FeatureStatistics",
    "FrechetDistance",
    "batch_statistics",
    "feature_statistics",
    "frechet_distance",
    "noise_floor",
    "pixel_feature_name",
    "pixel_features",
]

FID_FEATURE = "Inception v3, layer 2048"

# Scale and shift of images in [0, 1], and what a reader calls the result.
PIXEL_SCALES: Mapping[str, tuple[float, float, str]] = {
    "unit": (1.0, 0.0, "[0, 1]"),
    "symmetric": (2.0, -1.0, "[-1, 1]"),
    "byte": (255.0, 0.0, "[0, 255]"),
}


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """Mean and scatter of feature vectors in double precision, which chunks of a sample can be merged into.

    As long as there are fewer samples than features, the scatter is kept as a thin factor: it takes less memory and
    makes the distance cheaper.

    Arguments:
        feature: What the features are, such as ``"MNIST classifier"``.
        num_samples: Number N of samples.
        mean: Shape ``(d,)``, float64.
        rows: Shape ``(r, d)`` with r < d, whose ``rows.T @ rows`` is the scatter; None where that is kept whole.
        scatter: Shape ``(d, d)``, the sum of outer products of deviations from the mean; None where ``rows`` is given.
    """

    feature: str
    num_samples: int
    mean: Tensor
    rows: Tensor | None
    scatter: Tensor | None

    @property
    def dim(self) -> int:
        """Number d of features."""
        return self.mean.shape[0]

    @property
    def covariance(self) -> Tensor:
        """Unbiased covariance, ``(d, d)``.

        Raises:
            ValueError: If there is one sample only.
        """
        return self.whole_scatter() / self._freedom()

    @property
    def variance(self) -> float:
        """Trace of the covariance."""
        total = self.rows.square().sum() if self.rows is not None else self.scatter.trace()
        return float(total) / self._freedom()

    def whole_scatter(self) -> Tensor:
        """The scatter as a matrix, ``(d, d)``."""
        return self.rows.T @ self.rows if self.rows is not None else self.scatter

    def merge(self, other: FeatureStatistics) -> FeatureStatistics:
        """Returns the statistics of the two samples taken together.

        Raises:
            ValueError: If they are not of the same features.
        """
        _check_same(self, other)
        n, m = self.num_samples, other.num_samples
        difference = other.mean.to(self.mean) - self.mean
        mean = self.mean + difference * (m / (n + m))
        # The distance between the two means is one more row of the scatter.
        bridge = difference * (n * m / (n + m)) ** 0.5
        rows = scatter = None
        if self.rows is not None and other.rows is not None and len(self.rows) + len(other.rows) + 1 < self.dim:
            rows = torch.cat([self.rows, other.rows.to(self.rows), bridge[None]])
        else:
            scatter = self.whole_scatter() + other.whole_scatter().to(mean) + torch.outer(bridge, bridge)
        return FeatureStatistics(self.feature, n + m, mean, rows, scatter)

    def _freedom(self) -> int:
        if self.num_samples < 2:
            raise ValueError(f"a covariance of {self.feature!r} needs at least 2 samples, got {self.num_samples}")
        return self.num_samples - 1


@dataclass(frozen=True)
class FrechetDistance:
    """A Frechet distance with what it was measured on.

    Arguments:
        value: The distance, squared as is usual, in squared units of the features; never negative.
        feature: What the features are.
        dim: Number d of features.
        num_true: True samples.
        num_generated: Generated samples.
    """

    value: float
    feature: str
    dim: int
    num_true: int
    num_generated: int

    @property
    def name(self) -> str:
        """ "FID" for Inception features, else "Frechet distance" with the features' name."""
        return "FID" if self.feature == FID_FEATURE else f"Frechet distance ({self.feature})"

    @property
    def full_rank(self) -> bool:
        """Whether both samples are large enough for covariances of full rank."""
        return min(self.num_true, self.num_generated) > self.dim


def feature_statistics(features: Tensor, feature: str) -> FeatureStatistics:
    """Returns mean and scatter of a sample or a chunk of it, in double precision.

    Arguments:
        features: Shape ``(N, d)``.
        feature: What the features are; distances are taken between statistics of the same name only.

    Raises:
        ValueError: If the shape is another, the name is empty or a value is not finite.
    """
    if not feature:
        raise ValueError("features need a name")
    check_tensors(**{f"features {feature!r}": features})
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(f"features {feature!r} have shape {tuple(features.shape)}, expected (N, d), both positive")
    x = features.detach().to(torch.float64)
    if not bool(torch.isfinite(x).all()):
        raise ValueError(f"features {feature!r} have values that are not finite")
    mean = x.mean(0)
    deviations = x - mean
    thin = x.shape[0] < x.shape[1]
    return FeatureStatistics(
        feature, x.shape[0], mean, deviations if thin else None, None if thin else deviations.T @ deviations
    )


def batch_statistics(extract: Callable[[Tensor], Tensor], batches: Iterable[Tensor], feature: str) -> FeatureStatistics:
    """Returns the statistics of the features of a sample that comes in batches.

    Arguments:
        extract: Function from images ``(n, C, H, W)`` to features ``(n, d)``, such as a classifier's ``features``.
        batches: The images, such as ``images.split(256)``.
        feature: What the features are.

    Raises:
        ValueError: If there are no batches, ``extract`` is a module in training mode, and as
            :func:`feature_statistics`.
    """
    # A bound method, such as classifier.features, belongs to a module too.
    if getattr(getattr(extract, "__self__", extract), "training", False):
        raise ValueError(f"the network of {feature!r} is in training mode; its features would be random")
    total = None
    for batch in batches:
        with torch.no_grad():
            chunk = feature_statistics(extract(batch), feature)
        total = chunk if total is None else total.merge(chunk)
    if total is None:
        raise ValueError(f"no batches to take features {feature!r} of")
    return total


def pixel_feature_name(scale: str) -> str:
    """The name of pixels as features in one of ``PIXEL_SCALES``.

    Raises:
        ValueError: If there is no such scale.
    """
    if scale not in PIXEL_SCALES:
        raise ValueError(f"unknown pixel scale {scale!r}; one of {', '.join(PIXEL_SCALES)}")
    return f"pixels in {PIXEL_SCALES[scale][2]}"


def pixel_features(images: Tensor, scale: str = "unit") -> Tensor:
    """The pixels themselves as features, ``(N, C * H * W)``.

    A scaling of ``s x + t`` multiplies the Frechet distance by ``s`` squared: that of bytes is 65,025 times that of
    pixels in [0, 1].

    Arguments:
        images: Shape ``(N, ...)``, in [0, 1].
        scale: One of ``PIXEL_SCALES``.

    Raises:
        ValueError: If the scale is unknown, or a value is not finite or outside [0, 1].
    """
    name = pixel_feature_name(scale)
    check_tensors(**{f"{name}: images": images})
    if images.ndim < 2 or 0 in images.shape:
        raise ValueError(f"{name}: images have shape {tuple(images.shape)}, expected (N, ...), all positive")
    if not images.is_floating_point() or not bool(((images >= 0) & (images <= 1)).all()):
        raise ValueError(f"{name}: images need floating-point values in [0, 1], got values outside or {images.dtype}")
    factor, shift, _ = PIXEL_SCALES[scale]
    return images.detach().flatten(1).to(torch.float64) * factor + shift


def frechet_distance(
    true: FeatureStatistics, generated: FeatureStatistics, *, allow_low_rank: bool = False
) -> FrechetDistance:
    r"""Frechet distance between the Gaussians of two samples' features.

    .. math:: \| \mu_1 - \mu_2 \|^2 + \operatorname{tr} \Sigma_1 + \operatorname{tr} \Sigma_2
        - 2 \sum_i \lambda_i(F_1 \Sigma_2 F_1^T)^{1/2}, \quad F_1^T F_1 = \Sigma_1

    The eigenvalues of the symmetric :math:`F_1 \Sigma_2 F_1^T` are those of :math:`\Sigma_1 \Sigma_2` for any factor
    :math:`F_1`, and cost a fraction of that unsymmetric product's. The factor is the Cholesky factor; the square root
    of the eigenvalues where the covariance is singular; and the samples themselves where they are fewer than features.
    Where they are so on a side, it is :math:`\sum_i \sigma_i(F_1 F_2^T)` over singular values: no d x d matrix where
    both sides are, and no root of a zero eigenvalue's rounding.

    Arguments:
        true: Statistics of the true sample.
        generated: Statistics of the generated sample, of the same features.
        allow_low_rank: Whether a side may have no more samples than features. Its covariance is then singular and the
            distance says more about N than about the model: it reads against :func:`noise_floor` at the same N only.

    Raises:
        ValueError: If the two are of different features, a side has fewer than two samples, or too few for a
            covariance of full rank without ``allow_low_rank``.
    """
    _check_same(true, generated)
    for side, statistics in (("true", true), ("generated", generated)):
        needed = 2 if allow_low_rank else true.dim + 1
        if statistics.num_samples < needed:
            raise ValueError(
                f"features {true.feature!r} have {true.dim} dimensions: the {side} sample needs at least {needed} "
                f"samples, got {statistics.num_samples}"
            )
    distance = float((true.mean - generated.mean.to(true.mean)).square().sum()) + true.variance + generated.variance
    # Rounding can leave a distance of nothing a little under 0.
    value = max(distance - 2.0 * _root_trace(true, generated), 0.0)
    return FrechetDistance(value, true.feature, true.dim, true.num_samples, generated.num_samples)


def noise_floor(
    true_a: FeatureStatistics, true_b: FeatureStatistics, *, allow_low_rank: bool = False
) -> FrechetDistance:
    """Returns the Frechet distance between two independent true samples: the score of a perfect model at this size.

    Arguments:
        true_a: Statistics of the true sample that models are compared with.
        true_b: Statistics of a second one, of the size of the generated samples.
        allow_low_rank: As models are measured with.

    Raises:
        ValueError: If the two are the same sample, and as :func:`frechet_distance`.
    """
    _check_same(true_a, true_b)
    if true_a.num_samples == true_b.num_samples and torch.equal(true_a.mean, true_b.mean.to(true_a.mean)):
        raise ValueError(f"noise floor of {true_a.feature!r} needs two independent samples; these are the same")
    return frechet_distance(true_a, true_b, allow_low_rank=allow_low_rank)


def _check_same(a: FeatureStatistics, b: FeatureStatistics) -> None:
    """Refuses what is no statistics, and statistics of different features."""
    for side in (a, b):
        if not isinstance(side, FeatureStatistics):
            raise ValueError(f"a Frechet distance takes FeatureStatistics, got a {type(side).__name__}")
    if (a.feature, a.dim) != (b.feature, b.dim):
        raise ValueError(f"features differ: {a.feature!r} of {a.dim} dimensions, {b.feature!r} of {b.dim}")


def _root_trace(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """Returns the trace of the square root of the product of the two covariances."""
    freedom = (a.num_samples - 1.0) * (b.num_samples - 1.0)
    factor = _factor(a)
    if a.rows is not None or b.rows is not None:
        # Thin factors are singular, and the root of a zero eigenvalue's rounding is 1e-8; singular values have none.
        return float(torch.linalg.svdvals(factor @ _factor(b).to(factor).T).sum()) / freedom**0.5
    product = factor @ b.scatter.to(factor) @ factor.T
    eigenvalues = torch.linalg.eigvalsh((product + product.T) / 2)
    return float(eigenvalues.clamp_min(0.0).sqrt().sum()) / freedom**0.5


def _factor(statistics: FeatureStatistics) -> Tensor:
    """Returns a matrix F of shape ``(r, d)`` with ``F.T @ F`` the scatter."""
    if statistics.rows is not None:
        return statistics.rows
    lower, failed = torch.linalg.cholesky_ex(statistics.scatter)
    if not int(failed):
        return lower.T
    values, vectors = torch.linalg.eigh(statistics.scatter)
    # The square root turns rounding of 1e-16 into 1e-8: directions without variance, such as constant pixels, go.
    kept = values > values[-1] * values.shape[0] * torch.finfo(values.dtype).eps
    return vectors[:, kept].T * values[kept].sqrt()[:, None]
