"""Covariances of block vectors: Cholesky factors, and the construction by block diagonal dominance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from repro.distributions.blocks import BlockSizes, as_block_sizes, broadcast_shapes, cholesky_factor

__all__ = [
    "block_dominant_covariance",
    "block_dominant_scale_tril",
    "cholesky_scale_tril",
    "count_parameters",
    "num_cross_entries",
    "off_diagonal_mask",
    "random_mask",
    "tril_indices",
]


def tril_indices(dim: int) -> Tensor:
    """Rows and columns of the strictly lower triangle, row by row: (1, 0), (2, 0), (2, 1), (3, 0), ...

    Arguments:
        dim: Size D of the matrix.

    Returns:
        A tensor of shape ``(2, D (D - 1) / 2)``.
    """
    return torch.tril_indices(dim, dim, -1)


def num_cross_entries(block_sizes: BlockSizes) -> int:
    """Number of free entries outside the diagonal blocks, the sum of d_i d_j over the pairs i < j.

    Arguments:
        block_sizes: Name to size, or sizes.
    """
    sizes = as_block_sizes(block_sizes).values()
    return (sum(sizes) ** 2 - sum(d * d for d in sizes)) // 2


def count_parameters(block_sizes: BlockSizes, mask: Tensor | None = None) -> int:
    """Number of free parameters of a Gaussian: D means, D diagonal entries and the free off-diagonal ones.

    Published counts (erratum E10): the copula's four blocks of two dimensions, 8 + 36 = 44, and MRF MVAE's PolyMNIST
    with 84% of 3160 off-diagonal entries masked, 665, are reproduced. GMRF MCVAE's 660 with 75% masked is not: 25% of
    the 3160 off-diagonal entries makes 950, of the 2560 cross-block entries 800.

    Arguments:
        block_sizes: Name to size, or sizes.
        mask: Boolean vector over the off-diagonal entries (or over the cross-block entries where the diagonal blocks
            are diagonal), True where an entry is free; None if all D (D - 1) / 2 are.
    """
    dim = sum(as_block_sizes(block_sizes).values())
    return 2 * dim + (dim * (dim - 1) // 2 if mask is None else int(mask.sum()))


def random_mask(num_entries: int, fraction: float, seed: int | torch.Generator) -> Tensor:
    """A boolean vector with exactly floor(fraction x num_entries) entries True, drawn uniformly.

    Arguments:
        num_entries: Length of the vector.
        fraction: Fraction that is kept, in [0, 1].
        seed: A seed or a generator on the CPU; the global generator is not used.

    Raises:
        ValueError: If the fraction is outside [0, 1].
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must be in [0, 1], got {fraction}")
    generator = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
    kept = math.floor(fraction * num_entries + 1e-9)  # 0.29 x 100 is 28.999...96 in floating point
    mask = torch.zeros(num_entries, dtype=torch.bool)
    mask[torch.randperm(num_entries, generator=generator)[:kept]] = True
    return mask


def off_diagonal_mask(
    block_sizes: BlockSizes, fraction: float, seed: int | torch.Generator, *, entries: Literal["cross", "all"] = "cross"
) -> Tensor:
    """A mask for :func:`cholesky_scale_tril` that keeps a fraction of the off-diagonal entries.

    Arguments:
        block_sizes: Name to size, or sizes.
        fraction: Fraction that is kept, rounded down to a whole number of entries.
        seed: A seed or a generator on the CPU.
        entries: ``"all"`` draws among all off-diagonal entries (MRF MVAE); ``"cross"`` draws among the cross-block
            entries and keeps every entry within a block.

    Returns:
        A boolean tensor of shape ``(D (D - 1) / 2,)`` in the order of :func:`tril_indices`.

    Raises:
        ValueError: If ``entries`` is unknown, and as :func:`random_mask`.
    """
    sizes = as_block_sizes(block_sizes)
    rows, columns = tril_indices(sum(sizes.values()))
    if entries == "all":
        return random_mask(len(rows), fraction, seed)
    if entries != "cross":
        raise ValueError(f"entries must be 'cross' or 'all', got {entries!r}")
    block = torch.repeat_interleave(torch.tensor(list(sizes.values())))
    mask = block[rows] == block[columns]
    mask[~mask] = random_mask(num_cross_entries(sizes), fraction, seed)
    return mask


