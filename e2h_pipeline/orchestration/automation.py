"""When stages re-make themselves, and the job that runs a whole experiment.

One condition for every asset. It fires when the content of an upstream or the stage's own code
changes, and is quiet when an upstream was made again with equal content, so a change goes exactly
as far as it matters. `eager()` would ignore data versions; `since_last_handled()` would lose an
update that arrives while a long training runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import dagster as dg

from assets.watched import WATCHED
from e2h_pipeline.artifacts.hashing import byte_hash, digest_json
from e2h_pipeline.artifacts.home import home, recipe_folders
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.orchestration.planning import (
    changed_recipes,
)
from e2h_pipeline.recipe import RECIPE_FOLDER
from e2h_pipeline.recipe.describe import recipes_page
from e2h_pipeline.stages.spec import RECIPE_ASSET

JOB = "experiment"
_SENSOR_SECONDS = 30


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
    return digest_json([[str(path), byte_hash(path)] for path in files] + [recipes_page()])


def experiment_job() -> dg.UnresolvedAssetJobDefinition:
    """All stages and checks of one experiment; what is in the store is reused."""
    return dg.define_asset_job(
        JOB,
        selection=dg.AssetSelection.all(),
        description="Materialize a whole experiment; pick its key as the partition.",
    )
