"""Dagster's storage on Postgres, with the slots of `resources.slots`.

deploy/dagster-postgres.yaml names it. It needs the extra `postgres`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as db
from dagster._core.storage.event_log.schema import ConcurrencySlotsTable
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage, PostgresEventLogStorage
from dagster_postgres.utils import pg_url_from_config

from resources.slots import CardSlots

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection


class PostgresSlots(CardSlots, PostgresEventLogStorage):
    """An event log in which a slot of a pool goes to one step."""

    def _alone(self, connection: Connection, pool: str) -> None:
        """Lock the pool's slots until the claim is over."""
        slots = ConcurrencySlotsTable.c
        rows = db.select(slots.id).where(slots.concurrency_key == pool).order_by(slots.id)
        connection.execute(rows.with_for_update()).fetchall()


class PostgresStorage(DagsterPostgresStorage):
    """Dagster's Postgres storage with that event log."""

    def __init__(
        self,
        postgres_url: str,
        should_autocreate_tables: bool = True,
        inst_data: ConfigurableClassData | None = None,
    ) -> None:
        super().__init__(postgres_url, should_autocreate_tables, inst_data)
        self._event_log_storage = PostgresSlots(postgres_url, should_autocreate_tables)

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> PostgresStorage:
        return cls(
            pg_url_from_config(config_value), config_value.get("should_autocreate_tables", True), inst_data
        )
