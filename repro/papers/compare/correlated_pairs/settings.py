"""Every number of the comparison of all models on pairs of correlated MNIST; importing this needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from repro.papers.compare import methods
from repro.papers.compare.methods import LABELS, PAIRS, REGULARISED, SCORE, VARIANTS, chosen_weights, weighted_settings
from repro.papers.covae.correlated_mnist import experiment as covae
from repro.papers.covae.settings import PATIENCE
from repro.papers.mrf_mvae.skewed.experiment import spec as skewed_spec
from repro.papers.sbm_vae.settings import METHODS
from repro.records import RunSpec, changed, of_profile

__all__ = ["LATENTS", "LATENT_DIM", "PROFILES", "RHOS", "SCORED", "SCORE_LATENT_DIM", "SWEPT", "pairs_spec"]

MODALITIES = ("m0", "m1")
# CoVAE's 20 latents in all; a score network takes those of a modality as a square image that it halves once: 16.
LATENTS, LATENT_DIM, SCORE_LATENT_DIM = 20, 10, 16
RHOS: Mapping[str, tuple[float, ...]] = {
    "paper": (0.3, 0.6, 0.9),
    "overnight": (0.3, 0.6, 0.9),
    "quick": (0.3, 0.6, 0.9),
    "smoke": (0.6,),
}
SWEPT = 0.6  # the true correlation at which weights are chosen

# Networks, pairs, batches, rates and estimates are those of CoVAE's own experiment in the same profile, and all stages
# together have as many epochs as both of its stages there. Score models are those of the other comparisons, and Markov
# chains those of the tumours.
_COMMON = {
    **{k: methods.PROFILES["paper"][k] for k in ("potential_widths", "score", "sampling", "timed")},
    "chains": {"sampler": "metropolis", "num_chains": 1000, "burn_in": 300, "thinning": 25, "num_kept": 4},
}


def _profile(name: str, **changes: Any) -> dict[str, Any]:
    """CoVAE's settings of a profile, and what this comparison has beside them."""
    own = covae.PROFILES[name]
    training, deep_cca, evaluation = (own[k] for k in ("training", "deep_cca", "evaluation"))
    settings = {k: own[k] for k in ("networks", "train_samples", "held_out", "test_samples") if k in own}
    settings |= {"batch_size": training["batch_size"], "patience": training.get("patience"), "deep_cca": deep_cca}
    settings |= {"epochs": training["epochs"] + deep_cca["epochs"], "points": evaluation["points"]}
    settings |= {"draws": evaluation["draws"], "importance_samples": evaluation["importance_samples"]}
    return changed({**_COMMON, **settings}, **changes)


PROFILES: Mapping[str, Mapping[str, Any]] = {
    "paper": _profile(
        "paper",
        intervals=99,
        slow_predictive_samples=100,
        score_importance_samples=4,
        sweep={"epochs": 20, "held_out": 2_000, "points": 500},
        seeds=3,
    ),
    "overnight": _profile(
        "overnight",
        intervals=99,
        slow_predictive_samples=100,
        score_importance_samples=4,
        sweep={"epochs": 20, "held_out": 2_000, "points": 500},
        seeds=3,
    ),
    "quick": _profile(
        "quick",
        points=60,
        draws=16,
        intervals=19,
        importance_samples=100,
        slow_predictive_samples=20,
        score_importance_samples=2,
        timed=500,
        sweep={"epochs": 6, "held_out": 1_000, "points": 200},
        seeds=3,
    ),
    "smoke": _profile(
        "smoke",
        epochs=4,
        points=10,
        draws=4,
        intervals=19,
        importance_samples=16,
        slow_predictive_samples=8,
        score_importance_samples=2,
        potential_widths=[8],
        chains={"num_chains": 100, "burn_in": 20, "thinning": 5},
        score={"width": 8, "decay": 0.9},
        sampling={"num_steps": 3},
        timed=20,
        sweep={"epochs": 2, "held_out": 40, "points": 10},
        seeds=1,
    ),
}
LEARNING_RATE = 1e-3
SCORED = 0.5  # the share of the epochs that a score model has of its own


