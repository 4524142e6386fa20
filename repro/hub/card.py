"""Model cards: the README of a model on the Hub, made from its record, and the check of its metadata."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.repocard_data import model_index_to_eval_results

from repro import __version__
from repro.artifacts.citation import bibtex
from repro.artifacts.inventory import find
from repro.artifacts.render import record_path
from repro.datasets.card import card_names, load_card
from repro.datasets.former import changes
from repro.engine.store import figures_root, read_record
from repro.hub.config import PICTURE
from repro.hub.registry import Model, models, published_value, training_command
from repro.records import Record, RunSpec

__all__ = ["check_card", "collection_card", "model_card"]

LICENSE = "mit"
REQUIRED = {"license": str, "library_name": str, "datasets": list, "metrics": list, "model-index": list}


Values = Mapping[str, float]


def _results(model: Model, values: Values) -> list[EvalResult]:
    """Metrics of a model, obtained and, where the paper prints it, published."""
    dataset = model.spec().dataset
    common: dict[str, Any] = {
        "task_type": "other",
        "task_name": model.title,
        "dataset_type": dataset,
        "dataset_name": load_card(dataset).pretty_name,
        "dataset_split": "test",
        "metric_type": model.measure,
    }
    found = []
    for name, value in values.items():
        label = model.results[name]
        found.append(EvalResult(metric_name=f"{label} (obtained)", metric_value=value, **common))
        if (printed := published_value(model, name)) is not None:
            found.append(EvalResult(metric_name=f"{label} (published)", metric_value=printed, **common))
    return found


def _metadata(name: str, found: Mapping[str, tuple[Model, Values]]) -> str:
    """The front matter: licence, library, datasets, metrics, tags, and the results as the Hub's model-index."""
    datasets = sorted({model.spec().dataset for model, _ in found.values()})
    closed = [d for d in datasets if not load_card(d).redistributable]
    # What was trained on data that may not be passed on is under the data's own terms.
    terms = {"license": "other", "license_name": load_card(closed[0]).license} if closed else {"license": LICENSE}
    data = ModelCardData(
        **terms,
        library_name="repro",
        tags=["multimodal", "variational-autoencoder", "reproducibility"],
        datasets=datasets,
        metrics=sorted({model.measure for model, _ in found.values()}),
        model_name=name,
        eval_results=[result for model, values in found.values() for result in _results(model, values)],
    )
    return data.to_yaml().rstrip() + "\n"


def _number(value: float | None) -> str:
    return "not published" if value is None else f"{value:.4g}"


PROFILES = {
    "paper": "The settings are the paper's.",
    "overnight": "The networks are narrower than the paper's, for a night on two cores; the data are whole.",
    "quick": "The networks, the data and the training are reduced to minutes on two cores: not the paper's settings, "
    "and no evidence on its numbers.",
    "smoke": "Nothing is trained to any use: this profile is for tests alone.",
}
CONVERGED = {
    True: "Training had converged by its own rule.",
    False: "Training ended before it had converged by its own rule.",
    None: "Training had a fixed length; whether it had converged was not measured.",
}


def _seeds(spec: RunSpec, metric: str, figures: Path) -> str:
    """Mean and standard deviation of a metric over the recorded seeds of a run."""
    seeds = [replace(spec, seed=k) for k in range(10)]
    records = [r for s in seeds if (r := read_record(record_path(s, figures), s)) is not None]
    found = [r.metric(metric).value for r in records if not changes(r.data)]
    if len(found) < 2:
        return "one seed" if found else "none"
    return f"{statistics.mean(found):.4g} ± {statistics.stdev(found):.2g} ({len(found)})"


def _weights_note(committed: Mapping[str, Any], rounded: Mapping[str, Any]) -> str:
    note = ""
    if committed and committed["weights"] == "other":
        note += (
            "\nThe tables rest on another training of this run, on another type of processor, with other weights.\n"
            f"There the first of these metrics is {_number(committed['value'])}.\n"
        )
    if rounded:
        note += (
            f"\nThe weights are stored in {rounded['dtype']}, and all metrics here were measured with them so. With\n"
            f"those in float32, which training ended with, the first is {_number(rounded['exact'])}; a change of up\n"
            f"to {rounded['tolerance']:.2g} was allowed (its deviation between seeds, or 0.5%).\n"
        )
    return note


