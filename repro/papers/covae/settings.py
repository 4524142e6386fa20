"""What both of CoVAE's experiments share: the methods, and their settings; importing this needs no torch."""

from __future__ import annotations

from typing import Any

from repro.report.names import NAMES

__all__ = ["LABELS", "METHODS", "changed_settings", "check_method", "model_settings", "training_params"]

# The tables' rows, in their order, under the names that the paper gives the methods.
METHODS = ("mvae", "mvtcae", "mmvae", "mopoe", "jmvae", "dmvae", "mmvae_plus", "covae")
LABELS = {m: NAMES[m] for m in METHODS} | {"mopoe": "MoPoE"}
PRIVATE = ("mmvae_plus", "dmvae")  # half of their latents are private
LEARNING_RATE, PATIENCE = 1e-3, 30  # appendix B; a patience of 30 cannot act within 30 epochs


def model_settings(method: str, latents: int, modalities: tuple[str, str], networks: dict[str, Any]) -> dict[str, Any]:
    """A method's settings at a number of latents in all, with unit β and a Gaussian of unit variance."""
    model: dict[str, Any] = {**networks, "beta": 1.0, "likelihood": "gaussian"}
    if method == "covae":
        model |= {"latent_dims": dict.fromkeys(modalities, latents // 2), "posterior": "cholesky", "epsilon": 1e-3}
        model |= {"trainable_prior": False, "marginal_variance": False, "cross_weight": 1.0, "joint_hidden": 256}
        return model | {"pretraining": "cca", "ridge": 1e-3, "held_out": 0.1}
    if method in PRIVATE:
        return model | {"latent_dim": latents // 2, "specific_dim": latents // 2}
    model |= {"latent_dim": latents, "specific_dim": 0}
    if method in ("mvtcae", "jmvae"):
        model["alpha"] = 0.1  # multivae's default; the paper changes none
    if method == "mvae":
        model["subsampling"] = True  # multivae's default too
    if method == "jmvae":
        model["joint_hidden"] = 256
    return model


def changed_settings(method: str, model: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A method's settings with some changed.

    Raises:
        ValueError: If the method has no such setting.
    """
    if unknown := sorted(set(changes) - set(model)):
        raise ValueError(f"{method} has no setting {unknown}; it has {sorted(model)}")
    return model | changes


def training_params(method: str, settings: dict[str, Any], deep_cca: dict[str, Any]) -> dict[str, Any]:
    """What a specification's ``params["training"]`` holds: AdamW, and Deep CCA as CoVAE's first stage."""
    training = {**settings, "learning_rate": LEARNING_RATE, "optimizer": "adamw", "plateau": PATIENCE}
    if method == "covae":
        training["stages"] = {"deep_cca": {**deep_cca, "plateau": 0}}
    return training


def check_method(method: str) -> None:
    """Refuses what is none of :data:`METHODS`.

    Raises:
        ValueError: If the method is unknown.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; one of {', '.join(METHODS)}")
