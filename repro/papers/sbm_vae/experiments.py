"""What SBM-VAE's artifacts run, and how each run is built, trained and measured.

Importing this module needs no torch; building, loading and evaluating do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repro.papers.sbm_vae.celeba import experiment as celeba
from repro.papers.sbm_vae.mhd import experiment as mhd
from repro.papers.sbm_vae.settings import ABLATIONS, LABELS, METHODS, PROFILES, ROW_CHANGES, ROWS, sbm_spec
from repro.papers.sbm_vae.timing import experiment as timing
from repro.records import Metric, RunSpec

if TYPE_CHECKING:
    from torch import Tensor

    from repro.datasets import Dataset
    from repro.model import TrainableModel
    from repro.training import TrainingSettings

__all__ = [
    "build_model",
    "estimate",
    "evaluate",
    "figure_samples",
    "load_data",
    "plan",
    "training_settings",
]

# Artifacts that show the comparison's own runs; those of a list show the methods named.
COMPARISON = ("table5", "fig5", "fig8", "fig9", "fig11", "fig12", "fig13", "fig14", "fig15", "fig20")
SAMPLE_FIGURES = ("fig3", "fig4", "fig23", "fig24", "fig25", "fig26")
COUNTS = {
    "paper": tuple(range(2, 11)),
    "overnight": (2, 3, 4, 5),
    "quick": (2, 3),
    "smoke": (2, 3),
}  # numbers of trained modalities
BETAS = {"table6": ("sbm_vae", (0.1, 0.5, 1.0)), "fig16": ("mmvae_plus", (0.1, 0.5, 1.0, 2.5, 5.0))}
BETAS |= {"fig17": BETAS["fig16"], "fig18": ("mvtcae", (0.1, 0.5, 1.0, 2.5, 5.0))}
BETAS |= {"fig19": BETAS["fig18"]}
DROPS = (0.3, 0.5, 0.7)  # figures 21 and 22
PLAIN = ("fig2", "table4", "table10")
OTHERS = {"celebamask_hq": celeba, "mhd": mhd}  # datasets that have settings, data and measures of their own

# Seconds of one core for 1,000 images of one modality (autoencoders, baselines) or 1,000 samples (score, energy), and
# for 1,000 evaluations, measured in the reduced widths; the paper's networks take this many times more.
SECONDS = {"autoencoders": 1.3, "contrastive": 1.3, "score": 1.9, "energy": 0.3, "train": 1.5, "finetune": 12.0}
SECONDS_EVALUATION, WIDER = 0.8, 20.0
PEAK_MEGABYTES = 2500


def _rows(profile: str, number: int, **changes: Any) -> dict[str, list[RunSpec]]:
    """Each row's runs; rows of one run, with and without guidance, name the same ones."""
    rows = PROFILES[profile]["rows"]
    if "modalities" in changes:
        rows = PROFILES[profile].get("count_rows", rows)
    return {
        row: [sbm_spec(ROWS[row][0], seed, profile, **changes, **ROW_CHANGES.get(row, {})) for seed in range(number)]
        for row in rows
    }


def plan(artifact: str, profile: str, seeds: int | None = None) -> dict[str, list[RunSpec]]:
    """The runs that an artifact is rendered from, by row.

    Arguments:
        artifact: Its id within the paper, such as ``"table5"``.
        profile: The profile.
        seeds: How many seeds, from 0 on; the profile's number if None.

    Raises:
        KeyError: If the artifact needs no runs of this paper.
    """
    for other in OTHERS.values():
        if artifact in other.ARTIFACTS:
            return other.plan(artifact, profile, seeds)
    if artifact == timing.ARTIFACT:
        return timing.plan(profile)
    number = PROFILES[profile]["seeds"] if seeds is None else seeds
    if artifact in COMPARISON:
        return _rows(profile, number)
    if artifact in SAMPLE_FIGURES:
        return _rows(profile, 1)
    if artifact in ("fig6", "fig7"):
        found = {}
        for count in COUNTS[profile]:
            for row, runs in _rows(profile, number, modalities=count).items():
                found[f"{row}, {count} modalities"] = runs
        return found
    if artifact in BETAS:
        method, betas = BETAS[artifact]
        count = {"modalities": 2} if artifact == "table6" else {}
        ways: dict[str, Mapping[str, Any]] = {"": {}}
        if method == "mvtcae":
            ways[", alpha 0.1"] = ROW_CHANGES["MVTCAE, alpha 0.1"]
        return {
            f"{b:g}{way}": [sbm_spec(method, s, profile, beta=b, **count, **changes) for s in range(number)]
            for way, changes in ways.items()
            for b in betas
        }
    if artifact == "table5-ablations":
        return {row: [sbm_spec(m, 0, profile, **changed)] for row, (m, changed) in ABLATIONS.items()}
    if artifact == "table7":
        methods = {"SBM-VAE-C": "sbm_vae"}
        return {row: [sbm_spec(m, s, profile) for s in range(number)] for row, m in methods.items()}
    if artifact in ("fig21", "fig22"):
        none = {"SBM-VAE": [sbm_spec("sbm_vae", s, profile, beta=0.5) for s in range(number)]}
        tuned = {
            f"SBM-VAE-p{p:g}".replace(".", ""): [
                sbm_spec("sbm_vae", s, profile, beta=0.5, finetune_drop=p) for s in range(number)
            ]
            for p in DROPS
        }
        return none | tuned
    if artifact == "fig-nfe":
        return {LABELS[m]: [sbm_spec(m, s, profile) for s in range(number)] for m in ("sbm_vae",)}
    if artifact in PLAIN:
        return {}
    raise KeyError(artifact)


