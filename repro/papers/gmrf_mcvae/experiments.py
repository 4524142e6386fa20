"""What GMRF MCVAE's experiments run and how each run is measured: the copula, the image and the scaling runs.

Importing this module needs no torch; building, loading and evaluating do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from repro.papers.gmrf_mcvae.copula import experiment as copula
from repro.papers.gmrf_mcvae.copula.experiment import RUNG_EPOCHS
from repro.papers.gmrf_mcvae.images import experiment as images
from repro.papers.gmrf_mcvae.scaling import experiment as scaling
from repro.records import Metric, RunSpec

if TYPE_CHECKING:
    from torch import Tensor

    from repro.datasets import Dataset
    from repro.model import MultimodalModel
    from repro.training import TrainingSettings

__all__ = [
    "RUNG_EPOCHS",
    "build_model",
    "estimate",
    "evaluate",
    "figure_samples",
    "load_data",
    "plan",
    "training_settings",
]

SETTINGS_TABLES = ("table4", "table5", "table6", "table7", "table8", "table9")


def _experiment(spec: RunSpec) -> ModuleType:
    """The module that a run belongs to."""
    return copula if spec.dataset == "copula" else scaling if scaling.is_scaling(spec) else images


def plan(artifact: str, profile: str, seeds: int | None = None) -> dict[str, list[RunSpec]]:
    """The runs that an artifact is rendered from, by row.

    Arguments:
        artifact: Its id within the paper, such as ``"table1"``.
        profile: The profile.
        seeds: How many seeds, from 0 on; the profile's number if None.

    Raises:
        KeyError: If the artifact needs no runs of this paper.
    """
    if artifact in SETTINGS_TABLES:
        return {}
    if artifact == "scaling":
        return scaling.plan(profile)
    return (images if artifact in images.ARTIFACTS else copula).plan(artifact, profile, seeds)


def estimate(spec: RunSpec) -> tuple[float, float]:
    """Seconds on one core and peak megabytes of a run, from measured seconds."""
    return _experiment(spec).estimate(spec)


def load_data(spec: RunSpec) -> dict[str, Dataset]:
    """The splits that a run uses."""
    return _experiment(spec).load_data(spec)


def build_model(spec: RunSpec) -> MultimodalModel:
    """The untrained model of a run."""
    from repro.baselines import build_baseline
    from repro.papers.gmrf_mcvae.model import GMRFMCVAE

    modalities, settings = _experiment(spec).model_arguments(spec)
    if spec.method == "gmrf_mcvae":
        return GMRFMCVAE(modalities, **settings)
    return build_baseline(spec.method, modalities, **settings)


def training_settings(spec: RunSpec, device: str = "cpu") -> TrainingSettings:
    """How a run is trained."""
    from repro.training import TrainingSettings

    return TrainingSettings(**spec.params["training"], device=device)


def figure_samples(model: MultimodalModel, spec: RunSpec, device: str = "cpu") -> dict[str, Tensor]:
    """What figures draw of a run: points of the copula, pictures by a fixed rule, nothing of the scaling runs."""
    return _experiment(spec).figure_samples(model, spec, device)


def evaluate(
    model: MultimodalModel, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu"
) -> Sequence[Metric]:
    """All metrics of a run; see the experiments' modules of evaluation."""
    from repro.papers.gmrf_mcvae.copula.evaluation import evaluate_copula
    from repro.papers.gmrf_mcvae.images.evaluation import evaluate_images

    if spec.dataset == "copula":
        return evaluate_copula(model, data, spec, device)
    if scaling.is_scaling(spec):
        return scaling.measure(model, data, spec, device)
    return evaluate_images(model, data, spec, device)
