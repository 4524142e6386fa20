"""Every number of the comparison of all models on PolyMNIST of three modalities; importing this needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from repro.papers.compare import methods
from repro.papers.compare.alike import alike_model, alike_training
from repro.papers.compare.methods import LABELS, REGULARISED, SCORE, chosen_weights
from repro.papers.compare.priors import settings as priors
from repro.papers.compare.priors.settings import POLYMNIST
from repro.records import RunSpec, changed, of_profile

__all__ = ["MODALITIES", "PROFILES", "polymnist_spec"]

MODALITIES = ("m0", "m1", "m2")

# Encoders and decoders, latents, potentials, chains, score networks, batches and rates are those of the comparison of
# structures on these data in the same profile, and in "paper" all stages together have as many epochs as its
# autoencoders and fits together. "overnight": until the validation loss has not improved, at most the epochs for which
# both tables take a night. "quick": so few samples that a run takes a minute.
_SIZES = ("modalities", "train_samples", "num_samples", "timed", "seeds", "chains", "score")


def _profile(name: str, **own: Any) -> dict[str, Any]:
    p = priors.PROFILES[POLYMNIST][name]
    encoded, training = p["autoencoders"], p["training"]
    settings = {k: p[k] for k in _SIZES} | {"potential_widths": p["widths"], "latent_dim": encoded["latent_dim"]}
    settings |= {"networks": {k: encoded[k] for k in ("networks", "widths", "hidden_dtype")}}
    settings |= {k: training[k] for k in ("batch_size", "learning_rate")} | {"patience": training.get("patience")}
    settings |= {"epochs": training["epochs"] + p["fit"]["epochs"], "sampling": methods.PROFILES["paper"]["sampling"]}
    return changed({**settings, "canonical": {"batch_size": 1_000, "held_out": 0.2}}, **own)


PROFILES: Mapping[str, Mapping[str, Any]] = {
    "paper": _profile(
        "paper",
        likelihood={"points": 500, "importance_samples": 1_000, "score_importance_samples": 4},
        sweep={"epochs": 20, "train_samples": 50_000, "num_samples": 5_000},
    ),
    "overnight": _profile(
        "overnight",
        epochs=8,
        num_samples=4_000,
        likelihood={"points": 100, "importance_samples": 300, "score_importance_samples": 4},
        sweep={"epochs": 4, "train_samples": 8_000, "num_samples": 2_000},
    ),
    "quick": _profile(
        "quick",
        epochs=4,
        train_samples=3_200,
        num_samples=500,
        canonical={"batch_size": 250},
        likelihood={"points": 50, "importance_samples": 50, "score_importance_samples": 2},
        sweep={"epochs": 4, "train_samples": 800, "num_samples": 250},
        seeds=1,
    ),
    "smoke": _profile(
        "smoke",
        epochs=2,
        sampling={"num_steps": 3},
        canonical={"batch_size": 100},  # more than the 12 latents whose correlations they are to have
        likelihood={"points": 10, "importance_samples": 16, "score_importance_samples": 2},
        sweep={"epochs": 2, "train_samples": 200, "num_samples": 60},
        seeds=1,
    ),
}
MIN_IMPROVEMENT = 1e-5  # of some 6,700 nats: 0.07


def polymnist_spec(
    method: str, seed: int, profile: str, *, weight: float | None = None, sweep: bool = False
) -> RunSpec:
    """The specification of one run, every hyper-parameter resolved.

    Arguments:
        method: One of :data:`~repro.papers.compare.methods.LABELS`.
        seed: Seed of initialisation and training; the data's is the dataset's own.
        profile: ``"paper"``, ``"overnight"``, ``"quick"`` or ``"smoke"``.
        weight: That of the KL term or of what the model has in its place; the chosen one if None.
        sweep: Whether it is one of the choice of that weight: shorter, and measured on the validation split in place
            of the test split.

    Raises:
        ValueError: If the method is unknown.
        NoProfileError: If there are no settings of the profile.
    """
    if method not in LABELS:
        raise ValueError(f"unknown method {method!r}; one of {', '.join(LABELS)}")
    p = of_profile(PROFILES, profile)
    weight = chosen_weights(POLYMNIST)[method] if weight is None else weight
    sizes = p["sweep"] if sweep else p
    split = "validation" if sweep else "test"
    measured = {"num_samples": sizes["num_samples"], "seed": 0, "split": split, "inception": False}
    if method in SCORE:
        measured["sampling"] = p["sampling"]
    if not sweep:
        measured["timed"] = p["timed"]
        if method not in REGULARISED:
            own = "score_importance_samples" if method in SCORE else "importance_samples"
            asked = p["likelihood"]
            measured["likelihood"] = {"points": asked["points"], "importance_samples": asked[own]}
    common = {k: p[k] for k in ("batch_size", "learning_rate")}
    patient = not sweep and p["patience"] is not None
    patience = {"patience": p["patience"], "min_improvement": MIN_IMPROVEMENT} if patient else None
    sized = {"modalities": MODALITIES, "latent_dim": p["latent_dim"], "networks": p["networks"]}
    params = {
        "model": alike_model(method, weight, p, **sized),
        "training": alike_training(method, sizes["epochs"], common, patience, p["canonical"]["batch_size"]),
        "data": {"modalities": p["modalities"], "train_samples": sizes["train_samples"]},
        "evaluation": measured,
    }
    return RunSpec("compare", POLYMNIST, method, seed, profile, params)
