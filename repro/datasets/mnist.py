"""MNIST, the base of the datasets that are generated from it."""

from __future__ import annotations

import numpy as np

from repro.datasets.base import Dataset
from repro.datasets.cache import Writer, prepared
from repro.datasets.card import Card, Source, load_card
from repro.datasets.fetch import fetch, unpack_gzip

__all__ = ["digits", "load", "parse_idx"]

UBYTE = 0x08


def parse_idx(content: bytes, where: str) -> np.ndarray:
    """Parses the IDX format: two zero bytes, the type, the number of dimensions, big-endian sizes, the values.

    Arguments:
        content: The raw bytes of a file of unsigned bytes.
        where: The file's name, for messages.

    Raises:
        ValueError: If the bytes are not such a file.
    """
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != UBYTE:
        raise ValueError(f"{where} is not an IDX file of unsigned bytes")
    header = 4 + 4 * content[3]
    if len(content) < header:
        raise ValueError(f"{where}: the IDX header is cut off")
    shape = np.frombuffer(content, ">u4", count=content[3], offset=4).astype(np.int64)
    if len(content) - header != int(np.prod(shape)):
        raise ValueError(f"{where}: {len(content) - header} values, the IDX header says {tuple(shape.tolist())}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(tuple(shape.tolist()))


def digits(split: str, card: Card | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Images of shape ``(N, 28, 28)`` and labels of shape ``(N,)``, both uint8.

    Arguments:
        split: ``"train"`` or ``"test"``.
        card: The card of MNIST; the package's own if None.

    Raises:
        ValueError: If the files are not of 28 x 28 images and as many labels.
    """
    sources = {_role(s): s for s in (card or load_card("mnist")).sources_of(split)}
    images, labels = (parse_idx(unpack_gzip(fetch(sources[r])), sources[r].filename) for r in ("images", "labels"))
    if images.shape[1:] != (28, 28):
        raise ValueError(f"{sources['images'].filename}: images of shape {images.shape[1:]}, expected (28, 28)")
    if labels.shape != images.shape[:1]:
        raise ValueError(f"mnist {split}: {len(images)} images, {len(labels)} labels")
    return images, labels


def load(card: Card, split: str) -> Dataset:
    """Loads MNIST.

    Arguments:
        card: The dataset's card.
        split: ``"train"`` or ``"test"``.
    """

    def build(writer: Writer) -> None:
        images, labels = digits(split, card)
        writer.put("image", images[:, None])
        writer.put("labels", labels.astype(np.int64))
        writer.provenance = {"source": [s.filename for s in card.sources_of(split)]}
        writer.variant = ""

    return prepared(card, split, {}, build)


def _role(source: Source) -> str:
    return "images" if "images" in source.filename else "labels"
