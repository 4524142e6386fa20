"""One latent structure at a time on the same unimodal autoencoders: what is run, built and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repro.experiment import Cost, Experiment
from repro.records import Metric, RunSpec, of_profile

if TYPE_CHECKING:
    from repro.datasets import Dataset
    from repro.model import MultimodalModel

__all__ = ["LABELS", "ORACLE", "PROFILES", "Priors", "priors_spec"]

# Method to label, in the order of the rows; each is "prior_" and the structure's name in structures.py.
LABELS = {
    "prior_independent": "Independent Gaussians",
    "prior_gaussian": "Gaussian MRF",
    "prior_laplace": "Asymmetric Laplace MRF",
    "prior_neural": "Neural MRF",
    "prior_score": "Score model",
    "prior_score_guided": "Score model, energy guidance",
    "prior_canonical": "CoVAE's correlated prior",
    "prior_neighbour": "Nearest neighbour",
}
ORACLE = "prior_neighbour"
PREFIX = "prior_"

# Latents a modality are a square number for the score network's images. beta of the copula is the one that GMRF MCVAE
# has there (paper.toml of gmrf_mcvae, chosen on validation data), of the images SBM-VAE's (Table 4): the KL term only
# keeps the latents within bounds, what they have in common is the structure's. Epochs, widths and chains are this
# package's; nothing was chosen on any split.
COPULA = {"latent_dim": 4, "beta": 0.001}
TRIPLES = {"latent_dim": 16, "beta": 0.1}
CHAINS = {"sampler": "metropolis", "num_chains": 1000, "burn_in": 400, "thinning": 50, "num_kept": 4}
PROFILES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "copula": {
        "paper": {
            "autoencoders": {**COPULA, "widths": [64, 64]},
            "training": {"epochs": 40, "batch_size": 500, "learning_rate": 2e-3},
            "fit": {"epochs": 30, "batch_size": 250, "learning_rate": 1e-3},
            "widths": [64, 64, 64],
            "chains": CHAINS,
            "score": {"width": 16, "multipliers": [1, 2], "blocks": 1, "decay": 0.999},
            "energy": [64, 64, 64],
            "train_samples": 10_000,
            "num_samples": 5_000,
            "transport_samples": 1_000,
            "timed": 1_000,
            "seeds": 3,
        },
        "quick": {
            "autoencoders": {**COPULA, "widths": [64, 64]},
            "training": {"epochs": 10, "batch_size": 500, "learning_rate": 2e-3},
            "fit": {"epochs": 5, "batch_size": 250, "learning_rate": 1e-3},
            "widths": [32, 32, 32],
            "chains": CHAINS,
            "score": {"width": 16, "multipliers": [1, 2], "blocks": 1, "decay": 0.995},
            "energy": [64, 64, 64],
            "train_samples": 10_000,
            "num_samples": 2_000,
            "transport_samples": 500,
            "timed": 500,
            "seeds": 1,
        },
        "smoke": {
            "autoencoders": {**COPULA, "widths": [16]},
            "training": {"epochs": 1, "batch_size": 100, "learning_rate": 1e-3},
            "fit": {"epochs": 1, "batch_size": 100, "learning_rate": 1e-3},
            "widths": [8],
            "chains": {**CHAINS, "num_chains": 100, "burn_in": 20, "thinning": 5},
            "score": {"width": 8, "multipliers": [1, 2], "blocks": 1, "decay": 0.9},
            "energy": [8],
            "train_samples": 400,
            "num_samples": 200,
            "transport_samples": 50,
            "timed": 50,
            "seeds": 2,
        },
    },
    "mnist_triples": {
        "overnight": {
            "autoencoders": {**TRIPLES, "widths": [256, 256]},
            "training": {"epochs": 60, "batch_size": 256, "learning_rate": 1e-3, "patience": 5},
            "fit": {"epochs": 60, "batch_size": 256, "learning_rate": 1e-3},
            "widths": [256, 256, 256],
            "chains": CHAINS,
            "score": {"width": 32, "multipliers": [1, 2], "blocks": 1, "decay": 0.999},
            "energy": [256, 256, 256],
            "train_samples": 60_000,
            "held_out": 5_000,
            "num_samples": 10_000,
            "timed": 1_000,
            "seeds": 3,
        },
        "quick": {
            "autoencoders": {**TRIPLES, "widths": [256, 256]},
            "training": {"epochs": 3, "batch_size": 256, "learning_rate": 1e-3},
            "fit": {"epochs": 5, "batch_size": 256, "learning_rate": 1e-3},
            "widths": [64, 64, 64],
            "chains": CHAINS,
            "score": {"width": 32, "multipliers": [1, 2], "blocks": 1, "decay": 0.995},
            "energy": [128, 128, 128],
            "train_samples": 20_000,
            "held_out": 0,
            "num_samples": 2_000,
            "timed": 500,
            "seeds": 1,
        },
        "smoke": {
            "autoencoders": {**TRIPLES, "widths": [16]},
            "training": {"epochs": 1, "batch_size": 100, "learning_rate": 1e-3},
            "fit": {"epochs": 1, "batch_size": 100, "learning_rate": 1e-3},
            "widths": [8],
            "chains": {**CHAINS, "num_chains": 100, "burn_in": 20, "thinning": 5},
            "score": {"width": 8, "multipliers": [1, 2], "blocks": 1, "decay": 0.9},
            "energy": [8],
            "train_samples": 500,
            "held_out": 0,
            "num_samples": 200,
            "timed": 50,
            "seeds": 2,
        },
    },
}
SDE = (1.0, 5.0)  # SBM-VAE, Table 4, below ten modalities
GAMMA = 1000 / 256  # SBM-VAE, Table 4: 1000 on a mean over batches of 256
HELD_OUT = 0.1  # of the encodings, for the correlations of CoVAE's prior
SAMPLING = {"sampler": "dpm_solver", "num_steps": 20}

# Seconds of one core's processor, measured: an epoch of the autoencoders on 10,000 samples, an epoch of a fit
# on as many, drawing 10,000 latents once, and the rest of a run.
AUTOENCODER_SECONDS = {"copula": 0.2, "mnist_triples": 3.0}
FIT_SECONDS = {"prior_laplace": 0.1, "prior_neural": 1.6, "prior_score": 1.7, "prior_score_guided": 2.2}
DRAW_SECONDS = {"prior_neural": 15.0, "prior_score": 8.0, "prior_score_guided": 10.0}
OVERHEAD_SECONDS = 15.0
PEAK_MEGABYTES = 1500


def _structure(method: str, p: Mapping[str, Any]) -> dict[str, Any]:
    """A structure's own settings."""
    training = p["fit"]
    score = {"sde": list(SDE), "score": p["score"], "sampling": SAMPLING, "training": training}
    return {
        "prior_laplace": {"training": training},
        "prior_neural": {"widths": p["widths"], "confinement": 1.0, "chains": p["chains"], "training": training},
        "prior_score": score,
        "prior_score_guided": {**score, "energy": p["energy"], "gamma": GAMMA},
        "prior_canonical": {"held_out": HELD_OUT},
    }.get(method, {})


