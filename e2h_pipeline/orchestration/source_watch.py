"""Watches the outside sources of experiments, and tells Dagster about changes.

The sensor looks at the problems, supplied solutions, labels and samples, and models of every
experiment, source by source: thousands of experiments share recipe and files. When content has
changed, it reports a new version of `problem_files`, `solution_files`, `label_files`, `sample_files`,
`base_model_files` or `evaluator_files` for each of them, some in each tick. Then `on_change` updates the stage that reads
it and every stage below whose inputs differ. A missing or unreadable source fails the check
`source_readable` of its asset. Its last good version stays, so nothing is made from damaged files.

A change is reported both as a materialization and as an observation, because Dagster never executes
these assets: its conditions read materializations, its page (why something is out of date) reads
observations. The first version is observed only: it is not a change. (A condition that knows which
materialization is the first reads Dagster's records at two moments, and a report may come between.)
Where a stage was made of other data than that, because the files changed before the first look, the
sensor starts it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg

from assets.watched import READABLE, WATCHED, Watched, readable_result, recipe_of_source
from e2h_pipeline.artifacts.hashing import digest_json
from e2h_pipeline.artifacts.home import home, recipe_folders
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.orchestration.automation import JOB
from e2h_pipeline.orchestration.planning import made_of_other_data
from e2h_pipeline.problems.files import SourceState
from e2h_pipeline.recipe import RecipeError
from e2h_pipeline.stages.spec import EXPERIMENTS
from resources.engine import EngineResource

Event = dg.AssetMaterialization | dg.AssetObservation | dg.AssetCheckEvaluation
Sources = dict[str, dict[str, Any]]
"""Source -> its state: see `_state`."""
Seen = dict[str, Sources]
"""Watched asset -> its sources."""

_SECONDS = 60
_LOOKING_SECONDS = 20.0  # of one tick; the daemon gives a sensor 60
_REPORTS = 1000  # experiments of one tick; the daemon writes two events for each
_SHOWN = 12
_VERSION_TAG = "dagster/data_version"


def sensor() -> dg.SensorDefinition:
    """Looks at everything once a minute. On by default; pause it in the UI."""

    @dg.sensor(
        name="watch_files",
        job_name=JOB,
        minimum_interval_seconds=_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Reports changed, missing and unreadable files of problems, solutions, labels and base models, and "
        "moved Hub revisions, per experiment.",
    )
    def watch_files(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        found = look(context.instance, home(), json.loads(context.cursor or "{}"))
        for event in found.events:
            if isinstance(event, dg.AssetCheckEvaluation) and not event.passed:
                context.log.error("%s", event.description)
        for error in found.unknown:
            context.log.warning("not watched: %s", error)
        sources = sum(map(len, found.seen.values()))
        return dg.SensorResult(
            run_requests=overtaken(context.instance, home(), found.first),
            asset_events=found.events,
            cursor=json.dumps(found.seen),
            skip_reason=None if found.events else f"nothing new in {sources} sources",
        )

    return watch_files


class Looked(NamedTuple):
    """What one look found.

    Attributes:
        events: to report.
        seen: the states seen, the sensor's cursor.
        unknown: why the recipes of some experiments cannot be read.
        first: experiments with a first report of any source.
    """

    events: list[Event]
    seen: Seen
    unknown: list[RecipeError]
    first: list[str]


def look(
    instance: dg.DagsterInstance,
    home_folder: Path,
    seen: Seen,
    reports: int = _REPORTS,
    seconds: float = _LOOKING_SECONDS,
) -> Looked:
    """Look once at all sources of all experiments in Dagster.

    What a tick has no time for is left to the next one: `seen` says what was looked at and
    reported.

    Args:
        reports: most experiments to report in this tick.
        seconds: no look at another source begins later than this.
    """
    tick = _Tick(instance, recipe_folders(home_folder), reports, time.monotonic() + seconds)
    keys = instance.get_dynamic_partitions(str(EXPERIMENTS.name))
    now: Seen = {}
    for watched in WATCHED:
        experiments, before = watched.by_source(keys), seen.get(watched.name, {})
        now[watched.name] = tick.look_at(watched, experiments, before)
        tick.events += _alerts(watched, before, now[watched.name], experiments)
    return Looked(tick.events, now, list(tick.unknown.values()), sorted(tick.first))


def overtaken(instance: dg.DagsterInstance, home_folder: Path, keys: Sequence[str]) -> list[dg.RunRequest]:
    """Runs of the stages that were made of other outside data than there is now, before anybody looked;
    what depends on them follows by `on_change`."""
    found = made_of_other_data(instance, ArtifactStore(home_folder), keys, EngineResource.from_environment())
    return [
        dg.RunRequest(partition_key=key, asset_selection=[dg.AssetKey(stage) for stage in stages])
        for key, stages in found.items()
    ]


@dataclass
class _Tick:
    """One tick of the sensor: what it may still do, and what it has found."""

    instance: dg.DagsterInstance
    folders: Sequence[Path]
    reports: int
    until: float
    events: list[Event] = field(default_factory=list)
    unknown: dict[str, RecipeError] = field(default_factory=dict)
    first: set[str] = field(default_factory=set)

    def look_at(self, watched: Watched, experiments: Mapping[str, Sequence[str]], seen: Sources) -> Sources:
        """Look at the sources of one watched asset, those first that waited longest."""
        records = _Records(self.instance, dg.AssetKey(watched.name))
        states: dict[str, SourceState] = {}
        now = {source: seen[source] for source in experiments if source in seen}
        for source in sorted(experiments, key=lambda source: seen.get(source, {}).get("looked", 0)):
            if time.monotonic() > self.until:
                break
            try:
                options = watched.options(recipe_of_source(experiments[source], self.folders))
            except RecipeError as error:
                self.unknown[str(error)] = error
                continue
            digest = digest_json(options.as_dict())
            if digest not in states:
                states[digest] = watched.state(options)
            now[source] = self._state(watched, experiments[source], states[digest], seen.get(source), records)
        return now

    def _state(
        self,
        watched: Watched,
        keys: Sequence[str],
        state: SourceState,
        before: dict[str, Any] | None,
        records: _Records,
    ) -> dict[str, Any]:
        """The state of a source after this look; reports what is due to its experiments.

        version: last good one; error: why it cannot be read now; stopped: experiments that the error
        stops; since: Dagster's newest record of the asset when the version was new, so an experiment
        is due if its own record is not younger; done: digest of the experiments that are not due;
        looked: time of the look.
        """
        fresh: dict[str, Any] = {"version": "", "since": 0, "done": ""}
        known = before if before and "since" in before else fresh
        version = known["version"] if state.error else state.version
        since, done = known["since"], known["done"]
        if version != known["version"]:
            since, done = records.newest(), ""
        everybody = digest_json(sorted(keys))
        if not state.error and done != everybody:
            due = [key for key in keys if records.of(key) <= since]
            for key in due[: self.reports]:
                if not records.of(key):
                    self.first.add(key)
                self.events += _report(self.instance, watched, key, state, first=not records.of(key))
            done = everybody if len(due) <= self.reports else ""
            self.reports -= min(self.reports, len(due))
        stopped = len(keys) if state.error else 0
        return {
            "version": version,
            "error": state.error,
            "stopped": stopped,
            "since": since,
            "done": done,
            "looked": int(time.time()),
        }


class _Records:
    """Dagster's latest observation of a watched asset for each experiment, by number; 0 without one."""

    def __init__(self, instance: dg.DagsterInstance, asset: dg.AssetKey) -> None:
        self._instance, self._asset = instance, asset

    @cached_property
    def _latest(self) -> Mapping[str, int]:
        return self._instance.event_log_storage.get_latest_storage_id_by_partition(
            self._asset, dg.DagsterEventType.ASSET_OBSERVATION
        )

    def of(self, key: str) -> int:
        return self._latest.get(key, 0)

    def newest(self) -> int:
        return max(self._latest.values(), default=0)


