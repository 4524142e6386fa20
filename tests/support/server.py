"""A real HTTP server on the loopback interface that serves one content in many bad ways."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["Request", "Server"]


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
                    server.released.wait(300)
                deadline = time.monotonic() + 10
                while behaviour == "endless" and time.monotonic() < deadline:
                    self.wfile.write(b"\0" * 65536)

            def handle(self) -> None:
                try:
                    super().handle()
                except ConnectionError:
                    self.close_connection = True

        return Handler
