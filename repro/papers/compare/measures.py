"""What every comparison measures beside samples: parameters, seconds of sampling, likelihood, and a ceiling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from repro.datasets import Dataset
from repro.model import MultimodalModel
from repro.networks.cost import count_parameters, timed
from repro.papers.gmrf_mcvae.copula.evaluation import CopulaTasks, distance_metrics, measure
from repro.records import Metric, RunSpec

__all__ = ["costs", "likelihood", "reconstruction", "renamed"]

# Streams of the evaluation's seed that the tasks of the data do not use.
RECONSTRUCTION_STREAM, LIKELIHOOD_STREAM, SECONDS_STREAM = 50, 60, 70


def renamed(metrics: Sequence[Metric], former: str, name: str) -> list[Metric]:
    """Metrics whose names begin with another prefix."""
    return [replace(m, name=name + m.name.removeprefix(former)) for m in metrics if m.name.startswith(former)]


def reconstruction(
    model: MultimodalModel,
    tasks: CopulaTasks,
    distances: Sequence[str],
    text: str = "test points decoded given all of their modalities",
) -> list[Metric]:
    """The ceiling of a model's own encoders and decoders: test points decoded given all of their modalities.

    Arguments:
        model: In evaluation mode.
        tasks: Of the model and the test split.
        distances: Of :data:`~repro.papers.gmrf_mcvae.copula.evaluation.DISTANCES`.
        text: What the metrics say of how they were measured.
    """
    generator = torch.Generator(tasks.device).manual_seed(1000 * tasks.seed + RECONSTRUCTION_STREAM)
    decoded = model.generate(1, given=tasks.true, generator=generator)
    decoded = tasks.clipped({m: x[0] for m, x in decoded.items()}, "mean")
    found = []
    for distance in distances:
        result = measure(distance, tasks.true, decoded, tasks.number)
        found += distance_metrics("test/reconstruction/mean", text, distance, [result])
    return found


def _generator(spec: RunSpec, stream: int, device: str) -> torch.Generator:
    return torch.Generator(device).manual_seed(1000 * spec.params["evaluation"]["seed"] + stream)


@torch.no_grad()
def costs(model: MultimodalModel, data: Dataset, spec: RunSpec, device: str) -> list[Metric]:
    """``model/parameters``, and ``sampling/<joint|conditional>/seconds`` of 1,000 samples.

    Arguments:
        model: In evaluation mode, on the device.
        data: The split whose points are given.
        spec: The run; its evaluation has ``timed``.
        device: Where the model is.
    """
    found = [Metric("model/parameters", count_parameters(model), "1", 1, "trained parameters")]
    clock = "wall clock" if device.startswith("cuda") else "processor time"
    count = min(spec.params["evaluation"]["timed"], len(data))
    observed = next(iter(model.modalities))
    given = {observed: data.first(count).to(device).floats().data[observed]}
    for stream, (task, number, condition) in enumerate((("joint", count, None), ("conditional", 1, given))):
        generator = _generator(spec, SECONDS_STREAM + stream, device)
        _, seconds = timed(
            lambda n=number, x=condition, g=generator: model.generate(n, given=x, generator=g), device, processor=True
        )
        text = "joint" if condition is None else f"given {observed}, one a point"
        protocol = f"{clock} of generating 1,000 samples, from {count:,} at once; {text}"
        found.append(Metric(f"sampling/{task}/seconds", seconds * 1000 / count, "s", count, protocol))
    return found


def likelihood(model: MultimodalModel, data: Dataset, spec: RunSpec, device: str) -> list[Metric]:
    """``test/log_likelihood``, in nats a point; nothing where the run asks for none or the model has none.

    Nor where the model's own proposal has collapsed at a point, so that its estimate is not finite.

    Arguments:
        model: On the device.
        data: The split.
        spec: The run; its evaluation has ``likelihood`` with ``points`` and ``importance_samples``.
        device: Where the model is.
    """
    settings = spec.params["evaluation"].get("likelihood")
    if settings is None:
        return []
    points, number = min(settings["points"], len(data)), settings["importance_samples"]
    batch = dict(data.first(points).to(device).floats().data)
    generator = _generator(spec, LIKELIHOOD_STREAM, device)
    try:
        values = model.log_likelihood(batch, num_importance_samples=number, generator=generator)
    except NotImplementedError:
        return []
    if not bool(values.isfinite().all()):
        return []
    text = f"mean ln p(x) of all modalities by {number:,} importance samples, at the loss's own scale"
    return [Metric(f"{data.split}/log_likelihood", float(values.double().mean()), "nats", points, text)]
