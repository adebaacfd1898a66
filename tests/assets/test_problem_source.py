"""Number of requests to the Hub: plans of a sweep need the key of `problem_source` for every
member."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "a" * 40
_ASK = """
from e2h_pipeline.stages.asset import STAGES, narrow
from assets.problem_source import problem_source
from e2h_pipeline.recipe import MathProblems, Recipe

stage = STAGES["problem_source"]
recipe = Recipe.from_key("ladder").model_copy(update={"problems": MathProblems(hub="some/math")})
for _ in range(20):
    try:
        print(stage.external(narrow(recipe, stage.sections)))
    except ValueError as error:
        print(error)
"""


class Hub(ThreadingHTTPServer):
    """Returns the commit of any data set, or refuses; counts requests for ours."""

    asked = 0
    status = 200


class _Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self.server.asked += "some/math" in self.path
        body = json.dumps({"id": "some/math", "sha": COMMIT}).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub(("127.0.0.1", 0), _Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def _ask(hub: Hub, home: Path) -> set[str]:
    address = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_address[1]}", "HF_HUB_OFFLINE": "0"}
    environment = {**os.environ, **address, "HF_HOME": str(home), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", _ASK], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines())


def test_the_hub_is_asked_once_a_minute(hub: Hub, tmp_path: Path) -> None:
    assert _ask(hub, tmp_path) == {str({"some/math": COMMIT, "HuggingFaceH4/MATH-500": COMMIT})}
    assert hub.asked in (1, 2)  # a minute may end in between


def test_a_hub_that_refuses_is_not_asked_for_every_member(hub: Hub, tmp_path: Path) -> None:
    hub.status = 404
    (said,) = _ask(hub, tmp_path)
    assert "cannot ask the Hub for the commit of some/math" in said
    assert hub.asked in (1, 2)
