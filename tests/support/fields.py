"""Markov random fields with known answers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from repro.distributions.block_gaussian import BlockGaussian
from repro.distributions.blocks import block_coordinates
from repro.distributions.pairwise_mrf import PairwiseMRF


class QuadraticField:
    """Potentials of a Gaussian field in natural parameters, eq. 5, for blocks of any sizes."""

    def __init__(self, precision: Tensor, eta: Tensor, sizes: dict[str, int], constant: float = 0.0) -> None:
        self.precision, self.eta, self.sizes, self.constant = precision, eta, sizes, constant
        self.spans = [block_coordinates(sizes, [name]) for name in sizes]
        self.blocks = [[precision[i][:, j].contiguous() for j in self.spans] for i in self.spans]
        self.etas = [eta[i] for i in self.spans]
        self.unary_calls: list[list[int]] = []
        self.pairwise_calls: list[list[tuple[int, int]]] = []

    def unary(self, blocks: Sequence[Tensor], positions: Sequence[int]) -> Tensor:
        self.unary_calls.append(list(positions))
        shift = self.constant / len(self.sizes)
        return torch.stack(
            [
                shift + x @ self.etas[i] - 0.5 * ((x @ self.blocks[i][i]) * x).sum(-1)
                for x, i in zip(blocks, positions, strict=True)
            ],
            -1,
        )

    def pairwise(self, left: Sequence[Tensor], right: Sequence[Tensor], pairs: Sequence[tuple[int, int]]) -> Tensor:
        self.pairwise_calls.append(list(pairs))
        return torch.stack(
            [-((x @ self.blocks[i][j]) * y).sum(-1) for x, y, (i, j) in zip(left, right, pairs, strict=True)], -1
        )

    def mrf(self, confinement: float | None = None) -> PairwiseMRF:
        return PairwiseMRF(self.unary, self.pairwise, self.sizes, confinement=confinement)

    def total_precision(self, confinement: float | None = None) -> Tensor:
        extra = 0.0 if confinement is None else confinement**-2
        return self.precision + extra * torch.eye(len(self.eta), dtype=self.eta.dtype)

    def gaussian(self, confinement: float | None = None) -> BlockGaussian:
        covariance = self.total_precision(confinement).inverse()
        return BlockGaussian.from_covariance(covariance @ self.eta, covariance, self.sizes)

    def log_partition(self, confinement: float | None = None) -> Tensor:
        precision = self.total_precision(confinement)
        quadratic = 0.5 * self.eta @ torch.linalg.solve(precision, self.eta)
        return self.constant + 0.5 * len(self.eta) * math.log(2 * math.pi) - 0.5 * precision.logdet() + quadratic


def quadratic_field(
    sizes: dict[str, int], seed: int = 0, coupling: float = 0.6, dtype: torch.dtype = torch.float64
) -> QuadraticField:
    """A Gaussian field with correlated blocks and a mean that is not zero."""
    g, dim = torch.Generator().manual_seed(seed), sum(sizes.values())
    factor = torch.eye(dim, dtype=torch.float64)
    factor += coupling * torch.randn(dim, dim, generator=g, dtype=torch.float64) / math.sqrt(dim)
    eta = torch.randn(dim, generator=g, dtype=torch.float64)
    return QuadraticField((factor @ factor.T).to(dtype), eta.to(dtype), sizes)


def double_well() -> PairwiseMRF:
    """Two coupled blocks of one coordinate with two wells each, which no Gaussian is like."""

    def unary(blocks: Sequence[Tensor], positions: Sequence[int]) -> Tensor:
        return torch.stack(
            [
                -((x.squeeze(-1).square() - 1) ** 2) + 0.2 * k * x.squeeze(-1)
                for x, k in zip(blocks, positions, strict=True)
            ],
            -1,
        )

    def pairwise(left: Sequence[Tensor], right: Sequence[Tensor], pairs: Sequence[tuple[int, int]]) -> Tensor:
        return torch.stack([torch.tanh(x * y).squeeze(-1) for x, y in zip(left, right, strict=True)], -1)

    return PairwiseMRF(unary, pairwise, [1, 1], confinement=3.0)
