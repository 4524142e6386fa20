"""The models that are compared on the same data: their settings, one budget for all, and the weights that are swept.

Importing this needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from repro.experiment import Rows
from repro.papers import paper
from repro.papers.compare.priors.settings import POLYMNIST
from repro.papers.covae.settings import model_settings
from repro.papers.mrf_mvae.skewed.experiment import spec as skewed_spec
from repro.papers.sbm_vae.settings import ALPHA, METHODS
from repro.records import RunSpec, changed, of_profile
from repro.report.names import NAMES

__all__ = [
    "DIGITS",
    "LABELS",
    "PAIRS",
    "PROFILES",
    "REGULARISED",
    "TRIPLES",
    "TUMOURS",
    "chosen_weights",
    "compared_runs",
    "method_spec",
    "sweep_runs",
    "weighted_settings",
    "weights",
]

# Method to label, in the order of the rows.
LABELS = {
    m: NAMES[m]
    for m in (
        "gmrf_mcvae",
        "almrf",
        "nnmrf",
        "sbm_vae",
        "sbm_rae",
        "mld",
        "covae",
        "mvae",
        "mmvae",
        "mopoe",
        "mmvae_plus",
        "mvtcae",
        "jmvae",
        "dmvae",
    )
}
VARIANTS = {"gmrf_mcvae": "gmrf", "almrf": "almrf", "nnmrf": "nnmrf"}  # of MRF MVAE's comparison of them
SCORE = ("sbm_vae", "sbm_rae", "mld")
REGULARISED = tuple(m for m in SCORE if METHODS[m]["kind"] == "rae")  # which have no beta and no likelihood
MODALITIES = ("m0", "m1", "m2", "m3")

# Latents in all, the same number for all models: as many blocks as modalities, or one that all share. Four a modality:
# the data's two and some to spare, and a square number for the score network's images.
LATENT_DIM = 4
SHARED = LATENT_DIM * len(MODALITIES)
PRIVATE = {"latent_dim": 8, "specific_dim": 2}  # 8 + 4 x 2

# What the sweep tries in place of beta: the weight of the KL term; ALMRF's is that of a penalty of at most ln 3, and of
# a regularised autoencoder that of its latents' norm (1e-5 in SBM-VAE's paper).
WEIGHTS = (0.1, 0.01, 0.001, 0.0001)
OWN_WEIGHTS = {
    "almrf": (30.0, 3.0, 0.3, 0.03, 0.003),
    **dict.fromkeys(("sbm_vae", "jmvae"), (*WEIGHTS, 0.00001, 0.000001)),
    **dict.fromkeys(REGULARISED, (0.01, 0.001, 0.0001, 0.00001, 0.000001)),
}
# On the tumours a reconstruction is of 384 features of unit variance, not of eight values in [0, 1]: both kinds of
# weights go up to larger ones. 1 is CoVAE's for itself and its seven baselines.
TUMOURS = "tcga_brca"
TUMOUR_WEIGHTS = (10.0, 1.0, 0.1, 0.01, 0.001)
OWN_TUMOUR_WEIGHTS = {
    "almrf": (300.0, 30.0, 3.0, 0.3, 0.03),
    **dict.fromkeys(REGULARISED, (1.0, 0.1, 0.01, 0.001, 0.0001, 0.00001)),
}
# Of pairs of images it is of 1,568 pixels in [0, 1], whose variances sum to some 100; 1 is CoVAE's there too.
PAIRS = "correlated_mnist"
PAIR_WEIGHTS = (1.0, 0.1, 0.03, 0.01)
OWN_PAIR_WEIGHTS = {
    "almrf": (300.0, 30.0, 3.0, 0.3),
    **dict.fromkeys(REGULARISED, (1.0, 0.1, 0.01, 0.001)),
}
# Of triples of images it is of 2,352 pixels, a half more. Both readings of what the first two show have one list, and a
# chosen weight each.
TRIPLES, DIGITS = "mnist_triples", "mnist_triples_digit"
# Of three coloured images it is of 7,056 values over backgrounds, whose variances sum to several times as much. SBM-VAE
# has from 0.1 to 5 for itself and its five baselines (appendix A.2).
POLYMNIST_WEIGHTS = (5.0, 1.0, 0.2, 0.04)
# At 5 the encoders' variances overflow in MVAE's first epoch of the profile quick: it is tried a step lower.
OWN_POLYMNIST_WEIGHTS = OWN_PAIR_WEIGHTS | {"mvae": (1.0, 0.2, 0.04, 0.008)}
# Dataset to what is tried of all methods, and of those that have others; the generated data of eight values else.
TRIED: Mapping[str, tuple[Sequence[float], Mapping[str, Sequence[float]]]] = {
    TUMOURS: (TUMOUR_WEIGHTS, OWN_TUMOUR_WEIGHTS),
    PAIRS: (PAIR_WEIGHTS, OWN_PAIR_WEIGHTS),
    TRIPLES: (PAIR_WEIGHTS, OWN_PAIR_WEIGHTS),
    DIGITS: (PAIR_WEIGHTS, OWN_PAIR_WEIGHTS),
    POLYMNIST: (POLYMNIST_WEIGHTS, OWN_POLYMNIST_WEIGHTS),
}

_PAPER = {
    "widths": [256, 256],
    "potential_widths": [128, 128, 128],
    "score": {"width": 16, "multipliers": [1, 2], "blocks": 1, "decay": 0.999},
    "sampling": {"sampler": "dpm_solver", "num_steps": 20},
    "epochs": 200,
    "sweep": 40,
    "batch_size": 500,
    "train_samples": 10_000,
    "num_samples": 10_000,
    "transport_samples": 1_000,
    "likelihood": {"points": 500, "importance_samples": 1_000, "score_importance_samples": 32},
    "timed": 1_000,
    "seeds": 3,
}
# 200 epochs and 10,000 samples are those of GMRF MCVAE's copula experiment, and so are the networks and the rate.
PROFILES: Mapping[str, Mapping[str, Any]] = {
    "paper": _PAPER,
    "quick": changed(
        _PAPER,
        epochs=10,
        sweep=5,
        score={"decay": 0.995},
        num_samples=2_000,
        transport_samples=500,
        likelihood={"points": 100, "importance_samples": 200, "score_importance_samples": 8},
        timed=500,
        seeds=1,
    ),
    "smoke": changed(
        _PAPER,
        widths=[16, 16],
        potential_widths=[8],
        score={"width": 8, "decay": 0.9},
        sampling={"num_steps": 3},
        epochs=2,
        sweep=2,
        batch_size=100,
        train_samples=400,
        num_samples=400,  # of which enough lie in a tail
        transport_samples=50,
        likelihood={"points": 10, "importance_samples": 16, "score_importance_samples": 2},
        timed=20,
        seeds=2,
    ),
}
LEARNING_RATE = 1e-3
HELD_OUT = 0.1  # of CoVAE's training split, for the correlations of its prior
CANONICAL, SCORED = 0.1, 0.5  # the share of the epochs that Deep CCA has of CoVAE's, the score model of its own


def weights(method: str, dataset: str = "copula") -> Sequence[float]:
    """What the sweep on a dataset tries, from large to small."""
    common, own = TRIED.get(dataset, (WEIGHTS, OWN_WEIGHTS))
    return own.get(method, common)


def chosen_weights(dataset: str) -> Mapping[str, float]:
    """Method to the weight of a dataset's comparison (paper.toml; the sweep's table says whether it chooses that)."""
    return paper("compare").betas[dataset]


def _model(method: str, p: Mapping[str, Any], profile: str, weight: float) -> dict[str, Any]:
    """A method's settings, as the builders of its paper take them."""
    if method in VARIANTS:
        own = dict(skewed_spec(VARIANTS[method], 0, profile, beta=weight).params["model"])
        own |= {"latent_dim": LATENT_DIM, "width": p["widths"][0], "layers": len(p["widths"])}
        return own | ({"potential_widths": p["potential_widths"]} if method == "nnmrf" else {})
    if method in SCORE:
        own = {"kind": METHODS[method]["kind"], "latent_dim": LATENT_DIM, "hidden": p["widths"]}
        own |= {"regularisation" if method in REGULARISED else "beta": weight}
        own |= {"noise_variance": 0.01} if method in REGULARISED else {"latents": "sample"}
        return own | {"sde": [1.0, 5.0], "score": p["score"], "multi_time": method == "mld"}
    networks = {"networks": "mlp", "widths": p["widths"]}
    own = weighted_settings(method, SHARED, MODALITIES[:2], networks, weight)
    if method == "covae":
        own |= {"latent_dims": dict.fromkeys(MODALITIES, LATENT_DIM), "held_out": HELD_OUT}
    elif own["specific_dim"]:
        own |= PRIVATE
    return own


