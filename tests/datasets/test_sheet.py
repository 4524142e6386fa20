"""Contact sheets, and splits as datasets of the Hub's library."""

from __future__ import annotations

from collections.abc import Callable

import datasets
import numpy as np
import pytest
import torch

from repro.datasets import load_dataset
from repro.datasets.biked_rendered import overlay
from repro.datasets.hf import check_redistributable
from repro.datasets.sheet import contact_sheet

Place = Callable[[str], None]


@pytest.mark.parametrize(
    "name", ["copula", "extended_polymnist", "biked_rendered", "mhd", "tcga_brca", "celebamask_hq"]
)
def test_contact_sheet(name: str, miniature: Place) -> None:
    miniature(name)
    sheet = contact_sheet(load_dataset(name, "test"), columns=3)
    pixels = np.asarray(sheet)
    assert pixels.shape[1] > 3 * 50
    assert len(np.unique(pixels)) > 2


def test_contact_sheet_holds_the_pixels(miniature: Place) -> None:
    miniature("mnist")
    dataset = load_dataset("mnist", "test")
    sheet = np.asarray(contact_sheet(dataset, [3]))
    image = dataset.data["image"][3, 0].numpy().repeat(3, 0).repeat(3, 1)
    windows = np.lib.stride_tricks.sliding_window_view(sheet[..., 0], (84, 84))
    assert (windows == image).all((2, 3)).sum() == 1
    with pytest.raises(ValueError, match=r"cannot show samples \[20\] of 20"):
        contact_sheet(dataset, [20])


def test_components_are_shown_with_their_whole(miniature: Place) -> None:
    miniature("biked_rendered")
    dataset = load_dataset("biked_rendered", "test")
    sheet = np.asarray(contact_sheet(dataset, [1]))[..., 0]
    whole = overlay(dataset.data)[1, 0].numpy().repeat(2, 0).repeat(2, 1)
    windows = np.lib.stride_tricks.sliding_window_view(sheet, (128, 128))
    assert (windows == whole).all((2, 3)).sum() == 1


def test_images_and_classes(miniature: Place) -> None:
    miniature("polymnist")
    dataset = load_dataset("polymnist", "test")
    converted = dataset.to_hf()
    assert isinstance(converted.features["m0"], datasets.Image)
    assert converted.features["label"].names == [str(n) for n in range(10)]
    assert len(converted) == len(dataset)
    row = converted[4]
    assert np.array_equal(np.asarray(row["m3"]).transpose(2, 0, 1), dataset.data["m3"][4])
    assert row["label"] == int(dataset.labels[4])
    assert "sutter2021generalized" in converted.info.citation


def test_arrays(miniature: Place) -> None:
    miniature("mhd")
    dataset = load_dataset("mhd", "test", trajectory=True)
    row = dataset.to_hf().with_format("torch")[2]
    assert torch.equal(row["audio"], dataset[2]["audio"])
    assert torch.equal(row["trajectory"], dataset[2]["trajectory"])
    assert dataset.to_hf().features["label"].names == [str(n) for n in range(10)]
    assert "label" not in load_dataset("copula", num_samples=2).to_hf().features


def test_what_may_be_passed_on() -> None:
    check_redistributable("copula")
    check_redistributable("mlomics")
    with pytest.raises(ValueError, match=r"celebamask_hq: its licence \(celebamask-hq-non-commercial\)"):
        check_redistributable("celebamask_hq")
