"""Dagster's and MLflow's web pages side by side, on loopback only, until Ctrl-C.

Neither has a login, so neither may listen elsewhere; share them through an SSH tunnel. Each server
runs under `resources.supervise`, because both leave workers behind when only their parent is
stopped.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from e2h_pipeline.artifacts.served import serving
from e2h_pipeline.orchestration.instance import dagster_home, open_instance
from e2h_pipeline.orchestration.leftovers import release_dead_runs
from resources.tracking import local_database, make_database

HOST = "127.0.0.1"
_START_SECONDS = 180
_POLL_SECONDS = 0.3


class UiError(RuntimeError):
    """The pages cannot be served; one line for people."""


def serve(home: Path, port: int, mlflow_port: int, say: Callable[[str], None]) -> None:
    """Start both servers, `say` what is done and their addresses, and stop them on Ctrl-C or SIGTERM.

    Raises:
        UiError: a port is taken, or a server ended by itself.
    """
    for wanted in (port, mlflow_port):
        _check_free(wanted)
    say("closing runs whose process is gone")
    with open_instance(home) as instance:
        release_dead_runs(instance)
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background jobs start with SIGINT ignored
        signal.signal(number, _interrupt)
    say("opening MLflow's database")
    make_database(home)
    servers: list[subprocess.Popen[bytes]] = []
    try:
        with serving(home, {"dagster": port, "mlflow": mlflow_port}):
            told = {"DAGSTER_HOME": str(dagster_home(home))}
            servers.append(_start(_dagster(port), home, told, "dagster"))
            servers.append(_start(_mlflow(home, mlflow_port), home, _MLFLOW_ENVIRONMENT, "mlflow"))
            say(f"starting both servers; their logs are in {home / 'logs'}")
            _wait_for(servers, (port, mlflow_port), home)
            say(f"Dagster  http://{HOST}:{port}\nMLflow   http://{HOST}:{mlflow_port}\nCtrl-C stops both.")
            while all(server.poll() is None for server in servers):
                time.sleep(_POLL_SECONDS)
        raise UiError(f"a server ended by itself; its log is in {home / 'logs'}")
    except KeyboardInterrupt:
        return
    finally:
        _stop(servers)


_MLFLOW_ENVIRONMENT = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


def _dagster(port: int) -> list[str]:
    module = ["-m", "dagster", "dev", "-m", "e2h_pipeline.definitions"]
    return [sys.executable, *module, "--host", HOST, "--port", str(port)]


def _mlflow(home: Path, port: int) -> list[str]:
    """MLflow's page over our SQLite, even with MLFLOW_TRACKING_URI: a server has its own page."""
    database = local_database(home)
    artifacts = (home / "mlflow-artifacts").as_uri()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", database]
    return [
        *command,
        "--default-artifact-root",
        artifacts,
        "--host",
        HOST,
        "--port",
        str(port),
        "--workers",
        "1",
    ]


def _start(command: Sequence[str], home: Path, extra: dict[str, str], name: str) -> subprocess.Popen[bytes]:
    """A server under a supervisor, which ends all its processes when we close standard input."""
    (home / "logs").mkdir(parents=True, exist_ok=True)
    with (home / "logs" / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "resources.supervise", *command],
            cwd=home,  # elsewhere, a folder with a package's name could shadow the package
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "E2H_HOME": str(home), **extra},
            start_new_session=True,
        )


def _wait_for(servers: Sequence[subprocess.Popen[bytes]], ports: Sequence[int], home: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not all(_listens(port) for port in ports):
        if any(server.poll() is not None for server in servers) or time.monotonic() > deadline:
            raise UiError(f"a server did not start; its log is in {home / 'logs'}")
        time.sleep(_POLL_SECONDS)


def _stop(servers: Sequence[subprocess.Popen[bytes]]) -> None:
    for server in servers:
        if server.stdin is not None:
            server.stdin.close()
    for server in servers:
        server.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((HOST, port)) == 0


def _check_free(port: int) -> None:
    if _listens(port):
        raise UiError(f"port {port} is taken; choose another with --port or --mlflow-port")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
