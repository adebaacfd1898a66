"""Cleans up after killed processes: runs, pool slots, training processes, half-written artifacts.

Dagster's local launcher does not watch its run workers across a restart. A run killed together with
its code server stays STARTED for good and keeps its slot of the pool "gpu". A run counts as dead
only if its process is known, belongs to this host, and is gone. `e2h run`, `e2h sweep` and `e2h ui`
check at their start, the daemon's sensor checks twice a minute, and `e2h doctor` reports.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import dagster as dg
from dagster._core.storage.runs import SqliteRunStorage
from dagster._core.storage.tags import PARENT_RUN_ID_TAG

from e2h_pipeline.artifacts.home import home
from e2h_pipeline.artifacts.store import ArtifactStore
from resources import processes
from resources.launcher import HOST_TAG, HostRunLauncher, host

Level = Literal["ok", "note", "problem"]

PID_TAG = "e2h/pid"
_SENSOR_SECONDS = 30  # also the longest wait of a restarted daemon
_START_SECONDS = 600  # a run without a process after this time never started; Dagster's own limit is 180
_RECENT_SECONDS = 86400
_RECENT_RUNS = 50
_WORKER_GRACE_SECONDS = 60
_UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_BROKEN_OFF = [dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.FAILURE]
_WORKER_STARTED = re.compile(r"Started process for (?:run|resuming job) \(pid: (\d+)\)")


@dataclass
class Finding:
    """One result of an examination.

    Attributes:
        kind: run, slot, process, making, outbox, mlflow, daemon, pool, disk, schema or version (of
            packages, and of artifacts by earlier code).
        text: the state, one line for people.
        level: only a "problem" needs action.
        mend: fixes the problem and returns what it did; None if only a person can.
        done: the result of `mend`.
    """

    kind: str
    subject: str
    text: str
    level: Level = "problem"
    mend: Callable[[], str] | None = None
    done: str = ""

    def fix(self) -> None:
        """Mend it, if possible."""
        if self.mend is not None:
            self.done = self.mend()

    def as_row(self) -> dict[str, Any]:
        """Plain data."""
        row = asdict(self) | {"fixable": self.mend is not None}
        return {name: value for name, value in row.items() if name != "mend"}


def own_tags() -> dict[str, str]:
    """Tags of a run that is executed in this process."""
    return {PID_TAG: str(os.getpid()), HOST_TAG: host()}


def release_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """End runs whose process is gone and free their pool slots; returns the ids of these runs."""
    found = dead_runs(instance)
    for finding in (*found, *held_slots(instance)):
        finding.fix()
    return [finding.subject for finding in found if finding.mend]


def leftovers(
    instance: dg.DagsterInstance, store: ArtifactStore, gone: Collection[str] = ()
) -> list[Finding]:
    """Everything that killed processes left, in the order of mending.

    Args:
        gone: other hosts that no longer exist; their runs count as dead.
    """
    return [
        *dead_runs(instance, gone),
        *held_slots(instance),
        *workers_of_ended_runs(instance),
        *orphans(store),
        *half_written(store),
    ]


def dead_runs(instance: dg.DagsterInstance, gone: Collection[str] = ()) -> list[Finding]:
    """Unfinished runs in Dagster that are dead, or that this host cannot judge."""
    if not processes.known():
        return []
    records = instance.get_run_records(dg.RunsFilter(statuses=_UNFINISHED))
    found = (_look_at(instance, record, gone) for record in records)
    return [finding for finding in found if finding is not None]


def _look_at(instance: dg.DagsterInstance, record: dg.RunRecord, gone: Collection[str]) -> Finding | None:
    run = record.dagster_run
    name = f"{run.tags.get('dagster/partition', run.job_name)} ({run.status.value})"
    where = _host_of(instance, run)
    if where is None:
        return Finding("run", run.run_id, f"{name}: its host is unknown", "note")
    if where != host():
        if where in gone:
            return _dead(instance, run, name, f"its host {where} is gone")
        text = f"{name}: runs on {where}; look there, or if that host is gone: e2h doctor --gone {where}"
        return Finding("run", run.run_id, text, "note")
    process = _process_of(instance, record)
    if process is None:
        # Time since the last update: a run may wait in the queue for hours before its start.
        age = time.time() - record.update_timestamp.timestamp()
        return _dead(instance, run, name, "it never got a process") if age > _START_SECONDS else None
    pid, when = process
    return (
        None if processes.runs_since(pid, when) else _dead(instance, run, name, f"its process {pid} is gone")
    )


def _dead(instance: dg.DagsterInstance, run: dg.DagsterRun, name: str, why: str) -> Finding:
    def mend() -> str:
        now = instance.get_run_by_id(run.run_id)
        if now is None or now.is_finished:  # it ended by itself while we looked
            return "it has ended meanwhile"
        instance.report_run_canceled(now, message=f"{why}; released by e2h")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        return "marked canceled, its pool slots are free"

    return Finding("run", run.run_id, f"{name}: {why}", mend=mend)


def _host_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str | None:
    """The host of a run: from the tag by the launcher or `e2h`; without one, this host if SQLite.

    Cluster launchers write no host tag, so a re-executed run inherits its parent's."""
    inherited = PARENT_RUN_ID_TAG in run.tags and not isinstance(instance.run_launcher, HostRunLauncher)
    if HOST_TAG in run.tags and not inherited:
        return run.tags[HOST_TAG]
    return host() if isinstance(instance.run_storage, SqliteRunStorage) else None


