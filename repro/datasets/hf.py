"""A split as a ``datasets.Dataset`` with typed features."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
from PIL import Image

from repro.datasets.card import card_names, card_text, load_card

if TYPE_CHECKING:
    from repro.datasets.base import Dataset, ModalitySpec

__all__ = ["check_redistributable", "hub_card", "to_hf", "to_parquet"]


def to_hf(dataset: Dataset) -> datasets.Dataset:
    """Converts a split: images as ``Image``, labels as ``ClassLabel``, everything else as arrays of float32.

    Arguments:
        dataset: The split; its card gives the names of the classes, description, citation and licence. Data without a
            card have none of these, and their labels are numbers.
    """
    card = load_card(dataset.name) if dataset.name in card_names() else None
    features, columns = {}, {}
    for m, spec in dataset.modalities.items():
        if _is_image(spec):
            features[m] = datasets.Image()
            columns[m] = [{"bytes": png, "path": None} for png in _png_images(dataset, m)]
        else:
            features[m] = _array_feature(spec)
            columns[m] = [dataset[n][m].tolist() for n in range(len(dataset))]
    if dataset.labels is not None:
        names = [] if card is None else list(card.labels)
        features["label"] = datasets.ClassLabel(names=names) if names else datasets.Value("int64")
        columns["label"] = dataset.labels.tolist()
    described = {}
    if card is not None:
        citation = "\n".join(card.citations.values())
        described = {"description": card.body, "citation": citation, "license": card.license}
    info = datasets.DatasetInfo(features=datasets.Features(features), **described)
    return datasets.Dataset.from_dict(columns, features=info.features, info=info, split=dataset.split)


def to_parquet(dataset: Dataset, path: Path) -> int:
    """Writes a split as one Parquet file, whose schema carries the features of :func:`to_hf`.

    Arguments:
        dataset: The split.
        path: The file; the same split gives the same bytes.

    Returns:
        The size of the file in bytes.
    """
    to_hf(dataset).to_parquet(path)
    return path.stat().st_size


def hub_card(name: str, files: Mapping[str, str]) -> str:
    """The card as a README of the Hub: with the file of every split in its front matter, and the citations at its end.

    Arguments:
        name: The dataset's name.
        files: Split to the path of its file in the repository.
    """
    header, _, body = card_text(name).removeprefix("---\n").partition("\n---\n")
    listed = "".join(f"  - split: {split}\n    path: {path}\n" for split, path in files.items())
    entries = "\n\n".join(load_card(name).citations.values())
    return (
        f"---\n{header}\nconfigs:\n- config_name: default\n  data_files:\n{listed}---\n"
        f"{body.rstrip()}\n\n## Citation\n\n```bibtex\n{entries}\n```\n"
    )


def check_redistributable(name: str) -> None:
    """Refuses to pass on a dataset whose licence does not allow it.

    Arguments:
        name: The dataset's name.

    Raises:
        ValueError: If the dataset's card says that no copy may be passed on.
    """
    card = load_card(name)
    if not card.redistributable:
        licence = card.header.get("license_name", card.license)
        raise ValueError(f"{name}: its licence ({licence}) does not allow to pass it on")


def _is_image(spec: ModalitySpec) -> bool:
    return spec.kind in ("image", "binary") and len(spec.shape) == 3 and spec.shape[0] in (1, 3)


def _array_feature(spec: ModalitySpec) -> Any:
    if len(spec.shape) == 1:
        return datasets.Sequence(datasets.Value("float32"), length=spec.shape[0])
    arrays = {2: datasets.Array2D, 3: datasets.Array3D}
    if len(spec.shape) not in arrays:
        raise ValueError(f"a modality of shape {spec.shape} has no array feature")
    return arrays[len(spec.shape)](shape=spec.shape, dtype="float32")


def _png_images(dataset: Dataset, modality: str) -> Iterator[bytes]:
    for n in range(len(dataset)):
        pixels = dataset[n][modality].mul(255.0).round().byte().permute(1, 2, 0).numpy()
        buffer = io.BytesIO()
        Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, "PNG")
        yield buffer.getvalue()
