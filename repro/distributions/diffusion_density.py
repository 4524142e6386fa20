"""The density of a diffusion's probability flow."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from repro.distributions.diffusion import VPSDE, Score, draw_noise
from repro.distributions.diffusion_samplers import time_grid

__all__ = ["log_density"]


def log_density(
    score: Score,
    sde: VPSDE,
    z: Tensor,
    *,
    num_steps: int = 50,
    eps: float = 1e-3,
    num_probes: int | None = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Log-density of points under the probability flow that starts from N(0, I) at time 1.

    .. math:: \ln p(z) = \ln \mathcal{N}(z_1; 0, I) + \int_\tau^1 \nabla \cdot f(z_t, t) \, dt, \quad
        f(z, t) = -\tfrac12 \beta(t) \big( z + \nabla \ln p_t(z) \big)

    by Heun's method. The divergence is exact, or Hutchinson's estimate with random signs, without bias.

    Arguments:
        score: The score, differentiable in its points.
        sde: The diffusion.
        z: Points ``(N, *event)``.
        num_steps: Steps; there are twice as many evaluations, each with ``num_probes`` backward passes.
        eps: The time that the points are taken to be at.
        num_probes: Signs a point; None for the exact divergence, a backward pass a coordinate.
        generator: Source of the signs, which stay the same along a trajectory.

    Returns:
        Nats, ``(N,)``.

    Raises:
        ValueError: If ``num_probes`` is under 1, or the density is not finite.

    Source: Song et al., 2021, section 4.3 and appendix D.2.
    """
    if num_probes is not None and num_probes < 1:
        raise ValueError(f"num_probes is {num_probes}, must be at least 1, or None for the exact divergence")
    numel = z[0].numel()
    if num_probes is None:
        probes = torch.eye(numel).to(z).reshape(numel, 1, *z.shape[1:]).expand(numel, *z.shape)
    else:
        probes = torch.stack([draw_noise(z, generator).sign() for _ in range(num_probes)])
    times = time_grid(sde, num_steps, eps=eps, spacing="quadratic").flip(0).to(z)

    def flow(point: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            point = point.detach().requires_grad_()
            velocity = -0.5 * sde.beta(t) * (point + score(point, t))
            total = point.new_zeros(len(point))
            for probe in probes:
                (slope,) = torch.autograd.grad(velocity, point, probe, retain_graph=True)
                total = total + (slope * probe).flatten(1).sum(1)
        return velocity.detach(), total if num_probes is None else total / num_probes

    integral = z.new_zeros(len(z))
    for t, after in pairwise(times):
        dt = after - t
        velocity, divergence = flow(z, t)
        velocity_after, divergence_after = flow(z + dt * velocity, after)
        z = z + 0.5 * dt * (velocity + velocity_after)
        integral = integral + 0.5 * dt * (divergence + divergence_after)
    prior = -0.5 * (z.square().flatten(1).sum(1) + numel * math.log(2 * math.pi))
    if not bool((found := prior + integral).isfinite().all()):
        raise ValueError(f"the density of {int((~found.isfinite()).sum())} of {len(found)} points is not finite")
    return found
