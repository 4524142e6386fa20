"""All models on PolyMNIST of three modalities: the comparison, and the sweep of the weights."""

from __future__ import annotations

from collections.abc import Mapping

from repro.experiment import Results, Rows, artifact
from repro.papers.compare.alike import CANONICAL, SCORED, private_latents
from repro.papers.compare.digit_scores import FEWEST, FRECHET, collapsed, digit_score
from repro.papers.compare.methods import POLYMNIST, compared_runs, sweep_runs
from repro.papers.compare.polymnist.settings import MODALITIES, PROFILES, polymnist_spec
from repro.papers.compare.rows import NLL_BOUND, OF_MODELS, Heading, compared_tables, epochs_in_all, sweep_table
from repro.records import Record, RunSpec
from repro.report.tables import Table

__all__ = ["polymnist", "polymnist_sweep"]

# Task to how its columns are headed.
TASKS = {"unconditional": "Joint", "given-one": "Given one modality", "given-rest": "Given two modalities"}
RECONSTRUCTED = "Given all three"


def _headings() -> dict[str, Heading]:
    found: dict[str, Heading] = {}
    for task, group in TASKS.items():
        found[f"test/{task}/coherence"] = (group, "coherence", "higher", 3)
        if task == "unconditional":
            found[f"test/{task}/digits"] = (group, "digits seen", None, 0)
        found[f"test/{task}/{FRECHET}"] = (group, "Fréchet distance", "lower", 1)
    found["test/reconstruction/accuracy"] = (RECONSTRUCTED, "digit kept", "higher", 3)
    found[f"test/reconstruction/{FRECHET}"] = (RECONSTRUCTED, "Fréchet distance", "lower", 1)
    return found | {"test/nll/joint": ("NLL", "joint", None, 1)}


HEADINGS: Mapping[str, Heading] = _headings()
FLOORS = {
    "True images": {
        "test/unconditional/coherence": "test/true/coherence",
        f"test/unconditional/{FRECHET}": f"test/true/{FRECHET}",
        "test/given-one/coherence": "test/true/accuracy",
        "test/given-rest/coherence": "test/true/accuracy",
        "test/reconstruction/accuracy": "test/true/accuracy",
    },
    "Nearest training images": {
        f"test/{task}/{name}": f"test/nearest/{task}/{name}"
        for task in ("given-one", "given-rest")
        for name in ("coherence", FRECHET)
    },
}
READING = (
    "Joint coherence: share of samples of the prior whose three modalities all show the same digit, as the classifier "
    "of Extended PolyMNIST sees them, of a model that has collapsed too, which the number of digits seen tells. Given "
    "one or two modalities: share of generated images that show the digit of what is observed, one sample a test "
    "point, mean over what is observed and generated. Fréchet distance: of the classifier's hidden activations, to "
    "as many true test images, decoder means; mean over what is generated. Given all three: what the model's own "
    "encoders and decoders reach at best. True images: what the classifier sees in true ones, and the distance of the "
    "validation split's. Nearest training images: those of the training point that is nearest in the pixels of what "
    "is given."
)
WHAT = (
    "Geometric mean, over joint samples and those given one and given two modalities, of the Fréchet distance over "
    "coherence, on the validation split; the joint coherence of samples that show fewer than ten digits counts as "
    f"{FEWEST:g}, the least"
)
CAPTION = "All models on PolyMNIST of three modalities"


def runs(profile: str, seeds: int | None) -> Rows:
    """Each model with the weight that was chosen for it."""
    return compared_runs(polymnist_spec, profile, seeds, PROFILES)


def weights_runs(profile: str, seeds: int | None) -> Rows:
    """Every weight on the validation split, seed 0."""
    return sweep_runs(polymnist_spec, profile, seeds, PROFILES, POLYMNIST)


def score(record: Record) -> float:
    """Geometric mean over the three tasks of Fréchet distance over coherence on the validation split."""
    return digit_score(record, tuple(TASKS))


def shared_notes(spec: RunSpec) -> list[str]:
    """What all models have alike, and what differs.

    Arguments:
        spec: One of the runs.
    """
    training, data, epochs = spec.params["training"], spec.params["data"], epochs_in_all(spec)
    p = PROFILES[spec.profile]
    samples, number, latents = data["train_samples"], len(MODALITIES), p["latent_dim"]
    private, tried, canonical = private_latents(latents, number), p["sweep"], p["canonical"]
    widths = " and ".join(str(w) for w in p["networks"]["widths"])
    most = "" if p["patience"] is None else ", each stage until the validation split's loss has not improved for "
    most += "" if p["patience"] is None else f"{p['patience']} of them, but for Deep CCA"
    return [
        "The first three modalities of Extended PolyMNIST. The same for all: residual encoders and decoders of "
        f"{widths} channels, as GMRF MCVAE has them on PolyMNIST, {number * latents} latents in all, {samples:,} "
        f"samples, {'at most ' if most else ''}{epochs} epochs of all stages together{most} "
        f"({epochs * -(-samples // training['batch_size']):,} steps of at most {training['batch_size']}), Adam at "
        f"{training['learning_rate']:g}, Gaussian likelihood of unit scale in the loss. No paper compares these "
        "models, so nothing is published.",
        f"Latents: {latents} a modality where each has its own, {number * latents} shared ones else; MMVAE+ and DMVAE "
        f"{private['latent_dim']} shared and {private['specific_dim']} of each modality. Of their epochs, score-based "
        f"models train autoencoders for {1 - SCORED:.0%}, CoVAE its Deep CCA for {max(1, round(CANONICAL * epochs))}, "
        f"in batches of {canonical['batch_size']:,}, as canonical correlations need, on "
        f"{1 - canonical['held_out']:.0%} of the samples. {OF_MODELS} and with the Gaussian of its "
        "conditional's moments (erratum E4), score models without guidance.",
        f"Weights were chosen on {tried['num_samples']:,} samples of the validation split, of runs of "
        f"{tried['epochs']} epochs on {tried['train_samples']:,} training samples.",
    ]


@artifact("polymnist", runs=runs)
def polymnist(results: Results) -> list[Table]:
    """All models by coherence and Fréchet distance, given nothing, one and two modalities, and what runs take."""
    return compared_tables(
        results,
        CAPTION,
        HEADINGS,
        FLOORS,
        READING,
        sweep="compare-polymnist-sweep",
        planned=weights_runs,
        score=score,
        bound=NLL_BOUND,
        shared=shared_notes,
        origin="are those that the sweep of the profile quick chose",
        caveats=collapsed,
    )


@artifact("polymnist-sweep", runs=weights_runs)
def polymnist_sweep(results: Results) -> Table:
    """What the weights are chosen from."""
    return sweep_table(results, POLYMNIST, f"{CAPTION}: choice of weight", score, WHAT, decimals=1)
