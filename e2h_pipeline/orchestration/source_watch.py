"""Watches the outside sources of experiments, and tells Dagster about changes.

The sensor looks at the problems, supplied solutions, step labels and base model of every
experiment. When content has changed, it reports a new version of `problem_files`, `solution_files`,
`label_files` or `base_model_files`. Then `on_change` updates the stage that reads it and every
stage below whose inputs differ. A missing or unreadable source fails the check `source_readable` of
its asset. Its last good version stays, so nothing is made from damaged files.

A new version is reported both as a materialization and as an observation, because Dagster never
executes these assets: its conditions read materializations, its page (why something is out of date)
reads observations.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import dagster as dg

from assets.watched import READABLE, WATCHED, Watched, readable_result
from e2h_pipeline.artifacts.hashing import digest_json
from e2h_pipeline.artifacts.home import home, recipe_folders
from e2h_pipeline.problems.files import SourceState
from e2h_pipeline.recipe import Recipe, RecipeError
from e2h_pipeline.stages.spec import EXPERIMENTS

Event = dg.AssetMaterialization | dg.AssetObservation | dg.AssetCheckEvaluation
Experiments = dict[str, dict[str, str]]
"""Experiment -> `version` and `error` at the last look."""
Seen = dict[str, Experiments]
"""Watched asset -> its experiments."""

_SECONDS = 60
_SHOWN = 12
_VERSION_TAG = "dagster/data_version"


def sensor() -> dg.SensorDefinition:
    """Looks at everything once a minute. On by default; pause it in the UI."""

    @dg.sensor(
        name="watch_files",
        minimum_interval_seconds=_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Reports changed, missing and unreadable files of problems, solutions, labels and base models, and "
        "moved Hub revisions, per experiment.",
    )
    def watch_files(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        events, seen, unknown = look(context.instance, home(), json.loads(context.cursor or "{}"))
        for event in events:
            if isinstance(event, dg.AssetCheckEvaluation) and not event.passed:
                context.log.error("%s", event.description)
        for error in unknown:
            context.log.warning("not watched: %s", error)
        watched = len({key for experiments in seen.values() for key in experiments})
        reason = None if events else f"nothing new in what {watched} experiments read"
        return dg.SensorResult(asset_events=events, cursor=json.dumps(seen), skip_reason=reason)

    return watch_files


def look(
    instance: dg.DagsterInstance, home_folder: Path, seen: Seen
) -> tuple[list[Event], Seen, list[RecipeError]]:
    """Look once at all sources of all experiments in Dagster.

    Returns:
        The events to report, the states seen, and why the recipes of some experiments cannot be
            read.
    """
    recipes: dict[str, Recipe] = {}
    unknown: list[RecipeError] = []
    for key in instance.get_dynamic_partitions(str(EXPERIMENTS.name)):
        try:
            recipes[key] = Recipe.from_key(key, recipe_folders(home_folder))
        except RecipeError as error:
            unknown.append(error)
    events: list[Event] = []
    now: Seen = {}
    for watched in WATCHED:
        before = seen.get(watched.name, {})
        reports, now[watched.name] = _look_at(instance, watched, recipes, before)
        events += [*reports, *_alerts(watched, before, now[watched.name])]
    return events, now, unknown


def _look_at(
    instance: dg.DagsterInstance, watched: Watched, recipes: Mapping[str, Recipe], seen: Experiments
) -> tuple[list[Event], Experiments]:
    """Look once at one watched asset; experiments with the same source share the look."""
    states: dict[str, SourceState] = {}
    reports: list[Event] = []
    now: Experiments = {}
    for key, recipe in recipes.items():
        options = watched.options(recipe)
        source = digest_json(options.as_dict())
        if source not in states:
            states[source] = watched.state(options)
        state, before = states[source], seen.get(key, {"version": "", "error": ""})
        now[key] = {"version": before["version"] if state.error else state.version, "error": state.error}
        if now[key]["version"] != before["version"]:
            report = _report(instance, watched, key, state)
            reports += [report, dg.AssetObservation(report.asset_key, partition=key, tags=report.tags)]
    return reports, now


def _alerts(watched: Watched, before: Experiments, now: Experiments) -> Iterator[dg.AssetCheckEvaluation]:
    """The check, if its result has changed.

    One for all experiments, so that a missing folder is one alert. Dagster also takes only one
    check per partition from outside of runs (it has a unique index on their empty run id).
    """
    errors, old = unreadable(now), unreadable(before)
    if errors != old or (now and not before):
        result = readable_result(errors)
        yield dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey(watched.name),
            check_name=READABLE,
            passed=result.passed,
            description=result.description,
            metadata=result.metadata,
            severity=dg.AssetCheckSeverity.ERROR,
        )


def unreadable(seen: Experiments) -> dict[str, list[str]]:
    """Error -> the experiments that it stops."""
    errors: dict[str, list[str]] = {}
    for key, state in sorted(seen.items()):
        if state["error"]:
            errors.setdefault(state["error"], []).append(key)
    return errors


def _report(
    instance: dg.DagsterInstance, watched: Watched, key: str, state: SourceState
) -> dg.AssetMaterialization:
    asset = dg.AssetKey(watched.name)
    lines = changes(_last_parts(instance, asset, key), state.parts)
    return dg.AssetMaterialization(
        asset,
        partition=key,
        tags={_VERSION_TAG: state.version},
        description="; ".join(lines),
        metadata={
            "data_version": state.version,
            "changed": "; ".join(lines),
            "files": dg.MetadataValue.table(
                [_row(state, name) for name in sorted(state.parts)], schema=_COLUMNS
            ),
            "bytes": sum(state.sizes.values()),
            "parts": dg.MetadataValue.json(state.parts),
        },
    )


_COLUMNS = dg.TableSchema(
    [
        dg.TableColumn("name"),
        dg.TableColumn("bytes", "int"),
        dg.TableColumn("modified"),
        dg.TableColumn("hash"),
    ]
)


def _row(state: SourceState, name: str) -> dg.TableRecord:
    return dg.TableRecord(
        {
            "name": name,
            "bytes": state.sizes.get(name),
            "modified": state.modified.get(name, ""),
            "hash": state.parts[name],
        }
    )


def _last_parts(instance: dg.DagsterInstance, asset: dg.AssetKey, key: str) -> dict[str, str] | None:
    """Parts of our latest report; None without one."""
    asked = dg.AssetRecordsFilter(asset_key=asset, asset_partitions=[key])
    records = instance.fetch_materializations(asked, limit=1).records
    event = records[0].asset_materialization if records else None
    value = event.metadata.get("parts") if event else None
    return value.value if isinstance(value, dg.JsonMetadataValue) and isinstance(value.value, dict) else None


def changes(before: dict[str, str] | None, after: dict[str, str]) -> list[str]:
    """A line for each part that differs."""
    if before is None:
        return ["seen for the first time"]
    lines = [f"{name} is gone" for name in sorted(before.keys() - after.keys())]
    lines += [f"{name} is new" for name in sorted(after.keys() - before.keys())]
    lines += [
        f"{name} changed from {before[name][:_SHOWN]} to {after[name][:_SHOWN]}"
        for name in sorted(before.keys() & after.keys())
        if before[name] != after[name]
    ]
    return lines or ["as before"]
