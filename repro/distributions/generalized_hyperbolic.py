"""Generalised hyperbolic distribution over a vector partitioned in named blocks, closed under conditioning."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, Self, TypeVar

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, constraints

from repro.distributions.block_gaussian import BlockGaussian
from repro.distributions.blocks import (
    BlockSizes,
    apply_to_rows,
    as_block_sizes,
    block_coordinates,
    broadcast_batch,
    broadcast_shapes,
    join_blocks,
    ordered_blocks,
    rows_to_tril,
    solve_tril,
    split_blocks,
)
from repro.distributions.generalized_inverse_gaussian import GeneralizedInverseGaussian, gig_log_normalizer

__all__ = ["GeneralizedHyperbolic"]

Kind = TypeVar("Kind", bound="GeneralizedHyperbolic")


class GeneralizedHyperbolic(Distribution):
    r"""A normal variance-mean mixture over named blocks, mixed by a generalised inverse Gaussian.

    .. math:: Y = \mu + a W + \sqrt{W} X, \quad W \sim \mathrm{GIG}(\lambda, \chi, \psi), \quad X \sim
        \mathcal{N}(0, L L^\top)

    In the paper's symbols a = Δβ, χ = δ², ψ = ξ², Δ = L Lᵀ. Marginals and conditionals are of the same family. The
    density is infinite at Y = μ where χ = 0 and λ ≤ D/2.

    Arguments:
        loc: Location μ, ``(*batch, D)``.
        skew: Skew a, ``(*batch, D)``.
        scale_tril: Lower-triangular factor L with a positive diagonal, ``(*batch, D, D)``.
        order: λ, a number, or a tensor of shape ``(*batch)`` that needs no gradient.
        chi: χ ≥ 0, a number or ``(*batch)``; positive where λ ≤ 0.
        psi: ψ ≥ 0, a number or ``(*batch)``; positive where λ ≥ 0. All batch shapes broadcast.
        block_sizes: Name to size in order, or sizes (blocks are then named 0 to M - 1), of sum D.
        validate_args: Whether to check the values of parameters and samples; None takes torch's default. Shapes and
            block names are always checked.

    Raises:
        ValueError: If shapes do not fit, or, under validation, a parameter is not finite or outside its range.

    Source: MRF MVAE, eq. 14 and 33, appendix B.2.
    """

    arg_constraints = {"loc": constraints.real_vector, "scale_tril": constraints.lower_cholesky}  # noqa: RUF012
    support = constraints.real_vector
    has_rsample = True
    _skew_name = "skew"  # what messages call it

    def __init__(
        self,
        loc: Tensor,
        skew: Tensor,
        scale_tril: Tensor,
        order: float | Tensor,
        chi: float | Tensor,
        psi: float | Tensor,
        block_sizes: BlockSizes,
        validate_args: bool | None = None,
    ) -> None:
        sizes = as_block_sizes(block_sizes)
        dim = sum(sizes.values())
        batch_shapes = {}
        for name, value, tail in ((self._skew_name, skew, 1), ("loc", loc, 1), ("scale_tril", scale_tril, 2)):
            if value.shape[-tail:] != (dim,) * tail:
                needed = ", ".join(["*batch"] + [str(dim)] * tail)
                raise ValueError(f"{name} has shape {tuple(value.shape)}, blocks {sizes} need ({needed})")
            batch_shapes[name] = value.shape[:-tail]
        chi, psi = (torch.as_tensor(x, dtype=loc.dtype, device=loc.device) for x in (chi, psi))
        mixing = GeneralizedInverseGaussian(order, chi, psi, validate_args)
        batch_shape = broadcast_batch(batch_shapes | {"order, chi and psi": mixing.batch_shape})
        self._set(loc, skew, scale_tril, mixing, sizes, batch_shape)
        if validate_args is not None:
            self._validate_args = validate_args
        if self._validate_args:
            self._check_parameters()

    def _set(
        self,
        loc: Tensor,
        skew: Tensor,
        scale_tril: Tensor,
        mixing: GeneralizedInverseGaussian,
        sizes: dict[Hashable, int],
        batch_shape: Size,
    ) -> None:
        self.block_sizes = sizes
        self._loc, self._skew, self._mixing = loc, skew, mixing
        self._scale_tril = scale_tril  # not expanded: an unbatched factor is used once for the whole batch
        super().__init__(batch_shape, loc.shape[-1:], validate_args=False)
        del self._validate_args

    def _new(
        self,
        kind: type[Kind],
        loc: Tensor,
        skew: Tensor,
        scale: Tensor,
        mixing: GeneralizedInverseGaussian,
        names: Iterable[Hashable],
    ) -> Kind:
        new = kind.__new__(kind)
        lead = broadcast_shapes(loc.shape[:-1], skew.shape[:-1], scale.shape[:-2], mixing.batch_shape)
        new._set(loc, skew, scale, mixing, {name: self.block_sizes[name] for name in names}, lead)
        new._validate_args = self._validate_args
        return new

    def _check_parameters(self) -> None:
        for name, value in (("loc", self._loc), (self._skew_name, self._skew), ("scale_tril", self._scale_tril)):
            if not bool(value.isfinite().all()):
                raise ValueError(f"{name} of shape {tuple(value.shape)} has NaN or infinite entries")
        if not bool((self._scale_tril == self._scale_tril.tril()).all()):
            raise ValueError(f"scale_tril of shape {tuple(self._scale_tril.shape)} is not lower triangular")
        if not bool((self._scale_tril.diagonal(dim1=-2, dim2=-1) > 0).all()):
            raise ValueError(f"scale_tril of shape {tuple(self._scale_tril.shape)} has non-positive diagonal entries")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(batch_shape={tuple(self.batch_shape)}, block_sizes={self.block_sizes})"

    def expand(self, batch_shape: Size | Sequence[int], _instance: Any = None) -> Self:
        """The distribution with a larger batch shape, without a copy of the factor."""
        new = self._get_checked_instance(type(self), _instance)
        batch_shape = Size(batch_shape)
        loc = self._loc.expand(*batch_shape, -1)
        new._set(loc, self._skew, self._scale_tril, self._mixing, dict(self.block_sizes), batch_shape)
        new._validate_args = self._validate_args
        return new

    def _vector(self, value: Tensor) -> Tensor:
        return value.expand(self._batch_shape + self._event_shape)

    @property
    def loc(self) -> Tensor:
        """Location μ, ``(*batch, D)``; not the mean."""
        return self._vector(self._loc)

    @property
    def skew(self) -> Tensor:
        """Skew a, ``(*batch, D)``."""
        return self._vector(self._skew)

    @property
    def scale_tril(self) -> Tensor:
        """Cholesky factor L of the scale, ``(*batch, D, D)``; L Lᵀ is not the covariance."""
        return self._scale_tril.expand(self._batch_shape + self._event_shape + self._event_shape)

    @property
    def mixing(self) -> GeneralizedInverseGaussian:
        """The distribution of W, of the batch shape."""
        return self._mixing.expand(self._batch_shape)

    @property
    def mean(self) -> Tensor:
        """Mean μ + a E[W], ``(*batch, D)``."""
        return self._vector(self._loc + self._skew * self._mixing.mean.unsqueeze(-1))

    @property
    def variance(self) -> Tensor:
        """Variance of each coordinate, ``(*batch, D)``."""
        return self._vector(self._covariance_rows().square().sum(-1))

    @property
    def covariance_matrix(self) -> Tensor:
        r"""Covariance, exactly symmetric, ``(*batch, D, D)``.

        .. math:: E[W] L L^\top + \mathrm{Var}[W] a a^\top

        Source: MRF MVAE, eq. 36 with the factor of the second term corrected to Var[W] (erratum E4).
        """
        rows = self._covariance_rows()
        product = rows @ rows.mT
        return ((product + product.mT) / 2).expand(self._batch_shape + self._event_shape + self._event_shape)

    def _covariance_rows(self) -> Tensor:
        """A matrix A of D + 1 columns with A Aᵀ the covariance."""
        scale = self._mixing.mean.sqrt()[..., None, None] * self._scale_tril
        skew = (self._mixing.variance.sqrt().unsqueeze(-1) * self._skew).unsqueeze(-1)
        lead = broadcast_shapes(scale.shape[:-2], skew.shape[:-2])
        return torch.cat([scale.expand(*lead, -1, -1), skew.expand(*lead, -1, -1)], -1)

    def matched_gaussian(self) -> BlockGaussian:
        """The Gaussian of the same mean and covariance, over the same blocks.

        Raises:
            ValueError: If the mean or the covariance is infinite (ψ = 0), or the covariance is 0 (χ = 0 and λ ≤ 0).

        Source: MRF MVAE, appendix D.2, which samples it in place of the conditional; eq. 36 corrected (erratum E4).
        """
        mean, rows = self.mean, self._covariance_rows()
        if self._validate_args and not bool(
            mean.isfinite().all() and rows.isfinite().all() and (rows != 0).any(-1).all()
        ):
            raise ValueError(
                f"no Gaussian matches {self!r}: its mean or covariance is infinite, or its covariance is 0"
            )
        return BlockGaussian(mean, rows_to_tril(rows), self.block_sizes, self._validate_args)

    def _draw_mixing(self, shape: Size, generator: torch.Generator | None) -> Tensor:
        return self.mixing.rsample(shape[: len(shape) - len(self._batch_shape)], generator)

    def rsample(self, sample_shape: Size | Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Reparameterised samples, Y = μ + a W + √W L u with u standard normal.

        The gradient flows to μ, a and L through this equation, and to χ and ψ through W by implicit
        reparameterisation (:meth:`GeneralizedInverseGaussian.rsample`); λ has none.

        Arguments:
            sample_shape: Leading shape of the samples.
            generator: Source of W and u, drawn on its device; None draws from torch's global generator.

        Returns:
            Samples of shape ``(*sample_shape, *batch, D)``.
        """
        shape = self._extended_shape(Size(sample_shape))
        mixing = self._draw_mixing(shape[:-1], generator).unsqueeze(-1)
        device = self._loc.device if generator is None else generator.device
        noise = torch.randn(shape, generator=generator, dtype=self._loc.dtype, device=device).to(self._loc.device)
        normal = apply_to_rows(torch.matmul, self._scale_tril, noise)
        return self._loc + self._skew * mixing + mixing.sqrt() * normal

    def sample(self, sample_shape: Size | Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Samples without gradient; see :meth:`rsample`."""
        with torch.no_grad():
            return self.rsample(sample_shape, generator)

    def log_prob(self, value: Tensor) -> Tensor:
        r"""Log-density in nats; +inf at the location where the density is infinite.

        .. math::
            p(y) = \frac{e^{a^\top \Sigma^{-1} (y - \mu)}}{(2 \pi)^{D/2} |\Sigma|^{1/2}}
            \frac{Z(\lambda - D/2, \chi + Q^2, \psi + C^2)}{Z(\lambda, \chi, \psi)}, \quad
            Q^2 = (y - \mu)^\top \Sigma^{-1} (y - \mu), \quad C^2 = a^\top \Sigma^{-1} a

        with Z the generalised inverse Gaussian's integral and Σ = L Lᵀ.

        Computed in double precision, whatever that of the parameters: far out along a long skew the exponent and ln Z
        are about ±Q C, and their difference is of the order of 1.

        Arguments:
            value: Points of shape ``(*any, D)``, broadcast against the batch shape.

        Returns:
            Of the precision of the points and parameters.

        Raises:
            ValueError: If the last dimension is not D, or, under validation, an entry is NaN.

        Source: MRF MVAE, eq. 27 with the exponents' dimension that of the target (erratum E3).
        """
        dim = self._event_shape[0]
        if value.shape[-1:] != self._event_shape:
            raise ValueError(f"value has shape {tuple(value.shape)}, blocks {self.block_sizes} need (..., {dim})")
        if self._validate_args and bool(value.isnan().any()):
            raise ValueError(f"value of shape {tuple(value.shape)} has NaN entries")
        tril = self._scale_tril.double()
        distance = apply_to_rows(solve_tril, tril, value.double() - self._loc.double())
        skew = apply_to_rows(solve_tril, tril, self._skew.double())
        order = self._mixing.order
        chi, psi = self._mixing.chi.double(), self._mixing.psi.double()
        integral = gig_log_normalizer(order - dim / 2, chi + distance.square().sum(-1), psi + skew.square().sum(-1))
        half_log_det = tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        constant = half_log_det + gig_log_normalizer(order, chi, psi) + 0.5 * dim * math.log(2 * math.pi)
        log_prob = ((distance * skew).sum(-1) + integral - constant).to(torch.result_type(value, self._loc))
        return log_prob.expand(broadcast_shapes(log_prob.shape, self._batch_shape))

    @property
    def rounding(self) -> Tensor:
        r"""How far rounding moves a draw, in units of the scale, ``(*batch)``.

        .. math:: \varepsilon \, \lVert L^{-1} \rVert_F \, \lVert E[Y] \rVert

        with ε the spacing of the draws' numbers. Where it is not small, the density at a draw is that of another point:
        of its logarithm nothing is known then, however it is computed.
        """
        tril = self._scale_tril.double()
        inverse = torch.linalg.solve_triangular(tril, torch.eye(tril.shape[-1]).to(tril).expand_as(tril), upper=False)
        spacing = torch.finfo(self._loc.dtype).eps
        found = spacing * inverse.square().sum((-2, -1)).sqrt() * self.mean.double().norm(dim=-1)
        return found.expand(self._batch_shape)

    def split(self, z: Tensor) -> dict[Hashable, Tensor]:
        """Cuts vectors of shape ``(*any, D)`` into blocks; a ValueError if the last dimension is not D."""
        return split_blocks(self.block_sizes, z)

    def join(self, blocks: Mapping[Hashable, Tensor]) -> Tensor:
        """Puts all blocks together in the distribution's order; ValueError if one is missing, unknown or ill-sized."""
        if missing := [name for name in self.block_sizes if name not in blocks]:
            raise ValueError(f"blocks {missing} are missing")
        return join_blocks(self.block_sizes, blocks)

    def _tril_of(self, coordinates: list[int]) -> Tensor:
        """The Cholesky factor of the scale of some coordinates in a given order."""
        k = len(coordinates)
        if coordinates == list(range(k)):
            return self._scale_tril[..., :k, :k]
        return rows_to_tril(self._scale_tril[..., coordinates, :])

    def marginal(self, names: Iterable[Hashable]) -> Self:
        """The distribution of some blocks, of the same kind and with the same W.

        Arguments:
            names: Names in any order; the result keeps the distribution's own order.

        Raises:
            ValueError: If a name is unknown, or there is none.
        """
        kept = ordered_blocks(self.block_sizes, names)
        at = block_coordinates(self.block_sizes, kept)
        loc, skew = self._loc[..., at], self._skew[..., at]
        return self._new(type(self), loc, skew, self._tril_of(at), self._mixing, kept)

    def condition(self, given: Mapping[Hashable, Tensor]) -> GeneralizedHyperbolic:
        r"""The distribution of the remaining blocks i given blocks j of total dimension d_j.

        .. math::
            \mu' = \mu_i + B (z_j - \mu_j), \quad a' = a_i - B a_j, \quad \Sigma' = \Sigma_{ii} - B \Sigma_{ji}, \quad
            B = \Sigma_{ij} \Sigma_{jj}^{-1} \\
            \lambda' = \lambda - d_j / 2, \quad
            \chi' = \chi + (z_j - \mu_j)^\top \Sigma_{jj}^{-1} (z_j - \mu_j), \quad
            \psi' = \psi + a_j^\top \Sigma_{jj}^{-1} a_j

        Arguments:
            given: Name to value of shape ``(*any, size)``; leading shapes broadcast with one another and with the
                batch shape. Any proper, non-empty subset of the blocks.

        Raises:
            ValueError: If a name is unknown, a size is wrong, no block or every block is given, or, under validation,
                a value is not finite, or χ = 0, λ ≤ d_j/2 and a value is exactly the location: the density of z_j is
                infinite there. Without validation this gives the limit, all mass at μ'.

        Source: MRF MVAE, corollary 1 and eq. 27 with λ = 1 − d_j/2 (erratum E3), for any number of blocks.
        """
        observed = ordered_blocks(self.block_sizes, given)
        rest = [name for name in self.block_sizes if name not in given]
        if not rest:
            raise ValueError(f"every block {observed} is given; none remains to be distributed")
        first, last = block_coordinates(self.block_sizes, observed), block_coordinates(self.block_sizes, rest)
        k = len(first)
        value = join_blocks(self.block_sizes, given)
        if self._validate_args and not bool(value.isfinite().all()):
            raise ValueError(f"the values of blocks {observed} have NaN or infinite entries")
        broadcast_batch({"the distribution": self._batch_shape, "the values": value.shape[:-1]})
        factor = self._tril_of(first + last)
        distance = apply_to_rows(solve_tril, factor[..., :k, :k], value - self._loc[..., first])
        skew = apply_to_rows(solve_tril, factor[..., :k, :k], self._skew[..., first])
        order = self._mixing.order - k / 2
        chi, psi = self._mixing.chi + distance.square().sum(-1), self._mixing.psi + skew.square().sum(-1)
        if self._validate_args and bool(((chi == 0) & (torch.as_tensor(order) <= 0).to(chi.device)).any()):
            raise ValueError(
                f"the values of blocks {observed} are exactly the location, where their density is infinite: "
                f"the rest has no density given them"
            )
        mixing = GeneralizedInverseGaussian(order, chi, psi, validate_args=False)
        mixing._validate_args = self._validate_args
        loc = self._loc[..., last] + apply_to_rows(torch.matmul, factor[..., k:, :k], distance)
        new_skew = self._skew[..., last] - apply_to_rows(torch.matmul, factor[..., k:, :k], skew)
        return self._new(GeneralizedHyperbolic, loc, new_skew, factor[..., k:, k:], mixing, rest)
