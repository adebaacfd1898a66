"""A stub of the Hub's API on loopback: repositories are made, and commits taken, with what was sent kept."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_" + "t" * 34


@dataclass
class Hub:
    """What was asked of the stub: (method, path, token, body). It refuses commits where `refuses`."""

    asked: list[tuple[str, str, str, bytes]] = field(default_factory=list)
    refuses: bool = False
    address: str = ""

    def files(self) -> dict[str, bytes]:
        """The files of the commit."""
        (body,) = (body for _, path, _, body in self.asked if "/commit/" in path)
        lines = [json.loads(line) for line in body.splitlines()]
        return {
            line["value"]["path"]: base64.b64decode(line["value"]["content"])
            for line in lines
            if line["key"] == "file"
        }


@contextmanager
def hub_stub() -> Iterator[Hub]:
    """The stub, served."""
    found = Hub()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self, body: bytes) -> None:
            path = self.path.partition("?")[0]
            token = self.headers.get("Authorization", "")
            found.asked.append((self.command, path, token, body))
            answer: Any = {}
            if path == "/api/repos/create":
                answer = {"url": f"{found.address}/me/it", "name": "me/it"}
            elif "/preupload/" in path:
                files = json.loads(body)["files"]
                told = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]
                answer = {"files": told}
            elif "/commit/" in path:
                answer = {
                    "success": True,
                    "commitOid": "1" * 40,
                    "commitUrl": f"{found.address}/me/it/commit/1",
                }
                answer["hookOutput"] = ""
            refused = found.refuses and "/commit/" in path
            content = json.dumps({"error": f"{token} may not write"} if refused else answer).encode()
            self.send_response(403 if refused else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        found.address = f"http://127.0.0.1:{served.server_port}"
        yield found
        served.shutdown()
