"""The three variants on data with heavy, skewed joint tails: what is run.

MRF MVAE claims that its asymmetric Laplace variant manages outliers and skewed data, and recommends the test that this
is (appendix D.2, further insights).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repro import datasets
from repro.experiment import Cost, Experiment, Rows
from repro.papers import paper
from repro.records import Metric, RunSpec, of_profile
from repro.report.names import NAMES

if TYPE_CHECKING:
    from torch import Tensor

    from repro.datasets import Dataset
    from repro.model import MultimodalModel

__all__ = ["BETAS", "LABELS", "SkewedCopula", "chosen_betas", "spec", "sweep_runs", "tails_runs"]

DATASET = "skewed_copula"

# The paper's three, and the asymmetric Laplace one with a location (erratum E2).
LABELS = {m: NAMES[m] for m in ("gmrf", "almrf", "almrf_location", "nnmrf")}
VARIANT = {"gmrf": "gmrf", "almrf": "almrf", "almrf_location": "almrf", "nnmrf": "nnmrf"}
BETAS = {
    "gmrf": (0.001, 0.01),
    "almrf": (0.03, 0.3, 3.0),
    "almrf_location": (0.03, 0.3, 3.0),
    "nnmrf": (0.001, 0.01),
}

# The paper has no such experiment: the data's size, the batch and the networks are those of its copula experiment, with
# 60 epochs in place of 200, and the potentials of blocks of two latents are narrower.
PROFILES: dict[str, dict[str, Any]] = {
    "paper": {"epochs": 60, "samples": 10_000, "seeds": 3, "sweep": 15},
    "quick": {"epochs": 20, "samples": 10_000, "seeds": 1, "sweep": 5},
    "smoke": {"epochs": 1, "samples": 1_000, "seeds": 1, "sweep": 1},
}
CHAINS: dict[str, dict[str, Any]] = {
    "paper": {"num_chains": 2000, "burn_in": 300, "thinning": 25, "num_kept": 4},
    "quick": {"num_chains": 2000, "burn_in": 100, "thinning": 20, "num_kept": 4},
    "smoke": {"num_chains": 200, "burn_in": 20, "thinning": 5, "num_kept": 4},
}
LATENT_DIM, WIDTH, LAYERS, BATCH_SIZE, LEARNING_RATE = 2, 256, 2, 500, 1e-3
POTENTIAL_WIDTH = 128
LEVEL = 0.95

# Seconds of an epoch of 10,000 samples on one of two busy cores, and of the rest of a run.
EPOCH_SECONDS = {"gmrf": 0.9, "almrf": 0.9, "almrf_location": 0.9, "nnmrf": 1.6}
OVERHEAD_SECONDS = {"gmrf": 20.0, "almrf": 25.0, "almrf_location": 25.0, "nnmrf": 90.0}
PEAK_MEGABYTES = 1200


def chosen_betas() -> Mapping[str, float]:
    """Method to the beta that the sweep chose on validation data (paper.toml; ``tails-sweep`` shows how)."""
    return paper("mrf_mvae").betas["skewed_copula"]


def spec(method: str, seed: int, profile: str, *, sweep: bool = False, beta: float | None = None) -> RunSpec:
    """The specification of one run, every hyper-parameter resolved.

    Arguments:
        method: One of ``LABELS``.
        seed: Seed of initialisation and training; the data's seed is always 0.
        profile: ``"paper"``, ``"quick"`` or ``"smoke"``.
        sweep: Whether it is one of the choice of beta: shorter, and measured on the validation split alone.
        beta: Weight of the term that ties posterior and prior; the chosen one if None.

    Raises:
        ValueError: If the method is unknown.
    """
    if method not in LABELS:
        raise ValueError(f"unknown method {method!r}; one of {', '.join(LABELS)}")
    settings = of_profile(PROFILES, profile)
    model: dict[str, Any] = {
        "variant": VARIANT[method],
        "latent_dim": LATENT_DIM,
        "width": WIDTH,
        "layers": LAYERS,
        "beta": chosen_betas()[method] if beta is None else beta,
        "likelihood": "gaussian",
        "scale": 1.0,
        "reduction": "sum",
        "output": "linear",
        "hidden_dtype": "float32",
    }
    if VARIANT[method] == "almrf":
        model |= {"bandwidth": "median", "unbiased": True, "penalty": "aggregated"}
        model |= {"location": method == "almrf_location"}
    elif method == "nnmrf":
        model |= {"potential_widths": [POTENTIAL_WIDTH] * 3, "confinement": 1.0, "partition": "batch", "num_samples": 1}
        model |= {"chains": {"sampler": "metropolis", **CHAINS[profile]}}
    params = {
        "model": model,
        "training": {
            "epochs": settings["sweep"] if sweep else settings["epochs"],
            "batch_size": BATCH_SIZE,
            "learning_rate": LEARNING_RATE,
        },
        "data": {"seed": 0, "samples": settings["samples"]},
        "evaluation": {
            "num_samples": settings["samples"],
            "level": LEVEL,
            "seed": 0,
            "split": "validation" if sweep else "test",
        },
    }
    return RunSpec("mrf_mvae", DATASET, method, seed, profile, params)


def tails_runs(profile: str, seeds: int | None = None) -> Rows:
    """Each variant with its chosen beta."""
    number = of_profile(PROFILES, profile)["seeds"] if seeds is None else seeds
    return {m: [spec(m, s, profile) for s in range(number)] for m in LABELS}


def sweep_runs(profile: str, seeds: int | None = None) -> Rows:
    """Every beta on validation data, one seed."""
    of_profile(PROFILES, profile)
    return {f"{m} {b:g}": [spec(m, 0, profile, sweep=True, beta=b)] for m, betas in BETAS.items() for b in betas}


class SkewedCopula(Experiment):
    """The variants on an asymmetric Laplace copula."""

    datasets = (DATASET,)

    def spec(self, method: str, seed: int, profile: str, **changes: Any) -> RunSpec:
        return spec(method, seed, profile, **changes)

    def load(self, spec: RunSpec) -> dict[str, Dataset]:
        data, number = spec.params["data"], spec.params["evaluation"]["num_samples"]
        split = spec.params["evaluation"]["split"]
        sizes = {"train": data["samples"], split: number} | ({"reference": number} if split == "test" else {})
        return {s: datasets.load_dataset(DATASET, split=s, seed=data["seed"], num_samples=n) for s, n in sizes.items()}

    def build(self, spec: RunSpec) -> MultimodalModel:
        return self.code.build(spec)

    def evaluate(
        self, model: MultimodalModel, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu"
    ) -> Sequence[Metric]:
        return self.code.evaluate(model, data, spec, device)

    def figure_samples(self, model: MultimodalModel, spec: RunSpec, device: str = "cpu") -> dict[str, Tensor]:
        return self.code.figure_samples(model, spec, device)

    def cost(self, spec: RunSpec) -> Cost:
        """From measured seconds an epoch."""
        seconds = (
            EPOCH_SECONDS[spec.method] * spec.params["training"]["epochs"] * spec.params["data"]["samples"] / 10_000
        )
        return Cost(seconds + OVERHEAD_SECONDS[spec.method] * (0.1 if spec.profile == "smoke" else 1.0), PEAK_MEGABYTES)
