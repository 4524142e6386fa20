"""Every number of SBM-VAE's experiments on Extended PolyMNIST: rows, profiles, hyper-parameters.

Importing this module needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from repro.datasets.scalars import flag, real_number, whole_number
from repro.records import RunSpec

__all__ = ["ABLATIONS", "BASELINES", "LABELS", "METHODS", "PROFILES", "ROWS", "ROW_CHANGES", "SUPERVISED", "sbm_spec"]

# Run's method to what is trained. One run serves a model with and without energy guidance.
METHODS: Mapping[str, Mapping[str, Any]] = {
    "sbm_vae": {"kind": "vae", "guidance": "energy"},
    "sbm_rae": {"kind": "rae", "guidance": "energy"},
    "sbm_vae_t": {"kind": "vae", "guidance": "contrastive"},
    "sbm_rae_t": {"kind": "rae", "guidance": "contrastive"},
    "mld": {"kind": "rae", "guidance": "multi_time"},
}
SUPERVISED = "supervised"  # the method of CelebAMask-HQ's supervised networks
# The betas that the paper chose on its validation split, and latents of each modality (appendix A.2).
BASELINES: Mapping[str, Mapping[str, float]] = {
    "mvae": {"beta": 1.0},
    "mmvae": {"beta": 2.5},
    "mopoe": {"beta": 2.5},
    "mvtcae": {"beta": 0.1},
    "mmvae_plus": {"beta": 5.0},
}
# Row to the run's method and how the run is sampled.
ROWS: Mapping[str, tuple[str, str]] = {
    "MVAE": ("mvae", "plain"),
    "MVAE, no sub-sampling": ("mvae", "plain"),
    "MMVAE": ("mmvae", "plain"),
    "MoPoE": ("mopoe", "plain"),
    "MVTCAE": ("mvtcae", "plain"),
    "MVTCAE, alpha 0.1": ("mvtcae", "plain"),
    "MMVAE+": ("mmvae_plus", "plain"),
    "SBM-VAE": ("sbm_vae", "plain"),
    "SBM-VAE-C": ("sbm_vae", "guided"),
    "SBM-VAE-T": ("sbm_vae_t", "plain"),
    "SBM-RAE": ("sbm_rae", "plain"),
    "SBM-RAE-C": ("sbm_rae", "guided"),
    "SBM-RAE-T": ("sbm_rae_t", "plain"),
    "MLD": ("mld", "plain"),
}
# MVTCAE's alpha as in the PolyMNIST script of the baseline library, and the library's default, which nearly removes the
# divergences of single modalities (erratum B3). A specification without an alpha has the default.
ALPHA, DEFAULT_ALPHA = 5 / 6, 0.1
# Rows whose runs differ from their method's own in a setting.
ROW_CHANGES: Mapping[str, Mapping[str, Any]] = {
    "MVAE, no sub-sampling": {"subsampling": False},
    "MVTCAE, alpha 0.1": {"alpha": DEFAULT_ALPHA},
}
LABELS = {method: row for row, (method, how) in ROWS.items() if how == "plain" and row not in ROW_CHANGES}
# The default of how observed latents are diffused, which a specification does not name (erratum M8).
OBSERVED_NOISE = "fresh"

# Rows under Table 5, beside the same method as the table has it: a label to the method and what is changed. Of a run
# with an energy, samples without guidance are shown. An RAE's squared error averaged over a modality's values, as the
# paper has it, is the sum with the norm's weight times their number, up to the loss's scale, which Adam does not see.
VALUES = 3 * 28 * 28  # of an image
ABLATIONS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "MVTCAE, alpha 5/6": ("mvtcae", {}),
    "MVTCAE, alpha 0.1": ("mvtcae", ROW_CHANGES["MVTCAE, alpha 0.1"]),
    "MVAE, sub-sampling": ("mvae", {}),
    "MVAE, no sub-sampling": ("mvae", ROW_CHANGES["MVAE, no sub-sampling"]),
    "MoPoE, beta 2.5": ("mopoe", {}),
    "MoPoE, beta 1.25: the same beside a squared error without the half": ("mopoe", {"beta": 1.25}),
    "SBM-VAE, observed latents diffused with new noise at every evaluation": ("sbm_vae", {}),
    "SBM-VAE, observed latents diffused with one noise a trajectory": ("sbm_vae", {"observed_noise": "fixed"}),
    "SBM-VAE, observed latents not diffused (algorithm 2)": ("sbm_vae", {"observed_noise": "clean"}),
    "SBM-RAE, squared error summed over values": ("sbm_rae", {}),
    "SBM-RAE, squared error averaged over values": ("sbm_rae", {"regularisation": 1e-5 * VALUES}),
}

# The same of one profile, with the energy's guidance: overnight's energies were first trained for 12 epochs, and their
# validation loss then still fell by a hundredth an epoch.
GUIDED_ABLATIONS: Mapping[str, Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "overnight": {
        "SBM-VAE-C, energy trained for at most 100 epochs": ("sbm_vae", {}),
        "SBM-VAE-C, energy trained for 12 epochs": ("sbm_vae", {"energy_epochs": 12}),
        "SBM-RAE-C, energy trained for at most 100 epochs": ("sbm_rae", {}),
        "SBM-RAE-C, energy trained for 12 epochs": ("sbm_rae", {"energy_epochs": 12}),
    },
}

# "paper": Table 4 and appendix A.2. Epochs: the paper has none; 300 of the score model are the released code's default,
# the others this package's. "quick": three modalities, a fifth of the images, narrow networks. "overnight": the same
# networks on all images, each stage until the validation loss has not improved for "patience" epochs; the epochs are
# about the most for which Table 5 and figures 6 and 7 take 12 hours of two cores each. Those figures, of several
# numbers of modalities, have the rows "count_rows" alone.
PROFILES: Mapping[str, Mapping[str, Any]] = {
    "paper": {
        "modalities": 10,
        "train_samples": None,
        "num_samples": None,
        "curve_samples": 10_000,
        "widths": [64, 128, 256],
        "score": {"width": 64, "multipliers": [1, 2, 2], "blocks": 2, "decay": 0.9999},
        "energy": [512, 512, 512],
        "embedding_dim": 512,
        "epochs": {"autoencoders": 100, "contrastive": 100, "score": 300, "energy": 100, "train": 100},
        "sampling": {"sampler": "predictor_corrector", "num_steps": 100},
        "seeds": 3,
        "rows": tuple(ROWS),
    },
    "overnight": {
        "modalities": 3,
        "train_samples": None,
        "num_samples": None,
        "curve_samples": 500,
        "widths": [16, 32, 64],
        "score": {"width": 32, "multipliers": [1, 2, 2], "blocks": 1, "decay": 0.999},
        "energy": [256, 256],
        "embedding_dim": 128,
        "epochs": {"autoencoders": 14, "contrastive": 6, "score": 29, "energy": 100, "train": 12},
        "patience": 3,
        "sampling": {"sampler": "dpm_solver", "num_steps": 20},
        "seeds": 1,
        "rows": tuple(ROWS),
        "count_rows": ("MVTCAE", "MVTCAE, alpha 0.1", "SBM-VAE", "SBM-VAE-C", "SBM-RAE", "SBM-RAE-C"),
    },
    "quick": {
        "modalities": 3,
        "train_samples": 10_000,
        "num_samples": 1_000,
        "curve_samples": 250,
        "widths": [16, 32, 64],
        "score": {"width": 32, "multipliers": [1, 2, 2], "blocks": 1, "decay": 0.995},
        "energy": [256, 256],
        "embedding_dim": 128,
        "epochs": {"autoencoders": 8, "contrastive": 8, "score": 24, "energy": 20, "train": 12},
        "sampling": {"sampler": "dpm_solver", "num_steps": 20},
        "seeds": 1,
        "rows": ("MVTCAE", "MVTCAE, alpha 0.1", "SBM-VAE", "SBM-VAE-C", "SBM-RAE", "SBM-RAE-C"),
        "count_rows": ("MVTCAE, alpha 0.1", "SBM-VAE", "SBM-VAE-C", "SBM-RAE", "SBM-RAE-C"),
    },
    "smoke": {
        "modalities": 3,
        "train_samples": 40,
        "num_samples": 20,
        "curve_samples": 10,
        "widths": [4, 4, 8],
        "score": {"width": 8, "multipliers": [1, 2], "blocks": 1, "decay": 0.9},
        "energy": [8],
        "embedding_dim": 16,
        "epochs": {"autoencoders": 1, "contrastive": 1, "score": 1, "energy": 1, "train": 1},
        "sampling": {"sampler": "dpm_solver", "num_steps": 3},
        "seeds": 1,
        "rows": ("MVTCAE", "MVTCAE, alpha 0.1", "SBM-VAE", "SBM-VAE-C", "SBM-VAE-T", "SBM-RAE", "SBM-RAE-C"),
    },
}
BATCH_SIZE = 256
LATENTS = 64  # a modality, appendix A.2
LEARNING_RATES = {"autoencoders": 1e-3, "contrastive": 1e-3, "score": 2e-4, "energy": 1e-3, "train": 1e-3}
# The reduced profiles take more and larger steps: with a hundredth of the paper's 2e-4 and 256 are far from converged.
REDUCED_SCORE_RATE, REDUCED_BATCHES = 1e-3, {"autoencoders": 64, "contrastive": 128, "train": 64, "score": 128}
# Samplers of the figure of quality against evaluations, with their numbers of steps.
REDUCED_NFE: list[tuple[str, int]] = [
    *(("predictor_corrector", n) for n in (5, 10, 25, 100)),
    *(("heun", n) for n in (3, 5, 10)),
    *(("dpm_solver", n) for n in (5, 10, 20)),
    *(("dpm_solver_ode", n) for n in (5, 10, 20)),
]
NFE: Mapping[str, list[tuple[str, int]]] = {
    "paper": [
        *(("predictor_corrector", n) for n in (5, 10, 25, 50, 100, 200, 500, 1000)),
        *(("heun", n) for n in (3, 5, 10, 25, 50)),
        *(("dpm_solver", n) for n in (5, 10, 15, 20, 50, 100)),
        *(("dpm_solver_ode", n) for n in (5, 10, 20, 50, 100)),
    ],
    "quick": REDUCED_NFE,
    "overnight": REDUCED_NFE,
    "smoke": [("predictor_corrector", 2), ("heun", 2), ("dpm_solver", 2), ("dpm_solver_ode", 2)],
}

# Figure 11: steps N of the predictor-corrector, with and without the energy's guidance, and on how many test images.
STEPS: Mapping[str, Mapping[str, Any]] = {
    "paper": {"steps": [100, 1000], "samples": 10_000},
    "overnight": {"steps": [20, 100], "samples": 500},
    "quick": {"steps": [20, 100], "samples": 150},
    "smoke": {"steps": [2, 3], "samples": 10},
}


def sbm_spec(method: str, seed: int, profile: str, **changes: Any) -> RunSpec:
    """The specification of a run on Extended PolyMNIST, every hyper-parameter resolved.

    Arguments:
        method: One of ``METHODS`` or ``BASELINES``.
        seed: Seed of initialisation and training; the data's seed is always 0.
        profile: ``"paper"``, ``"overnight"``, ``"quick"`` or ``"smoke"``.
        changes: ``modalities`` (how many, the first ones), ``beta``; of score-based models ``missing``,
            ``finetune_drop``, ``regularisation`` (RAEs) and ``observed_noise``, see
            :class:`repro.distributions.Observed`; of those with an energy ``energy_epochs``; of MVTCAE ``alpha``; of
            MVAE ``subsampling``.

    Raises:
        ValueError: If the method or a change is unknown, the method has no such setting, alpha is no number in
            [0, 1], subsampling is no bool, energy_epochs is no positive whole number, or there are fewer than two
            modalities.
    """
    if method not in METHODS and method not in BASELINES:
        raise ValueError(f"unknown method {method!r}; one of {', '.join((*METHODS, *BASELINES))}")
    owners = {"alpha": ("mvtcae",), "subsampling": ("mvae",)}
    owners |= dict.fromkeys(("missing", "finetune_drop", "observed_noise"), tuple(METHODS))
    owners["energy_epochs"] = tuple(m for m, own in METHODS.items() if own["guidance"] == "energy")
    owners["regularisation"] = tuple(m for m, own in METHODS.items() if own["kind"] == "rae")
    if unknown := sorted(set(changes) - {"modalities", "beta", *owners}):
        raise ValueError(f"no setting {unknown} of these runs; modalities, beta, {', '.join(sorted(owners))} are")
    if foreign := sorted(k for k in changes if method not in owners.get(k, (method,))):
        raise ValueError(f"{method} has no setting {foreign}")
    alpha = changes.get("alpha", ALPHA)
    weight = real_number("alpha", alpha, "in [0, 1]", lambda x: 0 <= x <= 1)
    alpha = alpha if isinstance(alpha, int) else weight  # 1 and 1.0 have different keys
    subsampling = flag("subsampling", changes.get("subsampling", True))
    p = PROFILES[profile]
    number = changes.get("modalities", p["modalities"])
    if not 2 <= number <= 10:
        raise ValueError(f"Extended PolyMNIST has 2 to 10 modalities to train on, not {number}")
    model: dict[str, Any] = {"widths": p["widths"], "compute_dtype": "bfloat16"}
    stages = ["train"]
    if method in METHODS:
        guidance = METHODS[method]["guidance"]
        beta_0 = 0.1 if number >= 10 else 1.0  # Table 4
        model |= {"kind": METHODS[method]["kind"], "latent_dim": LATENTS, "beta": changes.get("beta", 0.1)}
        model |= {"regularisation": changes.get("regularisation", 1e-5)}
        model |= {"noise_variance": 0.01, "latents": "sample", "sde": [beta_0, 5.0]}
        model |= {"weighting": "variance", "score": p["score"], "multi_time": guidance == "multi_time"}
        model |= {"energy": p["energy"] if guidance == "energy" else None, "gamma": 1000 / 256}
        model |= {"embedding_dim": p["embedding_dim"] if guidance == "contrastive" else 0}
        model |= {"missing": changes.get("missing", 0.0), "finetune_drop": changes.get("finetune_drop", 0.0)}
        stages = ["autoencoders", *(["contrastive"] if guidance == "contrastive" else []), "score"]
        stages += ["energy"] if guidance == "energy" else []
    else:
        shared = LATENTS // 2 if method == "mmvae_plus" else LATENTS * number
        model |= {"beta": changes.get("beta", BASELINES[method]["beta"]), "latent_dim": shared}
        model |= {"specific_dim": LATENTS // 2 if method == "mmvae_plus" else 0}
        model |= {"likelihood": "laplace" if method == "mmvae_plus" else "gaussian"}
        if method == "mvtcae" and alpha != DEFAULT_ALPHA:
            model |= {"alpha": alpha}
        if method == "mvae" and subsampling:
            model |= {"subsampling": True}
    rates = LEARNING_RATES | ({} if profile == "paper" else {"score": REDUCED_SCORE_RATE})
    batches = {} if profile == "paper" else REDUCED_BATCHES
    energy_epochs = changes.get("energy_epochs", p["epochs"]["energy"])
    if whole_number("energy_epochs", energy_epochs) < 1 or isinstance(energy_epochs, bool):
        raise ValueError(f"energy_epochs is {energy_epochs}, must be at least 1")
    epochs = p["epochs"] | {"energy": int(energy_epochs)}
    own = {s: {"epochs": epochs[s], "learning_rate": rates[s]} for s in stages}
    for stage, numbers in own.items():
        if stage in batches:
            numbers["batch_size"] = batches[stage]
    if model.get("finetune_drop"):
        own["finetune"] = {"epochs": 1 if profile == "smoke" else 5, "learning_rate": 1e-4}
        if "patience" in p:  # five epochs are the setting, see finetuning.py
            own["finetune"]["patience"] = None
    first = own[stages[0]]
    # Figure 11 shows the comparison's own runs that have an energy, no variants of them but in the energy's epochs.
    varied = {"beta": 0.1, "missing": 0.0, "finetune_drop": 0.0, "regularisation": 1e-5}
    noise = changes.get("observed_noise", OBSERVED_NOISE)
    compared = bool(model.get("energy")) and number == p["modalities"] and {k: model[k] for k in varied} == varied
    compared = compared and noise == OBSERVED_NOISE
    params = {
        "model": model,
        "training": {"batch_size": BATCH_SIZE}
        | first
        | ({"stages": own} if method in METHODS else {})
        | {k: p[k] for k in ("patience",) if k in p},
        "data": {"modalities": number, "train_samples": p["train_samples"]},
        "evaluation": {
            "num_samples": p["num_samples"],
            "curve_samples": p["curve_samples"],
            "sampling": p["sampling"] | ({} if noise == OBSERVED_NOISE else {"observed_noise": noise}),
            "nfe": [list(pair) for pair in NFE[profile]] if method in ("sbm_vae", "mld") else [],
            "steps": STEPS[profile]["steps"] if compared else [],
            "steps_samples": STEPS[profile]["samples"] if compared else 0,
            "inception": profile == "paper",
            "seed": 0,
        },
    }
    return RunSpec("sbm_vae", "extended_polymnist", method, seed, profile, params)
