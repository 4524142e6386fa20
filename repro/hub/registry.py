"""Which trained models are published, under what names, and which published numbers they stand beside."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from repro.artifacts.inventory import artifacts, find
from repro.artifacts.render import plan, record_path
from repro.datasets.card import load_card
from repro.engine.store import RunStore, figures_root
from repro.errors import NotOfferedError, RunError, UsageError
from repro.hub.config import Config
from repro.hub.manifest import Entry, entries
from repro.papers import experiment_of
from repro.papers import paper as paper_of
from repro.papers.pretrained.digits.experiment import CLASSIFIERS, DRAWS, classifier_spec, flow_spec, vaegan_spec
from repro.records import SHOWN, RunSpec

__all__ = [
    "SHIPMENTS",
    "Model",
    "Shipment",
    "absence",
    "best_run",
    "block_config",
    "card_modalities",
    "find_entry",
    "model_of",
    "models",
    "published_value",
    "training_command",
    "unnamed_rows",
]

REDUCED = ("overnight", "quick")  # which have the same networks

BLOCKS = {
    "vaegan-decoder": ("repro.networks.vaegan", "Decoder", "Decoder of the VAEGAN of correlated MNIST"),
    "vaegan-encoder": ("repro.networks.vaegan", "Encoder", "Encoder of the VAEGAN of correlated MNIST"),
    "vaegan-flow": ("repro.networks.flow", "LatentFlow", "Flow on the latents of the VAEGAN of correlated MNIST"),
}
CLASSIFIER_CLASS = ("repro.papers.pretrained.classifiers", "DigitClassifiers")


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
    vaegan = lambda: vaegan_spec(DRAWS)  # noqa: E731
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
        block: Whether it is a building block, whose file inside the package the layers below read.
        half_megabytes: Profile to the size of its weights in half precision, where that is more than ships.
        offered: The runs of its row, the best profile first; none for a building block.
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
    half_megabytes: Mapping[str, float] = field(default_factory=dict)
    offered: Callable[[], tuple[RunSpec, ...]] = tuple

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
    return Config(*CLASSIFIER_CLASS, card_modalities(name.removeprefix("classifier-")), arguments)


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


def _plain(spec: RunSpec) -> Config:
    """How the models of Table I are rebuilt, whose files were published before there were encodings."""
    modalities, settings = card_modalities(spec.dataset), dict(spec.params["model"])
    if spec.method == "gmrf_mcvae":
        return Config("repro.papers.gmrf_mcvae.model", "GMRFMCVAE", modalities, settings)
    return Config("repro.baselines", "Baseline", modalities, {"method": spec.method} | settings)


def _encoded(spec: RunSpec) -> Config:
    """How the model of a run is built, without its paper's experiments."""
    from repro.model import isolated_rng
    from repro.networks.construction import encode

    with isolated_rng(spec.seed):
        return Config(encoding=encode(experiment_of(spec).build(spec)))


def _row(name: str, artifact: str, label: str) -> RunSpec:
    """The run of a table's row with the first seed: the published one, else the best recorded, else the best offered.

    Raises:
        RunError: If no profile has the row.
    """
    offered, entry = _offered(artifact, label), entries().get(name)
    published = [spec for spec in offered if entry is not None and spec.key == entry.record]
    recorded = (spec for spec in offered if record_path(spec, figures_root()).is_file())
    # A better run may be recorded before its weights ship: those that do stay what they are.
    return published[0] if published else next(recorded, offered[0])


@cache
def _offered(artifact: str, label: str) -> tuple[RunSpec, ...]:
    """The runs of a table's row with the first seed, the best profile first."""
    offered: list[RunSpec] = []
    for profile in SHOWN:
        try:
            rows = plan(find(artifact), profile, 1)
        except NotOfferedError:
            continue
        offered += rows.get(label, [])[:1]
    if not offered:
        raise RunError(f"{artifact} has no row {label!r}")
    return tuple(offered)


def best_run(model: Model, store: RunStore) -> RunSpec:
    """The run that is packed of a model: the best that is trained, no worse than the published one.

    Arguments:
        model: The model.
        store: Where run directories lie.
    """
    published = model.spec()
    better = model.offered()[: model.offered().index(published)] if published in model.offered() else ()
    return next((spec for spec in better if store.record(spec) is not None), published)


