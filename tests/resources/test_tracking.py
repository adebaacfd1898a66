"""Tracking on a real SQLite MLflow: the content of a run, and that its errors never fail a
stage."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest
from browser import browser, needs_browser
from servers import free_port, mlflow_server

from e2h_pipeline.artifacts.manifest import InputRef
from e2h_pipeline.artifacts.request import Artifact, Draft, Request
from e2h_pipeline.artifacts.served import serving
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.stages.metadata import describe
from resources import tracking
from resources.links import dagster_link, mlflow_link
from resources.tracking import (
    ExperimentInfo,
    StageInfo,
    TrackingResource,
    local_database,
    served_pages,
)

LOG = logging.getLogger("test")
KEY = "ladder/seed=1"


def _artifact(
    store: ArtifactStore, asset: str, *inputs: Artifact, files: tuple[str, ...] = ("data.txt",)
) -> Artifact:
    def make(draft: Draft) -> None:
        for name in files:
            (draft.out / name).write_text("{}")
        draft.summary = {
            "loss": 0.25,
            "problems": {"easy": 3},
            "labels_bought": 9,
            "sources": {"1 prm800k": {"labels_bought": 4}},
        }

    refs = {a.asset: InputRef(key=a.key, data_version=a.data_version) for a in inputs}
    return store.obtain(Request(asset, "c0de", inputs=refs), make)[0]


EXPERIMENT = ExperimentInfo(
    KEY, "d1", {"rl.updates": "50"}, {"e2h.seed": "1", "mlflow.source.git.commit": "abc"}
)


def _info(easy: Artifact, experiment: ExperimentInfo = EXPERIMENT) -> StageInfo:
    recipe = {"seed": 1, "sft": {"epochs": 2}}
    versions = [easy.data_version]
    return StageInfo(
        experiment, "sft_policy", "k" * 64, "run-1", recipe, {"easy_problems": easy}, easy_data=versions
    )


def test_a_run_says_what_was_done_with_what_and_what_came_out(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    easy = _artifact(store, "easy_problems")
    policy = _artifact(store, "sft_policy", easy, files=("config.json", "model.safetensors"))
    with TrackingResource(uri=local_database(tmp_path)).stage_run(tmp_path, _info(easy), LOG) as run:
        address = run.open()
        for step in range(3):
            run.reporter.metrics({"loss": 1.0 / (step + 1), "broken": float("nan")}, step)
        run.finish(policy)

    from mlflow.tracking import MlflowClient

    client = MlflowClient(local_database(tmp_path))
    experiment = client.get_experiment_by_name("e2h")
    parent, stage = sorted(
        client.search_runs([experiment.experiment_id]), key=lambda r: r.data.tags.get("e2h.asset", "")
    )
    assert stage.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert parent.info.run_name == KEY and stage.info.run_name == f"sft_policy · {KEY}"
    assert parent.data.params == {"rl.updates": "50"}
    assert parent.data.tags.items() >= EXPERIMENT.tags.items()
    assert parent.info.end_time == stage.info.end_time
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert stage.data.tags["e2h.easy_data_version"] == easy.data_version
    assert stage.info.status == "FINISHED"
    assert stage.data.params == {"seed": "1", "sft.epochs": "2"}
    assert stage.data.tags["e2h.in.easy_problems"] == easy.data_version
    assert stage.data.tags["e2h.data_version"] == policy.data_version
    assert stage.data.metrics["problems.easy"] == 3
    assert stage.data.metrics["labels_bought"] == 9
    assert stage.data.metrics["sources.1 prm800k.labels_bought"] == 4
    assert [point.value for point in client.get_metric_history(stage.info.run_id, "loss")][:2] == [1.0, 0.5]
    assert stage.inputs.dataset_inputs[0].dataset.digest == easy.data_version[:16]
    (model,) = client.search_logged_models([experiment.experiment_id])
    assert model.tags["e2h.path"] == str(policy.path)
    assert address is not None and address.endswith(stage.info.run_id)

    with (
        pytest.raises(ZeroDivisionError),
        TrackingResource(uri=local_database(tmp_path)).stage_run(tmp_path, _info(easy), LOG) as run,
    ):
        run.open()
        raise ZeroDivisionError
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 3  # the parent is shared
    assert sorted(r.info.status for r in runs) == ["FAILED", "FINISHED", "FINISHED"]


def test_the_parent_has_the_headline_and_an_edited_recipe_has_another_parent(tmp_path: Path) -> None:
    """MLflow's params never change, so numbers of two recipes never stand under the fields of one."""
    from mlflow.tracking import MlflowClient

    tracked = TrackingResource(uri=local_database(tmp_path))
    edited = ExperimentInfo(KEY, "d2", {"rl.updates": "60"})
    easy = _artifact(ArtifactStore(tmp_path), "easy_problems")
    with tracked.stage_run(tmp_path, _info(easy), LOG) as run:
        run.open()
    tracked.tell(
        tmp_path, EXPERIMENT, {"hard/rl greedy": 0.5, "broken": float("nan")}, {"e2h.easy": "v1"}, LOG
    )
    tracked.tell(tmp_path, edited, {"hard/rl greedy": 0.6}, {}, LOG)
    tracked.mark(tmp_path, KEY, {"e2h.firewall.easy": "leak"}, LOG)
    client = MlflowClient(local_database(tmp_path))
    runs = client.search_runs(["1"])
    parents = {r.data.params["rl.updates"]: r for r in runs if "e2h.parent" in r.data.tags}
    assert {updates: r.data.metrics for updates, r in parents.items()} == {
        "50": {"hard/rl greedy": 0.5},
        "60": {"hard/rl greedy": 0.6},
    }
    (stage,) = (r for r in runs if "e2h.asset" in r.data.tags)
    assert stage.data.tags["mlflow.parentRunId"] == parents["50"].info.run_id
    assert parents["50"].data.tags["e2h.easy"] == "v1"
    assert all(r.data.tags["e2h.firewall.easy"] == "leak" for r in runs)