def _model(method: str, p: Mapping[str, Any], weight: float) -> dict[str, Any]:
    networks = p["networks"]
    if method in VARIANTS:
        own = dict(skewed_spec(VARIANTS[method], 0, "paper", beta=weight).params["model"])
        for name in ("variant", "width", "layers", "output", "hidden_dtype"):
            del own[name]
        own |= {**networks, "latent_dim": LATENT_DIM}
        return own | ({"potential_widths": p["potential_widths"], "chains": p["chains"]} if method == "nnmrf" else {})
    if method in SCORE:
        own = {**networks, "kind": METHODS[method]["kind"], "latent_dim": SCORE_LATENT_DIM, "latents": "sample"}
        own |= {"regularisation" if method in REGULARISED else "beta": weight}
        own |= {"noise_variance": 0.01} if method in REGULARISED else {}
        return own | {"sde": [1.0, 5.0], "score": p["score"], "multi_time": method == "mld"}
    return weighted_settings(method, LATENTS, MODALITIES, networks, weight)


def _training(method: str, p: Mapping[str, Any], epochs: int, patience: int | None) -> dict[str, Any]:
    """One budget: the epochs of all stages together, at most so many where there is patience."""
    common = {"batch_size": p["batch_size"], "learning_rate": LEARNING_RATE, "optimizer": "adamw", "plateau": PATIENCE}
    if patience is not None:
        common["patience"] = patience
    if method == "covae":
        whole = p["epochs"]
        own = max(1, round(epochs * p["deep_cca"]["epochs"] / whole))
        stages = {"deep_cca": {**p["deep_cca"], "epochs": own, "plateau": 0}}
    elif method in SCORE:
        own = max(1, round(SCORED * epochs))
        stages = {"score": {"epochs": own, "plateau": 0}}
    else:
        return {"epochs": epochs, **common}
    return {"epochs": epochs - own, **common, "stages": stages}


def pairs_spec(
    method: str, seed: int, profile: str, rho: float, *, weight: float | None = None, sweep: bool = False
) -> RunSpec:
    """The specification of one run, every hyper-parameter resolved.

    Arguments:
        method: One of :data:`~repro.papers.compare.methods.LABELS`.
        seed: Seed of initialisation and training; the data's seed is always 0.
        profile: ``"paper"``, ``"overnight"``, ``"quick"`` or ``"smoke"``.
        rho: True correlation of the data's latents, in [0, 1).
        weight: That of the KL term or of what the model has in its place; the chosen one if None.
        sweep: Whether it is one of the choice of that weight: shorter, and measured on the end of the training split,
            which is held out, in place of the test split.

    Raises:
        ValueError: If the method is unknown, or rho is outside [0, 1).
        NoProfileError: If there are no settings of the profile.
    """
    if method not in LABELS:
        raise ValueError(f"unknown method {method!r}; one of {', '.join(LABELS)}")
    if not 0 <= rho < 1:
        raise ValueError(f"rho is {rho}, must be in [0, 1)")
    p = of_profile(PROFILES, profile)
    weight = chosen_weights(PAIRS)[method] if weight is None else weight
    measured: dict[str, Any] = {"draws": p["draws"], "seed": 0, "split": "validation" if sweep else "test"}
    measured["points"] = p["sweep"]["points"] if sweep else p["points"]
    if method in SCORE:
        measured["sampling"] = p["sampling"]
    if not sweep:
        measured |= {"intervals": p["intervals"], "timed": p["timed"]}
        if method in SCORE:
            measured["canonical"] = LATENT_DIM  # of the canonical correlations of 16 latents, as many as CoVAE's
        if method not in REGULARISED:
            few = p["slow_predictive_samples"] if method in ("nnmrf", *SCORE) else p["importance_samples"]
            number = p["score_importance_samples"] if method in SCORE else p["importance_samples"]
            measured["likelihood"] = {"importance_samples": number, "predictive_samples": few}
    data: dict[str, Any] = {"rho": float(rho), "seed": 0, "train_samples": p["train_samples"]}
    if held_out := p["sweep"]["held_out"] if sweep else p.get("held_out"):
        data["held_out"] = held_out
    if not sweep:
        data["test_samples"] = p["test_samples"]
    epochs, patience = (p["sweep"]["epochs"], None) if sweep else (p["epochs"], p["patience"])
    params = {
        "model": _model(method, p, weight),
        "training": _training(method, p, epochs, patience),
        "data": data,
        "evaluation": measured,
    }
    return RunSpec("compare", PAIRS, method, seed, profile, params)
