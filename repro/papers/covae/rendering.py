"""CoVAE's artifacts as files: Markdown and LaTeX for tables, PDF and PNG for figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repro.papers.covae.experiments import plan
from repro.papers.covae.specs import LABELS
from repro.records import Record, RunSpec
from repro.report.plain_tables import PlainTable
from repro.report.tables import Table, join_tables

if TYPE_CHECKING:
    from numpy import ndarray

__all__ = ["render", "tables"]

Lookup = Callable[[RunSpec], Record | None]
Samples = Callable[[RunSpec], Mapping[str, "ndarray"]]

# Panels of the figures of curves: title to metric, and the vertical axes' labels.
CORRELATIONS = {"Joint": "test/correlation/joint", "Conditional": "test/correlation/conditional"}
NLLS = {"Joint": "test/nll/joint", "Conditional (predictive)": "CONDITIONAL"}
CURVES: dict[str, tuple[dict[str, str], list[str]]] = {
    "fig5": (CORRELATIONS, ["correlation at the decoders' input"] * 2),
    "fig6": (
        {"Conditioning modality": "test/deviation/conditioning", "Missing modality": "test/deviation/missing"},
        ["standard deviation of a latent"] * 2,
    ),
    "fig8": (NLLS, ["NLL (nats)"] * 2),
    "calibration": (
        {"Latents of the missing modality": "test/coverage/latent", "Its mean intensity": "test/coverage/mean"},
        ["coverage of 90% intervals"] * 2,
    ),
}
CURVES["fig10"] = CURVES["fig11"] = (
    {f"{k} correlation": v for k, v in CORRELATIONS.items()} | {f"{k} NLL": v for k, v in NLLS.items()},
    ["correlation"] * 2 + ["NLL (nats)"] * 2,
)


def _value(record: Record, metric: str) -> float:
    if metric != "CONDITIONAL":
        return record.metric(metric).value
    names = ("m1-given-m0", "m0-given-m1")
    return sum(record.metric(f"test/nll/{n}/posterior-predictive").value for n in names) / 2


def _label(row: str) -> str:
    """The legend's entry of a plan's row ``"<method>, rho <value>[, <variant>]"``."""
    method, _, *variant = row.split(", ")
    return ", ".join([LABELS[method], *variant])


def _curves(artifact: str, profile: str, seeds: int | None, lookup: Lookup) -> Any:
    from repro.papers.covae.correlated_mnist.figures import against_rho

    metrics, ylabels = CURVES[artifact]
    panels: dict[str, dict[str, dict[float, list[float]]]] = {title: {} for title in metrics}
    true: dict[float, float] = {}
    for row, specs in plan(artifact, profile, seeds).items():
        records = [r for s in specs if (r := lookup(s)) is not None]
        for title, metric in metrics.items():
            for record in records:
                rho = record.spec.params["data"]["rho"]
                panels[title].setdefault(_label(row), {}).setdefault(rho, []).append(_value(record, metric))
                true[rho] = record.metric("test/correlation/true").value
    if artifact == "fig5":
        return against_rho(panels, ylabels, identity=tuple(panels), reference=true, limits=(-0.05, 1.05))
    if artifact == "calibration":
        return against_rho(panels, ylabels, level=0.9, limits=(0, 1.02))
    return against_rho(panels, ylabels, identity=[title for title in panels if "correlation" in title])


def _terms(artifact: str, profile: str, samples: Samples) -> Any:
    from repro.papers.covae.correlated_mnist.figures import decomposition

    wanted = ("posterior",) if artifact == "fig15" else ("reconstruction", "prior", "posterior")
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    for row, specs in plan(artifact, profile).items():
        kept = samples(specs[0])
        title = f"ρ = {specs[0].params['data']['rho']:g}"
        for term in wanted:
            rows.setdefault(title, {}).setdefault(term, {})[_label(row)] = kept[f"terms/{term}"]
    return decomposition(rows)


def _image_figure(artifact: str, profile: str, samples: Samples) -> Any:
    """The first test pair; five samples given one modality, or the joint reconstructions of both."""
    from repro.papers.covae.correlated_mnist.figures import image_grid

    rows: dict[str, list[Any]] = {}
    for row, specs in plan(artifact, profile).items():
        kept = samples(specs[0])
        label = f"{_label(row)}, ρ = {specs[0].params['data']['rho']:g}"
        if artifact == "fig17":
            parts = [[kept[f"true/{m}"][0], *kept[f"joint/{m}"][:, 0]] for m in ("m0", "m1")]
            rows[label] = parts[0] + parts[1]
        elif artifact == "fig16":
            rows[label] = [kept["true/m0"][0], kept["true/m1"][0], *kept["given_m0/m1"][:, 0]]
        else:
            rows[label] = [*kept["given_m0/m0"][:3, 0], kept["true/m1"][0], *kept["given_m0/m1"][:, 0]]
    if artifact == "fig17":
        return image_grid(rows, ["first", *[""] * 5, "second", *[""] * 5], gaps=(1, 6, 7))
    if artifact == "fig16":
        return image_grid(rows, ["given", "true", *[f"sample {i}" for i in range(1, 6)]], gaps=(1, 2))
    heads = [*["given's own"] * 3, "true other", *[f"sample {i}" for i in range(1, 6)]]
    return image_grid(rows, heads, gaps=(3, 4))


def _violins(artifact: str, profile: str, samples: Samples) -> Any:
    from repro.papers.covae.correlated_mnist.figures import violins

    kept = {LABELS[m]: samples(specs[0]) for m, specs in plan(artifact, profile).items()}
    names = {
        "Joint": {"mRNA": "joint/mrna", "miRNA": "joint/mirna"},
        "Conditional on the other modality": {"mRNA": "mirna-to-mrna", "miRNA": "mrna-to-mirna"},
    }
    return violins(
        {
            title: {side: {k: v[f"spearman/{name}"] for k, v in kept.items()} for side, name in sides.items()}
            for title, sides in names.items()
        }
    )


def _classes(artifact: str, profile: str, samples: Samples) -> Any:
    from repro.datasets.card import load_card
    from repro.papers.covae.correlated_mnist.figures import scatter_classes

    ((spec,),) = plan(artifact, profile).values()
    kept, card = samples(spec), load_card(spec.dataset)
    methods = ["PCA"] + (["UMAP"] if "umap/mrna" in kept else [])
    titles = {"mrna": "mRNA", "mirna": "miRNA"}
    panels = {f"{k} of {t}": kept[f"{k.lower()}/{m}"] for k in methods for m, t in titles.items()}
    return scatter_classes(panels, kept["labels"], [str(n) for n in card.labels])


def _pairs() -> Any:
    """The first eight test pairs at three correlations, the first modality above the second."""
    from repro.datasets import load_dataset
    from repro.papers.covae.correlated_mnist.figures import image_grid

    rows = {}
    for rho in (0.99, 0.7, 0.05):
        data = load_dataset("correlated_mnist", split="test", rho=rho, num_samples=8).data
        rows |= {f"ρ = {rho:g}, {name}": list(data[m].numpy()) for m, name in (("m0", "first"), ("m1", "second"))}
    return image_grid(rows, [""] * 8)


def _labels(artifact: str) -> Any:
    """How many samples of each class the cohort has, both splits together."""
    from repro.datasets.omics_labels import class_counts
    from repro.papers.covae.correlated_mnist.figures import bars

    return bars(class_counts("tcga_brca" if artifact.endswith("-tcga") else "mlomics"), "tumours")


def _figure(artifact: str, profile: str, seeds: int | None, lookup: Lookup, samples: Samples) -> dict[str, bytes]:
    from repro.report.plotting import render as draw

    if artifact in CURVES:
        figure = _curves(artifact, profile, seeds, lookup)
    elif artifact in ("fig14", "fig15"):
        figure = _terms(artifact, profile, samples)
    elif artifact in ("fig7", "fig16", "fig17"):
        figure = _image_figure(artifact, profile, samples)
    elif artifact.startswith("fig9"):
        figure = _violins(artifact, profile, samples)
    elif artifact.startswith("fig12"):
        figure = _classes(artifact, profile, samples)
    elif artifact.startswith("fig13"):
        figure = _labels(artifact)
    elif artifact == "fig4":
        figure = _pairs()
    elif artifact == "fig1":
        from repro.papers.covae.correlated_mnist.figures import posterior_example

        figure = posterior_example()
    else:
        raise KeyError(artifact)
    return {suffix: draw(figure, suffix) for suffix in ("pdf", "png")}


def tables(
    artifact: str, profile: str, *, seeds: int | None, lookup: Lookup, rename: Mapping[str, str] | None = None
) -> Sequence[Table | PlainTable]:
    """An artifact's tables from records, none for what is drawn alone; arguments as :func:`render`'s.

    Raises:
        KeyError: If the room has no such table.
    """
    if not artifact.startswith("table") and artifact != "multivae-nll":
        return ()
    if artifact == "tableD":
        from repro.papers.covae.architecture.tables import architectures

        return architectures()
    from repro.papers.covae.omics.tables import multivae_nll, omics_table

    if artifact == "multivae-nll":
        return [multivae_nll(profile, seeds, lookup)]
    return omics_table(artifact, profile, seeds, lookup)


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
        samples: What a run stored for figures.
        rename: Of no use here; no other paper prints these.

    Raises:
        KeyError: If the paper has no such artifact.
    """
    if found := tables(artifact, profile, seeds=seeds, lookup=lookup):
        return join_tables(found, f"tab:covae-{artifact}")
    return _figure(artifact, profile, seeds, lookup, samples)
