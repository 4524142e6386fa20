"""Variance-preserving diffusions with closed-form marginals, and denoising score matching."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["VPSDE", "WEIGHTINGS", "Score", "denoising_loss"]

# From points (N, *event) and a time, 0-dimensional or (N,), to the gradient of ln p_t at the points.
Score = Callable[[Tensor, Tensor], Tensor]
WEIGHTINGS = ("variance", "unweighted")


@dataclass(frozen=True)
class VPSDE:
    r"""The variance-preserving diffusion with a linear rate.

    .. math::
        dz = -\tfrac12 \beta(t) z \, dt + \sqrt{\beta(t)} \, dw, \quad \beta(t) = \beta_0 + t (\beta_1 - \beta_0), \quad
        z_t = \alpha_t z_0 + \sigma_t \epsilon

    with :math:`\alpha_t^2 = e^{-B(t)}`, :math:`\sigma_t^2 = 1 - e^{-B(t)}` and
    :math:`B(t) = \beta_0 t + \tfrac12 (\beta_1 - \beta_0) t^2`. Time runs from 0 to 1. Data of unit variance keeps it;
    correlations between coordinates decay as :math:`\alpha_t^2`, to 0.078 at time 1 with the published (0.1, 5), which
    sampling from N(0, I) leaves out (erratum E12).

    Arguments:
        beta_0: Rate at time 0.
        beta_1: Rate at time 1.

    Raises:
        ValueError: If a rate is not finite, ``beta_0`` is negative, or ``beta_1`` is not above 0.

    Source: SBM-VAE, appendix A.2 and Table 4: (0.1, 5) for ten modalities, (1, 5) for fewer; Table 10: (0.1, 20). Song
    et al., "Score-based generative modeling through stochastic differential equations", 2021, eq. 11 and 29.
    """

    beta_0: float = 0.1
    beta_1: float = 5.0

    def __post_init__(self) -> None:
        if not (0 <= self.beta_0 < math.inf and 0 < self.beta_1 < math.inf):
            raise ValueError(f"beta_0 {self.beta_0} and beta_1 {self.beta_1} must be finite, at least 0 and above 0")

    def beta(self, t: Tensor) -> Tensor:
        """The rate at times t."""
        return self.beta_0 + t * (self.beta_1 - self.beta_0)

    def integral(self, t: Tensor) -> Tensor:
        """B(t), the integral of the rate from 0 to t."""
        return t * (self.beta_0 + 0.5 * t * (self.beta_1 - self.beta_0))

    def alpha(self, t: Tensor) -> Tensor:
        """The factor of the data at times t."""
        return torch.exp(-0.5 * self.integral(t))

    def sigma(self, t: Tensor) -> Tensor:
        """Standard deviation of the noise at times t."""
        return torch.sqrt(-torch.expm1(-self.integral(t)))

    def log_snr(self, t: Tensor) -> Tensor:
        r"""Half the logarithm of the signal-to-noise ratio, :math:`\lambda_t = \ln (\alpha_t / \sigma_t)`."""
        return -0.5 * torch.log(torch.expm1(self.integral(t)))

    def time(self, log_snr: Tensor) -> Tensor:
        r"""The time of a :math:`\lambda`, the inverse of :meth:`log_snr`.

        .. math:: t = \frac{2 B}{\beta_0 + \sqrt{\beta_0^2 + 2 (\beta_1 - \beta_0) B}}, \quad
            B = \ln (1 + e^{-2 \lambda})
        """
        integral = torch.nn.functional.softplus(-2 * log_snr)
        root = (self.beta_0**2 + 2 * (self.beta_1 - self.beta_0) * integral).clamp(min=0).sqrt()
        return 2 * integral / (self.beta_0 + root)

    def perturb(self, z: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Points ``(N, *event)`` diffused to times t, 0-dimensional or ``(N,)``, with the given noise."""
        t = expand_time(t, z)
        return self.alpha(t) * z + self.sigma(t) * noise


def expand_time(t: Tensor, like: Tensor) -> Tensor:
    """Times that broadcast against points: 0-dimensional ones as they are, ``(N,)`` to ``(N, 1, ..., 1)``.

    Raises:
        ValueError: If the shape is another.
    """
    if t.ndim == 0:
        return t
    if tuple(t.shape) != (len(like),):
        raise ValueError(f"times have shape {tuple(t.shape)}, expected () or ({len(like)},)")
    return t.reshape(-1, *(1,) * (like.ndim - 1))


def draw_noise(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard Gaussian noise of a tensor's shape, type and device, drawn on the generator's device."""
    device = like.device if generator is None else generator.device
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=device).to(like.device)


def draw_times(number: int, eps: float, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Times ``(number,)`` from the uniform distribution on (eps, 1).

    Raises:
        ValueError: If ``eps`` is not between 0 and 1.
    """
    if not 0 < eps < 1:
        raise ValueError(f"eps is {eps}, must be between 0 and 1")
    device = like.device if generator is None else generator.device
    u = torch.rand(number, generator=generator, dtype=like.dtype, device=device).to(like.device)
    return eps + (1 - eps) * u


def denoising_loss(
    score: Score,
    sde: VPSDE,
    z: Tensor,
    *,
    weighting: str = "variance",
    mask: Tensor | None = None,
    eps: float = 1e-5,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Denoising score matching at one random time a point.

    .. math:: \mathbb{E}_{t, z_0, \epsilon} \Big[ \lambda(t) \, \Big\| s_\theta(z_t, t) + \frac{\epsilon}{\sigma_t}
        \Big\|^2 \Big], \quad t \sim U(\tau, 1)

    ``"variance"`` is :math:`\lambda = \sigma_t^2`. ``"unweighted"`` is :math:`\lambda = 1`, eq. 4 with the paper's
    words: with rates (0.1, 5) and :math:`\tau = 10^{-5}` its noise term alone has the mean 83 a coordinate, 80% of it
    from t under 0.01 (erratum E11).

    Arguments:
        score: The network's score.
        sde: The diffusion.
        z: Clean points ``(N, *event)``.
        weighting: One of ``WEIGHTINGS``.
        mask: What counts, broadcastable to ``z``: 1 or True for coordinates whose score is trained, 0 elsewhere.
        eps: The earliest time.
        generator: Source of times and noise.

    Returns:
        The mean over points of the sum over coordinates that count, a scalar.

    Raises:
        ValueError: If the weighting is unknown, ``eps`` is out of range, or the score has another shape.

    Source: SBM-VAE, eq. 4 and appendix A.10.1 (masked scores); Vincent, "A connection between score matching and
    denoising autoencoders", 2011; errata E11.
    """
    if weighting not in WEIGHTINGS:
        raise ValueError(f"weighting is {weighting!r}, must be one of {WEIGHTINGS}")
    t = draw_times(len(z), eps, z, generator)
    noise = draw_noise(z, generator)
    found = score(sde.perturb(z, t, noise), t)
    if found.shape != z.shape:
        raise ValueError(f"the score has shape {tuple(found.shape)}, the points {tuple(z.shape)}")
    sigma = sde.sigma(expand_time(t, z))
    error = (sigma * found + noise).square()
    if weighting == "unweighted":
        error = error / sigma.square()
    if mask is not None:
        error = error * mask
    return error.flatten(1).sum(1).mean()