def priors_spec(method: str, seed: int, profile: str, dataset: str = "copula") -> RunSpec:
    """The specification of one run, every hyper-parameter resolved.

    Arguments:
        method: One of ``LABELS``.
        seed: Seed of the autoencoders and of the fit; the data's seed is always 0.
        profile: The profile.
        dataset: ``"copula"`` or ``"mnist_triples"`` (the first two modalities show the same image).

    Raises:
        ValueError: If the method or the dataset is unknown.
        NoProfileError: If the dataset has no settings of the profile.
    """
    if method not in LABELS:
        raise ValueError(f"unknown method {method!r}; one of {', '.join(LABELS)}")
    if dataset not in PROFILES:
        raise ValueError(f"unknown dataset {dataset!r}; one of {', '.join(PROFILES)}")
    p = of_profile(PROFILES[dataset], profile)
    evaluation = {k: p[k] for k in ("num_samples", "transport_samples", "timed") if k in p} | {"seed": 0}
    data = {"train_samples": p["train_samples"]}
    if dataset == "copula":
        data["seed"] = 0
    else:
        data |= {"held_out": p["held_out"], "alike": "image"}
        evaluation["split"] = "test"
    params = {
        "model": p["autoencoders"],
        "structure": _structure(method, p),
        "training": p["training"],
        "data": data,
        "evaluation": evaluation,
    }
    return RunSpec("compare", dataset, method, seed, profile, params)


