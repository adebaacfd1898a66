"""The records of a home for commands that only read: without Dagster where its default storage is used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from e2h_pipeline.artifacts.home import HomeError, writable
from resources.ledger import Ledger, SqliteLedger, default_storage


@contextmanager
def open_ledger(home: Path) -> Iterator[Ledger]:
    """The records of a home folder; nothing is made in it.

    Raises:
        HomeError: there is nothing in a home that can only be read.
    """
    folder = home / "dagster"
    if not writable(folder) and not (folder / "dagster.yaml").exists():
        raise HomeError(f"{home} can only be read, and nothing was ever run in it")
    if default_storage(folder):
        yield SqliteLedger(folder)
        return
    from e2h_pipeline.orchestration.instance import open_to_read
    from resources.store import DagsterLedger

    with open_to_read(home) as instance:
        yield DagsterLedger(instance)
