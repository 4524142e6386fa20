"""Samplers of a diffusion run backwards, with any coordinates observed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from repro.distributions.diffusion import VPSDE, Score, draw_noise

__all__ = [
    "OBSERVED_NOISE",
    "SAMPLERS",
    "SPACINGS",
    "Observed",
    "dpm_solver",
    "evaluations",
    "predictor_corrector",
    "probability_flow",
    "time_grid",
]

OBSERVED_NOISE = ("fresh", "fixed", "legacy", "clean")
SPACINGS = ("uniform", "quadratic", "log_snr")


@dataclass(frozen=True)
class Observed:
    r"""Coordinates that are known, and how they are diffused to the time of a step.

    ``"fresh"`` is :math:`\alpha_t z_o + \sigma_t \epsilon` with new noise at every evaluation of the score, ``"fixed"``
    keeps the noise of the first for the whole trajectory, and ``"legacy"`` is the released code's
    :math:`\alpha_t z_o + \sigma_t z_o`, without any noise, kept for comparison. ``"clean"`` does not diffuse them, for
    scores that were trained so.

    Arguments:
        values: The clean values, broadcastable to the points; those outside the mask are ignored.
        mask: True for observed coordinates, broadcastable to the points.
        noise: One of ``OBSERVED_NOISE``.

    Raises:
        ValueError: If the noise is unknown, the mask is not boolean, nothing or all is observed, or an observed value
            is not finite.

    Source: SBM-VAE, section 2.1; Song et al., 2021, appendix I.2; errata, "Released code against the paper (SBM)".
    """

    values: Tensor
    mask: Tensor
    noise: str = "fresh"

    def __post_init__(self) -> None:
        if self.noise not in OBSERVED_NOISE:
            raise ValueError(f"observed noise is {self.noise!r}, must be one of {OBSERVED_NOISE}")
        if self.mask.dtype is not torch.bool:
            raise ValueError(f"the mask of observed coordinates is {self.mask.dtype}, must be boolean")
        if not bool(self.mask.any()) or bool(self.mask.all()):
            raise ValueError("some coordinates have to be observed and some not, or there is nothing to condition on")
        if not bool(torch.where(self.mask, self.values, torch.zeros_like(self.values)).isfinite().all()):
            raise ValueError("an observed value is not finite")


@dataclass
class _Reverse:
    """What the samplers share: observed coordinates, evaluations of the score, and the watch over them."""

    score: Score
    sde: VPSDE
    initial: Tensor
    observed: Observed | None
    generator: torch.Generator | None
    each: int = 1  # evaluations a step
    largest: list[Tensor] = field(default_factory=list)
    fixed: Tensor | None = None

    def noise(self) -> Tensor:
        return draw_noise(self.initial, self.generator)

    def place(self, z: Tensor, t: Tensor | None) -> Tensor:
        """The points with observed coordinates at time t put in; clean ones where t is None."""
        if self.observed is None:
            return z
        values = self.observed.values.to(z)
        if t is not None and self.observed.noise != "clean":
            if self.observed.noise == "legacy":
                values = (self.sde.alpha(t) + self.sde.sigma(t)) * values
            else:
                if self.fixed is None or self.observed.noise == "fresh":
                    self.fixed = self.noise()
                values = self.sde.alpha(t) * values + self.sde.sigma(t) * self.fixed
        return torch.where(self.observed.mask.to(z.device), values, z)

    def evaluate(self, z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The points with what is observed, and the score there."""
        z = self.place(z, t)
        found = self.score(z, t)
        if found.shape != z.shape:
            raise ValueError(f"the score has shape {tuple(found.shape)}, the points {tuple(z.shape)}")
        self.largest.append(found.detach().abs().max())
        return z, found

    def denoised(self, z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The points with what is observed, and the mean of the clean ones given them."""
        z, found = self.evaluate(z, t)
        mean = (z + self.sde.sigma(t).square() * found) / self.sde.alpha(t)
        return z, self.place(mean, None)

    def finish(self, z: Tensor) -> Tensor:
        """The result with observed coordinates as they were given.

        Looking at each step would halt a GPU each time, so that a trajectory that broke is searched for once, here.
        """
        largest = torch.stack(self.largest)
        if not bool(z.isfinite().all() & largest.isfinite().all()):
            broken, count = largest.isfinite().logical_not().nonzero(), len(largest)
            first = int(broken[0]) if len(broken) else count
            extent = f"{float(largest[:first].max()):.3g}" if first else "unknown, it was not finite at once"
            last = min(first, count - 1)  # what no evaluation shows broke after the last one
            where = f"step {last // self.each + 1} of {-(-count // self.each)}, evaluation {last + 1} of {count}"
            raise ValueError(
                f"sampling broke at {where}: a value is NaN or infinite; the largest |score| before was {extent}"
            )
        return self.place(z, None)


def time_grid(sde: VPSDE, num_steps: int, *, eps: float = 1e-3, spacing: str = "uniform") -> Tensor:
    r"""Times of the ends of a sampler's steps, from 1 down to eps, ``(num_steps + 1,)`` in float64.

    Arguments:
        sde: The diffusion.
        num_steps: Steps N.
        eps: The last time.
        spacing: ``"uniform"`` in t, ``"quadratic"`` (uniform in :math:`\sqrt t`) or ``"log_snr"`` (uniform in
            :math:`\ln (\alpha_t / \sigma_t)`).

    Raises:
        ValueError: If N is under 1, ``eps`` is not between 0 and 1, or the spacing is unknown.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps is {num_steps}, must be at least 1")
    if not 0 < eps < 1:
        raise ValueError(f"eps is {eps}, must be between 0 and 1")
    if spacing not in SPACINGS:
        raise ValueError(f"spacing is {spacing!r}, must be one of {SPACINGS}")
    ends = torch.tensor([1.0, eps], dtype=torch.float64)
    if spacing == "log_snr":
        low, high = sde.log_snr(ends).tolist()
        return sde.time(torch.linspace(low, high, num_steps + 1, dtype=torch.float64))
    power = 2 if spacing == "quadratic" else 1
    return torch.linspace(1.0, eps ** (1 / power), num_steps + 1, dtype=torch.float64) ** power


def _norm(x: Tensor, free: Tensor) -> Tensor:
    """Euclidean norm over the free coordinates, averaged over the points."""
    return (x * free).flatten(1).norm(dim=1).mean()


@torch.no_grad()
def predictor_corrector(
    score: Score,
    sde: VPSDE,
    initial: Tensor,
    *,
    num_steps: int = 100,
    corrector_steps: int = 1,
    snr: float = 0.16,
    eps: float = 1e-3,
    spacing: str = "uniform",
    observed: Observed | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Predictor-corrector sampling: Langevin steps at a time, then an Euler-Maruyama step to the next.

    .. math::
        z &\leftarrow z + \delta s + \sqrt{2 \delta} \, \xi, \quad
        \delta = 2 (1 - \beta \Delta) \Big( r \frac{\|\xi\|}{\|s\|} \Big)^2 \\
        z &\leftarrow z + \Delta \big( \tfrac12 \beta z + \beta s \big) + \sqrt{\beta \Delta} \, \xi

    with norms averaged over the points and taken over unobserved coordinates. The last step adds no noise.

    Arguments:
        score: The score, at points ``(N, *event)`` and a 0-dimensional time.
        sde: The diffusion.
        initial: Draws from N(0, I), ``(N, *event)``.
        num_steps: Steps N; there are N (1 + corrector_steps) evaluations.
        corrector_steps: Langevin steps before each predictor, the tables' "LD per step".
        snr: The signal-to-noise ratio r.
        eps: The last time.
        spacing: Of the times, see :func:`time_grid`.
        observed: What is known.
        generator: Source of noise.

    Raises:
        ValueError: If a number is out of range, or a value stopped being finite; it says at which evaluation.

    Source: SBM-VAE, section 2.1 and appendices A.2, A.3; Song et al., 2021, algorithms 1 to 3 and 5.
    """
    if corrector_steps < 0 or not snr > 0:
        raise ValueError(f"corrector_steps {corrector_steps} must be at least 0, and snr {snr} positive")
    times = time_grid(sde, num_steps, eps=eps, spacing=spacing).to(initial)
    run = _Reverse(score, sde, initial, observed, generator, 1 + corrector_steps)
    free = torch.ones_like(initial[:1]) if observed is None else (~observed.mask).to(initial)
    z = initial
    for step, (t, after) in enumerate(pairwise(times)):
        dt, beta = t - after, sde.beta(t)
        for _ in range(corrector_steps):
            z, found = run.evaluate(z, t)
            noise = run.noise()
            slope = _norm(found, free)
            ratio = torch.where(slope > 0, _norm(noise, free) / slope, torch.zeros_like(slope))  # flat: no step
            delta = 2 * (1 - beta * dt).clamp(min=0) * (snr * ratio).square()
            z = z + delta * found + (2 * delta).sqrt() * noise
        z, found = run.evaluate(z, t)
        z = z + dt * beta * (0.5 * z + found)
        if step + 1 < num_steps:
            z = z + (beta * dt).sqrt() * run.noise()
    return run.finish(z)


@torch.no_grad()
def probability_flow(
    score: Score,
    sde: VPSDE,
    initial: Tensor,
    *,
    num_steps: int = 10,
    eps: float = 1e-3,
    spacing: str = "log_snr",
    observed: Observed | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""The probability-flow ODE by Heun's method, deterministic given its start.

    .. math:: \frac{dz}{dt} = -\tfrac12 \beta(t) \big( z + \nabla \ln p_t(z) \big)

    is integrated in the variable :math:`z / \alpha_t` over :math:`\sigma_t / \alpha_t`, in which an exact score of a
    single point is a straight line. The last step is Euler's.

    Arguments:
        num_steps: Steps N; there are 2 N - 1 evaluations.
        generator: Source of the noise of observed coordinates.
        score, sde, initial, eps, spacing, observed: As :func:`predictor_corrector`.

    Raises:
        ValueError: As :func:`predictor_corrector`.

    Source: Song et al., 2021, section 4.3; Karras et al., "Elucidating the design space of diffusion-based generative
    models", 2022, algorithm 1.
    """
    times = time_grid(sde, num_steps, eps=eps, spacing=spacing).to(initial)
    run = _Reverse(score, sde, initial, observed, generator, 2)

    def direction(z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        # With y = z / alpha and rho = sigma / alpha, dy / drho is the predicted noise, -sigma times the score.
        z, found = run.evaluate(z, t)
        return z, -sde.sigma(t) * found

    z = initial
    for step, (t, after) in enumerate(pairwise(times)):
        rho, rho_after = sde.sigma(t) / sde.alpha(t), sde.sigma(after) / sde.alpha(after)
        z, first = direction(z, t)
        z = sde.alpha(after) * (moved := z / sde.alpha(t) + (rho_after - rho) * first)
        if step + 1 < num_steps:
            _, second = direction(z, after)
            z = sde.alpha(after) * (moved + 0.5 * (rho_after - rho) * (second - first))
    return run.finish(z)


@torch.no_grad()
def dpm_solver(
    score: Score,
    sde: VPSDE,
    initial: Tensor,
    *,
    num_steps: int = 20,
    stochasticity: float = 0.0,
    eps: float = 1e-3,
    spacing: str = "log_snr",
    observed: Observed | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""A multistep solver of second order: DPM-Solver++(2M), or its form with fresh noise.

    .. math::
        z_{t'} = \frac{\sigma_{t'}}{\sigma_t} e^{-c h} z_t + \alpha_{t'} \big(1 - e^{-(1 + c) h}\big) D
        + \sigma_{t'} \sqrt{1 - e^{-2 c h}} \, \xi, \quad D = x_t + \frac{h}{2 h_{-}} (x_t - x_{t_-})

    with h the step in :math:`\ln (\alpha / \sigma)`, x the denoised points and minus for the step before. c = 0 is the
    probability-flow ODE, c = 1 the reverse SDE, and a larger c adds Langevin dynamics at each time: all have the same
    marginals. With observed coordinates c matters. The score only ever sees those coordinates diffused, so that an ODE
    keeps what the unobserved ones took from noise; fresh noise lets them follow (for two coordinates of correlation 0.9
    and an exact conditional mean of 1.35, 20 evaluations give 0.67 with c = 0, 0.95 with 1, 1.28 with 8; 200 of the
    predictor-corrector give 1.19). The first and the last step take D = x, and the last one no noise.

    Arguments:
        num_steps: Steps N, and evaluations.
        stochasticity: c.
        generator: Source of noise.
        score, sde, initial, eps, spacing, observed: As :func:`predictor_corrector`.

    Raises:
        ValueError: As :func:`predictor_corrector`, or if c is negative.

    Source: Lu et al., "DPM-Solver++", 2022, algorithm 2; Xue et al., "SA-Solver", 2023, section 4, for c.
    """
    times = time_grid(sde, num_steps, eps=eps, spacing=spacing).to(initial)
    run = _Reverse(score, sde, initial, observed, generator)
    if not 0 <= stochasticity < float("inf"):
        raise ValueError(f"stochasticity is {stochasticity}, must be at least 0 and finite")
    c = stochasticity
    z, before, step_before = initial, None, None
    for step, (t, after) in enumerate(pairwise(times)):
        h = sde.log_snr(after) - sde.log_snr(t)
        z, mean = run.denoised(z, t)
        ahead = mean
        if before is not None and step_before is not None and step + 1 < num_steps:
            ahead = mean + h / (2 * step_before) * (mean - before)
        z = sde.sigma(after) / sde.sigma(t) * torch.exp(-c * h) * z
        z = z - sde.alpha(after) * torch.expm1(-(1 + c) * h) * ahead
        if c > 0 and step + 1 < num_steps:
            z = z + sde.sigma(after) * (-torch.expm1(-2 * c * h)).sqrt() * run.noise()
        before, step_before = mean, h
    return run.finish(z)


SAMPLERS: Mapping[str, Callable[..., Tensor]] = {
    "predictor_corrector": predictor_corrector,
    "heun": probability_flow,
    "dpm_solver": dpm_solver,
}


def evaluations(sampler: str, num_steps: int, corrector_steps: int = 1) -> int:
    """How many evaluations of the score a sampler takes.

    Raises:
        ValueError: If the sampler is unknown.
    """
    counts = {
        "predictor_corrector": num_steps * (1 + corrector_steps),
        "heun": 2 * num_steps - 1,
        "dpm_solver": num_steps,
    }
    if sampler not in counts:
        raise ValueError(f"sampler is {sampler!r}, must be one of {tuple(counts)}")
    return counts[sampler]
