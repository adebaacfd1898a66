"""Dagster's records of artifacts: the latest of each partition, and records from outside runs.

A record is not trusted without its manifest. Anyone with access to the web server can report a
materialization. Such a record has no run and is skipped here. The manifest says what an artifact is
and what it was made from.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from e2h_pipeline.artifacts.inventory import Place, place_of
from e2h_pipeline.artifacts.request import StoreError
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.artifacts.verify import StoreFinding
from e2h_pipeline.orchestration.planning import stage_order
from e2h_pipeline.stages.spec import EXPERIMENTS
from resources.store import ARTIFACT_KEY, is_recorded, metadata_text

_MODULE_PATH = re.compile(r"^(?:\w+\.)+(?=\w+:)")  # before the name of an exception
_DATA_VERSION_TAG = "dagster/data_version"
_QUERIED = 500  # records of one query
_HISTORY = 1000  # records of one asset in one partition that are searched for an older one


@dataclass(frozen=True)
class Record:
    """A materialization. `key`: the artifact's, or empty; `run`: empty for outside reports;
    `metadata`: of the event."""

    asset: str
    experiment: str
    key: str
    data_version: str
    run: str
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ours(self) -> bool:
        """Whether one of our runs reported it."""
        return bool(self.run and self.key)


def latest_records(instance: dg.DagsterInstance, experiments: Collection[str] | None = None) -> list[Record]:
    """The latest materialization of every asset in every partition of Dagster.

    Two queries per asset, and one per 500 records.

    Args:
        experiments: only these partitions; all if None. Deleted partitions count as never made.
    """
    known = set(instance.get_dynamic_partitions(str(EXPERIMENTS.name)))
    chosen = known if experiments is None else known & set(experiments)
    found: list[Record] = []
    for asset in sorted(instance.all_asset_keys()) if chosen else ():
        latest = instance.event_log_storage.get_latest_storage_id_by_partition(
            asset,
            dg.DagsterEventType.ASSET_MATERIALIZATION,
            set(chosen) if experiments is not None else None,
        )
        ids = [number for partition, number in latest.items() if partition in chosen]
        for start in range(0, len(ids), _QUERIED):
            asked = dg.AssetRecordsFilter(asset_key=asset, storage_ids=ids[start : start + _QUERIED])
            page = instance.fetch_materializations(asked, limit=_QUERIED)
            found.extend(_record(record) for record in page.records)
    return found


def history(instance: dg.DagsterInstance, asset: str, experiment: str) -> list[Record]:
    """Materializations of an asset in a partition, newest first."""
    asked = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[experiment])
    return [_record(record) for record in instance.fetch_materializations(asked, limit=_HISTORY).records]


def wanted_places(instance: dg.DagsterInstance) -> set[Place]:
    """Artifacts that partitions refer to: the latest of each that one of our runs reported."""
    return {place_of(record.asset, record.key) for record in _ours(instance, latest_records(instance))}


def experiment_places(instance: dg.DagsterInstance, experiment: str) -> set[Place]:
    """Artifacts that one partition refers to."""
    records = latest_records(instance, [experiment])
    return {place_of(record.asset, record.key) for record in _ours(instance, records)}


def _ours(instance: dg.DagsterInstance, records: Iterable[Record]) -> Iterator[Record]:
    """Each record, or, if it is not ours, our newest one of the same partition."""
    for record in records:
        if record.ours:
            yield record
        else:
            older = history(instance, record.asset, record.experiment)
            yield from [found for found in older if found.ours][:1]


def record_findings(
    instance: dg.DagsterInstance, store: ArtifactStore, experiments: Collection[str] | None = None
) -> list[StoreFinding]:
    """Latest records of stages that are forged or contradict the store.

    Args:
        experiments: only these partitions; all if None.
    """
    stages = set(stage_order())
    found = []
    for record in latest_records(instance, experiments):
        problem = _problem(instance, store, record) if record.asset in stages or record.key else None
        if problem:
            found.append(StoreFinding("event", f"{record.asset} of {record.experiment}", problem))
    return found


def _problem(instance: dg.DagsterInstance, store: ArtifactStore, record: Record) -> str | None:
    if not record.run:
        return "its latest materialization was reported from outside a run; materialize it again"
    if not record.key:
        return "its latest materialization names no artifact; materialize it again"
    try:
        artifact = store.peek(record.asset, record.key)
    except StoreError as error:
        return str(error)
    if artifact is None:
        return f"its artifact {record.key[:16]} is not in the store; materialize it again"
    if record.data_version != artifact.data_version:
        return (
            f"Dagster has data version {record.data_version[:12] or 'none'}, its artifact {artifact.data_version[:12]}; "
            "materialize it again"
        )
    if not is_recorded(instance, artifact, record.metadata):
        return f"{artifact.path} was written anew since; delete it and materialize it again"
    return None


def _record(record: dg.EventLogRecord) -> Record:
    event = record.asset_materialization
    metadata = event.metadata if event else {}
    tags = (event.tags if event else None) or {}
    return Record(
        asset=record.asset_key.to_user_string() if record.asset_key else "",
        experiment=str(record.partition_key or ""),
        key=metadata_text(metadata.get(ARTIFACT_KEY)),
        data_version=str(tags.get(_DATA_VERSION_TAG, "")),
        run=record.run_id,
        metadata=metadata,
    )


def failure_cause(event: dg.DagsterEvent) -> str:
    """The stage's own reason for a failure: the first error that is not Dagster's.

    Its causes say less and stay in the log: "name not resolved" instead of the wanted model."""
    error = event.step_failure_data.error
    while error is not None and error.cause is not None and str(error.cls_name).startswith("Dagster"):
        error = error.cause
    if event.step_failure_data.user_failure_data and event.step_failure_data.user_failure_data.description:
        return event.step_failure_data.user_failure_data.description
    return _MODULE_PATH.sub("", first_line(error.message)) if error is not None else "no reason given"


def first_line(text: str) -> str:
    """The first line of a message, for people."""
    return text.strip().splitlines()[0] if text.strip() else "no reason given"
