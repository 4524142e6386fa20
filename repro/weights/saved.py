"""Models of one's own in a folder: weights as safetensors, and a config.json that builds the same model again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from repro import __version__
from repro.networks.construction import decode, encode, unrecorded
from repro.weights.folder import CARD, CONFIG, WEIGHTS, is_repo, read

__all__ = ["contents_from", "contents_of", "load_weights", "restore", "write"]

FORMAT = "repro-model/1"
FIELDS = {"format", "library_name", "version", "model", "dtype", "weights", "digest"}
PLAIN = (bool, int, float, str, tuple)


def _digest(value: Mapping[str, Any]) -> str:
    text = json.dumps({k: v for k, v in value.items() if k != "digest"}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every tensor of a model on the CPU; one that two names share is there under both, each with its own memory."""
    found: dict[str, Tensor] = {}
    held: set[int] = set()
    for name, value in model.state_dict().items():
        tensor = value.detach().cpu().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        found[name] = tensor.clone() if storage in held else tensor
        held.add(storage)
    return found


def _attributes(model: nn.Module) -> dict[str, Any]:
    """Class and plain settings of every part of a model, by its name."""
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        found[name] = type(module)
        for key, value in vars(module).items():
            if key != "training" and not key.startswith("_") and isinstance(value, PLAIN):
                found[f"{name}.{key}".lstrip(".")] = value
    return found


def _check_built(model: nn.Module, encoding: dict[str, Any]) -> None:
    """Refuses a model that was changed after it was built, so that its arguments do not give it again."""
    if any(name for _, name in unrecorded(encoding)):
        return  # only who has the classes can build it
    other = decode(encoding)
    mine, built = _attributes(model), _attributes(other)
    changed = sorted(k for k in set(mine) | set(built) if repr(mine.get(k)) != repr(built.get(k)))
    shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (model, other)]
    changed += sorted(k for k in set(shapes[0]) | set(shapes[1]) if shapes[0].get(k) != shapes[1].get(k))
    if changed:
        name = changed[0]
        raise ValueError(
            f"{type(model).__name__} was changed after it was built: {name or 'its class'} is "
            f"{mine.get(name, 'different')}, its arguments give {built.get(name, 'another')}; build it with its final "
            f"arguments and load its state_dict()"
        )


def contents_from(source: str | Path, revision: str | None = None) -> dict[str, bytes]:
    """Configuration and weights of a folder, or else of a repository of the Hub.

    Raises:
        ValueError: If it is neither, a folder has a revision, or as :func:`~.shared.fetch` and :func:`~.folder.read`.
        HubError: As :func:`~.shared.fetch`.
    """
    if not Path(source).is_dir() and is_repo(source):
        from repro.weights.shared import fetch  # the Hub's client takes a fifth of a second to import

        return fetch(str(source), revision)
    if revision is not None:
        raise ValueError(f"{source} is a folder, which has no revision {revision!r}")
    return read(Path(source))


def contents_of(model: nn.Module, card: str) -> dict[str, bytes]:
    """The files of a model: weights, configuration and card.

    Arguments:
        model: The model; every class and argument must be one that can be written down.
        card: The README.

    Raises:
        ValueError: If an argument cannot be written down, or the model was changed after it was built.
    """
    encoding = encode(model)
    _check_built(model, encoding)
    weights = to_bytes(_tensors(model), {"format": "pt"})
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.get_default_dtype())
    config: dict[str, Any] = {
        "format": FORMAT,
        "library_name": "repro",
        "version": __version__,
        "model": encoding,
        "dtype": str(dtype).removeprefix("torch."),
        "weights": {"bytes": len(weights), "sha256": hashlib.sha256(weights).hexdigest()},
    }
    config["digest"] = _digest(config)
    text = json.dumps(config, indent=1, allow_nan=False) + "\n"
    return {WEIGHTS: weights, CARD: card.encode(), CONFIG: text.encode()}


