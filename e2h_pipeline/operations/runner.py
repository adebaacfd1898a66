"""Run an experiment through Dagster, in this process, on the persistent instance in E2H_HOME.

It uses the same job, assets and checks as the UI, and the runs show up there. Every stage is
requested every time. The store answers for existing artifacts, so an unchanged experiment takes
seconds.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from e2h_pipeline.artifacts.home import recipe_folders
from e2h_pipeline.artifacts.request import Artifact, StoreError
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.definitions import build
from e2h_pipeline.orchestration.automation import JOB
from e2h_pipeline.orchestration.instance import open_instance
from e2h_pipeline.orchestration.leftovers import own_tags, release_dead_runs
from e2h_pipeline.orchestration.planning import selection, stage_order, stages_of
from e2h_pipeline.orchestration.records import failure_cause
from e2h_pipeline.recipe import Recipe
from e2h_pipeline.stages.findings import declared_leaks
from e2h_pipeline.stages.spec import RECIPE_ASSET, STAGES, load_recipe
from resources.store import latest_artifact

_PARTITIONS = "experiment"
_LOGGER = "stages"


@dataclass(frozen=True)
class StageEvent:
    """Progress of a run, for people.

    `kind` is started, message, reused, computed, failed, check_passed, check_warned or
    check_failed; `text` is the message, or the name of the check.
    """

    kind: str
    stage: str
    text: str = ""
    seconds: float = 0.0


class RunError(RuntimeError):
    """An experiment cannot be run, or failed; one line for people."""


class RunStopped(RuntimeError):
    """The user pressed Ctrl-C."""


def run_experiment(
    key: str,
    home: Path,
    select: str | None,
    watch: Callable[[StageEvent], None],
    tags: Mapping[str, str] | None = None,
) -> None:
    """Materialize an experiment, or part of it.

    Args:
        key: canonical recipe key; becomes the partition.
        select: assets (`easy_evaluator,rerank_scores+`, or Dagster's selection syntax); all of the
            recipe's scope if None.
        watch: called with each event as it happens.
        tags: additional tags of the Dagster run.

    Raises:
        RecipeError: the key is no recipe.
        RunError: a stage or a check failed, the selection names nothing or a stage whose inputs are
            neither selected nor made, or a stage that trains or selects reads gold answers.
        RunStopped: Ctrl-C, after Dagster has closed the run.
    """
    definitions = dg.Definitions.merge(build(), dg.Definitions(loggers={_LOGGER: _stage_logger(watch)}))
    chosen = _chosen(key, home, select)
    if leaks := declared_leaks(STAGES):
        raise RunError(f"supervision firewall: {leaks[0]}; nothing was run")
    with open_instance(home) as instance:
        release_dead_runs(instance)
        _require_inputs(instance, ArtifactStore(home), key, chosen)
        instance.add_dynamic_partitions(_PARTITIONS, [key])
        result = definitions.resolve_job_def(JOB).execute_in_process(
            instance=instance,
            partition_key=key,
            asset_selection=[dg.AssetKey(name) for name in sorted(chosen)],
            run_config={"loggers": {_LOGGER: {"config": {}}}},
            tags={**(tags or {}), **own_tags()},
            raise_on_error=False,
        )
    _raise_failures(result)


def _chosen(key: str, home: Path, select: str | None) -> frozenset[str]:
    """The stages to make: all of the recipe's scope, or those selected."""
    recipe = Recipe.from_key(key, recipe_folders(home))
    try:
        return selection(select).of(recipe) if select else stages_of(recipe)
    except ValueError as error:
        raise RunError(f"--select: {error}") from None


def _require_inputs(
    instance: dg.DagsterInstance, store: ArtifactStore, key: str, chosen: frozenset[str]
) -> None:
    """Raise, before anything is computed, if a chosen stage reads one that is neither chosen nor
    made."""

    def made(stage: str) -> Artifact | None:
        try:
            return latest_artifact(instance, store, stage, key)
        except StoreError as error:
            raise RunError(str(error)) from None

    if RECIPE_ASSET in chosen:
        recipe = Recipe.from_key(key, recipe_folders(store.home))
    elif artifact := made(RECIPE_ASSET):
        recipe = load_recipe(artifact)
    else:
        raise RunError(f"--select: {key} has no {RECIPE_ASSET} yet; select it too")
    whole = recipe.slice(Recipe.model_fields)
    for stage in (name for name in stage_order() if name in chosen):
        missing = [name for name in STAGES[stage].inputs(whole) if name not in chosen and not made(name)]
        if missing:
            raise RunError(
                f"--select: {stage} reads {', '.join(missing)}, which {key} does not have yet; select +{stage}, which "
                "includes all that it needs"
            )


def _raise_failures(result: dg.ExecuteInProcessResult) -> None:
    """Raise the first failure. Checks come first: a failed blocking check also fails its step."""
    for check in result.get_asset_check_evaluations():
        if not check.passed and check.severity == dg.AssetCheckSeverity.ERROR:
            findings = check.metadata.get("findings")
            what = f": {findings.value}" if findings else ""
            raise RunError(f"check {check.check_name} of {check.asset_key.to_user_string()} failed{what}")
    for event in result.all_events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            if error is not None and error.cls_name == dg.DagsterExecutionInterruptedError.__name__:
                raise RunStopped("stopped; the same command goes on from here")
            raise RunError(f"{event.step_key} failed: {failure_cause(event)}")
    if not result.success:
        raise RunError("the run did not succeed; see the Dagster UI (make ui)")


class _Watcher(logging.Handler):
    """Turns Dagster's log records into stage events."""

    def __init__(self, watch: Callable[[StageEvent], None]) -> None:
        super().__init__()
        self._watch = watch
        self._started: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Pass on the events for people."""
        meta = getattr(record, "dagster_meta", None) or {}
        event = meta.get("dagster_event")
        if event is None:
            # Leave out stages that never started because an earlier one failed.
            if meta.get("step_key") in self._started and record.levelno >= logging.INFO:
                self._watch(StageEvent("message", meta["step_key"], str(meta.get("orig_message"))))
        elif event.step_key:
            self._step_event(event)

    def _step_event(self, event: dg.DagsterEvent) -> None:
        stage, kind = str(event.step_key), event.event_type
        seconds = time.monotonic() - self._started.get(stage, time.monotonic())
        if kind == dg.DagsterEventType.STEP_START:
            self._started[stage] = time.monotonic()
            self._watch(StageEvent("started", stage))
        elif kind == dg.DagsterEventType.ASSET_MATERIALIZATION:
            reused = event.step_materialization_data.materialization.metadata.get("reused")
            self._watch(
                StageEvent("reused" if reused and reused.value else "computed", stage, seconds=seconds)
            )
        elif kind == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            failed = "check_warned" if check.severity == dg.AssetCheckSeverity.WARN else "check_failed"
            self._watch(StageEvent("check_passed" if check.passed else failed, stage, check.check_name))
        elif kind == dg.DagsterEventType.STEP_FAILURE:
            self._watch(StageEvent("failed", stage, seconds=seconds))


def _stage_logger(watch: Callable[[StageEvent], None]) -> dg.LoggerDefinition:
    @dg.logger(config_schema={})
    def stages(_init: dg.InitLoggerContext) -> logging.Logger:
        logger = logging.Logger("e2h.stages", level=logging.DEBUG)
        logger.addHandler(_Watcher(watch))
        return logger

    return stages
