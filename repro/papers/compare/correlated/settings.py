"""Every number of the comparison on correlated MNIST of three modalities; importing this needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from repro.records import RunSpec, changed
from repro.report.names import NAMES

__all__ = ["DATASET", "LABELS", "MODALITIES", "PROFILES", "RHOS", "compare_spec"]

DATASET, MODALITIES = "correlated_mnist3", ("m0", "m1", "m2")
LABELS = {m: NAMES[m] for m in ("covae", "gmrf_mcvae", "sbm_vae")}
# Latents a modality: the data's ten, and for the score network's square images the next square number.
LATENTS = {"covae": 10, "gmrf_mcvae": 10, "sbm_vae": 16}
# CoVAE's paper has 1. GMRF MCVAE's has 1e-3 relative to the mean over pixels, which for 784 of them is 0.78 of their
# sum; 1 is taken. SBM-VAE's has 0.1: its prior is the score model, the KL term only keeps the latents within bounds.
BETAS = {"covae": 1.0, "gmrf_mcvae": 1.0, "sbm_vae": 0.1}

RHOS: Mapping[str, tuple[float, ...]] = {
    "paper": (0.05, 0.3, 0.6, 0.7, 0.9, 0.99),
    "overnight": (0.3, 0.6, 0.9),
    "quick": (0.3, 0.9),
    "smoke": (0.6,),
}
# Networks, sizes and optimisation are CoVAE's in its experiments on two modalities, for all models. Of SBM-VAE's own
# stage: "paper" has its Table 4, "quick" the larger rate and the faster sampler of its reduced profile.
# "overnight": the networks of "quick" on all triples, of which the last are "validation_samples", until their loss has
# not improved for "patience" epochs.
_PAPER = {
    "networks": {"networks": "resnet"},
    "train_samples": 20_000,
    "test_samples": 5_000,
    "training": {"epochs": 30, "batch_size": 256},
    "deep_cca": {"epochs": 10, "batch_size": 1000},
    "held_out": 0.1,
    "score": {"width": 64, "multipliers": [1, 2], "blocks": 2, "decay": 0.9999},
    "score_training": {"epochs": 300, "batch_size": 256, "learning_rate": 2e-4},
    "sampling": {"sampler": "predictor_corrector", "num_steps": 100},
    "evaluation": {"points": 1000, "draws": 16},
    "seeds": 5,
}
_NARROW = {
    "networks": {"networks": "mlp", "widths": [400, 200]},
    "score_training": {"batch_size": 128, "learning_rate": 1e-3},
    "sampling": {"sampler": "dpm_solver", "num_steps": 20},
}
PROFILES: Mapping[str, Mapping[str, Any]] = {
    "paper": _PAPER,
    "overnight": changed(
        changed(_PAPER, **_NARROW),
        validation_samples=2_000,
        training={"epochs": 60, "patience": 5},
        deep_cca={"epochs": 5, "patience": None},
        score={"width": 32, "blocks": 1, "decay": 0.999},
        score_training={"epochs": 60},
        evaluation={"draws": 4},
        seeds=3,
    ),
    "quick": changed(
        changed(_PAPER, **_NARROW),
        train_samples=10_000,
        test_samples=2_000,
        training={"epochs": 12},
        deep_cca={"epochs": 5},
        score={"width": 32, "blocks": 1, "decay": 0.995},
        score_training={"epochs": 14},
        evaluation={"points": 500, "draws": 4},
        seeds=1,
    ),
    "smoke": changed(
        changed(_PAPER, **_NARROW),
        networks={"widths": [32]},
        train_samples=160,
        test_samples=80,
        training={"epochs": 1, "batch_size": 80},
        deep_cca={"epochs": 1, "batch_size": 80},
        held_out=0.3,  # 30 latents in all need more than 30 samples
        score={"width": 8, "blocks": 1, "decay": 0.9},
        score_training={"epochs": 1, "batch_size": 80},
        sampling={"num_steps": 3},
        evaluation={"points": 40, "draws": 2},
        seeds=1,
    ),
}
LEARNING_RATE, PATIENCE = 1e-3, 30  # CoVAE, appendix B


def _model(method: str, profile: Mapping[str, Any]) -> dict[str, Any]:
    model: dict[str, Any] = {**profile["networks"], "beta": BETAS[method]}
    size = LATENTS[method]
    if method == "covae":
        model |= {"latent_dims": dict.fromkeys(MODALITIES, size), "posterior": "cholesky", "epsilon": 1e-3}
        model |= {"trainable_prior": False, "marginal_variance": False, "cross_weight": 1.0, "joint_hidden": 256}
        return model | {"pretraining": "cca", "ridge": 1e-3, "likelihood": "gaussian", "held_out": profile["held_out"]}
    if method == "gmrf_mcvae":
        model |= {"latent_dim": size, "posterior": "cholesky", "prior": "cholesky", "likelihood": "gaussian"}
        return model | {"scale": 1.0, "reduction": "sum"}
    return model | {"latent_dim": size, "latents": "sample", "sde": [1.0, 5.0], "score": profile["score"]}


def compare_spec(method: str, seed: int, profile: str, rho: float) -> RunSpec:
    """The specification of one run, every hyper-parameter resolved.

    Arguments:
        method: One of ``LABELS``.
        seed: Seed of initialisation and training; the data's seed is always 0.
        profile: ``"paper"``, ``"overnight"``, ``"quick"`` or ``"smoke"``.
        rho: True correlation of the data's latents, in [0, 1).

    Raises:
        ValueError: If the method is unknown, or rho is outside [0, 1).
    """
    if method not in LABELS:
        raise ValueError(f"unknown method {method!r}; one of {', '.join(LABELS)}")
    if not 0 <= rho < 1:
        raise ValueError(f"rho is {rho}, must be in [0, 1)")
    p = PROFILES[profile]
    training: dict[str, Any] = {**p["training"], "learning_rate": LEARNING_RATE, "optimizer": "adamw"}
    training["plateau"] = PATIENCE
    if method == "covae":
        training["stages"] = {"deep_cca": {**p["deep_cca"], "learning_rate": LEARNING_RATE, "plateau": 0}}
    if method == "sbm_vae":
        training["stages"] = {"score": {**p["score_training"], "plateau": 0}}
    evaluation = p["evaluation"] | {"seed": 0}
    if method == "sbm_vae":
        evaluation["sampling"] = p["sampling"]
    params = {
        "model": _model(method, p),
        "training": training,
        "data": {"rho": float(rho), "seed": 0}
        | {k: p[k] for k in ("train_samples", "validation_samples", "test_samples") if k in p},
        "evaluation": evaluation,
    }
    return RunSpec("compare", DATASET, method, seed, profile, params)
