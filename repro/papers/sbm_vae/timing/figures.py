"""Figure 27: seconds of a batch over the number of modalities, the sampler's forms beside what is fast."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from repro.experiment import Results, Rows, artifact
from repro.papers.sbm_vae.polymnist.figures import curves
from repro.papers.sbm_vae.timing.experiment import timing_spec
from repro.papers.sbm_vae.timing.tables import only, points, timing_table
from repro.records import Record
from repro.report.plain_tables import PlainTable

__all__ = ["draw_timing", "figure27"]

# The curves' names, in the panel of the sampler and in that of what needs none.
SAMPLED = {"eager": "SBM-VAE, released", "compiled": "SBM-VAE, compiled", "graph": "SBM-VAE, CUDA graph"}
FAST = {"decoding": "decoding", "mopoe": "MoPoE"}


def draw_timing(records: Sequence[Record]) -> Figure:
    """Seconds over the number of modalities.

    Raises:
        ValueError: If there is not one record.

    Source: SBM-VAE, figure 27.
    """
    found = points(only(records))
    batch = records[0].spec.params["timing"]["batch_size"]
    labels = {f"seconds, latents of {batch}": SAMPLED, f"seconds, images of {batch}": FAST}
    panels = {
        label: {title: {float(m): [s] for m, s in found[form].items()} for form, title in forms.items()}
        for label, forms in labels.items()
    }
    return curves(panels, horizontal="number of modalities", from_zero=True)


def _runs(profile: str, seeds: int | None) -> Rows:
    return {"seconds": [timing_spec(profile)]}


@artifact("fig27", runs=_runs)
def figure27(results: Results) -> list[PlainTable | Figure]:
    """Seconds of a batch by form and number of modalities, as a table and as curves."""
    records = results.records("seconds")
    return [timing_table(records), draw_timing(records)]