class Priors(Experiment):
    """The papers' latent structures, each on the same unimodal autoencoders of a dataset and seed."""

    datasets = tuple(PROFILES)

    def owns(self, spec: RunSpec) -> bool:
        """By the method, since other comparisons have the same data."""
        return spec.method in LABELS and super().owns(spec)

    def spec(self, method: str, seed: int, profile: str, **changes: Any) -> RunSpec:
        """As :func:`priors_spec`, with ``dataset`` among the changes."""
        return priors_spec(method, seed, profile, **changes)

    def load(self, spec: RunSpec) -> dict[str, Dataset]:
        """The training split, the held-out one where there is one, the test split, and the copula's reference."""
        from repro.datasets import load_dataset
        from repro.datasets.held_out import hold_out

        data, number = spec.params["data"], spec.params["evaluation"]["num_samples"]
        if spec.dataset == "copula":
            sizes = {"train": data["train_samples"], "test": number, "reference": number}
            return {s: load_dataset("copula", split=s, seed=data["seed"], num_samples=n) for s, n in sizes.items()}
        train = load_dataset(spec.dataset, split="train", alike=data["alike"]).first(data["train_samples"])
        found = {"train": train, "test": load_dataset(spec.dataset, split="test", alike=data["alike"])}
        if data["held_out"]:
            found["train"], found["validation"] = hold_out(train, data["held_out"])
        return found

    def build(self, spec: RunSpec) -> MultimodalModel:
        """The autoencoders alone: the structure has no part in their initialisation, training or weights."""
        from repro.datasets.base import specs
        from repro.datasets.card import load_card
        from repro.papers.compare.building import fully_connected_autoencoders
        from repro.papers.compare.priors.model import StructuredAutoencoders

        modalities = specs(load_card(spec.dataset))
        return StructuredAutoencoders(modalities, fully_connected_autoencoders(modalities, **spec.params["model"]))

    def evaluate(
        self, model: MultimodalModel, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu"
    ) -> Sequence[Metric]:
        from repro.papers.compare.priors.evaluation import evaluate

        return evaluate(model, data, spec, device)

    def cost(self, spec: RunSpec) -> Cost:
        """From measured seconds of an epoch, a fit and a draw; of the evaluation alone, what is no training step."""
        training, data, evaluation = (spec.params[k] for k in ("training", "data", "evaluation"))
        samples = data["train_samples"] / 10_000
        fit = spec.params["structure"].get("training", {}).get("epochs", 0) * FIT_SECONDS.get(spec.method, 0.0)
        seconds = samples * (AUTOENCODER_SECONDS[spec.dataset] * training["epochs"] + fit)
        draws = 5 if spec.dataset == "copula" else 3  # joint samples, and given each modality that is observed
        seconds += draws * DRAW_SECONDS.get(spec.method, 0.0) * evaluation["num_samples"] / 10_000
        return Cost(seconds + OVERHEAD_SECONDS, PEAK_MEGABYTES)


def structure_of(spec: RunSpec) -> str:
    """The structure's name in structures.py."""
    return spec.method.removeprefix(PREFIX)
