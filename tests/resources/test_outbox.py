"""Data that MLflow missed reaches it later, once: with a real server that is first down, and with
killed writers."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import forked
import pytest
import toy_stages as toy
from servers import free_port, mlflow_server

from e2h_pipeline.artifacts.manifest import InputRef
from e2h_pipeline.artifacts.request import Artifact, Draft, Request
from e2h_pipeline.artifacts.store import ArtifactStore
from resources import outbox
from resources.mlflow_sender import MlflowSender
from resources.tracking import ExperimentInfo, StageInfo, TrackingResource, local_database, send_waiting

LOG = logging.getLogger("test")
ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "geheim"
_CLOSED_PORT = "http://127.0.0.1:9"  # no server listens there


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    yield


def _artifact(
    store: ArtifactStore, asset: str, *inputs: Artifact, files: tuple[str, ...] = ("data.txt",)
) -> Artifact:
    def make(draft: Draft) -> None:
        for name in files:
            (draft.out / name).write_text("{}")
        draft.summary = {"loss": 0.25}

    refs = {a.asset: InputRef(key=a.key, data_version=a.data_version) for a in inputs}
    return store.obtain(Request(asset, "c0de", inputs=refs), make)[0]


def _stage(home: Path, uri: str, steps: int = 3) -> None:
    """A stage from its start to its end."""
    store = ArtifactStore(home)
    easy = _artifact(store, "easy_problems")
    policy = _artifact(store, "sft_policy", easy, files=("config.json",))
    info = StageInfo(
        ExperimentInfo("ladder"), "sft_policy", "k" * 64, "run-1", {"seed": 1}, {"easy_problems": easy}
    )
    with TrackingResource(uri=uri).stage_run(home, info, LOG) as run:
        run.open()
        for step in range(steps):
            run.reporter.metrics({"loss": 1.0 / (step + 1)}, step)
        run.finish(policy)


def _runs(uri: str) -> list[Any]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("e2h")
    found = client.search_runs([experiment.experiment_id]) if experiment else []
    return [run for run in found if "e2h.asset" in run.data.tags]


def _check_whole(uri: str, status: str = "FINISHED") -> None:
    """Check that the one run has everything, once."""
    from mlflow.tracking import MlflowClient

    (run,) = _runs(uri)
    client = MlflowClient(uri)
    assert run.info.status == status
    assert run.data.params == {"seed": "1"}
    points = [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, "loss")]
    assert sorted(points) == sorted([(0, 1.0), (1, 0.5), (2, 1 / 3), (0, 0.25)])  # the last from the summary
    assert len(run.inputs.dataset_inputs) == 1
    assert len(run.outputs.model_outputs) == 1
    assert run.data.tags["e2h.data_version"]


@pytest.mark.slow
def test_a_server_that_comes_up_later_hears_everything_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    uri = f"http://anna:{PASSWORD}@127.0.0.1:{port}"
    with caplog.at_level(logging.INFO, "test"):
        _stage(tmp_path, uri)
    (kept,) = outbox.waiting(tmp_path)
    assert kept.address == address
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "is kept in" in warning
    assert PASSWORD not in kept.path.read_text() + caplog.text
    copy = kept.path.read_bytes()
    with mlflow_server(tmp_path, port):
        assert list(send_waiting("http://127.0.0.1:1", tmp_path)) == []  # not for that one
        (told,) = send_waiting(uri, tmp_path)
        assert "had missed" in told and outbox.waiting(tmp_path) == []
        _check_whole(address)
        kept.path.write_bytes(copy)  # as if the sender had been killed before it could delete
        list(send_waiting(uri, tmp_path))
        _check_whole(address)
        # A stage that is computed now also sends the waiting data.
        kept.path.write_bytes(copy)
        _stage(tmp_path, uri)
        assert outbox.waiting(tmp_path) == [] and len(_runs(address)) == 2
    with caplog.at_level(logging.INFO, "test"):
        _stage(tmp_path, uri)
    assert len(outbox.waiting(tmp_path)) == 1


def test_a_report_reaches_mlflow_later_and_one_that_is_gone_holds_nothing_up(tmp_path: Path) -> None:
    uri = local_database(tmp_path)
    store = ArtifactStore(tmp_path)
    info = StageInfo(ExperimentInfo("ladder"), "report", "k" * 64, "run-1", {"seed": 1}, {})
    reports = [_artifact(store, name, files=("report.html",)) for name in ("report", "other_report")]
    for report in reports:
        with TrackingResource(uri=_CLOSED_PORT).stage_run(tmp_path, info, LOG) as run:
            run.open()
            run.finish(report)
    (reports[1].path / "report.html").unlink()  # as `e2h gc` does
    for kept in outbox.waiting(tmp_path):
        kept.path.write_text(kept.path.read_text().replace(_CLOSED_PORT, uri))
    told = list(send_waiting(uri, tmp_path))
    assert outbox.waiting(tmp_path) == [] and len(told) == 2
    assert [run.info.status for run in _runs(uri)] == ["FINISHED", "FINISHED"]
    (copy,) = (tmp_path / "mlflow-artifacts").rglob("report.html")
    assert copy.read_bytes() == (reports[0].path / "report.html").read_bytes()


def test_a_database_that_breaks_during_a_stage_gets_the_rest_later(tmp_path: Path) -> None:
    """Data sent before the loss is not there twice."""
    uri = local_database(tmp_path)
    database = tmp_path / "mlflow.db"
    store = ArtifactStore(tmp_path)
    easy = _artifact(store, "easy_problems")
    policy = _artifact(store, "sft_policy", easy, files=("config.json",))
    info = StageInfo(
        ExperimentInfo("ladder"), "sft_policy", "k" * 64, "run-1", {"seed": 1}, {"easy_problems": easy}
    )
    with TrackingResource(uri=uri).stage_run(tmp_path, info, LOG) as run:
        run.open()
        run.reporter.metrics({"loss": 1.0}, 0)
        run.reporter.flush()
        away = _hide(database)
        run.reporter.metrics({"loss": 0.5}, 1)
        run.reporter.flush()
        run.reporter.metrics({"loss": 1 / 3}, 2)
        run.finish(policy)
    _bring_back(database, away)
    assert len(outbox.waiting(tmp_path)) == 1
    list(send_waiting(uri, tmp_path))
    assert outbox.waiting(tmp_path) == []
    _check_whole(uri)


def _hide(database: Path) -> Path:
    """Replace the database by a file that is not one."""
    away = database.with_suffix(".away")
    away.write_bytes(database.read_bytes())
    database.write_bytes(b"not a database" * 1000)
    return away


def _bring_back(database: Path, away: Path) -> None:
    database.write_bytes(away.read_bytes())


_KILLED = """
import logging, os, signal, sys
from pathlib import Path
from resources.tracking import ExperimentInfo, StageInfo, TrackingResource