def write(folder: Path, contents: Mapping[str, bytes]) -> Path:
    """Puts files into a folder: all are written in full before the first takes its place.

    A README that is there stays, as it may be the reader's own.

    Raises:
        ValueError: If the folder cannot be written to; what was there before is untouched.
    """
    partials = {folder / f: folder / f".{f}.{os.getpid()}.partial" for f in contents}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / CARD).exists():
            partials.pop(folder / CARD, None)
        for path, partial in partials.items():
            with open(partial, "wb") as handle:
                handle.write(contents[path.name])
                handle.flush()
                os.fsync(handle.fileno())
        for path, partial in partials.items():
            os.replace(partial, path)
    except OSError as error:
        for partial in partials.values():
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
        raise ValueError(f"cannot write {folder}: {error.strerror or error}") from None
    return folder


def _configuration(text: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
        digest = _digest(value) if isinstance(value, dict) else ""
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: {CONFIG} is not JSON ({' '.join(str(error).split())})") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise ValueError(f"{where}: {CONFIG} is not of a model that this package saved")
    if set(value) != FIELDS or value["digest"] != digest or not isinstance(value["weights"], dict):
        raise ValueError(f"{where}: {CONFIG} is not as it was saved")
    return value


def restore(
    contents: Mapping[str, bytes],
    where: str,
    *,
    own: type | None = None,
    trusted: bool = False,
    given: Mapping[str, Any] | None = None,
) -> nn.Module:
    """The model that files describe, in evaluation mode on the CPU.

    Arguments:
        contents: Configuration and weights.
        where: What they belong to, for messages.
        own, trusted, given: As :func:`~repro.networks.construction.decode` takes them.

    Raises:
        ValueError: If a file is not as it was saved, or the model cannot be built, or the weights are not its own.
    """
    config = _configuration(contents[CONFIG], where)
    weights, stated = contents[WEIGHTS], config["weights"]
    if len(weights) != stated.get("bytes"):
        raise ValueError(f"{where}: {WEIGHTS} has {len(weights)} bytes, {CONFIG} says {stated.get('bytes')}")
    if (found := hashlib.sha256(weights).hexdigest()) != stated.get("sha256"):
        raise ValueError(f"{where}: {WEIGHTS} has sha256 {found}, {CONFIG} says {stated.get('sha256')}")
    try:
        model = decode(config["model"], trusted=trusted, own=own, given=given)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: {' '.join(str(error).split())}") from None
    dtype = getattr(torch, str(config["dtype"]), None)
    if not isinstance(model, nn.Module) or not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f"{where}: {CONFIG} describes no model")
    load_weights(model.to(dtype), weights, where, exact=True)
    return model.eval()


def load_weights(model: nn.Module, content: bytes, where: str, *, file: str = WEIGHTS, exact: bool = False) -> None:
    """Loads every tensor of a module, and no other, from the content of a safetensors file.

    Arguments:
        model: The module; half-precision values become its own type.
        content: The file's content.
        where: What it belongs to, for messages.
        file: The file's name, for messages.
        exact: Whether the module's tensors take the file's precisions instead.

    Raises:
        ValueError: If it is no safetensors file, or names, shapes or kinds of tensors are not the module's.
    """
    try:
        tensors: dict[str, Tensor] = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ValueError(f"{where}: {file} is no safetensors file ({error})") from None
    state = model.state_dict(keep_vars=True)
    missing, extra = sorted(set(state) - set(tensors)), sorted(set(tensors) - set(state))
    if missing or extra:
        sides = {"lack": missing, "have unknown": extra}
        parts = [f"{w} {', '.join(names[:3])}{' ...' * (len(names) > 3)}" for w, names in sides.items() if names]
        raise ValueError(f"{where}: the weights {' and '.join(parts)}; they are not those of {type(model).__name__}")
    for key, value in tensors.items():
        if value.shape != state[key].shape or not _fits(value, state[key].dtype):
            raise ValueError(
                f"{where}: {key} is {value.dtype} of shape {tuple(value.shape)}, {type(model).__name__} needs "
                f"{state[key].dtype} of shape {tuple(state[key].shape)}"
            )
        if exact and value.dtype != state[key].dtype:
            state[key].data = state[key].data.to(value.dtype)
    model.load_state_dict(tensors, strict=True)


def _fits(value: Tensor, dtype: torch.dtype) -> bool:
    """Whether values become another type as meant: precisions of floats, and what other types hold exactly."""
    if dtype.is_floating_point:
        return value.is_floating_point()
    return torch.equal(value.to(dtype).to(value.dtype), value)
