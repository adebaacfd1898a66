"""The artifact store as a Dagster resource, and the lookup of a partition's artifacts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from e2h_pipeline.artifacts.home import home
from e2h_pipeline.artifacts.request import Artifact, StoreError
from e2h_pipeline.artifacts.store import ArtifactStore

ARTIFACT_KEY = "artifact_key"
SEAL = "manifest_seal"


class StoreResource(dg.ConfigurableResource):
    """The location of the artifacts."""

    home: str = ""

    @property
    def home_folder(self) -> Path:
        """E2H_HOME, or this resource's own folder if set."""
        return Path(self.home) if self.home else home()

    def open(self) -> ArtifactStore:
        """The store."""
        return ArtifactStore(self.home_folder)


def latest_artifact(
    instance: dg.DagsterInstance, store: ArtifactStore, asset: str, experiment: str
) -> Artifact | None:
    """The artifact of the latest materialization of an asset in one partition; None without one.

    Raises:
        StoreError: the event names no artifact (anyone with access to the web server can report
            one), or the artifact is gone, damaged, or another than the one that was recorded.
    """
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[experiment]), limit=1
    ).records
    if not records:
        return None
    event = records[0].asset_materialization
    key = event.metadata.get(ARTIFACT_KEY) if event else None
    if key is None or not records[0].run_id:
        raise StoreError(
            f"the latest materialization of {asset} for {experiment} was reported from outside a run "
            f"and names no artifact; materialize {asset} again"
        )
    artifact = store.open(asset, str(key.value))
    if not is_recorded(instance, artifact, event.metadata if event else {}):
        raise StoreError(
            f"{artifact.path}: not the artifact that Dagster recorded for {experiment}: its manifest was written "
            f"anew; delete {artifact.path} and materialize {asset} again"
        )
    return artifact


def is_recorded(instance: dg.DagsterInstance, artifact: Artifact, metadata: Mapping[str, Any]) -> bool:
    """Whether Dagster has recorded an artifact with this seal: in the event with this metadata, or,
    where it was removed and made again since, in the run that made it."""
    seal = artifact.manifest.seal
    if metadata_text(metadata.get(SEAL)) == seal:
        return True
    run = artifact.manifest.run_id
    if not run or not instance.has_run(run):
        return False
    made = instance.all_logs(run, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    events = (entry.asset_materialization for entry in made)
    return any(metadata_text(event.metadata.get(SEAL)) == seal for event in events if event)


def metadata_text(value: object) -> str:
    """A metadata value as text; empty where there is none."""
    return str(getattr(value, "value", "") or "")


def input_artifact(
    instance: dg.DagsterInstance, store: ArtifactStore, asset: str, experiment: str
) -> Artifact:
    """Like `latest_artifact`, but a missing one is an error.

    Raises:
        StoreError: never materialized, reported from outside, gone, or damaged.
    """
    artifact = latest_artifact(instance, store, asset, experiment)
    if artifact is None:
        raise StoreError(f"{asset} was never materialized for {experiment}; materialize it first")
    return artifact
