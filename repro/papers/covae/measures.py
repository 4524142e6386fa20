"""What CoVAE's paper reads off the latents that reach the decoders, by the same hooks for every model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from repro.baselines.inference import ExpertMixtureModel
from repro.metrics.calibration import interval_coverage
from repro.metrics.correlation import canonical_correlations
from repro.model import MultimodalModel
from repro.papers.covae.model import CoVAE

__all__ = [
    "calibration",
    "decoder_correlation",
    "decoder_inputs",
    "first_layer",
    "has_decoders",
    "latent_means",
    "predictive_deviation",
]


def first_layer(network: nn.Module) -> nn.Module:
    """The first module within a network that has parameters of its own.

    Raises:
        ValueError: If there is none.
    """
    for module in network.modules():
        if any(True for _ in module.parameters(recurse=False)):
            return module
    raise ValueError(f"{type(network).__name__} has no layer with parameters")


def has_decoders(model: MultimodalModel) -> bool:
    """Whether a model has decoders whose inputs can be read."""
    return hasattr(model, "decoders") or hasattr(model, "multivae")


def _decoders(model: MultimodalModel) -> dict[str, nn.Module]:
    own = getattr(model, "decoders", None)
    found = model.multivae.decoders if own is None else own
    return {m: found[m] for m in model.modalities}


@contextmanager
def _recorded(model: MultimodalModel) -> Iterator[dict[str, list[Tensor]]]:
    """Collects what reaches each decoder's first layer while the block runs."""
    seen: dict[str, list[Tensor]] = {m: [] for m in model.modalities}
    hooks = [
        first_layer(decoder).register_forward_pre_hook(lambda _, inputs, m=m: seen[m].append(inputs[0].detach()))
        for m, decoder in _decoders(model).items()
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def decoder_inputs(
    model: MultimodalModel,
    given: Mapping[str, Tensor],
    *,
    num_samples: int = 1,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """What the first layer of each decoder takes when the model generates, by a forward pre-hook.

    Arguments:
        model: Any model of the interface whose decoders are fully connected at their first layer.
        given: Observed modalities; all of them for reconstructions by the joint posterior.
        num_samples: Samples for each point.
        generator: Source of randomness.

    Returns:
        Modality to latents, ``(num_samples, batch, d)``.

    Raises:
        ValueError: If names or shapes of ``given`` do not fit.

    Source: CoVAE, appendix B.1, "Representation extraction".
    """
    with _recorded(model) as seen:
        model.generate(num_samples, given=given, generator=generator)
    size = len(next(iter(given.values())))
    return {m: torch.cat(parts).reshape(num_samples, size, -1) for m, parts in seen.items()}


def decoder_correlation(
    model: MultimodalModel,
    batch: Mapping[str, Tensor],
    given: Sequence[str],
    *,
    largest: int | None = None,
    generator: torch.Generator | None = None,
) -> float:
    """Mean canonical correlation of two modalities' decoder inputs, one sample a point.

    It is 1 where both decoders take the same latents. The mean over the points of a split is biased upwards, by about
    0.03 at 10 + 10 latents without correlation and 5,000 points; see :func:`repro.metrics.correlation`.

    Arguments:
        model: A model of two modalities or more; the first two are compared.
        batch: All modalities.
        given: Names of the observed ones.
        largest: How many of the largest are averaged, of a model with more latents than the data were drawn from; all
            if None.
        generator: Source of randomness.

    Raises:
        ValueError: If names do not fit, or there are not more points than latents.

    Source: CoVAE, section 3.1 and Figure 5.
    """
    z = decoder_inputs(model, {m: batch[m] for m in given}, generator=generator)
    first, second = list(model.modalities)[:2]
    return float(canonical_correlations(z[first][0], z[second][0])[:largest].mean())


def predictive_deviation(
    model: MultimodalModel,
    batch: Mapping[str, Tensor],
    observed: str,
    *,
    num_samples: int = 64,
    generator: torch.Generator | None = None,
) -> dict[str, float]:
    """Standard deviation of each decoder's inputs given one modality, averaged over latents and points.

    Arguments:
        model: Any model of the interface.
        batch: All modalities; only the observed one is read.
        observed: Its name.
        num_samples: Samples for each point, at least 2.
        generator: Source of randomness.

    Returns:
        Modality to standard deviation: that of ``observed`` is of the conditioning, the others of missing modalities.

    Raises:
        ValueError: If there are fewer than two samples.

    Source: CoVAE, section 3.1 and Figure 6.
    """
    if num_samples < 2:
        raise ValueError(f"{num_samples} samples have no standard deviation, needs at least 2")
    z = decoder_inputs(model, {observed: batch[observed]}, num_samples=num_samples, generator=generator)
    return {m: float(v.std(0).mean()) for m, v in z.items()}


@torch.no_grad()
def calibration(
    model: MultimodalModel,
    batch: Mapping[str, Tensor],
    observed: str,
    missing: str,
    *,
    level: float = 0.9,
    num_samples: int = 99,
    generator: torch.Generator | None = None,
) -> dict[str, float]:
    """How often predictive intervals of a missing modality hold its latents and the mean of its values.

    ``"latent"``: intervals of each decoder input given ``observed``, against one draw of the same input given all
    modalities; the share over points and latents. It is ``level`` where the posteriors are exact and the model is
    right, since draws of p(z | x) are over the data draws of p(z | x_o). ``"mean"``: intervals of the decoder's
    output, averaged over its values (an image's mean intensity), against the same average of the true values, whose
    noise the decoder's output leaves out.

    Arguments:
        model: Any model of the interface.
        batch: All modalities.
        observed: Name of the modality that is given.
        missing: Name of the one that is predicted.
        level: Probability of the interval.
        num_samples: Predictive samples for each point.
        generator: Source of randomness.

    Raises:
        ValueError: As :func:`repro.metrics.calibration.interval_coverage` does.
    """
    given = {observed: batch[observed]}
    with _recorded(model) as seen:
        out = model.generate(num_samples, given=given, generator=generator)
    size = len(batch[observed])
    predicted = torch.cat(seen[missing]).reshape(num_samples, size, -1)
    own = decoder_inputs(model, batch, generator=generator)[missing][0]
    return {
        "latent": float(interval_coverage(predicted, own, level).mean()),
        "mean": float(interval_coverage(out[missing].flatten(2).mean(2), batch[missing].flatten(1).mean(1), level)),
    }


@torch.no_grad()
def latent_means(model: CoVAE | ExpertMixtureModel, given: Mapping[str, Tensor]) -> Tensor:
    """Posterior means that classifiers read: all modalities' for CoVAE, the shared latents' for the others.

    Given one modality of a CoVAE, those of its own encoder. A mixture's mean is the mean of its components' means.

    Arguments:
        model: A CoVAE or a baseline.
        given: Observed modalities: all, or one.

    Returns:
        ``(batch, d)``.

    Raises:
        ValueError: If names or shapes do not fit.

    Source: CoVAE, section 3.2: "then run the classifiers on the shared latent space".
    """
    return model.latent_means(given)
