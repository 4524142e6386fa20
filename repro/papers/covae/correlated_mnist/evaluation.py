"""How a run on correlated MNIST is measured: correlations, standard deviations, likelihoods, calibration."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from repro.baselines import Baseline
from repro.baselines.joint import JointBaseline, multivae_joint_nll
from repro.datasets import Dataset
from repro.metrics.correlation import canonical_correlations, participation_ratio
from repro.model import MultimodalModel
from repro.papers.covae.likelihoods import decompose, posterior_predictive_log_likelihood
from repro.papers.covae.measures import calibration, decoder_correlation, predictive_deviation
from repro.papers.covae.model import CoVAE
from repro.records import Metric, RunSpec

__all__ = ["LEVEL", "evaluate_images", "likelihood_metrics", "null_correlation", "prior_metrics", "whole"]

LEVEL = 0.9
DRAWS_OF_INTERVALS = 99
CCA = "mean canonical correlation of the inputs of both decoders' first layers, one sample a test point"


def whole(data: Dataset, device: str) -> dict[str, Tensor]:
    """All of a split as one batch."""
    return next(iter(data.to(device).batches(len(data), shuffle=False)))


def null_correlation(samples: int, first: int, second: int) -> float:
    """Mean sample canonical correlation of independent standard normal features: the bias at no correlation."""
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(samples, d, generator=g) for d in (first, second))
    return float(canonical_correlations(x, y).mean())


def prior_metrics(model: CoVAE, train_samples: int) -> list[Metric]:
    """The prior's correlations, what Deep CCA found and with what bias, and the effective dimension."""
    sizes = list(model.block_sizes.values())
    held_out = round(model.held_out * train_samples)
    fit = train_samples - held_out
    text = "mean over canonical pairs of the encoders' means"
    values = {
        "prior/correlation": (float(model.prior.correlations().mean()), fit, "mean correlation of the trained prior"),
        "prior/participation-ratio": (
            float(participation_ratio(model.prior().covariance_matrix)),
            1,
            f"(sum of eigenvalues)^2 / sum of their squares, of {sum(sizes)} latents",
        ),
    }
    if model.pretraining != "none":
        values |= {
            "deep-cca/fitted": (float(model.fitted_correlations.mean()), fit, f"{text}, on the samples of the fit"),
            "deep-cca/held-out": (float(model.held_out_correlations.mean()), held_out, f"{text}, on held-out samples"),
            "deep-cca/bias": (
                null_correlation(fit, *sizes[:2]),
                fit,
                "mean sample canonical correlation of as many independent normal features and samples as in the fit",
            ),
        }
    return [Metric(name, value, "1", max(1, n), protocol) for name, (value, n, protocol) in values.items()]


def likelihood_metrics(
    model: MultimodalModel, batch: Mapping[str, Tensor], number: int, device: str, seed: int
) -> list[Metric]:
    """Joint and conditional negative log-likelihoods of two modalities, each under the name of its definition.

    Arguments:
        model: A CoVAE or a baseline.
        batch: Both modalities.
        number: Importance samples.
        device: Where the model is.
        seed: Seed of the samples.
    """

    def generator(stream: int) -> torch.Generator:
        return torch.Generator(device).manual_seed(1000 * seed + stream)

    size = len(next(iter(batch.values())))
    text = f"importance-weighted, {number} samples a point, mean over points"
    joint = -model.log_likelihood(batch, num_importance_samples=number, generator=generator(50)).mean()
    found = [Metric("test/nll/joint", float(joint), "nats", size, f"-ln p(x), {text}")]
    if isinstance(model, Baseline | JointBaseline):
        few = {m: x[:100] for m, x in batch.items()}
        own = multivae_joint_nll(model, few, num_importance_samples=100, generator=torch.Generator().manual_seed(seed))
        found.append(
            Metric("test/nll/joint-multivae", own, "nats", len(next(iter(few.values()))), "multivae's own, 100 samples")
        )
        same = -model.log_likelihood(few, num_importance_samples=100, generator=generator(51)).mean()
        found.append(
            Metric(
                "test/nll/joint-of-those-points", float(same), "nats", len(few[next(iter(few))]), f"-ln p(x), {text}"
            )
        )
    first, second = model.modalities
    for index, (missing, observed) in enumerate(((second, first), (first, second))):
        x, given = {missing: batch[missing]}, {observed: batch[observed]}
        ratio = -model.log_likelihood(
            x, given=given, num_importance_samples=number, generator=generator(60 + index)
        ).mean()
        predictive = -posterior_predictive_log_likelihood(
            model, x, given, num_samples=number, generator=generator(70 + index)
        ).mean()
        name = f"test/nll/{missing}-given-{observed}"
        ratio_text = f"-ln p(x, x_o) + ln p(x_o), each {text}"
        predictive_text = f"-ln of the mean of p(x_m | z) over {number} samples of what is inferred from x_o alone"
        found.append(Metric(f"{name}/ratio", float(ratio), "nats", size, ratio_text))
        found.append(Metric(f"{name}/posterior-predictive", float(predictive), "nats", size, predictive_text))
    return found


