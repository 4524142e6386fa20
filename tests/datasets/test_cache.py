"""Prepared splits: mapped, built once, whole or absent; and the dataset that holds them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from repro.datasets import Dataset, ModalitySpec, load_card, load_dataset
from repro.datasets.base import fingerprint
from repro.datasets.cache import Writer, find_prepared, prepared, verify
from repro.datasets.states import prepared_folder


def build(writer: Writer) -> None:
    """A split of the card of MNIST: seven samples."""
    writer.put("image", np.arange(7 * 784, dtype=np.int64).astype(np.uint8).reshape(7, 1, 28, 28))
    writer.put("labels", np.arange(7))


def test_second_load_maps_and_does_not_build(cache: Path) -> None:
    card = load_card("mnist")
    first = prepared(card, "train", {}, build)
    second = prepared(card, "train", {}, lambda writer: pytest.fail("built again"))
    assert torch.equal(first.data["image"], second.data["image"])
    assert second.provenance["count"] == 7
    assert second.provenance["sha256"] == fingerprint(first.data, first.labels)
    file = prepared_folder(card, "train", {}) / "image.bin"
    assert str(file) in Path("/proc/self/maps").read_text() or not Path("/proc/self/maps").exists()
    before = file.read_bytes()
    second.data["image"].fill_(9)
    assert file.read_bytes() == before


def test_a_large_prepared_split_is_mapped_and_not_read(cache: Path) -> None:
    card = load_card("mnist")

    def large(writer: Writer) -> None:
        writer.array("image", (300_000, 1, 28, 28))
        writer.array("labels", (300_000,), "int64")

    prepared(card, "train", {}, large)
    split = prepared(card, "train", {}, large)
    assert len(split) == 300_000
    (path,) = cache.rglob("image.bin")
    with open(path, "r+b") as handle:  # what had been read would not change with its file
        handle.seek(-1, os.SEEK_END)
        handle.write(b"\x07")
    assert int(split.data["image"][-1, 0, -1, -1]) == 7
    split.data["image"][0, 0, 0, 0] = 9  # and what is written stays in memory
    assert int(prepared(card, "train", {}, large).data["image"][0, 0, 0, 0]) == 0


def test_interrupted_build_leaves_nothing(cache: Path) -> None:
    card = load_card("mnist")

    def interrupted(writer: Writer) -> None:
        build(writer)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepared(card, "train", {}, interrupted)
    assert find_prepared(card, "train", {}) is None
    assert not [p for p in cache.rglob("*") if p.is_file() and p.suffix != ".lock"]
    assert len(prepared(card, "train", {}, build)) == 7


@pytest.mark.parametrize("damage", ["manifest", "cut", "missing", "nonsense"])
def test_damaged_split_is_built_again(cache: Path, damage: str) -> None:
    card = load_card("mnist")
    prepared(card, "train", {}, build)
    folder = prepared_folder(card, "train", {})
    image = folder / "image.bin"
    if damage == "manifest":
        (folder / "manifest.json").unlink()
    elif damage == "cut":
        image.write_bytes(image.read_bytes()[:-1])
    elif damage == "missing":
        image.unlink()
    else:
        (folder / "manifest.json").write_text("{", encoding="utf-8")
    assert find_prepared(card, "train", {}) is None
    assert len(prepared(card, "train", {}, build)) == 7


def test_verify_sees_a_changed_byte(cache: Path) -> None:
    card = load_card("mnist")
    assert verify(card, "train", {}) == ["mnist train: not prepared"]
    prepared(card, "train", {}, build)
    assert verify(card, "train", {}) == []
    file = prepared_folder(card, "train", {}) / "image.bin"
    file.write_bytes(b"\x01" + file.read_bytes()[1:])
    assert "built as" in verify(card, "train", {})[0]


def test_options_tell_folders_apart(cache: Path) -> None:
    card = load_card("mnist")
    folders = {prepared_folder(card, s, o) for s in ("train", "test") for o in ({}, {"seed": 0}, {"seed": 1})}
    assert len(folders) == 6


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (lambda w: w.put("image", np.zeros((2, 1, 28, 28), np.uint8)), None),
        (lambda w: w.put("other", np.zeros((2, 1, 28, 28), np.uint8)), "the card has"),
        (lambda w: w.put("image", np.zeros((2, 1, 32, 32), np.uint8)), "modality 'image' has shape"),
        (lambda w: w.put("image", np.full((2, 1, 28, 28), np.nan, np.float32)), "not finite"),
        (lambda w: w.put("image", np.zeros((0, 1, 28, 28), np.uint8)), "would have shape"),
    ],
)
def test_what_is_built_is_checked(cache: Path, fill: Callable[[Writer], None], message: str | None) -> None:
    card = load_card("mnist")
    if message is None:
        assert len(prepared(card, "train", {}, fill)) == 2
        return
    with pytest.raises(ValueError, match=message):
        prepared(card, "train", {}, fill)
    assert find_prepared(card, "train", {}) is None


def test_a_count_other_than_the_cards_is_refused(cache: Path) -> None:
    def stated(writer: Writer) -> None:
        build(writer)
        writer.variant = ""

    with pytest.raises(ValueError, match="7 samples, the card states 60000"):
        prepared(load_card("mnist"), "train", {}, stated)


def images() -> Dataset:
    """Three images of bytes."""
    pixels = torch.arange(3 * 4, dtype=torch.uint8).reshape(3, 1, 2, 2) * 20
    spec = ModalitySpec((1, 2, 2), "image", (0.0, 1.0))
    return Dataset("d", "train", {"x": spec}, {"x": pixels}, torch.arange(3))


def test_bytes_come_out_as_fractions() -> None:
    dataset = images()
    assert torch.equal(dataset[1]["x"], torch.tensor([[[80.0, 100.0], [120.0, 140.0]]]) / 255.0)
    (batch,) = dataset.batches(3, shuffle=False)
    assert batch["x"].dtype is torch.float32
    assert torch.equal(batch["x"][1], dataset[1]["x"])


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("drop_last", [False, True])
def test_batches_of_floats_are_those_of_bytes(shuffle: bool, drop_last: bool) -> None:
    dataset = images()
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    options = {"shuffle": shuffle, "drop_last": drop_last}
    ours, others = (
        list(d.batches(2, generator=g, **options)) for d, g in zip((dataset, dataset.floats()), generators, strict=True)
    )
    assert [len(b["x"]) for b in ours] == ([2] if drop_last else [2, 1])
    assert all(torch.equal(a["x"], b["x"]) for a, b in zip(ours, others, strict=True))
    if shuffle:
        order = torch.randperm(3, generator=torch.Generator().manual_seed(1))
        assert torch.equal(ours[0]["x"], torch.stack([dataset[int(n)]["x"] for n in order[:2]]))


def test_batches_in_order_are_views_of_floats() -> None:
    dataset = images().floats()
    first = next(dataset.batches(2, shuffle=False))
    assert first["x"].data_ptr() == dataset.data["x"].data_ptr()


def test_padded_view_shares_memory() -> None:
    dataset = images()
    view = dataset.padded(2)
    assert view.modalities["x"].shape == (1, 6, 6)
    assert view.data["x"].data_ptr() == dataset.data["x"].data_ptr()
    assert torch.equal(view[1]["x"][:, 2:-2, 2:-2], dataset[1]["x"])
    assert float(view[1]["x"].sum()) == pytest.approx(float(dataset[1]["x"].sum()))
    with pytest.raises(ValueError, match="cannot pad"):
        load_dataset("copula", num_samples=3).padded(2)


def test_bytes_need_the_unit_interval() -> None:
    pixels = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
    with pytest.raises(ValueError, match="stored as uint8"):
        Dataset("d", "train", {"x": ModalitySpec((1, 2, 2))}, {"x": pixels})


def test_manifest_is_json(cache: Path) -> None:
    card = load_card("mnist")
    prepared(card, "test", {"seed": 3}, build)
    manifest = json.loads((prepared_folder(card, "test", {"seed": 3}) / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["provenance"]["options"] == {"seed": 3}
    assert manifest["arrays"]["image"]["shape"] == [7, 1, 28, 28]