def weighted_settings(
    method: str, latents: int, modalities: tuple[str, str], networks: Mapping[str, Any], weight: float
) -> dict[str, Any]:
    """The settings of CoVAE or of a baseline, all of its divergences weighed alike.

    The weight is the square of the likelihood's scale, by which the ELBO was multiplied. JMVAE's alpha, which the
    library counts beside beta and not within it, goes along (erratum B5).

    Arguments:
        method: CoVAE or a baseline.
        latents: Number of latents in all.
        modalities: The modalities' names, or the first two.
        networks: Kind and sizes of encoders and decoders.
        weight: Weight of the KL terms.
    """
    own = model_settings(method, latents, modalities, dict(networks)) | {"beta": weight}
    if method == "mvtcae":
        own["alpha"] = ALPHA
    if method == "jmvae":
        own["alpha"] = round(own["alpha"] * weight, 12)
    return own


def _training(method: str, p: Mapping[str, Any], epochs: int) -> dict[str, Any]:
    """One budget: the epochs of all stages together."""
    common = {"batch_size": p["batch_size"], "learning_rate": LEARNING_RATE}
    shares = {"covae": ("deep_cca", CANONICAL), **dict.fromkeys(SCORE, ("score", SCORED))}
    if method not in shares:
        return {"epochs": epochs, **common}
    stage, share = shares[method]
    own = max(1, round(share * epochs))
    return {"epochs": epochs - own, **common, "stages": {stage: {"epochs": own}}}


