"""Many experiments in one home: processor time of the sensors' quiet minute, of `e2h sweep --status`,
and of Dagster's queries of partitions.

    python benchmarks/scale.py                                  # 10,000 experiments, 1,000 members
    python benchmarks/scale.py --experiments 1000 --members 100

The home is made up: artifacts of one small file each, and Dagster's records written straight into
its SQLite database, each a copy of one that Dagster wrote with another partition and artifact. What is
measured is real: the sensors as the daemon runs them, the command as a process, the storage. A
table for people, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.definitions.asset_daemon_cursor import AssetDaemonCursor
from dagster._core.definitions.automation_tick_evaluation_context import AutomationTickEvaluationContext

from assets.watched import WATCHED
from e2h_pipeline.artifacts.hashing import digest_json
from e2h_pipeline.artifacts.home import recipe_folders
from e2h_pipeline.artifacts.request import Artifact, Draft
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.definitions import build
from e2h_pipeline.orchestration import automation
from e2h_pipeline.orchestration.automation import JOB
from e2h_pipeline.orchestration.instance import open_instance
from e2h_pipeline.orchestration.planning import add_experiments, stage_order
from e2h_pipeline.orchestration.requests import Read, Requests
from e2h_pipeline.recipe import Recipe
from e2h_pipeline.stages.spec import EXPERIMENTS, STAGES
from e2h_pipeline.sweeps.spec import load_sweep, members
from resources.engine import EngineResource
from resources.store import ARTIFACT_KEY

SEEDS = 10
# Sensor -> its ticks in a minute.
SENSORS = {"watch_files": 1, "watch_recipes": 2, "release_dead_runs": 2, "write_sweep_pages": 1}
AUTOMATION = "re_make_what_changed"
_PARTITION, _ARTIFACT, _REST = "PARTITION-OF-THE-COPY", "ARTIFACT-OF-THE-COPY", "REST-OF-THE-COPY"
_TABLES = "| a row of a table |" * 500  # a stage's event is some 10 KB: tables and links for the UI


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiments", type=int, default=10_000)
    parser.add_argument("--members", type=int, default=1_000)
    parser.add_argument("--home", type=Path, help="An empty folder to keep; a temporary one where unset.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        home = (options.home or Path(temporary)).resolve()
        os.environ["E2H_HOME"] = str(home)
        with open_instance(home) as instance:
            sweep_members = make_sweep(home, options.members)
            others = [f"ladder/rl.kl=0.{i:06d}/seed={i % SEEDS}" for i in range(options.experiments)]
            keys = [*sweep_members, *others[: options.experiments - len(sweep_members)]]
            artifacts = make_artifacts(ArtifactStore(home), sweep_members)
            record(instance, home, keys, artifacts)
            found: dict[str, Any] = {
                "benchmark": "scale",
                "experiments": len(keys),
                "members": len(sweep_members),
            }
            found |= sensor_seconds(instance)
        found |= status_seconds(home)
    print("| | |\n|---|---|")
    for name, value in found.items():
        print(f"| {name} | {value} |")
    print(json.dumps(found))


def make_sweep(home: Path, count: int) -> list[str]:
    """A sweep file with as many members: values of the KL coefficient on ten seeds."""
    (home / "sweeps").mkdir(parents=True, exist_ok=True)
    coefficients = [round(0.001 * (1 + i), 6) for i in range(max(1, count // SEEDS))]
    axes = {"rl.kl": coefficients, "seed": list(range(SEEDS))}
    text = json.dumps({"recipe": "ladder", "axes": axes})  # JSON is YAML
    (home / "sweeps" / "scale.yaml").write_text(text, encoding="utf-8")
    return [m.key for m in members(load_sweep("scale", [home / "sweeps"]), recipe_folders(home))]


def make_artifacts(store: ArtifactStore, keys: Iterable[str]) -> dict[str, dict[str, str]]:
    """Every stage of every key, with a small file; experiment -> stage -> artifact key."""
    requests = Requests(EngineResource.from_environment())
    made: dict[str, dict[str, str]] = {}

    def body(draft: Draft) -> None:
        (draft.out / "data.txt").write_text(str(draft.out.parent.name))

    for key in keys:
        recipe = Read(Recipe.from_key(key, recipe_folders(store.home)))
        found: dict[str, Artifact] = {}
        for name in stage_order():
            request = requests.of(STAGES[name], recipe, found)
            if request is not None:
                found[name] = store.peek(name, request.key) or store.obtain(request, body)[0]
        made[key] = {name: artifact.key for name, artifact in found.items()}
    return made


def record(
    instance: dg.DagsterInstance, home: Path, keys: list[str], artifacts: dict[str, dict[str, str]]
) -> None:
    """Partitions, and a materialization of every stage in each; those without artifacts name none."""
    for start in range(0, len(keys), 1000):
        add_experiments(instance, keys[start : start + 1000])
    for name in stage_order():
        instance.report_runless_asset_event(
            dg.AssetMaterialization(
                name,
                partition=_PARTITION,
                metadata={ARTIFACT_KEY: _ARTIFACT, "tables": _REST},
                tags={"dagster/data_version": _ARTIFACT},
            )
        )
    for key in artifacts:
        instance.add_run(
            dg.DagsterRun(JOB, tags={"dagster/partition": key}, status=dg.DagsterRunStatus.SUCCESS)
        )
    (database,) = (home / "dagster").rglob("index.db")
    with sqlite3.connect(database) as connection:
        connection.execute("pragma synchronous = off")
        columns = [row[1] for row in connection.execute("pragma table_info(event_logs)")][1:]
        templates = connection.execute(
            f"select {', '.join(columns)} from event_logs where partition = ?", (_PARTITION,)
        ).fetchall()
        places = ", ".join("?" * len(columns))
        connection.executemany(
            f"insert into event_logs ({', '.join(columns)}) values ({places})",
            _copies([dict(zip(columns, row, strict=True)) for row in templates], keys, artifacts),
        )
        connection.execute("delete from event_logs where partition = ?", (_PARTITION,))


def _copies(
    templates: list[dict[str, Any]], keys: list[str], artifacts: dict[str, dict[str, str]]
) -> Iterator[tuple[Any, ...]]:
    for key in keys:
        for row in templates:
            stage = json.loads(row["asset_key"])[0]
            artifact = artifacts.get(key, {}).get(stage, "0" * 64)
            event = row["event"].replace(_PARTITION, key).replace(_ARTIFACT, artifact)
            event = event.replace('"run_id": ""', '"run_id": "made-up"')
            event = event.replace(_REST, _TABLES) if key in artifacts else event
            yield tuple({**row, "event": event, "partition": key, "run_id": "made-up"}.values())


def sensor_seconds(instance: dg.DagsterInstance) -> dict[str, float]:
    """Processor seconds of each sensor: its first tick, and a quiet minute after all that follow."""
    found: dict[str, float] = {}
    for name, ticks in SENSORS.items():
        found[f"{name}, first tick"], cursor = spent(lambda name=name: _tick(instance, name, None))
        if name == "watch_files":  # the rest of the first look: as much again for each 1,000 reports
            cursor = _settled(instance, cursor)
        took, _ = spent(lambda name=name, cursor=cursor: _tick(instance, name, cursor))
        found[f"{name}, a quiet minute"] = round(ticks * took, 2)
    found |= automation_seconds(instance)
    found["all sensors, a quiet minute"] = round(
        sum(v for n, v in found.items() if n.endswith("quiet minute")), 2
    )
    keys = str(EXPERIMENTS.name)
    found["list of partitions"], _ = spent(lambda: instance.get_dynamic_partitions(keys))
    return found


def _tick(instance: dg.DagsterInstance, name: str, cursor: str | None) -> str | None:
    """One tick of a sensor, as the code server evaluates it; its events are the daemon's work."""
    definitions = build()
    with dg.build_sensor_context(
        cursor=cursor, repository_def=definitions.get_repository_def(), instance_ref=instance.get_ref()
    ) as context:
        return definitions.resolve_sensor_def(name).evaluate_tick(context).cursor


