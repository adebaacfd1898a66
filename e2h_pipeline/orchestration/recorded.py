"""The artifacts that Dagster's materializations name, read from the text of the events.

An event of a stage is some 10 KB of text, tables and links for the UI. Dagster builds an object of
each of its parts; plans need one, for every stage of thousands of experiments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dagster as dg
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from pydantic import BaseModel, Field, TypeAdapter
from sqlalchemy import Select, func, select

from resources.store import ARTIFACT_KEY

_QUERIED = 500  # events of one query


class _Value(BaseModel):
    text: str | None = None


class _Metadata(BaseModel):
    label: str
    value: _Value = Field(alias="entry_data")


class _Materialization(BaseModel):
    metadata: list[_Metadata] = Field(alias="metadata_entries")


class _Data(BaseModel):
    materialization: _Materialization


class _DagsterEvent(BaseModel):
    data: _Data = Field(alias="event_specific_data")


class _Event(BaseModel):
    """The part of a materialization's event that names its artifact."""

    event: _DagsterEvent = Field(alias="dagster_event")

    @property
    def artifact(self) -> str | None:
        """Key of the artifact; None where the event names none."""
        values = {entry.label: entry.value.text for entry in self.event.data.materialization.metadata}
        return values.get(ARTIFACT_KEY)


_EVENT = TypeAdapter(_Event)


def recorded_artifacts(instance: dg.DagsterInstance, asset: str, partitions: Sequence[str]) -> dict[str, str]:
    """Partition -> key of the artifact that the latest materialization of an asset names.

    A materialization from outside a run names none: anyone who reaches the web server can report
    one. One query for 500 partitions, because sweeps have thousands.
    """
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        raise TypeError(f"{type(storage).__name__} is not a SQL event log; use SQLite or Postgres")
    found: dict[str, str] = {}
    for start in range(0, len(partitions), _QUERIED):
        with storage.index_connection() as connection:
            events = connection.execute(_latest(asset, partitions[start : start + _QUERIED])).fetchall()
        for event in events:
            artifact = _EVENT.validate_json(event.event).artifact
            if artifact is not None:
                found[event.partition] = artifact
    return found


def _latest(asset: str, partitions: Sequence[str]) -> Select[Any]:
    """The query of the latest materializations: partition and event."""
    log = SqlEventLogStorageTable.c
    of_asset = (
        log.asset_key == dg.AssetKey(asset).to_string(),
        log.dagster_event_type == dg.DagsterEventType.ASSET_MATERIALIZATION.value,
        log.partition.in_(partitions),
    )
    latest = select(func.max(log.id)).where(*of_asset).group_by(log.partition)
    return select(log.partition, log.event).where(log.id.in_(latest), log.run_id != "")
