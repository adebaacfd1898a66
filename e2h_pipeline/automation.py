"""When stages re-make themselves, the job that runs a whole experiment, and who launches the members of sweeps.

One condition for every asset. It fires when the content of an upstream or the stage's own code
changes, and is quiet when an upstream was made again with equal content, so a change goes exactly
as far as it matters. `eager()` would ignore data versions; `since_last_handled()` would lose an
update that arrives while a long training runs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

import dagster as dg

from assets._stage import RECIPE_ASSET
from assets.watched import WATCHED
from e2h_pipeline.artifacts.hashing import byte_hash, digest_json
from e2h_pipeline.artifacts.home import home, recipe_folders, sweep_folders
from e2h_pipeline.artifacts.manifest import ManifestError
from e2h_pipeline.artifacts.store import ArtifactStore, StoreError
from e2h_pipeline.leftovers import PID_TAG
from e2h_pipeline.planning import (
    UNFINISHED,
    Plan,
    add_experiments,
    changed_recipes,
    plans,
    running_keys,
    selected_stages,
)
from e2h_pipeline.recipe import RECIPE_FOLDER, Recipe, RecipeError
from e2h_pipeline.sweep import Sweep, SweepError, load_sweep, members, sweep_names
from resources.engine import EngineResource

JOB = "experiment"
SWEEP_TAG = "e2h/sweep"
_SENSOR_SECONDS = 30
_SWEEP_SECONDS = 300
_PAGE_SECONDS = 60
_DAILY = "0 2 * * *"

# What a sweep's file, its recipe, or what lies in the store of a member may be: wrong.
UNUSABLE = (SweepError, RecipeError, StoreError, ManifestError)


def on_change() -> dg.AutomationCondition:
    """Changed content upstream, changed code, or one retry after a failure; held back while anything upstream is
    missing, running, or fails a blocking check, and while the recipe itself is about to be made: every stage reads it,
    so what changed together with it (an edit of code and knobs) is made once, from both.

    Only what exists, or is being made, is made again. What nobody asked for, as the stages that a sweep's `select` leaves
    out or a partition that was only added, is not made by itself; so an upstream that is there for the first time is
    no change. But a data file is first reported after what was made of it, and may have changed in between."""
    condition = dg.AutomationCondition
    first_made = (~condition.missing()).newly_true()
    watched = dg.AssetSelection.assets(*(watched.name for watched in WATCHED))
    changed = (
        condition.any_deps_match(condition.data_version_changed() & ~first_made)
        | condition.any_deps_match(condition.data_version_changed()).allow(watched)
        | condition.code_version_changed()
    ) & (~condition.missing() | condition.in_progress())
    return (
        (
            changed.since(condition.newly_requested() | condition.initial_evaluation())
            | condition.execution_failed().newly_true()
        )
        & ~condition.any_deps_missing()
        & ~condition.any_deps_in_progress()
        & ~condition.in_progress()
        & ~condition.any_deps_match(condition.will_be_requested()).allow(
            dg.AssetSelection.assets(RECIPE_ASSET)
        )
        & condition.all_deps_blocking_checks_passed()
    ).with_label("on_change")


def automated(assets: Iterable[object]) -> list[dg.AssetsDefinition]:
    """The assets among what was loaded, each with the shared condition."""
    return [
        asset.map_asset_specs(lambda spec: spec.replace_attributes(automation_condition=on_change()))
        for asset in assets
        if isinstance(asset, dg.AssetsDefinition)
    ]


def sensor() -> dg.AutomationConditionSensorDefinition:
    """Evaluates the condition while the daemon runs; on from the start, pause it in the UI."""
    return dg.AutomationConditionSensorDefinition(
        "re_make_what_changed",
        target=dg.AssetSelection.all(),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=_SENSOR_SECONDS,
        description="Re-makes what a changed recipe, easy split or code makes stale, per experiment.",
    )


def watch_recipes() -> dg.SensorDefinition:
    """Makes `recipe` again where its files were edited; what depends on it follows by `on_change`. What was edited
    before the first look is left alone, as by the condition."""

    @dg.sensor(
        name="watch_recipes",
        job_name=JOB,
        minimum_interval_seconds=_SENSOR_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Makes the recipes of experiments again whose files were edited, and by that what depends on them.",
    )
    def sensor_(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        seen, now = context.cursor, _recipe_files()
        changed: list[str] = []
        if seen not in (None, now):
            changed = changed_recipes(context.instance, ArtifactStore(home()))
        context.update_cursor(now)
        if not changed:
            yield dg.SkipReason("no experiment has another recipe")
        for key in changed:
            yield dg.RunRequest(partition_key=key, asset_selection=[dg.AssetKey(RECIPE_ASSET)])

    return sensor_


def _recipe_files() -> str:
    """Hash of all recipe files, and of the defaults as this process knows them: an edit of those needs a reload."""
    folders = [*recipe_folders(home()), RECIPE_FOLDER]
    files = [path for folder in folders for path in sorted(folder.glob("*.yaml"))]
    return digest_json([[str(path), byte_hash(path)] for path in files] + [Recipe.model_json_schema()])


def experiment_job() -> dg.UnresolvedAssetJobDefinition:
    """All stages and checks of one experiment; what is in the store is reused."""
    return dg.define_asset_job(
        JOB,
        selection=dg.AssetSelection.all(),
        description="Materialize a whole experiment; pick its key as the partition.",
    )


def due(
    instance: dg.DagsterInstance, store: ArtifactStore, sweep: Sweep, engine: EngineResource
) -> list[Plan]:
    """Plans of the members that have something missing or stale and are not being run.

    Raises:
        SweepError: a member is no recipe, or `select` names no stage.
    """
    keys = [member.key for member in members(sweep, recipe_folders(store.home))]
    running = running_keys(instance)
    found = plans(instance, store, keys, engine, selected_stages(sweep.select))
    return [plan for plan in found if not plan.done and plan.key not in running]


def sweep_requests(
    instance: dg.DagsterInstance, sweep: Sweep, occasion: str, launched: set[str]
) -> list[dg.RunRequest]:
    """One run for each member of a sweep that is due; what is made is never launched.

    Args:
        occasion: a night, or a version of the sweep's file: a member that failed is launched again on the next one.
        launched: keys that are left out; those that are launched are added.

    Raises:
        SweepError: as of `due`.
    """
    found = due(instance, ArtifactStore(home()), sweep, EngineResource.from_environment())
    found = [plan for plan in found if plan.key not in launched]
    launched.update(plan.key for plan in found)
    add_experiments(instance, [plan.key for plan in found])
    stages = selected_stages(sweep.select)
    return [
        dg.RunRequest(
            run_key=f"{sweep.name}:{plan.key}:{occasion}",
            partition_key=plan.key,
            asset_selection=None if stages is None else [dg.AssetKey(name) for name in sorted(stages)],
            tags={
                SWEEP_TAG: sweep.name,
                "dagster/priority": str(sweep.priority),
                "dagster/max_retries": str(sweep.retries),
                # dagster.yaml says no: a stage that fails by itself fails again. Whoever writes `retries` says yes.
                "dagster/retry_on_asset_or_op_failure": "true",
            },
        )
        for plan in found
    ]


def daily_sweeps() -> dg.ScheduleDefinition:
    """Every night, what is missing or stale of the sweeps that say `daily: true`. Off until it is switched on."""

    @dg.schedule(
        name="daily_sweeps",
        cron_schedule=_DAILY,
        job_name=JOB,
        description="Launches what is missing or stale of the sweeps that say `daily: true`.",
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
            except UNUSABLE as error:  # one bad file holds up no other
                context.log.error("sweep %s: %s", name, error)
                refused.append(f"sweep {name} is left out: {error}")
        if not requests:
            made = f"all is made of the {len(daily)} sweeps that say daily: true"
            yield dg.SkipReason("; ".join(refused or [made]))
        yield from requests

    return schedule


def changed_sweeps() -> dg.SensorDefinition:
    """A sweep file in E2H_HOME/sweeps that is new or was edited is launched. Off until it is switched on."""

    @dg.sensor(
        name="changed_sweeps",
        job_name=JOB,
        minimum_interval_seconds=_SWEEP_SECONDS,
        description=(
            "Launches what is missing or stale of a sweep file in E2H_HOME/sweeps when it is new or was edited. What "
            "is there at the first look is left alone."
        ),
    )
    def sensor_(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        folders = sweep_folders(home())
        now = {path.stem: byte_hash(path) for folder in folders for path in sorted(folder.glob("*.yaml"))}
        seen = now if context.cursor is None else json.loads(context.cursor)
        requests: list[dg.RunRequest] = []
        refused, launched = [], set[str]()
        changed = [name for name, digest in now.items() if seen.get(name) != digest]
        for name in changed:
            try:
                requests += sweep_requests(context.instance, load_sweep(name, folders), now[name], launched)
            except UNUSABLE as error:  # one bad file holds up no other; it is looked at again
                context.log.error("sweep %s: %s", name, error)
                refused.append(name)
        context.update_cursor(json.dumps({name: now[name] for name in now if name not in refused}))
        if not requests:
            made = (
                "all is made of what is new or was edited"
                if changed
                else "no sweep file is new or was edited"
            )
            yield dg.SkipReason(f"cannot be used, see the log: {', '.join(refused)}" if refused else made)
        yield from requests

    return sensor_


def sweep_pages() -> dg.SensorDefinition:
    """The pages of sweeps whose members were launched, while they run and once after; `e2h sweep` writes its own."""

    @dg.sensor(
        name="write_sweep_pages",
        minimum_interval_seconds=_PAGE_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Writes the pages of sweeps that were launched: E2H_HOME/reports/sweep-NAME.html.",
    )
    def sensor_(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        from e2h_pipeline.sweep_page import write_page
        from e2h_pipeline.sweep_status import sweep_status

        began = time.time()
        store, folders = ArtifactStore(home()), sweep_folders(home())
        # A look reaches over the one before: clocks of hosts differ, and a page that is written twice costs nothing.
        since = float(context.cursor or 0) - _PAGE_SECONDS
        names = _launched_sweeps(context.instance, sweep_names(folders), since)
        written = []
        for name in names:
            try:
                sweep = load_sweep(name, folders)
                rows = sweep_status(context.instance, store, sweep)
                written.append(str(write_page(context.instance, store, sweep, rows)))
            except UNUSABLE as error:
                context.log.error("sweep %s: %s", name, error)
        context.update_cursor(str(began))
        return dg.SkipReason("; ".join(written) or "no sweep has a run that is new or has changed")

    return sensor_


def _launched_sweeps(instance: dg.DagsterInstance, names: Sequence[str], since: float) -> list[str]:
    """Those with a run that goes on, or that has changed since a time (seconds since 1970)."""
    tags = {SWEEP_TAG: names}
    changed = datetime.fromtimestamp(max(since, 0), UTC)
    runs = [
        *instance.get_runs(dg.RunsFilter(tags=tags, statuses=list(UNFINISHED))),
        *instance.get_runs(dg.RunsFilter(tags=tags, updated_after=changed)),
    ]
    return sorted({run.tags[SWEEP_TAG] for run in runs if PID_TAG not in run.tags})
