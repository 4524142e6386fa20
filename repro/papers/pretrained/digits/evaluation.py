"""How the VAEGAN and the digit classifiers are measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from repro.datasets import Dataset
from repro.datasets.base import specs
from repro.datasets.card import load_card
from repro.model import TrainableModel, isolated_rng
from repro.networks.vaegan import Decoder
from repro.papers.pretrained.classifiers import DigitClassifiers, accuracy
from repro.papers.pretrained.flow import EncodingFlow
from repro.papers.pretrained.vaegan import VAEGAN
from repro.records import Metric, RunSpec
from repro.weights.shipped import load_classifier, load_config, load_tensors

__all__ = [
    "EVALUATIONS",
    "DigitClassifiers",
    "EncodingFlow",
    "build_vaegan",
    "evaluate_classifier",
    "evaluate_flow",
    "evaluate_vaegan",
    "vaegan_samples",
]

CHUNK = 1000
SURE = "share whose digit the classifier of MNIST gives a probability of at least"


class _SampleClassifier:
    """Samples as the digit classifier of MNIST sees them, rounded to bytes as they would be stored."""

    def __init__(self, spec: RunSpec, device: str) -> None:
        settings = spec.params["evaluation"]
        self.number, self.threshold = settings["num_samples"], settings["confidence"]
        self.generator = torch.Generator(device).manual_seed(settings["seed"] + 1)
        self.classifier = load_classifier("mnist").to(device)

    def probabilities(self, x: Tensor) -> Tensor:
        return self.classifier((x * 255).round() / 255).softmax(1)

    def metrics(self, sample: Callable[..., Tensor]) -> list[Metric]:
        parts = [min(CHUNK, self.number - k) for k in range(0, self.number, CHUNK)]
        seen = torch.cat([self.probabilities(sample(n, generator=self.generator)) for n in parts])
        confidence, digit = seen.max(1)
        shares = torch.bincount(digit, minlength=10).double() / self.number
        sure = float((confidence >= self.threshold).double().mean())
        entropy = float(-(shares[shares > 0] * shares[shares > 0].log()).sum())
        drawn = f"{self.number:,} samples"
        return [
            Metric("samples/confident", sure, "1", self.number, f"{SURE} {self.threshold:g}; {drawn}"),
            Metric("samples/digit_entropy", entropy, "nat", self.number, f"entropy of digits (ln 10 = 2.303); {drawn}"),
            Metric(
                "samples/rarest_digit", float(shares.min()), "1", self.number, f"share of the rarest digit; {drawn}"
            ),
        ]


def evaluate_classifier(
    model: TrainableModel, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu"
) -> list[Metric]:
    """Test accuracy by modality and on average, with the weights rounded to float16 as they ship.

    Raises:
        TypeError: If the model is no set of classifiers.
    """
    if not isinstance(model, DigitClassifiers):
        raise TypeError(f"expected digit classifiers, got {type(model).__name__}")
    model.half().float()
    test = data["test"].to(device)
    found = accuracy(model, test)
    protocol = "share of right digits on the test split, weights rounded to float16"
    mean = sum(found.values()) / len(found)
    metrics = [Metric(f"test/accuracy/{m}", v, "1", len(test), protocol) for m, v in found.items()]
    return [*metrics, Metric("test/accuracy/mean", mean, "1", len(test), f"{protocol}; mean over the modalities")]


def evaluate_vaegan(
    model: TrainableModel, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu"
) -> list[Metric]:
    """Samples as the digit classifier sees them, and the reconstruction of test images.

    Raises:
        TypeError: If the model is no VAEGAN.
    """
    if not isinstance(model, VAEGAN):
        raise TypeError(f"expected a VAEGAN, got {type(model).__name__}")
    threshold = spec.params["evaluation"]["confidence"]
    classifier = _SampleClassifier(spec, device)
    test = data["test"].to(device)
    true, errors, kls = [], [], []
    for batch in test.batches(CHUNK, shuffle=False):
        (x,) = batch.values()
        true.append(classifier.probabilities(x).max(1).values)
        mean, log_variance = model.encode(x)
        errors.append((model.decoder(mean) - x).square().flatten(1).mean(1))
        kls.append(-0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1))
    return [
        *classifier.metrics(model.sample),
        Metric(
            "test/confident",
            float((torch.cat(true) >= threshold).double().mean()),
            "1",
            len(test),
            f"{SURE} {threshold:g}; true test images",
        ),
        Metric(
            "test/mse",
            float(torch.cat(errors).double().mean()),
            "1",
            len(test),
            "squared error of the posterior mean's reconstruction, mean over pixels",
        ),
        Metric("test/kl", float(torch.cat(kls).double().mean()), "nat", len(test), "KL(q(z|x) || N(0, I)), mean"),
    ]


def evaluate_flow(
    model: TrainableModel, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu"
) -> list[Metric]:
    """Density of test encodings under the flow and under a Gaussian, and decoded samples of the flow.

    Raises:
        TypeError: If the model is no flow of encodings.
    """
    if not isinstance(model, EncodingFlow):
        raise TypeError(f"expected a flow of encodings, got {type(model).__name__}")
    decoder = Decoder(**load_config("vaegan-decoder")).to(device)
    decoder.load_state_dict(load_tensors("vaegan-decoder"))
    with isolated_rng(spec.params["evaluation"]["seed"]):
        train, test = (
            torch.cat([model.encode(b["image"]) for b in data[s].to(device).batches(CHUNK, shuffle=False)])
            for s in ("train", "test")
        )
    nll = float(-model.flow.log_prob(test).double().mean())
    fitted = torch.distributions.MultivariateNormal(train.mean(0), torch.cov(train.T))
    gaussian = float(-fitted.log_prob(test).double().mean())
    encodings = "-log p of one sample of q(z|x) for each test image, mean"
    return [
        *_SampleClassifier(spec, device).metrics(
            lambda n, generator: decoder(model.flow.sample(n, generator=generator))
        ),
        Metric("test/nll", nll, "nat", len(test), f"{encodings}; under the flow"),
        Metric("test/nll_gaussian", gaussian, "nat", len(test), f"{encodings}; under the training encodings' Gaussian"),
    ]


EVALUATIONS = {"classifier": evaluate_classifier, "flow": evaluate_flow, "vaegan": evaluate_vaegan}


def build_vaegan(spec: RunSpec) -> VAEGAN:
    """The untrained VAEGAN of a run."""
    settings = dict(spec.params["model"])
    settings["compute_dtype"] = getattr(torch, settings["compute_dtype"])
    return VAEGAN(specs(load_card(spec.dataset)), **settings)


def vaegan_samples(model: VAEGAN, spec: RunSpec, device: str) -> dict[str, Tensor]:
    """100 samples in uint8."""
    generator = torch.Generator(device).manual_seed(spec.params["evaluation"]["seed"])
    return {"samples": model.sample(100, generator=generator).mul(255).round().to(torch.uint8)}
