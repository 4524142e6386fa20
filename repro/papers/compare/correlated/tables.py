"""The comparison's table, one a correlation of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from repro.experiment import Results, Rows, artifact
from repro.papers.compare.correlated.settings import BETAS, LABELS, LATENTS, PROFILES, RHOS, compare_spec
from repro.papers.compare.methods import PAIRS, chosen_weights
from repro.records import Record, provenance
from repro.report.cells import Cell
from repro.report.tables import Column, Row, Table

__all__ = ["correlated", "correlated_table"]

# Key to (group, heading, what is better, decimals, the data's own metric in a model's place).
COLUMNS: dict[str, tuple[str, str, str | None, int, str]] = {
    "latents/joint": ("Correlation of latents", "joint", None, 3, "latents/data"),
    "latents/given-one": ("Correlation of latents", "given one", None, 3, "latents/data"),
    "images/joint": ("Correlation read from images", "joint", None, 3, "images/data"),
    "images/given-one": ("Correlation read from images", "given one", None, 3, "images/data"),
    "images/given-two": ("Correlation read from images", "given two", None, 3, "images/data"),
    "frechet/joint": ("Fréchet distance", "joint", "lower", 2, "frechet/data"),
    "frechet/given-one": ("Fréchet distance", "given one", "lower", 2, "frechet/data"),
    "mae/given-one": ("MAE", "given one", "lower", 4, "mae/data"),
    "mae/given-two": ("MAE", "given two", "lower", 4, "mae/data"),
}
DATA = "True images"


def _cell(records: Sequence[Record], name: str) -> Cell:
    values = [m.value for r in records for m in r.metrics if m.name == f"test/{name}"]
    reason = "the model has no decoders whose inputs could be read" if records else "not run"
    return Cell(None, values) if values else Cell(None, (), reason)


def _notes(records: Mapping[str, Sequence[Record]]) -> list[str]:
    known = {m: found[0] for m, found in records.items() if found}
    first = next(iter(known.values()))
    training, data, evaluation = (first.spec.params[k] for k in ("training", "data", "evaluation"))
    sizes = [f"{LABELS[m]} {r.metric('model/parameters').value / 1000:,.0f}" for m, r in known.items()]
    notes = [
        f"All: the same encoders and decoders of CoVAE's experiments ({first.spec.params['model']['networks']}), "
        f"{data['train_samples']:,} triples, {training['epochs']} epochs, batch {training['batch_size']}, AdamW at "
        f"{training['learning_rate']:g}; Gaussian likelihood of unit variance, summed over pixels. No paper compares "
        "these models, so nothing is published.",
        "What differs: latents a modality "
        + ", ".join(f"{LABELS[m]} {LATENTS[m]}" for m in known)
        + " (a square number for the score network's images); β "
        + ", ".join(f"{LABELS[m]} {BETAS[m]:g}" for m in known)
        + "; CoVAE has a joint encoder and a first stage of Deep CCA, GMRF MCVAE a global encoder, SBM-VAE a second "
        f"stage for its score model. Trained parameters in thousands: {', '.join(sizes)}.",
        "CoVAE's and SBM-VAE's β are their papers'; GMRF MCVAE's is CoVAE's, for its own paper states one without the "
        "scale of the likelihood (erratum M3). None was chosen on these data, so that differences between the rows may "
        "be β's: on "
        f"pairs of them the choice takes {', '.join(f'{LABELS[m]} {chosen_weights(PAIRS)[m]:g}' for m in known)} "
        "(`compare-correlated-pairs-sweep`).",
    ]
    if (score := known.get("sbm_vae")) is not None:
        stage, sampling = score.spec.params["training"]["stages"]["score"], score.spec.params["evaluation"]["sampling"]
        notes.append(
            f"SBM-VAE: {stage['epochs']} epochs of the score model, batch {stage['batch_size']}, rate "
            f"{stage['learning_rate']:g}; sampler {sampling['sampler']}, {sampling['num_steps']} steps, no guidance."
        )
    readout = first.metric("test/readout/determination").value
    notes += [
        "Correlation of latents: mean of the ten largest canonical correlations of two decoders' inputs, one sample "
        "given all modalities (joint) or one of them; SBM-VAE's observed latents are posterior means. Mean over pairs.",
        "Correlation read from images: a ridge regression, fitted on true training images, reads the latents that an "
        f"image was drawn from (R² {readout:.2f} on true test images); the mean over coordinates and pairs of the "
        "correlation between what it reads from two generated images (joint), or from an observed and a generated one. "
        "The regression's own error lowers it for true images too: the last row is what a perfect model has.",
        "Fréchet distance: features of the digit classifier of MNIST, against true test images. MAE: absolute error "
        f"of the mean of {evaluation['draws']} samples, intensities in [0, 1].",
        "Last row: the canonical correlation of the true latents; what is read from true test images; the distance of "
        "as many training images; the error of the mean training image.",
    ]
    return notes


def correlated_table(profile: str, rho: float, records: Mapping[str, Sequence[Record]]) -> Table:
    """The table at one correlation of the data.

    Arguments:
        profile: The profile of the records.
        rho: The data's correlation.
        records: Method to a record for each seed, in the order of the rows.

    Raises:
        ValueError: If there is no record at all.
    """
    found = [r for rs in records.values() for r in rs]
    if not found:
        raise ValueError(f"no records at rho {rho:g} in the profile {profile!r}")
    rows = [Row(LABELS[m], {k: _cell(rs, k) for k in COLUMNS}) for m, rs in records.items()]
    reference = next(rs for rs in records.values() if rs)  # the data's values are the same in every run
    floor = Row(DATA, {k: _cell(reference[:1], c[4]) for k, c in COLUMNS.items()})
    columns = [Column(k, label, better, decimals, group) for k, (group, label, better, decimals, _) in COLUMNS.items()]
    caption = f"Correlated MNIST of three modalities, ρ = {rho:g} between every two"
    return Table(caption, provenance(found), columns, rows, floors=[floor], notes=_notes(records))


def runs(profile: str, seeds: int | None) -> Rows:
    """Each model at each correlation."""
    number = PROFILES[profile]["seeds"] if seeds is None else seeds
    return {
        f"{label}, rho {rho:g}": [compare_spec(method, seed, profile, rho) for seed in range(number)]
        for rho in RHOS[profile]
        for method, label in LABELS.items()
    }


@artifact("correlated", runs=runs)
def correlated(results: Results) -> list[Table]:
    """CoVAE beside GMRF MCVAE and SBM-VAE, one table for each correlation."""
    found: dict[float, dict[str, list[Record]]] = {rho: {m: [] for m in LABELS} for rho in RHOS[results.profile]}
    for _, records in results:
        for record in records:
            found[record.spec.params["data"]["rho"]][record.spec.method].append(record)
    return [correlated_table(results.profile, rho, records) for rho, records in found.items()]
