"""`e2h doctor` finds, reports and mends what killed processes leave; it does not touch living
ones."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import toy_stages as toy
from processes import alive, children_of
from typer.testing import CliRunner

from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.cli.app import app
from e2h_pipeline.orchestration import leftovers
from e2h_pipeline.orchestration.instance import open_instance
from resources.tracking import TrackingResource, local_database

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks processes up in /proc")
ROOT = Path(__file__).resolve().parents[2]
NOBODY = 2**22 + 1  # above any pid

# Like `e2h run`, with a stage that never ends.
_RUN = """
import os, sys
from pathlib import Path
import dagster as dg
import toy_stages as toy
from e2h_pipeline.orchestration.leftovers import own_tags
from e2h_pipeline.operations.runner import open_instance
from resources.tracking import TrackingResource

home = Path(sys.argv[1])
with open_instance(home) as instance:
    instance.add_dynamic_partitions("experiment", [toy.KEY])
    resources = toy.resources(home, "subprocess") | {"tracking": TrackingResource()}
    dg.materialize([toy.recipe, toy.toy_endless], instance=instance, partition_key=toy.KEY, tags=own_tags(),
        resources=resources)
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A new home, used by the command line."""
    toy.write_recipe(tmp_path, toy.RECIPE)
    monkeypatch.setenv("E2H_HOME", str(tmp_path))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    yield tmp_path


def _until(condition: Callable[[], Any], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(condition())


def _doctor(*options: str) -> tuple[int, dict[str, Any], str]:
    done = CliRunner().invoke(app, ["doctor", "--json", *options])
    return done.exit_code, json.loads(done.stdout), str(done.exception)


def _of(told: dict[str, Any], *kinds: str) -> list[dict[str, Any]]:
    return [finding for finding in told["findings"] if finding["kind"] in kinds]


@pytest.mark.slow
def test_all_that_a_killed_run_leaves_is_found_and_mended(home: Path) -> None:
    """Step and supervisor are killed at once. The training dies with its supervisor; what the training has
    started has nobody who would end it."""
    notes = home / "pids"
    environment = {**os.environ, "TOY_PIDS": str(notes), "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    step = subprocess.Popen(
        [sys.executable, "-c", _RUN, str(home)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    body = grandchild = 0
    try:
        assert _until(notes.exists)
        body, grandchild = map(int, notes.read_text().split())
        (supervisor,) = (pid for pid in children_of(step.pid) if body in children_of(pid))
        with open_instance(home) as instance:
            assert leftovers.leftovers(instance, ArtifactStore(home)) == []  # it lives
            (run,) = instance.get_runs()
        step.send_signal(signal.SIGSTOP)  # so that it cannot notice
        os.kill(supervisor, signal.SIGKILL)
        step.kill()
        step.wait()
        assert _until(lambda: not alive(body)) and alive(grandchild)

        status, told, error = _doctor()
        assert status == 1 and "`e2h doctor --fix` mends" in error
        assert [found["subject"] for found in _of(told, "run")] == [run.run_id]
        assert {found["subject"] for found in _of(told, "process")} == {str(grandchild)}
        assert len(_of(told, "making")) == 1
        assert alive(grandchild) and all(not found["done"] for found in told["findings"])  # it only looked

        status, told, _ = _doctor("--fix")
        assert status == 0
        assert {found["kind"] for found in told["findings"] if found["done"]} == {
            *("run", "process", "making", "mlflow")
        }
        assert _until(lambda: not alive(grandchild), 10)
        assert _doctor()[1]["problems"] == 0
        with open_instance(home) as instance:
            again = instance.get_run_by_id(run.run_id)
            assert again is not None and again.status == dg.DagsterRunStatus.CANCELED
            assert instance.event_log_storage.get_concurrency_run_ids() == set()
    finally:
        for pid in {step.pid, body, grandchild} - {0}:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        step.wait()

    from mlflow.tracking import MlflowClient

    (found,) = MlflowClient(local_database(home)).search_runs(["1"], "tags.`e2h.asset` = 'toy_endless'")
    assert found.info.status == "KILLED"


def test_only_runs_whose_process_is_gone_are_closed(home: Path) -> None:
    """Only slots of ended runs are freed."""
    with open_instance(home) as instance:
        runs = {
            "ours": instance.create_run_for_job(
                _nothing, tags=leftovers.own_tags(), status=dg.DagsterRunStatus.STARTED
            ),
            "dead": instance.create_run_for_job(
                _nothing,
                tags={**leftovers.own_tags(), leftovers.PID_TAG: str(NOBODY)},
                status=dg.DagsterRunStatus.STARTED,
            ),
            "done": instance.create_run_for_job(_nothing, status=dg.DagsterRunStatus.SUCCESS),
            "of another container": instance.create_run_for_job(
                _nothing,
                tags={leftovers.HOST_TAG: "other", leftovers.PID_TAG: str(NOBODY)},
                status=dg.DagsterRunStatus.STARTED,
            ),
        }
        storage = instance.event_log_storage
        storage.set_concurrency_slots("gpu", 2)
        for name in ("dead", "done"):
            storage.claim_concurrency_slot("gpu", runs[name].run_id, "step")
        assert leftovers.release_dead_runs(instance) == [runs["dead"].run_id]
        assert storage.get_concurrency_run_ids() == set()
        states = {name: instance.get_run_by_id(run.run_id) for name, run in runs.items()}
        assert {name: run.status.value for name, run in states.items() if run} == {
            "ours": "STARTED",
            "dead": "CANCELED",
            "done": "SUCCESS",
            "of another container": "STARTED",
        }


def _executed_again(
    instance: dg.DagsterInstance, parent: dg.DagsterRun, pid: int, status: dg.DagsterRunStatus
) -> dg.DagsterRun:
    """A re-execution of a run, like the UI's: with its tags, in its own worker."""
    ids = {"dagster/parent_run_id": parent.run_id, "dagster/root_run_id": parent.run_id}
    again = instance.create_run_for_job(
        _nothing,
        status=status,
        tags={**parent.tags, **ids},
        parent_run_id=parent.run_id,
        root_run_id=parent.run_id,
    )
    instance.report_engine_event(f"Started process for run (pid: {pid}).", again)
    return again


