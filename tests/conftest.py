"""An own cache for the tests, a misbehaving HTTP server, and miniatures of every dataset in its published format."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import miniatures
import pytest

from repro import speed
from repro.datasets import card

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
    """Function that puts cards, by name, in the place of the package's own."""
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


@dataclass
class Request:
    """What a client asked for."""

    path: str
    range: str | None
    if_range: str | None


class Server:
    """A real HTTP server on the loopback interface that serves one content in many bad ways.

    ``behaviours[path]`` is a list that requests of that path use up, the last one for all further ones: ``"ok"``,
    ``"cut:N"`` (N bytes, then the connection closes), ``"stall:N"`` (N bytes, then silence), ``"corrupt"``,
    ``"redirect:PATH"``, ``"long"`` and ``"short"`` (a Content-Length that lies), ``"no_range"``, ``"no_length"``,
    ``"wrong_range"``, ``"endless"``, ``"503:SECONDS"`` or any other status.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.etag = '"one"'
        self.behaviours: dict[str, list[str]] = defaultdict(lambda: ["404"])
        self.requests: list[Request] = []
        self.released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def url(self, path: str, *behaviours: str) -> str:
        """Address of a path that behaves in the given ways, one request after another."""
        self.behaviours[f"/{path}"] = list(behaviours)
        return f"http://127.0.0.1:{self._server.server_address[1]}/{path}"

    def asked(self, path: str) -> list[Request]:
        """Requests of one path."""
        return [r for r in self.requests if r.path == f"/{path}"]

    def close(self) -> None:
        """Stops the server."""
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(server) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: object) -> None:
                """Keeps quiet."""

            def do_GET(self) -> None:
                server.requests.append(Request(self.path, self.headers["Range"], self.headers["If-Range"]))
                queue = server.behaviours[self.path]
                behaviour, _, argument = (queue.pop(0) if len(queue) > 1 else queue[0]).partition(":")
                if behaviour == "redirect":
                    self.send_response(302)
                    self.send_header("Location", argument)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                elif behaviour.isdigit():
                    self.send_response(int(behaviour))
                    if argument:
                        self.send_header("Retry-After", argument)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                else:
                    self._serve(behaviour, argument)

            def _serve(self, behaviour: str, argument: str) -> None:
                body, start, total = server.content, 0, len(server.content)
                asked = self.headers["Range"]
                fresh = self.headers["If-Range"] in (None, server.etag)
                if asked and fresh and behaviour != "no_range":
                    start = int(asked.removeprefix("bytes=").rstrip("-"))
                    if start >= total:
                        self.send_response(416)
                        self.send_header("Content-Range", f"bytes */{total}")
                        self.send_header("Content-Length", "0")
                        self.end_headers()
                        return
                    self.send_response(206)
                    shown = 0 if behaviour == "wrong_range" else start
                    self.send_header("Content-Range", f"bytes {shown}-{total - 1}/{total}")
                else:
                    self.send_response(200)
                body = body[start:]
                if behaviour == "corrupt":
                    body = bytes([body[0] ^ 1]) + body[1:]
                length = {"long": len(body) + 100, "short": max(1, len(body) // 2)}.get(behaviour, len(body))
                if behaviour not in ("no_length", "endless"):
                    self.send_header("Content-Length", str(length))
                self.send_header("ETag", server.etag)
                self.end_headers()
                self.close_connection = True
                limit = int(argument) if behaviour in ("cut", "stall") else len(body)
                self.wfile.write(body[:limit])
                self.wfile.flush()
                if behaviour == "stall":
                    server.released.wait(30)
                deadline = time.monotonic() + 10
                while behaviour == "endless" and time.monotonic() < deadline:
                    self.wfile.write(b"\0" * 65536)

            def handle(self) -> None:
                try:
                    super().handle()
                except ConnectionError:
                    self.close_connection = True

        return Handler


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A misbehaving server of 300,000 bytes, and the network allowed."""
    monkeypatch.setenv("REPRO_OFFLINE", "0")
    running = Server(bytes((i * i + i // 251) % 256 for i in range(300_000)))
    yield running
    running.close()
