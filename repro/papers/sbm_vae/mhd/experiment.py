"""SBM-VAE on MHD's images and spoken digits (Table 8, appendix A.6): rows, profiles, hyper-parameters, what is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repro.experiment import Cost, Experiment
from repro.papers.sbm_vae.settings import BASELINES, LATENTS, LEARNING_RATES, PROFILES
from repro.records import Metric, RunSpec, of_profile

if TYPE_CHECKING:
    from torch import Tensor

    from repro.datasets import Dataset
    from repro.model import TrainableModel

__all__ = ["MHD", "MHD_METHODS", "MHD_PROFILES", "mhd_spec"]

MHD_METHODS: Mapping[str, str] = {"SBM-VAE": "sbm_vae", "MVTCAE": "mvtcae", "MMVAE+": "mmvae_plus"}
# The paper states the latent size alone, 64, and takes the networks of Vasco et al. (2022). The others are Table 4's of
# fewer than ten modalities and the betas chosen on Extended PolyMNIST; the networks are the residual ones of this
# paper.
MHD_PROFILES: Mapping[str, Mapping[str, Any]] = {
    name: {
        "train_samples": {"paper": None, "quick": 10_000, "smoke": 40}[name],
        "num_samples": {"paper": None, "quick": 1_000, "smoke": 20}[name],
        "judge_widths": [32, 64, 64] if name != "smoke" else [4, 4],
        "epochs": {**PROFILES[name]["epochs"], "judge": {"paper": 10, "quick": 4, "smoke": 1}[name]},
        **{key: PROFILES[name][key] for key in ("widths", "score", "energy", "sampling", "seeds")},
    }
    for name in ("paper", "quick", "smoke")
}
REDUCED_RATE, REDUCED_BATCH = 1e-3, 128
# Reckoned from the seconds of Extended PolyMNIST's images, which a spectrogram has four times the pixels of.
SECONDS = {"autoencoders": 6.0, "train": 6.0, "judge": 3.0, "score": 1.9}


def mhd_spec(method: str, seed: int, profile: str) -> RunSpec:
    """The specification of a run on MHD, every hyper-parameter resolved.

    Arguments:
        method: ``"sbm_vae"``, ``"mvtcae"`` or ``"mmvae_plus"``.
        seed: Seed of initialisation and training.
        profile: ``"paper"``, ``"quick"`` or ``"smoke"``.

    Raises:
        ValueError: If the method is unknown.
    """
    if method not in MHD_METHODS.values():
        raise ValueError(f"unknown method {method!r} of MHD; one of {', '.join(MHD_METHODS.values())}")
    p = of_profile(MHD_PROFILES, profile)
    model: dict[str, Any] = {"widths": p["widths"], "compute_dtype": "bfloat16"}
    stages = ["train"]
    if method == "sbm_vae":
        model |= {"kind": "vae", "latent_dim": LATENTS, "beta": 0.1, "regularisation": 1e-5, "noise_variance": 0.01}
        model |= {"latents": "sample", "sde": [1.0, 5.0], "weighting": "variance", "score": p["score"]}
        model |= {"multi_time": False, "energy": None, "gamma": 1000 / 256, "embedding_dim": 0}
        model |= {"missing": 0.0, "finetune_drop": 0.0}
        stages = ["autoencoders", "score"]
    else:
        private = method == "mmvae_plus"
        model |= {"hidden": [256, 256], "beta": BASELINES[method]["beta"], "bernoulli": [], "missing": 0.0}
        model |= {"latent_dim": LATENTS // 2 if private else LATENTS, "specific_dim": LATENTS // 2 if private else 0}
        model |= {"likelihood": "laplace" if private else "gaussian"}
    rates = LEARNING_RATES | {"judge": 1e-3} | ({} if profile == "paper" else {"score": REDUCED_RATE})
    own = {s: {"epochs": p["epochs"][s], "learning_rate": rates[s]} for s in (*stages, "judge")}
    params = {
        "model": model | {"judge_widths": p["judge_widths"]},
        "training": {"batch_size": 256 if profile == "paper" else REDUCED_BATCH} | own[stages[0]] | {"stages": own},
        "data": {"modalities": 2, "train_samples": p["train_samples"]},
        "evaluation": {"num_samples": p["num_samples"], "sampling": p["sampling"], "seed": 0},
    }
    return RunSpec("sbm_vae", "mhd", method, seed, profile, params)


class MHD(Experiment):
    """SBM-VAE and two baselines on images of digits and their spoken names."""

    datasets, no_methods = ("mhd",), "trains digit classifiers beside its models"

    def spec(self, method: str, seed: int, profile: str, **changes: Any) -> RunSpec:
        """As :func:`mhd_spec`, which takes no changes."""
        return mhd_spec(method, seed, profile, **changes)

    def load(self, spec: RunSpec) -> dict[str, Dataset]:
        """The training and the test split; there is no validation split."""
        return self.code.load_mhd(spec)

    def build(self, spec: RunSpec) -> TrainableModel:
        """The untrained model of a run, beside the evaluation classifiers that it is measured with."""
        return self.code.build_mhd(spec)

    def evaluate(
        self, model: TrainableModel, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu"
    ) -> Sequence[Metric]:
        return self.code.evaluate_mhd(model, data, spec, device)

    def figure_samples(self, model: TrainableModel, spec: RunSpec, device: str = "cpu") -> dict[str, Tensor]:
        """What the figure shows; see :func:`~repro.papers.sbm_vae.mhd.evaluation.draw_mhd`."""
        return self.code.draw_mhd(model, self.load(spec)["test"], spec, device)

    def cost(self, spec: RunSpec) -> Cost:
        """Reckoned from seconds on Extended PolyMNIST."""
        thousands = (spec.params["data"]["train_samples"] or 50_000) / 1000
        wide = 20.0 if spec.profile == "paper" else 1.0
        stages = spec.params["training"]["stages"]
        seconds = wide * sum(SECONDS[name] * thousands * own["epochs"] for name, own in stages.items())
        if spec.method == "sbm_vae":
            steps = spec.params["evaluation"]["sampling"]["num_steps"] * (2 if spec.profile == "paper" else 1)
            seconds += 3 * wide * 0.8 * steps * (spec.params["evaluation"]["num_samples"] or 10_000) / 1000
        return Cost(seconds + 40.0, 6000.0 if spec.profile == "paper" else 2500.0)
