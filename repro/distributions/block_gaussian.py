"""Gaussian over a vector partitioned in named blocks, with exact marginals and conditionals."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.kl import register_kl

from repro.distributions.blocks import (
    BlockSizes,
    apply_to_rows,
    as_block_sizes,
    block_coordinates,
    broadcast_batch,
    broadcast_shapes,
    cholesky_factor,
    join_blocks,
    ordered_blocks,
    rows_to_tril,
    solve_tril,
    split_blocks,
)

__all__ = ["BlockGaussian"]


class BlockGaussian(Distribution):
    r"""A Gaussian over named blocks, parameterised by a mean and the Cholesky factor of a covariance.

    .. math:: z = (z_1, \dots, z_M) \sim \mathcal{N}(\mu, L L^\top)

    Arguments:
        mean: Mean of the whole vector, ``(*batch, D)``.
        scale_tril: Lower-triangular factor with a positive diagonal, ``(*batch, D, D)``; batch shapes broadcast.
        block_sizes: Name to size in order, or sizes (blocks are then named 0 to M - 1), of sum D.
        validate_args: Whether to check the values of parameters and samples; None takes torch's default. Shapes and
            block names are always checked.

    Raises:
        ValueError: If shapes do not fit, or, under validation, a parameter is not finite or ``scale_tril`` is not
            lower triangular with a positive diagonal.

    Source: GMRF MCVAE, eq. 7, 8 and 12.
    """

    arg_constraints = {"mean": constraints.real_vector, "scale_tril": constraints.lower_cholesky}  # noqa: RUF012
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self, mean: Tensor, scale_tril: Tensor, block_sizes: BlockSizes, validate_args: bool | None = None
    ) -> None:
        sizes = as_block_sizes(block_sizes)
        dim = sum(sizes.values())
        if mean.ndim < 1 or mean.shape[-1] != dim:
            raise ValueError(f"mean has shape {tuple(mean.shape)}, blocks {sizes} need (*batch, {dim})")
        if scale_tril.ndim < 2 or scale_tril.shape[-2:] != (dim, dim):
            raise ValueError(
                f"scale_tril has shape {tuple(scale_tril.shape)}, blocks {sizes} need (*batch, {dim}, {dim})"
            )
        batch_shape = broadcast_batch({"mean": mean.shape[:-1], "scale_tril": scale_tril.shape[:-2]})
        self._set(mean, scale_tril, sizes, batch_shape)
        if validate_args is not None:
            self._validate_args = validate_args
        if self._validate_args:
            self._check_parameters()

    def _set(self, mean: Tensor, scale_tril: Tensor, sizes: dict[Hashable, int], batch_shape: Size) -> None:
        self.block_sizes = sizes
        self._mean = mean
        self._scale_tril = scale_tril  # not expanded: an unbatched factor is used once for the whole batch
        super().__init__(batch_shape, mean.shape[-1:], validate_args=False)
        del self._validate_args

    def _new(self, mean: Tensor, scale_tril: Tensor, names: Iterable[Hashable]) -> BlockGaussian:
        new = BlockGaussian.__new__(BlockGaussian)
        batch_shape = broadcast_shapes(mean.shape[:-1], scale_tril.shape[:-2])
        new._set(mean, scale_tril, {name: self.block_sizes[name] for name in names}, batch_shape)
        new._validate_args = self._validate_args
        return new

    def _check_parameters(self) -> None:
        for name, value in (("mean", self._mean), ("scale_tril", self._scale_tril)):
            if not bool(value.isfinite().all()):
                raise ValueError(f"{name} of shape {tuple(value.shape)} has NaN or infinite entries")
        if not bool((self._scale_tril == self._scale_tril.tril()).all()):
            raise ValueError(f"scale_tril of shape {tuple(self._scale_tril.shape)} is not lower triangular")
        if not bool((self._scale_tril.diagonal(dim1=-2, dim2=-1) > 0).all()):
            raise ValueError(f"scale_tril of shape {tuple(self._scale_tril.shape)} has non-positive diagonal entries")

    @classmethod
    def from_covariance(
        cls, mean: Tensor, covariance_matrix: Tensor, block_sizes: BlockSizes, validate_args: bool | None = None
    ) -> BlockGaussian:
        """The distribution of a given covariance.

        Arguments:
            mean: Mean, ``(*batch, D)``.
            covariance_matrix: Symmetric positive definite, ``(*batch, D, D)``; its lower triangle is read.
            block_sizes: Name to size, or sizes.
            validate_args: As in the constructor; also whether symmetry is checked.

        Raises:
            ValueError: If the covariance is not positive definite (or not symmetric), or as the constructor.
        """
        checked = Distribution._validate_args if validate_args is None else validate_args
        if covariance_matrix.ndim < 2 or covariance_matrix.shape[-1] != covariance_matrix.shape[-2]:
            raise ValueError(f"covariance_matrix must be square, got shape {tuple(covariance_matrix.shape)}")
        if checked and not torch.allclose(covariance_matrix, covariance_matrix.mT, rtol=1e-4, atol=1e-6):
            raise ValueError(f"covariance_matrix of shape {tuple(covariance_matrix.shape)} is not symmetric")
        return cls(mean, cholesky_factor(covariance_matrix), block_sizes, validate_args)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(batch_shape={tuple(self.batch_shape)}, block_sizes={self.block_sizes})"

    def expand(self, batch_shape: Size | Sequence[int], _instance: BlockGaussian | None = None) -> BlockGaussian:
        """The distribution with a larger batch shape, without a copy of the factor."""
        new = self._get_checked_instance(BlockGaussian, _instance)
        batch_shape = Size(batch_shape)
        new._set(self._mean.expand(*batch_shape, -1), self._scale_tril, dict(self.block_sizes), batch_shape)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        """Mean, ``(*batch, D)``."""
        return self._mean.expand(self._batch_shape + self._event_shape)

    @property
    def mode(self) -> Tensor:
        """Mode, equal to the mean."""
        return self.mean

    @property
    def scale_tril(self) -> Tensor:
        """Cholesky factor of the covariance, ``(*batch, D, D)``."""
        return self._matrix(self._scale_tril)

    @property
    def variance(self) -> Tensor:
        """Variance of each coordinate, ``(*batch, D)``."""
        return self._scale_tril.square().sum(-1).expand(self._batch_shape + self._event_shape)

    @property
    def covariance_matrix(self) -> Tensor:
        """Covariance, exactly symmetric, ``(*batch, D, D)``."""
        return self._matrix(self._scale_tril @ self._scale_tril.mT, symmetric=True)

    @property
    def precision_matrix(self) -> Tensor:
        """Inverse of the covariance, the Λ of GMRF MCVAE, eq. 6, exactly symmetric, ``(*batch, D, D)``."""
        return self._matrix(torch.cholesky_inverse(self._scale_tril), symmetric=True)

    def _matrix(self, matrix: Tensor, symmetric: bool = False) -> Tensor:
        # A product's two triangles may be rounded differently.
        matrix = (matrix + matrix.mT) / 2 if symmetric else matrix
        return matrix.expand(self._batch_shape + self._event_shape + self._event_shape)

    def rsample(self, sample_shape: Size | Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Reparameterised samples, z = mean + L u with u standard normal.

        Arguments:
            sample_shape: Leading shape of the samples.
            generator: Source of u, drawn on the generator's device; None draws from torch's global generator.

        Returns:
            Samples of shape ``(*sample_shape, *batch, D)``.
        """
        shape = self._extended_shape(Size(sample_shape))
        device = self._mean.device if generator is None else generator.device
        noise = torch.randn(shape, generator=generator, dtype=self._mean.dtype, device=device).to(self._mean.device)
        return self._mean + apply_to_rows(torch.matmul, self._scale_tril, noise)

    def sample(self, sample_shape: Size | Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Samples without gradient; see :meth:`rsample`."""
        with torch.no_grad():
            return self.rsample(sample_shape, generator)

    def _half_log_det(self) -> Tensor:
        return self._scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density in nats.

        Arguments:
            value: Points of shape ``(*any, D)``, broadcast against the batch shape.

        Raises:
            ValueError: If the last dimension is not D, or, under validation, an entry is NaN.
        """
        if value.shape[-1:] != self._event_shape:
            dim = self._event_shape[0]
            raise ValueError(f"value has shape {tuple(value.shape)}, blocks {self.block_sizes} need (..., {dim})")
        if self._validate_args and bool(value.isnan().any()):
            raise ValueError(f"value of shape {tuple(value.shape)} has NaN entries")
        return -0.5 * (self._event_shape[0] * math.log(2 * math.pi) + self._squares(value)) - self._half_log_det()

    def _squares(self, value: Tensor) -> Tensor:
        """Squared Mahalanobis distances of points from the mean, ``(*any)``."""
        lead = value.ndim - 1 - len(self._batch_shape)
        if lead < 1 or self._scale_tril.shape[:-2] != self._batch_shape:
            return apply_to_rows(solve_tril, self._scale_tril, value - self._mean).square().sum(-1)
        # The points of one Gaussian in one block of memory, which is what a solver is fast on.
        rows = (value.flatten(0, lead - 1).movedim(0, -2) - self._mean.unsqueeze(-2)).contiguous()
        rows = torch.linalg.solve_triangular(self._scale_tril.mT, rows, upper=True, left=False)
        return rows.square().sum(-1).movedim(-1, 0).unflatten(0, value.shape[:lead])

    def entropy(self) -> Tensor:
        """Differential entropy in nats, of the batch shape."""
        constant = 0.5 * self._event_shape[0] * (1 + math.log(2 * math.pi))
        return (constant + self._half_log_det()).expand(self._batch_shape)

    def split(self, z: Tensor) -> dict[Hashable, Tensor]:
        """Cuts a vector into its blocks.

        Arguments:
            z: Vectors of shape ``(*any, D)``.

        Raises:
            ValueError: If the last dimension is not D.
        """
        return split_blocks(self.block_sizes, z)

    def join(self, blocks: Mapping[Hashable, Tensor]) -> Tensor:
        """Puts all blocks together in the distribution's order, whatever that of the mapping.

        Arguments:
            blocks: Name to tensor of shape ``(*any, size)``; leading shapes broadcast.

        Raises:
            ValueError: If a block is missing or unknown, or a size is wrong.
        """
        if missing := [name for name in self.block_sizes if name not in blocks]:
            raise ValueError(f"blocks {missing} are missing")
        return join_blocks(self.block_sizes, blocks)

    def _tril_of(self, coordinates: list[int]) -> Tensor:
        """The Cholesky factor of the covariance of some coordinates in a given order."""
        k = len(coordinates)
        if coordinates == list(range(k)):
            return self._scale_tril[..., :k, :k]
        return rows_to_tril(self._scale_tril[..., coordinates, :])

    def marginal(self, names: Iterable[Hashable]) -> BlockGaussian:
        """The distribution of some blocks.

        Arguments:
            names: Names in any order; the result keeps the distribution's own order.

        Raises:
            ValueError: If a name is unknown, or there is none.
        """
        kept = ordered_blocks(self.block_sizes, names)
        coordinates = block_coordinates(self.block_sizes, kept)
        return self._new(self._mean[..., coordinates], self._tril_of(coordinates), kept)

    def condition(self, given: Mapping[Hashable, Tensor]) -> BlockGaussian:
        r"""The distribution of the remaining blocks given the others, in the distribution's order.

        .. math::
            \hat\mu = \mu_i + \Sigma_{ij} \Sigma_{jj}^{-1} (z_j - \mu_j), \quad
            \hat\Sigma = \Sigma_{ii} - \Sigma_{ij} \Sigma_{jj}^{-1} \Sigma_{ji}

        With the observed blocks first, the Cholesky factor [[A, 0], [B, C]] of the permuted covariance holds both: the
        mean is moved by B A⁻¹ (z_j − μ_j), and C is the factor of the conditional covariance.

        Arguments:
            given: Name to value of shape ``(*any, size)``; leading shapes broadcast with one another and with the
                batch shape. Any proper, non-empty subset of the blocks.

        Raises:
            ValueError: If a name is unknown, a size is wrong, or no block or every block is given.

        Source: GMRF MCVAE, eq. 9, 13 and 14, for any number of blocks on either side; MRF MVAE, eq. 8 and 18.
        """
        observed = ordered_blocks(self.block_sizes, given)
        rest = [name for name in self.block_sizes if name not in given]
        if not rest:
            raise ValueError(f"every block {observed} is given; none remains to be distributed")
        first, last = block_coordinates(self.block_sizes, observed), block_coordinates(self.block_sizes, rest)
        k = len(first)
        value = join_blocks(self.block_sizes, given)
        if self._validate_args and bool(value.isnan().any()):
            raise ValueError(f"the values of blocks {observed} have NaN entries")
        broadcast_batch({"the distribution": self._batch_shape, "the values": value.shape[:-1]})
        factor = self._tril_of(first + last)
        residual = apply_to_rows(solve_tril, factor[..., :k, :k], value - self._mean[..., first])
        mean = self._mean[..., last] + apply_to_rows(torch.matmul, factor[..., k:, :k], residual)
        return self._new(mean, factor[..., k:, k:], rest)


@register_kl(BlockGaussian, BlockGaussian)
def _kl_block_gaussian(p: BlockGaussian, q: BlockGaussian) -> Tensor:
    """KL(p || q) in nats; an unbatched q costs one triangular solve for the whole batch of p."""
    if list(p.block_sizes.items()) != list(q.block_sizes.items()):
        raise ValueError(f"blocks {p.block_sizes} and {q.block_sizes} differ")
    broadcast_batch({"p": p.batch_shape, "q": q.batch_shape})
    difference = p.mean - q.mean
    if q._scale_tril.ndim == 2 and p._scale_tril.shape[:-2] == difference.shape[:-1]:
        # The columns of every factor of p and every difference of means, in one right-hand side.
        rows = torch.cat([p._scale_tril.mT, difference.unsqueeze(-2)], -2)
        squares = apply_to_rows(solve_tril, q._scale_tril, rows).square().sum((-2, -1))
    else:
        trace = solve_tril(q._scale_tril, p._scale_tril).square().sum((-2, -1))
        squares = trace + apply_to_rows(solve_tril, q._scale_tril, difference).square().sum(-1)
    return q._half_log_det() - p._half_log_det() + 0.5 * (squares - p.event_shape[0])
