"""How SBM-VAE samples latents: the sampler's settings, and the conditional with observed modalities held."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from repro.distributions.diffusion_samplers import OBSERVED_NOISE, SAMPLERS, SPACINGS, Observed, evaluations
from repro.model import TrainableModel
from repro.papers.sbm_vae.guidance import PairEnergy, guided_score
from repro.papers.sbm_vae.score import LatentScore

__all__ = ["FAST", "PAPER", "SamplingSettings", "guidance_options", "has_score", "sample_latents", "sampling_text"]


@dataclass(frozen=True)
class SamplingSettings:
    """Which sampler draws the latents, and with how many steps.

    Arguments:
        sampler: One of ``repro.distributions.SAMPLERS``.
        num_steps: Steps N.
        corrector_steps: Langevin steps a predictor step, for the predictor-corrector.
        snr: Its signal-to-noise ratio.
        stochasticity: Of the multistep solver, see :func:`repro.distributions.dpm_solver`.
        eps: The last time.
        spacing: Of the times; the sampler's own if empty.
        observed_noise: How observed latents are diffused, see :class:`repro.distributions.Observed`.
        chunk: Points that are sampled at once; Langevin steps average norms over them.

    Raises:
        ValueError: If a name is unknown or a number out of range.

    Source: SBM-VAE, Tables 4 and 10, and appendix A.2.
    """

    sampler: str = "predictor_corrector"
    num_steps: int = 100
    corrector_steps: int = 1
    snr: float = 0.16
    stochasticity: float = 8.0
    eps: float = 1e-3
    spacing: str = ""
    observed_noise: str = "fresh"
    chunk: int = 2560

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampler is {self.sampler!r}, must be one of {tuple(SAMPLERS)}")
        if self.spacing and self.spacing not in SPACINGS:
            raise ValueError(f"spacing is {self.spacing!r}, must be one of {SPACINGS}, or empty for the sampler's own")
        if self.observed_noise not in OBSERVED_NOISE:
            raise ValueError(f"observed_noise is {self.observed_noise!r}, must be one of {OBSERVED_NOISE}")
        if self.num_steps < 1 or self.chunk < 1:
            raise ValueError(f"num_steps {self.num_steps} and chunk {self.chunk} must be at least 1")

    @property
    def evaluations(self) -> int:
        """Evaluations of the score for one sample."""
        return evaluations(self.sampler, self.num_steps, self.corrector_steps)

    def function(self) -> Callable[..., Tensor]:
        """The sampler with its options set."""
        options: dict[str, object] = {"num_steps": self.num_steps, "eps": self.eps}
        if self.spacing:
            options["spacing"] = self.spacing
        if self.sampler == "predictor_corrector":
            options |= {"corrector_steps": self.corrector_steps, "snr": self.snr}
        if self.sampler == "dpm_solver":
            options["stochasticity"] = self.stochasticity
        return partial(SAMPLERS[self.sampler], **options)


PAPER = SamplingSettings()
# As near to the conditional as 100 steps of the predictor-corrector on Gaussians, with a tenth of the evaluations.
FAST = SamplingSettings("dpm_solver", num_steps=20)


def sample_latents(
    score: LatentScore,
    number: int,
    settings: SamplingSettings,
    *,
    values: Tensor | None = None,
    observed: Tensor | None = None,
    context: Tensor | None = None,
    energy: PairEnergy | None = None,
    gamma: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Samples standardised latents, jointly or given those of some modalities.

    Arguments:
        score: The score model, in evaluation mode.
        number: How many.
        settings: The sampler.
        values: Observed standardised latents ``(number, M, D)``; what is not observed is ignored.
        observed: Which modalities are, boolean ``(M,)``, or ``(number, M)`` where it differs from sample to sample.
        context: Embeddings ``(number, context_dim)``.
        energy: The pair energy that guides, None for none.
        gamma: Its strength for one sample.
        generator: Source of all randomness.

    Returns:
        ``(number, M, D)``, observed latents as they were given.

    Raises:
        ValueError: If nothing or all is observed, sizes do not fit, guidance has nothing observed or differs from
            sample to sample, the energy has another kernel, or sampling broke.
    """
    if number < 1:
        raise ValueError(f"number of samples is {number}, must be at least 1")
    guided = energy is not None and gamma != 0
    if guided and energy.sde != score.sde:
        raise ValueError(f"the energy model was trained with the kernel {energy.sde}, the score with {score.sde}")
    size = (score.num_modalities, score.latent_dim)
    if guided and (energy.num_modalities, energy.latent_dim) != size:
        raise ValueError(
            f"the energy model is for {energy.num_modalities} modalities of {energy.latent_dim} latents, the score for "
            f"{size[0]} of {size[1]}"
        )
    if (observed is None) != (values is None):
        raise ValueError("observed modalities and their latents are given together or not at all")
    if guided and (observed is None or observed.ndim != 1):
        raise ValueError("guidance needs the same observed modalities for all samples, at least one and not all")
    if values is not None and observed is not None:
        score.check(values)
        if len(values) != number:
            raise ValueError(f"observed latents of {len(values)} points for {number} samples")
        if tuple(observed.shape) not in ((size[0],), (number, size[0])):
            raise ValueError(
                f"observed has shape {tuple(observed.shape)}, must be ({size[0]},) or ({number}, {size[0]})"
            )
    run = settings.function()
    parts = []
    for start in range(0, number, settings.chunk):
        rows = slice(start, min(start + settings.chunk, number))
        parts.append(
            _chunk(run, score, rows, settings.observed_noise, values, observed, context, energy, gamma, generator)
        )
    return torch.cat(parts)


