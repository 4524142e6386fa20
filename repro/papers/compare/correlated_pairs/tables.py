"""All models on pairs of correlated MNIST: a table a correlation, what runs take, and the sweep of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from statistics import geometric_mean

from repro.experiment import Results, Rows, artifact
from repro.papers.compare.correlated_pairs.settings import (
    LATENT_DIM,
    LATENTS,
    PROFILES,
    RHOS,
    SCORE_LATENT_DIM,
    SCORED,
    SWEPT,
    pairs_spec,
)
from repro.papers.compare.methods import PAIRS, compared_runs, sweep_runs
from repro.papers.compare.rows import NLL_BOUND, OF_MODELS, Heading, compared_tables, epochs_in_all, sweep_table
from repro.records import Record, RunSpec
from repro.report.tables import Table

__all__ = ["pairs", "sweep"]

LATENT, READ = "Correlation of latents", "Correlation read from images"
HEADINGS: Mapping[str, Heading] = {
    "test/correlation/joint": (LATENT, "joint", None, 3),
    "test/correlation/joint/error": (LATENT, "joint, error", "lower", 3),
    "test/correlation/conditional": (LATENT, "conditional", None, 3),
    "test/correlation/conditional/error": (LATENT, "conditional, error", "lower", 3),
    "test/images/joint": (READ, "joint", None, 3),
    "test/images/joint/error": (READ, "joint, error", "lower", 3),
    "test/images/given-one": (READ, "given one", None, 3),
    "test/images/given-one/error": (READ, "given one, error", "lower", 3),
    "test/spread/conditioning": ("Spread of latents", "observed", None, 3),
    "test/spread/missing": ("Spread of latents", "missing", None, 3),
    "test/coverage/latent": ("Coverage of 90% intervals", "latents", None, 3),
    "test/coverage/mean": ("Coverage of 90% intervals", "mean intensity", None, 3),
    "test/nll/joint": ("NLL", "joint", None, 1),
    "test/nll/conditional/posterior-predictive": ("NLL", "conditional, predictive", None, 1),
    "test/nll/conditional/ratio": ("NLL", "conditional, ratio", None, 1),
    "test/energy/given-one": ("Energy score", "given one", "lower", 3),
    "test/energy/given-both": ("Energy score", "given both", "lower", 3),
    "test/mae/given-one": ("MAE", "given one", "lower", 4),
    "test/mae/given-both": ("MAE", "given both", "lower", 4),
}
_NEIGHBOURS = ("images/joint", "images/given-one", "energy/given-one", "energy/given-both")
FLOORS = {
    "True pairs": {
        **{f"test/correlation/{name}": "test/correlation/true" for name in ("joint", "conditional")},
        **{f"test/images/{name}": "test/images/data" for name in ("joint", "given-one")},
        **{f"test/spread/{name}": f"test/spread/{name}/data" for name in ("conditioning", "missing")},
    },
    "Nearest training pairs": {
        f"test/{name}": f"test/{name}/neighbour" for name in (*_NEIGHBOURS, "mae/given-one", "mae/given-both")
    },
    "Training images at random": {"test/energy/given-one": "test/energy/random"},
    "Mean training image": {"test/mae/given-one": "test/mae/random"},
}
READING = (
    "Test pairs. Correlation of latents (CoVAE, Figure 5): mean canonical correlation of both decoders' inputs, one "
    "sample given both modalities (joint) or one of them, mean over which; of the 16 of score-based models the ten "
    "largest. Where both decoders take the same latents it is 1, whatever the data's. Error: absolute difference from "
    "that of the latents that the test pairs were drawn from. Correlation read from images: a ridge regression, fitted "
    "on true training images, reads the latents that an image was drawn from; mean over coordinates of the correlation "
    "between what it reads from both images of joint samples, or from a true image and the other, drawn given it. "
    "Its own error lowers it for true pairs too, from which errors are taken. Spread: standard deviation of a "
    "decoder's inputs given one modality (Figure 6) as a share of that over all points, of the observed modality and "
    "of the missing one: 0 and √(1 - ρ²) of the true latents; 1 of latents that a model does not use. "
    "Coverage: of 90% intervals given the other modality, for "
    "latents drawn given both, and for mean intensity. Energy score: of decoder means against the true image, proper, "
    "so that a right mean without spread is not enough; norm over pixels. MAE: of the mean of the same draws. Given "
    "both: what the model's own encoders and decoders reach at best."
)
BOUND = NLL_BOUND + (
    " Predictive: of the mean of "
    "p(x_m | z) over what is inferred from the other modality, as CoVAE (Figure 8; fewer samples of NN-MRF and "
    "SBM-VAE); ratio: ln p(x) - ln p(x_o), the model's true conditional (erratum E16). Both are means over which "
    "modality is given. Fewer samples raise joint and predictive NLLs, and move ratios, which are differences, either "
    "way: SBM-VAE's are not comparable with the others', nor NN-MRF's predictive ones."
)
SCORED_BY = ("validation/energy/given-one", "validation/energy/given-both")


def runs(profile: str, seeds: int | None) -> Rows:
    """Each model at each correlation, with the weight that was chosen for it; rows ``"<method>, rho <value>"``."""
    found = {}
    for rho in RHOS.get(profile, ()):
        own = compared_runs(partial(pairs_spec, rho=rho), profile, seeds, PROFILES)
        found |= {f"{m}, rho {rho:g}": specs for m, specs in own.items()}
    return found


def weights_runs(profile: str, seeds: int | None) -> Rows:
    """Every weight on the part of the training split that is held out, at one correlation, seed 0."""
    return sweep_runs(partial(pairs_spec, rho=SWEPT), profile, seeds, PROFILES, PAIRS)


def score(record: Record) -> float:
    """Geometric mean of the energy scores given one image and given both, on held-out training pairs.

    Given one alone, a model that says nothing of either image would do for MVAE.
    """
    return geometric_mean(record.metric(name).value for name in SCORED_BY)


def shared_notes(spec: RunSpec) -> list[str]:
    """What all models have alike, and what differs.

    Arguments:
        spec: One of the runs.
    """
    training, data, epochs = spec.params["training"], spec.params["data"], epochs_in_all(spec)
    samples = data["train_samples"] - data.get("held_out", 0)
    p = PROFILES[spec.profile]
    tried, deep_cca = p["sweep"], p["deep_cca"]
    own = round(epochs * deep_cca["epochs"] / p["epochs"])
    most = "" if p["patience"] is None else f", each stage until {data['held_out']:,} further pairs' loss has not "
    most += "" if p["patience"] is None else f"improved for {p['patience']} of them, but for Deep CCA"
    return [
        f"The same for all: CoVAE's encoders and decoders of its own experiment ({spec.params['model']['networks']}), "
        f"{samples:,} pairs, {'at most ' if most else ''}{epochs} epochs of all stages together{most} "
        f"({epochs * -(-samples // training['batch_size']):,} steps of at most {training['batch_size']}), AdamW at "
        f"{training['learning_rate']:g}, Gaussian likelihood of unit scale in the loss. No paper compares these "
        "models, so nothing is published.",
        f"Latents: {LATENT_DIM} a modality where each has its own, {SCORE_LATENT_DIM} for the square images of score "
        f"networks, {LATENTS} shared ones else; MMVAE+ and DMVAE {LATENTS // 2} shared and {LATENTS // 2} of each "
        f"modality, as CoVAE has them. Of their epochs, score-based models train autoencoders for {1 - SCORED:.0%}, "
        f"CoVAE its Deep CCA for {own}, in batches of {deep_cca['batch_size']:,} as its paper's canonical "
        f"correlations need. {OF_MODELS}, score models without guidance.",
        f"Weights were chosen at ρ = {SWEPT:g} on {tried['held_out']:,} training pairs, by runs of {tried['epochs']} "
        "epochs on the rest, and serve all correlations.",
    ]


@artifact("correlated-pairs", runs=runs)
def pairs(results: Results) -> list[Table]:
    """All models at each correlation by the measures of CoVAE's Figures 5, 6 and 8, and what their runs take."""
    parts: dict[str, dict[str, list[RunSpec]]] = {}
    for specs in results.runs.values():
        for spec in specs:
            part = parts.setdefault(f", ρ = {spec.params['data']['rho']:g}", {})
            part.setdefault(spec.method, []).append(spec)
    return compared_tables(
        results,
        "All models on pairs of correlated MNIST",
        HEADINGS,
        FLOORS,
        READING,
        sweep="compare-correlated-pairs-sweep",
        planned=weights_runs,
        score=score,
        bound=BOUND,
        shared=shared_notes,
        origin="are those that the sweep of the profile quick chose",
        parts=parts,
    )


@artifact("correlated-pairs-sweep", runs=weights_runs)
def sweep(results: Results) -> Table:
    """What the weights on pairs of correlated MNIST are chosen from."""
    what = (
        "Geometric mean of the energy scores of each image given the other and of both given both, on held-out "
        f"training pairs at ρ = {SWEPT:g}"
    )
    return sweep_table(
        results, PAIRS, "All models on pairs of correlated MNIST: choice of weight", score, what, decimals=3
    )
