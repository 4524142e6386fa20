"""Multi-omics cohorts in MLOmics' file format: the pan-cancer one, and a small real one of breast tumours."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum, sqrt
from pathlib import Path

import numpy as np

from repro.datasets.base import Dataset
from repro.datasets.cache import Writer, prepared
from repro.datasets.card import Card
from repro.datasets.exact import permutation
from repro.datasets.fetch import FetchError, fetch, sha256_of, unpack_gzip

__all__ = ["Labels", "Matrix", "load", "read_labels", "read_matrix", "standardise", "stratified"]


@dataclass(frozen=True)
class Matrix:
    """One omics layer.

    Arguments:
        values: Samples by features, float64.
        samples: Names of the samples, in the order of the file's columns.
        features: Names of the features.
    """

    values: np.ndarray
    samples: tuple[str, ...]
    features: tuple[str, ...]


@dataclass(frozen=True)
class Labels:
    """Class of every sample.

    Arguments:
        classes: Integer classes, of shape ``(N,)``.
        splits: The source's own split of every sample, empty where it has none.
    """

    classes: np.ndarray
    splits: tuple[str, ...]


def read_matrix(content: bytes, where: str) -> Matrix:
    """Reads a layer: a header of ``sample`` and the samples' names, then one feature a row.

    Arguments:
        content: The CSV's bytes.
        where: The file's name, for messages.

    Raises:
        ValueError: If the header is another one, a name occurs twice, a row has another length, or a value is not a
            finite number; it names the row.
    """
    lines = content.decode("utf-8-sig").rstrip().splitlines()
    header = [cell.strip().strip('"') for cell in lines[0].split(",")] if lines else []
    if len(header) < 2 or header[0] != "sample":
        raise ValueError(f"{where}: the first cell is {header[:1]}, expected 'sample'")
    samples, features = tuple(header[1:]), []
    values = np.empty((len(lines) - 1, len(samples)))
    for row, line in enumerate(lines[1:]):
        name, _, numbers = line.partition(",")
        features.append(name.strip().strip('"'))
        cells = numbers.split(",")
        here = f"{where}: row {row + 2} ({features[-1]})"
        if len(cells) != len(samples):
            raise ValueError(f"{here} has {len(cells)} cells for {len(samples)} samples")
        try:
            values[row] = np.array(cells, dtype=np.float64)
        except ValueError as error:
            raise ValueError(f"{here} has a cell that is no number: {error}") from None
        if not np.isfinite(values[row]).all():
            raise ValueError(f"{here} has a value that is not finite")
    for what, names in (("sample", samples), ("feature", features)):
        if len(set(names)) != len(names):
            raise ValueError(f"{where}: {what} {next(n for n in names if names.count(n) > 1)!r} occurs twice")
    return Matrix(np.ascontiguousarray(values.T), samples, tuple(features))


def read_labels(content: bytes, samples: Sequence[str], where: str) -> Labels:
    """Reads the classes: by sample where the file names samples, by position where it has the column ``Label`` alone.

    Arguments:
        content: The CSV's bytes.
        samples: Names of the samples, in the order of the layers' columns.
        where: The file's name, for messages.

    Raises:
        ValueError: If there is no column ``Label``, a label is no integer of at least 0, a sample occurs twice, or
            samples do not fit.
    """
    rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig").rstrip())))
    if not rows or "Label" not in rows[0]:
        raise ValueError(f"{where}: no column 'Label'")
    if "sample" in rows[0]:
        by_name: dict[str, dict[str, str]] = {}
        for number, row in enumerate(rows, 2):
            if row["sample"] in by_name:
                raise ValueError(f"{where}: row {number}: sample {row['sample']!r} occurs twice")
            by_name[row["sample"]] = row
        if missing := [s for s in samples if s not in by_name]:
            raise ValueError(f"{where}: no label for sample {missing[0]!r} ({len(missing)} in all)")
        rows = [by_name[s] for s in samples]
    elif len(rows) != len(samples):
        raise ValueError(f"{where}: {len(rows)} labels for {len(samples)} samples")
    for row in rows:
        if not str(row["Label"]).strip().isdigit():
            raise ValueError(f"{where}: label {row['Label']!r} is not an integer of at least 0")
    splits = tuple(row["split"] for row in rows) if "split" in rows[0] else ()
    if unknown := set(splits) - {"train", "test"}:
        raise ValueError(f"{where}: split {sorted(unknown)[0]!r}, must be train or test")
    return Labels(np.array([int(row["Label"]) for row in rows], dtype=np.int64), splits)


def stratified(classes: np.ndarray, seed: int, name: str, fraction: float = 0.2) -> np.ndarray:
    """Whether each sample is of the test split: the nearest integer to ``fraction`` of every class, at least one.

    Arguments:
        classes: Integer classes, of shape ``(N,)``.
        seed: The seed.
        name: The dataset's name, which tells its randomness from others.
        fraction: Part of every class that is held out.

    Raises:
        ValueError: If a class has one sample only.
    """
    test = np.zeros(len(classes), dtype=bool)
    for label in np.unique(classes):
        members = np.flatnonzero(classes == label)
        if len(members) < 2:
            raise ValueError(f"{name}: class {label} has one sample, which cannot be split")
        held_out = min(max(1, int(fraction * len(members) + 0.5)), len(members) - 1)
        test[members[permutation(len(members), seed, name, "split", int(label))[:held_out]]] = True
    return test


def standardise(values: np.ndarray, train: np.ndarray) -> np.ndarray:
    r"""Features less their mean over their standard deviation, both of the training samples.

    Sums are correctly rounded, so the result is the same on every machine. A feature that is constant in training is
    only centred.

    Arguments:
        values: Samples by features, float64.
        train: Whether each sample is of the training split.
    """
    out = np.empty(values.shape, dtype=np.float32)
    count = int(train.sum())
    for feature in range(values.shape[1]):
        column = values[:, feature]
        mean = fsum(column[train].tolist()) / count
        centred = column - mean
        scale = sqrt(fsum((centred[train] * centred[train]).tolist()) / count)
        out[:, feature] = centred / scale if scale > 0.0 else centred
    return out


def load(card: Card, split: str, *, seed: int = 0, standardised: bool = True) -> Dataset:
    """Loads a cohort.

    Arguments:
        card: The dataset's card; a source of every modality's group, and one of the group ``"labels"``.
        split: ``"train"`` or ``"test"``: the source's own split where it has one, else 80/20 in every class by seed.
        seed: The seed of that split.
        standardised: Whether features are standardised on the training split.

    Raises:
        ValueError: If the layers' samples are not the same in the same order.
    """

    def build(writer: Writer) -> None:
        paths = _paths(card)
        layers = {m: read_matrix(unpack_gzip(paths[m]), paths[m].name) for m in card.modalities}
        _check_order(card.name, layers)
        samples = next(iter(layers.values())).samples
        labels = read_labels(unpack_gzip(paths["labels"]), samples, paths["labels"].name)
        own = bool(labels.splits)
        test = np.array([s == "test" for s in labels.splits]) if own else stratified(labels.classes, seed, card.name)
        chosen = test if split == "test" else ~test
        for m, layer in layers.items():
            values = standardise(layer.values, ~test) if standardised else layer.values.astype(np.float32)
            writer.put(m, values[chosen])
        writer.put("labels", labels.classes[chosen])
        writer.provenance = {
            "source": {m: {"file": path.name, "sha256": sha256_of(path)} for m, path in paths.items()},
            "split": "the source's" if own else f"stratified, seed {seed}",
            "standardised": standardised,
            "samples": [s for s, c in zip(samples, chosen, strict=True) if c],
        }
        writer.variant = "" if standardised and seed == card.generation["seed"] else None

    return prepared(card, split, {"seed": seed, "standardised": standardised}, build)


def _paths(card: Card) -> dict[str, Path]:
    paths = {}
    for group in (*card.modalities, "labels"):
        (source,) = card.sources_of(group)
        try:
            paths[group] = fetch(source)
        except FetchError as error:
            raise FetchError(f"{error}. {card.manual}".removesuffix(". ")) from error
    return paths


def _check_order(name: str, layers: Mapping[str, Matrix]) -> None:
    first, *others = layers
    for m in others:
        for n, (a, b) in enumerate(zip(layers[first].samples, layers[m].samples, strict=False)):
            if a != b:
                raise ValueError(f"{name}: column {n + 2} is {a!r} in {first} and {b!r} in {m}")
        if len(layers[first].samples) != len(layers[m].samples):
            raise ValueError(
                f"{name}: {len(layers[first].samples)} samples in {first}, {len(layers[m].samples)} in {m}"
            )
