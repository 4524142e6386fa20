"""One latent structure at a time on the same unimodal autoencoders: what is run, built and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repro import datasets
from repro.experiment import Cost, Experiment
from repro.papers.compare.correlated.experiment import Correlated
from repro.papers.compare.priors.settings import LABELS, POLYMNIST, PROFILES, priors_spec
from repro.papers.sbm_vae.polymnist.experiment import ExtendedPolyMNIST
from repro.records import Metric, RunSpec

if TYPE_CHECKING:
    from repro.datasets import Dataset
    from repro.model import MultimodalModel

__all__ = ["Priors"]

# Seconds of one core's processor, measured: an epoch of the autoencoders on 10,000 samples, an epoch of a fit
# on as many, drawing 10,000 latents once, and the rest of a run.
AUTOENCODER_SECONDS = {"copula": 0.2, "mnist_triples": 3.0, "correlated_mnist3": 2.4, POLYMNIST: 26.0}
FIT_SECONDS = {"prior_laplace": 0.1, "prior_neural": 1.6, "prior_score": 1.7, "prior_score_guided": 2.2}
DRAW_SECONDS = {"prior_neural": 15.0, "prior_score": 8.0, "prior_score_guided": 10.0}
WIDER_SCORE = {POLYMNIST: 3.5}  # than the copula's, of a fit and of draws
DECODE_SECONDS = {POLYMNIST: 8.0}
OVERHEAD_SECONDS = 15.0
# The paper profile of images has networks that take this many times more.
WIDER = 16.0
PEAK_MEGABYTES = 1500


class Priors(Experiment):
    """The papers' latent structures, each on the same unimodal autoencoders of a dataset and seed."""

    datasets, no_methods = tuple(PROFILES), "fits latent structures to the same autoencoders"

    def owns(self, spec: RunSpec) -> bool:
        """By the method, since other comparisons have the same data."""
        return spec.method in LABELS and super().owns(spec)

    def spec(self, method: str, seed: int, profile: str, **changes: Any) -> RunSpec:
        """As :func:`priors_spec`, with ``dataset`` and what it takes among the changes."""
        return priors_spec(method, seed, profile, **changes)

    def load(self, spec: RunSpec) -> dict[str, Dataset]:
        """The training split, the held-out one where there is one, the test split, and the copula's reference.

        Of correlated images what :meth:`Correlated.load` gives, of Extended PolyMNIST what SBM-VAE's experiment loads.
        """
        data = spec.params["data"]
        if spec.dataset == POLYMNIST:
            return ExtendedPolyMNIST().load(spec)
        if spec.dataset == "correlated_mnist3":
            return Correlated().load(spec)
        if spec.dataset == "copula":
            number = spec.params["evaluation"]["num_samples"]
            sizes = {"train": data["train_samples"], "test": number, "reference": number}
            return {
                s: datasets.load_dataset("copula", split=s, seed=data["seed"], num_samples=n) for s, n in sizes.items()
            }
        train = datasets.load_dataset(spec.dataset, split="train", alike=data["alike"]).first(data["train_samples"])
        found = {"train": train, "test": datasets.load_dataset(spec.dataset, split="test", alike=data["alike"])}
        if data["held_out"]:
            found["train"], found["validation"] = datasets.hold_out(train, data["held_out"])
        return found

    def build(self, spec: RunSpec) -> MultimodalModel:
        """The autoencoders alone: the structure has no part in their initialisation, training or weights."""
        return self.code.build(spec)

    def evaluate(
        self, model: MultimodalModel, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu"
    ) -> Sequence[Metric]:
        return self.code.evaluate(model, data, spec, device)

    def cost(self, spec: RunSpec) -> Cost:
        """From measured seconds of an epoch, a fit and a draw; of the evaluation alone, what is no training step."""
        training, data, evaluation = (spec.params[k] for k in ("training", "data", "evaluation"))
        samples = data["train_samples"] / 10_000
        score = WIDER_SCORE.get(spec.dataset, 1.0) if "score" in spec.params["structure"] else 1.0
        fit = score * spec.params["structure"].get("training", {}).get("epochs", 0) * FIT_SECONDS.get(spec.method, 0.0)
        seconds = samples * (AUTOENCODER_SECONDS[spec.dataset] * training["epochs"] + fit)
        if spec.dataset == "correlated_mnist3":  # given one or two of three modalities
            drawn = data["test_samples"] + 6 * evaluation["points"] * evaluation["draws"]
        else:  # joint samples, and given each set of modalities that is observed
            drawn = {"copula": 5, "mnist_triples": 3, POLYMNIST: 7}[spec.dataset] * evaluation["num_samples"]
            seconds += DECODE_SECONDS.get(spec.dataset, 0.0) * drawn / 10_000
        seconds += score * DRAW_SECONDS.get(spec.method, 0.0) * drawn / 10_000
        wider = WIDER if spec.dataset != "copula" and spec.profile == "paper" else 1.0
        return Cost(wider * seconds + OVERHEAD_SECONDS, PEAK_MEGABYTES)
