"""How a copula run is measured: distances of generated to held-out samples, under every protocol by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from repro.datasets import Dataset
from repro.datasets.base import specs
from repro.datasets.card import load_card
from repro.metrics.transport import (
    PairwiseDistance,
    histogram_value_wasserstein,
    noise_floor,
    optimal_transport,
    sliced_wasserstein,
)
from repro.model import MultimodalModel
from repro.papers.gmrf_mcvae.building import build_method
from repro.papers.gmrf_mcvae.model import CONDITIONAL_PROTOCOLS
from repro.records import Metric, RunSpec

__all__ = [
    "DISTANCES",
    "CopulaTasks",
    "build",
    "distance_metrics",
    "evaluate_copula",
    "figure_samples",
    "floor_metrics",
    "measure",
]

DISTANCES = {
    "histogram": "1-D Wasserstein distance between the values of normalised 10 x 10 histograms, x 1000",
    "sliced": "sliced 1-Wasserstein distance, 32 directions, x 1000",
    "transport": "exact 2-D 1-Wasserstein distance, x 1000",
}
# Outputs are clipped to the range that the data's card states: linear decoders overshoot it by a few hundredths, and
# the outermost values rule the paper's distance, whose histograms span their own sample's range.
OUTPUTS = {
    "mean": "decoder means, clipped to the data's range",
    "unclipped": "decoder means as they are",
    "sample": "samples of the likelihood, clipped to the data's range",
}


def measure(name: str, true: Mapping[str, Tensor], generated: Mapping[str, Tensor], number: int) -> PairwiseDistance:
    """One of ``DISTANCES``; the exact one between the first ``number`` samples of each side."""
    if name == "histogram":
        return histogram_value_wasserstein(true, generated)
    if name == "sliced":
        return sliced_wasserstein(true, generated)
    return optimal_transport(true, generated, num_samples=number)


def distance_metrics(prefix: str, protocol: str, distance: str, results: Sequence[PairwiseDistance]) -> list[Metric]:
    """Dim 1, Dim 2 and their mean, averaged over the conditioning modalities where there are several."""
    dims = [sum(r.dimension(c) for r in results) / len(results) for c in (0, 1)]
    values = {"dim1": dims[0], "dim2": dims[1], "mean": sum(dims) / 2}
    text = f"{protocol}; {DISTANCES[distance]}; mean over the six pairs of modalities"
    return [
        Metric(f"{prefix}/{distance}/{k}", v, "1e-3", results[0].num_samples, text + ("" if k == "mean" else f", {k}"))
        for k, v in values.items()
    ]


class CopulaTasks:
    """The two tasks of Table I on one split, each from its own stream of the evaluation's seed.

    Arguments:
        model: In evaluation mode.
        data: The split.
        spec: The run, whose evaluation has ``seed`` and ``transport_samples``.
        device: Where the model is.
    """

    def __init__(self, model: MultimodalModel, data: Dataset, spec: RunSpec, device: str) -> None:
        self.model, self.data, self.device = model, data.to(device), device
        self.seed = spec.params["evaluation"]["seed"]
        self.number = spec.params["evaluation"]["transport_samples"]
        self.true = dict(self.data.data)

    def _generator(self, stream: int) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(1000 * self.seed + stream)

    def clipped(self, samples: Mapping[str, Tensor], output: str) -> dict[str, Tensor]:
        """Samples in the data's range, unless the output is ``"unclipped"``."""
        if output == "unclipped":
            return dict(samples)
        limits = {m: s.range for m, s in self.data.modalities.items()}
        return {m: x if limits[m] is None else x.clamp(*limits[m]) for m, x in samples.items()}

    def unconditional(self, output: str, distances: Sequence[str]) -> list[Metric]:
        """z ~ prior, decoded; as many samples as the split has."""
        drawn = self.model.generate(len(self.data), generator=self._generator(1), sample_likelihood=output == "sample")
        generated = self.clipped(drawn, output)
        found = []
        for distance in distances:
            result = measure(distance, self.true, generated, self.number)
            prefix = f"{self.data.split}/unconditional/{output}"
            found += distance_metrics(prefix, f"unconditional, {OUTPUTS[output]}", distance, [result])
        return found

    def conditional(self, output: str, distances: Sequence[str], protocol: str = "joint") -> list[Metric]:
        """One sample of all modalities given each modality of every data point in turn; the observed one is decoded."""
        results: dict[str, list[PairwiseDistance]] = {d: [] for d in distances}
        options = {"protocol": protocol} if "protocol" in self.model.generation_options else {}
        for index, m in enumerate(self.true):
            drawn = self.model.generate(
                1,
                given={m: self.true[m]},
                generator=self._generator(2 + index),
                sample_likelihood=output == "sample",
                **options,
            )
            generated = self.clipped({k: x[0] for k, x in drawn.items()}, output)
            for distance in distances:
                results[distance].append(measure(distance, self.true, generated, self.number))
        name = "conditional" if protocol == "joint" else f"conditional-{protocol.replace('_', '-')}"
        text = f"conditional on one modality ({protocol}), averaged over which one, {OUTPUTS[output]}"
        prefix = f"{self.data.split}/{name}/{output}"
        return [metric for d, r in results.items() for metric in distance_metrics(prefix, text, d, r)]


