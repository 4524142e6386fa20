"""NN-MRF MVAE's prior, a Markov random field of neural potentials, and how it is sampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from repro.distributions.pairwise_mrf import PairwiseMRF
from repro.networks.potentials import PairwisePotential, UnaryPotential

__all__ = ["ChainSettings", "NeuralMRFPrior"]


@dataclass(frozen=True)
class ChainSettings:
    """How the prior is sampled.

    Arguments:
        sampler: ``"metropolis"``, over blocks, the paper's; or ``"mala"``, along the gradient.
        num_chains: Most chains for unconditional samples; each gives several where more samples are asked for.
        burn_in: Steps before, discarded, which adapt the step size. A Metropolis step is of one block.
        thinning: Steps from one kept draw to the next.
        num_kept: Fewest draws kept of a chain; the last is the sample, all serve the diagnostics.
        step_size: First step size in units of z; None for the sampler's default.

    Raises:
        ValueError: If the sampler is unknown or a number is out of range.
    """

    sampler: str = "metropolis"
    num_chains: int = 1000
    burn_in: int = 600
    thinning: int = 100
    num_kept: int = 4
    step_size: float | None = None

    def __post_init__(self) -> None:
        if self.sampler not in ("metropolis", "mala"):
            raise ValueError(f"sampler is {self.sampler!r}, must be 'metropolis' or 'mala'")
        for name in ("num_chains", "thinning", "num_kept"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")
        if self.burn_in < 0 or (self.step_size is not None and not self.step_size > 0):
            raise ValueError(f"burn_in {self.burn_in} must not be negative, step_size {self.step_size} be positive")


class NeuralMRFPrior(nn.Module):
    """A fully connected Markov random field whose unary and pairwise potentials are neural networks.

    Arguments:
        block_sizes: Modality to the number of its latents, the same for all.
        widths: Sizes of the potentials' hidden layers.
        confinement: τ of the confining term; None for none, with which Z need not exist.
        hidden_dtype: Type of the potentials' hidden layers after the first.

    Source: MRF MVAE, section 3.1.3 and appendix D.2; erratum E6.
    """

    def __init__(
        self,
        block_sizes: Mapping[str, int],
        *,
        widths: Sequence[int] = (1024, 1024, 1024),
        confinement: float | None = 1.0,
        hidden_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.block_sizes, self.confinement = dict(block_sizes), confinement
        dim, number = next(iter(self.block_sizes.values())), len(self.block_sizes)
        self.unary = UnaryPotential(dim, number, widths=widths, hidden_dtype=hidden_dtype)
        self.pairwise = PairwisePotential(dim, number, widths=widths, hidden_dtype=hidden_dtype)

    def forward(self) -> PairwiseMRF:
        """The prior as a field without batch shape."""
        return PairwiseMRF(self.unary, self.pairwise, self.block_sizes, confinement=self.confinement)
