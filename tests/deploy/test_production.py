"""Real servers on loopback, killed by SIGKILL one by one and all at once: no run and no slot stays
stuck."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import toy_stages as toy
import yaml
from processes import alive

from e2h_pipeline.operations.doctor import mend
from e2h_pipeline.orchestration import leftovers
from resources.launcher import HOST_TAG, host

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks processes up in /proc"),
]
ROOT = Path(__file__).resolve().parents[2]
_PATIENCE = 120
_LAUNCH = """
mutation($tags: [ExecutionTag!]) {
  launchRun(executionParams: {
    selector: {repositoryLocationName: "toys", repositoryName: "__repository__", jobName: "hold"}
    executionMetadata: {tags: $tags}
  }) { __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } }
}
"""

_CANCEL = "mutation($runId: String!) { terminateRun(runId: $runId) { __typename } }"


def _until(condition: Callable[[], Any], what: str, seconds: float = _PATIENCE) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Servers:
    """Code server, daemon and webserver over one home, each in its own process."""

    def __init__(self, home: Path) -> None:
        self.home, self.pids, self.go = home, home / "pids", home / "go"
        toy.write_recipe(home, toy.RECIPE)
        self._code, self._web = _free_port(), _free_port()
        folder = home / "dagster"
        folder.mkdir(parents=True)
        config = yaml.safe_load((ROOT / "dagster.yaml").read_text())
        # Shorter than shipped: how long the slot of a failed run stays taken.
        config["run_monitoring"] |= {"poll_interval_seconds": 1, "free_slots_after_run_end_seconds": 1}
        (folder / "dagster.yaml").write_text(yaml.safe_dump(config))
        workspace = home / "workspace.yaml"
        server = {"host": "127.0.0.1", "port": self._code, "location_name": "toys"}
        workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")}
        self._environment = {
            **kept,
            "E2H_HOME": str(home),
            "DAGSTER_HOME": str(folder),
            "TOY_PIDS": str(self.pids),
            "TOY_GO": str(self.go),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        }
        on = ["--host", "127.0.0.1", "--port"]
        self._commands = {
            "code": ["api", "grpc", "-m", "toy_workspace", "--location-name", "toys", *on, str(self._code)],
            "daemon": ["-m", "dagster._daemon", "run", "-w", str(workspace)],
            "web": ["-m", "dagster_webserver", "-w", str(workspace), *on, str(self._web)],
        }
        self._commands["code"] = ["-m", "dagster", *self._commands["code"]]
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, *names: str) -> None:
        for name in names:
            with (self.home / f"{name}.log").open("ab") as log:
                self.running[name] = subprocess.Popen(
                    [sys.executable, *self._commands[name]],
                    env=self._environment,
                    stdout=log,
                    stderr=log,
                    cwd=self.home,
                )
        for name, port in (("code", self._code), ("web", self._web)):
            if name in names:
                _until(lambda port=port: _listens(port), f"{name} listens")

    def kill(self, *names: str) -> None:
        for name in names:
            self.running[name].kill()
            self.running[name].wait()

    def launch(self) -> str:
        """Launch a run through the webserver, like the UI; its id."""
        for note in (self.pids, self.go):
            note.unlink(missing_ok=True)
        # Another seed, so that the store has no artifact yet.
        key = f"toy/seed={int(time.time() * 1000) % 1_000_000}"
        with self.instance() as instance:
            instance.add_dynamic_partitions("experiment", [key])
        tags = {"tags": [{"key": "dagster/partition", "value": key}]}
        run = _until(lambda: self._ask(_LAUNCH, tags)["launchRun"].get("run"), "the webserver launches")
        return str(run["runId"])

    def cancel(self, run_id: str) -> None:
        """Cancel a run through the webserver, like the UI."""
        said = self._ask(_CANCEL, {"runId": run_id})["terminateRun"]
        assert said["__typename"] == "TerminateRunSuccess", said

    def _ask(self, query: str, variables: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._web}/graphql",
            json.dumps({"query": query, "variables": variables}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["data"]

    def training(self) -> tuple[int, int, int]:
        """Pids of the run worker, of the training process and of its child."""
        _until(self.pids.exists, "training begins")
        body, grandchild = map(int, self.pids.read_text().split())
        supervisor = _parent(body)
        return _parent(supervisor), body, grandchild

    def status(self, run_id: str) -> str:
        with self.instance() as instance:
            run = instance.get_run_by_id(run_id)
            return run.status.value if run else "none"

    def instance(self) -> dg.DagsterInstance:
        os.environ["DAGSTER_HOME"] = self._environment["DAGSTER_HOME"]
        return dg.DagsterInstance.get()

    def slots(self) -> set[str]:
        with self.instance() as instance:
            return set(instance.event_log_storage.get_concurrency_run_ids())


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    home = tmp_path_factory.mktemp("home")
    before = os.environ.get("DAGSTER_HOME")
    found = Servers(home)
    with found.instance() as instance:
        instance.event_log_storage.set_concurrency_slots("gpu", 1)
        instance.event_log_storage.set_concurrency_slots("cpu", 2)
    try:
        found.start("code", "web", "daemon")
        yield found
    finally:
        for server in found.running.values():
            server.kill()
            server.wait()
        if found.pids.exists():
            for pid in map(int, found.pids.read_text().split()):
                if alive(pid):
                    os.kill(pid, signal.SIGKILL)
        os.environ.pop("DAGSTER_HOME")
        if before:
            os.environ["DAGSTER_HOME"] = before


def test_a_run_goes_on_without_a_server(servers: Servers) -> None:
    """The training is a child of the run worker only; the restarted servers find it finished."""
    run_id = servers.launch()
    _, body, grandchild = servers.training()
    for victim in ("web", "daemon", "code"):
        servers.kill(victim)
        servers.start(victim)
        assert alive(body) and servers.status(run_id) == "STARTED", victim
    servers.go.touch()
    _until(lambda: servers.status(run_id) == "SUCCESS", "the run ends")
    _until(lambda: not servers.slots(), "its slot is free")
    assert not alive(body) and not alive(grandchild)


@pytest.mark.parametrize("everything", [False, True], ids=["worker", "all"])
def test_a_run_whose_worker_was_killed_is_closed_and_the_next_proceeds(
    servers: Servers, everything: bool
) -> None:
    run_id = servers.launch()
    worker, body, grandchild = servers.training()
    if everything:
        servers.kill("daemon", "web", "code")
    os.kill(worker, signal.SIGKILL)
    _until(lambda: not alive(body) and not alive(grandchild), "training ends with its worker", 20)
    if everything:
        assert servers.status(run_id) == "STARTED" and servers.slots() == {run_id}
        servers.start("code", "web", "daemon")
    # While its code server lives, Dagster notices a dead run worker, or our sensor, which may come
    # first; after a restart our sensor does.
    closed = {"CANCELED"} if everything else {"CANCELED", "FAILURE"}
    _until(lambda: servers.status(run_id) in closed, "the run is closed")
    _until(lambda: run_id not in servers.slots(), "its slot is free")
    after = servers.launch()
    servers.go.touch()
    _until(lambda: servers.status(after) == "SUCCESS", "a new run proceeds")


def test_cancelling_a_run_ends_its_training(servers: Servers) -> None:
    run_id = servers.launch()
    _, body, grandchild = servers.training()
    with servers.instance() as instance:
        run = instance.get_run_by_id(run_id)
        assert run is not None and run.tags[HOST_TAG] == host()  # another container leaves it alone
    servers.cancel(run_id)
    _until(lambda: servers.status(run_id) == "CANCELED", "the run is cancelled")
    _until(lambda: not alive(body) and not alive(grandchild), "training ends", 20)
    _until(lambda: not servers.slots(), "its slot is free")


def test_a_run_cancelled_while_its_code_server_was_gone_is_ended_by_doctor(servers: Servers) -> None:
    """Nothing tells the worker to stop; it would go on training on a GPU whose slot is free."""
    run_id = servers.launch()
    worker, body, grandchild = servers.training()
    servers.kill("code")
    with servers.instance() as instance:
        run = instance.get_run_by_id(run_id)
        assert run is not None
        instance.report_run_canceled(run)
        servers.start("code")
        assert alive(worker) and alive(body)
        (found,) = leftovers.workers_of_ended_runs(instance, grace=0)
        assert found.subject == run_id
        found.fix()
        assert leftovers.workers_of_ended_runs(instance, grace=0) == []
    _until(lambda: not alive(worker) and not alive(body) and not alive(grandchild), "all are gone", 20)
    assert [finding.subject for finding in mend(servers.home) if finding.kind in ("run", "process")] == []
