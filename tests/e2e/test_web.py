"""Dagster's real web server over a real experiment: its pages, and the effect of a forged event."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
from browser import BROWSER, OPTIONS, needs_browser
from tiny_experiment import e2h, environment

from e2h_pipeline.artifacts.request import StoreError
from e2h_pipeline.artifacts.served import served
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.orchestration.source_watch import look
from resources.store import latest_artifact

pytestmark = pytest.mark.slow
_SECONDS = 120
_LARGEST_PICTURE = 300_000  # bytes


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(2.0)
        return probe.connect_ex((address, port)) == 0


@contextmanager
def _server(command: list[str], home: Path, ports: list[int]) -> Iterator[None]:
    log = home / "logs" / "test-server.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("wb") as output:
        env = {**environment(home), "DAGSTER_HOME": str(home / "dagster")}
        process = subprocess.Popen(
            [sys.executable, "-m", *command], env=env, cwd=home, stdout=output, stderr=output
        )
        try:
            deadline = time.monotonic() + _SECONDS
            while not all(_answers("127.0.0.1", port) for port in ports):
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.3)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)


def _webserver(*more: str) -> tuple[list[str], int]:
    port = _free_port()
    code = ["-m", "e2h_pipeline.definitions"]
    return ["dagster_webserver", *code, "-h", "127.0.0.1", "-p", str(port), *more], port


@pytest.fixture(scope="module")
def alerted_home(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home of `tiny`, with a second experiment whose data folder is empty, as the sensor
    reports it."""
    folder = tmp_path_factory.mktemp("no-data")
    text = f"description: problems of our own\nproblems: {{source: math, path: {folder}}}\n"
    recipe = tiny_home / "recipes" / "own-math.yaml"
    recipe.write_text(text)
    with _instance(tiny_home) as instance:
        instance.add_dynamic_partitions("experiment", ["own-math"])
        for event in look(instance, tiny_home, {})[0]:
            instance.report_runless_asset_event(event)
    yield tiny_home
    recipe.unlink()  # other tests share the home


@contextmanager
def _instance(home: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        yield instance


@pytest.fixture(scope="module")
def site(alerted_home: Path) -> Iterator[str]:
    """The address of a web server over that home."""
    command, port = _webserver()
    with _server(command, alerted_home, [port]):
        yield f"http://127.0.0.1:{port}"


def _post(url: str, data: object) -> tuple[int, str]:
    body = json.dumps(data).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status), answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.fixture
def browse(site: str, tmp_path: Path) -> Callable[[str, str], tuple[str, Path]]:
    """Opens a page; returns its DOM as text, and a picture."""

    def open_page(path: str, size: str) -> tuple[str, Path]:
        picture = tmp_path / "page.png"
        options = [
            *OPTIONS,
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--window-size={size}",
            "--virtual-time-budget=30000",
        ]
        common = {"capture_output": True, "text": True, "timeout": 180, "check": True}
        subprocess.run([str(BROWSER), *options, f"--screenshot={picture}", site + path], **common)  # type: ignore[call-overload]
        page = subprocess.run([str(BROWSER), *options, "--dump-dom", site + path], **common)  # type: ignore[call-overload]
        return page.stdout, picture

    return open_page


def _looks_like_a_page(picture: Path) -> None:
    """Not blank: a PNG of one colour is a few kB."""
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert 20_000 < picture.stat().st_size < _LARGEST_PICTURE


@needs_browser
def test_the_asset_graph_shows_every_group(browse: Callable[[str, str], tuple[str, Path]]) -> None:
    text, picture = browse("/asset-groups", "1400,800")
    _looks_like_a_page(picture)
    for group in ("data", "policy", "evaluator", "reranking", "answers", "results"):
        assert f">{group}<" in text, group


@needs_browser
def test_a_partition_shows_its_numbers_and_what_fed_them(
    browse: Callable[[str, str], tuple[str, Path]],
) -> None:
    text, picture = browse("/assets/rerank_metrics?view=partitions&partition=tiny", "1400,900")
    _looks_like_a_page(picture)
    for name in ("easy_data_version", "lineage", "mlflow", "preview"):
        assert name in text, name


@needs_browser
def test_a_failed_check_says_what_is_wrong(browse: Callable[[str, str], tuple[str, Path]]) -> None:
    path = "/assets/problem_files?view=checks&checkDetail=source_readable"
    text, picture = browse(path, "1400,800")
    _looks_like_a_page(picture)
    assert "no math_train.jsonl or math_train.jsonl.gz; set problems.path" in text
    assert "(own-math)" in text


def test_a_forged_event_never_becomes_lineage(site: str, alerted_home: Path) -> None:
    """Anyone who reaches the port may report events. Numbers and lineage still come from
    manifests."""
    before = e2h(alerted_home, "lineage", "tiny", "--json")
    forged = {"partition": "tiny", "data_version": "EVIL", "metadata": {"artifact_key": "e" * 64}}
    status, _ = _post(f"{site}/report_asset_materialization/easy_problems", forged)
    assert status == 200  # Dagster accepts it: docs/security.md
    with _instance(alerted_home) as instance, pytest.raises(StoreError, match="reported from outside a run"):
        latest_artifact(instance, ArtifactStore(alerted_home), "easy_problems", "tiny")
    after = e2h(alerted_home, "lineage", "tiny", "--json")
    assert before.returncode == after.returncode == 0, after.stderr
    assert after.stdout == before.stdout and "EVIL" not in after.stdout
    again = e2h(alerted_home, "run", "tiny", "--select", "easy_problems")  # the mend that the error names
    assert again.returncode == 0 and "reused" in again.stdout, again.stdout + again.stderr
    with _instance(alerted_home) as instance:
        assert latest_artifact(instance, ArtifactStore(alerted_home), "easy_problems", "tiny") is not None


def test_viewers_of_a_read_only_server_change_nothing(alerted_home: Path) -> None:
    command, port = _webserver("--read-only")
    with _server(command, alerted_home, [port]):
        url = f"http://127.0.0.1:{port}"
        status, _ = _post(f"{url}/report_asset_materialization/easy_problems", {"partition": "tiny"})
        assert status in (401, 403)
        mutation = 'mutation{terminateRun(runId:"x"){__typename}}'
        _, answer = _post(f"{url}/graphql", {"query": mutation})
        assert "UnauthorizedError" in answer


def test_the_pages_listen_on_loopback_only(alerted_home: Path) -> None:
    """127.0.0.2 is this machine, too: a server on all interfaces would answer there."""
    ports = [_free_port(), _free_port()]
    command = ["e2h_pipeline.cli.app", "ui", "--port", str(ports[0]), "--mlflow-port", str(ports[1])]
    with _server(command, alerted_home, ports):
        assert not any(_answers("127.0.0.2", port) for port in ports)
        assert served(alerted_home) == {"dagster": ports[0], "mlflow": ports[1]}
    assert served(alerted_home) == {}