@lru_cache(maxsize=64)
def _tril_gather(dim: int, device: torch.device) -> Tensor:
    """For each cell of a D x D factor, the position of its entry in (off-diagonal, diagonal, zero)."""
    with torch.inference_mode(False):  # an inference tensor in the cache could not be saved for a later backward pass
        rows, columns = tril_indices(dim)
        cells = torch.full((dim, dim), len(rows) + dim)
        cells[rows, columns] = torch.arange(len(rows))
        cells.diagonal()[:] = torch.arange(dim) + len(rows)
        return cells.flatten().to(device)


@lru_cache(maxsize=64)
def _cross_gather(sizes: tuple[int, ...], device: torch.device) -> Tensor:
    """For each cell of a D x D matrix, the position of its entry in (cross-block entries, zero)."""
    with torch.inference_mode(False):
        n, ends = num_cross_entries(sizes), torch.tensor(sizes).cumsum(0).tolist()
        spans = [slice(end - d, end) for d, end in zip(sizes, ends, strict=True)]
        cells, start = torch.full((sum(sizes), sum(sizes)), n), 0
        for i, j in _pairs(len(sizes)):
            block = torch.arange(start, start + sizes[i] * sizes[j]).view(sizes[i], sizes[j])
            cells[spans[i], spans[j]], cells[spans[j], spans[i]] = block, block.mT
            start += block.numel()
        return cells.flatten().to(device)


def _pairs(n: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(n) for j in range(i + 1, n)]


