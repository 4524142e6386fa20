"""SBM-VAE on CelebAMask-HQ (Table 10, appendices A.9 and A.10.1): rows, profiles, hyper-parameters, what is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repro.experiment import Cost, Experiment
from repro.papers.sbm_vae.settings import LEARNING_RATES, METHODS, PROFILES, ROWS, SUPERVISED
from repro.records import Metric, RunSpec, of_profile

if TYPE_CHECKING:
    from torch import Tensor

    from repro.datasets import Dataset
    from repro.model import TrainableModel

__all__ = [
    "ATTACKED",
    "CELEBA",
    "FACE_BASELINES",
    "FACE_PROFILES",
    "FACE_ROWS",
    "MISSING",
    "CelebAMaskHQ",
    "celeba_spec",
]

CELEBA: Mapping[str, Any] = {
    "latent_dim": 256,
    "latents": "mean",
    "sde": [0.1, 20.0],
    "beta": {"image": 0.1, "mask": 1.0, "attributes": 1.0},  # the attributes' is not printed
    "likelihoods": {"image": "gaussian", "mask": "gaussian", "attributes": "bernoulli"},
    "regularisation": {"image": 1e-4, "mask": 1e-5, "attributes": 1e-4},
    "noise_variance": {"image": 0.001, "mask": 0.001, "attributes": 0.1},
    "widths": [64, 128, 256, 512, 512],
    "sampling": {"sampler": "predictor_corrector", "num_steps": 1000},
    "batch_size": 256,
    "gamma": 2000 / 256,
}
GAUSSIAN = {"likelihood": "gaussian", "bernoulli": ["attributes"]}
# Latents and betas of appendix A.9. MMVAE+ has Laplace likelihoods, the others a Bernoulli one of the attributes.
FACE_BASELINES: Mapping[str, Mapping[str, Any]] = {
    "mopoe": {"latent_dim": 1024, "specific_dim": 0, "beta": 0.1} | GAUSSIAN,
    "mvtcae": {"latent_dim": 1024, "specific_dim": 0, "beta": 0.5} | GAUSSIAN,
    "mmvae_plus": {"latent_dim": 128, "specific_dim": 128, "beta": 5.0, "likelihood": "laplace", "bernoulli": []},
}
# Table 3's models: the networks that the attack is made on are trained beside these.
ATTACKED = ("mopoe", "mvtcae", "mmvae_plus", "sbm_rae_t", "sbm_vae")
EPSILON = 0.05  # section 4.2.1, of images in [0, 1]
MISSING = 0.2  # appendix A.10.1

# Rows of Table 1 in its order, to the run's method and how it is sampled.
FACE_ROWS: Mapping[str, tuple[str, str]] = {
    row: ROWS[row]
    for row in (
        *("SBM-RAE", "SBM-RAE-C", "SBM-RAE-T", "SBM-VAE", "SBM-VAE-C", "SBM-VAE-T"),
        *("MLD", "MoPoE", "MVTCAE", "MMVAE+"),
    )
} | {"Supervised": (SUPERVISED, "plain")}

# The paper prints neither epochs nor the score network's size; those of "paper" are this package's. The reduced
# profiles have fewer faces, narrower networks and a faster sampler.
FACE_PROFILES: Mapping[str, Mapping[str, Any]] = {
    "paper": {
        "train_samples": None,
        "num_samples": None,
        "widths": CELEBA["widths"],
        "hidden": [256, 256],
        "score": PROFILES["paper"]["score"],
        "energy": [512, 512, 512],
        "embedding_dim": 512,
        "epochs": {"autoencoders": 100, "contrastive": 100, "score": 300, "energy": 100, "train": 100, "judge": 30},
        "sampling": CELEBA["sampling"],
        "seeds": 3,
        "rows": tuple(FACE_ROWS),
        "gigaflops": (77.0, 40.0),
    },
    "quick": {
        "train_samples": 2000,
        "num_samples": 200,
        "widths": [8, 16, 32, 32, 32],
        "hidden": [128, 128],
        "score": PROFILES["quick"]["score"],
        "energy": [256, 256],
        "embedding_dim": 128,
        "epochs": {"autoencoders": 10, "contrastive": 5, "score": 40, "energy": 20, "train": 10, "judge": 5},
        "sampling": {"sampler": "dpm_solver", "num_steps": 20},
        "seeds": 1,
        "rows": ("SBM-RAE", "SBM-RAE-C", "SBM-VAE", "SBM-VAE-C", "MoPoE", "MVTCAE", "Supervised"),
        "gigaflops": (1.1, 0.6),
    },
    "smoke": {
        "train_samples": 16,
        "num_samples": 8,
        "widths": [4, 4, 4, 4, 8],
        "hidden": [8],
        "score": PROFILES["smoke"]["score"],
        "energy": [8],
        "embedding_dim": 8,
        "epochs": {"autoencoders": 1, "contrastive": 1, "score": 1, "energy": 1, "train": 1, "judge": 1},
        "sampling": {"sampler": "dpm_solver", "num_steps": 2},
        "seeds": 1,
        "rows": tuple(FACE_ROWS),
        "gigaflops": (0.3, 0.2),
    },
}
REDUCED_RATE, REDUCED_BATCH = 1e-3, 64
# A core's and the evaluations' speed that estimates are reckoned with, from operations counted, not from runs.
GIGAFLOPS_A_SECOND, SECONDS_A_THOUSAND_SCORES = 30.0, 4.0


def celeba_spec(method: str, seed: int, profile: str, *, missing: float = 0.0) -> RunSpec:
    """The specification of a run on CelebAMask-HQ, every hyper-parameter resolved.

    Arguments:
        method: One of ``METHODS`` or ``FACE_BASELINES``, or ``"supervised"``.
        seed: Seed of initialisation and training.
        profile: ``"paper"``, ``"quick"`` or ``"smoke"``.
        missing: Share of each modality's samples that are missing in training (Table 11).

    Raises:
        ValueError: If the method is unknown, ``missing`` is not in [0, 1), or the method cannot train with it.
    """
    known = (*METHODS, *FACE_BASELINES, SUPERVISED)
    if method not in known:
        raise ValueError(f"unknown method {method!r} of CelebAMask-HQ; one of {', '.join(known)}")
    if not 0 <= missing < 1:
        raise ValueError(f"missing is {missing}, must be at least 0 and under 1")
    if missing and (method in (SUPERVISED, "mmvae_plus") or METHODS.get(method, {}).get("guidance") == "contrastive"):
        raise ValueError(f"{method} does not train with missing modalities")
    p = of_profile(FACE_PROFILES, profile)
    model: dict[str, Any] = {"widths": p["widths"], "hidden": p["hidden"], "compute_dtype": "bfloat16"}
    stages = ["train"]
    if method in METHODS:
        guidance = METHODS[method]["guidance"]
        model |= {"kind": METHODS[method]["kind"], "weighting": "variance", "score": p["score"]}
        names = ("latent_dim", "latents", "sde", "beta", "likelihoods", "regularisation", "noise_variance", "gamma")
        model |= {name: CELEBA[name] for name in names}
        model |= {"multi_time": guidance == "multi_time", "energy": p["energy"] if guidance == "energy" else None}
        model |= {"embedding_dim": p["embedding_dim"] if guidance == "contrastive" else 0}
        model |= {"missing": missing, "finetune_drop": 0.0}
        stages = ["autoencoders", *(["contrastive"] if guidance == "contrastive" else []), "score"]
        stages += ["energy"] if guidance == "energy" else []
    elif method != SUPERVISED:
        model |= {**FACE_BASELINES[method], "missing": missing}
    with_classifier = method in ATTACKED and not missing
    rates = LEARNING_RATES | {"judge": 1e-3} | ({} if profile == "paper" else {"score": REDUCED_RATE})
    own = {
        s: {"epochs": p["epochs"][s], "learning_rate": rates[s]}
        for s in [*stages, *(["judge"] if with_classifier else [])]
    }
    batch = CELEBA["batch_size"] if profile == "paper" else REDUCED_BATCH
    params = {
        "model": model,
        "training": {"batch_size": batch} | own[stages[0]] | {"stages": own},
        "data": {"modalities": 3, "train_samples": p["train_samples"]},
        "evaluation": {
            "num_samples": p["num_samples"],
            "sampling": p["sampling"],
            "attack": EPSILON if with_classifier or method == SUPERVISED else 0.0,
            "inception": profile == "paper",
            "seed": 0,
        },
    }
    return RunSpec("sbm_vae", "celebamask_hq", method, seed, profile, params)


class CelebAMaskHQ(Experiment):
    """Score-based models and baselines on images, masks and attributes of faces, and supervised networks."""

    datasets = ("celebamask_hq",)

    def spec(self, method: str, seed: int, profile: str, **changes: Any) -> RunSpec:
        """As :func:`celeba_spec`."""
        return celeba_spec(method, seed, profile, **changes)

    def load(self, spec: RunSpec) -> dict[str, Dataset]:
        """The training, the validation and the test split of a run."""
        return self.code.load_faces(spec)

    def build(self, spec: RunSpec) -> TrainableModel:
        """The untrained model of a run, beside the network that is attacked where there is one."""
        return self.code.build_faces(spec)

    def evaluate(
        self, model: TrainableModel, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu"
    ) -> Sequence[Metric]:
        return self.code.evaluate_faces(model, data, spec, device)

    def figure_samples(self, model: TrainableModel, spec: RunSpec, device: str = "cpu") -> dict[str, Tensor]:
        """What the qualitative figures show; see :func:`~repro.papers.sbm_vae.celeba.evaluation.draw_faces`."""
        return self.code.draw_faces(model, self.load(spec)["test"], spec, device)

    def cost(self, spec: RunSpec) -> Cost:
        """Reckoned from the networks' operations; no run is behind it."""
        p, training, evaluation = FACE_PROFILES[spec.profile], spec.params["training"], spec.params["evaluation"]
        thousands = (spec.params["data"]["train_samples"] or 24_183) / 1000
        test = (evaluation["num_samples"] or 2824) / 1000
        both, encoders = p["gigaflops"]
        cost = {"autoencoders": both, "train": both, "contrastive": encoders, "judge": encoders / 2}
        latent = SECONDS_A_THOUSAND_SCORES * (8 if spec.profile == "paper" else 1) * GIGAFLOPS_A_SECOND / 1000
        seconds = sum(
            1000 * cost.get(name, latent) * thousands * own["epochs"] / GIGAFLOPS_A_SECOND
            for name, own in training["stages"].items()
        )
        if spec.method in METHODS:
            steps = evaluation["sampling"]["num_steps"] * (2 if "corrector" in evaluation["sampling"]["sampler"] else 1)
            tasks = 9 if spec.params["model"]["energy"] is None else 16
            seconds += SECONDS_A_THOUSAND_SCORES * (4 if spec.profile == "paper" else 1) * test * steps * tasks
        return Cost(seconds + 60.0, 12_000.0 if spec.profile == "paper" else 3000.0)
