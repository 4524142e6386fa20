"""Which weights ship inside the package, and how they get there from a recorded run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from repro.artifacts.render import record_path
from repro.datasets.former import changes
from repro.engine.store import RunStore, figures_root, file_sha256, read_record, sound_record, write_atomically
from repro.errors import RunError
from repro.hub.card import model_card
from repro.hub.config import FILES, PICTURE, Config, parse_config
from repro.hub.load import build, load_weights
from repro.hub.manifest import Entry, read_manifest, write_manifest
from repro.hub.picture import samples_picture
from repro.hub.registry import SHIPMENTS, Shipment, best_run, models
from repro.hub.rounding import rounded
from repro.records import Record
from repro.weights.folder import package_folder

__all__ = ["MOST_BYTES", "contents_of", "new_entry", "renew_cards", "ship", "ship_all"]

# What is larger goes to the Hub alone.
MOST_BYTES, MOST_BYTES_IN_ALL = 4_000_000, 60_000_000


def ship(
    name: str,
    store: RunStore,
    folder: Path | None = None,
    *,
    figures: Path | None = None,
    half: bool = False,
) -> Path:
    """Copies a recorded run's weights into the package, with their configuration and record, and notes their hashes.

    A model of the papers gets its card too, and its entry in the manifest of weights says how its record compares with
    the one beside the figures. Training is deterministic on one type of processor only, so a run that was repeated
    elsewhere may have other weights: its own record then ships with it, the data must be the same, and the manifest and
    the card state both headline values.

    Arguments:
        name: A building block of ``SHIPMENTS``, or a model of :func:`repro.hub.registry.models`.
        store: Where the run's directory lies.
        folder: The folder of weights and of their manifest; the package's own if None.
        figures: Where committed records lie; the package's own if None.
        half: Whether a model of the papers ships in half precision where its headline metric allows
            (:func:`repro.hub.rounding.rounded`), which is measured first.

    Returns:
        The folder of these weights.

    Raises:
        ValueError: If there is no such name.
        RunError: If the run has no record, was made from a changed checkout or in the smoke profile, its weights are
            not the record's, its data are not the committed record's, or it is too large to ship.
    """
    return ship_all([name], store, folder, figures=figures, half=half)[0]


def ship_all(
    names: Sequence[str],
    store: RunStore,
    folder: Path | None = None,
    *,
    figures: Path | None = None,
    half: bool = False,
) -> list[Path]:
    """Ships several models: all are measured and checked before the first file is written.

    Arguments and errors are those of :func:`ship`.

    Returns:
        The folder of each.
    """
    folder = folder or package_folder()
    manifest = folder / "manifest.toml"
    if unknown := [name for name in names if name not in models()]:
        raise ValueError(f"unknown weights {unknown[0]!r}; one of {', '.join([*SHIPMENTS, *models()])}")
    ready: dict[str, tuple[Mapping[str, bytes | Path], Entry]] = {}
    for name in names:
        block = SHIPMENTS.get(name)
        ready[name] = _block(block, store) if block else contents_of(name, store, figures, half=half)
    known = read_manifest(manifest)
    sizes = {n: e.size for n, e in known.items() if (folder / n / "weights.safetensors").is_file()}
    for name, (_, entry) in ready.items():
        if entry.size > MOST_BYTES:
            raise RunError(
                f"{name} has {entry.size / 1e6:.1f} MB, at most {MOST_BYTES / 1e6:g} MB ship inside the package; "
                f"`repro weights push` takes it from its run"
            )
        sizes[name] = entry.size
    if sum(sizes.values()) > MOST_BYTES_IN_ALL:
        total, most = sum(sizes.values()) / 1e6, MOST_BYTES_IN_ALL / 1e6
        raise RunError(f"with {', '.join(ready)} the package's models have {total:.1f} MB, at most {most:g} MB ship")
    for name in names:
        contents, entry = ready[name]
        if (before := known.get(name)) is not None and before.sha256 == entry.sha256:
            pushed = {k: getattr(before, k) for k in ("repo", "revision", "hub_bytes", "hub_sha256")}
            entry = replace(entry, **pushed)
        for file, content in contents.items():
            write_atomically(folder / name / file, content if isinstance(content, bytes) else content.read_bytes())
        known[name] = entry
    write_manifest(known, manifest)
    return [folder / name for name in names]


def contents_of(
    name: str, store: RunStore, figures: Path | None = None, *, half: bool = False
) -> tuple[dict[str, bytes | Path], Entry]:
    """The files of a model from its run directory, with the card's picture, and its entry of the manifest.

    Arguments:
        name: The model, not a building block.
        store: Where the run's directory lies.
        figures: Where committed records lie; the package's own if None.
        half: As :func:`ship` takes it.

    Raises:
        RunError: As :func:`ship`.
    """
    model, figures = models()[name], figures or figures_root()
    record = sound_record(best_run(model, store), store)
    committed = _committed(record, model.headline, figures)
    if committed.get("weights") == "same":  # a training that was repeated bit for bit: the record is the committed one
        record = read_record(record_path(record.spec, figures), record.spec) or record
    weights: bytes | Path = store.directory(record.spec) / "weights.safetensors"
    lower = rounded(record, model.headline, store, figures) if half else None
    if lower is not None:
        if lower.record.environment["dirty"] is not False:
            raise RunError(f"the checkout has changes; {name} is measured in half precision from a clean commit alone")
        record, weights = lower.record, lower.weights
        if committed.get("weights") == "same":
            committed["weights"] = "rounded"
    config = model.config(record.spec)
    content = weights if isinstance(weights, bytes) else weights.read_bytes()
    contents: dict[str, bytes | Path] = {
        "config.json": config.to_json().encode(),
        "weights.safetensors": weights,
        "record.json": record.to_json().encode(),
        "README.md": model_card(model, record, committed, lower.fields() if lower else {}, figures).encode(),
        PICTURE: _picture(name, config, content),
    }
    entry = new_entry(name, record, model.headline, contents, committed)
    return contents, replace(entry, rounded=lower.fields() if lower else {})


def _picture(name: str, config: Config, weights: bytes) -> bytes:
    module = build(config, name)
    load_weights(module, weights, name, file="weights.safetensors")
    return samples_picture(module.eval())


def renew_cards(names: Sequence[str], folder: Path | None = None, *, figures: Path | None = None) -> list[Path]:
    """Writes cards and pictures of models that ship anew, from their weights and records, which stay as they are.

    Arguments:
        names: Models of the papers; all that ship if empty.
        folder: As :func:`ship` takes it.
        figures: As :func:`ship` takes it.

    Returns:
        The folder of each.

    Raises:
        ValueError: If a name is a building block's, whose card is made when it goes to the Hub, or one that does not
            ship, or a file is not what the manifest states.
    """
    folder, figures = folder or package_folder(), figures or figures_root()
    known = read_manifest(folder / "manifest.toml")
    shipped = [n for n, e in known.items() if not e.dtype and (folder / n / "weights.safetensors").is_file()]
    if unknown := [name for name in names if name not in shipped]:
        raise ValueError(f"{unknown[0]} has no card in the package; one of {', '.join(shipped)}")
    for name in names or shipped:
        entry, model = known[name], models()[name]
        text, weights, stated = (folder / name / f for f in FILES[:3])
        for path in (text, weights, stated):
            if file_sha256(path) != entry.sha256[path.name]:
                raise ValueError(f"{name}/{path.name} is not what the manifest states")
        record = Record.from_json(stated.read_text(encoding="utf-8"), str(stated))
        new = {
            "README.md": model_card(model, record, entry.committed, entry.rounded, figures).encode(),
            PICTURE: _picture(name, parse_config(text.read_bytes(), name), weights.read_bytes()),
        }
        for file, content in new.items():
            write_atomically(folder / name / file, content)
        sizes = dict(entry.bytes) | {f: len(c) for f, c in new.items()}
        hashes = dict(entry.sha256) | {f: hashlib.sha256(c).hexdigest() for f, c in new.items()}
        known[name] = replace(entry, bytes=sizes, sha256=hashes)
    write_manifest(known, folder / "manifest.toml")
    return [folder / name for name in names or shipped]


def new_entry(
    name: str, record: Record, headline: str, contents: Mapping[str, bytes | Path], committed: Mapping[str, Any]
) -> Entry:
    """The manifest's entry of files that are not on the Hub yet.

    Arguments:
        name: The model.
        record: Its record.
        headline: Name of its headline metric.
        contents: Each file's content, or where it lies.
        committed: How the record compares with the one beside the figures.
    """
    sizes = {f: len(c) if isinstance(c, bytes) else c.stat().st_size for f, c in contents.items()}
    hashes = {f: hashlib.sha256(c).hexdigest() if isinstance(c, bytes) else file_sha256(c) for f, c in contents.items()}
    value = record.metric(headline).value
    profile = record.spec.profile
    return Entry(name, record.spec.key, headline, value, sizes, hashes, committed=dict(committed), profile=profile)


def _committed(record: Record, headline: str, figures: Path) -> dict[str, Any]:
    """How a record compares with the one of the same run beside the figures; nothing where there is none."""
    spec = record.spec
    found = read_record(figures / spec.paper / "records" / f"{spec.key}.json", spec)
    if found is None or changes(found.data):
        return {}
    if dict(found.data) != dict(record.data):
        raise RunError(f"{spec.label} was trained or measured on other data than its record in {figures}")
    same = found.weights_sha256 == record.weights_sha256
    return {"weights": "same" if same else "other", "value": found.metric(headline).value}


def _block(shipment: Shipment, store: RunStore) -> tuple[dict[str, bytes | Path], Entry]:
    """The files of a building block from its run directory, and its entry of the manifest."""
    name, record = shipment.name, sound_record(shipment.spec(), store)
    tensors = load_file(store.directory(record.spec) / "weights.safetensors")
    own = {k.removeprefix(shipment.prefix): v for k, v in tensors.items() if k.startswith(shipment.prefix)}
    contents: dict[str, bytes | Path] = {
        "weights.safetensors": save({k: v.to(getattr(torch, shipment.dtype)) for k, v in sorted(own.items())}),
        "config.json": (json.dumps(dict(shipment.config), indent=1) + "\n").encode(),
        "record.json": record.to_json().encode(),
    }
    return contents, replace(new_entry(name, record, shipment.headline, contents, {}), dtype=shipment.dtype)
