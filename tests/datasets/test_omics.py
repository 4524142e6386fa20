"""Omics cohorts on miniatures in MLOmics' format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from repro.datasets import load_dataset
from repro.datasets.fetch import FetchError
from repro.datasets.omics import read_labels, read_matrix, standardise, stratified
from tests.support import miniatures

Cards = Callable[..., None]


def test_mlomics(mirror: Path, cards: Cards) -> None:
    cards(mlomics=miniatures.write_omics(mirror))
    train, test = (load_dataset("mlomics", split) for split in ("train", "test"))
    names = train.provenance["samples"] + test.provenance["samples"]
    assert sorted(names) == [f"TCGA-{n:02d}" for n in range(40)]
    for dataset in (train, test):
        numbers = [int(name[-2:]) for name in dataset.provenance["samples"]]
        assert dataset.labels.tolist() == [n % 4 if n % 8 else 3 for n in numbers]
    for layer, count in (("mrna", 6), ("mirna", 4)):
        raw = miniatures.omics_values(layer, count, 40).T
        chosen = [int(name[-2:]) for name in train.provenance["samples"]]
        mean, std = raw[chosen].mean(0), raw[chosen].std(0)
        std[std < 1e-9] = 1.0
        for dataset in (train, test):
            rows = [int(name[-2:]) for name in dataset.provenance["samples"]]
            assert np.allclose(dataset.data[layer], (raw[rows] - mean) / std, atol=1e-6)
        plain = load_dataset("mlomics", "train", standardised=False)
        assert np.array_equal(plain.data[layer], raw[chosen].astype(np.float32))
    other = load_dataset("mlomics", "train", seed=1)
    assert other.provenance["samples"] != train.provenance["samples"]


def test_labels_by_sample_and_the_sources_split(mirror: Path, cards: Cards) -> None:
    cards(tcga_brca=miniatures.write_tcga(mirror))
    train, test = (load_dataset("tcga_brca", split) for split in ("train", "test"))
    assert test.provenance["samples"] == [f"S{n}" for n in range(6)]
    assert train.labels.tolist() == [n % 3 for n in range(6, 20)]
    assert torch.equal(train.data["mrna"][:, 0], torch.zeros(14))
    assert train.data["mirna"][:, 1:].std(0, correction=0).sub(1).abs().max() < 1e-5


def test_stratified() -> None:
    classes = np.repeat([0, 1, 2], [9, 100, 3])
    test = stratified(classes, 0, "x")
    assert [int(test[classes == c].sum()) for c in range(3)] == [2, 20, 1]
    assert not np.array_equal(test, stratified(classes, 1, "x"))
    with pytest.raises(ValueError, match="class 5 has one sample"):
        stratified(np.array([0, 0, 5]), 0, "x")


def test_standardise_uses_the_training_samples_alone() -> None:
    values = np.array([[1.0, 7.0], [3.0, 7.0], [100.0, 9.0]])
    out = standardise(values, np.array([True, True, False]))
    assert np.array_equal(out, np.array([[-1, 0], [1, 0], [98, 2]], dtype=np.float32))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("gene,a,b\ng,1,2\n", "the first cell is"),
        ("sample,a,b\ng,1\n", "row 2 .g. has 1 cells for 2 samples"),
        ("sample,a,b\ng,1,x\n", "cell that is no number"),
        ("sample,a,b\ng,1,\n", "cell that is no number"),
        ("sample,a,b\ng,1,nan\n", "not finite"),
        ("sample,a,a\ng,1,2\n", "sample 'a' occurs twice"),
        ("sample,a,b\ng,1,2\ng,1,2\n", "feature 'g' occurs twice"),
    ],
)
def test_bad_matrix(content: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_matrix(content.encode(), "file")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("label\n1\n2\n", "no column 'Label'"),
        ("Label\n1\n", "1 labels for 2 samples"),
        ("Label\n1\nx\n", "label 'x'"),
        ("sample,Label\na,1\n", "no label for sample 'b'"),
        ("sample,Label,split\na,1,train\nb,1,dev\n", "split 'dev'"),
    ],
)
def test_bad_labels(content: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_labels(content.encode(), ["a", "b"], "file")


def test_columns_in_another_order(mirror: Path, cards: Cards) -> None:
    names = [f"TCGA-{n:02d}" for n in range(40)]
    names[3], names[4] = names[4], names[3]
    cards(mlomics=miniatures.write_omics(mirror, mirna_names=names))
    with pytest.raises(ValueError, match="column 5 is 'TCGA-03' in mrna and 'TCGA-04' in mirna"):
        load_dataset("mlomics", "train")


def test_missing_value(mirror: Path, cards: Cards) -> None:
    cards(mlomics=miniatures.write_omics(mirror, cell="NaN"))
    with pytest.raises(ValueError, match=r"Pan-cancer_mRNA.csv: row 4 \(g2\)"):
        load_dataset("mlomics", "train")


def test_missing_file_says_where_to_get_it(mirror: Path) -> None:
    with pytest.raises(FetchError, match="figshare"):
        load_dataset("mlomics", "train")