def test_a_link_has_the_port_at_which_mlflow_is_served_now_or_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classic = "?workflowType=machine_learning"
    monkeypatch.delenv("E2H_MLFLOW_PORT", raising=False)
    easy = _artifact(ArtifactStore(tmp_path), "easy_problems")
    with TrackingResource(uri=local_database(tmp_path)).stage_run(tmp_path, _info(easy), LOG) as run:
        address = run.open()
    assert address is not None and address.startswith("#/experiments/1/runs/")
    assert mlflow_link(tmp_path, address) is None
    with serving(tmp_path, {"dagster": 3000, "mlflow": 5007}):
        assert mlflow_link(tmp_path, address) == f"http://127.0.0.1:5007/{address}{classic}"
        assert dagster_link(tmp_path, "/runs/1") == "http://127.0.0.1:3000/runs/1"
    assert dagster_link(tmp_path, "/runs/1") is None
    assert mlflow_link(tmp_path, address) is None  # whoever served has ended
    monkeypatch.setenv("E2H_MLFLOW_PORT", "5005")
    assert mlflow_link(tmp_path, address) == f"http://127.0.0.1:5005/{address}{classic}"
    server = "https://mlflow.example.org/#/a"
    assert mlflow_link(tmp_path, server) == f"{server}{classic}"
    assert mlflow_link(tmp_path, server, "report.html") == f"{server}/artifacts/report.html{classic}"


PAGE = "<!doctype html><title>report</title><h1>The numbers of tiny</h1>"


def _report(home: Path, page: str = PAGE) -> Artifact:
    def make(draft: Draft) -> None:
        (draft.out / "page").mkdir()
        (draft.out / "page" / "report.html").write_text(page)
        draft.tracking_url = "#/experiments/1/runs/abc"

    return ArtifactStore(home).obtain(Request("report", "c0de"), make)[0]


