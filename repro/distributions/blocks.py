"""Vectors partitioned in named blocks: names, coordinates, and the linear algebra that block distributions share."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from operator import index

import numpy as np
import torch
from torch import Size, Tensor

__all__ = [
    "BlockSizes",
    "apply_to_rows",
    "as_block_sizes",
    "block_coordinates",
    "broadcast_batch",
    "broadcast_shapes",
    "cholesky_factor",
    "join_blocks",
    "ordered_blocks",
    "rows_to_tril",
    "solve_tril",
    "split_blocks",
]

BlockSizes = Mapping[Hashable, int] | Sequence[int]


def as_block_sizes(block_sizes: BlockSizes) -> dict[Hashable, int]:
    """Block sizes as an ordered dictionary; the blocks of a sequence are named 0 to n - 1.

    Arguments:
        block_sizes: Name to size, or sizes.

    Raises:
        ValueError: If there is no block, or a size is not a positive integer.
    """
    named = block_sizes if isinstance(block_sizes, Mapping) else dict(enumerate(block_sizes))
    try:
        sizes = {name: index(size) for name, size in named.items()}
    except TypeError as error:
        raise ValueError(f"block_sizes must be positive integers, got {dict(named)}") from error
    if not sizes or min(sizes.values()) < 1:
        raise ValueError(f"block_sizes must be positive integers, at least one, got {sizes}")
    return sizes


def ordered_blocks(sizes: Mapping[Hashable, int], names: Iterable[Hashable]) -> list[Hashable]:
    """The given names without repetition, in the order of the partition.

    Arguments:
        sizes: Name to size, of the whole partition.
        names: Some of its names, in any order.

    Raises:
        ValueError: If a name is unknown, or there is none.
    """
    names = list(names)
    if unknown := [name for name in names if name not in sizes]:
        raise ValueError(f"unknown blocks {unknown}; the distribution has {list(sizes)}")
    if not names:
        raise ValueError(f"no block is named; the distribution has {list(sizes)}")
    return [name for name in sizes if name in names]


def block_coordinates(sizes: Mapping[Hashable, int], names: Iterable[Hashable]) -> list[int]:
    """The coordinates of some blocks, in the order of the names.

    Arguments:
        sizes: Name to size, of the whole partition.
        names: Some of its names.
    """
    spans, start = {}, 0
    for name, size in sizes.items():
        spans[name] = range(start, start + size)
        start += size
    return [i for name in names for i in spans[name]]


def split_blocks(sizes: Mapping[Hashable, int], z: Tensor) -> dict[Hashable, Tensor]:
    """Cuts vectors of shape ``(*any, D)`` into blocks.

    Arguments:
        sizes: Name to size, of sum D.
        z: The vectors.

    Raises:
        ValueError: If the last dimension is not D.
    """
    if z.ndim < 1 or z.shape[-1] != sum(sizes.values()):
        raise ValueError(f"z has shape {tuple(z.shape)}, blocks {dict(sizes)} need (..., {sum(sizes.values())})")
    return dict(zip(sizes, z.split(list(sizes.values()), -1), strict=True))


def join_blocks(sizes: Mapping[Hashable, int], blocks: Mapping[Hashable, Tensor]) -> Tensor:
    """Puts some blocks together, in the order of the partition.

    Arguments:
        sizes: Name to size, of the whole partition.
        blocks: Name to tensor of shape ``(*any, size)``; leading shapes broadcast.

    Raises:
        ValueError: If a name is unknown, there is none, a size is wrong, or leading shapes do not broadcast.
    """
    names = ordered_blocks(sizes, blocks)
    for name in names:
        if blocks[name].shape[-1:] != (sizes[name],):
            raise ValueError(f"block {name!r} has shape {tuple(blocks[name].shape)}, size {sizes[name]} is needed")
    lead = broadcast_batch({f"block {name!r}": blocks[name].shape[:-1] for name in names})
    return torch.cat([blocks[name].expand(*lead, -1) for name in names], -1)


def broadcast_shapes(*shapes: Sequence[int]) -> Size:
    """The common shape that shapes broadcast to.

    PyTorch's function of that name imports its symbolic algebra at the first call, which takes seconds.

    Raises:
        ValueError: If they do not broadcast.
    """
    return Size(np.broadcast_shapes(*(tuple(s) for s in shapes)))


def broadcast_batch(shapes: Mapping[str, Size]) -> Size:
    """The common shape that some named batch shapes broadcast to.

    Arguments:
        shapes: What a shape belongs to, and the shape.

    Raises:
        ValueError: If they do not broadcast.
    """
    try:
        return broadcast_shapes(*shapes.values())
    except ValueError as error:
        listed = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
        raise ValueError(f"batch shapes do not broadcast: {listed}") from error


def cholesky_factor(covariance: Tensor) -> Tensor:
    """The Cholesky factor of a covariance.

    Arguments:
        covariance: Symmetric positive definite, of shape ``(*batch, D, D)``.

    Raises:
        ValueError: If a matrix is not positive definite in its floating point format.
    """
    factor, info = torch.linalg.cholesky_ex(covariance)
    if bool(info.any()):
        raise ValueError(
            f"covariance of shape {tuple(covariance.shape)} is not positive definite in {covariance.dtype} "
            f"for {int((info != 0).sum())} of {info.numel()} matrices"
        )
    return factor


def apply_to_rows(operation: Callable[[Tensor, Tensor], Tensor], matrix: Tensor, rows: Tensor) -> Tensor:
    """Applies ``operation(matrix, columns)`` to vectors that are held in rows.

    The matrix is not copied over leading dimensions that only the rows have: those become the columns of one
    right-hand side.

    Arguments:
        operation: Such as ``torch.matmul`` or :func:`solve_tril`.
        matrix: Of shape ``(*batch, E, D)``.
        rows: Of shape ``(*any, D)``, leading shape broadcast against the batch shape.

    Returns:
        The results in rows, ``(*any, E)``.
    """
    lead = rows.ndim - matrix.ndim + 1
    if lead > 0 and rows.shape[lead:-1] == matrix.shape[:-2]:
        columns = rows.reshape(math.prod(rows.shape[:lead]), *rows.shape[lead:]).movedim(0, -1)
        return operation(matrix, columns).movedim(-1, 0).reshape(*rows.shape[:-1], matrix.shape[-2])
    return operation(matrix, rows.unsqueeze(-1)).squeeze(-1)


def solve_tril(scale_tril: Tensor, columns: Tensor) -> Tensor:
    """Solves L X = B for a lower-triangular L.

    Arguments:
        scale_tril: L, of shape ``(*batch, D, D)``.
        columns: B, of shape ``(*batch, D, K)``.
    """
    return torch.linalg.solve_triangular(scale_tril, columns, upper=False)


def rows_to_tril(rows: Tensor) -> Tensor:
    """The Cholesky factor of A Aᵀ from A, by an orthogonal factorisation of Aᵀ.

    Neither A Aᵀ, which would square the condition number, nor a difference of covariances is formed.

    Arguments:
        rows: A of full row rank, ``(*batch, K, D)`` with K at most D.

    Returns:
        A lower-triangular matrix with a positive diagonal, ``(*batch, K, K)``.
    """
    factor = torch.linalg.qr(rows.mT).R.mT
    signs = torch.where(factor.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(factor.dtype)
    return factor * signs.unsqueeze(-2)
