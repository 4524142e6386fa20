"""Which trained models are published, under what names, and which published numbers they stand beside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from repro.datasets.card import load_card
from repro.hub.config import Config
from repro.papers import paper as paper_of
from repro.records import RunSpec

__all__ = ["SHIPMENTS", "Model", "Shipment", "block_config", "card_modalities", "model_of", "models", "published_value"]

BLOCKS = {
    "vaegan-decoder": ("repro.networks.vaegan", "Decoder", "Decoder of the VAEGAN of correlated MNIST"),
    "vaegan-encoder": ("repro.networks.vaegan", "Encoder", "Encoder of the VAEGAN of correlated MNIST"),
    "vaegan-flow": ("repro.networks.flow", "LatentFlow", "Flow on the latents of the VAEGAN of correlated MNIST"),
}
CLASSIFIERS = ("repro.papers.pretrained.classifiers", "DigitClassifiers")


@dataclass(frozen=True)
class Shipment:
    """A building block that ships with the package.

    Arguments:
        name: Its name, that of its folder.
        spec: The run that makes it.
        headline: Name of the metric that the manifest states.
        config: What is needed to rebuild the module, plain values.
        prefix: Prefix of the names of the parameters that ship, which is taken off; empty for all.
        dtype: Type that they are stored in.
    """

    name: str
    spec: Callable[[], RunSpec]
    headline: str
    config: Mapping[str, Any]
    prefix: str = ""
    dtype: str = "float32"


def _shipments() -> dict[str, Shipment]:
    from repro.datasets.card import load_card
    from repro.papers.pretrained.digits.experiment import CLASSIFIERS, classifier_spec, flow_spec, vaegan_spec

    vaegan = lambda: vaegan_spec("quick")  # noqa: E731
    found = [
        Shipment("vaegan-decoder", vaegan, "samples/confident", {"latent_dim": 10}, "decoder."),
        Shipment("vaegan-encoder", vaegan, "test/mse", {"latent_dim": 10}, "encoder.", "float16"),
    ]
    flow = {"features": 10, "transforms": 5, "hidden": [128, 128]}
    found.append(Shipment("vaegan-flow", lambda: flow_spec("paper"), "test/nll", flow, "flow."))
    for name, known in CLASSIFIERS.items():
        config = {"architecture": name, "shared": known["shared"], "modalities": list(load_card(name).modalities)}
        spec = lambda name=name: classifier_spec(name, "paper")  # noqa: E731
        found.append(Shipment(f"classifier-{name}", spec, "test/accuracy/mean", config, dtype="float16"))
    return {s.name: s for s in found}


SHIPMENTS = _shipments()


@dataclass(frozen=True)
class Model:
    """A model that is published with its weights, of its run with the first seed.

    Arguments:
        name: What ``load_model`` takes.
        title: What it is, for the card.
        spec: The run that makes it.
        artifact: The table or figure that the run belongs to.
        results: Metrics that the card shows, name to label; the first is the headline.
        measure: What they measure, as the Hub's metadata names metrics.
        config: How the module is rebuilt.
        row: Label of its row in the published table of that artifact, empty where it has none.
        columns: Metric name to the column of that table.
        block: Whether it is a building block, whose file inside the package the floors below read.
    """

    name: str
    title: str
    spec: Callable[[], RunSpec]
    artifact: str
    results: Mapping[str, str]
    measure: str
    config: Callable[[RunSpec], Config]
    row: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    block: bool = False

    @property
    def headline(self) -> str:
        """Name of the metric that the manifest states."""
        return next(iter(self.results))


def card_modalities(dataset: str) -> dict[str, dict[str, Any]]:
    """A dataset's modalities as plain values, from its card."""
    found = load_card(dataset).modalities
    return {
        m: {"shape": list(c.shape), "kind": c.kind, "range": None if c.range is None else list(c.range), "unit": c.unit}
        for m, c in found.items()
    }


