"""Stored samples as pictures and numbers that the page of samples picks from: no server, and no sample drawn anew."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

from repro.artifacts.planning import distinguished
from repro.records import PROFILES, Record
from repro.report.names import NAMES, named, titled

# Datasets of pictures in the order of the picker; others after them.
FIRST = ("mnist_triples", "polymnist", "biked_rendered", "extended_polymnist", "correlated_mnist")
SCATTERED = ("copula", "skewed_copula")
POINTS = 1000  # of each sample that is scattered
MEASURES = {
    "test/correlation/joint": "joint samples",
    "test/correlation/given-m0": "second image given the first",
    "test/correlation/given-m1": "first image given the second",
}

Row = tuple[str, str, np.ndarray]  # role, label, pictures (number, height, width) or with three channels last


def _runs(root: Path) -> Iterator[tuple[Record, str, Mapping[str, np.ndarray]]]:
    found: dict[tuple[str, str, str], list[tuple[Record, Path]]] = {}
    for path in sorted((root / "figures").glob("*/records/*.safetensors")):
        record = Record.from_json(path.with_suffix(".json").read_text(encoding="utf-8"))
        found.setdefault((record.spec.dataset, record.spec.paper, record.spec.profile), []).append((record, path))
    # The profile that is nearest to the paper's comes first, so that it is what is seen at first.
    for key in sorted(found, key=lambda k: ([*FIRST, k[0]].index(k[0]), k[1], PROFILES.index(k[2]))):
        labels = distinguished([r.spec for r, _ in found[key]])
        for record, path in sorted(found[key], key=lambda run: labels[run[0].spec]):
            yield record, named(labels[record.spec]), load_file(path)


def _rows(samples: Mapping[str, np.ndarray]) -> dict[str, list[Row]]:
    """What a run has stored, by what was observed: rows of pictures, observed and true ones first."""
    names = sorted(samples)
    found: dict[str, list[Row]] = {}
    if any(n.startswith("generated/") for n in names):
        (given,) = (n.removeprefix("true/") for n in names if n.startswith("true/") and n != "true/whole")
        rows = [("observed", given, samples[f"true/{given}"])]
        rows += [("true", "whole", samples["true/whole"])] if "true/whole" in samples else []
        made = [n for n in names if n.startswith("generated/")]
        rows += [("generated", n.removeprefix("generated/"), samples[n]) for n in made if n != f"generated/{given}"]
        found[f"{given} alone"] = rows
    elif "true.m0" in samples:
        modalities = [n.removeprefix("true.") for n in names if n.startswith("true.")]
        for given in ("m0", "m1"):
            rows = [("observed" if m == given else "true", m, samples[f"true.{m}"]) for m in modalities]
            made = [("reconstructed" if m == given else "generated", m, samples[f"{given}.{m}"]) for m in modalities]
            found[f"{given} alone"] = rows + made
        found["nothing: joint samples"] = [("generated", m, samples[f"prior.{m}"]) for m in modalities]
    elif "given_m0/m0" in samples:
        for key, seen in (("given_m0", ("m0",)), ("given_m1", ("m1",)), ("joint", ("m0", "m1"))):
            rows = [("observed" if m in seen else "true", m, samples[f"true/{m}"]) for m in ("m0", "m1")]
            for m in ("m0", "m1"):
                role = "reconstructed" if m in seen else "generated"
                rows += [(role, f"{m}, sample {i + 1}", x) for i, x in enumerate(samples[f"{key}/{m}"])]
            found["both" if key == "joint" else f"{seen[0]} alone"] = rows
    elif any(n.startswith("joint/") for n in names):
        for name in (n for n in names if n.startswith("given/")):
            m = name.removeprefix("given/")
            rows = [("generated", f"{m}, sample {i + 1}", x) for i, x in enumerate(samples[name])]
            found[f"all but {m}"] = rows
        found["nothing: joint samples"] = [
            ("generated", n.removeprefix("joint/"), samples[n]) for n in names if n.startswith("joint/")
        ]
    elif "samples" in samples:
        rows = samples["samples"]
        found["nothing: joint samples"] = [
            ("generated", f"samples {i + 1} to {i + 10}", rows[i : i + 10]) for i in range(0, 50, 10)
        ]
    return found


def _strip(pictures: np.ndarray, path: Path) -> list[int]:
    """Writes a row of pictures as one PNG; returns its width and height."""
    if pictures.ndim == 4:
        pictures = pictures.transpose(0, 2, 3, 1)
        pictures = pictures[..., 0] if pictures.shape[-1] == 1 else pictures
    strip = np.concatenate([*pictures], axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(strip).save(path, optimize=True)
    return [strip.shape[1], strip.shape[0]]


def _images(root: Path, out: Path) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for record, label, samples in _runs(root):
        if record.spec.dataset in SCATTERED:
            continue
        for condition, rows in _rows(samples).items():
            shown = []
            for i, (role, name, pictures) in enumerate(rows):
                place = f"{record.spec.key}-{condition.split(':')[0].replace(' ', '-')}-{i}.png"
                size = _strip(pictures, out / "_files" / "samples" / place)
                shown.append({"role": role, "name": name, "src": place, "size": size})
            dataset = f"{record.spec.dataset} ({titled(record.spec.paper)}, profile {record.spec.profile})"
            data.setdefault(dataset, {}).setdefault(condition, {})[label] = shown
    return data


def _scatter(root: Path) -> dict[str, Any]:
    from repro.datasets import load_dataset

    def rounded(values: Mapping[str, np.ndarray]) -> list[list[int]]:
        joined = np.concatenate([values[f"m{k}"][:POINTS] for k in range(4)], axis=1).astype(np.float64)
        return np.round(joined * 1000).astype(int).T.tolist()

    data: dict[str, Any] = {}
    for record, label, samples in _runs(root):
        name = record.spec.dataset
        if name not in SCATTERED:
            continue
        if name not in data:
            true = load_dataset(name, split="test").data
            data[name] = {"true": rounded({m: x.numpy() for m, x in true.items()}), "models": {}}
        data[name]["models"].setdefault(label, rounded(samples))  # of two profiles, the first
    for found in data.values():
        values = np.array(found["true"])
        found["range"] = [int(values.min()), int(values.max())]
    return data


def _correlations(root: Path) -> dict[str, Any]:
    """Correlation of samples against that of the data, of the runs of CoVAE's Figure 5."""
    from repro.artifacts.render import Sources, find, plan

    sources = Sources(None, root / "figures")
    data: dict[str, Any] = {title: {} for title in MEASURES.values()}
    for specs in plan(find("covae/fig5"), "quick").values():
        for record in (r for s in specs if (r := sources.record(s)) is not None):
            true = record.metric("test/correlation/true").value
            for metric, title in MEASURES.items():
                label = NAMES.get(record.spec.method, record.spec.method)
                data[title].setdefault(label, []).append([true, record.metric(metric).value])
    return {title: {m: sorted(points) for m, points in models.items()} for title, models in data.items()}


def write(root: Path, out: Path) -> None:
    """Writes the pictures, and the script that lists them, into the built site."""
    data = {"images": _images(root, out), "scatter": _scatter(root), "correlations": _correlations(root)}
    text = f"window.REPRO_SAMPLES = {json.dumps(data, separators=(',', ':'), ensure_ascii=False)};\n"
    (out / "_static" / "samples-data.js").write_text(text, encoding="utf-8")
