"""A webhook on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Hook(BaseHTTPRequestHandler):
    """Keeps what is posted.

    Attributes:
        got: the JSON objects.
        answer: HTTP status of each answer; 302 names another address.
    """

    got: list[dict[str, str]]
    answer = 200

    def do_POST(self) -> None:
        self.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.answer)
        if self.answer == 302:
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def hook() -> Iterator[tuple[str, type[Hook]]]:
    """Its address, and what it got."""
    kind = type("Hook", (Hook,), {"got": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/secret-token", kind
        server.shutdown()
