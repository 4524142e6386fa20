"""All models on the breast tumours: the comparison, what its runs take, and the sweep of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import geometric_mean

from repro.datasets.card import load_card
from repro.experiment import Results, Rows, artifact
from repro.papers.compare.methods import TUMOURS, compared_runs, sweep_runs
from repro.papers.compare.rows import NLL_BOUND, OF_MODELS, Heading, compared_tables, epochs_in_all, sweep_table
from repro.papers.compare.tumours.settings import (
    CANONICAL,
    CANONICAL_HELD_OUT,
    LATENT_DIM,
    LATENTS,
    PROFILES,
    SCORED,
    VALIDATION,
    tumours_spec,
)
from repro.records import Record, RunSpec
from repro.report.tables import Table

__all__ = ["sweep", "tumours"]

GIVEN = {"mrna-to-mirna": "mRNA→miRNA", "mirna-to-mrna": "miRNA→mRNA"}
BOTH = {"joint/mrna": "mRNA, given both", "joint/mirna": "miRNA, given both"}
NLL = {"mirna-given-mrna": "miRNA given mRNA", "mrna-given-mirna": "mRNA given miRNA"}
HEADINGS: Mapping[str, Heading] = {
    **{
        f"test/classes/{name}": ("Classes given both", label, "higher", 3)
        for name, label in (("accuracy", "accuracy"), ("nmi", "NMI"), ("ari", "ARI"))
    },
    **{f"test/transfer/{name}": ("Accuracy", label, "higher", 3) for name, label in GIVEN.items()},
    **{f"test/mae/{name}": ("MAE", label, "lower", 3) for name, label in (GIVEN | BOTH).items()},
    **{f"test/spearman/{name}": ("Spearman", label, "higher", 3) for name, label in (GIVEN | BOTH).items()},
    "test/nll/joint": ("NLL", "joint", None, 1),
    **{f"test/nll/{name}/posterior-predictive": ("NLL", f"{x}, predictive", None, 1) for name, x in NLL.items()},
    **{f"test/nll/{name}/ratio": ("NLL", f"{x}, ratio", None, 1) for name, x in NLL.items()},
}
TARGETS = {name: name.rpartition("-to-")[2].removeprefix("joint/") for name in (*GIVEN, *BOTH)}
FLOORS = {
    "Nearest training points": {
        f"test/{what}/{name}": f"test/neighbour/{what}/{name}" for what in ("mae", "spearman") for name in TARGETS
    },
    "The classifier on the features": {
        f"test/classes/{name}": f"test/features/classes/{name}" for name in ("accuracy", "nmi", "ari")
    },
    "Training means": {f"test/mae/{name}": f"test/mean/mae/{m}" for name, m in TARGETS.items()},
}
READING = (
    "Test tumours, by CoVAE's measures. Classes: a logistic regression on means of latents given both modalities; "
    "of the mixtures, CoVAE's baselines, those of the shared latents. Accuracy: that classifier trained on means given "
    "one modality, tested on means given the other; CoVAE's are then of the one modality's block, which its Deep CCA "
    "aligns with the other's, those of the models with a block a modality and another prior are of all blocks, the "
    "missing one's at the conditional mean that the prior or the score model gives. MAE, in standard deviations, and "
    "Spearman's coefficient, mean over features: decoder means of 32 draws in the paper profile, averaged. "
    "Given both: what the model's own encoders "
    "and decoders reach at best. Nearest training points: the one nearest in what is given. No true distribution is "
    "known, so there is no row of true data."
)
BOUND = NLL_BOUND + (
    " Predictive: of the mean of p(x_m | z) over what is inferred from the other modality (1,000 samples; 100 of "
    "NN-MRF and SBM-VAE), as CoVAE; ratio: ln p(x) - ln p(x_o), the model's true conditional (erratum E16). Fewer "
    "samples raise joint and predictive NLLs, and move ratios, which are differences, either way: SBM-VAE's are not "
    "comparable with the others', nor NN-MRF's predictive ones."
)
SCORED_BY = tuple(f"validation/mae/{name}" for name in GIVEN)


def runs(profile: str, seeds: int | None) -> Rows:
    """Each model with the weight that was chosen for it."""
    return compared_runs(tumours_spec, profile, seeds, PROFILES)


def weights_runs(profile: str, seeds: int | None) -> Rows:
    """Every weight on the part of the training split that is held out, seed 0."""
    return sweep_runs(tumours_spec, profile, seeds, PROFILES, TUMOURS)


def score(record: Record) -> float:
    """Geometric mean of the MAE of each modality given the other on the validation split."""
    return geometric_mean(record.metric(name).value for name in SCORED_BY)


def shared_notes(spec: RunSpec) -> list[str]:
    """What all models have alike, and what differs.

    Arguments:
        spec: One of the runs.
    """
    training, epochs = spec.params["training"], epochs_in_all(spec)
    samples = load_card(TUMOURS).splits["train"].count or 0
    fitted = samples - round(CANONICAL_HELD_OUT * samples)
    parts = (samples, round((1 - VALIDATION) * samples), fitted)
    steps, fewer, canonical = (-(-n // training["batch_size"]) for n in parts)  # an epoch
    return [
        f"The same for all: CoVAE's encoders and decoders of omics, dropout too, {LATENTS} latents in all "
        f"({3 * LATENT_DIM} of MMVAE+ and DMVAE), {samples} tumours, {epochs} epochs of all stages together "
        f"({epochs * steps:,} steps of at most {training['batch_size']}), AdamW at "
        f"{training['learning_rate']:g}, which falls after {training['plateau']} epochs without progress, Gaussian "
        "likelihood of unit scale in the loss. No paper compares these models, so nothing is published.",
        f"Latents: {LATENT_DIM} a modality where each has its own, {LATENTS} shared ones else; MMVAE+ and DMVAE "
        f"{LATENT_DIM} shared and {LATENT_DIM} of each modality, as CoVAE has them. Of their epochs, score-based "
        f"models train autoencoders for {1 - SCORED:.0%}, CoVAE its Deep CCA for {CANONICAL:.0%}, on the "
        f"{fitted} tumours that its correlations are not taken from ({canonical} instead of {steps} steps an epoch); "
        f"the rate of score models and of Deep CCA does not fall. {OF_MODELS}, score models without guidance.",
        f"Weights were chosen on {VALIDATION:.0%} of each class of the training split, with which the runs of this "
        f"table are trained too, by runs of {epochs} epochs on the rest ({epochs * fewer:,} steps).",
    ]


@artifact("tumours", runs=runs)
def tumours(results: Results) -> list[Table]:
    """All models on the tumours by the measures of CoVAE's Tables 1 to 3, and what their runs take."""
    return compared_tables(
        results,
        "All models on 220 breast tumours",
        HEADINGS,
        FLOORS,
        READING,
        sweep="compare-tumours-sweep",
        planned=weights_runs,
        score=score,
        bound=BOUND,
        shared=shared_notes,
        origin="are those that the sweep of the profile paper chose",
    )


@artifact("tumours-sweep", runs=weights_runs)
def sweep(results: Results) -> Table:
    """What the weights on the tumours are chosen from."""
    what = "Geometric mean of the MAE of each modality given the other, on held-out training tumours"
    return sweep_table(results, TUMOURS, "All models on 220 breast tumours: choice of weight", score, what, decimals=4)