def test_a_run_that_repeats_one_of_e2h_is_not_of_its_process(home: Path) -> None:
    """Its tags have the dead pid, but its worker lives."""
    with open_instance(home) as instance:
        tags = {**leftovers.own_tags(), leftovers.PID_TAG: str(NOBODY)}
        parent = instance.create_run_for_job(_nothing, tags=tags, status=dg.DagsterRunStatus.FAILURE)
        lives = _executed_again(instance, parent, os.getpid(), dg.DagsterRunStatus.STARTED)
        dead = _executed_again(instance, parent, NOBODY, dg.DagsterRunStatus.STARTED)
        assert leftovers.release_dead_runs(instance) == [dead.run_id]
        with subprocess.Popen(["sleep", "60"]) as worker:
            closed = _executed_again(instance, parent, worker.pid, dg.DagsterRunStatus.STARTED)
            instance.report_run_canceled(closed)
            (found,) = leftovers.workers_of_ended_runs(instance, grace=0)
            assert found.subject == closed.run_id
            worker.kill()
        instance.report_run_canceled(lives)  # its process is the test's own and must not be ended


def test_where_no_launcher_notes_hosts_a_repeated_run_is_not_of_the_host_of_the_first(tmp_path: Path) -> None:
    """As on Kubernetes: a run of `e2h run` in a lost pod can be re-executed from the page."""
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        tags = {leftovers.HOST_TAG: "pod", leftovers.PID_TAG: str(NOBODY)}
        parent = instance.create_run_for_job(_nothing, tags=tags, status=dg.DagsterRunStatus.FAILURE)
        again = _executed_again(instance, parent, os.getpid(), dg.DagsterRunStatus.STARTED)
        assert leftovers.dead_runs(instance, gone=["pod"]) == []
        first = instance.create_run_for_job(_nothing, tags=tags, status=dg.DagsterRunStatus.STARTED)
        assert [found.subject for found in leftovers.dead_runs(instance, gone=["pod"])] == [first.run_id]
        instance.report_run_canceled(again)


def test_a_run_that_waited_long_in_the_queue_has_time_to_start(home: Path) -> None:
    with open_instance(home) as instance:
        run = instance.create_run_for_job(_nothing, status=dg.DagsterRunStatus.NOT_STARTED)
        _set_back(home, run.run_id, "create_timestamp")
        starting = dg.DagsterEvent(dg.DagsterEventType.PIPELINE_STARTING.value, job_name=run.job_name)
        instance.report_dagster_event(starting, run.run_id)
        assert leftovers.release_dead_runs(instance) == []
        _set_back(home, run.run_id, "update_timestamp")
        assert leftovers.release_dead_runs(instance) == [run.run_id]


def _set_back(home: Path, run_id: str, column: str) -> None:
    """Set a run back by an hour in Dagster's table."""
    with sqlite3.connect(home / "dagster" / "history" / "runs.db") as database:
        database.execute(
            f"UPDATE runs SET {column} = datetime({column}, '-1 hour') WHERE run_id = ?", [run_id]
        )


