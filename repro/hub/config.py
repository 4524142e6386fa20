"""What published weights consist of: names, files, and a configuration that names classes of this package alone."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from repro.datasets.places import offline as own_offline
from repro.errors import RecordError
from repro.records import RunSpec
from repro.weights.folder import check_pickles

__all__ = [
    "BLOCK_FILES",
    "FILES",
    "FORMAT",
    "PICTURE",
    "Config",
    "check_files",
    "check_name",
    "offline",
    "parse_config",
]

FORMAT = "repro-weights/1"
ENCODED = "repro-weights/2"
FILES = ("config.json", "weights.safetensors", "record.json", "README.md")
# Of a building block inside the package, whose card is made when it goes to the Hub.
BLOCK_FILES = FILES[:3]
# The card's picture, of models that draw samples; nothing reads it, so that it is never fetched.
PICTURE = "samples.png"
WORD = r"[a-z0-9]+(?:[_-][a-z0-9]+)*"
CLASS = re.compile(r"(repro(?:\.[a-z_][a-z0-9_]*)+)\.([A-Za-z][A-Za-z0-9]*)")
FIELDS = {"format", "class", "modalities", "arguments", "spec"}


@dataclass(frozen=True)
class Config:
    """How a module is rebuilt: from an encoding, or a class with plain arguments, or a run whose paper builds it.

    Arguments:
        module: The module of the class, within this package; empty where there is an encoding.
        name: The name of the class.
        modalities: Name to shape, kind, range and unit, None where the class takes none.
        arguments: Plain keyword arguments.
        spec: The run, None where the arguments say it all.
        encoding: As :func:`repro.networks.construction.encode` gives it, which names classes by the package's registry.
    """

    module: str = ""
    name: str = ""
    modalities: Mapping[str, Mapping[str, Any]] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    spec: RunSpec | None = None
    encoding: Mapping[str, Any] | None = None

    def to_json(self) -> str:
        """The content of config.json."""
        if self.encoding is not None:
            return json.dumps({"format": ENCODED, "model": self.encoding}, indent=1, allow_nan=False) + "\n"
        value: dict[str, Any] = {"format": FORMAT, "class": f"{self.module}.{self.name}"}
        if self.spec is not None:
            value["spec"] = self.spec.to_dict()
        else:
            if self.modalities is not None:
                value["modalities"] = {m: dict(fields) for m, fields in self.modalities.items()}
            value["arguments"] = dict(self.arguments)
        return json.dumps(value, indent=1, allow_nan=False) + "\n"


def parse_config(text: str | bytes, where: str) -> Config:
    """Reads the content of a config.json.

    Arguments:
        text: Its content.
        where: What it belongs to, for messages.

    Raises:
        ValueError: If it is not such a configuration, or its class is not one of this package by its name.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{where}: not JSON ({error})") from None
    if isinstance(value, dict) and value.get("format") == ENCODED:
        if set(value) != {"format", "model"} or not isinstance(value["model"], dict):
            raise ValueError(f"{where}: a {ENCODED} configuration has a model and nothing else")
        return Config(encoding=value["model"])
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise ValueError(f"{where}: not a {FORMAT} configuration")
    if unknown := sorted(set(value) - FIELDS):
        raise ValueError(f"{where}: unknown fields {unknown}")
    match = CLASS.fullmatch(value["class"]) if isinstance(value.get("class"), str) else None
    if match is None:
        raise ValueError(f"{where}: class {value.get('class')!r} is none of this package")
    modalities, arguments, spec = value.get("modalities"), value.get("arguments", {}), value.get("spec")
    if spec is not None:
        if {"modalities", "arguments"} & set(value):
            raise ValueError(f"{where}: has a spec and arguments; one of them describes a model")
        try:
            return Config(match[1], match[2], spec=RunSpec.from_dict(spec, where))
        except RecordError as error:
            raise ValueError(str(error)) from None
    if not isinstance(arguments, dict):
        raise ValueError(f"{where}: arguments are {arguments!r}, must be a mapping")
    if modalities is not None and not (
        isinstance(modalities, dict) and all(isinstance(m, dict) for m in modalities.values())
    ):
        raise ValueError(f"{where}: modalities are {modalities!r}, must map each name to its shape, kind, range, unit")
    return Config(match[1], match[2], modalities, arguments)


def check_name(name: Any, where: str = "weights") -> str:
    """The name itself, such as ``gmrf_mcvae/copula-mvae`` or ``vaegan-decoder``.

    Raises:
        ValueError: If it is no such name; a path that leaves its folder is none.
    """
    if not isinstance(name, str) or not re.fullmatch(f"{WORD}(?:/{WORD})?", name):
        raise ValueError(f"{where}: {name!r} is no name of weights, such as gmrf_mcvae/copula")
    return name


def check_files(files: Iterable[str], where: str, names: Sequence[str] = FILES) -> None:
    """Refuses files that are none of a model's; one that could be unpickled is never opened.

    Arguments:
        files: What there is.
        where: What it belongs to, for messages.
        names: What there has to be; there may be the card's picture too.

    Raises:
        ValueError: If one leaves the model's folder, is a pickle, or is unknown, or one of the names is missing.
    """
    found = list(files)
    for file in found:
        path = PurePosixPath(file)
        if path.is_absolute() or ".." in path.parts or "\\" in file:
            raise ValueError(f"{where}: the path {file!r} leaves the model's folder")
        check_pickles([file], where)
        if file not in (*names, PICTURE):
            raise ValueError(f"{where}: unknown file {file!r}; a model has {', '.join(names)}")
    if missing := [file for file in names if file not in found]:
        raise ValueError(f"{where}: no {', '.join(missing)}")


def offline() -> str:
    """Which setting forbids the network, empty where it is allowed."""
    if own_offline():
        return "REPRO_OFFLINE is 1"
    value = os.environ.get("HF_HUB_OFFLINE", "")
    return f"HF_HUB_OFFLINE is {value}" if value.upper() in ("1", "ON", "YES", "TRUE") else ""
