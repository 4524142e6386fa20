"""MRF MVAE's artifacts as files: Markdown and LaTeX for tables, PDF and PNG for figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from repro.papers.mrf_mvae.experiments import plan
from repro.papers.mrf_mvae.triples import LABELS
from repro.records import Record, RunSpec

if TYPE_CHECKING:
    from numpy import ndarray

__all__ = ["render"]

GIVEN = {"fig7": "m0", "fig8": "m1"}


def _grouped(samples: Mapping[str, ndarray]) -> dict[str, dict[str, ndarray]]:
    """``"<group>.<modality>"`` to group to modality."""
    found: dict[str, dict[str, ndarray]] = {}
    for name, images in samples.items():
        group, modality = name.split(".")
        found.setdefault(group, {})[modality] = images
    return found


def _figure9(profile: str, lookup: Callable[[RunSpec], Record | None], samples: Any) -> Any:
    from repro.papers.mrf_mvae.figures import SYMBOLS, image_blocks

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
    from repro.papers.mrf_mvae import figures
    from repro.plotting import render as draw

    if artifact == "fig9":
        figure = _figure9(profile, lookup, samples)
    else:
        drawn = {LABELS[v]: _grouped(samples(specs[0])) for v, specs in plan(artifact, profile).items()}
        if artifact == "fig6":
            figure = figures.unconditional_samples(drawn)
        else:
            figure = figures.conditional_samples(drawn, GIVEN[artifact])
    return {suffix: draw(figure, suffix) for suffix in ("pdf", "png")}


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
        artifact: Its id within the room.
        profile: The profile of the records.
        seeds: Number of seeds; the profile's if None.
        lookup: A run's record, None if there is none; all that the artifact's plan names are there.
        samples: A run's stored samples, name to array.
        rename: Not used; no other room repeats these.

    Raises:
        KeyError: If the room has no such artifact.
    """
    if artifact.startswith("tails"):
        from repro.papers.mrf_mvae.skewed_rendering import render as render_skewed

        return render_skewed(artifact, profile, seeds=seeds, lookup=lookup, samples=samples)
    if artifact.startswith("fig"):
        return _figure(artifact, profile, lookup, samples)
    from repro.papers.mrf_mvae import tables

    if artifact == "table4":
        table = tables.table4(profile, seeds, lookup)
    elif artifact == "table4-ablations":
        table = tables.ablations(profile, lookup)
    elif artifact == "table4-features":
        table = tables.features(profile, seeds, lookup)
    elif artifact == "table4-sweep":
        table = tables.sweep(profile, lookup)
    else:
        raise KeyError(artifact)
    return {"md": table.to_markdown(), "tex": table.to_latex(f"tab:mrf-{artifact}")}
