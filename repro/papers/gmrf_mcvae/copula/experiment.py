"""The copula experiment: what is run, and how each run is built and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repro import datasets
from repro.datasets.scalars import flag
from repro.experiment import Cost, Experiment
from repro.papers import paper
from repro.records import Metric, RunSpec, of_profile
from repro.report.names import NAMES

if TYPE_CHECKING:
    from torch import Tensor

    from repro.datasets import Dataset
    from repro.model import MultimodalModel

__all__ = [
    "BASELINE_VARIANTS",
    "BATCH_SIZE",
    "BETAS",
    "FINALIST_SEEDS",
    "LABELS",
    "LEARNING_RATE",
    "METHODS",
    "PROFILES",
    "RUNG_EPOCHS",
    "VARIANTS",
    "Copula",
    "chosen_betas",
    "copula_spec",
    "finalist_betas",
]

METHODS = ("mvae", "mmvae", "mopoe", "mmvae_plus", "gmrf_mcvae")  # Table I's rows, in its order
LABELS = {m: NAMES[m] for m in METHODS}
BETAS = (2.5, 1.0, 0.1, 0.05, 0.001)  # section -C2

# "paper": 200 epochs (section -C2); 10,000 samples, batch 500 and Adam at 1e-3 are this package's, the paper has none.
PROFILES: dict[str, dict[str, Any]] = {
    "paper": {"epochs": 200, "train_samples": 10_000, "num_samples": 10_000, "transport_samples": 1_000, "seeds": 3},
    "quick": {"epochs": 10, "train_samples": 10_000, "num_samples": 10_000, "transport_samples": 500, "seeds": 1},
    "smoke": {"epochs": 1, "train_samples": 1_000, "num_samples": 500, "transport_samples": 50, "seeds": 2},
}
BATCH_SIZE, LEARNING_RATE = 500, 1e-3
RUNG_EPOCHS = {"paper": (20, 60), "quick": (5, 10), "smoke": (1, 1)}  # of the two rungs of the choice of beta

FINALIST_SEEDS = 3  # of the second rung, where the choice is between two betas

# Rows under Table I: GMRF MCVAE with one setting changed, one seed. With 50,000 samples the epochs are a fifth, so that
# the number of gradient steps is the table's.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "block-dominant prior": ("gmrf_mcvae", {"prior": "block_dominant"}),
    "block-dominant posterior": ("gmrf_mcvae", {"posterior": "block_dominant"}),
    "block-dominant posterior and prior": ("gmrf_mcvae", {"posterior": "block_dominant", "prior": "block_dominant"}),
    "sigmoid outputs": ("gmrf_mcvae", {"output": "sigmoid"}),
    "hidden layers in bfloat16": ("gmrf_mcvae", {"hidden_dtype": "bfloat16"}),
    "50,000 training samples": ("gmrf_mcvae", {"train_samples": 50_000, "epochs": 40}),
}

# Rows under Table I: its baselines with settings changed, and how many seeds. The rule of all papers is that MVAE is
# trained with its own paper's sub-sampling (erratum B4); the runs of the table's MVAE row were made without. Section
# -C2 tries Laplace distributions, factorised latents, and a "latent dimension of 3 (total capacity of 48)", which by
# that capacity are 6 (erratum M18).
BASELINE_VARIANTS: dict[str, tuple[str, dict[str, Any], int]] = {
    "MVAE, sub-sampling": ("mvae", {"subsampling": True}, 3),
    **{f"{LABELS[m]}, Laplace likelihood": (m, {"likelihood": "laplace"}, 1) for m in METHODS if m != "gmrf_mcvae"},
    "MoPoE-VAE, 3 shared + 3 private latents": ("mopoe", {"latent_dim": 3, "specific_dim": 3}, 1),
    **{f"{LABELS[m]}, 3 latents": (m, {"latent_dim": 3}, 1) for m in ("mvae", "mmvae", "mopoe")},
}

# Seconds of an epoch of 10,000 samples on one of two cores that both train, and of the rest of a run (start, data,
# evaluation), measured in float32 on an AMD EPYC; peak memory of one process in megabytes.
EPOCH_SECONDS = {"mvae": 0.7, "mmvae": 1.7, "mopoe": 1.3, "mmvae_plus": 2.2, "gmrf_mcvae": 0.7}
OVERHEAD_SECONDS = {"paper": 25.0, "quick": 20.0, "smoke": 4.0}
PEAK_MEGABYTES = 1000


def chosen_betas() -> Mapping[str, float]:
    """Method to the beta that the sweep chose on validation data (paper.toml; ``table1-sweep`` shows how)."""
    return paper("gmrf_mcvae").betas["copula"]["chosen"]


def finalist_betas() -> Mapping[str, Sequence[float]]:
    """Method to the betas that the sweep's first rung left."""
    return paper("gmrf_mcvae").betas["copula"]["finalists"]


