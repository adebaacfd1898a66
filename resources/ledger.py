"""What Dagster has recorded of artifacts and checks, for readers.

`SqliteLedger` reads the database of a home with Dagster's own default storage, without Dagster, which
alone takes a second of processor time to load. Other storages (Postgres) are asked through Dagster
(`resources/store.py`). Both follow the same rules: a report from outside a run is none of ours.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml

from e2h_pipeline.artifacts.request import Artifact, StoreError
from e2h_pipeline.artifacts.store import ArtifactStore

ARTIFACT_KEY = "artifact_key"
SEAL = "manifest_seal"
EXPERIMENT_PARTITIONS = "experiment"
MATERIALIZATION = "ASSET_MATERIALIZATION"
_FAILED, _PASSED = "FAILED", "SUCCEEDED"
_STORAGE = ("storage", "event_log_storage", "run_storage")  # of dagster.yaml: not Dagster's default
_QUERIED = 500  # partitions of one query
_RUN = re.compile(r"[0-9a-f-]{36}")


@dataclass(frozen=True)
class Recorded:
    """A materialization. `key` and `seal` of the artifact, and `run`; empty where the event has none."""

    key: str
    seal: str
    run: str


class Ledger(Protocol):
    """What readers ask of Dagster's records."""

    def experiments(self) -> list[str]:
        """All partitions, in the order in which they were added."""
        ...

    def latest(self, asset: str, experiment: str) -> Recorded | None:
        """The latest materialization of an asset in a partition; None without one."""
        ...

    def seals(self, run: str) -> frozenset[str]:
        """Seals of the artifacts that a run reported; none of a run that Dagster has lost."""
        ...

    def failed_checks(
        self, checks: Sequence[tuple[str, str]], experiments: Sequence[str]
    ) -> dict[str, list[str]]:
        """Experiment -> those of some checks (asset, name) whose latest verdict by a run is a failure, in words."""
        ...


def latest_artifact(ledger: Ledger, store: ArtifactStore, asset: str, experiment: str) -> Artifact | None:
    """The artifact of the latest materialization of an asset in one partition; None without one.

    Raises:
        StoreError: the event names no artifact (anyone with access to the web server can report
            one), or the artifact is gone, damaged, or another than the one that was recorded.
    """
    recorded = ledger.latest(asset, experiment)
    if recorded is None:
        return None
    if not recorded.key or not recorded.run:
        raise StoreError(
            f"the latest materialization of {asset} for {experiment} was reported from outside a run "
            f"and names no artifact; materialize {asset} again"
        )
    artifact = store.open(asset, recorded.key)
    if not is_recorded(ledger, recorded, artifact):
        raise StoreError(
            f"{artifact.path}: not the artifact that Dagster recorded for {experiment}: its manifest was written "
            f"anew; delete {artifact.path} and materialize {asset} again"
        )
    return artifact


def is_recorded(ledger: Ledger, recorded: Recorded, artifact: Artifact) -> bool:
    """Whether an artifact is the one of this materialization: it has its seal, or that of the run that made
    it again."""
    seal, run = artifact.manifest.seal, artifact.manifest.run_id
    return recorded.seal == seal or seal in (ledger.seals(run) if run else ())


def default_storage(dagster_home: Path) -> bool:
    """Whether a home's records are in Dagster's default storage, or there are none yet."""
    config = dagster_home / "dagster.yaml"
    try:
        found = yaml.safe_load(config.read_text(encoding="utf-8")) if config.exists() else {}
    except (OSError, ValueError, yaml.YAMLError):
        return False
    return isinstance(found, dict) and not any(name in found for name in _STORAGE)


