"""The learned Gaussian Markov random field that serves as GMRF MCVAE's prior."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from repro.distributions.block_gaussian import BlockGaussian
from repro.distributions.covariance import block_dominant_scale_tril, cholesky_scale_tril, num_cross_entries

__all__ = ["COVARIANCES", "BlockGaussianPrior", "num_off_diagonal"]

COVARIANCES = ("cholesky", "block_dominant")


def num_off_diagonal(covariance: str, sizes: Mapping[str, int]) -> int:
    """Free entries beside the diagonal: all of the factor's, or the cross-block ones (Sigma_jj is diagonal)."""
    total = sum(sizes.values())
    return total * (total - 1) // 2 if covariance == "cholesky" else num_cross_entries(sizes)


class BlockGaussianPrior(nn.Module):
    r"""A learned Gaussian Markov random field :math:`p(z) = N(\mu, \Sigma)`.

    Arguments:
        block_sizes: Modality to the number of its latents.
        covariance: ``"cholesky"``, a full factor with exponential diagonal; ``"block_dominant"``, the construction of
            section III-C5, which cannot express strong dependence among many components (erratum E17);
            ``"standard"``, :math:`N(0, I)` without parameters.
        dominance: ``"element"`` or ``"block"``, the form of the block-dominant construction.
        epsilon: Its :math:`\epsilon < 1`.
        delta: Its :math:`\delta > 0`.
        mask: Boolean over the entries beside the diagonal, those of the factor or the cross-block ones, False where
            they are zero.
        start: Value at which the entries beside the diagonal start; None draws them near zero.

    Raises:
        ValueError: If ``covariance`` is none of the three.
    """

    def __init__(
        self,
        block_sizes: Mapping[str, int],
        covariance: str = "cholesky",
        *,
        dominance: str = "element",
        epsilon: float = 0.9,
        delta: float = 1e-6,
        mask: Tensor | None = None,
        start: float | None = None,
    ) -> None:
        super().__init__()
        if covariance not in (*COVARIANCES, "standard"):
            raise ValueError(f"prior is {covariance!r}, must be one of {(*COVARIANCES, 'standard')}")
        self.block_sizes = dict(block_sizes)
        self.covariance = covariance
        self.dominance, self.epsilon, self.delta = dominance, epsilon, delta
        self.register_buffer("mask", mask, persistent=False)
        total = sum(self.block_sizes.values())
        if covariance == "standard":
            self.register_buffer("mean", torch.zeros(total), persistent=False)
            self.register_buffer("identity", torch.eye(total), persistent=False)
            return
        self.mean = nn.Parameter(torch.zeros(total))
        self.log_diagonal = nn.Parameter(torch.zeros(total))
        # Away from zero, where the gradient of the construction's norms vanishes.
        number = num_off_diagonal(covariance, self.block_sizes)
        self.off_diagonal = nn.Parameter(0.01 * torch.randn(number) if start is None else torch.full((number,), start))

    def forward(self) -> BlockGaussian:
        """The prior as a distribution without batch shape."""
        if self.covariance == "standard":
            tril = self.identity
        elif self.covariance == "cholesky":
            tril = cholesky_scale_tril(self.log_diagonal, self.off_diagonal, self.mask)
        else:
            cross = self.off_diagonal if self.mask is None else self.off_diagonal.masked_fill(~self.mask, 0.0)
            tril = block_dominant_scale_tril(
                (2 * self.log_diagonal).exp(),
                cross,
                self.block_sizes,
                epsilon=self.epsilon,
                delta=self.delta,
                form=self.dominance,
            )
        return BlockGaussian(self.mean, tril, self.block_sizes, validate_args=False)
