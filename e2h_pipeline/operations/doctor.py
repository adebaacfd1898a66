"""Examines a home folder: all of `leftovers`, MLflow, the disk, the pools and the versions.

`examine` changes nothing. `mend` repairs what it can and says what it did.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import dagster as dg
from dagster._daemon.controller import all_daemons_live

from assets.watched import WATCHED
from e2h_pipeline.artifacts.home import writable
from e2h_pipeline.artifacts.manifest import ManifestError
from e2h_pipeline.artifacts.request import StoreError
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.orchestration.instance import dagster_home, open_to_read
from e2h_pipeline.orchestration.leftovers import Finding, leftovers
from e2h_pipeline.orchestration.planning import plans, stage_order
from e2h_pipeline.recipe import RecipeError
from e2h_pipeline.registry import RegistryError
from e2h_pipeline.stages.spec import EXPERIMENTS
from resources.engine import EngineResource
from resources.mlflow_sender import MlflowSender, tracking_errors
from resources.outbox import waiting, without_login
from resources.tracking import NAME, TrackingResource, local_database, send_waiting

_LOW_DISK = 5 * 2**30  # bytes; a checkpoint of a 7B model with optimizer states is larger still
_VERSIONS = (
    "dagster",
    "dagster-webserver",
    "dagster-postgres",
    "mlflow",
    "torch",
    "transformers",
    "vllm",
    "ray",
)
_PAGE = 1000  # MLflow runs of one query
_SHOWN = 3  # keys named in a message


def examine(home: Path, gone: Collection[str] = ()) -> list[Finding]:
    """All findings, without changing anything.

    Args:
        gone: other hosts that no longer exist.
    """
    with _instance(home) as instance:
        return list(_findings(instance, home, gone))


def mend(home: Path, gone: Collection[str] = ()) -> list[Finding]:
    """All findings, mended if possible; `Finding.done` says how."""
    with _instance(home) as instance:
        found = []
        for finding in _findings(instance, home, gone):
            finding.fix()
            found.append(finding)
        return found


def unmended(found: Sequence[Finding]) -> list[Finding]:
    """The remaining problems."""
    return [finding for finding in found if finding.level == "problem" and not finding.done]


def _instance(home: Path) -> dg.DagsterInstance:
    if writable(home / "dagster"):
        os.environ["DAGSTER_HOME"] = str(dagster_home(home))
        return dg.DagsterInstance.get()  # not `open_instance`, whose limits of pools may be a finding
    return open_to_read(home)


def _findings(instance: dg.DagsterInstance, home: Path, gone: Collection[str]) -> Iterator[Finding]:
    """One after the other, because later findings depend on earlier mends."""
    yield from leftovers(instance, ArtifactStore(home), gone)
    yield from _outbox(home)
    yield from _open_mlflow_runs(instance, home)
    yield from _daemon(instance)
    yield from _pools(instance)
    yield from _schema(instance)
    yield from _made_before(instance, ArtifactStore(home))
    yield _disk(home)
    yield _versions()


def _outbox(home: Path) -> Iterator[Finding]:
    uri = TrackingResource().tracking_uri(home)
    kept = waiting(home)
    here = [found for found in kept if found.address == without_login(uri)]
    if here:

        def send() -> str:
            told = list(send_waiting(uri, home))
            left = len({found.path for found in here} & {found.path for found in waiting(home)})
            return told[-1] if left == len(here) and told else f"{len(here) - left} sent, {left} left"

        size = sum(found.size for found in here)
        text = f"{len(here)} runs ({size / 2**20:.1f} MiB) wait to be sent to MLflow at {without_login(uri)}"
        yield Finding("outbox", str(here[0].path.parent), text, mend=send)
    for address in sorted({found.address for found in kept} - {without_login(uri)}):
        text = f"runs wait for MLflow at {address}; set MLFLOW_TRACKING_URI to it and run: e2h doctor --fix"
        yield Finding("outbox", address, text, "note")


def _open_mlflow_runs(instance: dg.DagsterInstance, home: Path) -> Iterator[Finding]:
    """Runs still open in MLflow although their Dagster run has ended."""
    uri = TrackingResource().tracking_uri(home)
    if uri == local_database(home) and not (home / "mlflow.db").exists():
        return
    sender = MlflowSender(uri, home, NAME)
    try:
        experiment = sender.client.get_experiment_by_name(NAME)
        runs = (
            sender.client.search_runs(
                [experiment.experiment_id], "attributes.status = 'RUNNING'", max_results=_PAGE
            )
            if experiment
            else []
        )
    except tracking_errors() as error:
        text = f"no answer from {without_login(uri)} ({type(error).__name__}); stages go on, missed entries are kept"
        yield Finding("mlflow", without_login(uri), text)
        return
    for run in runs:
        dagster_run = instance.get_run_record_by_id(run.data.tags.get("dagster.run_id", ""))
        if dagster_run is None or not dagster_run.dagster_run.is_finished:
            continue
        ended = int((dagster_run.end_time or time.time()) * 1000)

        def close(run_id: str = run.info.run_id, ended: int = ended) -> str:
            sender.client.set_terminated(run_id, "KILLED", ended)
            return "marked killed"

        name = f"{run.data.tags.get('e2h.asset')} of {run.data.tags.get('e2h.experiment')}"
        text = f"{name}: running in MLflow, but its Dagster run is {dagster_run.dagster_run.status.value}"
        yield Finding("mlflow", run.info.run_id, text, mend=close)


def _daemon(instance: dg.DagsterInstance) -> Iterator[Finding]:
    queued = instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED]))
    if all_daemons_live(instance):
        yield Finding("daemon", "daemon", f"alive; {queued} runs are queued", "ok")
    elif queued:
        yield Finding("daemon", "daemon", f"{queued} runs are queued and no daemon runs; start it: e2h ui")
    else:
        yield Finding("daemon", "daemon", "none runs; e2h run and e2h sweep need none", "ok")


def _pools(instance: dg.DagsterInstance) -> Iterator[Finding]:
    storage = instance.event_log_storage
    for pool in sorted(storage.get_concurrency_keys()):
        info = storage.get_concurrency_info(pool)
        text = f"slots taken: {len(info.claimed_slots)} of {info.slot_count}; steps that wait: {len(info.pending_steps)}"
        yield Finding("pool", pool, text, "ok")


def _schema(instance: dg.DagsterInstance) -> Iterator[Finding]:
    """Tables older than the installed Dagster: upgraded but not migrated."""
    stores = {
        "runs": instance.run_storage,
        "events": instance.event_log_storage,
        "schedules": instance.schedule_storage,
    }
    for name, storage in stores.items():
        revision = storage.alembic_version() if storage is not None else None
        if revision and None not in revision and revision[0] != revision[1]:
            text = f"tables of {revision[0]}, Dagster wants {revision[1]}; back up, then: dagster instance migrate"
            yield Finding("schema", name, text)


def _made_before(instance: dg.DagsterInstance, store: ArtifactStore) -> Iterator[Finding]:
    """Experiments made by another version of the code: a run would make their stages again."""
    keys = instance.get_dynamic_partitions(str(EXPERIMENTS.name))
    engine = EngineResource.from_environment()
    again: list[str] = []
    stages = 0
    for key in keys:
        try:
            (plan,) = plans(instance, store, [key], engine)
        except (RecipeError, RegistryError) as error:
            yield Finding("version", key, f"its results stay readable; to run it again: {error}", "note")
            continue
        except (StoreError, ManifestError) as error:
            yield Finding("version", key, f"e2h verify tells more: {error}", "note")
            continue
        stale = [stage.name for stage in plan.stages if stage.state == "stale"]
        if stale:
            again.append(key)
            stages += len(stale)
    if again:
        text = (
            f"{stages} stages of {len(again)} experiments were made by other code or another recipe; a run makes "
            f"them again, their old results stay readable (e2h results): {', '.join(again[:_SHOWN])}"
        )
        yield Finding("version", "experiments", text + (" ..." if len(again) > _SHOWN else ""), "note")
    recorded = {key.to_user_string() for key in instance.get_asset_keys()}
    gone = sorted(recorded - {*stage_order(), *(watched.name for watched in WATCHED)})
    if gone:
        yield Finding("version", "assets", f"no longer made, kept for reading: {', '.join(gone)}", "note")


def _disk(home: Path) -> Finding:
    free = shutil.disk_usage(home).free
    text = f"{free / 2**30:.1f} GiB free"
    return Finding("disk", str(home), text, "ok" if free > _LOW_DISK else "problem")


def _versions() -> Finding:
    found = [f"python {sys.version.split()[0]}"]
    for name in _VERSIONS:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return Finding("version", "packages", ", ".join(found), "ok")