def method_spec(
    dataset: str,
    method: str,
    seed: int,
    profile: str,
    *,
    weight: float | None = None,
    sweep: bool = False,
    evaluation: Mapping[str, Any] | None = None,
) -> RunSpec:
    """The specification of one run, every hyper-parameter resolved.

    Arguments:
        dataset: ``"copula"`` or ``"skewed_copula"``.
        method: One of ``LABELS``.
        seed: Seed of initialisation and training; the data's seed is always 0.
        profile: ``"paper"``, ``"quick"`` or ``"smoke"``.
        weight: That of the KL term or of what the model has in its place; the chosen one if None.
        sweep: Whether it is one of the choice of that weight: shorter, and measured on the validation split alone.
        evaluation: What the dataset's evaluation takes beside what all have.

    Raises:
        ValueError: If the method is unknown.
        NoProfileError: If there are no settings of the profile.
    """
    if method not in LABELS:
        raise ValueError(f"unknown method {method!r}; one of {', '.join(LABELS)}")
    p = of_profile(PROFILES, profile)
    weight = chosen_weights(dataset)[method] if weight is None else weight
    measured: dict[str, Any] = {k: p[k] for k in ("num_samples", "transport_samples", "timed")}
    measured |= {"seed": 0, "split": "validation" if sweep else "test", **(evaluation or {})}
    if method in SCORE:
        measured["sampling"] = p["sampling"]
    if not sweep and method not in REGULARISED:
        own = "score_importance_samples" if method in SCORE else "importance_samples"
        measured["likelihood"] = {
            "points": p["likelihood"]["points"],
            "importance_samples": p["likelihood"][own],
        }
    params = {
        "model": _model(method, p, profile, weight),
        "training": _training(method, p, p["sweep"] if sweep else p["epochs"]),
        "data": {"seed": 0, "train_samples": p["train_samples"]},
        "evaluation": measured,
    }
    return RunSpec("compare", dataset, method, seed, profile, params)


def compared_runs(
    spec: Any, profile: str, seeds: int | None, profiles: Mapping[str, Mapping[str, Any]] = PROFILES
) -> Rows:
    """Each model with the weight that was chosen for it.

    Arguments:
        spec: ``spec(method, seed, profile)``, the dataset's own :func:`method_spec`.
        profile: The profile.
        seeds: Number of seeds; the profile's if None.
        profiles: Those that there are.
    """
    number = of_profile(profiles, profile)["seeds"] if seeds is None else seeds
    return {m: [spec(m, s, profile) for s in range(number)] for m in LABELS}


def sweep_runs(
    spec: Any,
    profile: str,
    seeds: int | None,
    profiles: Mapping[str, Mapping[str, Any]] = PROFILES,
    dataset: str = "copula",
) -> Rows:
    """Every weight on validation data, seed 0; arguments as :func:`compared_runs`, and whose :func:`weights`."""
    of_profile(profiles, profile)
    tried = [(m, weight) for m in LABELS for weight in weights(m, dataset)]
    return {f"{m} {weight:g}": [spec(m, 0, profile, weight=weight, sweep=True)] for m, weight in tried}