def _tables() -> list[Model]:
    """The rows of models.toml."""
    found = []
    for key, table in tomllib.loads((files("repro.hub") / "models.toml").read_text(encoding="utf-8")).items():
        artifact, name, larger = table["artifact"], table.get("name", key), table.get("megabytes", {})
        for suffix, (label, title) in table["rows"].items():
            full = f"{name}-{suffix}" if suffix else name
            found.append(
                Model(
                    full,
                    f"{title} {table['title']}",
                    partial(_row, full, artifact, label),
                    artifact,
                    table["results"],
                    table["measure"],
                    _plain if table.get("config") == "plain" else _encoded,
                    title,
                    table.get("columns", {}),
                    half_megabytes=dict.fromkeys(REDUCED, large) if (large := larger.get(suffix)) else {},
                    offered=partial(_offered, artifact, label),
                )
            )
    return found


@cache
def models() -> Mapping[str, Model]:
    """Every model that is published, by name: the papers' and the building blocks."""
    found = [*_tables(), *(_block(s) for s in SHIPMENTS.values())]
    return {m.name: m for m in sorted(found, key=lambda m: m.name)}


def model_of(spec: RunSpec) -> Model | None:
    """The papers' model whose weights a run makes, None where that run's are not published."""
    near = (m for m in models().values() if not m.block and m.name.startswith(f"{spec.paper}/"))
    return next((m for m in near if spec.seed == 0 and m.spec() == spec), None)


def unnamed_rows(figures: Path) -> dict[str, list[str]]:
    """Recorded rows whose models have no name here, such as those of a sweep: what trains them, to their labels.

    Arguments:
        figures: Where committed records lie.
    """
    listed = {m.spec().key for m in models().values()}
    found: dict[str, list[str]] = {}
    for artifact in artifacts().values():
        for profile in SHOWN if artifact.built else ():
            try:
                rows = plan(artifact, profile, 1)
            except NotOfferedError:
                continue
            for label, specs in rows.items():
                if specs and specs[0].key not in listed and record_path(specs[0], figures).is_file():
                    listed.add(specs[0].key)
                    option = "" if profile == "paper" else f" --profile {profile}"
                    found.setdefault(f"repro run {artifact.name}{option} --seeds 1", []).append(label)
    return found


def training_command(model: Model) -> str:
    """What trains a model, of one seed."""
    spec = model.spec()
    profile = "" if spec.profile == "paper" else f" --profile {spec.profile}"
    return f"repro run {model.artifact}{profile} --seeds 1"


def absence(model: Model) -> str:
    """What is to be done for the weights of a model that does not ship, in one line.

    Arguments:
        model: The model.
    """
    spec = model.spec()
    command = f"`{training_command(model)}` trains it"
    if (size := model.half_megabytes.get(spec.profile)) is None:
        return f"does not ship yet; {command}, then load_model reads the run, and `repro weights ship` packs it"
    return (
        f"has {size:g} MB in half precision, more than ships in the package, and goes to the Hub with "
        f"`make push-weights HF_REPO=user/name`; {command}, then load_model reads the run"
    )


def find_entry(name: str) -> Entry:
    """The weights of a name.

    Raises:
        UsageError: If there are none; it says what trains the model, or names the near matches.
    """
    known = entries()
    if name not in known:
        if name in models():
            raise UsageError(f"{name} {absence(models()[name])}")
        close = get_close_matches(str(name), known, n=3, cutoff=0.5)
        close = close or get_close_matches(str(name), models(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else f"one of {', '.join(known) or 'none'}"
        raise UsageError(f"unknown weights {name!r}; {hint}")
    return known[name]


def published_value(model: Model, metric: str) -> float | None:
    """What the paper prints for a metric of a model, None where it prints none."""
    if metric not in model.columns:
        return None
    paper, _, artifact = model.artifact.partition("/")
    table = paper_of(paper).published[artifact]
    values = table["rows"].get(model.row)
    if values is None:
        return None
    value = values[table["columns"].index(model.columns[metric])]
    return float(value[0] if isinstance(value, list) else value)  # a mean with its deviation
