"""A package of weights of its own, recorded runs as an execution leaves them, and models on a local Hub."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.engine.store import RunStore, file_sha256
from repro.hub.config import FILES
from repro.hub.manifest import Entry, read_manifest, write_manifest
from repro.hub.package import ship
from repro.hub.registry import Model, models
from repro.papers import experiment_of
from repro.records import Metric, Record

if TYPE_CHECKING:
    from tests.support.hub import ModelHub

NAME, REPO = "gmrf_mcvae/copula", "user/models"
CLEAN = {"commit": "a" * 40, "dirty": False, "device_name": "a processor"}


@dataclass(frozen=True)
class Shelf:
    """A package with no models in it yet, run directories, and the folder of figures."""

    root: Path

    @property
    def store(self) -> RunStore:
        return RunStore(self.root / "runs")

    @property
    def figures(self) -> Path:
        return self.root / "figures"

    @property
    def weights(self) -> Path:
        """The package's folder of weights."""
        return self.root / "package" / "weights"

    @property
    def manifest(self) -> Path:
        return self.weights / "manifest.toml"

    def record(self, name: str = NAME) -> Record:
        """A run directory of a model with untrained weights, and a record of made-up metrics."""
        from safetensors.torch import save_file

        from repro.hub.load import build
        from repro.model import isolated_rng

        model: Model = models()[name]
        spec = model.spec()
        folder = self.store.directory(spec)
        folder.mkdir(parents=True, exist_ok=True)
        with isolated_rng(0):
            module = build(model.config(spec), name)
        save_file(module.state_dict(), folder / "weights.safetensors")
        environment = CLEAN | {"versions": {"torch": "2"}, "device": "cpu", "threads": 1, "training": dict(CLEAN)}
        record = Record(
            spec=spec,
            metrics=[Metric(m, 0.5 + i, "1e-3", 10, "made up") for i, m in enumerate(model.results)],
            environment=environment,
            data={"copula/train": "0" * 64},
            weights_sha256=file_sha256(folder / "weights.safetensors"),
            training_seconds=1.0,
            evaluation_seconds=1.0,
        )
        (folder / "record.json").write_text(record.to_json())
        return record

    def ship(self, name: str = NAME) -> Entry:
        """A model inside the package."""
        self.record(name)
        ship(name, self.store, figures=self.figures)
        return read_manifest()[name]


def published(hub: ModelHub, files: Mapping[str, bytes], name: str = NAME) -> Entry:
    """Files of a model on the Hub, those that are not given made up, and an entry that pins them."""
    from tests.support.hub import Repository

    contents = {file: f"{file} of {name}".encode() for file in FILES} | dict(files)
    repo = hub.repos.setdefault(REPO, Repository())
    commit = repo.add({f"{name}/{file}": content for file, content in contents.items()})
    sizes = {f: len(c) for f, c in contents.items()}
    hashes = {f: hashlib.sha256(c).hexdigest() for f, c in contents.items()}
    return Entry(name, "0" * 16, "m", 1.0, sizes, hashes, REPO, commit)


def pinned(shelf: Shelf, hub: ModelHub, name: str = NAME) -> Entry:
    """A real model that lies on the Hub alone, pinned in the manifest."""
    from tests.support.hub import Repository

    entry = shelf.ship(name)
    repo = hub.repos.setdefault(REPO, Repository())
    commit = repo.add({f"{name}/{file}": (shelf.weights / name / file).read_bytes() for file in FILES})
    entry = replace(entry, repo=REPO, revision=commit)
    for file in FILES:
        (shelf.weights / name / file).unlink()
    write_manifest(read_manifest() | {name: entry})
    return entry


def as_json(entry: Entry) -> str:
    """An entry for another process."""
    return json.dumps({"name": entry.name, **entry.fields()})


def untrained(name: str = NAME) -> Any:
    """The module of a paper, which a configuration has to give as well."""
    spec = models()[name].spec()
    return experiment_of(spec).build(spec)
