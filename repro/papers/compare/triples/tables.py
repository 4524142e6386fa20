"""All models on MNIST triples: a comparison and a sweep of the weights for each reading of what the first two show."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from repro.experiment import Results, Rows, artifact
from repro.papers.compare.alike import CANONICAL, SCORED
from repro.papers.compare.digit_scores import FEWEST, FRECHET, collapsed, digit_score
from repro.papers.compare.methods import compared_runs, sweep_runs
from repro.papers.compare.rows import NLL_BOUND, OF_MODELS, Heading, compared_tables, epochs_in_all, sweep_table
from repro.papers.compare.triples.settings import (
    LATENT_DIM,
    PRIVATE,
    PROFILES,
    SHARED,
    WEIGHTS_OF,
    triples_spec,
)
from repro.papers.mrf_mvae.triples.readings import ALIKE
from repro.records import Record, RunSpec
from repro.report.tables import Table

__all__ = ["digits", "digits_sweep", "triples", "triples_sweep"]

JOINT, GIVEN, RECONSTRUCTED = "Joint", "Given one of the first two", "Given all three"
TASKS = ("unconditional", "conditional")
HEADINGS: Mapping[str, Heading] = {
    "test/unconditional/coherence": (JOINT, "coherence", "higher", 3),
    "test/unconditional/digits": (JOINT, "digits seen", None, 0),
    f"test/unconditional/{FRECHET}": (JOINT, "Fréchet distance", "lower", 1),
    "test/conditional/coherence": (GIVEN, "coherence", "higher", 3),
    f"test/conditional/{FRECHET}": (GIVEN, "Fréchet distance", "lower", 1),
    "test/reconstruction/coherence": (RECONSTRUCTED, "digit kept", "higher", 3),
    f"test/reconstruction/{FRECHET}": (RECONSTRUCTED, "Fréchet distance", "lower", 1),
    "test/nll/joint": ("NLL", "joint", None, 1),
}
FLOORS = {
    "True triples": {
        "test/unconditional/coherence": "test/true/coherence",
        f"test/unconditional/{FRECHET}": f"test/true/{FRECHET}",
        "test/conditional/coherence": "test/true/accuracy",
        "test/reconstruction/coherence": "test/true/accuracy",
    },
    "Nearest training triples": {
        f"test/conditional/{name}": f"test/nearest/conditional/{name}" for name in ("coherence", FRECHET)
    },
}
READING = (
    "Coherence and Fréchet distances are those of MRF MVAE's Table 4 with the same classifier. Joint coherence: share "
    "of samples of the prior whose first two modalities show the same digit, of a model that has collapsed too, which "
    "the number of digits seen tells. Given one of the first two: share of test triples for which the other one shows "
    "the observed one's digit, mean of both directions. The third modality is free. Fréchet distance: of the "
    "classifier's 128 hidden activations, to as many true test triples, decoder means; mean over modalities, of those "
    "that are generated. Given all three: what the model's own encoders and decoders reach at best. True triples: what "
    "the classifier sees in true ones, and their distance to as many of training. Nearest training triples: the one "
    "nearest in the pixels of what is given."
)
WHAT = (
    "Geometric mean, over joint samples and those given one of the first two, of the Fréchet distance over coherence, "
    "on held-out training triples; the joint coherence of samples that show fewer than ten digits counts as "
    f"{FEWEST:g}, the least"
)


def runs(profile: str, seeds: int | None, alike: str) -> Rows:
    """Each model with the weight that was chosen for it in a reading."""
    return compared_runs(partial(triples_spec, alike=alike), profile, seeds, PROFILES)


def weights_runs(profile: str, seeds: int | None, alike: str) -> Rows:
    """Every weight in a reading on the part of the training split that is held out, seed 0."""
    return sweep_runs(partial(triples_spec, alike=alike), profile, seeds, PROFILES, WEIGHTS_OF[alike])


def score(record: Record) -> float:
    """Geometric mean over both tasks of Fréchet distance over coherence on held-out triples."""
    return digit_score(record, TASKS)


def shared_notes(spec: RunSpec) -> list[str]:
    """What all models have alike, and what differs.

    Arguments:
        spec: One of the runs.
    """
    training, data, epochs = spec.params["training"], spec.params["data"], epochs_in_all(spec)
    samples = data["train_samples"] - data["held_out"]
    p = PROFILES[spec.profile]
    tried, canonical, widths = p["sweep"], p["canonical"], " and ".join(str(w) for w in p["widths"])
    most = "" if p["patience"] is None else f", each stage until {data['held_out']:,} further triples' loss has not "
    most += "" if p["patience"] is None else f"improved for {p['patience']} of them, but for Deep CCA"
    return [
        f"The same for all: CoVAE's fully connected encoders and decoders, hidden layers of {widths}, {SHARED} latents "
        f"in all, {samples:,} triples, {'at most ' if most else ''}{epochs} epochs of all stages together{most} "
        f"({epochs * -(-samples // training['batch_size']):,} steps of at most {training['batch_size']}), Adam at "
        f"{training['learning_rate']:g}, Gaussian likelihood of unit scale in the loss. No paper compares these "
        "models, so nothing is published.",
        f"Latents: {LATENT_DIM} a modality where each has its own, {SHARED} shared ones else; MMVAE+ and DMVAE "
        f"{PRIVATE['latent_dim']} shared and {PRIVATE['specific_dim']} of each modality. Of their epochs, score-based "
        f"models train autoencoders for {1 - SCORED:.0%}, CoVAE its Deep CCA for {max(1, round(CANONICAL * epochs))}, "
        f"in batches of {canonical['batch_size']:,}, as canonical correlations need, on "
        f"{1 - canonical['held_out']:.0%} of the triples. {OF_MODELS} and with the Gaussian of its "
        "conditional's moments (erratum E4), score models without guidance.",
        f"Weights were chosen on {tried['held_out']:,} training triples that the sweep's runs, of {tried['epochs']} "
        f"epochs on {tried['train_samples'] - tried['held_out']:,}, are not trained on; their images occur in other "
        "triples, in another modality.",
    ]


def _caption(alike: str) -> str:
    return f"All models on MNIST triples, of which the first two show {ALIKE[alike]}"


def _compared(results: Results, alike: str, sweep: str) -> list[Table]:
    return compared_tables(
        results,
        _caption(alike),
        HEADINGS,
        FLOORS,
        READING,
        sweep=sweep,
        planned=partial(weights_runs, alike=alike),
        score=score,
        bound=NLL_BOUND,
        shared=shared_notes,
        origin="are those that the sweep of the profile quick chose",
        caveats=collapsed,
    )


def _swept(results: Results, alike: str) -> Table:
    return sweep_table(results, WEIGHTS_OF[alike], f"{_caption(alike)}: choice of weight", score, WHAT, decimals=1)


@artifact("triples", runs=partial(runs, alike="image"))
def triples(results: Results) -> list[Table]:
    """All models by the measures of MRF MVAE's Table 4, the first two showing the same image, and what runs take."""
    return _compared(results, "image", "compare-triples-sweep")


@artifact("digits", runs=partial(runs, alike="digit"))
def digits(results: Results) -> list[Table]:
    """The same by the other reading: the first two show two images of one digit."""
    return _compared(results, "digit", "compare-digits-sweep")


@artifact("triples-sweep", runs=partial(weights_runs, alike="image"))
def triples_sweep(results: Results) -> Table:
    """What the weights are chosen from where the first two show the same image."""
    return _swept(results, "image")


@artifact("digits-sweep", runs=partial(weights_runs, alike="digit"))
def digits_sweep(results: Results) -> Table:
    """What the weights are chosen from where the first two show two images of one digit."""
    return _swept(results, "digit")