def test_dagsters_page_links_to_the_report_and_tells_its_path(tmp_path: Path) -> None:
    report = _report(tmp_path)
    with serving(tmp_path, {"mlflow": 5007}):
        shown = describe(ArtifactStore(tmp_path), report, reused=False)
    run, classic = "http://127.0.0.1:5007/#/experiments/1/runs/abc", "?workflowType=machine_learning"
    links = (shown["mlflow"].value, shown["report"].value)
    assert links == (f"{run}{classic}", f"{run}/artifacts/report.html{classic}")
    assert shown["report_file"].value == str(report.path / "page" / "report.html")


def test_a_page_that_is_too_large_is_not_sent_and_not_linked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "_PAGE_BYTES", len(PAGE) - 1)
    report = _report(tmp_path)
    assert served_pages(report) == []
    shown = describe(ArtifactStore(tmp_path), report, reused=False)
    assert "report" not in shown and "report_file" in shown


@pytest.mark.slow
@needs_browser
def test_the_link_opens_the_report_in_a_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sent to the local database, as without a server; then opened in MLflow's pages, as with
    `e2h ui`."""
    port = free_port()
    monkeypatch.setenv("E2H_MLFLOW_PORT", str(port))
    report = _report(tmp_path)
    info = StageInfo(ExperimentInfo("tiny"), "report", "k" * 64, "run-1", {}, {})
    with TrackingResource(uri=local_database(tmp_path)).stage_run(tmp_path, info, LOG) as run:
        address = run.open()
        run.finish(report)
    (copy,) = (tmp_path / "mlflow-artifacts").rglob("report.html")
    assert copy.read_text() == PAGE
    with mlflow_server(tmp_path, port, "mlflow.db"), browser(tmp_path / "profile") as page:
        page.open(str(mlflow_link(tmp_path, address, "report.html")))
        deadline = time.monotonic() + 60
        shown = None  # the page is in a frame that cannot be read, but the frame's address can
        while not shown and time.monotonic() < deadline:
            page.run(
                "fetch(document.querySelector('iframe')?.src || 'about:blank')"
                ".then(found => found.text()).then(text => { window.shown = text }, () => 0)"
            )
            time.sleep(0.5)
            shown = page.run("window.shown || ''")
        assert "The numbers of tiny" in str(shown)


def test_progress_becomes_curves(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    easy = _artifact(ArtifactStore(tmp_path), "easy_problems")
    with (
        caplog.at_level(logging.INFO, "test"),
        TrackingResource(uri=local_database(tmp_path)).stage_run(tmp_path, _info(easy), LOG) as run,
    ):
        run.open()
        run.reporter.progress(0, 8, "samples", tokens=0)
        run.reporter.progress(8, 8, "samples", reused=4, tokens=100)

    from mlflow.tracking import MlflowClient

    client = MlflowClient(local_database(tmp_path))
    (found,) = client.search_runs(["1"], "tags.`e2h.asset` = 'sft_policy'")
    curve = client.get_metric_history(found.info.run_id, "progress/share_done")
    assert [(point.step, point.value) for point in curve] == [(0, 0.0), (8, 1.0)]
    assert (
        found.data.metrics["progress/tokens_per_second"] > found.data.metrics["progress/samples_per_second"]
    )
    assert caplog.messages[-1].startswith("8/8 samples (100%, ")


def test_a_tracking_server_that_is_not_there_costs_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    easy = _artifact(ArtifactStore(tmp_path), "easy_problems")
    with TrackingResource(uri="http://127.0.0.1:9").stage_run(tmp_path, _info(easy), LOG) as run:
        assert run.open() is None
        run.reporter.metrics({"loss": 1.0}, 0)
        run.finish(easy)
    assert [r.levelname for r in caplog.records if r.name == "test"] == ["WARNING"]


def test_nothing_is_sent_for_a_stage_that_was_not_computed(tmp_path: Path) -> None:
    easy = _artifact(ArtifactStore(tmp_path), "easy_problems")
    with TrackingResource(uri=local_database(tmp_path)).stage_run(tmp_path, _info(easy), LOG):
        pass
    assert not (tmp_path / "mlflow.db").exists()
