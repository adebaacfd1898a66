"""A real `e2h label` for tests, and a person at its page."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from browser import Page
from tiny_experiment import environment

SECONDS = 60


class Server:
    """A running `e2h label`.

    Attributes:
        address: as it printed it, with the token.
    """

    def __init__(self, process: subprocess.Popen[bytes], address: str) -> None:
        self.process, self.address = process, address
        self.port = int(address.split(":")[2].partition("/")[0])
        self.token = address.partition("#")[2]

    def ask(
        self, method: str, path: str, body: object = None, text: bytes | None = None, **headers: str
    ) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers of a request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        sent = {"Authorization": f"Bearer {self.token}", **headers}
        given = text if text is not None else json.dumps(body).encode() if body is not None else None
        connection.request(method, path, given, {k: v for k, v in sent.items() if v})
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())

    def act(self, action: str, version: int) -> int:
        """Status of an action."""
        return self.ask("POST", "/act", {"action": action, "version": version})[0]


@contextmanager
def label_server(home: Path, *arguments: str) -> Iterator[Server]:
    """`e2h label` on a free port; killed afterwards."""
    command = [sys.executable, "-m", "e2h_pipeline.cli.app", "label", *arguments, "--port", "0"]
    process = subprocess.Popen(
        command, env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=home.parent
    )
    try:
        assert process.stdout is not None and process.stderr is not None
        for line in process.stdout:
            if line.startswith(b"http://"):
                break
        else:
            raise AssertionError(process.stderr.read().decode())
        yield Server(process, line.decode().strip())
    finally:
        process.kill()
        process.communicate()


def wait_for(page: Page, version: int) -> None:
    """Wait until the page shows a version of the session."""
    deadline = time.monotonic() + SECONDS
    while page.run("document.body.dataset.version") != str(version):
        assert time.monotonic() < deadline, page.run("document.body.innerText")
        time.sleep(0.02)


def press(page: Page, key: str) -> None:
    page.run(f"dispatchEvent(new KeyboardEvent('keydown', {{key: {json.dumps(key)}}}))")
