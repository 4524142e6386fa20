"""``load_model``: trained models by name, from the package, the cache or the Hub, verified and strictly loaded."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from repro.datasets.base import ModalitySpec
from repro.datasets.devices import as_device
from repro.engine.store import RunStore, default_runs_root
from repro.errors import HubError
from repro.hub.config import Config, parse_config
from repro.hub.manifest import Entry, entries, packaged_files
from repro.hub.pull import pull
from repro.hub.registry import block_config, find_entry, models
from repro.model import MultimodalModel, isolated_rng
from repro.networks.construction import decode
from repro.papers import experiment_of, papers
from repro.records import Record
from repro.weights.folder import check_pickles, is_repo, package_folder
from repro.weights.saved import load_weights

__all__ = ["build", "load_model", "load_weights"]

# Modules whose classes a configuration may name.
MODEL_MODULES = ("repro.papers.", "repro.networks.", "repro.baselines.")
DTYPES = ("float32", "float16", "bfloat16")
# Where classes live that were published under another name; configurations that ship are never rewritten.
MOVED = {
    "repro.baselines.Baseline": "repro.baselines.models",
    "repro.baselines_joint.JointBaseline": "repro.baselines.joint",
    "repro.pretrained.classifiers.DigitClassifiers": "repro.papers.pretrained.classifiers",
}
# Classes that a function builds from plain arguments.
FACTORIES = {"repro.baselines.Baseline": "build_baseline"}


def load_model(
    name: str | Path,
    *,
    device: str | torch.device = "cpu",
    revision: str | None = None,
    trust_classes: bool = False,
) -> Any:
    """A trained model, in evaluation mode: one of the package's by name, or one that a user saved.

    A published model is looked for in the package, which small ones ship with, then in the cache, then on the Hub, at
    the commit that the manifest (``repro/weights/manifest.toml``) pins. Every file's SHA-256 is checked at every call,
    and names and shapes of all tensors must be the model's. The global random state stays untouched. For a folder, or a
    repository of the Hub, it is :meth:`~repro.model.MultimodalModel.from_pretrained`. A model that does not ship is
    read from the reader's own run directory (``REPRO_RUNS``, or ``runs``) once its run has a record.

    Arguments:
        name: Such as ``"gmrf_mcvae/copula"`` or ``"vaegan-decoder"``; ``repro weights list`` shows all. Or a folder, or
            else a repository of the Hub, ``"user/name"``.
        device: Where it is to live.
        revision: A tag, branch or commit of the Hub's repository; None for the pinned one, or that of ``main``.
        trust_classes: Of a user's model: whether classes from outside the package may be imported.

    Returns:
        The model: a :class:`~repro.model.MultimodalModel`, or a network for the building blocks.

    Raises:
        ValueError: If the name or the device is unknown, or a file is not what the manifest states or cannot be loaded.
        HubError: If it lies neither in the package nor in the cache and cannot be fetched; it says what to run.
    """
    place = as_device(device)
    if not isinstance(name, str | Path) or not str(name).strip():
        raise ValueError(f"a model is loaded by its name, a folder or a repository, not by {name!r}")
    published = not isinstance(name, Path) and name in entries()
    # A name of a paper's model that there is none of is a mistake, not a user's repository.
    if not published and (Path(name).is_dir() or (is_repo(name) and str(name).partition("/")[0] not in papers())):
        if (Path(name) / "weights.safetensors").is_file():
            return _from_folder(Path(name)).to(place)
        return MultimodalModel.from_pretrained(name, revision=revision, device=place, trust_classes=trust_classes)
    if not published and revision is None and (found := _from_own_run(str(name))) is not None:
        return found.to(place)
    entry = find_entry(str(name))
    config, content = _contents(entry, revision)
    model = build(config, entry.name)
    load_weights(model, content, entry.name, file="weights.safetensors")
    return model.to(place).eval()


def _from_own_run(name: str) -> nn.Module | None:
    """A model of the registry that does not ship, from the reader's own run; None where that has no record."""
    if name not in models() or models()[name].block:
        return None
    spec, store = models()[name].spec(), RunStore(default_runs_root())
    if (record := store.record(spec)) is None:
        return None
    path = store.directory(spec) / "weights.safetensors"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{name}: {path} cannot be read ({error.strerror})") from None
    if (found := hashlib.sha256(content).hexdigest()) != record.weights_sha256:
        raise ValueError(f"{name}: {path} has sha256 {found}, its record says {record.weights_sha256}")
    model = build(models()[name].config(spec), name)
    load_weights(model, content, name, file="weights.safetensors")
    return model.eval()


def _from_folder(folder: Path) -> nn.Module:
    """A published model that was copied somewhere, held to the record that lies beside it."""
    check_pickles(sorted(p.name for p in folder.iterdir()), str(folder))
    try:
        text, content, record = (folder / f for f in ("config.json", "weights.safetensors", "record.json"))
        config, weights = parse_config(text.read_bytes(), f"{folder}: config.json"), content.read_bytes()
        stated = Record.from_json(record.read_text(encoding="utf-8"), str(record)).weights_sha256
    except OSError as error:
        raise ValueError(
            f"{folder} is no published model: {error.filename} cannot be read ({error.strerror})"
        ) from None
    if (found := hashlib.sha256(weights).hexdigest()) != stated:
        raise ValueError(f"{folder}: weights.safetensors has sha256 {found}, its record says {stated}")
    model = build(config, str(folder))
    load_weights(model, weights, str(folder), file="weights.safetensors")
    return model.eval()