def _alerts(
    watched: Watched, before: Sources, now: Sources, experiments: Mapping[str, Sequence[str]]
) -> Iterator[dg.AssetCheckEvaluation]:
    """The check, if its result has changed.

    One for all experiments, so that a missing folder is one alert. Dagster also takes only one
    check per partition from outside of runs (it has a unique index on their empty run id).
    """
    if _errors(before) != _errors(now) or (now and not before):
        stopped: dict[str, list[str]] = {}
        for source, (error, _) in sorted(_errors(now).items()):
            stopped.setdefault(error, []).extend(experiments[source])
        result = readable_result(stopped)
        yield dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey(watched.name),
            check_name=READABLE,
            passed=result.passed,
            description=result.description,
            metadata=result.metadata,
            severity=dg.AssetCheckSeverity.ERROR,
        )


def _errors(seen: Sources) -> dict[str, tuple[str, int]]:
    """Source that cannot be read -> why, and how many experiments it stops."""
    return {
        source: (state["error"], state.get("stopped", 0)) for source, state in seen.items() if state["error"]
    }


def _report(
    instance: dg.DagsterInstance, watched: Watched, key: str, state: SourceState, *, first: bool
) -> list[Event]:
    """The events of a new version: an observation, and before it a materialization if it is a change."""
    asset = dg.AssetKey(watched.name)
    lines = changes(None if first else _last_parts(instance, asset, key), state.parts)
    tags, said = {_VERSION_TAG: state.version}, "; ".join(lines)
    metadata: dict[str, Any] = {
        "data_version": state.version,
        "changed": said,
        "files": dg.MetadataValue.table([_row(state, name) for name in sorted(state.parts)], schema=_COLUMNS),
        "bytes": sum(state.sizes.values()),
        "parts": dg.MetadataValue.json(state.parts),
    }
    observed = dg.AssetObservation(asset, said, metadata, partition=key, tags=tags)
    return [observed] if first else [dg.AssetMaterialization(asset, said, metadata, key, tags), observed]


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
    records = instance.fetch_observations(asked, limit=1).records
    event = records[0].asset_observation if records else None
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
