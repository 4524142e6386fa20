"""How a run on the asymmetric Laplace copula is measured: distances of pairs, and errors of their tails."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor

from repro.datasets import Dataset
from repro.metrics.tails import CORNERS, tail_error
from repro.metrics.transport import histogram_value_wasserstein, sliced_wasserstein
from repro.model import MultimodalModel
from repro.papers.mrf_mvae.mixing import chain_metrics
from repro.papers.mrf_mvae.variants import build
from repro.records import Metric, RunSpec

__all__ = ["build", "evaluate", "figure_samples"]

SHOWN = 4_000
DISTANCES = {
    "sliced": (sliced_wasserstein, "sliced 1-Wasserstein distance, 32 directions, x 1000"),
    "histogram": (
        histogram_value_wasserstein,
        "1-D Wasserstein distance between the values of normalised 10 x 10 histograms, x 1000",
    ),
}
MARGINALS = {
    "true": "tails beyond the true sample's quantiles",
    "own": "tails by the generated sample's own ranks: dependence alone",
}
OUTPUTS = {"mean": "decoder means", "sample": "samples of the likelihood"}

Samples = Mapping[str, Tensor]


def _compared(prefix: str, protocol: str, true: Samples, generated: Samples, level: float) -> list[Metric]:
    number, metrics = len(next(iter(true.values()))), []
    for name, (function, words) in DISTANCES.items():
        value = function(true, generated).mean
        text = f"{protocol}; {words}; mean over the six pairs and both coordinates"
        metrics.append(Metric(f"{prefix}/{name}", value, "1e-3", number, text))
    for name, words in MARGINALS.items():
        found = tail_error(true, generated, level=level, marginals=name)
        text = (
            f"{protocol}; absolute error of the tail coefficients at level {level:g}, {words}; mean over the six pairs "
            "and both coordinates"
        )
        metrics += [Metric(f"{prefix}/tail-{name}/{c}", found.corner(c), "1", number, f"{text}; {c}") for c in CORNERS]
        metrics.append(Metric(f"{prefix}/tail-{name}/mean", found.mean, "1", number, f"{text}; mean of four corners"))
    return metrics


@torch.no_grad()
def evaluate(
    model: MultimodalModel,
    data: Mapping[str, Dataset],
    spec: RunSpec,
    device: str = "cpu",
    *,
    outputs: Collection[str] = tuple(OUTPUTS),
) -> list[Metric]:
    """All metrics of a run, named ``<split>/<unconditional|conditional|floor>/<mean|sample|true>/<what>``.

    Conditional: all modalities given each in turn, averaged over which; the asymmetric Laplace variant's by its exact
    generalised hyperbolic conditional. Values are clipped to [0, 1], the range of the data.

    Arguments:
        model: The trained model.
        data: The split that is measured on, and the reference where there is one.
        spec: The run; its evaluation has ``split``, ``level`` and ``seed``.
        device: Where to compute.
        outputs: Of ``"mean"`` and ``"sample"``, what joint samples are.
    """
    settings = spec.params["evaluation"]
    split, level = settings["split"], settings["level"]
    model.to(device).eval()
    true = dict(data[split].to(device).data)
    number = len(data[split])
    options = {"conditional": "exact"} if "conditional" in model.generation_options else {}

    def generator(stream: int) -> torch.Generator:
        return torch.Generator(device).manual_seed(1000 * settings["seed"] + stream)

    metrics = []
    for output in outputs:
        drawn = model.generate(number, generator=generator(1), sample_likelihood=output == "sample")
        clipped = {m: x.clamp(0.0, 1.0) for m, x in drawn.items()}
        text = f"unconditional, {OUTPUTS[output]}, clipped to [0, 1]"
        metrics += _compared(f"{split}/unconditional/{output}", text, true, clipped, level)
    if outputs:  # the chains of the last joint samples
        metrics += chain_metrics(model, f"{split}/unconditional", number)
    metrics += _conditional(model, true, split, level, generator, options)
    if "reference" in data:
        reference = dict(data["reference"].to(device).data)
        metrics += _compared(f"{split}/floor/true", "two independent true samples", true, reference, level)
    return metrics


def _conditional(
    model: MultimodalModel,
    true: Samples,
    split: str,
    level: float,
    generator: Callable[[int], torch.Generator],
    options: Mapping[str, str],
) -> list[Metric]:
    """The same measures given each modality in turn, averaged over which."""
    found: dict[str, list[Metric]] = {}
    text = "conditional on one modality, averaged over which one, decoder means, clipped to [0, 1]"
    for index, observed in enumerate(true):
        drawn = model.generate(1, given={observed: true[observed]}, generator=generator(2 + index), **options)
        clipped = {m: x[0].clamp(0.0, 1.0) for m, x in drawn.items()}
        for metric in _compared(f"{split}/conditional/mean", text, true, clipped, level):
            found.setdefault(metric.name, []).append(metric)
    return [
        Metric(name, sum(m.value for m in each) / len(each), each[0].unit, each[0].num_samples, each[0].protocol)
        for name, each in found.items()
    ]


@torch.no_grad()
def figure_samples(model: MultimodalModel, spec: RunSpec, device: str = "cpu") -> dict[str, Tensor]:
    """Unconditional samples (decoder means) in float16, kept for the figure."""
    if spec.params["evaluation"]["split"] != "test":
        return {}
    generator = torch.Generator(device).manual_seed(1000 * spec.params["evaluation"]["seed"] + 1)
    return {m: x.to(torch.float16) for m, x in model.generate(SHOWN, generator=generator).items()}
