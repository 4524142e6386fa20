"""The specifications of CoVAE's runs, every hyper-parameter resolved; importing this needs no torch."""

from __future__ import annotations

from typing import Any

from repro.records import RunSpec, of_profile

__all__ = [
    "CONFIGURATIONS",
    "LABELS",
    "METHODS",
    "PROFILES",
    "RHOS",
    "SMALL",
    "VARIANTS",
    "image_spec",
    "omics_spec",
]

# The tables' rows, in their order, under the names that the paper gives the methods.
LABELS = {
    "mvae": "MVAE",
    "mvtcae": "MVTCAE",
    "mmvae": "MMVAE",
    "mopoe": "MoPoE",
    "jmvae": "JMVAE",
    "dmvae": "DMVAE",
    "mmvae_plus": "MMVAE+",
    "covae": "CoVAE",
}
METHODS = tuple(LABELS)
SMALL = ("covae", "jmvae", "mvae", "mmvae_plus")  # of the quick profile of the figures on images
PRIVATE = ("mmvae_plus", "dmvae")  # half of their latents are private

# True correlations. The paper's figures show eleven or so; these are the ones that its text names, and 0.3.
RHOS = {
    "paper": (0.05, 0.3, 0.6, 0.7, 0.9, 0.99),
    "overnight": (0.3, 0.6, 0.9),
    "quick": (0.3, 0.6, 0.9),
    "smoke": (0.6,),
}

# Figure 11 and appendix B: CoVAE with one choice changed.
VARIANTS: dict[str, dict[str, Any]] = {
    "trainable prior": {"trainable_prior": True},
    "cross-diagonal posterior": {"posterior": "cross_diagonal"},
}
# Appendix B.2: how 32 latents are divided, and whether the prior's standard deviations are learned. Which unequal
# division the paper takes it does not say.
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "unequal blocks, 20 for mRNA and 12 for miRNA": {"latent_dims": {"mrna": 20, "mirna": 12}},
    "learned marginal variance": {"marginal_variance": True},
}

# "paper": appendices B and D. The paper states neither batches nor epochs of Deep CCA on images: canonical correlations
# of a batch of 1,000 are biased far less than those of 256, and more epochs fit the training pairs alone.
# "overnight": the networks of "quick" on all pairs, of which the last are held out, until their loss has not improved
# for "patience" epochs; Deep CCA, whose correlations are measured on pairs of its own, has its fixed epochs.
PROFILES: dict[str, dict[str, Any]] = {
    "paper": {
        "networks": {"networks": "resnet"},
        "train_samples": 20_000,
        "test_samples": 5_000,
        "training": {"epochs": 30, "batch_size": 256},
        "deep_cca": {"epochs": 10, "batch_size": 1000, "learning_rate": 1e-3},
        "evaluation": {"points": 500, "importance_samples": 1000, "draws": 64},
        "seeds": 5,
    },
    "overnight": {
        "networks": {"networks": "mlp", "widths": [400, 200]},
        "train_samples": 20_000,
        "held_out": 2_000,
        "test_samples": 5_000,
        "training": {"epochs": 60, "batch_size": 256, "patience": 5},
        "deep_cca": {"epochs": 5, "batch_size": 1000, "learning_rate": 1e-3, "patience": None},
        "evaluation": {"points": 500, "importance_samples": 200, "draws": 64},
        "seeds": 5,
    },
    "quick": {
        "networks": {"networks": "mlp", "widths": [400, 200]},
        "train_samples": 10_000,
        "test_samples": 2_000,
        "training": {"epochs": 12, "batch_size": 256},
        "deep_cca": {"epochs": 5, "batch_size": 1000, "learning_rate": 1e-3},
        "evaluation": {"points": 200, "importance_samples": 200, "draws": 64},
        "seeds": 1,
    },
    "smoke": {
        "networks": {"networks": "mlp", "widths": [32]},
        "train_samples": 160,
        "test_samples": 80,
        "training": {"epochs": 1, "batch_size": 80},
        "deep_cca": {"epochs": 1, "batch_size": 80, "learning_rate": 1e-3},
        "evaluation": {"points": 20, "importance_samples": 30, "draws": 8},
        "seeds": 1,
    },
}
OMICS: dict[str, dict[str, Any]] = {
    "paper": {
        "epochs": 200,
        "deep_cca": 50,
        "evaluation": {"points": 500, "importance_samples": 1000, "draws": 32},
        "seeds": 5,
    },
    "quick": {
        "epochs": 200,
        "deep_cca": 50,
        "evaluation": {"points": 500, "importance_samples": 300, "draws": 32},
        "seeds": 2,
    },
    "smoke": {
        "epochs": 2,
        "deep_cca": 2,
        "evaluation": {"points": 20, "importance_samples": 30, "draws": 4},
        "seeds": 1,
    },
}
LEARNING_RATE, PATIENCE = 1e-3, 30  # appendix B; a patience of 30 cannot act within 30 epochs


