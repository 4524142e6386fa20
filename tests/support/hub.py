"""Servers on this machine that the Hub's own client speaks to: one takes a dataset, one keeps models."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from huggingface_hub import constants

if TYPE_CHECKING:
    from tests.support.weights import Shelf

TOKEN = "hf_not_to_be_printed"


class Hub:
    """A server that speaks what the Hub's client needs to upload to one dataset repository, ``user/digits``."""

    token = TOKEN

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.large: dict[str, bytes] = {}
        self.commits: list[dict[str, Any]] = []
        self.calls: list[str] = []
        self.refuse = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Stops the server."""
        self._server.shutdown()
        self._server.server_close()

    @property
    def head(self) -> str:
        """The hash of the last commit."""
        return hashlib.sha1(str(len(self.commits)).encode()).hexdigest()

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """Status and JSON of one request."""
        repo = "/api/datasets/user/digits"
        if method == "PUT" and path.startswith("/store/"):
            self.large[path.removeprefix("/store/")] = body
            return 200, {}
        if path == "/api/repos/create":
            assert json.loads(body)["type"] == "dataset"
            return (409 if self.commits else 200), {"url": f"{self.url}/datasets/user/digits"}
        if path == "/api/validate-yaml":
            header = yaml.safe_load(json.loads(body)["content"].split("---\n")[1])
            return 200, {"errors": [] if "license" in header else [{"message": "no licence"}], "warnings": []}
        if path == f"{repo}/preupload/main":
            wanted = [file["path"] for file in json.loads(body)["files"]]
            return 200, {"files": [self._upload_mode(p) for p in wanted]}
        if path == "/datasets/user/digits.git/info/lfs/objects/batch":
            objects = json.loads(body)["objects"]
            for o in objects:
                if o["oid"] not in self.large:
                    o["actions"] = {"upload": {"href": f"{self.url}/store/{o['oid']}"}}
            return 200, {"transfer": "basic", "objects": objects}
        if path == f"{repo}/commit/main":
            return 200, self._commit([json.loads(line) for line in body.splitlines()])
        if method == "GET" and path in (repo, f"{repo}/revision/main"):
            return 200, {"id": "user/digits", "sha": self.head, "siblings": []}
        return 404, {"error": f"no {method} {path}"}

    def _upload_mode(self, path: str) -> dict[str, Any]:
        mode = "lfs" if path.endswith(".parquet") else "regular"
        found: dict[str, Any] = {"path": path, "uploadMode": mode, "shouldIgnore": False}
        if (content := self.files.get(path)) is not None:
            blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
            found["oid"] = hashlib.sha256(content).hexdigest() if mode == "lfs" else blob
        return found

    def _commit(self, lines: list[dict[str, Any]]) -> dict[str, str]:
        self.commits.append(lines[0]["value"] | {"paths": [line["value"]["path"] for line in lines[1:]]})
        for line in lines[1:]:
            value = line["value"]
            large = line["key"] == "lfsFile"
            self.files[value["path"]] = self.large[value["oid"]] if large else base64.b64decode(value["content"])
        return {"commitOid": self.head, "commitUrl": f"{self.url}/datasets/user/digits/commit/{self.head}"}

    def _handler(hub) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: object) -> None:
                """Keeps quiet."""

            def _any(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"] or 0))
                hub.calls.append(f"{self.command} {self.path}")
                stored = self.path.startswith("/store/")  # such addresses are signed instead
                known = stored or (self.headers["Authorization"] == f"Bearer {TOKEN}" and not hub.refuse)
                status, content = (
                    hub.answer(self.command, self.path, body)
                    if known
                    else (401, {"error": f"who is {self.headers['Authorization']}?"})
                )
                encoded = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(encoded)))
                self.end_headers()
                self.wfile.write(encoded)

            do_GET = do_POST = do_PUT = _any

        return Handler


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A running server that the client is pointed to, with a token."""
    running = Hub()
    monkeypatch.setenv("HF_ENDPOINT", running.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    # The environment would be read too late: the client's module has been imported.
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    yield running
    running.close()


def git_blob(content: bytes) -> str:
    """Git's hash of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Repository:
    """One model repository: every commit with all its files, tags, and who may read it."""

    private: bool = False
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def add(self, files: dict[str, bytes], message: str = "") -> str:
        """A new commit with these files in all, and its hash."""
        text = f"{len(self.commits)} {message} {sorted((k, git_blob(v)) for k, v in files.items())}"
        self.commits.append((hashlib.sha1(text.encode()).hexdigest(), dict(files)))
        self.messages.append(message)
        return self.commits[-1][0]

    def resolve(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Hash and files of a branch, tag or commit; None where there is none."""
        if revision == "main":
            return self.commits[-1]
        wanted = self.tags.get(revision, revision)
        return next(((h, files) for h, files in self.commits if h == wanted), None)


class ModelHub:
    """A Hub of model repositories that the real client creates, pushes to, tags, lists and pulls from.

    ``faults`` maps a regular expression of ``"METHOD path"`` to a list that matching requests use up, the last one for
    all further ones: ``"ok"``, ``"cut:N"`` (N bytes of the answer, then the connection closes), ``"stall:N"`` (N bytes,
    then silence until :attr:`released`), ``"flip"`` (one bit of the body), ``"long"`` (more bytes than there are),
    ``"no_range"``, ``"drop"`` (no answer at all), or a status.

    Arguments:
        large: Files of at least so many bytes, and all safetensors, are kept by the protocol of large files.

    Attributes:
        cards_of_users: Whether cards may lack a licence and results, as the Hub allows; those of published models must
            have both.
    """

    token = TOKEN

    def __init__(self, large: int = 10_000_000) -> None:
        self.large_from = large
        self.cards_of_users = False
        self.repos: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.calls: list[str] = []
        self.ranges: dict[str, list[str | None]] = defaultdict(list)
        self.sent: dict[str, int] = defaultdict(int)
        self.faults: dict[str, list[str]] = {}
        self.released = threading.Event()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Stops the server; nobody listens at its address any more."""
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def count(self, pattern: str) -> int:
        """How many requests matched."""
        return sum(re.search(pattern, call) is not None for call in self.calls)

    def is_large(self, path: str, size: int) -> bool:
        """Whether a file is kept by the protocol of large files."""
        return path.endswith(".safetensors") or size >= self.large_from

    def fault(self, call: str) -> tuple[str, int]:
        """What goes wrong with a request, and its number."""
        with self._lock:
            for pattern, queue in self.faults.items():
                if re.search(pattern, call):
                    kind, _, number = (queue.pop(0) if len(queue) > 1 else queue[0]).partition(":")
                    return kind, int(number or 0)
        return "ok", 0

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        """Status, JSON and headers of one request that is not for a file's content."""
        if path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted.get('organization') or 'user'}/{wanted['name']}"
            status = 409 if name in self.repos else 200
            self.repos.setdefault(name, Repository()).commits or self.repos[name].add({".gitattributes": b"*\n"})
            return status, {"url": f"{self.url}/{name}"}, {}
        if path == "/api/validate-yaml":
            header = yaml.safe_load(json.loads(body)["content"].split("---\n")[1])
            bad = not isinstance(header.get("license", "mit" if self.cards_of_users else None), str)
            bad |= not isinstance(header.get("model-index", [] if self.cards_of_users else None), list)
            return (400 if bad else 200), {"errors": [{"message": "bad metadata"}] if bad else [], "warnings": []}, {}
        match = re.fullmatch(r"(?:/api/models)?/([^/]+/[^/]+?)(?:\.git)?(?:/(.*))?", path)
        repo = self.repos.get(match[1]) if match else None
        if match is None or repo is None:
            return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
        action, _, rest = (match[2] or "").partition("/")
        return self._repository(repo, match[1], f"{method} {action}", unquote(rest), body)

    def _repository(
        self, repo: Repository, name: str, action: str, rest: str, body: bytes
    ) -> tuple[int, Any, dict[str, str]]:
        if action == "POST preupload":
            return 200, {"files": [self._mode(repo, f) for f in json.loads(body)["files"]]}, {}
        if action == "POST info":  # info/lfs/objects/batch
            objects = json.loads(body)["objects"]
            for o in objects:
                if o["oid"] not in self.objects:
                    verify = {"href": f"{self.url}/verify", "header": {}}
                    o["actions"] = {"upload": {"href": f"{self.url}/store/{o['oid']}"}, "verify": verify}
            return 200, {"transfer": "basic", "objects": objects}, {}
        if action == "POST commit":
            return self._commit(repo, name, [json.loads(line) for line in body.splitlines()])
        if action == "POST tag":
            tag = json.loads(body)["tag"]
            if tag in repo.tags:
                return 409, {"error": "Tag reference exists already"}, {}
            found = repo.resolve(rest)
            assert found is not None
            repo.tags[tag] = found[0]
            return 200, {}, {}
        if action == "DELETE tag":
            return (200 if repo.tags.pop(rest, None) else 404), {}, {}
        if action == "GET refs":
            tags = [{"name": t, "ref": f"refs/tags/{t}", "targetCommit": h} for t, h in repo.tags.items()]
            return 200, {"branches": [], "converts": [], "tags": tags}, {}
        revision, _, folder = rest.partition("/") if action == "GET tree" else (rest or "main", "", "")
        found = repo.resolve(revision)
        if found is None:
            return 404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"}
        if action in ("GET revision", "GET "):
            return 200, {"id": name, "sha": found[0], "siblings": [{"rfilename": p} for p in found[1]]}, {}
        if action == "GET tree":
            prefix = f"{folder}/" if folder else ""
            listed = [self._listed(p, c) for p, c in sorted(found[1].items()) if p.startswith(prefix)]
            if folder and not listed:
                return 404, {"error": f"{folder} does not exist"}, {"X-Error-Code": "EntryNotFound"}
            return 200, listed, {}
        return 404, {"error": f"no {action}"}, {}

    def _listed(self, path: str, content: bytes) -> dict[str, Any]:
        found = {"type": "file", "path": path, "size": len(content), "oid": git_blob(content)}
        if self.is_large(path, len(content)):
            found["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        return found

    def _mode(self, repo: Repository, file: dict[str, Any]) -> dict[str, Any]:
        large = self.is_large(file["path"], file["size"])
        found = {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
        if (content := repo.commits[-1][1].get(file["path"])) is not None:
            found["oid"] = hashlib.sha256(content).hexdigest() if large else git_blob(content)
        return found

    def _commit(self, repo: Repository, name: str, lines: list[dict[str, Any]]) -> tuple[int, Any, dict[str, str]]:
        if (parent := lines[0]["value"].get("parentCommit")) not in (None, repo.commits[-1][0]):
            return 412, {"error": f"A commit has happened since {parent}. Please refresh and try again."}, {}
        files = dict(repo.commits[-1][1])
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "lfsFile":
                if value["oid"] not in self.objects:
                    return 400, {"error": f"no object {value['oid']}"}, {}
                files[value["path"]] = self.objects[value["oid"]]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
        commit = repo.add(files, lines[0]["value"]["summary"])
        return 200, {"commitOid": commit, "commitUrl": f"{self.url}/{name}/commit/{commit}"}, {}

    def store(self, path: str, body: bytes) -> tuple[int, Any]:
        """Takes an object, or says whether it is there as the client thinks."""
        if path == "/verify":
            wanted = json.loads(body)
            return (200 if len(self.objects.get(wanted["oid"], b"")) == wanted["size"] else 422), {}
        oid = path.removeprefix("/store/")
        if hashlib.sha256(body).hexdigest() != oid:
            return 400, {"error": "the content is not what its name says"}
        self.objects[oid] = body
        return 200, {}

    def allowed(self, path: str, authorization: str | None, method: str) -> bool:
        """Whether a request may be answered: writing and private repositories need the token; a wrong one is none."""
        if path.startswith(("/store/", "/verify")):  # such addresses are signed instead
            return True
        if authorization is not None:
            return authorization == f"Bearer {TOKEN}"
        private = any(repo.private and f"/{name}" in path for name, repo in self.repos.items())
        return method in ("GET", "HEAD") and not private

    def _handler(hub) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                """Keeps quiet."""

            def handle(self) -> None:
                try:
                    super().handle()
                except (ConnectionError, TimeoutError):
                    self.close_connection = True

            def _any(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"] or 0))
                path = urlsplit(self.path).path
                call = f"{self.command} {path}"
                hub.calls.append(call)
                fault, number = hub.fault(call)
                if fault == "drop":
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                elif fault.isdigit():
                    self._json(int(fault), {"error": f"status {fault}"}, {})
                elif not hub.allowed(path, self.headers["Authorization"], self.command):
                    self._json(401, {"error": "Invalid username or password."}, {})
                elif path.startswith(("/store/", "/verify")):
                    self._json(*hub.store(path, body), {})
                elif (match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)) is not None:
                    self._file(match[1], unquote(match[2]), unquote(match[3]), fault, number)
                else:
                    self._json(*hub.answer(self.command, path, body))

            def _json(self, status: int, content: Any, headers: dict[str, str]) -> None:
                encoded = json.dumps(content).encode()
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", "Content-Length": len(encoded)}.items():
                    self.send_header(name, str(value))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(encoded)

            def _file(self, name: str, revision: str, path: str, fault: str, number: int) -> None:
                repo = hub.repos.get(name)
                found = None if repo is None else repo.resolve(revision)
                for missing, code in ((repo, "Repo"), (found, "Revision")):
                    if missing is None:
                        self._json(404, {"error": f"{code} not found"}, {"X-Error-Code": f"{code}NotFound"})
                        return
                assert found is not None
                content = found[1].get(path)
                if content is None:
                    self._json(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
                    return
                asked = self.headers["Range"]
                hub.ranges[path].append(asked)
                start, total = 0, len(content)
                if asked and fault != "no_range":
                    start = int(asked.removeprefix("bytes=").rstrip("-"))
                    self.send_response(206)
                    self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
                else:
                    self.send_response(200)
                body = bytes([content[start] ^ 1]) + content[start + 1 :] if fault == "flip" else content[start:]
                body += b"more than there is" if fault == "long" else b""
                self.send_header("Content-Length", str(len(body)))
                self.send_header("ETag", f'"{git_blob(content)}"')
                self.send_header("X-Repo-Commit", found[0])
                self.end_headers()
                if self.command == "HEAD":
                    return
                limit = number if fault in ("cut", "stall") else len(body)
                for begin in range(0, limit, 1 << 20):
                    self.wfile.write(body[begin : min(limit, begin + (1 << 20))])
                    hub.sent[path] += min(limit, begin + (1 << 20)) - begin
                if fault == "stall":
                    hub.released.wait(300)
                if limit < len(body):
                    self.close_connection = True

            do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = _any

        return Handler


@pytest.fixture
def model_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelHub]:
    """A running Hub of models that the client is pointed to, with a token and the network allowed."""
    running = ModelHub()
    monkeypatch.setenv("HF_ENDPOINT", running.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("REPRO_OFFLINE", "0")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    # The environment would be read too late: the client's module has been imported.
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield running
    running.close()


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Shelf:
    """An empty package of weights instead of the real one, and an empty cache."""
    from repro.weights import folder as weights_folder
    from tests.support.weights import Shelf

    found = Shelf(tmp_path)
    found.weights.mkdir(parents=True)
    monkeypatch.setattr(weights_folder, "files", lambda name: found.root / "package" / name.partition(".")[2])
    monkeypatch.setenv("REPRO_RUNS", str(found.store.root))
    monkeypatch.setenv("REPRO_FIGURES", str(found.figures))
    return found