def _settled(instance: dg.DagsterInstance, cursor: str | None) -> str:
    """The cursor of `watch_files` when its first look is complete: nothing is due."""
    seen = json.loads(cursor or "{}")
    keys = instance.get_dynamic_partitions(str(EXPERIMENTS.name))
    for watched in WATCHED:
        for source, own in watched.by_source(keys).items():
            seen[watched.name][source]["done"] = digest_json(sorted(own))
    return json.dumps(seen)


def automation_seconds(instance: dg.DagsterInstance) -> dict[str, float]:
    """The automation's conditions, as the daemon evaluates them."""
    graph, cursor, found = build().resolve_asset_graph(), AssetDaemonCursor.empty(), {}
    for number, name in enumerate(("first tick", "second tick", "a quiet minute")):
        tick = AutomationTickEvaluationContext(
            evaluation_id=number,
            asset_graph=graph,
            asset_selection=dg.AssetSelection.all() | dg.AssetSelection.all_asset_checks(),
            asset_job_keys=set(),
            instance=instance,
            cursor=cursor,
            materialize_run_tags={},
            observe_run_tags={},
            emit_backfills=False,
            auto_observe_asset_keys=set(),
            logger=logging.getLogger(__name__),
        )
        took, (_, cursor, _) = spent(tick.evaluate)
        found[f"{AUTOMATION}, {name}"] = took
    experiments = len(instance.get_dynamic_partitions(str(EXPERIMENTS.name)))
    ticks = 60 / (automation.sensor(experiments).minimum_interval_seconds or 60)
    found[f"{AUTOMATION}, a quiet minute"] = round(ticks * found[f"{AUTOMATION}, a quiet minute"], 2)
    return found


def spent(work: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds of a call, and what it returns."""
    before = time.process_time()
    result = work()
    return round(time.process_time() - before, 2), result


def status_seconds(home: Path) -> dict[str, float]:
    """Processor seconds of `e2h sweep scale --status`, with its start and the page it writes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "e2h_pipeline.cli.app", "sweep", "scale", "--status", "--json"],
        env={**os.environ, "E2H_HOME": str(home), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    states = [row["state"] for row in json.loads(done.stdout[done.stdout.index("[\n") :])]
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"sweep --status": round(seconds, 2), "members made": states.count("made")}


if __name__ == "__main__":
    main()
