"""Every number of the comparison of all models on MNIST triples; importing this needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from repro.papers.compare import methods
from repro.papers.compare.alike import alike_model, alike_training, private_latents
from repro.papers.compare.methods import DIGITS, LABELS, REGULARISED, SCORE, TRIPLES, chosen_weights
from repro.papers.compare.priors import settings as priors
from repro.papers.mrf_mvae.triples.readings import ALIKE
from repro.records import RunSpec, changed, of_profile

__all__ = ["LATENT_DIM", "PRIVATE", "PROFILES", "SHARED", "WEIGHTS_OF", "triples_spec"]

DATASET, MODALITIES = TRIPLES, ("m0", "m1", "m2")
# Reading to the table of chosen weights.
WEIGHTS_OF = {"image": TRIPLES, "digit": DIGITS}
# Latents in all, the same number for all models: as many blocks as modalities, or one that all share. Sixteen a
# modality, as the comparison of structures on these data has them: a square number for the score network's images.
LATENT_DIM = 16
SHARED = LATENT_DIM * len(MODALITIES)
PRIVATE = private_latents(LATENT_DIM, len(MODALITIES))  # 24 + 3 x 8

# Encoders, potentials, chains, score networks, triples and numbers of samples are those of the comparison of structures
# on these data in the same profile, of which "paper" has MRF MVAE's (appendix D.2), and so are batches and rates. All
# stages together have the 100 epochs of the paper. "overnight": until the held-out triples' loss has not improved, at
# most the 60 epochs of that comparison's autoencoders. "quick": fewer triples, in smaller batches for more steps.
_SIZES = ("train_samples", "held_out", "num_samples", "timed", "seeds", "chains", "score")


def _profile(name: str, **own: Any) -> dict[str, Any]:
    p = priors.PROFILES[DATASET][name]
    settings = {k: p[k] for k in _SIZES} | {"widths": p["autoencoders"]["widths"], "potential_widths": p["widths"]}
    settings |= {"batch_size": p["training"]["batch_size"], "sampling": methods.PROFILES["paper"]["sampling"]}
    return changed({**settings, "patience": None, "canonical": {"batch_size": 1_000, "held_out": 0.2}}, **own)


_LIKELIHOOD = {"points": 500, "importance_samples": 1_000, "score_importance_samples": 4}
_SWEEP = {"epochs": 20, "train_samples": 60_000, "held_out": 5_000, "num_samples": 5_000}
PROFILES: Mapping[str, Mapping[str, Any]] = {
    "paper": _profile("paper", epochs=100, likelihood=_LIKELIHOOD, sweep=_SWEEP),
    "overnight": _profile("overnight", epochs=60, patience=5, likelihood=_LIKELIHOOD, sweep={**_SWEEP, "epochs": 10}),
    "quick": _profile(
        "quick",
        epochs=8,
        batch_size=128,
        train_samples=10_000,
        num_samples=1_000,
        seeds=1,
        likelihood={"points": 100, "importance_samples": 100, "score_importance_samples": 2},
        sweep={"epochs": 4, "train_samples": 8_000, "held_out": 1_000, "num_samples": 1_000},
    ),
    "smoke": _profile(
        "smoke",
        epochs=2,
        num_samples=100,
        sampling={"num_steps": 3},
        canonical={"batch_size": 100},  # more than the 48 latents whose correlations they are to have
        likelihood={"points": 10, "importance_samples": 16, "score_importance_samples": 2},
        sweep={"epochs": 2, "train_samples": 500, "held_out": 100, "num_samples": 100},
        seeds=1,
    ),
}
LEARNING_RATE = 1e-3
MIN_IMPROVEMENT = 1e-5  # of some 2,190 nats: 0.02, as in MRF MVAE's own comparison


def triples_spec(
    method: str,
    seed: int,
    profile: str,
    alike: str = "image",
    *,
    weight: float | None = None,
    sweep: bool = False,
) -> RunSpec:
    """The specification of one run, every hyper-parameter resolved.

    Arguments:
        method: One of :data:`~repro.papers.compare.methods.LABELS`.
        seed: Seed of initialisation and training; the data's is the dataset's own.
        profile: ``"paper"``, ``"overnight"``, ``"quick"`` or ``"smoke"``.
        alike: What the first two modalities show: ``"image"``, the same image, or ``"digit"``, two images of one digit
            (erratum M7).
        weight: That of the KL term or of what the model has in its place; the chosen one if None.
        sweep: Whether it is one of the choice of that weight: shorter, and measured on the end of the training split,
            which is held out, in place of the test split.

    Raises:
        ValueError: If the method or the reading is unknown.
        NoProfileError: If there are no settings of the profile.
    """
    if method not in LABELS:
        raise ValueError(f"unknown method {method!r}; one of {', '.join(LABELS)}")
    if alike not in ALIKE:
        raise ValueError(f"unknown reading {alike!r}; one of {', '.join(ALIKE)}")
    p = of_profile(PROFILES, profile)
    weight = chosen_weights(WEIGHTS_OF[alike])[method] if weight is None else weight
    sizes = p["sweep"] if sweep else p
    measured = {"num_samples": sizes["num_samples"], "seed": 0, "split": "validation" if sweep else "test"}
    if method in SCORE:
        measured["sampling"] = p["sampling"]
    if not sweep:
        measured["timed"] = p["timed"]
        if method not in REGULARISED:
            own = "score_importance_samples" if method in SCORE else "importance_samples"
            asked = p["likelihood"]
            measured["likelihood"] = {"points": asked["points"], "importance_samples": asked[own]}
    common = {"batch_size": p["batch_size"], "learning_rate": LEARNING_RATE}
    patient = not sweep and p["patience"] is not None
    patience = {"patience": p["patience"], "min_improvement": MIN_IMPROVEMENT} if patient else None
    networks = {"networks": "mlp", "widths": p["widths"]}
    params = {
        "model": alike_model(method, weight, p, modalities=MODALITIES, latent_dim=LATENT_DIM, networks=networks),
        "training": alike_training(method, sizes["epochs"], common, patience, p["canonical"]["batch_size"]),
        "data": {"alike": alike, "train_samples": sizes["train_samples"], "held_out": sizes["held_out"]},
        "evaluation": measured,
    }
    return RunSpec("compare", DATASET, method, seed, profile, params)
