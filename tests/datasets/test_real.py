"""The files of the mirror, where there is one: digests, and the hashes of what is generated from them."""

from __future__ import annotations

import pytest

from repro.datasets import load_card, load_dataset
from repro.datasets.card import card_names
from repro.datasets.fetch import FetchError, problems_of
from repro.datasets.places import mirror_root
from tests.support.real import at_hand


@pytest.mark.parametrize("name", card_names())
def test_files_of_the_mirror_are_those_of_the_cards(name: str) -> None:
    root = mirror_root()
    present = [s for s in load_card(name).sources if root is not None and (root / s.filename).is_file()]
    assert [(s.filename, p) for s in present if (p := problems_of(root / s.filename, s))] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "split", "options"),
    [
        ("mnist", "test", {}),
        ("mnist_triples", "test", {}),
        ("polymnist", "test", {"source": "generated"}),
        ("tcga_brca", "train", {}),
        ("tcga_brca", "test", {}),
        ("biked_rendered", "test", {}),
        ("correlated_mnist", "test", {}),
        ("correlated_mnist3", "test", {}),
    ],
)
def test_hashes_of_the_cards(name: str, split: str, options: dict) -> None:
    needs = ["mnist", name] if name in ("polymnist", "mnist_triples") else [name]
    if all(at_hand(n) or not load_card(n).sources for n in needs):
        dataset = load_dataset(name, split, **options)
        assert dataset.provenance["matches_card"] is True
        assert len(dataset) == load_card(name).splits[split].count
    else:
        with pytest.raises(FetchError, match="REPRO_OFFLINE is 1"):
            load_dataset(name, split, **options)
