"""SBM-VAE's artifacts on CelebAMask-HQ and MHD as tables and figures; those without records say why they are empty."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from repro.papers.sbm_vae.celeba import experiment as celeba
from repro.papers.sbm_vae.mhd import experiment as mhd
from repro.records import Record, RunSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy import ndarray

    from repro.report.tables import Table

__all__ = ["draw", "table"]

Lookup = Callable[[RunSpec], Record | None]
Samples = Callable[[RunSpec], Mapping[str, "ndarray"]]
# Figure to where its samples come from, what it shows, and in words what is given.
SHOWN: Mapping[str, tuple[str, tuple[str, ...], str]] = {
    "fig10": ("joint", ("image", "mask", "attributes"), "Joint samples"),
    "fig33": ("joint", ("image", "mask", "attributes"), "Joint samples"),
    "fig34": ("given-image", ("mask", "attributes"), "Given the image of the first test face"),
    "fig35": ("given-mask", ("image", "attributes"), "Given the mask of the first test face"),
    "fig36": ("given-attributes", ("image", "mask"), "Given the attributes of the first test face"),
    "fig37": ("given-attributes", ("image", "mask"), "Given the attributes of the first test face"),
}


def table(artifact: str, profile: str, seeds: int | None, lookup: Lookup) -> Table:
    """Table 1, 2, 3, 8 or 11.

    Raises:
        KeyError: If it is another artifact.
    """
    if artifact == "table8":
        from repro.papers.sbm_vae.mhd.tables import table8

        return table8(profile, seeds, lookup)
    from repro.papers.sbm_vae.celeba.tables import face_table

    return face_table(artifact, profile, seeds, lookup)


def draw(artifact: str, profile: str, lookup: Lookup, samples: Samples) -> Figure:
    """Figures 10 and 33 to 37, and that of images and spectrograms.

    Raises:
        KeyError: If it is another artifact.
    """
    return _digits(profile, lookup, samples) if artifact == "fig-mhd" else _faces(artifact, profile, lookup, samples)


def _faces(artifact: str, profile: str, lookup: Lookup, samples: Samples) -> Figure:
    from repro.datasets.card import load_card
    from repro.papers.sbm_vae.celeba.figures import attribute_names, sample_pages
    from repro.papers.sbm_vae.celeba.tables import absent

    source, wanted, title = SHOWN[artifact]
    names = list(load_card("celebamask_hq").generation["attributes"])
    planned = {row: specs[0] for row, specs in celeba.plan(artifact, profile).items()}
    recorded = {row: lookup(spec) is not None for row, spec in planned.items()}
    reason = absent("celebamask_hq", artifact, profile, recorded=any(recorded.values()))
    rows: dict[str, dict[str, Any]] = {}
    given = ""
    for row, spec in planned.items():
        rows[row] = dict.fromkeys(wanted, reason)
        if recorded[row]:
            stored = samples(spec)
            given = attribute_names(stored["true/attributes"], names, " + ")
            for m in wanted:
                x = stored[f"{source}/{m}"]
                rows[row][m] = [attribute_names(a, names) for a in x] if m == "attributes" else x
    if source == "given-attributes" and given:
        title = f"{title}: {given}"
    return sample_pages(rows, title=f"{title}; the first samples drawn")


def _digits(profile: str, lookup: Lookup, samples: Samples) -> Figure:
    from repro.papers.sbm_vae.celeba.figures import sample_pages
    from repro.papers.sbm_vae.celeba.tables import absent

    sources = {
        "joint": {"image": "joint/image", "audio": "joint/audio"},
        "given the other": {"image": "given-audio/image", "audio": "given-image/audio"},
    }
    planned = {row: specs[0] for row, specs in mhd.plan("fig-mhd", profile).items()}
    recorded = {row: lookup(spec) is not None for row, spec in planned.items()}
    reason = absent("mhd", "fig-mhd", profile, recorded=any(recorded.values()))
    rows: dict[str, dict[str, Any]] = {}
    for row, spec in planned.items():
        stored = samples(spec) if recorded[row] else {}
        for how, names in sources.items():
            rows[f"{row}, {how}"] = {head: stored.get(name, reason) for head, name in names.items()}
    text = "Digits and spectrograms of spoken ones (time to the right); given: the first test sample of each digit"
    return sample_pages(rows, title=text, cell=0.3, wide={"audio": 2.0}, margin=1.25)
