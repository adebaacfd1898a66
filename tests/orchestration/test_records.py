"""Dagster's records of artifacts: which count, and that forged ones have no effect."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import toy_stages as toy

from e2h_pipeline.artifacts.commit import hash_files
from e2h_pipeline.artifacts.garbage import collect, plan_collection
from e2h_pipeline.artifacts.hashing import data_version
from e2h_pipeline.artifacts.lineage import ancestors, trace
from e2h_pipeline.artifacts.manifest import FileEntry, write_manifest
from e2h_pipeline.artifacts.request import Artifact, StoreError
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.artifacts.verify import verify_store
from e2h_pipeline.orchestration.records import (
    experiment_places,
    failure_cause,
    latest_records,
    record_findings,
    wanted_places,
)
from resources.store import latest_artifact


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """A real instance, on SQLite."""
    folder = tmp_path / "dagster"
    folder.mkdir()
    with dg.DagsterInstance.local_temp(str(folder)) as found:
        yield found


def latest(instance: dg.DagsterInstance, home: Path, asset: str) -> Artifact:
    found = latest_artifact(instance, ArtifactStore(home), asset, toy.KEY)
    assert found is not None
    return found


def forge(instance: dg.DagsterInstance, asset: str, **metadata: str) -> None:
    """Forge a record, as anyone can who reaches the web server."""
    instance.report_runless_asset_event(
        dg.AssetMaterialization(
            asset, partition=toy.KEY, metadata=metadata, tags={"dagster/data_version": "EVIL"}
        )
    )


def left(home: Path) -> set[str]:
    return {path.parent.parent.name for path in (home / "store").glob("*/*/manifest.json")}


def test_manifests_name_the_run_that_computed(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    first = toy.materialize(tmp_path, instance)
    toy.materialize(tmp_path, instance)  # reuses everything
    node = trace(ArtifactStore(tmp_path), latest(instance, tmp_path, "toy_score"))
    assert {ancestor.artifact.manifest.run_id for ancestor in ancestors(node)} == {first.run_id}


def test_an_honest_history_has_no_findings(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    toy.materialize(tmp_path, instance)
    store = ArtifactStore(tmp_path)
    assert record_findings(instance, store) == []
    assert verify_store(store, experiment_places(instance, toy.KEY)).artifacts == len(toy.TOYS)


def test_a_forged_event_is_a_finding_and_decides_nothing(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    toy.materialize(tmp_path, instance)
    store = ArtifactStore(tmp_path)
    wanted = wanted_places(instance)
    policy = latest(instance, tmp_path, "toy_policy")
    forge(instance, "toy_easy", artifact_key=policy.key)
    (finding,) = record_findings(instance, store)
    assert finding.kind == "event"
    assert finding.where == f"toy_easy of {toy.KEY}"
    assert "outside a run" in finding.message
    assert wanted_places(instance) == wanted  # the genuine record before it counts
    collect(store, plan_collection(store, wanted_places(instance), {}, grace_seconds=0))
    assert left(tmp_path) == {"recipe", "toy_easy", "toy_gold", "toy_policy", "toy_score"}
    toy.materialize(tmp_path, instance)
    assert record_findings(instance, store) == []


def _rewrite(artifact: Artifact) -> None:
    """Change the content and make the manifest, with its seal, fit."""
    (artifact.path / "even.txt").write_text("forged")
    files = hash_files_but_manifest(artifact.path)
    versions = {name: entry.content for name, entry in files.items()}
    forged = artifact.manifest.model_copy(update={"files": files, "data_version": data_version(versions)})
    write_manifest(artifact.path, forged)


def hash_files_but_manifest(folder: Path) -> dict[str, FileEntry]:
    (folder / "manifest.json").unlink()
    return hash_files(folder)


@pytest.mark.parametrize("content", [True, False])
def test_an_artifact_that_was_written_anew_is_found(
    tmp_path: Path, instance: dg.DagsterInstance, content: bool
) -> None:
    """Even where manifest and seal were made to fit: Dagster's record has the seal."""
    toy.materialize(tmp_path, instance)
    score = latest(instance, tmp_path, "toy_score")
    if content:
        _rewrite(score)
    else:
        write_manifest(score.path, score.manifest.model_copy(update={"created": "2020-01-01T00:00:00+00:00"}))
    (finding,) = record_findings(instance, ArtifactStore(tmp_path))
    assert finding.where == f"toy_score of {toy.KEY}"
    with pytest.raises(
        StoreError, match=r"not the artifact that Dagster recorded.*materialize toy_score again"
    ):
        latest(instance, tmp_path, "toy_score")


def test_an_artifact_that_was_removed_and_made_again_is_none(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    toy.materialize(tmp_path, instance)
    shutil.rmtree(latest(instance, tmp_path, "toy_score").path)
    other = f"{toy.KEY}/seed=1"  # the same artifacts
    instance.add_dynamic_partitions("experiment", [other])
    dg.materialize(toy.TOYS, instance=instance, partition_key=other, resources=toy.resources(tmp_path))
    assert record_findings(instance, ArtifactStore(tmp_path)) == []
    assert latest(instance, tmp_path, "toy_score").manifest.experiment == other


def test_a_record_whose_artifact_is_gone_or_other_is_a_finding(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    toy.materialize(tmp_path, instance)
    shutil.rmtree(latest(instance, tmp_path, "toy_score").path)
    (finding,) = record_findings(instance, ArtifactStore(tmp_path), [toy.KEY])
    assert "is not in the store" in finding.message
    assert record_findings(instance, ArtifactStore(tmp_path), ["another"]) == []


def test_what_older_recipes_made_is_garbage_and_the_latest_stays(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    toy.materialize(tmp_path, instance)
    old = latest(instance, tmp_path, "toy_policy")
    toy.write_recipe(tmp_path, toy.RECIPE.replace("epochs: 2", "epochs: 3"))
    toy.materialize(tmp_path, instance)
    store = ArtifactStore(tmp_path)
    plan = plan_collection(store, wanted_places(instance), {}, grace_seconds=0)
    gone = sorted(item.path.parent.name for item in plan.garbage if item.kind == "artifact")
    assert gone == ["recipe", "toy_policy", "toy_score"]
    collect(store, plan)
    assert not old.path.exists()
    assert verify_store(store).findings == record_findings(instance, store) == []
    assert toy.computed(toy.materialize(tmp_path, instance)) == set()


def test_a_deleted_partition_wants_nothing(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    toy.materialize(tmp_path, instance)
    assert len(latest_records(instance)) == len(toy.TOYS)
    instance.delete_dynamic_partition("experiment", toy.KEY)
    assert wanted_places(instance) == set()
    store = ArtifactStore(tmp_path)
    collect(store, plan_collection(store, set(), {}, grace_seconds=0))
    assert left(tmp_path) == set()


def test_what_is_told_of_a_failure_is_what_the_stage_said() -> None:
    """Not the cause of the stage's error, and not Dagster's text around it."""

    @dg.op
    def load() -> None:
        try:
            raise OSError("[Errno -2] Name or service not known")
        except OSError as error:
            raise ValueError("base.model 'x' cannot be loaded: no network\nand more") from error

    @dg.job
    def loading() -> None:
        load()

    failed = loading.execute_in_process(raise_on_error=False)
    (event,) = (e for e in failed.all_events if e.is_step_failure)
    assert failure_cause(event) == "ValueError: base.model 'x' cannot be loaded: no network"
