"""How a run on correlated MNIST is measured, and what it keeps for the figures.

Correlations, standard deviations, likelihoods, calibration; images of a fixed rule and terms of the likelihood.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from repro.datasets import Dataset
from repro.metrics.correlation import canonical_correlations
from repro.model import MultimodalModel
from repro.papers.covae.building import build_run
from repro.papers.covae.evaluation import likelihood_metrics, null_correlation, prior_metrics, whole
from repro.papers.covae.likelihoods import decompose, evenly_spread
from repro.papers.covae.measures import calibration, decoder_correlation, predictive_deviation
from repro.records import Metric, RunSpec

__all__ = ["LEVEL", "POINTS", "SAMPLES", "ImageMeasures", "build_run", "evaluate_images", "image_samples"]

LEVEL = 0.9
DRAWS_OF_INTERVALS = 99
POINTS, SAMPLES = 2, 5  # images of the first test points, and five samples for each, as in Figures 16 and 17
TERM_POINTS = 100
CCA = "mean canonical correlation of the inputs of both decoders' first layers, one sample a test point"


class ImageMeasures:
    """The measures of one run, each from its own stream of the evaluation's seed.

    Arguments:
        model: In evaluation mode.
        data: ``"test"``, and the same with the latents that it was drawn from as ``"truth"``.
        spec: The run; its evaluation has ``points``, ``draws`` and ``seed``.
        device: Where the model is.
    """

    def __init__(self, model: MultimodalModel, data: Mapping[str, Dataset], spec: RunSpec, device: str) -> None:
        self.model, self.device, self.settings = model, device, spec.params["evaluation"]
        self.batch, self.truth = whole(data["test"], device), whole(data["truth"], device)
        self.size, self.points = len(data["test"]), min(self.settings["points"], len(data["test"]))
        self.few = {m: x[: self.points] for m, x in self.batch.items()}
        self.seed = self.settings["seed"]

    def generator(self, stream: int) -> torch.Generator:
        """The measure's own source of randomness."""
        return torch.Generator(self.device).manual_seed(1000 * self.seed + stream)

    def correlations(self, largest: int | None = None) -> list[Metric]:
        """Of the decoders' inputs, given both modalities and given one (Figure 5), and of the true latents.

        Arguments:
            largest: As :func:`~repro.papers.covae.measures.decoder_correlation` takes it.
        """
        cca = CCA if largest is None else f"{CCA}, of the {largest} largest"
        names = list(self.model.modalities)
        true = float(canonical_correlations(self.truth["z0"], self.truth["z1"]).mean())
        joint = decoder_correlation(self.model, self.batch, names, largest=largest, generator=self.generator(1))
        each = {
            o: decoder_correlation(self.model, self.batch, [o], largest=largest, generator=self.generator(2 + i))
            for i, o in enumerate(names)
        }
        mean = sum(each.values()) / len(each)
        latents = self.truth["z0"].shape[1]
        text = "mean canonical correlation of the latents that the data were drawn from"
        found = [
            Metric("test/correlation/true", true, "1", self.size, text),
            Metric("test/correlation/joint", joint, "1", self.size, f"{cca}, given both"),
            Metric("test/correlation/conditional", mean, "1", self.size, f"{cca}, given one, averaged over which"),
            Metric(
                "test/correlation/bias",
                null_correlation(self.size, latents, latents),
                "1",
                self.size,
                f"the same of {latents} + {latents} independent normal features",
            ),
        ]
        return found + [
            Metric(f"test/correlation/given-{o}", v, "1", self.size, f"{cca}, given {o}") for o, v in each.items()
        ]

    def deviations(self) -> list[Metric]:
        """Of the decoders' inputs given one modality (Figure 6)."""
        draws, names = self.settings["draws"], list(self.model.modalities)
        observed, missing = [], []
        for i, o in enumerate(names):
            found = predictive_deviation(self.model, self.few, o, num_samples=draws, generator=self.generator(10 + i))
            observed.append(found[o])
            missing += [v for m, v in found.items() if m != o]
        text = (
            f"standard deviation of {draws} samples of a decoder's inputs, averaged over inputs, points and directions"
        )
        return [
            Metric("test/deviation/conditioning", sum(observed) / len(observed), "1", self.points, f"observed: {text}"),
            Metric("test/deviation/missing", sum(missing) / len(missing), "1", self.points, f"missing: {text}"),
        ]

    def coverage(self, draws: int = DRAWS_OF_INTERVALS) -> list[Metric]:
        """Of intervals of the missing modality, over how many draws each."""
        a, b = self.model.modalities
        parts = [
            calibration(
                self.model,
                self.few,
                o,
                m,
                level=LEVEL,
                num_samples=draws,
                generator=self.generator(20 + i),
            )
            for i, (o, m) in enumerate(((a, b), (b, a)))
        ]
        texts = {
            "latent": "decoder inputs given the other modality, against one draw given both",
            "mean": "mean intensity of the decoded image, against that of the true one",
        }
        return [
            Metric(
                f"test/coverage/{name}",
                sum(p[name] for p in parts) / len(parts),
                "1",
                self.points,
                f"share of true values in {LEVEL:.0%} intervals of {draws} samples: {text}; both ways",
            )
            for name, text in texts.items()
        ]

    def decomposition(self) -> list[Metric]:
        """Terms of the importance weights (Figure 14)."""
        number = evenly_spread(self.model, 60)
        terms = decompose(self.model, self.few, num_samples=number, generator=self.generator(30))
        text = f"mean over {number} samples of the posterior given both, and over points"
        return [
            Metric(f"test/terms/{name}", float(getattr(terms, name).mean()), "nats", self.points, text)
            for name in ("reconstruction", "prior", "posterior")
        ]