class _Images:
    """The measures of one run, each from its own stream of the evaluation's seed."""

    def __init__(self, model: MultimodalModel, data: Mapping[str, Dataset], spec: RunSpec, device: str) -> None:
        self.model, self.device, self.settings = model, device, spec.params["evaluation"]
        self.batch, self.truth = whole(data["test"], device), whole(data["truth"], device)
        self.size, self.points = len(data["test"]), min(self.settings["points"], len(data["test"]))
        self.few = {m: x[: self.points] for m, x in self.batch.items()}
        self.seed = self.settings["seed"]

    def generator(self, stream: int) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(1000 * self.seed + stream)

    def correlations(self) -> list[Metric]:
        names = list(self.model.modalities)
        true = float(canonical_correlations(self.truth["z0"], self.truth["z1"]).mean())
        joint = decoder_correlation(self.model, self.batch, names, generator=self.generator(1))
        each = {
            o: decoder_correlation(self.model, self.batch, [o], generator=self.generator(2 + i))
            for i, o in enumerate(names)
        }
        mean = sum(each.values()) / len(each)
        latents = self.truth["z0"].shape[1]
        text = "mean canonical correlation of the latents that the data were drawn from"
        found = [
            Metric("test/correlation/true", true, "1", self.size, text),
            Metric("test/correlation/joint", joint, "1", self.size, f"{CCA}, given both"),
            Metric("test/correlation/conditional", mean, "1", self.size, f"{CCA}, given one, averaged over which"),
            Metric(
                "test/correlation/bias",
                null_correlation(self.size, latents, latents),
                "1",
                self.size,
                f"the same of {latents} + {latents} independent normal features",
            ),
        ]
        return found + [
            Metric(f"test/correlation/given-{o}", v, "1", self.size, f"{CCA}, given {o}") for o, v in each.items()
        ]

    def deviations(self) -> list[Metric]:
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

    def coverage(self) -> list[Metric]:
        a, b = self.model.modalities
        parts = [
            calibration(
                self.model,
                self.few,
                o,
                m,
                level=LEVEL,
                num_samples=DRAWS_OF_INTERVALS,
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
                f"share of true values in {LEVEL:.0%} intervals of {DRAWS_OF_INTERVALS} samples: {text}; both ways",
            )
            for name, text in texts.items()
        ]

    def decomposition(self) -> list[Metric]:
        components = len(self.model.posterior(self.few).means) if not isinstance(self.model, CoVAE) else 1
        number = components * max(1, 60 // components)
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
    run = _Images(model, data, spec, device)
    found = run.correlations() + run.deviations() + run.coverage() + run.decomposition()
    number = spec.params["evaluation"]["importance_samples"]
    found += likelihood_metrics(model, run.few, number, device, run.seed)
    if isinstance(model, CoVAE):
        found += prior_metrics(model, len(data["train"]))
    return found
