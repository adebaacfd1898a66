"""From a partition to its artifact."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import toy_stages as toy

from e2h_pipeline.artifacts.request import StoreError
from e2h_pipeline.artifacts.store import ArtifactStore
from resources.store import StoreResource, input_artifact, latest_artifact


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


def test_the_latest_materialization_names_the_artifact(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    store = ArtifactStore(tmp_path)
    toy.materialize(tmp_path, instance, [toy.recipe, toy.toy_easy])
    before = input_artifact(instance, store, "toy_easy", toy.KEY)
    toy.write_recipe(tmp_path, toy.RECIPE.replace("easy_limit: 4", "easy_limit: 5"))
    toy.materialize(tmp_path, instance, [toy.recipe, toy.toy_easy])
    after = input_artifact(instance, store, "toy_easy", toy.KEY)
    assert before.manifest.summary == {"problems": 4}
    assert after.manifest.summary == {"problems": 5}


def test_a_partition_without_artifact(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    assert latest_artifact(instance, ArtifactStore(tmp_path), "toy_easy", "other") is None
    with pytest.raises(StoreError, match="never materialized for other"):
        input_artifact(instance, ArtifactStore(tmp_path), "toy_easy", "other")


def test_an_artifact_that_is_gone_is_named(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    toy.materialize(tmp_path, instance, [toy.recipe, toy.toy_easy])
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="materialize toy_easy again"):
        latest_artifact(instance, ArtifactStore(tmp_path), "toy_easy", toy.KEY)


def test_the_home_folder_is_the_environments_unless_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("E2H_HOME", str(tmp_path / "env"))
    assert StoreResource().home_folder == tmp_path / "env"
    assert StoreResource(home=str(tmp_path)).home_folder == tmp_path