class SqliteLedger:
    """The records in a home of Dagster's default storage; none where nothing was run yet.

    Args:
        dagster_home: E2H_HOME/dagster.
    """

    def __init__(self, dagster_home: Path) -> None:
        self._events = dagster_home / "history" / "runs" / "index.db"
        self._runs = dagster_home / "history" / "runs.db"

    def experiments(self) -> list[str]:
        """See `Ledger`."""
        query = "SELECT partition FROM dynamic_partitions WHERE partitions_def_name = ? ORDER BY id"
        return [name for (name,) in _rows(self._events, query, [EXPERIMENT_PARTITIONS])]

    def latest(self, asset: str, experiment: str) -> Recorded | None:
        """See `Ledger`."""
        key = _asset_key(asset)
        query = (
            "SELECT event, run_id FROM event_logs WHERE asset_key = ? AND dagster_event_type = ? AND partition = ? "
            "AND timestamp > coalesce((SELECT wipe_timestamp FROM asset_keys WHERE asset_key = ?), '') "
            "ORDER BY id DESC LIMIT 1"
        )
        for event, run in _rows(self._events, query, [key, MATERIALIZATION, experiment, key]):
            return _recorded(event, run)
        return None

    def seals(self, run: str) -> frozenset[str]:
        """See `Ledger`."""
        known = _RUN.fullmatch(run) and list(_rows(self._runs, "SELECT 1 FROM runs WHERE run_id = ?", [run]))
        if not known:
            return frozenset()
        own = self._events.with_name(f"{run}.db")  # keeps the events of assets that were wiped
        query = "SELECT event FROM event_logs WHERE run_id = ? AND dagster_event_type = ?"
        return frozenset(_recorded(event, run).seal for (event,) in _rows(own, query, [run, MATERIALIZATION]))

    def failed_checks(
        self, checks: Sequence[tuple[str, str]], experiments: Sequence[str]
    ) -> dict[str, list[str]]:
        """See `Ledger`."""
        wanted = {(_asset_key(asset), name): asset for asset, name in checks}
        found: dict[str, list[str]] = {}
        for start in range(0, len(experiments), _QUERIED):
            some = experiments[start : start + _QUERIED]
            for key, name, partition, status, event in _rows(self._events, _verdicts(some), some):
                if status == _FAILED and (key, name) in wanted:
                    why = _why(event) or "see its page"
                    found.setdefault(partition, []).append(
                        f"check {name} of {wanted[key, name]} failed: {why}"
                    )
        return {experiment: sorted(failures) for experiment, failures in found.items()}


def _verdicts(experiments: Sequence[str]) -> str:
    """The latest verdict by a run of each check: a run that only planned one has none."""
    places = ", ".join("?" * len(experiments))
    return (
        "SELECT asset_key, check_name, partition, execution_status, evaluation_event FROM asset_check_executions "
        "WHERE id IN (SELECT max(id) FROM asset_check_executions "
        f"WHERE partition IN ({places}) AND execution_status IN ('{_FAILED}', '{_PASSED}') AND run_id != '' "
        "GROUP BY asset_key, check_name, partition)"
    )


def _why(event: str | None) -> str:
    data = json.loads(event)["dagster_event"]["event_specific_data"] if event else {}
    return str(data.get("description") or "")


def _asset_key(asset: str) -> str:
    """As Dagster spells it in its tables."""
    return json.dumps([asset])


def _recorded(event: str, run: str | None) -> Recorded:
    made = json.loads(event)["dagster_event"]["event_specific_data"]["materialization"]
    texts = {
        entry["label"]: str((entry["entry_data"] or {}).get("text") or "")
        for entry in made["metadata_entries"]
    }
    return Recorded(texts.get(ARTIFACT_KEY, ""), texts.get(SEAL, ""), run or "")


def _rows(database: Path, query: str, values: Sequence[str]) -> Iterable[tuple[Any, ...]]:
    if not database.exists():
        return []
    with _opened(database) as connection:
        return connection.execute(query, values).fetchall()


@contextmanager
def _opened(database: Path) -> Iterator[sqlite3.Connection]:
    """A database to be read. Of a folder that can only be read, what was written since its last checkpoint
    is not seen: there SQLite cannot share memory with a writer."""
    address = f"{database.as_uri()}?mode=ro"
    with closing(sqlite3.connect(address, uri=True, timeout=60)) as connection:
        try:
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        except sqlite3.OperationalError:
            with closing(sqlite3.connect(f"{address}&immutable=1", uri=True)) as frozen:
                yield frozen
                return
        yield connection