def cholesky_scale_tril(log_diagonal: Tensor, off_diagonal: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""The lower-triangular factor L of a covariance, from unconstrained entries.

    .. math:: \Sigma = L L^\top, \quad L_{jj} = e^{\ell_j}, \quad L_{jk} = o_{jk}\, m_{jk} \quad (j > k)

    A zero of L is not in general a zero of the covariance.

    Arguments:
        log_diagonal: Logarithms of the diagonal, ``(*batch, D)``.
        off_diagonal: Strictly lower entries, row by row (:func:`tril_indices`), ``(*batch, D (D - 1) / 2)``.
        mask: Boolean, broadcastable to ``off_diagonal``, False where the entry is zero; None keeps all.

    Returns:
        The factor, of shape ``(*batch, D, D)``.

    Raises:
        ValueError: If the numbers of entries do not fit together.

    Source: GMRF MCVAE, eq. 8; the masks are those of the published counts (erratum E10).
    """
    dim = log_diagonal.shape[-1]
    if off_diagonal.shape[-1] != dim * (dim - 1) // 2:
        raise ValueError(
            f"off_diagonal has {off_diagonal.shape[-1]} entries, a factor of size {dim} needs {dim * (dim - 1) // 2}"
        )
    if mask is not None:
        if mask.dtype != torch.bool or mask.shape[-1] != off_diagonal.shape[-1]:
            raise ValueError(
                f"mask must be boolean with {off_diagonal.shape[-1]} entries, got {mask.dtype} of {tuple(mask.shape)}"
            )
        off_diagonal = off_diagonal.masked_fill(~mask, 0.0)
    zero = log_diagonal.new_zeros(*log_diagonal.shape[:-1], 1)
    if off_diagonal.shape[:-1] != log_diagonal.shape[:-1]:
        batch = broadcast_shapes(off_diagonal.shape[:-1], log_diagonal.shape[:-1])
        off_diagonal, log_diagonal, zero = (x.expand(*batch, -1) for x in (off_diagonal, log_diagonal, zero))
    entries = torch.cat([off_diagonal, log_diagonal.exp(), zero], -1)
    return entries.index_select(-1, _tril_gather(dim, entries.device)).unflatten(-1, (dim, dim))


def _spectral_norm(matrix: Tensor) -> Tensor:
    """Largest singular value over the last two dimensions, with a finite (sub)gradient everywhere.

    A vector's norm and the 2 x 2 closed form are sums of Euclidean norms, whose subgradient at zero is zero; otherwise
    the gradient of a singular value, u vᵀ, holds no gap between singular values and stays finite where they coincide.
    """
    if 1 in matrix.shape[-2:]:
        return torch.linalg.vector_norm(matrix, dim=(-2, -1))
    if matrix.shape[-2:] == (2, 2):
        a, b, c, d = matrix.flatten(-2).unbind(-1)
        sums = torch.stack([torch.stack([a + d, b - c], -1), torch.stack([a - d, b + c], -1)], -2)
        return torch.linalg.vector_norm(sums, dim=-1).sum(-1) / 2
    return torch.linalg.matrix_norm(matrix, ord=2)


def _row_sums(cross: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Sums of the spectral norms of each block row, of shape ``(*batch, number of blocks)``."""
    pairs = _pairs(len(sizes))
    blocks = cross.split([sizes[i] * sizes[j] for i, j in pairs], -1)
    groups: dict[tuple[int, int], list[int]] = {}
    for k, (i, j) in enumerate(pairs):
        groups.setdefault((sizes[i], sizes[j]), []).append(k)
    # Blocks of one shape go through one batched norm.
    norms = [_spectral_norm(torch.stack([blocks[k] for k in g], -2).unflatten(-1, s)) for s, g in groups.items()]
    order = tuple(pairs[k] for g in groups.values() for k in g)
    return torch.cat(norms, -1) @ _incidence(order, len(sizes), cross.dtype, cross.device)


@lru_cache(maxsize=64)
def _incidence(pairs: tuple[tuple[int, int], ...], n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Which of n blocks each pair contains, as a 0/1 matrix."""
    with torch.inference_mode(False):
        rows = torch.tensor([[float(k in pair) for k in range(n)] for pair in pairs])
        return rows.to(device, dtype)


def block_dominant_covariance(
    diagonal: Tensor | Sequence[Tensor],
    cross: Tensor,
    block_sizes: BlockSizes,
    *,
    epsilon: float = 0.9,
    delta: float = 1e-6,
    form: Literal["block", "element"] = "block",
    validate_args: bool = True,
) -> Tensor:
    r"""A positive definite covariance from free cross-block entries, by rescaling each block row.

    .. math::
        s_i = \sum_{j \ne i} \|\tilde\Sigma_{ij}\|_2 + \delta, \quad
        \alpha_i = \min\Big(1, \frac{\epsilon\, \lambda_i}{s_i}\Big), \quad
        \lambda_i = \|\Sigma_{ii}^{-1}\|_2^{-1}, \quad
        \Sigma_{ij} = \sqrt{\alpha_i \alpha_j}\, \tilde\Sigma_{ij}

    The result is positive definite, but not in general block diagonally dominant as the paper says (erratum E9): a row
    whose own factor is small can keep a large sum through neighbours with a factor of one. Positive definiteness needs
    no dominance. With :math:`y_i = \sqrt{\alpha_i}\,\|x_i\|` the cross terms of :math:`x^\top \Sigma x` are at most
    :math:`\sum_{i \ne j} \|\tilde\Sigma_{ij}\| y_i y_j \le \sum_{i \ne j} \|\tilde\Sigma_{ij}\| (y_i^2 + y_j^2)/2
    \le \sum_i s_i y_i^2 \le \epsilon \sum_i \lambda_i \|x_i\|^2`, so that

    .. math:: \Sigma \succeq (1 - \epsilon) \operatorname{blockdiag}(\Sigma_{ii})
              \succeq (1 - \epsilon) \operatorname{blockdiag}(\lambda_i I)

    with a strict margin as long as :math:`\epsilon < 1`. (The paper's Theorem 1 needs the strict inequality: under
    equality a matrix may be singular, as [[1, 1], [1, 1]] is; erratum E8.) The same bound limits what can be expressed:
    coordinates of M different components have a common correlation of at most :math:`\epsilon / (M - 1)`, so never 0.9
    among four (erratum E17); for such a prior use :func:`cholesky_scale_tril`.

    Arguments:
        diagonal: Variances ``(*batch, D)``, or one symmetric positive definite block ``(*batch, d_i, d_i)`` for each
            component, in order.
        cross: Entries of the blocks i < j, in the order (0, 1), (0, 2), ..., (1, 2), ..., each ``d_i x d_j`` block row
            by row, of shape ``(*batch, num_cross_entries(block_sizes))``; zero where an entry is masked.
        block_sizes: Name to size, or sizes.
        epsilon: Fraction of the smallest eigenvalue that the cross terms may use, in (0, 1); 0.9 to 0.95 in float32.
        delta: Positive constant added to each sum, in units of variance.
        form: ``"block"`` scales block rows by spectral norms; ``"element"`` treats each coordinate as a row of its
            own, with the absolute sum of its cross-block entries and its variance (no within-block covariance), and
            is much cheaper where blocks are larger than 2 x 2 (no singular values).
        validate_args: Whether to check the values of the diagonal, which waits for the device.

    Returns:
        The covariance, of shape ``(*batch, D, D)``.

    Raises:
        ValueError: If shapes do not fit ``block_sizes``, a constant is out of range, or the diagonal is not positive.

    Source: GMRF MCVAE, section III-C5, eq. 10, 11, 15 and 16; errata E8, E9, E17.
    """
    sizes = tuple(as_block_sizes(block_sizes).values())
    dim = sum(sizes)
    if not 0 < epsilon < 1 or not delta > 0:
        raise ValueError(f"epsilon must be in (0, 1) and delta positive, got epsilon={epsilon}, delta={delta}")
    if form not in ("block", "element"):
        raise ValueError(f"form must be 'block' or 'element', got {form!r}")
    if len(sizes) < 2 or cross.shape[-1] != num_cross_entries(sizes):
        raise ValueError(f"cross has {cross.shape[-1]} entries, blocks {sizes} need {num_cross_entries(sizes)}")
    within, smallest = _diagonal_part(diagonal, sizes, form)
    if validate_args and not bool((smallest > 0).all()):
        raise ValueError("diagonal must hold positive variances or positive definite blocks")
    zero = cross.new_zeros(*cross.shape[:-1], 1)
    gather = _cross_gather(sizes, cross.device)
    between = torch.cat([cross, zero], -1).index_select(-1, gather).unflatten(-1, (dim, dim))
    sums = between.abs().sum(-1) if form == "element" else _row_sums(cross, sizes)
    root = (epsilon * smallest / (sums + delta)).clamp(max=1.0).sqrt()
    if form == "block":
        root = root.repeat_interleave(torch.tensor(sizes, device=root.device), -1, output_size=dim)
    return within + between * (root.unsqueeze(-1) * root.unsqueeze(-2))


def _diagonal_part(diagonal: Tensor | Sequence[Tensor], sizes: tuple[int, ...], form: str) -> tuple[Tensor, Tensor]:
    """The block diagonal matrix and the smallest eigenvalue of each row's block (or each variance)."""
    if isinstance(diagonal, Tensor):
        if diagonal.shape[-1:] != (sum(sizes),):
            raise ValueError(f"diagonal has shape {tuple(diagonal.shape)}, blocks {sizes} need (..., {sum(sizes)})")
        if form == "element":
            return torch.diag_embed(diagonal), diagonal
        return torch.diag_embed(diagonal), torch.stack([v.amin(-1) for v in diagonal.split(sizes, -1)], -1)
    if form == "element":
        raise ValueError("the element form takes variances, not diagonal blocks")
    shapes = [tuple(block.shape[-2:]) for block in diagonal]
    if shapes != [(d, d) for d in sizes]:
        raise ValueError(f"diagonal blocks have shapes {shapes}, blocks of sizes {sizes} are needed")
    batch = broadcast_shapes(*(block.shape[:-2] for block in diagonal))
    blocks = [((b + b.mT) / 2).expand(*batch, -1, -1) for b in diagonal]
    rows = [
        functional.pad(b, (before, sum(sizes) - before - d))
        for b, d, before in zip(blocks, sizes, (sum(sizes[:i]) for i in range(len(sizes))), strict=True)
    ]
    return torch.cat(rows, -2), torch.stack([torch.linalg.eigvalsh(b)[..., 0] for b in blocks], -1)


def block_dominant_scale_tril(
    diagonal: Tensor | Sequence[Tensor],
    cross: Tensor,
    block_sizes: BlockSizes,
    *,
    epsilon: float = 0.9,
    delta: float = 1e-6,
    form: Literal["block", "element"] = "block",
    validate_args: bool = True,
) -> Tensor:
    r"""The Cholesky factor of :func:`block_dominant_covariance`.

    After scaling to unit variances (diagonal blocks), every eigenvalue is at least :math:`1 - \epsilon`, whatever the
    spread of the variances; the factorisation therefore succeeds in float32 for epsilon up to about 0.95.

    Arguments:
        diagonal: As in :func:`block_dominant_covariance`.
        cross: As in :func:`block_dominant_covariance`.
        block_sizes: Name to size, or sizes.
        epsilon: Fraction of the smallest eigenvalue that the cross terms may use, in (0, 1).
        delta: Positive constant added to each sum, in units of variance.
        form: ``"block"`` or ``"element"``.
        validate_args: Whether to check the values of the diagonal.

    Returns:
        The factor, of shape ``(*batch, D, D)``.

    Raises:
        ValueError: As :func:`block_dominant_covariance`, or if the factorisation fails.

    Source: GMRF MCVAE, section III-C5; erratum E9.
    """
    return cholesky_factor(
        block_dominant_covariance(
            diagonal, cross, block_sizes, epsilon=epsilon, delta=delta, form=form, validate_args=validate_args
        )
    )