def estimate(spec: RunSpec) -> tuple[float, float]:
    """Seconds on one core and peak megabytes of a run, from seconds measured in the quick profile."""
    if spec.dataset in OTHERS:
        return OTHERS[spec.dataset].estimate(spec)
    if timing.is_timing(spec):
        return timing.estimate(spec)
    training, data = spec.params["training"], spec.params["data"]
    evaluation, modalities = spec.params["evaluation"], data["modalities"]
    train = (data["train_samples"] or 50_000) / 1000
    test = (evaluation["num_samples"] or 10_000) / 1000
    stages = training.get("stages") or {"train": {"epochs": training["epochs"]}}
    seconds = 0.0
    for name, own in stages.items():
        images = modalities if name in ("autoencoders", "contrastive", "train") else 1
        seconds += SECONDS[name] * images * train * own["epochs"]
    if spec.method in METHODS:
        ways = 2 if spec.params["model"]["energy"] else 1
        steps = evaluation["sampling"]["num_steps"] * (2 if "corrector" in evaluation["sampling"]["sampler"] else 1)
        tasks = 1 + ways * (2 * modalities + 2 * (modalities - 2))
        seconds += SECONDS_EVALUATION * test * steps * tasks
        each = sum(n * (2 if name in ("predictor_corrector", "heun") else 1) for name, n in evaluation["nfe"])
        seconds += SECONDS_EVALUATION * 2 * each * evaluation["curve_samples"] / 1000
        curves = ways * (modalities - 1)  # figure 11, at two evaluations a step
        seconds += SECONDS_EVALUATION * 2 * sum(evaluation["steps"]) * curves * evaluation["steps_samples"] / 1000
    wide = WIDER if spec.profile == "paper" else 1.0
    return wide * seconds + 40.0, PEAK_MEGABYTES * (4.0 if spec.profile == "paper" else 1.0)


def load_data(spec: RunSpec) -> dict[str, Dataset]:
    """The splits that a run uses."""
    if spec.dataset == "celebamask_hq":
        from repro.papers.sbm_vae.celeba.models import load_faces

        return load_faces(spec)
    if spec.dataset == "mhd":
        from repro.papers.sbm_vae.mhd.evaluation import load_mhd

        return load_mhd(spec)
    if timing.is_timing(spec):
        return timing.load_data(spec)
    from repro.papers.sbm_vae.building import load

    return load(spec)


def build_model(spec: RunSpec) -> TrainableModel:
    """The untrained model of a run, beside the supervised network that it is measured with where it has one."""
    if spec.dataset == "celebamask_hq":
        from repro.papers.sbm_vae.celeba.models import build_faces

        return build_faces(spec)
    if spec.dataset == "mhd":
        from repro.papers.sbm_vae.mhd.evaluation import build_mhd

        return build_mhd(spec)
    if timing.is_timing(spec):
        return timing.build_model(spec)
    from repro.papers.sbm_vae.building import build

    return build(spec)


def training_settings(spec: RunSpec, device: str = "cpu") -> TrainingSettings:
    """How a run is trained."""
    from repro.training import TrainingSettings

    return TrainingSettings(**spec.params["training"], device=device)


def figure_samples(model: TrainableModel, spec: RunSpec, device: str = "cpu") -> dict[str, Tensor]:
    """What the qualitative figures show; see :mod:`repro.papers.sbm_vae.polymnist.samples`."""
    if timing.is_timing(spec):
        return {}
    from repro.papers.sbm_vae.polymnist.samples import draw_samples

    return draw_samples(model, load_data(spec)["test"], spec, device)


def evaluate(
    model: TrainableModel, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu"
) -> Sequence[Metric]:
    """All metrics of a run; see the modules :mod:`~repro.papers.sbm_vae.polymnist.evaluation` of its dataset."""
    if spec.dataset == "celebamask_hq":
        from repro.papers.sbm_vae.celeba.evaluation import evaluate_faces

        return evaluate_faces(model, data, spec, device)
    if spec.dataset == "mhd":
        from repro.papers.sbm_vae.mhd.evaluation import evaluate_mhd

        return evaluate_mhd(model, data, spec, device)
    if timing.is_timing(spec):
        return timing.measure(model, data, spec, device)
    from repro.papers.sbm_vae.polymnist.evaluation import evaluate_polymnist

    return evaluate_polymnist(model, data, spec, device)