def _contents(entry: Entry, revision: str | None) -> tuple[Config, bytes]:
    """Configuration and weights, each read once and hashed before it is used."""
    hashes = packaged_files(entry) if revision is None else None
    if hashes is not None:
        folder = package_folder() / entry.name
        read = partial(_read, folder, hashes, f"weights/{entry.name}", "install the package again")
        text = read("config.json")
        config = _block(entry.name, text) if entry.dtype else parse_config(text, f"weights/{entry.name}")
        return config, read("weights.safetensors")
    folder, hashes = pull(entry, revision, thorough=False)
    try:
        return _cached(entry, folder, hashes)
    except ValueError:
        # The sizes are right and a hash is not: the file has changed since it was pulled.
        return _cached(entry, *pull(entry, revision))


def _cached(entry: Entry, folder: Path, hashes: Mapping[str, str]) -> tuple[Config, bytes]:
    read = partial(_read, folder, hashes, entry.name, f"run `repro weights pull {entry.name}`")
    text, content = read("config.json"), read("weights.safetensors")
    return parse_config(text, f"{entry.name}: config.json"), content


def _read(folder: Path, hashes: Mapping[str, str], where: str, advice: str, file: str) -> bytes:
    try:
        content = (folder / file).read_bytes()
    except OSError as error:
        raise HubError(f"{where}/{file} cannot be read ({error.strerror}); {advice}") from None
    if (found := hashlib.sha256(content).hexdigest()) != hashes[file]:
        raise ValueError(f"{where}/{file} has sha256 {found}, the manifest says {hashes[file]}; {advice}")
    return content


def _block(name: str, text: bytes) -> Config:
    """The configuration of a building block, whose file inside the package holds the arguments alone."""
    return block_config(name, json.loads(text))


def _class(config: Config, where: str) -> tuple[type[nn.Module], Any]:
    """The class that a configuration names and what builds it; nothing outside this package is imported."""
    label = f"{config.module}.{config.name}"
    place = MOVED.get(label, config.module)
    refusal = f"{where}: class {label!r} is no model of this package"
    if not f"{place}.".startswith(MODEL_MODULES):
        raise ValueError(refusal)
    try:
        found = find_spec(place)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise ValueError(refusal)
    module = import_module(place)
    cls = vars(module).get(config.name)
    if not inspect.isclass(cls) or not issubclass(cls, nn.Module) or cls.__module__ != place:
        raise ValueError(refusal)
    return cls, vars(module)[FACTORIES[label]] if label in FACTORIES else cls


def build(config: Config, where: str) -> nn.Module:
    """The untrained module of a configuration.

    Arguments:
        config: Its class with plain arguments, or the run whose paper builds it.
        where: What it belongs to, for messages.

    Raises:
        ValueError: If the class is no module of this package, or does not take the arguments.
    """
    if config.encoding is not None:
        return _decoded(config.encoding, where)
    cls, factory = _class(config, where)
    try:
        with isolated_rng(0):
            if config.spec is not None:
                model = _from_run(config, where)
            else:
                positional, options = _arguments(factory, config, where)
                model = factory(*positional, **options)
    except (TypeError, ValueError, KeyError, RuntimeError, AttributeError) as error:
        text = " ".join(str(error).split())
        known = text.startswith(f"{where}:")
        raise ValueError(text if known else f"{where}: {config.name} cannot be built ({text})") from None
    if type(model) is not cls:
        raise ValueError(f"{where}: the configuration names {config.name}, its run builds {type(model).__name__}")
    return model


def _decoded(encoding: Mapping[str, Any], where: str) -> nn.Module:
    try:
        with isolated_rng(0):
            model = decode(encoding)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: {' '.join(str(error).split())}") from None
    if not isinstance(model, nn.Module):
        raise ValueError(f"{where}: the configuration describes no model")
    return model


def _from_run(config: Config, where: str) -> nn.Module:
    assert config.spec is not None
    if config.spec.paper not in papers():
        raise ValueError(f"{where}: unknown paper {config.spec.paper!r}; one of {', '.join(papers())}")
    return experiment_of(config.spec).build(config.spec)


def _arguments(factory: Any, config: Config, where: str) -> tuple[list[Any], dict[str, Any]]:
    """Plain values as the class takes them: modalities as specifications, names of types as types."""
    known = inspect.signature(factory).parameters
    if unknown := sorted(set(config.arguments) - set(known)):
        raise ValueError(f"{where}: {config.name} has no arguments {unknown}")
    options = {}
    for key, value in config.arguments.items():
        if key.endswith("_dtype"):
            if value not in DTYPES:
                raise ValueError(f"{where}: {key} is {value!r}, must be one of {DTYPES}")
            # Layers in float32 are the plain ones.
            value = None if key == "hidden_dtype" and value == "float32" else getattr(torch, value)
        options[key] = value
    if config.modalities is None:
        return [], options
    specs = {m: _modality(fields, f"{where}: modality {m}") for m, fields in config.modalities.items()}
    return [], options | {"modalities": specs}


def _modality(fields: Mapping[str, Any], where: str) -> ModalitySpec:
    known = {"shape", "kind", "range", "unit"}
    if not {"shape"} <= set(fields) <= known or not isinstance(fields["shape"], list):
        raise ValueError(
            f"{where}: {dict(fields)}, must have a shape and perhaps {', '.join(sorted(known - {'shape'}))}"
        )
    limits = fields.get("range")
    values = {k: v for k, v in fields.items() if k not in ("shape", "range")}
    return ModalitySpec(tuple(fields["shape"]), range=None if limits is None else tuple(limits), **values)
