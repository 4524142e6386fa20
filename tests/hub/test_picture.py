"""The picture on a card is what the model draws, the same every time, and renewing cards touches nothing else."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from repro.cli.main import main
from repro.engine.store import file_sha256
from repro.hub.card import model_card
from repro.hub.config import FILES, PICTURE
from repro.hub.load import load_model
from repro.hub.manifest import packaged_files, read_manifest
from repro.hub.picture import samples_picture
from repro.hub.registry import models
from repro.records import Record
from repro.weights.folder import package_folder
from tests.support.weights import NAME

if TYPE_CHECKING:
    from tests.support.weights import Shelf

pytest_plugins = ["tests.support.hub"]


def picture(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(content)).convert("RGB"))


def test_images_stand_in_rows_of_modalities() -> None:
    model = load_model("covae/correlated_mnist-mvae")
    content = samples_picture(model)
    sheet = picture(content)
    assert content == samples_picture(model)
    assert sheet.shape == (2 * 56 + 2, 12 * 58 - 2, 3)
    assert (sheet[56:58] == 255).all()  # the gap between the rows
    for row in (sheet[:56], sheet[58:]):
        digits = row[:, :56]
        assert digits.max() > 150
        assert digits.min() < 10
    assert content != samples_picture(model, seed=1)


def test_points_where_a_modality_is_no_image() -> None:
    sheet = picture(samples_picture(load_model("covae/tcga_brca-mvae")))
    assert sheet.shape[1] == sheet.shape[0] > 300  # one pair of modalities
    blue = (np.abs(sheet.astype(int) - (0, 0x72, 0xB2)).sum(-1) < 30).sum()
    assert 300 < blue < sheet.shape[0] * sheet.shape[1] / 10


def test_cards_are_renewed_and_weights_are_not(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    entry, folder = shelf.ship(), shelf.weights / NAME
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    (folder / PICTURE).unlink()
    (folder / "README.md").write_text("an older card")
    assert main(["weights", "ship", "--cards"]) == 0
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert read_manifest()[NAME] == entry
    (folder / "record.json").write_text((folder / "record.json").read_text().replace("0", "1", 1))
    assert main(["weights", "ship", "--cards"]) == 1
    assert f"{NAME}/record.json is not what the manifest states" in capsys.readouterr().err
    assert main(["weights", "ship", "--cards", "vaegan-flow"]) == 1
    assert "vaegan-flow has no card in the package" in capsys.readouterr().err
    assert main(["weights", "ship"]) == 2
    assert "name the models to ship" in capsys.readouterr().err


@pytest.mark.parametrize("name", [n for n, e in read_manifest().items() if packaged_files(e) and not e.dtype])
def test_every_card_that_ships_is_whole(name: str) -> None:
    entry, folder = read_manifest()[name], package_folder() / name
    assert set(entry.sha256) == {*FILES, PICTURE}
    assert file_sha256(folder / PICTURE) == entry.sha256[PICTURE]
    assert picture((folder / PICTURE).read_bytes()).std() > 5
    assert (folder / PICTURE).stat().st_size <= 60_000
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert f"![Joint samples of {models()[name].title}]({PICTURE})" in text
    for part in ("| metric | obtained |", "published |", "## How to use it", "## Limits", "## Licence", "## Citation"):
        assert part in text
    assert f"`{entry.profile or 'paper'}`" in text
    record = Record.from_json((folder / "record.json").read_text(encoding="utf-8"))
    assert text == model_card(models()[name], record, entry.committed, entry.rounded), "repro weights ship --cards"
