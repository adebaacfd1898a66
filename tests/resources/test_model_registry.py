"""Versions in MLflow's registry, in its local database and on a real server."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from servers import free_port, mlflow_server

from e2h_pipeline.artifacts.request import Artifact, Draft, Request
from e2h_pipeline.artifacts.store import ArtifactStore
from resources.model_registry import VARIABLE, better
from resources.tracking import ExperimentInfo, StageInfo, TrackingResource, local_database

NAME = "e2h-ladder-rl_policy"


def _trained(
    home: Path, uri: str, accuracy: float | None, asset: str = "rl_policy", easy: str = "v1"
) -> Artifact:
    """A model that a stage trains, tracked."""

    def make(draft: Draft) -> None:
        (draft.out / "config.json").write_text("{}")
        (draft.out / "weights").write_text(str(accuracy))
        draft.summary = {} if accuracy is None else {"easy_validation_accuracy": accuracy}

    recipe = {"problems": {"source": "ladder"}, "accuracy": accuracy, "easy": easy}
    made = ArtifactStore(home).obtain(Request(asset, "c0de", recipe), make)[0]
    info = StageInfo(ExperimentInfo("ladder"), asset, made.key, "run-1", {}, {}, easy_data=[easy])
    with TrackingResource(uri=uri).stage_run(home, info, logging.getLogger("test")) as run:
        run.open()
        run.finish(made)
    return made


@pytest.mark.parametrize("served", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_trained_models_are_versions_and_easy_validation_moves_the_champion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, served: bool
) -> None:
    from mlflow.tracking import MlflowClient

    def check(uri: str) -> None:
        _trained(tmp_path, uri, 0.1)
        client = MlflowClient(uri)
        assert client.search_registered_models() == []  # nobody asked
        monkeypatch.setenv(VARIABLE, "1")
        made = [_trained(tmp_path, uri, accuracy) for accuracy in (0.7, 0.8, 0.75)]
        _trained(tmp_path, uri, None)
        _trained(tmp_path, uri, 0.9, asset="base_model")  # nobody trained it
        (registered,) = client.search_registered_models()
        assert registered.name == NAME and len(client.search_model_versions(f"name = '{NAME}'")) == 4
        champion = client.get_model_version_by_alias(NAME, "champion")
        assert champion.tags["e2h.data_version"] == made[1].data_version
        _trained(tmp_path, uri, 0.5, easy="v2")  # not to be compared with figures on other data
        assert client.get_model_version_by_alias(NAME, "champion").tags["e2h.easy_value"] == "0.5"

    monkeypatch.delenv(VARIABLE, raising=False)
    if not served:
        check(local_database(tmp_path))
        return
    port = free_port()
    with mlflow_server(tmp_path, port, "mlflow.db"):
        check(f"http://127.0.0.1:{port}")


def test_another_figure_is_not_compared() -> None:
    champion = {
        "e2h.easy_figure": "validation_step_auroc",
        "e2h.easy_value": "0.9",
        "e2h.easy_data_version": "v",
    }
    assert not better({**champion, "e2h.easy_value": "0.9"}, champion)
    assert better({**champion, "e2h.easy_value": "0.91"}, champion)
    assert better(
        {**champion, "e2h.easy_figure": "validation_outcome_auroc", "e2h.easy_value": "0.1"}, champion
    )
    assert not better({"e2h.easy_data_version": "v"}, champion)
