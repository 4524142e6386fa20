"""Every card: valid for the Hub, parsed, and held against what its loader returns."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import torch
from huggingface_hub import DatasetCard

import repro.datasets
from repro.datasets import available, load_card, load_dataset
from repro.datasets.card import card_names, cards_directory, not_available, parse_card
from repro.datasets.registry import options_of

LICENSES = {"mit", "cc-by-4.0", "cc-by-sa-3.0", "other"}
TASKS = {"image-classification", "image-segmentation", "tabular-classification", "other"}
SIZES = {"n<1K": (0, 1e3), "1K<n<10K": (1e3, 1e4), "10K<n<100K": (1e4, 1e5)}
NAMES = sorted(p.stem for p in cards_directory().glob("*.md") if p.stem != "README")


@pytest.mark.parametrize("name", NAMES)
def test_card_is_valid_for_the_hub(name: str) -> None:
    card = load_card(name)
    data = DatasetCard.load(cards_directory() / f"{name}.md").data.to_dict()
    assert data["license"] in LICENSES
    assert data["license"] != "other" or data["license_name"]
    assert set(data["task_categories"]) <= TASKS
    assert all(isinstance(tag, str) for tag in data["tags"])
    (size,) = data["size_categories"]
    counts = [split.count for split in card.splits.values()]
    if None not in counts:
        assert SIZES[size][0] <= sum(counts) < SIZES[size][1]
    assert card.body.startswith("# ")


@pytest.mark.parametrize("name", NAMES)
def test_card_has_what_a_loader_reads(name: str) -> None:
    card = load_card(name)
    loader = import_module(f"repro.datasets.{card.loader}")
    assert callable(loader.load)
    assert card.citations
    assert card.traps
    assert all(entry.count("{") == entry.count("}") for entry in card.citations.values())
    for source in card.sources:
        assert source.hashes or card.traps, f"{source.filename}: a source without a digest needs a trap that says so"
        assert source.urls or source.hashes
        assert all(re.match(r"https?://", url) for url in source.urls)
    if not card.sources and not card.generation:
        assert card.manual
    assert {"seed"} <= set(card.generation) or "seed" not in options_of(name)


def test_no_address_and_no_digest_stands_in_code() -> None:
    for path in Path(repro.datasets.__file__).parent.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"https?://", text), path
        assert not re.search(r"\b[0-9a-f]{32,}\b", text), path


MADE = [n for n in NAMES if not n.startswith("correlated_mnist")]


@pytest.mark.parametrize("name", MADE)
def test_loader_returns_what_the_card_says(name: str, miniature: Callable[[str], None]) -> None:
    miniature(name)
    card = load_card(name)
    for split, stated in card.splits.items():
        dataset = load_dataset(name, split)
        assert stated.count in (None, len(dataset))
        shown = {m: s for m, s in card.modalities.items() if m in dataset.modalities}
        assert list(dataset.modalities) == list(shown)
        for m, x in dataset[0].items():
            assert tuple(x.shape) == shown[m].shape
            assert x.dtype is torch.float32
            assert dataset.modalities[m].kind == shown[m].kind
        for m, x in next(dataset.batches(len(dataset), shuffle=False)).items():
            if (limits := shown[m].range) is not None:
                assert limits[0] <= float(x.min()) <= float(x.max()) <= limits[1]
        if card.labels:
            assert 0 <= int(dataset.labels.min()) <= int(dataset.labels.max()) < len(card.labels)
        assert re.fullmatch(r"[0-9a-f]{64}", dataset.provenance["sha256"])


def test_reading_a_card_needs_no_torch() -> None:
    code = "import sys; from repro.datasets import load_card; load_card('copula'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unknown_names_list_near_matches() -> None:
    assert available() == list(card_names())
    with pytest.raises(ValueError, match="did you mean polymnist"):
        load_dataset("polymnst")
    with pytest.raises(ValueError, match=r"known: .*copula"):
        load_dataset("xyz")
    with pytest.raises(ValueError, match="'tests' of copula; did you mean test"):
        load_dataset("copula", "tests")
    with pytest.raises(ValueError, match="option 'sead' of copula; did you mean seed"):
        load_dataset("copula", sead=1)
    with pytest.raises(ValueError, match="no card 'xyz'"):
        load_card("xyz")


def test_what_is_placed_by_hand_says_how() -> None:
    text = not_available("mhd")
    assert text.startswith("data not available: `repro data fetch mhd` says where it is looked for. Download ")
    assert "\n" not in text
    assert not_available("mnist").endswith("looked for.")  # nothing is asked of the user


GOOD = (cards_directory() / "copula.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("---\npretty", "pretty", "no YAML front matter"),
        ("license: mit", "license: [", "card bad: while parsing"),
        ("license: mit\n", "", "lacks license"),
        ("repro:\n", "other:\n", "no mapping 'repro'"),
        ("  loader: copula\n", "", "'repro' lacks loader"),
        ("  loader: copula", "  loader: copula\n  lodaer: x", "unknown fields lodaer"),
        ("redistributable: true", "redistributable: perhaps", "must be true or false"),
        ("range: [0, 1]", "range: [1, 1]", "is not an interval"),
        ("kind: continuous", "knid: continuous", "modality m0: .*knid"),
        ("count: 10000", "count: many", "count is 'many'"),
        ("sha256: 6", "sha256: x", "64 hexadecimal digits"),
        ("@article{oubari2024markov", "@article{other", "citation oubari2024markov"),
        ("  splits:", "  sources: [{filename: ../x}]\n  splits:", "leaves the folder"),
    ],
)
def test_bad_card(old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(ValueError, match=message) as caught:
        parse_card(GOOD.replace(old, new), "bad")
    assert "\n" not in str(caught.value)