def _process_of(instance: dg.DagsterInstance, record: dg.RunRecord) -> tuple[int, float] | None:
    """Pid of a run's process, and a time (seconds since 1970) at which it ran; None without one."""
    run = record.dagster_run
    if _is_of_e2h(run):
        return int(run.tags[PID_TAG]), record.create_timestamp.timestamp()
    found = None
    for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
        if match := _WORKER_STARTED.match(entry.message or entry.user_message):
            found = int(match[1]), entry.timestamp
    return found


def _is_of_e2h(run: dg.DagsterRun) -> bool:
    """Whether `e2h` executes the run in its own process.

    A run re-executed from the UI inherits its parent's tags, and so the pid of another process."""
    return run.tags.get(PID_TAG, "").isdecimal() and PARENT_RUN_ID_TAG not in run.tags


def held_slots(instance: dg.DagsterInstance) -> list[Finding]:
    """Pool slots of runs that have ended or were deleted.

    Dagster's daemon frees them too, after `free_slots_after_run_end_seconds`.
    """
    storage = instance.event_log_storage
    found = []
    for run_id in sorted(storage.get_concurrency_run_ids()):
        run = instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            state = run.status.value if run else "deleted"

            def mend(run_id: str = run_id) -> str:
                storage.free_concurrency_slots_for_run(run_id)
                return "freed"

            found.append(Finding("slot", run_id, f"a pool slot is held by a {state} run", mend=mend))
    return found


def workers_of_ended_runs(
    instance: dg.DagsterInstance, grace: float = _WORKER_GRACE_SECONDS
) -> list[Finding]:
    """Run workers that outlive their run: it was cancelled while their code server was gone.

    Args:
        grace: seconds after the run's end in which a worker may still clean up.
    """
    if not processes.known():
        return []
    recent = time.time() - _RECENT_SECONDS
    found = []
    for record in instance.get_run_records(dg.RunsFilter(statuses=_BROKEN_OFF), limit=_RECENT_RUNS):
        run = record.dagster_run
        # `e2h` runs several experiments in one process, which belongs to a person, not to a run.
        if _is_of_e2h(run) or (record.end_time or 0) < recent or _host_of(instance, run) != host():
            continue
        process = _process_of(instance, record)
        if process and processes.runs_since(*process) and time.time() - (record.end_time or 0) > grace:
            text = f"run worker {process[0]} still runs although its run is {run.status.value}"
            found.append(Finding("process", run.run_id, text, mend=_ending(process[0])))
    return found


def orphans(store: ArtifactStore) -> list[Finding]:
    """Processes of this home that outlive the step that started them."""
    found = [
        process
        for process in processes.step_processes()
        if not process.step_alive and process.work.is_relative_to(store.home / "work")
    ]
    return [
        Finding(
            "process",
            str(process.pid),
            f"{process.command[:80]} was started by step {process.step} of "
            f"{process.work.relative_to(store.home)}, which is gone",
            mend=_ending(process.pid),
        )
        for process in found
    ]


def _ending(pid: int) -> Callable[[], str]:
    ticks = processes.start_ticks(pid)

    def mend() -> str:
        if ticks is None or processes.start_ticks(pid) != ticks:
            return "it has ended meanwhile"
        processes.end_tree(pid)
        return "ended, with all its descendants"

    return mend


def half_written(store: ArtifactStore) -> list[Finding]:
    """Artifact folders whose writer is gone. Resumable work is in `work/` and stays."""
    found = []
    for folder in sorted((store.home / "store" / ".making").glob("*~*~*")):
        where, pid, _ = folder.name.split("~", 2)
        if where != socket.gethostname():
            text = f"{folder}: being written on {where}; delete it if that host no longer exists"
            found.append(Finding("making", folder.name, text, "note"))
        elif processes.known() and not processes.runs_since(int(pid), folder.stat().st_mtime):

            def mend(folder: Path = folder) -> str:
                shutil.rmtree(folder, ignore_errors=True)
                return "deleted"

            found.append(
                Finding("making", folder.name, f"{folder}: half written, its writer is gone", mend=mend)
            )
    return found


def sensor() -> dg.SensorDefinition:
    """Mends at the daemon's start and twice a minute. On by default."""

    @dg.sensor(
        name="release_dead_runs",
        minimum_interval_seconds=_SENSOR_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Closes dead runs of this host, frees their pool slots, ends their processes.",
    )
    def release(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        mended = [found for found in leftovers(context.instance, ArtifactStore(home())) if found.mend]
        for finding in mended:
            finding.fix()
            context.log.info("%s: %s", finding.text, finding.done)
        told = "; ".join(f"{finding.text}: {finding.done}" for finding in mended)
        return dg.SkipReason(told or "no run of this host is dead")

    return release
