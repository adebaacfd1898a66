"""Dagster's instance on SQLite, with the slots of `resources.slots`.

dagster.yaml names `HomeInstance` as `instance_class`. It keeps everything where Dagster's default
does; a `storage` in dagster.yaml (Postgres, `resources.postgres`) takes its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from dagster import DagsterInstance
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.base_storage import DagsterStorage
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.runs import SqliteRunStorage
from dagster._core.storage.schedules import SqliteScheduleStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.pool import NullPool

from e2h_pipeline.artifacts.home import writable
from e2h_pipeline.artifacts.locks import alone
from resources.slots import CardSlots

_LOCK = ".lock"


class SlotSafeEventLog(CardSlots, SqliteEventLogStorage):
    """An event log in which a slot of a pool goes to one step. SQLite carries out the statement that
    takes slots under its write lock.

    Dagster makes an engine for each connection, and each engine compiles each statement anew: a
    quarter of the time of a run that finds everything made. Ours are kept. They hold no connection
    open, so a fork inherits none.
    """

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._tables: set[str] = set()
        super().__init__(base_dir, inst_data)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock:
            engine = _engine(self.conn_string_for_shard(shard))
            if shard not in self._initialized_dbs:
                self._initdb(engine)
                self._initialized_dbs.add(shard)
            with engine.begin() as connection:
                yield connection

    def has_table(self, table_name: str) -> bool:
        """Dagster asks at each look at a partition; a table that is there stays."""
        if table_name not in self._tables and super().has_table(table_name):
            self._tables.add(table_name)
        return table_name in self._tables

    def conn_string_for_shard(self, shard_name: str) -> str:
        """The URL of the index (`index`) or of a run's log."""
        return database_url(Path(self._base_dir) / f"{shard_name}.db")


class HomeStorage(DagsterSqliteStorage):
    """Dagster's SQLite storage with that event log.

    One process at a time makes or opens it: otherwise the first processes of a home fail, because
    each makes the tables. A folder that can only be read is opened without making anything.
    """

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        folder = Path(base_dir)
        if writable(folder):
            with alone(folder / _LOCK):
                super().__init__(base_dir, inst_data)
                self._event_log_storage = SlotSafeEventLog(self._event_log_storage._base_dir)
            return
        DagsterStorage.__init__(self)  # type: ignore[arg-type]
        self.base_dir, self._inst_data = base_dir, inst_data
        self._run_storage = SqliteRunStorage(database_url(folder / "history" / "runs.db"))
        self._event_log_storage = SlotSafeEventLog(str(folder / "history" / "runs"))
        self._schedule_storage = SqliteScheduleStorage(database_url(folder / "schedules" / "schedules.db"))

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> HomeStorage:
        return cls.from_local(inst_data=inst_data, **config_value)


@lru_cache(maxsize=64)
def _engine(url: str) -> Engine:
    return create_engine(url, poolclass=NullPool, connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS})


def database_url(path: Path) -> str:
    """SQLAlchemy's URL of a database.

    SQLite makes files beside a database in order to read it, which a folder that can only be read
    forbids. It does not need them where nobody writes: without such files the database is complete.
    """
    if writable(path.parent):
        return f"sqlite:///{path}"
    log = path.with_name(f"{path.name}-wal")
    how = "mode=ro" if log.exists() and log.stat().st_size else "immutable=1"
    return f"sqlite:///file:{path}?{how}&uri=true"


class HomeInstance(DagsterInstance):
    """Dagster's instance; without a `storage` in dagster.yaml it uses ours."""

    @classmethod
    def config_schema(cls) -> dict[str, Any]:
        return {}

    @staticmethod
    def config_defaults(base_dir: str) -> Mapping[str, ConfigurableClassData | None]:
        storage = ConfigurableClassData(__name__, HomeStorage.__name__, yaml.dump({"base_dir": base_dir}))
        return {**InstanceRef.config_defaults(base_dir), "storage": storage}
