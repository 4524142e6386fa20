"""GMRF MCVAE's artifacts as files: Markdown and LaTeX for tables, PDF and PNG for figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from repro.papers.gmrf_mcvae.copula.experiment import LABELS
from repro.papers.gmrf_mcvae.experiments import plan
from repro.papers.gmrf_mcvae.images.settings import ARTIFACTS
from repro.records import Record, RunSpec
from repro.report.plain_tables import PlainTable
from repro.report.tables import Table, join_tables

if TYPE_CHECKING:
    from numpy import ndarray

__all__ = ["render", "tables"]

Lookup = Callable[[RunSpec], Record | None]
Samples = Callable[[RunSpec], Mapping[str, "ndarray"]]


def _truth() -> dict[str, ndarray]:
    from repro.datasets import load_dataset

    return {m: x.numpy() for m, x in load_dataset("copula", split="test").data.items()}


def _figure(artifact: str, profile: str, samples: Samples) -> dict[str, bytes]:
    from repro.papers.gmrf_mcvae.copula import figures
    from repro.report.plotting import render as draw

    rows = plan(artifact, profile)
    if artifact == "fig6":
        figure = figures.mvae_seeds(_truth(), {spec.seed: samples(spec) for spec in rows["mvae"]})
    else:
        function = figures.joint_scatter if artifact == "fig2" else figures.marginals
        figure = function(_truth(), {LABELS[m]: samples(specs[0]) for m, specs in rows.items()})
    return {suffix: draw(figure, suffix) for suffix in ("pdf", "png")}


def _image_figure(artifact: str, profile: str, samples: Samples) -> dict[str, bytes]:
    """Figures 3 and 4."""
    from repro.papers.gmrf_mcvae.images import figures as image_figures
    from repro.report.plotting import render as draw

    rows = plan(artifact, profile)
    models = {LABELS[m]: samples(specs[0]) for m, specs in rows.items()}
    condition = next(iter(rows.values()))[0].params["evaluation"]["condition"]
    if artifact == "fig3":
        figure = image_figures.conditional_digits(models, condition)
    else:
        generated = (n for n in next(iter(models.values())) if n.startswith("generated/"))
        figure = image_figures.bicycles(models, condition, [n.removeprefix("generated/") for n in generated])
    return {suffix: draw(figure, suffix) for suffix in ("pdf", "png")}


def _scaling(profile: str, lookup: Lookup) -> dict[str, bytes]:
    from repro.papers.gmrf_mcvae.images import figures as image_figures
    from repro.papers.gmrf_mcvae.scaling import tables as scaling_tables
    from repro.report.plotting import render as draw

    costs = scaling_tables.costs(profile, lookup)
    figure = image_figures.scaling(costs.components, costs.seconds, costs.megabytes)
    return {suffix: draw(figure, suffix) for suffix in ("pdf", "png")}


def tables(
    artifact: str, profile: str, *, seeds: int | None, lookup: Lookup, rename: Mapping[str, str] | None = None
) -> Sequence[Table | PlainTable]:
    """An artifact's tables from records, none for what is drawn alone; arguments as :func:`render`'s.

    Raises:
        KeyError: If the room has no such table.
    """
    if artifact.startswith("fig"):
        return ()
    if artifact == "scaling":
        from repro.papers.gmrf_mcvae.scaling import tables as scaling_tables

        return scaling_tables.scaling(profile, lookup)
    if artifact in ARTIFACTS:
        from repro.papers.gmrf_mcvae.images import tables as image_tables

        if artifact == "table2":
            return image_tables.table2(profile, seeds, lookup, rename)
        if artifact == "table2-ablations":
            from repro.papers.gmrf_mcvae.images.ablations import ablations

            return [ablations(profile, seeds, lookup)]
        if artifact == "table2-sweep":
            from repro.papers.gmrf_mcvae.images.ablations import sweep

            return [sweep(profile, lookup)]
        return [image_tables.table3(artifact, profile, seeds, lookup)]
    if artifact.startswith("table1"):
        from repro.papers.gmrf_mcvae.copula import tables as copula

        if artifact == "table1":
            return copula.table1(profile, seeds, lookup, rename)
        if artifact == "table1-sweep":
            return copula.sweep(profile, lookup)
        own = {"ablations": copula.ablations, "baselines": copula.baselines, "finalists": copula.finalists}
        return [own[artifact.removeprefix("table1-")](profile, lookup)]
    from repro.papers.gmrf_mcvae.architecture import tables as architecture

    found = [getattr(architecture, artifact)()]
    return [*found, architecture.capacities()] if artifact == "table9" else found


def render(
    artifact: str,
    profile: str,
    *,
    seeds: int | None,
    lookup: Lookup,
    samples: Samples,
    rename: Mapping[str, str] | None = None,
) -> Mapping[str, str | bytes]:
    """An artifact's files, suffix to content.

    Arguments:
        artifact: Its id within the paper.
        profile: The profile of the records.
        seeds: Number of seeds; the profile's if None.
        lookup: A run's record, None if there is none; all that the artifact's plan names are there.
        samples: A run's stored samples, modality to ``(N, 2)``, or name to pictures.
        rename: Method label to another paper's label for it.

    Raises:
        KeyError: If the paper has no such artifact.
    """
    if artifact.startswith("fig"):
        return (_image_figure if artifact in ARTIFACTS else _figure)(artifact, profile, samples)
    found = tables(artifact, profile, seeds=seeds, lookup=lookup, rename=rename)
    return join_tables(found, f"tab:gmrf-{artifact}") | (_scaling(profile, lookup) if artifact == "scaling" else {})
