"""What GMRF MCVAE's copula experiment runs, and on which data.

Importing this module needs no torch; loading and building do.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from repro.records import RunSpec, of_profile

if TYPE_CHECKING:
    from torch import Tensor

    from repro.datasets import Dataset
    from repro.datasets.base import ModalitySpec
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
    "chosen_betas",
    "copula_spec",
    "estimate",
    "figure_samples",
    "finalist_betas",
    "load_data",
    "model_arguments",
    "plan",
]

# Table I's rows, in its order, under the names that the package gives the methods.
LABELS = {
    "mvae": "MVAE",
    "mmvae": "MMVAE",
    "mopoe": "MoPoE-VAE",
    "mmvae_plus": "MMVAE+",
    "gmrf_mcvae": "GMRF MCVAE",
}
METHODS = tuple(LABELS)
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


@cache
def _betas() -> Mapping[str, Any]:
    return tomllib.loads((files("repro.papers.gmrf_mcvae") / "betas.toml").read_text())["copula"]


def chosen_betas() -> Mapping[str, float]:
    """Method to the beta that the sweep chose on validation data (betas.toml; ``table1-sweep`` shows how)."""
    return _betas()["chosen"]


def finalist_betas() -> Mapping[str, Sequence[float]]:
    """Method to the betas that the sweep's first rung left."""
    return _betas()["finalists"]


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
        ValueError: If the method is unknown.
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
    if not changes.get("subsampling", True):
        changes.pop("subsampling")
    params = {
        "model": model | changes,
        "training": {"epochs": epochs, "batch_size": BATCH_SIZE, "learning_rate": LEARNING_RATE},
        "data": {"seed": 0, "train_samples": train_samples},
        "evaluation": {k: settings[k] for k in ("num_samples", "transport_samples")}
        | {"seed": 0, "splits": list(splits)},
    }
    return RunSpec("gmrf_mcvae", "copula", method, seed, profile, params)


def plan(artifact: str, profile: str, seeds: int | None = None) -> dict[str, list[RunSpec]]:
    """The runs that an artifact is rendered from, by row.

    Arguments:
        artifact: Its id within the paper, such as ``"table1"``.
        profile: The profile.
        seeds: How many seeds, from 0 on; the profile's number if None.

    Raises:
        KeyError: If the artifact needs no runs of this paper.
    """
    number = of_profile(PROFILES, profile)["seeds"] if seeds is None else seeds
    if artifact == "table1-sweep":
        candidates = (dict.fromkeys(METHODS, BETAS), finalist_betas())
        return {
            f"{m} {b:g}, {epochs} epochs": [copula_spec(m, 0, profile, beta=b, epochs=epochs, splits=("validation",))]
            for epochs, betas in zip(of_profile(RUNG_EPOCHS, profile), candidates, strict=True)
            for m in METHODS
            for b in betas[m]
        }
    if artifact == "table1-finalists":
        epochs = of_profile(RUNG_EPOCHS, profile)[1]
        further = FINALIST_SEEDS - 1 if seeds is None else seeds  # the first is the sweep's
        return {
            f"{m} {b:g}": [
                copula_spec(m, 1 + s, profile, beta=b, epochs=epochs, splits=("validation",)) for s in range(further)
            ]
            for m, betas in finalist_betas().items()
            for b in betas
        }
    if artifact == "table1-baselines":
        return {
            name: [copula_spec(m, s, profile, **changes) for s in range(own if seeds is None else min(own, seeds))]
            for name, (m, changes, own) in BASELINE_VARIANTS.items()
        }
    rows = {m: [copula_spec(m, s, profile) for s in range(number)] for m in METHODS}
    if artifact == "table1":
        return rows
    if artifact == "table1-ablations":
        return {name: [copula_spec(m, 0, profile, **changes)] for name, (m, changes) in VARIANTS.items()}
    if artifact in ("fig2", "fig5"):
        return {m: specs[:1] for m, specs in rows.items()}
    if artifact == "fig6":
        return {"mvae": [copula_spec("mvae", s, profile) for s in range(3)]}
    raise KeyError(artifact)


def estimate(spec: RunSpec) -> tuple[float, float]:
    """Seconds on one core and peak megabytes of a run, from measured seconds an epoch."""
    epochs, samples = spec.params["training"]["epochs"], spec.params["data"]["train_samples"]
    seconds = EPOCH_SECONDS[spec.method] * epochs * samples / 10_000
    return seconds + OVERHEAD_SECONDS[spec.profile], PEAK_MEGABYTES


def load_data(spec: RunSpec) -> dict[str, Dataset]:
    """The splits that a run uses."""
    from repro.datasets import load_dataset

    data, number = spec.params["data"], spec.params["evaluation"]["num_samples"]
    sizes = {"train": data["train_samples"], "validation": number}
    if "test" in spec.params["evaluation"]["splits"]:
        sizes |= {"test": number, "reference": number}
    return {s: load_dataset("copula", split=s, seed=data["seed"], num_samples=n) for s, n in sizes.items()}


def model_arguments(spec: RunSpec) -> tuple[dict[str, ModalitySpec], dict[str, Any]]:
    """Modalities and settings of a run's model."""
    import torch

    from repro.datasets.base import specs
    from repro.datasets.card import load_card

    settings = dict(spec.params["model"])
    dtype = settings.pop("hidden_dtype")
    settings["hidden_dtype"] = None if dtype == "float32" else getattr(torch, dtype)
    return specs(load_card("copula")), settings


def figure_samples(model: MultimodalModel, spec: RunSpec, device: str = "cpu") -> dict[str, Tensor]:
    """2,000 unconditional samples (decoder means) in float16, kept for the figures."""
    import torch

    if "test" not in spec.params["evaluation"]["splits"]:
        return {}
    generator = torch.Generator(device).manual_seed(spec.params["evaluation"]["seed"])
    return {m: x.to(torch.float16) for m, x in model.generate(2_000, generator=generator).items()}
