"""A real MLflow server for tests."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def free_port() -> int:
    """A free port on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Whether a process listens on a port of loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def mlflow_server(folder: Path, port: int, database: str = "server.db") -> Iterator[None]:
    """An MLflow server over a database in a folder; stopped afterwards with its workers."""
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1"]
    options = ["--port", str(port), "--backend-store-uri", f"sqlite:///{folder / database}"]
    environment = {
        **os.environ,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "resources.supervise", *command, *options],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env={**environment, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
            cwd=folder,
        )
    try:
        deadline = time.monotonic() + 180
        while not listens(port):
            assert server.poll() is None and time.monotonic() < deadline, (folder / "server.log").read_text()
            time.sleep(0.1)
        yield
    finally:
        assert server.stdin is not None
        server.stdin.close()
        server.wait()