def test_a_reused_pid_does_not_keep_a_run_alive() -> None:
    """After a restart of the machine pids are reused."""
    from resources.processes import runs_since

    with subprocess.Popen(["sleep", "60"]) as child:
        assert runs_since(child.pid, time.time())
        assert not runs_since(child.pid, time.time() - 3600)  # the process with that pid an hour ago is gone
        child.kill()
    assert not runs_since(child.pid, time.time())


def test_the_sensor_mends_and_says_so(home: Path) -> None:
    with open_instance(home) as instance:
        tags = {**leftovers.own_tags(), leftovers.PID_TAG: str(NOBODY)}
        run = instance.create_run_for_job(_nothing, tags=tags, status=dg.DagsterRunStatus.STARTED)
        sensor = leftovers.sensor()
        assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
        with dg.build_sensor_context(instance=instance) as context:
            (said,) = sensor.evaluate_tick(context).skip_message.splitlines()  # type: ignore[union-attr]
            assert "marked canceled, its pool slots are free" in said
            assert "no run of this host is dead" in str(sensor.evaluate_tick(context).skip_message)
        after = instance.get_run_by_id(run.run_id)
        assert after is not None and after.status == dg.DagsterRunStatus.CANCELED


def test_what_people_see(home: Path) -> None:
    with open_instance(home) as instance:
        tags = {**leftovers.own_tags(), leftovers.PID_TAG: str(NOBODY), "dagster/partition": "ladder"}
        run = instance.create_run_for_job(_nothing, tags=tags, status=dg.DagsterRunStatus.STARTED)
    seen = CliRunner().invoke(app, ["doctor"])
    assert seen.exit_code == 1
    assert f"problem  run      {run.run_id}  ladder (STARTED): its process {NOBODY} is gone" in seen.stdout
    mended = CliRunner().invoke(app, ["doctor", "--fix"])
    assert mended.exit_code == 0
    assert "is gone: marked canceled, its pool slots are free" in mended.stdout
    assert "mended" not in CliRunner().invoke(app, ["doctor", "--fix"]).stdout


def test_doctor_sends_what_mlflow_missed(home: Path) -> None:
    resources = toy.resources(home) | {"tracking": TrackingResource(uri="http://127.0.0.1:9")}
    with open_instance(home) as instance:
        instance.add_dynamic_partitions("experiment", [toy.KEY])
        dg.materialize([toy.recipe], instance=instance, partition_key=toy.KEY, resources=resources)
    (kept,) = (home / "mlflow-outbox").glob("*.jsonl")
    status, told, _ = _doctor()
    assert status == 0 and "set MLFLOW_TRACKING_URI to it" in _of(told, "outbox")[0]["text"]
    kept.write_text(kept.read_text().replace("http://127.0.0.1:9", local_database(home)))
    status, told, _ = _doctor("--fix")
    assert status == 0 and _of(told, "outbox")[0]["done"] == "1 sent, 0 left"
    assert not list((home / "mlflow-outbox").iterdir())


@dg.job
def _nothing() -> None:
    """A job for runs that are never executed."""


def test_what_another_version_made_is_told_and_left_alone(home: Path) -> None:
    """Assets that no longer exist, and keys with renamed fields."""
    old = "ladder/prm.epochs=3"
    with open_instance(home) as instance:
        instance.add_dynamic_partitions("experiment", [old, "ladder/seed=9"])
        for asset in ("easy_prm", "sft_policy"):
            event = dg.AssetMaterialization(
                asset, partition="ladder/seed=9", metadata={"artifact_key": "0" * 64}
            )
            instance.report_runless_asset_event(event)
    told = {finding["subject"]: finding for finding in _of(_doctor()[1], "version")}
    assert "prm.epochs is now reward.training.epochs" in told[old]["text"]
    assert "stay readable" in told[old]["text"] and told[old]["level"] == "note"
    assert "easy_prm" in told["assets"]["text"] and "sft_policy" not in told["assets"]["text"]


def test_stages_are_known_where_no_experiment_is_left(home: Path) -> None:
    """In a process of its own: here, other tests have already imported the stages."""
    with open_instance(home) as instance:
        for asset in ("easy_prm", "sft_policy"):
            instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition="ladder/seed=9"))
    done = subprocess.run(
        [sys.executable, "-m", "e2h_pipeline.cli.app", "doctor", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    told = {finding["subject"]: finding for finding in _of(json.loads(done.stdout), "version")}
    assert "easy_prm" in told["assets"]["text"] and "sft_policy" not in told["assets"]["text"]
