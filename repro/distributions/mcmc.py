"""Markov chain Monte Carlo, many chains at once: Metropolis-Hastings over blocks, Langevin, and their diagnostics."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from repro.distributions.blocks import block_coordinates

__all__ = ["BlockField", "MCMCDiagnostics", "effective_sample_size", "mala", "metropolis", "split_r_hat"]

# Acceptance rates that step sizes are adapted to: Roberts, Gelman and Gilks (1997) for random walks, Gelman, Roberts
# and Gilks (1996) for those in one dimension, Roberts and Rosenthal (1998) for Langevin proposals.
RANDOM_WALK_TARGET, SCALAR_TARGET, LANGEVIN_TARGET = 0.234, 0.44, 0.574
# A step size that is e times too large is put right in the first two or three updates.
GAIN = 2.5


class BlockField(Protocol):
    """An unnormalised log-density that is a sum of terms, each of some blocks."""

    block_sizes: Mapping[Hashable, int]

    def terms(self, z: Tensor) -> Tensor:
        """All terms in nats, ``(*lead, T)``, at points ``(*lead, D)``."""

    def term_indices(self, name: Hashable) -> list[int]:
        """Which of the terms involve a block."""

    def local_terms(self, z: Tensor, name: Hashable) -> Tensor:
        """Those terms alone, ``(*lead, len(term_indices(name)))``."""


@dataclass(frozen=True)
class MCMCDiagnostics:
    """What a run of chains says about itself.

    Arguments:
        acceptance_rate: Accepted share of the proposals after burn-in, one a chain, ``(num_chains, *batch)``.
        step_size: Step sizes after burn-in in units of z: ``(blocks,)`` for Metropolis, ``(1,)`` for Langevin.
        effective_sample_size: Of the kept draws of all chains, ``(*batch, D)``; see :func:`effective_sample_size`.
        r_hat: Split R-hat of the kept draws, ``(*batch, D)``; see :func:`split_r_hat`.
    """

    acceptance_rate: Tensor
    step_size: Tensor
    effective_sample_size: Tensor
    r_hat: Tensor


class _Recorder:
    """Adapts step sizes during burn-in, then counts acceptances and keeps draws."""

    def __init__(
        self, initial: Tensor, num_steps: int, burn_in: int, thinning: int, step_size: float, targets: list[float]
    ) -> None:
        if num_steps < 1 or burn_in < 0 or not 1 <= thinning <= num_steps:
            raise ValueError(
                f"num_steps {num_steps}, burn_in {burn_in} and thinning {thinning} must satisfy "
                "num_steps >= thinning >= 1 and burn_in >= 0"
            )
        if not (math.isfinite(step_size) and step_size > 0):
            raise ValueError(f"step_size is {step_size}, must be positive")
        if initial.ndim < 2 or not bool(initial.isfinite().all()):
            raise ValueError(f"initial of shape {tuple(initial.shape)} must be finite, (num_chains, *batch, D)")
        self.num_steps, self.burn_in, self.thinning, self.targets = num_steps, burn_in, thinning, targets
        self.log_steps = [math.log(step_size)] * len(targets)
        self.updates = [0] * len(targets)
        self.samples = initial.new_empty(num_steps // thinning, *initial.shape)
        self.accepted = initial.new_zeros(initial.shape[:-1])
        self.ever = torch.zeros_like(self.accepted, dtype=torch.bool)

    def __len__(self) -> int:
        return self.burn_in + self.num_steps

    def step_size(self, k: int = 0) -> float:
        return math.exp(self.log_steps[k])

    def update(self, step: int, k: int, z: Tensor, accept: Tensor, log_ratio: Tensor) -> None:
        self.ever |= accept
        if step < self.burn_in:
            # Robbins-Monro on the mean acceptance probability of all chains; it stops with burn-in, so that the
            # chains that are kept have a fixed kernel and the right stationary distribution.
            self.updates[k] += 1
            probability = float(log_ratio.clamp(max=0).exp().mean())
            self.log_steps[k] += GAIN * self.updates[k] ** -0.6 * (probability - self.targets[k])
            return
        self.accepted += accept
        kept, rest = divmod(step - self.burn_in + 1, self.thinning)
        if rest == 0:
            self.samples[kept - 1] = z

    def finish(self) -> tuple[Tensor, MCMCDiagnostics]:
        steps = torch.tensor([self.step_size(k) for k in range(len(self.targets))])
        if stuck := int((~self.ever).sum()):
            sizes = ", ".join(f"{s:.3g}" for s in steps.tolist())
            warnings.warn(
                f"{stuck} of {self.ever.numel()} chains accepted none of {len(self)} proposals at step size {sizes}: "
                "lower it or lengthen burn_in",
                RuntimeWarning,
                stacklevel=4,
            )
        diagnostics = MCMCDiagnostics(
            self.accepted / self.num_steps, steps, effective_sample_size(self.samples), split_r_hat(self.samples)
        )
        return self.samples, diagnostics


def _noise(like: Tensor, generator: torch.Generator | None, uniform: bool = False) -> Tensor:
    """Noise of a tensor's shape, type and device, drawn on the generator's device."""
    draw = torch.rand if uniform else torch.randn
    device = like.device if generator is None else generator.device
    return draw(like.shape, generator=generator, dtype=like.dtype, device=device).to(like.device)


def _check_start(log_density: Tensor) -> None:
    if bool(outside := log_density.isneginf().sum()):
        raise ValueError(f"initial has zero density for {int(outside)} of {log_density.numel()} chains")


def metropolis(
    field: BlockField,
    initial: Tensor,
    *,
    num_steps: int,
    burn_in: int = 0,
    thinning: int = 1,
    step_size: float = 0.5,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, MCMCDiagnostics]:
    r"""Random-walk Metropolis-Hastings that proposes one block at a time.

    .. math::
        z_i' = z_i + s_i \xi, \quad \xi \sim \mathcal{N}(0, I), \quad
        P(\text{accept}) = \min\bigl(1, \tilde p(z') / \tilde p(z)\bigr)

    A step is one proposal of one block in every chain; blocks take turns, so M steps are a sweep. Only the terms that
    involve the block are evaluated; the others, and the current values of these, are kept from before. During burn-in
    each block's s_i is adapted to an acceptance rate of 0.234 (0.44 for blocks of one coordinate).

    Arguments:
        field: The unnormalised log-density, without gradient.
        initial: Where the chains start, ``(num_chains, *batch, D)``; spread wider than the target for R-hat to tell.
        num_steps: Steps after burn-in.
        burn_in: Steps that are discarded and adapt s_i; 0 keeps ``step_size``.
        thinning: One draw is kept for so many steps.
        step_size: First value of every s_i, in units of z.
        generator: Source of proposals and acceptances; None draws from torch's global generator.

    Returns:
        Draws ``(num_steps // thinning, num_chains, *batch, D)``, and their diagnostics.

    Raises:
        ValueError: If a number is out of range, ``initial`` is not finite or has zero density, or a term is NaN.

    Source: MRF MVAE, section 3.1.3, "which iteratively updates each variable in the latent space".
    """
    names = list(field.block_sizes)
    coordinates = [torch.tensor(block_coordinates(field.block_sizes, [name])) for name in names]
    spans = [slice(int(c[0]), int(c[-1]) + 1) for c in coordinates]
    targets = [SCALAR_TARGET if field.block_sizes[name] == 1 else RANDOM_WALK_TARGET for name in names]
    run = _Recorder(initial, num_steps, burn_in, thinning, step_size, targets)
    # Not inference mode: its tensors could not take part in a later backward pass, and it gains nothing here.
    with torch.no_grad():
        z = initial.clone()
        terms = field.terms(z)
        _check_start(terms.sum(-1))
        indices = [field.term_indices(name) for name in names]
        for step in range(len(run)):
            k = step % len(names)
            proposal = z.clone()
            proposal[..., spans[k]] += run.step_size(k) * _noise(z[..., spans[k]], generator)
            new, old = field.local_terms(proposal, names[k]), terms[..., indices[k]]
            log_ratio = new.sum(-1) - old.sum(-1)
            accept = _noise(log_ratio, generator, uniform=True).log() < log_ratio
            z = torch.where(accept.unsqueeze(-1), proposal, z)
            terms[..., indices[k]] = torch.where(accept.unsqueeze(-1), new, old)
            run.update(step, k, z, accept, log_ratio)
        return run.finish()


def _value_and_gradient(log_density: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False), torch.enable_grad():
        point = z.clone().detach().requires_grad_()
        value = log_density(point)
        (gradient,) = torch.autograd.grad(value.sum(), point)
    value = value.detach()
    outside = value.isneginf()
    if bool((broken := gradient.isfinite().logical_not().any(-1) & ~outside).any()):
        raise ValueError(
            f"the gradient of the log-density is not finite at {int(broken.sum())} of {broken.numel()} points"
        )
    # A point outside the support is rejected whatever its gradient; zero keeps NaN out of the arithmetic.
    return value, torch.where(outside.unsqueeze(-1), torch.zeros_like(gradient), gradient)


def mala(
    log_density: Callable[[Tensor], Tensor],
    initial: Tensor,
    *,
    num_steps: int,
    burn_in: int = 0,
    thinning: int = 1,
    step_size: float = 0.1,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, MCMCDiagnostics]:
    r"""The Metropolis-adjusted Langevin algorithm, which moves all blocks at once along the gradient.

    .. math::
        z' = z + \tfrac{s^2}{2} \nabla \ln \tilde p(z) + s \xi, \quad
        P(\text{accept}) = \min\Bigl(1, \frac{\tilde p(z')\, q(z \mid z')}{\tilde p(z)\, q(z' \mid z)}\Bigr)

    During burn-in s is adapted to an acceptance rate of 0.574.

    Arguments:
        log_density: Unnormalised, differentiable: points ``(*lead, D)`` to nats ``(*lead)``.
        initial: Where the chains start, ``(num_chains, *batch, D)``.
        num_steps: Steps after burn-in.
        burn_in: Steps that are discarded and adapt s; 0 keeps ``step_size``.
        thinning: One draw is kept for so many steps.
        step_size: First value of s, in units of z.
        generator: Source of proposals and acceptances; None draws from torch's global generator.

    Returns:
        Draws ``(num_steps // thinning, num_chains, *batch, D)`` without gradient, and their diagnostics.

    Raises:
        ValueError: If a number is out of range, ``initial`` is not finite or has zero density, or a density or
            gradient is NaN.

    Source: Roberts and Tweedie (1996). MRF MVAE samples by Metropolis-Hastings; this is the faster alternative.
    """
    run = _Recorder(initial, num_steps, burn_in, thinning, step_size, [LANGEVIN_TARGET])
    with torch.no_grad():
        z = initial.clone()
        value, gradient = _value_and_gradient(log_density, z)
        _check_start(value)
        for step in range(len(run)):
            s = run.step_size()
            noise = _noise(z, generator)
            proposal = z + s * s / 2 * gradient + s * noise
            new_value, new_gradient = _value_and_gradient(log_density, proposal)
            back = (z - proposal - s * s / 2 * new_gradient) / s
            log_ratio = new_value - value + 0.5 * (noise.square() - back.square()).sum(-1)
            accept = _noise(log_ratio, generator, uniform=True).log() < log_ratio
            z = torch.where(accept.unsqueeze(-1), proposal, z)
            gradient = torch.where(accept.unsqueeze(-1), new_gradient, gradient)
            value = torch.where(accept, new_value, value)
            run.update(step, 0, z, accept, log_ratio)
        return run.finish()


def _half_chains(draws: Tensor) -> Tensor:
    """Each chain as two, in float64: ``(N, M, *rest)`` to ``(N // 2, 2 M, *rest)``."""
    if draws.ndim < 2:
        raise ValueError(f"draws have shape {tuple(draws.shape)}, (num_draws, num_chains, ...) is needed")
    half = draws.shape[0] // 2
    return torch.cat([draws[:half], draws[draws.shape[0] - half :]], 1).double()


def _variances(chains: Tensor) -> tuple[Tensor, Tensor]:
    """Mean variance within chains, and the pooled overestimate of the variance of the target."""
    n = chains.shape[0]
    within = chains.var(0).mean(0)
    return within, (n - 1) / n * within + chains.mean(0).var(0)


def split_r_hat(draws: Tensor) -> Tensor:
    r"""Split R-hat: the target's standard deviation by all chains' draws, over that within half chains.

    .. math:: \hat R = \sqrt{\widehat{\mathrm{var}}^+ / W}

    Near 1 where the chains are mixed; above about 1.01 they are not.

    Arguments:
        draws: ``(num_draws, num_chains, *rest)``.

    Returns:
        ``(*rest)`` in float64; NaN with fewer than four draws, and where nothing varies.

    Source: Gelman et al. (2013), Bayesian Data Analysis, section 11.4; Vehtari et al. (2021), eq. 1 to 4.
    """
    chains = _half_chains(draws)
    if len(chains) < 2:
        return draws.new_full(draws.shape[2:], math.nan, dtype=torch.float64)
    within, pooled = _variances(chains)
    return (pooled / within).sqrt()


def effective_sample_size(draws: Tensor) -> Tensor:
    r"""The number of independent draws whose mean is as precise as that of the chains' draws.

    .. math:: S = \frac{M N}{1 + 2 \sum_{t \ge 1} \rho_t}

    Autocorrelations are of half chains, pooled with the variance between them, and summed over Geyer's initial
    monotone sequence of pairs. S is at most M N log10(M N), which only antithetic chains reach. With few draws a chain
    it says little: half chains of n draws that never move have a sum of 2 (n - n mod 2) - 1 and not infinity, so that
    four draws a chain cannot give S under a third of M N. Whether chains mix is said by :func:`split_r_hat`.

    Arguments:
        draws: ``(num_draws, num_chains, *rest)``.

    Returns:
        ``(*rest)`` in float64; NaN with fewer than four draws, and where nothing varies.

    Source: Vehtari et al. (2021), eq. 10 to 13; Geyer (1992), section 3.3.
    """
    chains = _half_chains(draws)
    n, m = chains.shape[:2]
    if n < 2:
        return draws.new_full(draws.shape[2:], math.nan, dtype=torch.float64)
    within, pooled = _variances(chains)
    power = 0.0
    for part in (chains - chains.mean(0)).split(
        64, 1
    ):  # a bound on memory; the transform is twice as long as the draws
        power = power + torch.fft.rfft(part, 2 * n, dim=0).abs().square().sum(1)
    autocovariance = torch.fft.irfft(power, 2 * n, dim=0)[:n] / (n * m)
    rho = 1 - (within - autocovariance) / pooled
    rho[0] = torch.where(pooled > 0, 1.0, math.nan)
    pairs = rho[: n - n % 2].unflatten(0, (-1, 2)).sum(1)
    positive = (pairs > 0).to(pairs.dtype).cumprod(0)
    time = 2 * (pairs.cummin(0).values * positive).sum(0) - 1
    total = n * m
    return total / time.clamp(min=1 / max(math.log10(total), 1.0))