@torch.no_grad()
def evaluate_images(
    model: MultimodalModel, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu"
) -> list[Metric]:
    """All metrics of a run on correlated MNIST, on the test split.

    Correlations take the whole split, the others its first points. Metric names are ``test/<measure>/<which>``, and
    ``prior/...`` and ``deep-cca/...`` of CoVAE.
    """
    model.to(device).eval()
    run = ImageMeasures(model, data, spec, device)
    found = run.correlations() + run.deviations() + run.coverage() + run.decomposition()
    number = spec.params["evaluation"]["importance_samples"]
    found += likelihood_metrics(model, run.few, number, device, run.seed)
    return found + prior_metrics(model, len(data["train"]))


def _bytes(x: Tensor) -> Tensor:
    return (x.clamp(0, 1) * 255).round().to(torch.uint8)


@torch.no_grad()
def image_samples(model: MultimodalModel, data: Dataset, spec: RunSpec, device: str = "cpu") -> dict[str, Tensor]:
    """Images and terms of the likelihood of a run on correlated MNIST.

    ``true/<m>``, ``given_m0/<m>``, ``given_m1/<m>`` and ``joint/<m>``: images as bytes, ``(POINTS, ...)`` or
    ``(SAMPLES, POINTS, ...)``. ``terms/<name>``: one term for each of 20 samples and 100 points, float32; of 18
    samples where the proposal has three components (MoPoE), as many of each. Of the first seed alone.
    """
    if spec.seed:
        return {}
    model.to(device).eval()
    batch = whole(data, device)
    few = {m: x[:POINTS] for m, x in batch.items()}
    seed = spec.params["evaluation"]["seed"]
    found = {f"true/{m}": _bytes(x) for m, x in few.items()}
    for i, (name, observed) in enumerate(
        [("joint", list(few)), *((f"given_{o}", [o]) for o in few)]  # given both, and given each
    ):
        generator = torch.Generator(device).manual_seed(1000 * seed + 90 + i)
        drawn = model.generate(SAMPLES, given={m: few[m] for m in observed}, generator=generator)
        found |= {f"{name}/{m}": _bytes(x) for m, x in drawn.items()}
    points = {m: x[:TERM_POINTS] for m, x in batch.items()}
    number = evenly_spread(model, 20)
    generator = torch.Generator(device).manual_seed(1000 * seed + 99)
    terms = decompose(model, points, num_samples=number, generator=generator)
    return found | {f"terms/{n}": getattr(terms, n).float() for n in ("reconstruction", "prior", "posterior")}
