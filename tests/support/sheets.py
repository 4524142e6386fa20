"""``python -m tests.support.sheets`` draws the sheets of samples that the datasets' pages of the documentation show.

A dataset that a person has to fetch is shown by the miniature that the tests read through its loader: the published
format, with patterns instead of pictures.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from repro.datasets import Dataset, card, load_dataset
from repro.datasets.sheet import contact_sheet
from tests.support import miniatures

__all__ = ["FOLDER", "MINIATURE", "drawn", "png"]

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "_static" / "sheets"
MAX_BYTES = 100_000
COLUMNS = 8
# What only a person can fetch, with the writer of its miniature.
MINIATURE: dict[str, Callable[[Path], str]] = {
    "biked": lambda folder: miniatures.write_biked(folder, "parts"),
    "celebamask_hq": miniatures.write_celeba,
    "mhd": lambda folder: miniatures.write_mhd(folder, blocks=True),
    "mlomics": miniatures.write_omics,
}
OPTIONS = {"polymnist": {"source": "generated"}}


def drawn(dataset: Dataset) -> Image.Image:
    """The sheet of some samples of a split."""
    return contact_sheet(dataset, columns=COLUMNS)


def png(sheet: Image.Image) -> bytes:
    """A sheet as a file, in as many colours as the bound on its size allows."""
    for colours in (256, 128, 64, 32):
        buffer = io.BytesIO()
        sheet.quantize(colours, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
        if buffer.tell() < MAX_BYTES:
            break
    return buffer.getvalue()


def _miniature(name: str) -> Dataset:
    before = {key: os.environ.get(key) for key in ("REPRO_MIRROR", "REPRO_CACHE")}
    own = card.cards_directory
    with tempfile.TemporaryDirectory() as folder:
        mirror, cards = Path(folder) / "mirror", Path(folder) / "cards"
        mirror.mkdir()
        shutil.copytree(own(), cards)
        os.environ |= {"REPRO_MIRROR": str(mirror), "REPRO_CACHE": str(Path(folder) / "cache")}
        (cards / f"{name}.md").write_text(MINIATURE[name](mirror), encoding="utf-8")
        card.cards_directory = lambda: cards
        try:
            card.card_names.cache_clear()
            card.load_card.cache_clear()
            return load_dataset(name, split="test")
        finally:
            card.cards_directory = own
            card.card_names.cache_clear()
            card.load_card.cache_clear()
            for key, value in before.items():
                os.environ.pop(key) if value is None else os.environ.__setitem__(key, value)


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in card.card_names():
        found = _miniature(name) if name in MINIATURE else load_dataset(name, split="test", **OPTIONS.get(name, {}))
        data = png(drawn(found))
        (FOLDER / f"{name}.png").write_bytes(data)
        print(f"{name}: {len(data):,} bytes")