def floor_metrics(tasks: CopulaTasks, reference: Dataset) -> list[Metric]:
    """The noise floor: the distance of the split to a further, independent true sample."""
    true = {m: x.cpu() for m, x in tasks.true.items()}
    found = []
    for distance in DISTANCES:
        floor = noise_floor(lambda a, b, d=distance: measure(d, a, b, tasks.number), true, dict(reference.data))
        found += distance_metrics("test/floor/true", "two independent true samples", distance, [floor])
    return found


def build(spec: RunSpec) -> MultimodalModel:
    """The untrained model of a run."""
    settings = dict(spec.params["model"])
    dtype = settings.pop("hidden_dtype")
    return build_method(
        spec.method,
        specs(load_card("copula")),
        **settings,
        hidden_dtype=None if dtype == "float32" else getattr(torch, dtype),
    )


@torch.no_grad()
def evaluate_copula(
    model: MultimodalModel, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu"
) -> list[Metric]:
    """All metrics of a copula run.

    On the validation split, for the choice of beta: the paper's reading and the sliced distance, on decoder means. On
    the test split: these two on decoder means, unclipped too, and on samples of the likelihood, the exact distance on
    decoder means, and for GMRF MCVAE the two further conditional protocols. The noise floor is the distance of the
    test split to a further, independent true sample.

    Metric names are ``<split>/<task>/<output>/<distance>/<dim1|dim2|mean>``.
    """
    model.to(device).eval()
    validation = CopulaTasks(model, data["validation"], spec, device)
    both = ["histogram", "sliced"]
    found = validation.unconditional("mean", both) + validation.conditional("mean", both)
    if "test" not in data:  # the first rung of the choice of beta sees no test data
        return found
    test = CopulaTasks(model, data["test"], spec, device)
    for output, distances in {"mean": [*both, "transport"], "unclipped": both, "sample": both}.items():
        found += test.unconditional(output, distances) + test.conditional(output, distances)
    if "protocol" in model.generation_options:
        for protocol in CONDITIONAL_PROTOCOLS[1:3]:
            found += test.conditional("mean", both, protocol)
    return found + floor_metrics(test, data["reference"])


def figure_samples(model: MultimodalModel, spec: RunSpec, device: str) -> dict[str, Tensor]:
    """2,000 unconditional samples (decoder means) in float16."""
    if "test" not in spec.params["evaluation"]["splits"]:
        return {}
    generator = torch.Generator(device).manual_seed(spec.params["evaluation"]["seed"])
    return {m: x.to(torch.float16) for m, x in model.generate(2_000, generator=generator).items()}
