"""Run an experiment through Dagster, in this process, against the persistent instance in E2H_HOME.

The same job, assets and checks as in the UI, and the runs show up there. Every stage is asked for
every time; the store answers for what is already made, so an unchanged experiment takes seconds.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
from dagster._core.storage.runs import SqliteRunStorage

from assets._stage import CPU_POOL, GPU_POOL
from e2h_pipeline.artifacts.home import project_file
from e2h_pipeline.automation import JOB
from e2h_pipeline.definitions import build
from e2h_pipeline.leftovers import own_tags, release_dead_runs
from e2h_pipeline.planning import asset_selection
from e2h_pipeline.records import failure_cause, first_line

_PARTITIONS = "experiment"
_LOGGER = "stages"
_OUR_LIMITS = "e2h/pool_limits"  # a note in Dagster's database

_INSTANCE_CONFIG = """\
telemetry: {enabled: false}
nux: {enabled: false}
run_launcher: {module: resources.launcher, class: HostRunLauncher}
"""


@dataclass(frozen=True)
class StageEvent:
    """Something people want to see while a run goes on.

    `kind` is started, message, reused, computed, failed, check_passed or check_failed; `text` is the
    message, or the name of the check.
    """

    kind: str
    stage: str
    text: str = ""
    seconds: float = 0.0


class RunError(RuntimeError):
    """An experiment that cannot be run, or that failed; one line for people."""


class RunStopped(RuntimeError):
    """Somebody pressed Ctrl-C."""


def open_instance(home: Path) -> dg.DagsterInstance:
    """The Dagster instance of a home folder, made on first use."""
    folder = dagster_home(home)
    os.environ["DAGSTER_HOME"] = str(folder)
    instance = dg.DagsterInstance.get()
    _set_pool_limits(instance, _has_gpu(), os.cpu_count() or 1)
    return instance


def _set_pool_limits(instance: dg.DagsterInstance, gpu: bool, cores: int) -> None:
    """Slots of the pools, where no person has set them: one for a host's GPUs, and as many as there are cores for what
    runs on the CPU, which is all where there is no GPU. dagster.yaml has no place for the limit of a single pool.

    What was set here is noted, and follows the facts; a limit that is another by now is a person's. That of the GPUs only
    ever falls: a host without one that shares the home, or its database, with a host that has one knows nothing of it.
    """
    storage, notes = instance.event_log_storage, instance.daemon_cursor_storage
    ours: dict[str, int] = json.loads(notes.get_cursor_values({_OUR_LIMITS}).get(_OUR_LIMITS, "{}"))
    limits = {pool.name: pool.limit for pool in storage.get_pool_limits() if not pool.from_default}
    alone = isinstance(instance.run_storage, SqliteRunStorage)
    for_gpus = cores if alone and not gpu else 1
    wanted = {
        CPU_POOL: cores if alone else ours.get(CPU_POOL, cores),
        GPU_POOL: min(for_gpus, ours.get(GPU_POOL, for_gpus)),
    }
    for pool, slots in wanted.items():
        if limits.get(pool) == ours.get(pool) != slots:
            storage.set_concurrency_slots(pool, slots)
            ours[pool] = slots
            notes.set_cursor_values({_OUR_LIMITS: json.dumps(ours)})


def _has_gpu() -> bool:
    return any(Path("/proc/driver/nvidia/gpus").glob("*"))


def dagster_home(home: Path) -> Path:
    """E2H_HOME/dagster with its dagster.yaml: a link to the project's, so that edits there take effect."""
    folder = home / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    config, shipped = folder / "dagster.yaml", project_file("dagster.yaml")
    if shipped and config.is_symlink() and config.resolve() != shipped:
        config.unlink()
    if not config.exists():
        config.unlink(missing_ok=True)
        if shipped:
            config.symlink_to(shipped)
        else:
            config.write_text(_INSTANCE_CONFIG, encoding="utf-8")
    return folder


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
        select: assets (`easy_prm,rerank_scores+`, or Dagster's selection syntax); everything where None.
        watch: called with each event as it happens.
        tags: more tags of the Dagster run.

    Raises:
        RunError: a stage or a check failed, or the selection names nothing.
        RunStopped: Ctrl-C, after Dagster has closed the run.
    """
    definitions = dg.Definitions.merge(build(), dg.Definitions(loggers={_LOGGER: _stage_logger(watch)}))
    chosen = _selected(definitions, select)
    with open_instance(home) as instance:
        release_dead_runs(instance)
        instance.add_dynamic_partitions(_PARTITIONS, [key])
        result = definitions.resolve_job_def(JOB).execute_in_process(
            instance=instance,
            partition_key=key,
            asset_selection=chosen,
            run_config={"loggers": {_LOGGER: {"config": {}}}},
            tags={**(tags or {}), **own_tags()},
            raise_on_error=False,
        )
    _raise_failures(result)


def _selected(definitions: dg.Definitions, select: str | None) -> list[dg.AssetKey] | None:
    if not select:
        return None
    graph = definitions.resolve_asset_graph()
    try:
        chosen = asset_selection(select).resolve(graph) & graph.materializable_asset_keys
    except dg.DagsterError as error:
        raise RunError(f"--select: {first_line(str(error))}") from None
    if not chosen:
        raise RunError(f"--select '{select}' names no asset that is made")
    return sorted(chosen)


def _raise_failures(result: dg.ExecuteInProcessResult) -> None:
    """What failed first, as one error; a failed blocking check also fails its step, so checks come first."""
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
        """Pass on what people want to see."""
        meta = getattr(record, "dagster_meta", None) or {}
        event = meta.get("dagster_event")
        if event is None:
            # Stages that never started, because something before them failed, say so too: left out.
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
            self._watch(
                StageEvent("check_passed" if check.passed else "check_failed", stage, check.check_name)
            )
        elif kind == dg.DagsterEventType.STEP_FAILURE:
            self._watch(StageEvent("failed", stage, seconds=seconds))


def _stage_logger(watch: Callable[[StageEvent], None]) -> dg.LoggerDefinition:
    @dg.logger(config_schema={})
    def stages(_init: dg.InitLoggerContext) -> logging.Logger:
        logger = logging.Logger("e2h.stages", level=logging.DEBUG)
        logger.addHandler(_Watcher(watch))
        return logger

    return stages
