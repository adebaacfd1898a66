"""The artifact store as a Dagster resource, and the lookup of a partition's artifacts."""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from e2h_pipeline.artifacts.home import home
from e2h_pipeline.artifacts.request import Artifact, StoreError
from e2h_pipeline.artifacts.store import ArtifactStore

ARTIFACT_KEY = "artifact_key"


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
            one), or the artifact is gone or damaged.
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
    return store.open(asset, str(key.value))


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
