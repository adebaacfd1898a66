"""`e2h ui` says what it does before it loads Dagster, which takes seconds."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from tiny_experiment import environment

# Says when Dagster is asked for.
_WATCHED = """
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "dagster":
            print("Dagster is loaded", flush=True)
sys.meta_path.insert(0, Finder())
from e2h_pipeline.cli.app import app
app(["ui", "--port", sys.argv[1]])
"""


def test_the_first_line_comes_before_dagster(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:  # so that nothing is served
        done = subprocess.run(
            [sys.executable, "-c", _WATCHED, str(taken.getsockname()[1])],
            env=environment(tmp_path / "home"),
            capture_output=True,
            text=True,
        )
    assert done.returncode and "is taken; choose another" in done.stderr
    said = done.stdout.splitlines()
    assert said[0].startswith("loading Dagster; ") and said[1] == "Dagster is loaded", said
