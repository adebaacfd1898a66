"""When stages re-make themselves, and the job that runs a whole experiment.

One condition for every asset. It fires when the content of an upstream or the stage's own code
changes, and is quiet when an upstream was made again with equal content, so a change goes exactly
as far as it matters. `eager()` would ignore data versions; `since_last_handled()` would lose an
update that arrives while a long training runs.
"""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg

JOB = "experiment"
_SENSOR_SECONDS = 30


def on_change() -> dg.AutomationCondition:
    """Changed content upstream, changed code, a new experiment, or one retry after a failure; held back
    while anything upstream is missing, running, or fails a blocking check."""
    condition = dg.AutomationCondition
    changed = (
        condition.newly_missing()
        | condition.any_deps_match(condition.data_version_changed())
        | condition.code_version_changed()
    ).since(condition.newly_requested() | condition.initial_evaluation())
    return (
        (changed | condition.execution_failed().newly_true())
        & ~condition.any_deps_missing()
        & ~condition.any_deps_in_progress()
        & ~condition.in_progress()
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


def experiment_job() -> dg.UnresolvedAssetJobDefinition:
    """All stages and checks of one experiment; what is in the store is reused."""
    return dg.define_asset_job(
        JOB,
        selection=dg.AssetSelection.all(),
        description="Materialize a whole experiment; pick its key as the partition.",
    )