def _indices(observed: Tensor) -> Sequence[int]:
    return observed.nonzero().flatten().tolist()


def _chunk(
    run: Callable[..., Tensor],
    score: LatentScore,
    rows: slice,
    kind: str,
    values: Tensor | None,
    observed: Tensor | None,
    context: Tensor | None,
    energy: PairEnergy | None,
    gamma: float,
    generator: torch.Generator | None,
) -> Tensor:
    shape = (rows.stop - rows.start, score.num_modalities, score.latent_dim)
    like = score.location
    device = like.device if generator is None else generator.device
    start = torch.randn(shape, generator=generator, dtype=like.dtype, device=device).to(like.device)
    held, mask = None, None
    if observed is not None and values is not None:
        mask = (observed[None] if observed.ndim == 1 else observed[rows])[..., None]
        # Scores of several times were trained with clean observed latents.
        held = Observed(values[rows], mask, "clean" if score.multi_time else kind)
    own = None if context is None else context[rows]

    def function(z: Tensor, t: Tensor) -> Tensor:
        return score(z, t, own, observed=mask)

    if energy is not None and gamma != 0 and observed is not None:
        function = guided_score(function, energy, gamma, _indices(observed), generator)
    return run(function, score.sde, start, observed=held, generator=generator)


def has_score(model: TrainableModel) -> bool:
    """Whether a model draws latents by a score, so that ``generate`` takes ``sampling`` and ``gamma``."""
    return "sampling" in getattr(model, "generation_options", ())


def guidance_options(model: TrainableModel) -> dict[str, dict[str, Any]]:
    """Ways to sample a model, name to options of ``generate``: plain and, where it has an energy, guided by it.

    A model without a score has no such option. The last way is what figures' samples are drawn by.
    """
    if not has_score(model):
        return {"plain": {}}
    plain: dict[str, dict[str, Any]] = {"plain": {"gamma": 0.0}}
    return plain if model.energy is None else plain | {"guided": {}}


def sampling_text(model: TrainableModel) -> str:
    """How a model's samples are drawn, in a few words."""
    if not has_score(model):
        return "decoder means"
    s = model.sampling
    return f"{s.sampler}, {s.num_steps} steps, {s.evaluations} evaluations; decoder means"
