"""CoVAE's prior: a Gaussian over the modalities' latents whose blocks are white and correlated with one another."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from repro.distributions.block_gaussian import BlockGaussian
from repro.distributions.blocks import BlockSizes, as_block_sizes, cholesky_factor, solve_tril

__all__ = ["MAX_CORRELATION", "CorrelatedPrior", "cross_diagonal_covariance", "normalise_blocks"]

# Correlations are clipped here: at 1 the covariance of equation 5 is singular.
MAX_CORRELATION = 0.999


def cross_diagonal_covariance(correlations: Tensor, first: int, second: int) -> Tensor:
    r"""The covariance of two modalities' latents with unit blocks and correlations on the pseudo-diagonal.

    .. math:: \Sigma = \begin{pmatrix} I & R \\ R^\top & I \end{pmatrix}, \qquad R_{ij} = \rho_i \delta_{ij}

    Arguments:
        correlations: One for each pair of coordinates, ``(min(first, second),)``, in [0, 1).
        first: Latents of the first modality.
        second: Latents of the second.

    Returns:
        ``(first + second, first + second)``.

    Raises:
        ValueError: If there is another number of correlations, or one is outside [0, 1).

    Source: CoVAE, equation 5; a correlation for each pair by erratum E14.
    """
    if correlations.shape != (min(first, second),):
        raise ValueError(f"{tuple(correlations.shape)} correlations for blocks of {first} and {second} latents")
    if not bool(((correlations >= 0) & (correlations < 1)).all()):
        raise ValueError(f"correlations {correlations.tolist()} of the prior must lie in [0, 1)")
    covariance = torch.eye(first + second, dtype=correlations.dtype, device=correlations.device)
    i = torch.arange(len(correlations), device=correlations.device)
    covariance[i, first + i] = correlations
    covariance[first + i, i] = correlations
    return covariance


def normalise_blocks(covariance: Tensor, block_sizes: BlockSizes) -> Tensor:
    r"""A covariance after every diagonal block has been whitened: unit blocks, and positive definite as before.

    .. math:: W \Sigma W^\top, \qquad W = \operatorname{blockdiag}(L_k^{-1}), \quad L_k L_k^\top = \Sigma_{kk}

    Arguments:
        covariance: Positive definite, ``(D, D)``.
        block_sizes: Name to size, or sizes, of sum D.

    Raises:
        ValueError: If a diagonal block is not positive definite.
    """
    sizes = list(as_block_sizes(block_sizes).values())
    blocks = [b for b, _ in _diagonal_blocks(covariance, sizes)]
    eyes = [torch.eye(len(b), dtype=b.dtype, device=b.device) for b in blocks]
    inverse = [solve_tril(cholesky_factor(b), eye) for b, eye in zip(blocks, eyes, strict=True)]
    whiten = torch.block_diag(*inverse)
    return whiten @ covariance @ whiten.T


def _diagonal_blocks(covariance: Tensor, sizes: list[int]) -> list[tuple[Tensor, int]]:
    found, start = [], 0
    for size in sizes:
        found.append((covariance[start : start + size, start : start + size], start))
        start += size
    return found


class CorrelatedPrior(nn.Module):
    r"""The prior p(z) = N(0, Σ) over the blocks of all modalities, each white by itself.

    .. math:: \Sigma = S \begin{pmatrix} I & R_{12} & \dots \\ R_{12}^\top & I & \\ \vdots & & \ddots \end{pmatrix} S

    with S the identity, or the diagonal of learned standard deviations under ``marginal_variance``. It starts without
    correlations and is filled from Deep CCA by :meth:`set_correlations` (two modalities) or :meth:`set_covariance`. It
    is then frozen, or trained on with the model: for two modalities the correlations are sigmoids of free numbers, for
    more the covariance is that of a free Cholesky factor after whitening its blocks.

    Arguments:
        block_sizes: Modality to number of latents, in order.
        trainable: Whether correlations are trained with the model; the paper freezes them, Figure 11 trains them.
        marginal_variance: Whether each latent's standard deviation is learned.

    Raises:
        ValueError: If there are fewer than two blocks.

    Source: CoVAE, section 2.2, equation 5, Algorithm 1, appendix B.
    """

    def __init__(self, block_sizes: BlockSizes, *, trainable: bool = False, marginal_variance: bool = False) -> None:
        super().__init__()
        self.block_sizes = as_block_sizes(block_sizes)
        if len(self.block_sizes) < 2:
            raise ValueError(f"a correlated prior needs at least two modalities, got {list(self.block_sizes)}")
        self.trainable = trainable
        sizes, dim = list(self.block_sizes.values()), sum(self.block_sizes.values())
        if not trainable:
            self.register_buffer("factor", torch.eye(dim))
        elif len(sizes) == 2:
            self.logits = nn.Parameter(torch.full((min(sizes),), -4.0))  # correlations of 0.02
        else:
            self.raw = nn.Parameter(torch.eye(dim))
        self.log_scale = nn.Parameter(torch.zeros(dim)) if marginal_variance else None

    @torch.no_grad()
    def set_correlations(self, correlations: Tensor) -> None:
        """Fills the covariance of two modalities from one correlation for each pair of coordinates.

        Arguments:
            correlations: ``(min(d1, d2),)`` in [0, 1); those over :data:`MAX_CORRELATION` are clipped to it.

        Raises:
            ValueError: If there are not two modalities, another number of correlations, or one is outside [0, 1).
        """
        if len(self.block_sizes) != 2:
            raise ValueError(f"equation 5 is for two modalities, not {list(self.block_sizes)}; set a covariance")
        sizes = list(self.block_sizes.values())
        correlations = correlations.detach().double()
        covariance = cross_diagonal_covariance(correlations, *sizes)
        if self.trainable:
            self.logits.copy_(correlations.clamp(1e-4, MAX_CORRELATION).logit())
            return
        covariance = cross_diagonal_covariance(correlations.clamp_max(MAX_CORRELATION), *sizes)
        self.factor.copy_(cholesky_factor(covariance))

    @torch.no_grad()
    def set_covariance(self, covariance: Tensor) -> None:
        """Fills the covariance of any number of modalities.

        Arguments:
            covariance: Symmetric positive definite with unit diagonal blocks, ``(D, D)``.

        Raises:
            ValueError: If the shape does not fit, it is not symmetric or not positive definite, or a diagonal block is
                not the identity.
        """
        dim = sum(self.block_sizes.values())
        if covariance.shape != (dim, dim):
            raise ValueError(f"Sigma_prior has shape {tuple(covariance.shape)}, the blocks need ({dim}, {dim})")
        covariance = covariance.detach().double()
        if not torch.allclose(covariance, covariance.T, atol=1e-6):
            raise ValueError("Sigma_prior is not symmetric")
        for (block, _), name in zip(
            _diagonal_blocks(covariance, list(self.block_sizes.values())), self.block_sizes, strict=True
        ):
            if not torch.allclose(block, torch.eye(len(block), dtype=block.dtype, device=block.device), atol=1e-5):
                raise ValueError(
                    f"the block of {name!r} in Sigma_prior is not the identity; normalise_blocks makes it so"
                )
        smallest = float(torch.linalg.eigvalsh(covariance)[0])
        if smallest <= 0:
            raise ValueError(f"Sigma_prior is not positive definite: its smallest eigenvalue is {smallest:.3g}")
        if self.trainable and len(self.block_sizes) == 2:
            raise ValueError("a trainable prior of two modalities has the form of equation 5; set correlations")
        (self.raw if self.trainable else self.factor).copy_(cholesky_factor(covariance))

    def scale_tril(self) -> Tensor:
        """Cholesky factor of Σ, ``(D, D)``."""
        if not self.trainable:
            factor = self.factor
        elif len(self.block_sizes) == 2:
            rho = self.logits.sigmoid().clamp_max(MAX_CORRELATION)
            factor = cholesky_factor(cross_diagonal_covariance(rho, *self.block_sizes.values()))
        else:
            free = self.raw.tril()
            factor = cholesky_factor(normalise_blocks(free @ free.T, self.block_sizes))
        return factor if self.log_scale is None else self.log_scale.exp().unsqueeze(-1) * factor

    def forward(self) -> BlockGaussian:
        """The prior as a distribution."""
        tril = self.scale_tril()
        return BlockGaussian(torch.zeros_like(tril[0]), tril, self.block_sizes, validate_args=False)

    @torch.no_grad()
    def correlations(self) -> Tensor:
        """Canonical correlations of the first two blocks under Σ, descending, ``(min(d1, d2),)``."""
        names = list(self.block_sizes)[:2]
        covariance = self().marginal(names).covariance_matrix.double()
        white = normalise_blocks(covariance, {n: self.block_sizes[n] for n in names})
        first = self.block_sizes[names[0]]
        return torch.linalg.svdvals(white[:first, first:])
