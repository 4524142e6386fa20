"""Pairwise Markov random field over named blocks, given by unary and pairwise potentials."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Size, Tensor

from repro.distributions.blocks import (
    BlockSizes,
    as_block_sizes,
    broadcast_batch,
    join_blocks,
    ordered_blocks,
    split_blocks,
)
from repro.distributions.mcmc import MCMCDiagnostics, mala, metropolis

__all__ = ["PairwiseFunction", "PairwiseMRF", "UnaryFunction"]


class UnaryFunction(Protocol):
    """Unary potentials of K blocks in one call."""

    def __call__(self, blocks: Sequence[Tensor], positions: Sequence[int]) -> Tensor:
        """Blocks ``(*lead, d_k)`` and their positions 0 to M - 1, to values in nats ``(*lead, K)``."""


class PairwiseFunction(Protocol):
    """Pairwise potentials of K pairs in one call."""

    def __call__(self, left: Sequence[Tensor], right: Sequence[Tensor], pairs: Sequence[tuple[int, int]]) -> Tensor:
        """Blocks and partners ``(*lead, d_k)`` and their positions i < j, to values in nats ``(*lead, K)``."""


class PairwiseMRF:
    r"""A fully connected Markov random field over blocks, known up to its normalising constant.

    .. math::
        p(z) = \frac{1}{Z} \exp\Bigl(\sum_i \psi_i(z_i) + \sum_{i < j} \psi_{ij}(z_i, z_j)
        - \frac{\lVert z \rVert^2}{2 \tau^2}\Bigr)

    A potential adds to the log-density; the paper's eq. 4 subtracts it, which is the same family with the sign taken
    into ψ. Potentials are not exponentials themselves, as those of section 3.1.1 are printed (erratum E7). With ReLU
    networks ψ grows at most linearly, so that Z is finite for every finite τ; without the confining term it need not
    exist, as appendix D.2 says (erratum E6).

    It has the blocks, shapes and ``condition`` of the other distributions, and none of what needs Z:
    ``log_prob_unnormalized`` stands for ``log_prob``; :mod:`repro.distributions.log_partition` estimates ln Z.

    Arguments:
        unary: ψ_i of many blocks at once, a :class:`UnaryFunction`.
        pairwise: ψ_ij of many pairs at once, a :class:`PairwiseFunction`; not called where there is one block.
        block_sizes: Name to size in order, or sizes (blocks are then named 0 to M - 1), of sum D.
        confinement: τ in units of z; None for no confining term, the paper's.

    Raises:
        ValueError: If block sizes are not positive, or τ is not.

    Source: MRF MVAE, eq. 4 and section 3.1.3; GMRF MCVAE, eq. 2 to 5; errata E6 and E7.
    """

    def __init__(
        self, unary: UnaryFunction, pairwise: PairwiseFunction, block_sizes: BlockSizes, *, confinement: float | None
    ) -> None:
        if confinement is not None and not (math.isfinite(confinement) and confinement > 0):
            raise ValueError(f"confinement is {confinement}, must be positive or None")
        self._set(unary, pairwise, as_block_sizes(block_sizes), confinement, {})

    def _set(
        self,
        unary: UnaryFunction,
        pairwise: PairwiseFunction,
        sizes: dict[Hashable, int],
        confinement: float | None,
        clamped: dict[Hashable, Tensor],
    ) -> None:
        self.unary, self.pairwise, self.confinement = unary, pairwise, confinement
        self._sizes, self.clamped = sizes, clamped
        self.block_sizes = {name: size for name, size in sizes.items() if name not in clamped}
        self._positions = {name: k for k, name in enumerate(sizes)}
        names = list(sizes)
        pairs = [(a, b) for k, a in enumerate(names) for b in names[k + 1 :]]
        self._pairs = [(a, b) for a, b in pairs if a not in clamped or b not in clamped]
        self.batch_shape = broadcast_batch({f"block {n!r}": x.shape[:-1] for n, x in clamped.items()})
        self.event_shape = Size([sum(self.block_sizes.values())])

    def __repr__(self) -> str:
        given = f", clamped={list(self.clamped)}" if self.clamped else ""
        return f"{type(self).__name__}(batch_shape={tuple(self.batch_shape)}, block_sizes={self.block_sizes}{given})"

    def split(self, z: Tensor) -> dict[Hashable, Tensor]:
        """Cuts vectors ``(*any, D)`` into the blocks that are not clamped.

        Raises:
            ValueError: If the last dimension is not D.
        """
        return split_blocks(self.block_sizes, z)

    def join(self, blocks: Mapping[Hashable, Tensor]) -> Tensor:
        """Puts all blocks that are not clamped together, in order; leading shapes broadcast.

        Raises:
            ValueError: If a block is missing or unknown, or a size is wrong.
        """
        if missing := [name for name in self.block_sizes if name not in blocks]:
            raise ValueError(f"blocks {missing} are missing")
        return join_blocks(self.block_sizes, blocks)

    def condition(self, given: Mapping[Hashable, Tensor]) -> PairwiseMRF:
        r"""The field of the remaining blocks with the others clamped.

        .. math::
            p(z_i \mid z_j) \propto \exp\Bigl(\sum_i \psi_i(z_i) + \sum_{i < i'} \psi_{ii'}(z_i, z_{i'})
            + \sum_{i, j} \psi_{ij}(z_i, z_j) - \frac{\lVert z_i \rVert^2}{2 \tau^2}\Bigr)

        Terms of the clamped blocks alone are constant and left out.

        Arguments:
            given: Name to value of shape ``(*any, size)``; leading shapes broadcast with one another and with the
                batch shape. Any proper, non-empty subset of the blocks.

        Raises:
            ValueError: If a name is unknown, a size is wrong, a value is not finite, or no block or every block is
                given.

        Source: MRF MVAE, section 3.1.3, "we fix the latent variables corresponding to known modality".
        """
        observed = ordered_blocks(self.block_sizes, given)
        if len(observed) == len(self.block_sizes):
            raise ValueError(f"every block {observed} is given; none remains to be distributed")
        for name in observed:
            if given[name].shape[-1:] != (self.block_sizes[name],):
                raise ValueError(
                    f"block {name!r} has shape {tuple(given[name].shape)}, size {self.block_sizes[name]} is needed"
                )
            if not bool(given[name].isfinite().all()):
                raise ValueError(f"the values of block {name!r} have NaN or infinite entries")
        new = PairwiseMRF.__new__(PairwiseMRF)
        clamped = {**self.clamped, **{name: given[name] for name in observed}}
        new._set(self.unary, self.pairwise, self._sizes, self.confinement, clamped)
        return new

    def _evaluate(self, z: Tensor, names: Sequence[Hashable], pairs: Sequence[tuple[Hashable, Hashable]]) -> Tensor:
        """Terms of some blocks, each with its share of the confining one, then of some pairs: ``(*lead, K)``."""
        free = self.split(z)
        lead = broadcast_batch({"z": z.shape[:-1], "the clamped blocks": self.batch_shape})
        blocks = {name: x.expand(*lead, -1) for name, x in (free | self.clamped).items()}
        at = self._positions
        values = self.unary([blocks[name] for name in names], [at[name] for name in names])
        self._check(values, lead, [f"unary potential of block {name!r}" for name in names], free)
        if self.confinement is not None:
            squares = torch.stack([blocks[name].square().sum(-1) for name in names], -1)
            values = values - squares / (2 * self.confinement**2)
        if not pairs:
            return values
        joint = self.pairwise(
            [blocks[a] for a, _ in pairs], [blocks[b] for _, b in pairs], [(at[a], at[b]) for a, b in pairs]
        )
        self._check(joint, lead, [f"pairwise potential of blocks {a!r} and {b!r}" for a, b in pairs], free)
        return torch.cat([values, joint], -1)

    @staticmethod
    def _check(values: Tensor, lead: Size, labels: list[str], free: Mapping[Hashable, Tensor]) -> None:
        if values.shape != (*lead, len(labels)):
            raise ValueError(
                f"{labels[0]} and the like have shape {tuple(values.shape)}, {(*lead, len(labels))} is needed"
            )
        bad = values.isnan() | values.isposinf()  # minus infinity is a density of zero
        if not bool(bad.any()):
            return
        for name, x in free.items():
            if bool(x.isnan().any()):
                raise ValueError(f"z has NaN entries in block {name!r}")
        k = int(bad.reshape(-1, len(labels)).any(0).nonzero()[0])
        raise ValueError(f"{labels[k]} is NaN or +inf at {int(bad[..., k].sum())} of {bad[..., k].numel()} points")

    def terms(self, z: Tensor) -> Tensor:
        """Every term of the unnormalised log-density in nats, unary ones first.

        Arguments:
            z: Points ``(*any, D)``, leading shape broadcast against the batch shape.

        Returns:
            ``(*lead, T)``, with T the free blocks and the pairs that have a free block.

        Raises:
            ValueError: If D does not fit, or a potential is NaN or +inf, naming which, or has a wrong shape.
        """
        return self._evaluate(z, list(self.block_sizes), self._pairs)

    def term_indices(self, name: Hashable) -> list[int]:
        """Which of the :meth:`terms` involve a block: its unary one, and its pairs.

        Raises:
            ValueError: If the name is unknown or the block is clamped.
        """
        ordered_blocks(self.block_sizes, [name])
        own = list(self.block_sizes).index(name)
        return [own, *(len(self.block_sizes) + k for k, pair in enumerate(self._pairs) if name in pair)]

    def local_terms(self, z: Tensor, name: Hashable) -> Tensor:
        """The terms that involve one block, ``terms(z)[..., term_indices(name)]`` without evaluating the others.

        Arguments:
            z: Points ``(*any, D)``.
            name: A block that is not clamped.

        Raises:
            ValueError: As :meth:`terms` and :meth:`term_indices`.
        """
        ordered_blocks(self.block_sizes, [name])
        return self._evaluate(z, [name], [pair for pair in self._pairs if name in pair])

    def log_prob_unnormalized(self, z: Tensor) -> Tensor:
        """ln p(z) + ln Z in nats, ``(*lead)``; see :meth:`terms`."""
        return self.terms(z).sum(-1)

    def energy(self, z: Tensor) -> Tensor:
        """The energy, −ln p(z) − ln Z in nats, ``(*lead)``; see :meth:`terms`."""
        return -self.log_prob_unnormalized(z)

    def sample(
        self,
        *,
        num_chains: int,
        num_steps: int,
        sampler: str = "metropolis",
        burn_in: int = 0,
        thinning: int = 1,
        step_size: float | None = None,
        initial: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, MCMCDiagnostics]:
        """Draws by Markov chains, all run at once, for every element of the batch.

        Arguments:
            num_chains: Chains for each element of the batch.
            num_steps: Steps after burn-in. A step of "metropolis" proposes one block, one of "mala" all of them.
            sampler: ``"metropolis"``, the paper's, or ``"mala"``, which follows the gradient.
            burn_in: Steps before, discarded, which adapt the step size; it is fixed afterwards.
            thinning: One draw is kept for so many steps.
            step_size: First step size in units of z; None for the sampler's default.
            initial: Where the chains start, ``(num_chains, *batch, D)``; None for standard normal draws, of the
                clamped blocks' type and device, or else torch's default type and the generator's device.
            generator: Source of all randomness; None draws from torch's global generator.

        Returns:
            Draws ``(num_steps // thinning, num_chains, *batch, D)`` without gradient, and their diagnostics.

        Raises:
            ValueError: If the sampler is unknown, a number is out of range, ``initial`` does not fit, is not finite or
                has zero density, or a potential is NaN.

        Source: MRF MVAE, section 3.1.3.
        """
        if sampler not in ("metropolis", "mala"):
            raise ValueError(f"sampler is {sampler!r}, must be 'metropolis' or 'mala'")
        if num_chains < 1:
            raise ValueError(f"num_chains is {num_chains}, must be positive")
        shape = (num_chains, *self.batch_shape, *self.event_shape)
        if initial is None:
            like = next(iter(self.clamped.values()), torch.empty(0, device=generator.device if generator else None))
            device = like.device if generator is None else generator.device
            initial = torch.randn(shape, generator=generator, dtype=like.dtype, device=device).to(like.device)
        elif initial.shape != shape:
            raise ValueError(f"initial has shape {tuple(initial.shape)}, {shape} is needed")
        settings = {"num_steps": num_steps, "burn_in": burn_in, "thinning": thinning, "generator": generator}
        if step_size is not None:
            settings["step_size"] = step_size
        if sampler == "mala":
            return mala(self.log_prob_unnormalized, initial, **settings)
        return metropolis(self, initial, **settings)
