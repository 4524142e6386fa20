"""An own cache for the tests, a misbehaving HTTP server, and miniatures of every dataset in its published format."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from repro.datasets import card
from repro.engine import speed
from tests.support import miniatures
from tests.support.server import Server

# Tests with the marker `slow` that a run leaves out, and of how many; told by each worker process.
LEFT_OUT = pytest.StashKey[list[int]]()


def pytest_configure(config: pytest.Config) -> None:
    """Nothing is left out yet."""
    config.stash[LEFT_OUT] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that wait for a scheduler go first: another worker has all others to do meanwhile, not an empty tail."""
    items.sort(key=lambda item: item.path.name != "test_slurm.py")
    if config.getoption("markexpr") == "not slow":
        number = sum(item.get_closest_marker("slow") is not None for item in items)
        config.stash[LEFT_OUT].append(number)
        if hasattr(config, "workeroutput"):
            config.workeroutput["left_out"] = number


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Takes from a worker process how many it left out."""
    if "left_out" in getattr(node, "workeroutput", {}):
        node.config.stash[LEFT_OUT].append(node.workeroutput["left_out"])


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Says what was left out, and what runs it."""
    if (numbers := config.stash[LEFT_OUT]) and not hasattr(config, "workeroutput"):
        text = f"left out: {max(numbers)} slow tests (SLURM, real kills, faulty servers, long chains and trainings)"
        terminalreporter.write_line(f"{text}; `make test-all` runs them too")


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """All tests share a cache of their own, stay off the network, and see no runs or results of a reader's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REPRO_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("REPRO_RUNS", str(tmp_path_factory.mktemp("runs")))
        patch.setenv("REPRO_RESULTS", str(tmp_path_factory.mktemp("results")))
        patch.delenv("REPRO_FIGURES", raising=False)
        patch.setenv("REPRO_OFFLINE", "1")
        known = speed._path()  # estimates are those of the reference, whatever a test may have measured
        known.parent.mkdir(parents=True, exist_ok=True)
        known.write_text(json.dumps(asdict(speed.REFERENCE)))
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setenv("no_proxy", "127.0.0.1")
        yield


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """All tests compute on one thread: what is promised bit for bit is so with one number of threads.

    Until a number is set, torch leaves it to MKL how many threads a product takes (``MKL_DYNAMIC``). Gradients of the
    pretended device and of a GPU come from a thread of autograd's own, which takes over the number at its first
    operation and keeps it: hence here, before any test. A test of another number sets it, and one again.
    """
    torch.set_num_threads(1)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for one test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("REPRO_CACHE", str(folder))
    return folder


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Path:
    """An empty local mirror, and an empty cache, for one test."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    monkeypatch.setenv("REPRO_MIRROR", str(folder))
    return folder


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Function that puts cards, by name, instead of the package's own."""
    folder = tmp_path / "cards"
    shutil.copytree(card.cards_directory(), folder)

    def replace(**texts: str) -> None:
        for name, text in texts.items():
            (folder / f"{name}.md").write_text(text, encoding="utf-8")
        monkeypatch.setattr(card, "cards_directory", lambda: folder)
        card.card_names.cache_clear()
        card.load_card.cache_clear()

    yield replace
    monkeypatch.undo()
    card.card_names.cache_clear()
    card.load_card.cache_clear()


@pytest.fixture
def miniature(mirror: Path, cards: Callable[..., None]) -> Callable[[str], None]:
    """Function that puts the miniature of a dataset into the mirror, and its card in place."""

    def place(name: str) -> None:
        texts = {"mnist": miniatures.write_mnist(mirror)}
        poly = {"polymnist": miniatures.DIGITS, "extended_polymnist": {"train": 45, "validation": 15, "test": 20}}
        writers = {
            "mhd": lambda: miniatures.write_mhd(mirror, blocks=True),
            "mlomics": lambda: miniatures.write_omics(mirror),
            "tcga_brca": lambda: miniatures.write_tcga(mirror),
            "celebamask_hq": lambda: miniatures.write_celeba(mirror),
            "biked": lambda: miniatures.write_biked(mirror, "parts"),
            "biked_rendered": lambda: miniatures.write_bike_table(mirror),
        }
        if name in poly:
            texts[name] = miniatures.write_backgrounds(mirror, name, poly[name])
        elif name == "mnist_triples":
            splits = {s: {"count": n} for s, n in miniatures.DIGITS.items()}
            texts[name] = miniatures.card_text(name, splits=splits)
        elif name in writers:
            texts[name] = writers[name]()
        if name == "polymnist":
            miniatures.write_poly_tensors(mirror)
        cards(**texts)

    return place


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A misbehaving server of 300,000 bytes, and the network allowed."""
    monkeypatch.setenv("REPRO_OFFLINE", "0")
    running = Server(bytes((i * i + i // 251) % 256 for i in range(300_000)))
    yield running
    running.close()
