"""The eight models on omics data: what is run, built and measured (CoVAE, section 3.2, appendices B and D)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repro import datasets
from repro.experiment import Cost, Experiment
from repro.papers.covae.settings import changed_settings, check_method, model_settings, training_params
from repro.records import Metric, RunSpec, of_profile

if TYPE_CHECKING:
    from torch import Tensor

    from repro.datasets import Dataset
    from repro.model import MultimodalModel

__all__ = ["CONFIGURATIONS", "PROFILES", "Omics", "omics_spec"]

DATASETS = ("mlomics", "tcga_brca")

# Appendix B.2: how 32 latents are divided, and whether the prior's standard deviations are learned. Which unequal
# division the paper takes it does not say.
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "unequal blocks, 20 for mRNA and 12 for miRNA": {"latent_dims": {"mrna": 20, "mirna": 12}},
    "learned marginal variance": {"marginal_variance": True},
}

PROFILES: dict[str, dict[str, Any]] = {
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

# Seconds of an epoch of 150 tumours on one core, and of the rest of a run; peak memory of a process in megabytes.
EPOCH_SECONDS, OVERHEAD_SECONDS = 0.06, 20.0
PEAK_MEGABYTES = 1500


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
    check_method(method)
    if dataset not in DATASETS:
        raise ValueError(f"unknown dataset {dataset!r}; mlomics or tcga_brca")
    settings = of_profile(PROFILES, profile)
    model = model_settings(method, 32, ("mrna", "mirna"), {"networks": "omics", "dropout": 0.1})
    if method == "covae":
        # Of 150 tumours, 45 are held out: sixteen correlations cannot be read from fifteen samples.
        model |= {"pretraining": "distance_correlation", "held_out": 0.3 if dataset == "tcga_brca" else 0.1}
    params = {
        "model": changed_settings(method, model, changes),
        "training": training_params(
            method,
            {"epochs": settings["epochs"], "batch_size": 128},
            {"epochs": settings["deep_cca"], "batch_size": 128, "learning_rate": 1e-3},
        ),
        "data": {"seed": seed if dataset == "mlomics" else 0},
        "evaluation": settings["evaluation"] | {"seed": 0},
    }
    return RunSpec("covae", dataset, method, seed, profile, params)


class Omics(Experiment):
    """Expression of mRNA and of miRNA, of MLOmics' tumours or of a small set that is available."""

    datasets = DATASETS

    def spec(self, method: str, seed: int, profile: str, **changes: Any) -> RunSpec:
        """As :func:`omics_spec`, with ``dataset`` among the changes."""
        return omics_spec(method, seed, profile, **changes)

    def load(self, spec: RunSpec) -> dict[str, Dataset]:
        """The training and the test split."""
        seed = spec.params["data"]["seed"]
        return {s: datasets.load_dataset(spec.dataset, split=s, seed=seed) for s in ("train", "test")}

    def build(self, spec: RunSpec) -> MultimodalModel:
        from repro.papers.covae.building import build_run  # without the measures, which load scikit-learn

        return build_run(spec)

    def evaluate(
        self, model: MultimodalModel, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu"
    ) -> Sequence[Metric]:
        """All metrics of a run; see :mod:`repro.papers.covae.omics.evaluation`."""
        return self.code.evaluate_omics(model, data, spec, device)

    def figure_samples(self, model: MultimodalModel, spec: RunSpec, device: str = "cpu") -> dict[str, Tensor]:
        """Correlations of features, and samples in the plane."""
        return self.code.omics_samples(model, self.load(spec)["test"], spec, device)

    def cost(self, spec: RunSpec) -> Cost:
        """From measured seconds an epoch."""
        epochs = spec.params["training"]["epochs"]
        if spec.dataset == "tcga_brca":
            return Cost(EPOCH_SECONDS * epochs + OVERHEAD_SECONDS, PEAK_MEGABYTES)
        # Forty times the samples, layers four times as wide, both modalities.
        return Cost(60 * EPOCH_SECONDS * epochs + 10 * OVERHEAD_SECONDS, PEAK_MEGABYTES)
