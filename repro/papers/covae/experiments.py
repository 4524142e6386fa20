"""What CoVAE's experiments run and how each run is measured.

Importing this module needs no torch; building, loading and evaluating do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repro.papers.covae.specs import (
    CONFIGURATIONS,
    METHODS,
    OMICS,
    PROFILES,
    RHOS,
    SMALL,
    VARIANTS,
    image_spec,
    omics_spec,
)
from repro.records import Metric, RunSpec, of_profile

if TYPE_CHECKING:
    from torch import Tensor

    from repro.datasets import Dataset
    from repro.model import MultimodalModel
    from repro.training import TrainingSettings

__all__ = [
    "build_model",
    "estimate",
    "evaluate",
    "figure_methods",
    "figure_samples",
    "load_data",
    "plan",
    "training_settings",
]

# Seconds of an epoch of 10,000 pairs with the quick profile's networks on one core: CoVAE's from the processor's time
# of a run on a shared core, the others' by their numbers of passes through the same networks, as is the factor for
# appendix D's networks; seconds of the rest of a run; peak memory of a process in megabytes.
EPOCH_SECONDS = {
    "mvae": 2.0,
    "mvtcae": 1.3,
    "mmvae": 1.7,
    "mopoe": 1.7,
    "jmvae": 1.5,
    "dmvae": 2.5,
    "mmvae_plus": 1.8,
    "covae": 3.2,
}
RESNET_FACTOR = 40.0
OVERHEAD_SECONDS = {"paper": 600.0, "overnight": 150.0, "quick": 60.0, "smoke": 10.0}
OMICS_EPOCH_SECONDS = 0.06  # 150 tumours
OMICS_OVERHEAD_SECONDS = 20.0
PEAK_MEGABYTES = 1500


def figure_methods(profile: str) -> tuple[str, ...]:
    """The models of the figures on images: all eight, in the quick profile four."""
    return SMALL if profile == "quick" else METHODS


def _images(methods: Sequence[str], rhos: Sequence[float], profile: str, seeds: int, **changes: Any) -> dict[str, list]:
    return {
        f"{m}, rho {rho:g}": [image_spec(m, s, profile, rho, **changes) for s in range(seeds)]
        for rho in rhos
        for m in methods
    }


def _near(profile: str, *wanted: float) -> list[float]:
    """The profile's correlations that come nearest to the wanted ones, each once."""
    return list(dict.fromkeys(min(RHOS[profile], key=lambda r, w=w: abs(r - w)) for w in wanted))


def plan(artifact: str, profile: str, seeds: int | None = None) -> dict[str, list[RunSpec]]:
    """The runs that an artifact is rendered from, by row.

    Arguments:
        artifact: Its id within the paper, such as ``"fig5"``.
        profile: The profile.
        seeds: How many seeds, from 0 on; the profile's number if None.

    Raises:
        KeyError: If the artifact needs no runs of this paper.
    """
    rhos, methods = RHOS[profile], figure_methods(profile)
    number = of_profile(PROFILES, profile)["seeds"] if seeds is None else seeds
    if artifact in ("fig5", "fig6", "fig8", "calibration", "multivae-nll"):
        return _images(methods, rhos, profile, number)
    if artifact in ("fig7", "fig16", "fig17"):
        wanted = (0.9, 0.6) if artifact == "fig7" else (0.05, 0.6, 0.99)
        chosen = [m for m in ("mvae", "dmvae", "covae") if m in methods] if artifact == "fig7" else methods
        return _images(chosen, _near(profile, *wanted), profile, 1)
    if artifact == "fig10":
        return _images([m for m in ("dmvae", "mmvae_plus", "covae") if m in methods], rhos, profile, number, flow=True)
    if artifact == "fig11":
        rows = _images(("covae",), rhos, profile, number)
        for name, changes in VARIANTS.items():
            found = _images(("covae",), rhos, profile, number, **changes)
            rows |= {f"{row}, {name}": specs for row, specs in found.items()}
        return rows
    if artifact == "fig14":
        pair = _near(profile, 0.9, 0.3)
        rows = _images(("jmvae", "mvae", "covae"), pair, profile, 1)
        found = _images(("covae",), pair, profile, 1, **VARIANTS["cross-diagonal posterior"])
        return rows | {f"{row}, cross-diagonal posterior": specs for row, specs in found.items()}
    if artifact == "fig15":
        high = _near(profile, 0.9)
        rows = _images(("jmvae", "mvae", "covae"), high, profile, 1)
        found = _images(("jmvae", "mvae"), high, profile, 1, latents=10)
        return rows | {f"{row}, 10 latents": specs for row, specs in found.items()}
    kind, _, where = artifact.partition("-")
    if kind in ("table1", "table2", "table3", "fig9") and where in ("", "tcga"):
        dataset = "tcga_brca" if where else "mlomics"
        number = of_profile(OMICS, profile)["seeds"] if seeds is None else seeds
        rows = {m: [omics_spec(m, s, profile, dataset) for s in range(number)] for m in METHODS}
        if kind == "fig9":
            return {m: specs[:1] for m, specs in rows.items()}
        for name, changes in CONFIGURATIONS.items():
            rows[name] = [omics_spec("covae", s, profile, dataset, **changes) for s in range(number)]
        return rows
    if kind == "fig12" and where in ("", "tcga"):
        return {"covae": [omics_spec("covae", 0, profile, "tcga_brca" if where else "mlomics")]}
    if artifact in ("fig1", "fig4", "fig13", "fig13-tcga", "tableD"):
        return {}
    raise KeyError(artifact)


