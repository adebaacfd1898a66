"""Launches members of sweeps and writes their pages: a schedule and two sensors."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from e2h_pipeline.artifacts.hashing import byte_hash_or_error
from e2h_pipeline.artifacts.home import home, recipe_folders, sweep_folders
from e2h_pipeline.artifacts.manifest import ManifestError
from e2h_pipeline.artifacts.request import StoreError
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.orchestration.automation import JOB
from e2h_pipeline.orchestration.leftovers import PID_TAG
from e2h_pipeline.orchestration.notices import SMTP, WEBHOOK, Notice, tell_and_log, told_status
from e2h_pipeline.orchestration.planning import (
    UNFINISHED,
    Plan,
    add_experiments,
    plans,
    running_keys,
)
from e2h_pipeline.recipe import RecipeError
from e2h_pipeline.recipe.yaml_files import yaml_files
from e2h_pipeline.sweeps.selection import selected_stages
from e2h_pipeline.sweeps.spec import Sweep, SweepError, load_sweep, members, sweep_names
from resources.engine import EngineResource

SWEEP_TAG = "e2h/sweep"
_SWEEP_SECONDS = 300
_PAGE_SECONDS = 60
_DAILY = "0 2 * * *"

# Errors from a sweep's file, a member's recipe, or an artifact in the store.
UNUSABLE = (SweepError, RecipeError, StoreError, ManifestError)


def due(
    instance: dg.DagsterInstance, store: ArtifactStore, sweep: Sweep, engine: EngineResource
) -> list[Plan]:
    """Plans of the members that are missing or stale, and not running.

    Raises:
        SweepError: a member's key is not a recipe, or `select` names no stage.
    """
    keys = [member.key for member in members(sweep, recipe_folders(store.home))]
    running = running_keys(instance)
    found = plans(instance, store, keys, engine, selected_stages(sweep.select))
    return [plan for plan in found if not plan.done and plan.key not in running]


def sweep_requests(
    instance: dg.DagsterInstance, sweep: Sweep, occasion: str, launched: set[str]
) -> list[dg.RunRequest]:
    """One run for each member of a sweep that is due. Complete members are never launched.

    Args:
        occasion: a night, or a version of the sweep's file. The next occasion retries failed
            members.
        launched: keys to leave out; newly launched ones are added.

    Raises:
        SweepError: see `due`.
    """
    found = due(instance, ArtifactStore(home()), sweep, EngineResource.from_environment())
    found = [plan for plan in found if plan.key not in launched]
    launched.update(plan.key for plan in found)
    add_experiments(instance, [plan.key for plan in found])
    return [
        dg.RunRequest(
            run_key=f"{sweep.name}:{plan.key}:{occasion}",
            partition_key=plan.key,
            asset_selection=[dg.AssetKey(name) for name in sorted(stage.name for stage in plan.stages)],
            tags={
                SWEEP_TAG: sweep.name,
                "dagster/priority": str(sweep.priority),
                "dagster/max_retries": str(sweep.retries),
                # Off in dagster.yaml: a failed stage fails again. `retries` turns it on.
                "dagster/retry_on_asset_or_op_failure": "true",
            },
        )
        for plan in found
    ]


def daily_sweeps() -> dg.ScheduleDefinition:
    """Launches missing and stale members of sweeps with `daily: true` at night. Off by default."""

    @dg.schedule(
        name="daily_sweeps",
        cron_schedule=_DAILY,
        job_name=JOB,
        description="Launches missing and stale members of the sweeps with `daily: true`.",
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        folders = sweep_folders(home())
        night, launched = str(context.scheduled_execution_time.date()), set[str]()
        requests: list[dg.RunRequest] = []
        daily, refused = [], []
        for name in sweep_names(folders):
            try:
                sweep = load_sweep(name, folders)
                if sweep.daily:
                    daily.append(name)
                    requests += sweep_requests(context.instance, sweep, night, launched)
            except UNUSABLE as error:  # one bad file must not block the others
                context.log.error("sweep %s: %s", name, error)
                refused.append(f"sweep {name} is left out: {error}")
        if not requests:
            made = f"nothing to do in {len(daily)} sweeps with daily: true"
            yield dg.SkipReason("; ".join(refused or [made]))
        yield from requests

    return schedule


def changed_sweeps() -> dg.SensorDefinition:
    """Launches a new or edited sweep file in E2H_HOME/sweeps. Off by default."""

    @dg.sensor(
        name="changed_sweeps",
        job_name=JOB,
        minimum_interval_seconds=_SWEEP_SECONDS,
        description=(
            "Launches missing and stale members of a new or edited sweep file in E2H_HOME/sweeps. Files that "
            "exist at the first look are left alone."
        ),
    )
    def sensor_(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        folders = sweep_folders(home())
        now = {path.stem: byte_hash_or_error(path) for path in yaml_files(folders)}
        seen = now if context.cursor is None else json.loads(context.cursor)
        requests: list[dg.RunRequest] = []
        refused, launched = [], set[str]()
        changed = [name for name, digest in now.items() if seen.get(name) != digest]
        for name in changed:
            try:
                requests += sweep_requests(context.instance, load_sweep(name, folders), now[name], launched)
            except UNUSABLE as error:  # one bad file must not block the others; the next look retries it
                context.log.error("sweep %s: %s", name, error)
                refused.append(name)
        context.update_cursor(json.dumps({name: now[name] for name in now if name not in refused}))
        if not requests:
            made = "nothing to do in new or edited sweep files" if changed else "no new or edited sweep file"
            yield dg.SkipReason(f"cannot be used, see the log: {', '.join(refused)}" if refused else made)
        yield from requests

    return sensor_


def sweep_pages() -> dg.SensorDefinition:
    """Writes pages of launched sweeps while they run and once after; `e2h sweep` writes its own."""

    @dg.sensor(
        name="write_sweep_pages",
        minimum_interval_seconds=_PAGE_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Writes the pages of launched sweeps: E2H_HOME/reports/sweep-NAME.html.",
    )
    def sensor_(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        from e2h_pipeline.sweeps.page import write_page
        from e2h_pipeline.sweeps.status import sweep_status

        began = time.time()
        store, folders = ArtifactStore(home()), sweep_folders(home())
        # Overlap with the last look: hosts' clocks differ, and writing a page twice is harmless.
        since = float(context.cursor or 0) - _PAGE_SECONDS
        names = _launched_sweeps(context.instance, sweep_names(folders), since)
        written = []
        for name in names:
            try:
                sweep = load_sweep(name, folders)
                rows = sweep_status(context.instance, store, sweep)
                written.append(str(write_page(store, sweep, rows)))
            except UNUSABLE as error:
                context.log.error("sweep %s: %s", name, error)
        context.update_cursor(str(began))
        return dg.SkipReason("; ".join(written) or "no sweep has a new or changed run")

    return sensor_


def sweep_summaries() -> dg.SensorDefinition:
    """Tells of each launched sweep when its last run has ended, once; sweeps of `e2h sweep` are watched by
    who started them. Those that ended before the first look are left alone."""

    @dg.sensor(
        name="tell_sweeps",
        minimum_interval_seconds=_PAGE_SECONDS,
        default_status=told_status(),
        description=f"Tells {WEBHOOK} and {SMTP}, where they are set, that a launched sweep has ended, with its numbers.",
    )
    def sensor_(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        from e2h_pipeline.sweeps.status import sweep_status
        from e2h_pipeline.sweeps.summary import summary

        began, store, folders = time.time(), ArtifactStore(home()), sweep_folders(home())
        seen: dict[str, Any] = json.loads(context.cursor) if context.cursor else {"since": began, "told": {}}
        names = _launched_sweeps(context.instance, sweep_names(folders), seen["since"] - _PAGE_SECONDS)
        ended = {name: run for name in names if (run := _last_run(context.instance, name))}
        new = {name: run for name, run in ended.items() if seen["told"].get(name) != run}
        for name, run in new.items() if context.cursor else ():
            try:
                sweep = load_sweep(name, folders)
                text = summary(store, sweep, sweep_status(context.instance, store, sweep))
                tell_and_log(Notice(text, "sweep_ended", "", run), context.log)
            except UNUSABLE as error:
                context.log.error("sweep %s: %s", name, error)
        context.update_cursor(json.dumps({"since": began, "told": {**seen["told"], **ended}}))
        return dg.SkipReason(f"told of {', '.join(new)}" if new and context.cursor else "no sweep has ended")

    return sensor_


def _last_run(instance: dg.DagsterInstance, sweep: str) -> str:
    """Id of a launched sweep's newest run; empty while one of its runs goes on."""
    tags = {SWEEP_TAG: sweep}
    if instance.get_runs_count(dg.RunsFilter(tags=tags, statuses=list(UNFINISHED))):
        return ""
    return next((run.run_id for run in instance.get_runs(dg.RunsFilter(tags=tags), limit=1)), "")


def _launched_sweeps(instance: dg.DagsterInstance, names: Sequence[str], since: float) -> list[str]:
    """Sweeps with a run that is unfinished or has changed since a time (seconds since 1970)."""
    tags = {SWEEP_TAG: names}
    changed = datetime.fromtimestamp(max(since, 0), UTC)
    runs = [
        *instance.get_runs(dg.RunsFilter(tags=tags, statuses=list(UNFINISHED))),
        *instance.get_runs(dg.RunsFilter(tags=tags, updated_after=changed)),
    ]
    return sorted({run.tags[SWEEP_TAG] for run in runs if PID_TAG not in run.tags})
