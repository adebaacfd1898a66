"""An edit of a recipe's file: which servers see it, and what is made again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from tiny_experiment import RECIPE, e2h, new_home

from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.definitions import build
from e2h_pipeline.operations.runner import run_experiment
from e2h_pipeline.orchestration.automation import watch_recipes
from e2h_pipeline.orchestration.instance import open_instance
from e2h_pipeline.orchestration.planning import plans, selection
from resources.engine import EngineResource

KEYS = ["tiny", "tiny/seed=1", "ladder"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with the materialized recipes of three experiments."""
    folder = new_home(tmp_path / "e2h")
    monkeypatch.setenv("E2H_HOME", str(folder))
    for key in KEYS:
        run_experiment(key, folder, "recipe", lambda _: None)
    return folder


@pytest.fixture
def instance(home: Path) -> Iterator[dg.DagsterInstance]:
    with open_instance(home) as found:
        yield found


def _edit(home: Path, text: str) -> None:
    (home / "recipes" / "tiny.yaml").write_text(text)


def _look(instance: dg.DagsterInstance, cursor: str | None) -> tuple[list[str | None], str]:
    """The experiments requested by one tick of the sensor, and its cursor."""
    reference, repository = instance.get_ref(), build().get_repository_def()
    with dg.build_sensor_context(cursor=cursor, instance_ref=reference, repository_def=repository) as context:
        found = watch_recipes().evaluate_tick(context)
    requests = found.run_requests or []
    assert all(request.asset_selection == [dg.AssetKey("recipe")] for request in requests)
    return [request.partition_key for request in requests], str(found.cursor)


def test_the_recipes_that_an_edit_changes_are_made_again_and_no_others(
    home: Path, instance: dg.DagsterInstance
) -> None:
    instance.add_dynamic_partitions("experiment", ["tiny/seed=2"])  # not made yet
    asked, cursor = _look(instance, None)
    assert asked == []
    _edit(home, RECIPE + "# in other words\n")
    asked, cursor = _look(instance, cursor)
    assert asked == []
    _edit(home, RECIPE.replace("sft: {epochs: 2", "sft: {epochs: 3"))
    asked, cursor = _look(instance, cursor)
    assert asked == KEYS[:2]
    for key in asked:
        run_experiment(str(key), home, "recipe", lambda _: None)
    assert _look(instance, cursor)[0] == []
    assert _look(instance, "another")[0] == []  # as after an edit of another recipe


def test_a_recipe_that_cannot_be_read_holds_up_no_other(home: Path, instance: dg.DagsterInstance) -> None:
    _, cursor = _look(instance, None)
    (home / "recipes" / "ladder.yaml").write_text("no: [recipe")
    (home / "recipes" / "folder.yaml").mkdir()
    (home / "recipes" / "gone.yaml").symlink_to("nowhere")
    (home / "recipes" / "bytes.yaml").write_bytes(b"\xff\xfe")
    instance.add_dynamic_partitions("experiment", ["folder", "gone", "bytes"])
    _edit(home, RECIPE.replace("sft: {epochs: 2", "sft: {epochs: 3"))
    assert _look(instance, cursor)[0] == KEYS[:2]


def test_a_server_that_was_there_before_an_edit_sees_what_another_process_made(
    home: Path, instance: dg.DagsterInstance
) -> None:
    """Otherwise the nightly schedule would launch finished members every night."""
    _edit(home, RECIPE.replace("sft: {epochs: 2", "sft: {epochs: 3"))
    (planned,) = plans(instance, ArtifactStore(home), ["tiny"], EngineResource(), selection("recipe"))
    assert planned.state == "stale"
    done = e2h(home, "run", "tiny", "--select", "recipe")
    assert done.returncode == 0, done.stderr
    (planned,) = plans(instance, ArtifactStore(home), ["tiny"], EngineResource(), selection("recipe"))
    assert planned.state == "made"