def estimate(spec: RunSpec) -> tuple[float, float]:
    """Seconds on one core and peak megabytes of a run, from measured seconds an epoch."""
    epochs = spec.params["training"]["epochs"]
    if spec.dataset == "tcga_brca":
        return OMICS_EPOCH_SECONDS * epochs + OMICS_OVERHEAD_SECONDS, PEAK_MEGABYTES
    if spec.dataset == "mlomics":  # forty times the samples, layers four times as wide, both modalities
        return 60 * OMICS_EPOCH_SECONDS * epochs + 10 * OMICS_OVERHEAD_SECONDS, PEAK_MEGABYTES
    factor = RESNET_FACTOR if spec.params["model"]["networks"] == "resnet" else 1.0
    samples = spec.params["data"]["train_samples"] / 10_000
    return factor * EPOCH_SECONDS[spec.method] * epochs * samples + OVERHEAD_SECONDS[spec.profile], PEAK_MEGABYTES


def load_data(spec: RunSpec) -> dict[str, Dataset]:
    """The splits that a run uses; on images ``"truth"`` is the test split with the latents it was drawn from.

    ``"validation"`` is the training split's end, where the run holds it out.
    """
    from repro.datasets import load_dataset
    from repro.datasets.held_out import hold_out

    data = spec.params["data"]
    if spec.dataset != "correlated_mnist":
        return {s: load_dataset(spec.dataset, split=s, seed=data["seed"]) for s in ("train", "test")}
    options = {"rho": data["rho"], "flow": data["flow"], "seed": data["seed"]}
    test = {"split": "test", "num_samples": data["test_samples"]}
    train = load_dataset("correlated_mnist", split="train", num_samples=data["train_samples"], **options)
    parts = {"train": train}
    if "held_out" in data:
        parts = dict(zip(("train", "validation"), hold_out(train, data["held_out"]), strict=True))
    return parts | {
        "test": load_dataset("correlated_mnist", **test, **options),
        "truth": load_dataset("correlated_mnist", **test, latents=True, **options),
    }


def build_model(spec: RunSpec) -> MultimodalModel:
    """The untrained model of a run."""
    from repro.datasets.base import specs as modality_specs
    from repro.datasets.card import load_card
    from repro.papers.covae.building import build

    known = modality_specs(load_card(spec.dataset))
    modalities = {m: s for m, s in known.items() if m not in ("z0", "z1")}
    return build(spec.method, modalities, spec.params["model"])


def training_settings(spec: RunSpec, device: str = "cpu") -> TrainingSettings:
    """How a run is trained."""
    from repro.training import TrainingSettings

    return TrainingSettings(**spec.params["training"], device=device)


def figure_samples(model: MultimodalModel, spec: RunSpec, device: str = "cpu") -> dict[str, Tensor]:
    """What the figures draw: images of a fixed rule, terms of the likelihood, correlations of features."""
    from repro.papers.covae.correlated_mnist.samples import image_samples, omics_samples

    data = load_data(spec)["test"]
    make = image_samples if spec.dataset == "correlated_mnist" else omics_samples
    return make(model, data, spec, device)


def evaluate(
    model: MultimodalModel, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu"
) -> Sequence[Metric]:
    """All metrics of a run; see :mod:`repro.papers.covae.correlated_mnist.evaluation` and
    :mod:`repro.papers.covae.omics.evaluation`.
    """
    if spec.dataset == "correlated_mnist":
        from repro.papers.covae.correlated_mnist.evaluation import evaluate_images

        return evaluate_images(model, data, spec, device)
    from repro.papers.covae.omics.evaluation import evaluate_omics

    return evaluate_omics(model, data, spec, device)
