"""Tiny file trees in every published format, and cards that describe them."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from repro.datasets.card import cards_directory

DIGITS = {"train": 60, "test": 20}
BACKGROUND = 40
SPLITS = ("train", "test")


def card_text(name: str, **changes: Any) -> str:
    """The package's card of a dataset, with fields of its ``repro`` mapping replaced."""
    _, header, body = (cards_directory() / f"{name}.md").read_text(encoding="utf-8").split("---\n", 2)
    fields = yaml.safe_load(header)
    fields["repro"].update(changes)
    return f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}---\n{body}"


def own_fields(name: str) -> dict[str, Any]:
    """The ``repro`` mapping of the package's card."""
    return yaml.safe_load((cards_directory() / f"{name}.md").read_text(encoding="utf-8").split("---\n", 2)[1])["repro"]


def mnist_digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images of noise, each with its own corner pixel, and the labels 0 to 9 in turn."""
    count = DIGITS[split]
    images = np.random.default_rng(SPLITS.index(split)).integers(0, 256, (count, 28, 28), dtype=np.uint8)
    images[:, 0, 0] = np.arange(count)
    return images, (np.arange(count) * 3 % 10).astype(np.uint8)


def idx(array: np.ndarray) -> bytes:
    """An array of unsigned bytes in the IDX format."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def write_mnist(folder: Path) -> str:
    """MNIST's four files; returns their card."""
    fields = own_fields("mnist")
    for source in fields["sources"]:
        images, labels = mnist_digits(source["group"])
        raw = idx(images if "images" in source["filename"] else labels)
        source["raw_md5"] = hashlib.md5(raw).hexdigest()
        path = folder / source["filename"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(raw, 1))
    return card_text("mnist", sources=fields["sources"], splits={s: {"count": n} for s, n in DIGITS.items()})


