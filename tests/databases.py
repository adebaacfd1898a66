"""A real Postgres server for a test, and processes that write into one Dagster instance at once."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import forked
import pytest

ROOT = Path(__file__).resolve().parents[1]

_RUNS = """
import os, sys
from pathlib import Path
import dagster as dg
import toy_stages as toy

home, number, runs = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
with dg.DagsterInstance.get() as instance:
    for seed in range(number * runs, (number + 1) * runs):
        key = f"toy/problems.seed={seed}/seed={seed}"
        instance.add_dynamic_partitions("experiment", [key])
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        done = dg.materialize(toy.TOYS, instance=instance, partition_key=key, resources=toy.resources(home),
            run_config=quiet)
        assert done.success
"""


@contextmanager
def postgres() -> Iterator[str]:
    """Address of a server on loopback, which is stopped after the test. Skips the test without
    Postgres."""
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="e2h-postgres-"))  # not pytest's folder: other users cannot read it
    who = _unprivileged_user()
    if who:
        shutil.chown(folder, who)
    port = _free_port()
    data, log = folder / "data", folder / "log"
    run: Any = {"check": True, "cwd": folder, "stdout": subprocess.DEVNULL, "user": who}
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    try:
        subprocess.run([programs / "initdb", "-D", data, "-U", "dagster", "-A", "trust", "--no-sync"], **run)
        control = [programs / "pg_ctl", "-D", data, "-l", log, "-w"]
        subprocess.run([*control, "-o", options, "start"], **run)
        try:
            yield f"postgresql+psycopg2://dagster@127.0.0.1:{port}/postgres"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], **run)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path:
    """Folder of Postgres' programs; Debian keeps them out of PATH."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = str(versions[-1]) if versions else shutil.which("initdb")
    if not found:
        pytest.skip("Postgres is not installed here (Debian: apt-get install postgresql)")
    return Path(found).parent


def _unprivileged_user() -> str | None:
    """A user for the server, because Postgres refuses to run as root."""
    if os.geteuid() != 0:
        return None
    from pwd import getpwall

    names = {entry.pw_name for entry in getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_at_once(home: Path, dagster_home: Path, processes: int, runs: int) -> None:
    """Start processes that materialize the toys for some experiments, all into one instance."""
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(dagster_home),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    }
    with ThreadPoolExecutor(processes) as pool:
        numbers = range(processes)
        done = list(pool.map(lambda n: forked.run(_RUNS, [home, n, runs], environment), numbers))
    said = "\n".join(writer.stderr for writer in done)
    assert [writer.returncode for writer in done] == [0] * processes, said[-3000:]


def check_nothing_is_lost(instance: dg.DagsterInstance, runs: int, stages: int) -> None:
    """Check that every run succeeded, and that its log and the index over all runs have every event
    once."""
    found = instance.get_runs()
    assert len(found) == runs
    assert {run.status for run in found} == {dg.DagsterRunStatus.SUCCESS}
    kinds = dg.DagsterEventType
    for run in found:
        events = [entry.dagster_event for entry in instance.all_logs(run.run_id) if entry.dagster_event]
        count = {kind: sum(event.event_type == kind for event in events) for kind in kinds}
        assert count[kinds.STEP_START] == count[kinds.STEP_SUCCESS] == stages
        assert count[kinds.ASSET_MATERIALIZATION] == stages
        assert count[kinds.RUN_START] == count[kinds.RUN_SUCCESS] == 1
    for asset in ("recipe", "toy_score"):
        key = dg.AssetKey(asset)
        assert len(instance.get_materialized_partitions(key)) == runs
        assert len(instance.fetch_materializations(key, limit=10 * runs).records) == runs