def block_config(name: str, packaged: Mapping[str, Any]) -> Config:
    """How a building block is rebuilt.

    Arguments:
        name: Its name.
        packaged: The content of its config.json inside the package.

    Raises:
        ValueError: If there is no such building block.
    """
    if name in BLOCKS:
        return Config(*BLOCKS[name][:2], arguments=dict(packaged))
    if not name.startswith("classifier-"):
        raise ValueError(f"no building block {name!r}")
    arguments = {k: packaged[k] for k in ("architecture", "shared")}
    return Config(*CLASSIFIERS, card_modalities(name.removeprefix("classifier-")), arguments)


def _block(shipment: Shipment) -> Model:
    if shipment.name in BLOCKS:
        title = BLOCKS[shipment.name][2]
        artifact = "pretrained/flow" if shipment.name == "vaegan-flow" else "pretrained/vaegan"
    else:
        title = f"Digit classifiers of {load_card(shipment.name.removeprefix('classifier-')).pretty_name}"
        artifact = "pretrained/classifiers"
    labels = {
        "test/accuracy/mean": ("accuracy on the test split", "accuracy"),
        "samples/confident": ("share of samples that the classifier is confident of", "confidence"),
        "test/mse": ("mean squared error of reconstructions of the test split", "mse"),
        "test/nll": ("negative log-likelihood of the test split's latents, nats", "nll"),
    }
    label, measure = labels[shipment.headline]
    return Model(
        shipment.name,
        title,
        shipment.spec,
        artifact,
        {shipment.headline: label},
        measure,
        lambda spec: block_config(shipment.name, shipment.config),
        block=True,
    )


def _copula() -> list[Model]:
    from repro.papers.gmrf_mcvae.copula.experiment import LABELS, copula_spec

    results = {
        "test/unconditional/mean/histogram/mean": "the paper's distance x 1000, unconditional",
        "test/conditional/mean/histogram/mean": "the paper's distance x 1000, conditional",
        "test/unconditional/mean/transport/mean": "exact optimal transport distance x 1000, unconditional",
    }
    columns = dict(zip(results, ("uncond_mean", "cond_mean"), strict=False))

    def config(spec: RunSpec) -> Config:
        modalities, settings = card_modalities("copula"), dict(spec.params["model"])
        if spec.method == "gmrf_mcvae":
            return Config("repro.papers.gmrf_mcvae.model", "GMRFMCVAE", modalities, settings)
        return Config("repro.baselines", "Baseline", modalities, {"method": spec.method} | settings)

    found = []
    for method, label in LABELS.items():
        suffix = "" if method == "gmrf_mcvae" else f"-{method.replace('_', '-')}"
        found.append(
            Model(
                f"gmrf_mcvae/copula{suffix}",
                f"{label} on the Gaussian copula dataset",
                lambda method=method: copula_spec(method, 0, "paper"),
                "gmrf_mcvae/table1",
                results,
                "wasserstein-distance",
                config,
                label,
                columns,
            )
        )
    return found


@cache
def models() -> Mapping[str, Model]:
    """Every model that is published, by name: the papers' and the building blocks."""
    found = [*_copula(), *(_block(s) for s in SHIPMENTS.values())]
    return {m.name: m for m in sorted(found, key=lambda m: m.name)}


def model_of(spec: RunSpec) -> Model | None:
    """The papers' model whose weights a run makes, None where that run's are not published."""
    return next((m for m in models().values() if not m.block and m.spec() == spec), None)


def published_value(model: Model, metric: str) -> float | None:
    """What the paper prints for a metric of a model, None where it prints none."""
    if metric not in model.columns:
        return None
    paper, _, artifact = model.artifact.partition("/")
    table = paper_of(paper).published[artifact]
    values = table["rows"].get(model.row)
    return None if values is None else float(values[table["columns"].index(model.columns[metric])])