def write_backgrounds(folder: Path, name: str, splits: dict[str, int], without: str = "") -> str:
    """Backgrounds of a PolyMNIST, all but one; returns the dataset's card.

    Arguments:
        folder: The mirror.
        name: ``"polymnist"`` or ``"extended_polymnist"``.
        splits: Split to number of samples.
        without: Name of a background that is left out.
    """
    fields = own_fields(name)
    kept = [s for s in fields["sources"] if s["group"] != "archive"]
    for n, source in enumerate(kept):
        pixels = np.random.default_rng(n).integers(0, 256, (BACKGROUND, BACKGROUND + 10, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG")
        for key in ("bytes", "git_blob"):
            source.pop(key, None)
        source["sha256"] = hashlib.sha256(buffer.getvalue()).hexdigest()
        path = folder / source["filename"]
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.name != without:
            path.write_bytes(buffer.getvalue())
    return card_text(name, sources=fields["sources"], splits={s: {"count": n} for s, n in splits.items()})


def poly_arrays(split: str) -> tuple[list[np.ndarray], np.ndarray]:
    """Five modalities of uint8 images and their labels."""
    rng = np.random.default_rng(10 + SPLITS.index(split))
    labels = rng.integers(0, 10, DIGITS[split])
    return [rng.integers(0, 256, (DIGITS[split], 3, 28, 28), dtype=np.uint8) for _ in range(5)], labels


def write_poly_tensors(folder: Path) -> Path:
    """PolyMNIST as Zenodo's archive has it; returns the zip file."""
    path = folder / "polymnist" / "PolyMNIST.zip"
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as file:
        for split in SPLITS:
            arrays, labels = poly_arrays(split)
            contents = {f"m{m}": torch.from_numpy(a).float() / 255 for m, a in enumerate(arrays)}
            for name, tensor in {**contents, "labels": torch.from_numpy(labels)}.items():
                buffer = io.BytesIO()
                torch.save(tensor, buffer)
                file.writestr(f"MMNIST/{split}/{name}.pt", buffer.getvalue())
    return path


def write_poly_pictures(folder: Path) -> Path:
    """PolyMNIST as MoPoE's and MMVAE+'s archives have it, with files created in another order in each folder."""
    base = folder / "polymnist"
    for split in SPLITS:
        arrays, labels = poly_arrays(split)
        for m, array in enumerate(arrays):
            target = base / split / f"m{m}"
            target.mkdir(parents=True, exist_ok=True)
            for n in np.random.default_rng(m).permutation(len(labels)):
                Image.fromarray(array[n].transpose(1, 2, 0)).save(target / f"{n}.{labels[n]}.png")
    return base


def omics_values(layer: str, features: int, samples: int) -> np.ndarray:
    """Features by samples; the first feature is constant."""
    values = np.random.default_rng(len(layer)).normal(5.0, 2.0, (features, samples))
    values[0] = 1.5
    return values.round(6)


def write_omics(folder: Path, samples: int = 40, **changes: Any) -> str:
    """MLOmics' CSVs: two layers of features by samples, labels by position; returns the card.

    Arguments:
        folder: The mirror.
        samples: Number of samples.
        changes: ``mirna_names`` for another order of that layer's columns, ``cell`` for one bad cell.
    """
    names = [f"TCGA-{n:02d}" for n in range(samples)]
    sizes = {"mrna": 6, "mirna": 4}
    (folder / "mlomics").mkdir(parents=True, exist_ok=True)
    for layer, count in sizes.items():
        file = {"mrna": "Pan-cancer_mRNA.csv", "mirna": "Pan-cancer_miRNA.csv"}[layer]
        header = changes.get("mirna_names", names) if layer == "mirna" else names
        rows = [[f"g{n}", *map(str, row)] for n, row in enumerate(omics_values(layer, count, samples))]
        rows[2][5] = changes.get("cell", rows[2][5])
        lines = [",".join(["sample", *header]), *(",".join(row) for row in rows)]
        (folder / "mlomics" / file).write_text("\n".join(lines) + "\n", encoding="utf-8")
    labels = "\n".join(["Label", *(str(n % 4 if n % 8 else 3) for n in range(samples))]) + "\n"
    (folder / "mlomics" / "Pan-cancer_label_num.csv").write_text(labels, encoding="utf-8")
    modalities = own_fields("mlomics")["modalities"]
    for layer, count in sizes.items():
        modalities[layer]["shape"] = [count]
    return card_text("mlomics", modalities=modalities, splits={"train": {"count": 32}, "test": {"count": 8}})


def write_tcga(folder: Path, number: int = 20, test: int = 6) -> str:
    """The same format with labels by sample, in another order than the columns, and the source's own split."""
    names = [f"S{n}" for n in range(number)]
    fields = own_fields("tcga_brca")
    contents = {}
    for layer, count in (("mrna", 5), ("mirna", 3)):
        rows = [[f"g{n}", *map(str, row)] for n, row in enumerate(omics_values(layer, count, number))]
        contents[layer] = "\n".join([",".join(["sample", *names]), *(",".join(row) for row in rows)]) + "\n"
        fields["modalities"][layer]["shape"] = [count]
    lines = [f"{s},{n % 3},x,{'test' if n < test else 'train'}" for n, s in enumerate(names)]
    contents["labels"] = "\n".join(["sample,Label,subtype,split", *reversed(lines)]) + "\n"
    for source in fields["sources"]:
        raw = contents[source["group"]].encode()
        content = gzip.compress(raw) if source["filename"].endswith(".gz") else raw
        source["sha256"] = hashlib.sha256(content).hexdigest()
        path = folder / source["filename"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    splits = {"train": {"count": number - test}, "test": {"count": test}}
    return card_text("tcga_brca", modalities=fields["modalities"], sources=fields["sources"], splits=splits)


FACES = {0: 5, 1: 200_000, 2: 170_000, 2001: 7, 11: 162_771, 12: 182_637, 13: 182_638}
FACE_SPLITS = {"train": [0, 2001], "validation": [2, 11, 12], "test": [1, 13]}


def write_celeba(folder: Path, preprocessed: bool = False) -> str:
    """CelebAMask-HQ's three folders and two tables, or the preprocessed folders in a tar file; returns the card."""
    base = folder / "celebamask_hq"
    root = base if not preprocessed else folder / "made" / "celm_hq"
    names = [*own_fields("celebamask_hq")["generation"]["attributes"], "Young", "Attractive"]
    root.mkdir(parents=True, exist_ok=True)
    lines = [str(len(FACES)), " ".join(names)]
    for k in sorted(FACES):
        values = ["1" if (k + n) % 3 == 0 else "-1" for n in range(len(names))]
        lines.append(f"{k}.jpg  " + "  ".join(values))
    (root / "CelebAMask-HQ-attribute-anno.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    table = ["idx      orig_idx    orig_file"] + [f"{k}  {v}   {v + 1:06d}.jpg" for k, v in FACES.items()]
    (root / "CelebA-HQ-to-CelebA-mapping.txt").write_text("\n".join(table) + "\n", encoding="utf-8")
    for k in FACES:
        face = Image.fromarray(np.full((256, 256, 3), k % 200, dtype=np.uint8))
        hair, skin = np.zeros((256, 256), np.uint8), np.full((256, 256), 255, np.uint8)
        hair[:64] = 255
        nose = np.zeros((256, 256), np.uint8)
        nose[128:192, 128:192] = 255
        if preprocessed:
            split = next(s for s, members in FACE_SPLITS.items() if k in members).replace("validation", "val")
            for kind, image, suffix in (("img", face, "jpg"), ("mask", Image.fromarray(hair | nose), "png")):
                (root / f"{split}_{kind}").mkdir(exist_ok=True)
                image.save(root / f"{split}_{kind}" / f"{k}.{suffix}")
            continue
        (root / "CelebA-HQ-img").mkdir(exist_ok=True)
        face.save(root / "CelebA-HQ-img" / f"{k}.jpg")
        masks = root / "CelebAMask-HQ-mask-anno" / str(k // 2000)
        masks.mkdir(parents=True, exist_ok=True)
        for label, mask in (("hair", hair), ("nose", nose), ("skin", skin)):
            Image.fromarray(mask).convert("RGB").save(masks / f"{k:05d}_{label}.png")
    if preprocessed:
        base.mkdir(parents=True)
        with tarfile.open(base / "celm_hq.tar", "w") as file:
            file.add(root, "celm_hq")
    return card_text("celebamask_hq", splits={s: {"count": len(m)} for s, m in FACE_SPLITS.items()})


def write_mhd(folder: Path, blocks: bool) -> str:
    """MHD's 6-tuples, with audio as one image or as four blocks; returns the card."""
    (folder / "mhd").mkdir(parents=True, exist_ok=True)
    for split, count in (("train", 8), ("test", 4)):
        generator = torch.Generator().manual_seed(count)
        labels = torch.arange(count) % 10
        audio = torch.randn(count, 1, 32, 128, generator=generator)
        if blocks:
            audio = audio.squeeze(1).transpose(1, 2).reshape(count, 4, 32, 32)
        image = torch.rand(count, 1, 28, 28, generator=generator)
        trajectory = torch.randn(count, 200, generator=generator)
        content = (labels, image, trajectory, audio, {"min": torch.tensor(0.0)}, {"max": 2.0})
        torch.save(content, folder / "mhd" / f"mhd_{split}.pt")
    return card_text("mhd")


def write_biked(folder: Path, layout: str, bikes: int = 12) -> str:
    """BIKED's images, one folder a component or one folder a bicycle; returns the card."""
    base = folder / "biked" / "Segmented bike images"
    for bike in range(1, bikes + 1):
        for n, part in enumerate(("Saddle", "Frame", "Crank", "Front wheel", "Rear wheel", "Handlebar", "Bottle")):
            if (bike, part) == (bikes, "Crank"):
                continue  # the last bicycle is incomplete
            pixels = np.zeros((64, 128, 4), np.uint8)
            pixels[8 * n : 8 * n + 8, 8 * n : 8 * n + 8 + bike] = (0, 0, 0, 255)
            path = base / part / f"({bike}).png" if layout == "parts" else base / f"bike_{bike}" / f"{part}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return card_text("biked")


def write_bike_table(folder: Path, bikes: int = 20, as_designs: bool = False) -> str:
    """The table of bicycles, or the archive of designs that it is built from; returns the card."""
    fields = own_fields("biked_rendered")
    typical = {
        "General info|Style": "Road", "Frame|Stack": 582, "Frame|Reach": 372, "Frame|Head angle": 73.0,
        "Frame|Seat angle": 72.5, "Frame|BB drop": 67, "Frame|Chain stay length": 430, "Frame|Wheelbase": 1001,
        "Frame|Head tube length": 136, "Frame|Seat tube length (c-t)": 589, "Wheels/Front|Tire ∅": 689,
        "Wheels/Front|W": 25, "Wheels/Front|Bead seat diameter": 622, "Wheels/Front|Style": "Spoked",
        "Wheels/Rear|Tire ∅": 689, "Wheels/Rear|W": 25, "Wheels/Rear|Bead seat diameter": 622,
        "Wheels/Rear|Style": "Spoked", "Components/Saddle|L": 298, "Components/General|Saddle from BB (X)": 247,
        "Components/General|Saddle from BB (Y)": 727, "Components/Handlebar|Style": 0,
        "Components/General|Handlebar from BB (X)": 473, "Components/General|Handlebar from BB (Y)": 657,
        "Components/Cranks|A": 173, "Components/Cranks|Chainrings": 2, "Components/Cranks|Range": "53/39",
    }  # fmt: skip
    rows = []
    for n in range(bikes):
        row = {c: str(typical.get(c, 30)) for c in fields["generation"]["columns"]}
        row["Frame|Wheelbase"] = str(980 + 5 * n)
        row["Components/Handlebar|Style"] = str(n % 3)
        row["Components/Handlebar|R1"] = "" if n % 3 == 1 else "50"
        row["Wheels/Rear|Style"] = ("Spoked", "Disc", "Trispoke")[n // 3 % 3]
        row["General info|Style"] = ("Road", "MTB")[n % 2]
        rows.append(row)
    rows[3]["Frame|Stack"] = "2.9e16"
    rows[4]["General info|Style"] = "Tandem"
    for column in fields["generation"]["columns"]:
        rows[5][column] = ""
    columns = fields["generation"]["columns"]
    lines = [",".join(["bike", *columns])] + [",".join([str(n), *row.values()]) for n, row in enumerate(rows, 1)]
    content = ("\n".join(lines) + "\n").encode()
    for source in fields["sources"]:
        if source["group"] == "table":
            source["raw_sha256"] = hashlib.sha256(content).hexdigest()
        path = folder / source["filename"]
        path.parent.mkdir(parents=True, exist_ok=True)
        if source["group"] == "table" and not as_designs:
            path.write_bytes(gzip.compress(content))
        if source["group"] == "designs" and as_designs:
            _write_designs(path, rows)
    splits = {"train": {"count": 11}, "validation": {"count": 3}, "test": {"count": 3}}
    return card_text("biked_rendered", sources=fields["sources"], splits=splits)


def _write_designs(path: Path, rows: list[dict[str, str]]) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for n, row in reversed(list(enumerate(rows, 1))):
            buffer = io.StringIO()
            writer = csv.writer(buffer)
            writer.writerow(["Categories", "Dimension", "Notes", "Value", "Units", "Driving/Driven"])
            for column, value in row.items():
                category, _, dimension = column.partition("|")
                writer.writerow([category, dimension, "", value or "N/A", "mm", "Driving"])
                writer.writerow([category, dimension, "a repetition", "1", "mm", "Driven"])
            file.writestr(f"DeCoDE/Code/CSVs/({n}).csv", buffer.getvalue())