def copula_spec(method: str, seed: int, profile: str, *, beta: float | None = None, **changes: Any) -> RunSpec:
    """The specification of one copula run, every hyper-parameter resolved.

    Arguments:
        method: One of ``METHODS``.
        seed: Seed of initialisation and training; the data's seed is always 0.
        profile: ``"paper"``, ``"quick"`` or ``"smoke"``.
        beta: Weight of the KL term; the chosen one if None.
        changes: Model settings that differ from the table's, or ``train_samples``, ``epochs``, or the ``splits`` it is
            measured on.

    Raises:
        ValueError: If the method is unknown, it has no such setting, or ``subsampling`` is no bool.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; one of {', '.join(METHODS)}")
    settings = of_profile(PROFILES, profile)
    train_samples = changes.pop("train_samples", settings["train_samples"])
    if profile == "smoke":
        train_samples = min(train_samples, settings["train_samples"])
    epochs = changes.pop("epochs", settings["epochs"])
    splits = changes.pop("splits", ("validation", "test"))
    beta = chosen_betas()[method] if beta is None else beta
    model: dict[str, Any] = {"beta": beta, "likelihood": "gaussian", "output": "linear", "hidden_dtype": "float32"}
    if method == "gmrf_mcvae":
        model |= {"latent_dim": 2, "posterior": "cholesky", "prior": "cholesky", "scale": 1.0, "reduction": "sum"}
        model |= {"dominance": "element", "epsilon": 0.9, "delta": 1e-6}
    elif method == "mmvae_plus":
        model |= {"latent_dim": 3, "specific_dim": 3}
    else:
        model |= {"latent_dim": 6, "specific_dim": 0}
    optional = {"subsampling"} if method == "mvae" else set()  # named in a specification only where it is on
    if unknown := sorted(set(changes) - set(model) - optional):
        raise ValueError(f"{method} has no setting {unknown}; it has {sorted(model)}")
    if not flag("subsampling", changes.get("subsampling", True)):
        changes.pop("subsampling")
    params = {
        "model": model | changes,
        "training": {"epochs": epochs, "batch_size": BATCH_SIZE, "learning_rate": LEARNING_RATE},
        "data": {"seed": 0, "train_samples": train_samples},
        "evaluation": {k: settings[k] for k in ("num_samples", "transport_samples")}
        | {"seed": 0, "splits": list(splits)},
    }
    return RunSpec("gmrf_mcvae", "copula", method, seed, profile, params)


class Copula(Experiment):
    """Four components of two coordinates each, with known dependence: Table I and Figures 2, 5 and 6."""

    datasets = ("copula",)

    def spec(self, method: str, seed: int, profile: str, **changes: Any) -> RunSpec:
        return copula_spec(method, seed, profile, **changes)

    def load(self, spec: RunSpec) -> dict[str, Dataset]:
        data, number = spec.params["data"], spec.params["evaluation"]["num_samples"]
        sizes = {"train": data["train_samples"], "validation": number}
        if "test" in spec.params["evaluation"]["splits"]:
            sizes |= {"test": number, "reference": number}
        return {s: datasets.load_dataset("copula", split=s, seed=data["seed"], num_samples=n) for s, n in sizes.items()}

    def build(self, spec: RunSpec) -> MultimodalModel:
        return self.code.build(spec)

    def evaluate(
        self, model: MultimodalModel, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu"
    ) -> Sequence[Metric]:
        return self.code.evaluate_copula(model, data, spec, device)

    def figure_samples(self, model: MultimodalModel, spec: RunSpec, device: str = "cpu") -> dict[str, Tensor]:
        return self.code.figure_samples(model, spec, device)

    def cost(self, spec: RunSpec) -> Cost:
        """From measured seconds an epoch."""
        epochs, samples = spec.params["training"]["epochs"], spec.params["data"]["train_samples"]
        seconds = EPOCH_SECONDS[spec.method] * epochs * samples / 10_000
        return Cost(seconds + OVERHEAD_SECONDS[spec.profile], PEAK_MEGABYTES)
