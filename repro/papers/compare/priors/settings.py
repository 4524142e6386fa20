"""Every number of the comparison of latent structures; importing this needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from repro.papers.mrf_mvae.triples.readings import ALIKE
from repro.records import RunSpec, changed, of_profile

__all__ = ["DATA", "LABELS", "ORACLE", "POLYMNIST", "PROFILES", "RHOS", "priors_spec", "structure_of"]

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
POLYMNIST = "extended_polymnist"
PREFIX = "prior_"

# Latents a modality are a square number for the score network's images. beta of the copula is the one that GMRF MCVAE
# has there (paper.toml of gmrf_mcvae, chosen on validation data), of the images SBM-VAE's (Table 4): the KL term only
# keeps the latents within bounds, what they have in common is the structure's. Epochs, widths and chains are this
# package's; nothing was chosen on any split.
COPULA = {"latent_dim": 4, "beta": 0.001}
IMAGES = {"latent_dim": 16, "beta": 0.1}
CHAINS = {"sampler": "metropolis", "num_chains": 1000, "burn_in": 400, "thinning": 50, "num_kept": 4}
# Widths, sizes and lengths of a profile; the others change what they name.
_COPULA = {
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
}
# Networks, epochs and batch of MRF MVAE's comparison on these data (appendix D.2), the score's of Table 4.
_TRIPLES = {
    "autoencoders": {**IMAGES, "widths": [1024] * 4},
    "training": {"epochs": 100, "batch_size": 128, "learning_rate": 1e-3},
    "fit": {"epochs": 100, "batch_size": 128, "learning_rate": 1e-3},
    "widths": [1024] * 3,
    "chains": {**CHAINS, "burn_in": 600, "thinning": 100},
    "score": {"width": 64, "multipliers": [1, 2], "blocks": 2, "decay": 0.9999},
    "energy": [512, 512, 512],
    "train_samples": 60_000,
    "held_out": 0,
    "num_samples": 10_000,
    "timed": 1_000,
    "seeds": 3,
}
# Networks and epochs of the triples, sizes, batch and rate of CoVAE's experiments on correlated MNIST, whose narrow
# profiles are fully connected too.
_CORRELATED = {
    **{k: _TRIPLES[k] for k in ("autoencoders", "widths", "score", "energy", "timed", "seeds")},
    "training": {"epochs": 100, "batch_size": 256, "learning_rate": 1e-3},
    "fit": {"epochs": 100, "batch_size": 256, "learning_rate": 1e-3},
    "chains": CHAINS,
    "train_samples": 20_000,
    "test_samples": 5_000,
    "points": 1_000,
    "draws": 4,
}
# The first three modalities, as in the reduced profiles of SBM-VAE's experiments on these data, whose latents, score
# network and batch the paper profile has (Table 4). Residual networks of PolyMNIST are GMRF MCVAE's (its Tables V to
# VIII): at as many channels they take half the time of SBM-VAE's, and have no batch normalisation.
_POLYMNIST = {
    **{k: _TRIPLES[k] for k in ("widths", "chains", "energy", "timed", "seeds")},
    "autoencoders": {
        **IMAGES,
        "latent_dim": 64,
        "networks": "residual",
        "widths": [64, 128, 256],
        "hidden_dtype": "bfloat16",
    },
    "training": {"epochs": 60, "batch_size": 256, "learning_rate": 1e-3},
    "fit": {"epochs": 60, "batch_size": 256, "learning_rate": 1e-3},
    "score": {"width": 64, "multipliers": [1, 2, 2], "blocks": 2, "decay": 0.9999},
    "modalities": 3,
    "train_samples": 50_000,
    "num_samples": 10_000,
}
_SMOKE = {
    "autoencoders": {"widths": [16]},
    "training": {"epochs": 1, "batch_size": 100, "learning_rate": 1e-3},
    "fit": {"epochs": 1, "batch_size": 100},
    "widths": [8],
    "chains": {"num_chains": 100, "burn_in": 20, "thinning": 5},
    "score": {"width": 8, "blocks": 1, "decay": 0.9},
    "energy": [8],
    "timed": 50,
    "seeds": 2,
}
PROFILES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "copula": {
        "paper": _COPULA,
        "quick": changed(
            _COPULA,
            training={"epochs": 10},
            fit={"epochs": 5},
            widths=[32, 32, 32],
            score={"decay": 0.995},
            num_samples=2_000,
            transport_samples=500,
            timed=500,
            seeds=1,
        ),
        "smoke": changed(_COPULA, **_SMOKE, train_samples=400, num_samples=200, transport_samples=50),
    },
    "mnist_triples": {
        "paper": _TRIPLES,
        "overnight": changed(
            _TRIPLES,
            autoencoders={"widths": [256, 256]},
            training={"epochs": 60, "batch_size": 256, "patience": 5},
            fit={"epochs": 60, "batch_size": 256},
            widths=[256, 256, 256],
            chains=CHAINS,
            score={"width": 32, "blocks": 1, "decay": 0.999},
            energy=[256, 256, 256],
            held_out=5_000,
        ),
        "quick": changed(
            _TRIPLES,
            autoencoders={"widths": [256, 256]},
            training={"epochs": 3, "batch_size": 256},
            fit={"epochs": 5, "batch_size": 256},
            widths=[64, 64, 64],
            chains=CHAINS,
            score={"width": 32, "blocks": 1, "decay": 0.995},
            energy=[128, 128, 128],
            train_samples=20_000,
            num_samples=2_000,
            timed=500,
            seeds=3,
        ),
        "smoke": changed(_TRIPLES, **_SMOKE, train_samples=500, num_samples=200),
    },
    "correlated_mnist3": {
        "paper": _CORRELATED,
        "overnight": changed(
            _CORRELATED,
            autoencoders={"widths": [400, 200]},
            training={"epochs": 60, "patience": 5},
            fit={"epochs": 30},
            widths=[256, 256, 256],
            score={"width": 32, "blocks": 1, "decay": 0.999},
            energy=[256, 256, 256],
            validation_samples=2_000,
        ),
        "quick": changed(
            _CORRELATED,
            autoencoders={"widths": [400, 200]},
            training={"epochs": 12},
            fit={"epochs": 8},
            widths=[64, 64, 64],
            score={"width": 32, "blocks": 1, "decay": 0.995},
            energy=[128, 128, 128],
            train_samples=10_000,
            test_samples=2_000,
            points=500,
            timed=500,
            seeds=3,
        ),
        # Of the samples more have to be held out than three modalities have latents.
        "smoke": changed(_CORRELATED, **_SMOKE, train_samples=600, test_samples=80, points=40),
    },
    POLYMNIST: {
        "paper": _POLYMNIST,
        "overnight": changed(
            _POLYMNIST,
            autoencoders={"widths": [16, 32, 64], "latent_dim": 16},
            training={"epochs": 14, "batch_size": 64, "patience": 3},
            fit={"epochs": 30},
            widths=[256, 256, 256],
            chains=CHAINS,
            score={"width": 32, "multipliers": [1, 2], "blocks": 1, "decay": 0.999},
            energy=[256, 256, 256],
        ),
        "quick": changed(
            _POLYMNIST,
            autoencoders={"widths": [8, 16, 32], "latent_dim": 16},
            training={"epochs": 2, "batch_size": 32, "learning_rate": 4e-3},
            fit={"epochs": 5},
            widths=[64, 64, 64],
            chains=CHAINS,
            score={"width": 32, "multipliers": [1, 2], "blocks": 1, "decay": 0.995},
            energy=[128, 128, 128],
            train_samples=10_000,
            num_samples=1_000,
            timed=500,
            seeds=3,
        ),
        "smoke": changed(
            _POLYMNIST,
            **changed(_SMOKE, autoencoders={"widths": [2, 4, 4], "latent_dim": 4}, score={"multipliers": [1, 2]}),
            train_samples=200,
            num_samples=60,
        ),
    },
}
# What a dataset takes beside its sizes: the first two modalities of triples show the same image (erratum M7), the
# latents of correlated images have this correlation.
DATA: Mapping[str, Mapping[str, Any]] = {
    "copula": {"seed": 0},
    "mnist_triples": {"alike": "image"},
    "correlated_mnist3": {"rho": 0.6, "seed": 0},
    POLYMNIST: {},
}
RHOS = (0.3, 0.6, 0.9)
SIZES = ("modalities", "train_samples", "validation_samples", "test_samples", "held_out")
MEASURED = ("num_samples", "transport_samples", "points", "draws", "timed")
SDE = (1.0, 5.0)  # SBM-VAE, Table 4, below ten modalities
GAMMA = 1000 / 256  # SBM-VAE, Table 4: 1000 on a mean over batches of 256
HELD_OUT = 0.1  # of the encodings, for the correlations of CoVAE's prior
SAMPLING = {"sampler": "dpm_solver", "num_steps": 20}


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


def priors_spec(method: str, seed: int, profile: str, dataset: str = "copula", **data: Any) -> RunSpec:
    """The specification of one run, every hyper-parameter resolved.

    Arguments:
        method: One of ``LABELS``.
        seed: Seed of the autoencoders and of the fit; the data's seed is always 0.
        profile: The profile.
        dataset: One of ``PROFILES``.
        data: What the dataset takes in place of ``DATA``: ``alike`` of triples, ``"image"`` or ``"digit"``; ``rho`` of
            correlated images, in [0, 1).

    Raises:
        ValueError: If the method, the dataset, or what it takes is unknown or out of range.
        NoProfileError: If the dataset has no settings of the profile.
    """
    if method not in LABELS:
        raise ValueError(f"unknown method {method!r}; one of {', '.join(LABELS)}")
    if dataset not in PROFILES:
        raise ValueError(f"unknown dataset {dataset!r}; one of {', '.join(PROFILES)}")
    own = DATA[dataset]
    if unknown := [k for k in data if k not in own]:
        raise ValueError(f"{dataset} takes {', '.join(own) or 'nothing'}, not {', '.join(unknown)}")
    if data.get("alike", "image") not in ALIKE:
        raise ValueError(f"unknown reading {data['alike']!r}; one of {', '.join(ALIKE)}")
    if not 0 <= data.get("rho", 0.0) < 1:
        raise ValueError(f"rho is {data['rho']}, must be in [0, 1)")
    p = of_profile(PROFILES[dataset], profile)
    evaluation = {k: p[k] for k in MEASURED if k in p} | {"seed": 0}
    if dataset == "mnist_triples":
        evaluation["split"] = "test"
    if dataset == POLYMNIST:
        evaluation["inception"] = False
    params = {
        "model": p["autoencoders"],
        "structure": _structure(method, p),
        "training": p["training"],
        "data": {k: p[k] for k in SIZES if p.get(k) is not None} | own | data,
        "evaluation": evaluation,
    }
    return RunSpec("compare", dataset, method, seed, profile, params)


def structure_of(spec: RunSpec) -> str:
    """The structure's name in structures.py."""
    return spec.method.removeprefix(PREFIX)
