"""MRF MVAE's artifacts as files: Markdown and LaTeX for tables, PDF and PNG for figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repro.papers.mrf_mvae.experiments import plan
from repro.papers.mrf_mvae.triples.experiment import LABELS
from repro.records import Record, RunSpec
from repro.report.plain_tables import PlainTable
from repro.report.tables import Table, join_tables

if TYPE_CHECKING:
    from numpy import ndarray

__all__ = ["render", "tables"]

GIVEN = {"fig7": "m0", "fig8": "m1"}


def _grouped(samples: Mapping[str, ndarray]) -> dict[str, dict[str, ndarray]]:
    """``"<group>.<modality>"`` to group to modality."""
    found: dict[str, dict[str, ndarray]] = {}
    for name, images in samples.items():
        group, modality = name.split(".")
        found.setdefault(group, {})[modality] = images
    return found


def _figure9(profile: str, lookup: Callable[[RunSpec], Record | None], samples: Any) -> Any:
    from repro.papers.mrf_mvae.triples.figures import SYMBOLS, image_blocks

    ((spec,),) = plan("fig9", profile, 1).values()
    record, groups = lookup(spec), _grouped(samples(spec))
    own = [record.metric(f"test/{task}/coherence").value for task in ("unconditional", "conditional")]
    blocks = {"Test triples": {SYMBOLS[m]: x for m, x in groups["true"].items()}}
    for observed in GIVEN.values():
        rows = {f"{SYMBOLS[m]} ({'rec.' if m == observed else 'gen.'})": x for m, x in groups[observed].items()}
        blocks[f"Given {SYMBOLS[observed]}"] = rows
    text = f"NN-MRF MVAE, beta 0.0085, seed 0: coherence {own[0]:.2f} unconditional, {own[1]:.2f} conditional"
    return image_blocks(blocks, text)


def _figure(artifact: str, profile: str, lookup: Callable[[RunSpec], Record | None], samples: Any) -> dict[str, bytes]:
    from repro.papers.mrf_mvae.triples import figures
    from repro.report.plotting import render as draw

    if artifact == "fig9":
        figure = _figure9(profile, lookup, samples)
    else:
        drawn = {LABELS[v]: _grouped(samples(specs[0])) for v, specs in plan(artifact, profile).items()}
        if artifact == "fig6":
            figure = figures.unconditional_samples(drawn)
        else:
            figure = figures.conditional_samples(drawn, GIVEN[artifact])
    return {suffix: draw(figure, suffix) for suffix in ("pdf", "png")}


def tables(
    artifact: str,
    profile: str,
    *,
    seeds: int | None,
    lookup: Callable[[RunSpec], Record | None],
    rename: Mapping[str, str] | None = None,
) -> Sequence[Table | PlainTable]:
    """An artifact's tables from records, none for what is drawn alone; arguments as :func:`render`'s.

    Raises:
        KeyError: If the room has no such table.
    """
    if artifact == "tails-fig" or artifact.startswith("fig"):
        return ()
    from repro.papers.mrf_mvae.skewed import rendering as skewed_rendering
    from repro.papers.mrf_mvae.triples import tables as triples

    if artifact == "tails":
        return [skewed_rendering.tails(profile, seeds, lookup)]
    if artifact == "tails-sweep":
        return [skewed_rendering.sweep(profile, lookup)]
    if artifact == "table4":
        return [triples.table4(profile, seeds, lookup)]
    if artifact == "table4-ablations":
        return [triples.ablations(profile, lookup)]
    if artifact == "table4-features":
        return [triples.features(profile, seeds, lookup)]
    if artifact == "table4-sweep":
        return [triples.sweep(profile, lookup)]
    raise KeyError(artifact)


def render(
    artifact: str,
    profile: str,
    *,
    seeds: int | None,
    lookup: Callable[[RunSpec], Record | None],
    samples: Callable[[RunSpec], Mapping[str, ndarray]],
    rename: Mapping[str, str] | None = None,
) -> Mapping[str, str | bytes]:
    """An artifact's files, suffix to content.

    Arguments:
        artifact: Its id within the paper.
        profile: The profile of the records.
        seeds: Number of seeds; the profile's if None.
        lookup: A run's record, None if there is none; all that the artifact's plan names are there.
        samples: A run's stored samples, name to array.
        rename: Not used; no other paper repeats these.

    Raises:
        KeyError: If the paper has no such artifact.
    """
    if found := tables(artifact, profile, seeds=seeds, lookup=lookup):
        return dict(join_tables(found, f"tab:mrf-{artifact}"))
    if artifact == "tails-fig":
        from repro.papers.mrf_mvae.skewed.rendering import figure

        return dict(figure(profile, samples))
    return dict(_figure(artifact, profile, lookup, samples))