def _model(method: str, latents: int, modalities: tuple[str, str], networks: dict[str, Any]) -> dict[str, Any]:
    """A method's own settings at a number of latents in all, with unit β and a Gaussian of unit variance."""
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


def _changed(method: str, model: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    if unknown := sorted(set(changes) - set(model)):
        raise ValueError(f"{method} has no setting {unknown}; it has {sorted(model)}")
    return model | changes


def _training(method: str, settings: dict[str, Any], deep_cca: dict[str, Any]) -> dict[str, Any]:
    training = {**settings, "learning_rate": LEARNING_RATE, "optimizer": "adamw", "plateau": PATIENCE}
    if method == "covae":
        training["stages"] = {"deep_cca": {**deep_cca, "plateau": 0}}
    return training


def _known(method: str) -> None:
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; one of {', '.join(METHODS)}")


def image_spec(
    method: str, seed: int, profile: str, rho: float, *, flow: bool = False, latents: int = 20, **changes: Any
) -> RunSpec:
    """The specification of one run on correlated MNIST.

    Arguments:
        method: One of :data:`METHODS`.
        seed: Seed of initialisation and training; the data's seed is always 0.
        profile: ``"paper"``, ``"overnight"``, ``"quick"`` or ``"smoke"``.
        rho: True correlation of the data's latents, in [0, 1).
        flow: Whether a flow stands between the latents and the decoders of the data (Figure 10).
        latents: Latents in all; Figure 15 has ten.
        changes: Model settings that differ.

    Raises:
        ValueError: If the method or a setting is unknown, or rho is outside [0, 1).
    """
    _known(method)
    if not 0 <= rho < 1:
        raise ValueError(f"rho is {rho}, must be in [0, 1)")
    settings = of_profile(PROFILES, profile)
    model = _model(method, latents, ("m0", "m1"), settings["networks"])
    params = {
        "model": _changed(method, model, changes),
        "training": _training(method, settings["training"], settings["deep_cca"]),
        "data": {"rho": float(rho), "flow": flow, "seed": 0}
        | {k: settings[k] for k in ("train_samples", "held_out", "test_samples") if k in settings},
        "evaluation": settings["evaluation"] | {"seed": 0},
    }
    return RunSpec("covae", "correlated_mnist", method, seed, profile, params)


def omics_spec(method: str, seed: int, profile: str, dataset: str = "mlomics", **changes: Any) -> RunSpec:
    """The specification of one run on omics data.

    Arguments:
        method: One of :data:`METHODS`.
        seed: Seed of initialisation and training, and of MLOmics' split (the other set has its source's own).
        profile: ``"paper"``, ``"overnight"``, ``"quick"`` or ``"smoke"``.
        dataset: ``"mlomics"`` or ``"tcga_brca"``.
        changes: Model settings that differ.

    Raises:
        ValueError: If the method, the dataset or a setting is unknown.
    """
    _known(method)
    if dataset not in ("mlomics", "tcga_brca"):
        raise ValueError(f"unknown dataset {dataset!r}; mlomics or tcga_brca")
    settings = of_profile(OMICS, profile)
    model = _model(method, 32, ("mrna", "mirna"), {"networks": "omics", "dropout": 0.1})
    if method == "covae":
        # Of 150 tumours, 45 are held out: sixteen correlations cannot be read from fifteen samples.
        model |= {"pretraining": "distance_correlation", "held_out": 0.3 if dataset == "tcga_brca" else 0.1}
    params = {
        "model": _changed(method, model, changes),
        "training": _training(
            method,
            {"epochs": settings["epochs"], "batch_size": 128},
            {"epochs": settings["deep_cca"], "batch_size": 128, "learning_rate": 1e-3},
        ),
        "data": {"seed": seed if dataset == "mlomics" else 0},
        "evaluation": settings["evaluation"] | {"seed": 0},
    }
    return RunSpec("covae", dataset, method, seed, profile, params)