def model_card(
    model: Model,
    record: Record,
    committed: Mapping[str, Any] | None = None,
    rounded: Mapping[str, Any] | None = None,
    figures: Path | None = None,
) -> str:
    """The README of one model: metadata, results beside the published ones, how it was made, how it is used.

    Arguments:
        model: What it is.
        record: The record that its weights were measured with.
        committed: Of a record of the same run beside the figures, as :class:`~repro.hub.manifest.Entry` has it.
        rounded: Of weights in half precision, as :class:`~repro.hub.manifest.Entry` has it.
        figures: Where committed records lie; the package's own if None.
    """
    spec, place = record.spec, record.environment
    artifact, data, figures = find(model.artifact), load_card(spec.dataset), figures or figures_root()
    values = {m: record.metric(m).value for m in model.results}
    rows = [
        f"| {model.results[m]} | {_number(v)} | {_seeds(spec, m, figures)} | {_number(published_value(model, m))} |"
        for m, v in values.items()
    ]
    note = _weights_note(committed or {}, rounded or {})
    commit = place["training"]["commit"] if "training" in place else place["commit"]
    use = f'model = repro.load_model("{model.name}")'
    if not model.block:
        use += "\njoint = model.generate(1000)  # modality to tensor\n"
        first = next(iter(data.modalities))
        use += f'rest = model.generate(5, given={{"{first}": joint["{first}"][:8]}})  # the others given one'
    picture = "" if model.block else f"\n![Joint samples of {model.title}]({PICTURE})\n"
    terms = (
        "may be passed on" if data.redistributable else "may not be passed on, and these weights are under its terms"
    )
    return f"""---
{_metadata(model.name, {model.name: (model, values)})}---

# {model.title}

{artifact.title} of {artifact.name}: {data.pretty_name}, method `{spec.method}`, seed {spec.seed}, profile
`{spec.profile}`. One seed; the tables of the package average over several.

| metric | obtained | mean ± deviation (recorded seeds) | published |
|:--|--:|--:|--:|
{chr(10).join(rows)}
{note}{picture}
## How to use it

```python
import repro

{use}
```

The package rebuilds the model from `config.json` with its own classes, checks the SHA-256 of every file, and loads
`weights.safetensors` strictly. Nothing in this folder is executed or unpickled.

## Limits

- {PROFILES[spec.profile]}
- {CONVERGED[record.converged]}
- It is for the study of these methods on this dataset; samples and likelihoods elsewhere mean nothing.

## How it was made

`{training_command(model)}` at commit `{commit}`
on {place["device_name"]} ({place["device"]}) with torch {place["versions"].get("torch", "?")}. `record.json` holds
every hyper-parameter, the hashes of the data, and all metrics with their protocols; its key is `{spec.key}`.

## Licence

The package and what it trains are under the MIT licence. The data of {data.pretty_name} ({data.license}) {terms}.

## Citation

```bibtex
{bibtex(spec.paper, [spec.dataset], commit).strip()}
```
"""


def collection_card(headlines: Mapping[str, float]) -> str:
    """The README of the repository: every model in it with its headline metric, and the metadata of all.

    Arguments:
        headlines: Name of a model to the value of its headline metric.
    """
    listed = {name: models()[name] for name in sorted(headlines)}
    rows = []
    for name, model in listed.items():
        label, printed = model.results[model.headline], published_value(model, model.headline)
        values = f"{_number(headlines[name])} | {_number(printed)}"
        profile = model.spec().profile
        rows.append(f"| [{name}]({name}/README.md) | {model.title} | {profile} | {label} | {values} |")
    pictures = [f"![{m.title}]({name}/{PICTURE})\n" for name, m in listed.items() if not m.block]
    specs = [model.spec() for model in listed.values()]
    entries = bibtex(sorted({s.paper for s in specs}), sorted({s.dataset for s in specs}), "").strip()
    return f"""---
{_metadata("repro", {name: (model, {model.headline: headlines[name]}) for name, model in listed.items()})}---

# Models of the package repro

Trained multimodal VAEs of four papers on structured latent spaces, and the networks that their experiments take as
given, each with the record that it was measured with. Version {__version__} of the package pins every file by its
SHA-256; `repro.load_model(name)` fetches, verifies and loads one.

| name | model | profile | metric | obtained | published |
|:--|:--|:--|:--|--:|--:|
{chr(10).join(rows)}

## Samples

{chr(10).join(pictures)}

## Citation

```bibtex
{entries}
```
"""


def check_card(text: str, where: str) -> None:
    """Refuses a README whose metadata are not those of a model card.

    Arguments:
        text: Its content.
        where: What it belongs to, for messages.

    Raises:
        ValueError: If the front matter is missing or not YAML, a field is missing or of another type, the licence of
            closed data has no name, or the results are no model-index of the Hub; in one line.
    """
    match = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    if not match:
        raise ValueError(f"{where}: no YAML front matter between two lines of ---")
    try:
        header = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        raise ValueError(f"{where}: the front matter is not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(header, dict):
        raise ValueError(f"{where}: the front matter is no mapping")
    for name, kind in REQUIRED.items():
        if not isinstance(header.get(name), kind) or not header[name]:
            raise ValueError(f"{where}: {name} is {header.get(name)!r}, must be a non-empty {kind.__name__}")
    for name in ("datasets", "metrics"):
        if not all(isinstance(x, str) for x in header[name]):
            raise ValueError(f"{where}: {name} are {header[name]!r}, must be names")
    if unknown := sorted(set(header["datasets"]) - set(card_names())):
        raise ValueError(f"{where}: datasets {unknown} have no card in the package")
    if header["license"] == "other" and not header.get("license_name"):
        raise ValueError(f"{where}: licence 'other' needs a license_name")
    try:
        _, results = model_index_to_eval_results(header["model-index"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{where}: the results are no model-index ({type(error).__name__}: {error})") from None
    if not results or not all(isinstance(r.metric_value, int | float) for r in results):
        raise ValueError(f"{where}: the model-index must have results that are numbers")
