"""Every number of the comparison of all models on the tumours; importing this needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from repro.papers.compare import methods
from repro.papers.compare.methods import (
    LABELS,
    REGULARISED,
    SCORE,
    TUMOURS,
    VARIANTS,
    chosen_weights,
    weighted_settings,
)
from repro.papers.covae.settings import PATIENCE
from repro.papers.mrf_mvae.skewed.experiment import spec as skewed_spec
from repro.papers.sbm_vae.settings import METHODS
from repro.records import RunSpec, changed, of_profile

__all__ = ["LATENT_DIM", "LATENTS", "PROFILES", "tumours_spec"]

MODALITIES = ("mrna", "mirna")
# CoVAE's 32 latents in all, and a square number a modality, for the score network's images.
LATENTS, LATENT_DIM = 32, 16

# CoVAE's omics experiments: networks, dropout, batch, rate, epochs and estimates. Its Deep CCA is a fifth of its epochs
# there too, on top of the 200; here all stages together have 200. Score models are those of the other comparisons, and
# Markov chains this package's.
_PAPER = {
    **{k: methods.PROFILES["paper"][k] for k in ("potential_widths", "score", "sampling", "timed", "seeds")},
    "epochs": 200,
    "chains": {"sampler": "metropolis", "num_chains": 1000, "burn_in": 300, "thinning": 25, "num_kept": 4},
    "draws": 32,
    "likelihood": {"points": 500, "importance_samples": 1_000, "predictive_samples": 1_000},
    "slow_predictive_samples": 100,
    "score_importance_samples": 4,
}
PROFILES: Mapping[str, Mapping[str, Any]] = {
    "paper": _PAPER,
    "quick": changed(
        _PAPER,
        epochs=50,
        likelihood={"importance_samples": 100, "predictive_samples": 100},
        slow_predictive_samples=20,
        score_importance_samples=2,
        seeds=1,
    ),
    "smoke": changed(
        _PAPER,
        epochs=4,
        potential_widths=[8],
        chains={"num_chains": 100, "burn_in": 20, "thinning": 5},
        score={"width": 8, "decay": 0.9},
        sampling={"num_steps": 3},
        draws=4,
        likelihood={"points": 5, "importance_samples": 16, "predictive_samples": 16},
        slow_predictive_samples=8,
        score_importance_samples=2,
        timed=20,
        seeds=2,
    ),
}
BATCH_SIZE, LEARNING_RATE, DROPOUT = 128, 1e-3, 0.1
# Of the training split: what the sweep is measured on, of each class, and what Deep CCA's correlations come from.
VALIDATION, CANONICAL_HELD_OUT = 0.2, 0.3
CANONICAL, SCORED = 0.2, 0.5  # the share of the epochs that Deep CCA has of CoVAE's, the score model of its own


def _model(method: str, p: Mapping[str, Any], profile: str, weight: float) -> dict[str, Any]:
    networks = {"networks": "omics", "dropout": DROPOUT}
    if method in VARIANTS:
        own = dict(skewed_spec(VARIANTS[method], 0, profile, beta=weight).params["model"])
        for name in ("variant", "width", "layers", "output", "hidden_dtype"):
            del own[name]
        own |= {**networks, "latent_dim": LATENT_DIM}
        return own | ({"potential_widths": p["potential_widths"], "chains": p["chains"]} if method == "nnmrf" else {})
    if method in SCORE:
        own = {**networks, "kind": METHODS[method]["kind"], "latent_dim": LATENT_DIM, "latents": "sample"}
        own |= {"regularisation" if method in REGULARISED else "beta": weight}
        own |= {"noise_variance": 0.01} if method in REGULARISED else {}
        return own | {"sde": [1.0, 5.0], "score": p["score"], "multi_time": method == "mld"}
    own = weighted_settings(method, LATENTS, MODALITIES, networks, weight)
    if method == "covae":
        own |= {"pretraining": "distance_correlation", "held_out": CANONICAL_HELD_OUT}
    return own


def _training(method: str, epochs: int) -> dict[str, Any]:
    """One budget: the epochs of all stages together; as in CoVAE the rate stays as it is in Deep CCA."""
    common = {"batch_size": BATCH_SIZE, "learning_rate": LEARNING_RATE, "optimizer": "adamw", "plateau": PATIENCE}
    shares = {"covae": ("deep_cca", CANONICAL), **dict.fromkeys(SCORE, ("score", SCORED))}
    if method not in shares:
        return {"epochs": epochs, **common}
    stage, share = shares[method]
    own = max(1, round(share * epochs))
    return {"epochs": epochs - own, **common, "stages": {stage: {"epochs": own, "plateau": 0}}}


def tumours_spec(method: str, seed: int, profile: str, *, weight: float | None = None, sweep: bool = False) -> RunSpec:
    """The specification of one run, every hyper-parameter resolved.

    Arguments:
        method: One of :data:`~repro.papers.compare.methods.LABELS`.
        seed: Seed of initialisation and training; the split is the data's own.
        profile: ``"paper"``, ``"quick"`` or ``"smoke"``.
        weight: That of the KL term or of what the model has in its place; the chosen one if None.
        sweep: Whether it is one of the choice of that weight: a part of the training split is held out, and measured
            on in place of the test split.

    Raises:
        ValueError: If the method is unknown.
        NoProfileError: If there are no settings of the profile.
    """
    if method not in LABELS:
        raise ValueError(f"unknown method {method!r}; one of {', '.join(LABELS)}")
    p = of_profile(PROFILES, profile)
    weight = chosen_weights(TUMOURS)[method] if weight is None else weight
    measured: dict[str, Any] = {"draws": p["draws"], "timed": p["timed"], "seed": 0}
    measured["split"] = "validation" if sweep else "test"
    if method in SCORE:
        measured["sampling"] = p["sampling"]
    if not sweep and method not in REGULARISED:
        slow = {"predictive_samples": p["slow_predictive_samples"]} if method in ("nnmrf", *SCORE) else {}
        few = {"importance_samples": p["score_importance_samples"]} if method in SCORE else {}
        measured["likelihood"] = {**p["likelihood"], **slow, **few}
    params = {
        "model": _model(method, p, profile, weight),
        "training": _training(method, p["epochs"]),
        "data": {"seed": 0, "validation": VALIDATION if sweep else 0.0},
        "evaluation": measured,
    }
    return RunSpec("compare", TUMOURS, method, seed, profile, params)
