"""What a training step costs by the number of modalities, drawn and tabulated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from repro.experiment import Results, Rows, artifact
from repro.papers.gmrf_mcvae.copula.experiment import METHODS
from repro.papers.gmrf_mcvae.scaling.experiment import PROFILES, scaling_spec
from repro.papers.gmrf_mcvae.scaling.tables import costs, scaling_tables
from repro.records import of_profile
from repro.report.plain_tables import PlainTable
from repro.report.plotting import PALETTE, new_figure, use_style

__all__ = ["cost_curves", "scaling"]

MARKERS = ("o", "s", "^", "D", "v")


def cost_curves(
    components: Sequence[int], seconds: Mapping[str, Sequence[float]], megabytes: Mapping[str, Sequence[float]]
) -> Figure:
    """Draws what a training step costs by the number of modalities, on logarithmic axes, with lines of order M and M².

    Arguments:
        components: Numbers of modalities M, increasing.
        seconds: Model's label to seconds of a step.
        megabytes: Model's label to peak megabytes of a step.

    Raises:
        ValueError: If a series has another length, or a value is not positive.

    Source: GMRF MCVAE, appendix -D, which has orders and no measurement.
    """
    panels = {"seconds a training step": seconds, "peak memory of a step (MB)": megabytes}
    with use_style():
        figure = new_figure(6.6, 3.0)
        for index, (label, series) in enumerate(panels.items()):
            axes = figure.add_axes((0.1 + 0.5 * index, 0.16, 0.38, 0.66))
            for (name, values), colour, marker in zip(series.items(), PALETTE, MARKERS, strict=False):
                if len(values) != len(components) or min(values) <= 0:
                    raise ValueError(f"{label} of {name!r}: {list(values)} for M = {list(components)}")
                axes.plot(components, values, color=colour, marker=marker, markersize=3.5, linewidth=1, label=name)
            low = min(v[0] for v in series.values())
            for power, style in ((1, ":"), (2, "--")):
                line = [0.7 * low * (m / components[0]) ** power for m in components]
                axes.plot(
                    components, line, color="0.5", linestyle=style, linewidth=0.8, label=f"∝ M{'²' * (power - 1)}"
                )
            axes.set(xscale="log", yscale="log", xlabel="modalities M", ylabel=label)
            axes.set_xticks(list(components), [str(m) for m in components])
            axes.minorticks_off()
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper center", ncols=len(labels), fontsize=6.5, columnspacing=1.2)
    return figure


def _runs(profile: str, seeds: int | None) -> Rows:
    return {m: [scaling_spec(m, c, profile) for c in of_profile(PROFILES, profile)["components"]] for m in METHODS}


@artifact("scaling", runs=_runs)
def scaling(results: Results) -> list[PlainTable | Figure]:
    """Seconds, memory and operations of a training step for 2 to 10 modalities."""
    found = costs(dict(results))
    return [*scaling_tables(found), cost_curves(found.components, found.seconds, found.megabytes)]