info = StageInfo(ExperimentInfo("ladder"), "sft_policy", "k" * 64, "run-1", {"seed": 1}, {})
with TrackingResource(uri=sys.argv[2]).stage_run(Path(sys.argv[1]), info, logging.getLogger()) as run:
    run.open()
    run.reporter.metrics({"loss": 1.0}, 0)
    run.reporter.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_stage_leaves_its_points_and_ends_killed(tmp_path: Path) -> None:
    uri = local_database(tmp_path)
    (tmp_path / "mlflow.db").write_bytes(b"not a database" * 1000)
    done = forked.run(_KILLED, [tmp_path, uri], os.environ)
    assert done.returncode == -9
    (kept,) = outbox.waiting(tmp_path)
    with kept.path.open("a") as file:
        file.write('{"kind": "metrics", "poi')  # possible after a full disk or a power loss
    (tmp_path / "mlflow.db").unlink()
    list(send_waiting(uri, tmp_path))
    (run,) = _runs(uri)
    assert run.info.status == "KILLED" and run.data.metrics == {"loss": 1.0}


@pytest.mark.parametrize("killed_after", [0, 2])  # the start, the result
def test_a_sender_that_is_stopped_anywhere_is_followed_by_one_that_goes_on(
    tmp_path: Path, killed_after: int
) -> None:
    """Killed after sending, before noting it: the worst moment."""
    uri = local_database(tmp_path)
    _stage(tmp_path, _CLOSED_PORT)
    (kept,) = outbox.waiting(tmp_path)
    kept.path.write_text(kept.path.read_text().replace(_CLOSED_PORT, uri))
    sender = MlflowSender(uri, tmp_path, "e2h", again=True)
    told = 0

    def apply(entry: outbox.Entry) -> None:
        nonlocal told
        sender.apply(entry)
        told += 1
        if told > killed_after:
            raise KeyboardInterrupt

    try:
        outbox.send(kept, apply)
    except KeyboardInterrupt:
        assert len(outbox.waiting(tmp_path)) == 1
    list(send_waiting(uri, tmp_path))
    assert outbox.waiting(tmp_path) == []
    _check_whole(uri)


def test_the_outbox_is_bounded_and_says_what_it_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "RUN_BYTES", 2000)
    box = outbox.Outbox(tmp_path, "a" * 32, "sqlite:///x")
    for step in range(100):
        box.add({"kind": "metrics", "points": [["loss", 0.5, 1, step]]})
    box.add({"kind": "end", "status": "FINISHED", "time": 1, "dropped": box.dropped})
    assert outbox.waiting(tmp_path) == []  # its writer lives
    box.close()
    (kept,) = outbox.waiting(tmp_path)
    lines = [json.loads(line) for line in kept.path.read_text().splitlines()]
    assert kept.size < 2200 and lines[-1]["kind"] == "end"
    assert lines[-1]["dropped"] == 100 - sum(line["kind"] == "metrics" for line in lines) > 0


def test_a_lost_tracker_loses_no_artifact(tmp_path: Path) -> None:
    """Through Dagster: stages are made, and Dagster has their versions."""
    import dagster as dg

    found = toy.resources(tmp_path) | {"tracking": TrackingResource(uri=_CLOSED_PORT)}
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("experiment", [toy.KEY])
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        result = dg.materialize(
            toy.TOYS, instance=instance, partition_key=toy.KEY, resources=found, run_config=quiet
        )
        assert result.success and len(toy.computed(result)) == len(toy.TOYS)
    assert len(outbox.waiting(tmp_path)) == len(toy.TOYS)
