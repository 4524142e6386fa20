"""Bicycles: BIKED's images as they may be called, and the drawings from parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from repro.datasets import load_card, load_dataset
from repro.datasets.bike_drawing import COMPONENTS, Geometry, draw
from repro.datasets.bike_table import BikeTable, plausible, read_table, table_bytes
from repro.datasets.biked import discover, to_square
from repro.datasets.biked_rendered import overlay, split_rows
from repro.datasets.fetch import FetchError
from repro.datasets.raster import Canvas
from tests.support import miniatures

Cards = Callable[..., None]


@pytest.mark.parametrize("layout", ["parts", "bikes"])
def test_biked_is_discovered(mirror: Path, cards: Cards, layout: str) -> None:
    cards(biked=miniatures.write_biked(mirror, layout))
    bikes = []
    for split, count in (("train", 9), ("validation", 1), ("test", 1)):
        dataset = load_dataset("biked", split)
        assert len(dataset) == count
        bikes += dataset.provenance["bikes"]
        assert dataset.provenance["incomplete"] == 1
        assert list(dataset.modalities) == list(COMPONENTS)
        for n, bike in enumerate(dataset.provenance["bikes"]):
            ink = {c: float((1 - dataset[n][c]).sum()) * 4 for c in COMPONENTS}
            areas = dict.fromkeys(COMPONENTS, 8.0 * (8 + bike))
            areas["wheels"] *= 2
            assert ink == pytest.approx(areas, rel=0.02)
    assert sorted(bikes) == list(range(1, 12))


def test_biked_says_what_it_looked_for(mirror: Path, cards: Cards) -> None:
    cards(biked=miniatures.write_biked(mirror, "parts", bikes=4))
    with pytest.raises(FetchError, match=r"3 bicycles with all of saddle, frame.*found {'saddle': 4") as caught:
        load_dataset("biked", "train")
    assert "\n" not in str(caught.value)
    (mirror / "biked" / "Segmented bike images" / "Frame" / "saddle frame 7.png").write_bytes(b"")
    with pytest.raises(ValueError, match="speaks of saddle and frame"):
        discover(mirror / "biked", load_card("biked").generation["keywords"])


def test_biked_needs_to_be_placed(mirror: Path) -> None:
    with pytest.raises(FetchError, match=r"Segmented bike images.*dropbox.*handlebar.*no such folder"):
        load_dataset("biked", "train")


def test_square_of_several_files(tmp_path: Path) -> None:
    for n, name in enumerate(("a.png", "b.png")):
        pixels = np.full((4, 8), 255, np.uint8)
        pixels[n] = 0
        Image.fromarray(pixels).save(tmp_path / name)
    square = to_square([tmp_path / "a.png", tmp_path / "b.png"], 8)
    assert np.array_equal(np.flatnonzero(square[:, 0] == 0), [2, 3])
    Image.new("L", (3, 3)).save(tmp_path / "c.png")
    with pytest.raises(ValueError, match=r"c\.png: size"):
        to_square([tmp_path / "a.png", tmp_path / "c.png"], 8)


def canvas(side: int = 32) -> Canvas:
    """One picture of the square [0, side] x [0, side], pixels of length 1."""
    return Canvas(side, np.ones(1), np.zeros(1), np.zeros(1))


def at(x: float, y: float) -> tuple[np.ndarray, np.ndarray]:
    return np.array([x]), np.array([y])


@pytest.mark.parametrize("width", [0.0, 0.1, 0.5, 1.0, 2.7])
def test_a_line_covers_its_area(width: float) -> None:
    c = canvas()
    c.segment(at(-50.0, 16.3), at(90.0, 16.3), width)
    assert float(c.ink.sum()) == pytest.approx(32 * width, rel=1e-4, abs=1e-6)


def test_circles_cover_their_area() -> None:
    c = canvas()
    c.disc(at(16.2, 15.9), 9.4)
    assert float(c.ink.sum()) == pytest.approx(math.pi * 9.4**2, rel=0.01)
    c = canvas()
    c.ring(at(16.2, 15.9), 10.0, 0.3)
    assert float(c.ink.sum()) == pytest.approx(2 * math.pi * 10 * 0.3, rel=0.05)


def test_a_wedge_and_the_direction_of_y() -> None:
    c = canvas()
    c.segment(at(4.0, 24.0), at(28.0, 24.0), 6.0, 2.0)
    rows = c.ink[0].sum(1)
    assert rows[:12].sum() > 0.99 * rows.sum()  # y = 24 of 32 lies in the upper half, the first rows
    columns = c.ink[0].sum(0)
    assert columns[5] == pytest.approx(6.0, abs=0.3)
    assert columns[26] == pytest.approx(2.3, abs=0.3)
    assert c.pictures()[0].min() == 0
    assert c.pictures()[0].max() == 255


def test_geometry(mirror: Path, cards: Cards) -> None:
    table = rendered_table(mirror, cards)
    g = Geometry(table)
    assert g.rear[0][0] == pytest.approx(-math.sqrt(430**2 - 67**2))
    assert g.front[0][0] - g.rear[0][0] == pytest.approx(980)
    down = (g.head_bottom[0][0] - 372, g.head_bottom[1][0] - 582)
    assert math.hypot(*down) == pytest.approx(136)
    assert math.degrees(math.atan2(-down[1], down[0])) == pytest.approx(73.0)
    assert math.degrees(math.atan2(g.seat_top[1][0], -g.seat_top[0][0])) == pytest.approx(72.5)
    assert math.hypot(g.seat_top[0][0], g.seat_top[1][0]) == pytest.approx(589)


def rendered_table(mirror: Path, cards: Cards) -> BikeTable:
    """The plausible bicycles of the miniature table."""
    text = miniatures.write_bike_table(mirror)
    cards(biked_rendered=text)
    card = load_card("biked_rendered")
    content, where = table_bytes(card)
    table = read_table(content, where)
    rows = plausible(table, card.generation["limits"], card.generation["excluded"])
    assert rows.tolist() == [n for n in range(20) if n not in (3, 4, 5)]
    return table.take(rows)


def test_components_stand_where_they_belong(mirror: Path, cards: Cards) -> None:
    table = rendered_table(mirror, cards)
    pictures = draw(table, 64, 32.0)
    ink = {c: 1.0 - p[:, 0] / 255.0 for c, p in pictures.items()}
    y, x = np.mgrid[:64, :64]
    centre = {c: ((a * x).sum((1, 2)) / a.sum((1, 2)), (a * y).sum((1, 2)) / a.sum((1, 2))) for c, a in ink.items()}
    assert (centre["saddle"][0] < centre["handlebars"][0] - 10).all()
    assert (centre["saddle"][1] < centre["frame"][1]).all()
    assert (centre["frame"][1] < centre["wheels"][1]).all()
    assert (centre["crank"][1] > centre["frame"][1]).all()
    styles = np.array(table.text("Wheels/Rear|Style"))
    assert np.abs(centre["wheels"][0] - 31.5)[styles == "Spoked"].max() < 1e-6
    for c in COMPONENTS:
        assert (ink[c].sum((1, 2)) > 3).all()
        assert ink[c][:, [0, -1]].sum() == 0
    wheels = ink["wheels"][:, :, :32].sum((1, 2))
    assert wheels[styles == "Disc"].min() > wheels[styles == "Spoked"].max()


def test_rendered_splits_and_overlay(mirror: Path, cards: Cards) -> None:
    cards(biked_rendered=miniatures.write_bike_table(mirror))
    bikes = []
    for split in ("train", "validation", "test"):
        dataset = load_dataset("biked_rendered", split)
        bikes += dataset.provenance["bikes"]
        assert dataset.provenance["source"].startswith("rendered from")
        names = [dataset_label(dataset, n) for n in range(len(dataset))]
        assert names == [("Road", "MTB")[(b - 1) % 2] for b in dataset.provenance["bikes"]]
    assert sorted(bikes) == [n for n in range(1, 21) if n not in (4, 5, 6)]
    whole = overlay(dataset.data)
    assert torch.equal(whole, torch.stack(list(dataset.data.values())).amin(0))
    with pytest.raises(ValueError, match="do not overlay"):
        overlay({"a": torch.zeros(2, 3), "b": torch.zeros(2, 4)})
    with pytest.raises(ValueError, match="for 18 bicycles"):
        split_rows(18, "train", {"train": 11, "validation": 3, "test": 3}, 0)


def dataset_label(dataset, n: int) -> str:
    return load_card("biked_rendered").labels[int(dataset.labels[n])]


def test_table_built_from_the_designs_is_the_same(mirror: Path, cards: Cards) -> None:
    cards(biked_rendered=miniatures.write_bike_table(mirror))
    first = load_dataset("biked_rendered", "test")
    (mirror / "biked" / "biked_parameters.csv.gz").unlink()
    cards(biked_rendered=miniatures.write_bike_table(mirror, as_designs=True))
    second = load_dataset("biked_rendered", "test", seed=0)
    assert second.provenance["sha256"] == first.provenance["sha256"]


def test_bad_tables(mirror: Path, cards: Cards) -> None:
    with pytest.raises(ValueError, match="the first column"):
        read_table(b"a,b\n1,2\n", "x")
    with pytest.raises(ValueError, match="row 2 has 1 cells"):
        read_table(b"bike,b\n1\n", "x")
    table = read_table(b"bike,b\n1,many\n", "x")
    with pytest.raises(ValueError, match="bicycle 1: 'b' is 'many'"):
        table.numbers("b")
    with pytest.raises(ValueError, match="no column 'c'"):
        table.numbers("c")
    with pytest.raises(FetchError, match=r"biked_parameters.*DeCoDE-Bike-Projects\.zip"):
        load_dataset("biked_rendered", "test")
