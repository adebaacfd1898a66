"""The artifact store as a Dagster resource, and the lookup of a partition's artifacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.event_api import PartitionKeyFilter
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from e2h_pipeline.artifacts.home import home
from e2h_pipeline.artifacts.request import Artifact, StoreError
from e2h_pipeline.artifacts.store import ArtifactStore
from resources import ledger
from resources.ledger import ARTIFACT_KEY, EXPERIMENT_PARTITIONS, SEAL, Recorded

_FAILED, _PASSED = AssetCheckExecutionRecordStatus.FAILED, AssetCheckExecutionRecordStatus.SUCCEEDED
_HISTORY = 2  # Dagster keeps one report from outside a run of each check and partition
_QUERIED = 500  # partitions of one query


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


class DagsterLedger:
    """Dagster's records, asked through Dagster: for any storage."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance

    def experiments(self) -> list[str]:
        """See `Ledger`."""
        return list(self._instance.get_dynamic_partitions(EXPERIMENT_PARTITIONS))

    def latest(self, asset: str, experiment: str) -> Recorded | None:
        """See `Ledger`."""
        asked = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[experiment])
        for record in self._instance.fetch_materializations(asked, limit=1).records:
            metadata = record.asset_materialization.metadata if record.asset_materialization else {}
            key, seal = (metadata_text(metadata.get(name)) for name in (ARTIFACT_KEY, SEAL))
            return Recorded(key, seal, record.run_id)
        return None

    def seals(self, run: str) -> frozenset[str]:
        """See `Ledger`."""
        if not self._instance.has_run(run):
            return frozenset()
        made = self._instance.all_logs(run, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        events = (entry.asset_materialization for entry in made)
        return frozenset(metadata_text(event.metadata.get(SEAL)) for event in events if event)

    def failed_checks(
        self, checks: Sequence[tuple[str, str]], experiments: Sequence[str]
    ) -> dict[str, list[str]]:
        """See `Ledger`."""
        found: dict[str, list[str]] = {}
        keys = [dg.AssetCheckKey(dg.AssetKey(asset), name) for asset, name in checks]
        storage = self._instance.event_log_storage
        for info in (
            info
            for start in range(0, len(experiments), _QUERIED)
            for info in storage.get_asset_check_partition_info(
                keys, partition_keys=list(experiments[start : start + _QUERIED])
            )
        ):
            if info.partition_key is None or (
                info.latest_execution_status == _PASSED and info.latest_planned_run_id
            ):
                continue
            failure = _failure(self._instance, info.check_key, info.partition_key)
            if failure:
                found.setdefault(info.partition_key, []).append(failure)
        return {experiment: sorted(failures) for experiment, failures in found.items()}


def _failure(instance: dg.DagsterInstance, check: dg.AssetCheckKey, key: str) -> str | None:
    """The latest verdict of a check, if it failed. A run that only planned it has no verdict, and
    neither has a report from outside a run, which anyone who reaches the web server can make."""
    records = instance.event_log_storage.get_asset_check_execution_history(
        check, limit=_HISTORY, status={_FAILED, _PASSED}, partition_filter=PartitionKeyFilter(key=key)
    )
    latest = next((record for record in records if record.run_id), None)
    if latest is None or latest.status != _FAILED:
        return None
    event = latest.event.dagster_event if latest.event else None
    why = event.asset_check_evaluation_data.description if event else None
    return f"check {check.name} of {check.asset_key.to_user_string()} failed: {why or 'see its page'}"


def latest_artifact(
    instance: dg.DagsterInstance, store: ArtifactStore, asset: str, experiment: str
) -> Artifact | None:
    """`ledger.latest_artifact` by an instance.

    Raises:
        StoreError: as there.
    """
    return ledger.latest_artifact(DagsterLedger(instance), store, asset, experiment)


def is_recorded(instance: dg.DagsterInstance, artifact: Artifact, metadata: Mapping[str, Any]) -> bool:
    """Whether Dagster has recorded an artifact with this seal: in the event with this metadata, or,
    where it was removed and made again since, in the run that made it."""
    seal, run = artifact.manifest.seal, artifact.manifest.run_id
    return metadata_text(metadata.get(SEAL)) == seal or seal in (
        DagsterLedger(instance).seals(run) if run else ()
    )


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
