"""Tiny stages over the real decorator, store and instance, for tests of orchestration without
training. easy -> policy -> score <- gold, as in the real graph."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa

from assets.recipe import recipe
from e2h_pipeline.artifacts.hashing import remembered_hash
from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.artifacts.reads import paused
from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.recipe import RecipeSlice
from e2h_pipeline.stages.asset import stage
from e2h_pipeline.stages.spec import STAGES
from resources.compute import BODIES, ComputeResource
from resources.engine import EngineResource
from resources.store import StoreResource
from resources.tracking import TrackingResource

RECIPE = "description: toy\nproblems: {easy_limit: 4}\nsft: {epochs: 2}\n"
KEY = "toy"
MEANWHILE: list[Callable[[], object]] = []


@stage(group="toy", recipe=["problems.seed", "problems.easy_limit"])
def toy_easy(job: StageJob) -> dict[str, Any]:
    """Some numbers; seeds 0 and 1 give the same ones."""
    start = max(job.recipe.problems.seed, 1)
    numbers = list(range(start, start + job.recipe.problems.easy_limit))
    write_table(job.out / "data.parquet", pa.table({"problem_id": numbers, "level": [1] * len(numbers)}))
    return {"problems": len(numbers)}


@stage(group="toy", recipe=["problems.seed"], audit=True)
def toy_gold(job: StageJob) -> dict[str, Any]:
    """Answers."""
    write_table(job.out / "data.parquet", pa.table({"answer": [job.recipe.problems.seed]}))
    return {}


@stage(group="toy", reads=["toy_easy"], recipe=["sft.epochs"], gpu=True, samples=True)
def toy_policy(job: StageJob) -> dict[str, Any]:
    """Their sum, times epochs."""
    job.work.reporter.message("training")
    job.work.reporter.metrics({"loss": 0.5}, step=1)
    total = sum(read_table(job.path("toy_easy") / "data.parquet")["problem_id"].to_pylist())
    (job.out / "weights.txt").write_text(str(total * job.recipe.sft.epochs))
    return {"tokens": total, "engine": job.work.engine}


@stage(group="toy", reads=["toy_policy", "toy_gold"], audit=True)
def toy_score(job: StageJob) -> dict[str, Any]:
    """Is it even?"""
    even = int((job.path("toy_policy") / "weights.txt").read_text()) % 2 == 0
    (job.out / "even.txt").write_text(str(even))
    return {"accuracy": float(even)}


@stage(group="toy", recipe=["seed"])
def toy_greedy(job: StageJob) -> dict[str, Any]:
    """Reads a section it does not declare."""
    return {"epochs": job.recipe.sft.epochs}


@stage(group="toy", recipe=["seed"])
def toy_broken(job: StageJob) -> dict[str, Any]:
    """Fails with a message."""
    print("about to fail", flush=True)
    raise ValueError("the learning rate is too high")


@stage(group="toy", reads=["toy_broken"], recipe=["seed"])
def toy_after(job: StageJob) -> dict[str, Any]:
    """Waits for the stage that fails."""
    return {}


@stage(group="toy", recipe=["seed"], gpu=True, distributed=True)
def toy_timed(job: StageJob) -> dict[str, Any]:
    """Takes long enough for another stage to overlap, and notes its beginning and end in
    TOY_NOTES."""
    began = time.time()
    time.sleep(1.5)
    note = Path(os.environ["TOY_NOTES"]) / f"{job.recipe.seed}.json"
    note.write_text(json.dumps([began, time.time()]))
    return {}


@stage(group="toy", recipe=["seed"], gpu=True, distributed=True)
def toy_shared(job: StageJob) -> dict[str, Any]:
    """May run in several processes. Waits until TOY_NOTES has a file `success` or `failure`."""
    notes = Path(os.environ["TOY_NOTES"])
    (notes / f"{job.recipe.seed}.began").touch()
    while not (notes / "success").is_file():
        if (notes / "failure").is_file():
            raise ValueError("out of memory")
        time.sleep(0.02)
    return {}


@stage(group="toy", recipe=["sft.epochs"])
def toy_disturbed(job: StageJob) -> dict[str, Any]:
    """While it runs, calls the function in MEANWHILE once."""
    while MEANWHILE:
        with paused():  # others do this, not the stage
            MEANWHILE.pop()()
    return {"epochs": job.recipe.sft.epochs}


def _outside(_recipe: RecipeSlice) -> list[Path]:
    named = os.environ.get("TOY_OUTSIDE")
    return [Path(named)] if named else []


@stage(
    group="toy",
    recipe=["seed"],
    outside=_outside,
    external=lambda recipe: {path.name: remembered_hash(path) for path in _outside(recipe)},
)
def toy_reader(job: StageJob) -> dict[str, Any]:
    """Copies the file TOY_OUTSIDE; before and after that, calls the functions in MEANWHILE."""
    with paused():
        MEANWHILE.pop(0)()
    (job.out / "copy.txt").write_text(_outside(job.recipe)[0].read_text())
    with paused():
        MEANWHILE.pop(0)()
    return {}


@stage(group="toy", recipe=["seed"])
def toy_endless(job: StageJob) -> dict[str, Any]:
    """Starts a grandchild in its own session, like torchrun, notes both pids, and never ends."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    notes = Path(os.environ["TOY_PIDS"])
    notes.with_suffix(".tmp").write_text(f"{os.getpid()} {child.pid}")
    notes.with_suffix(".tmp").rename(notes)
    time.sleep(600)
    return {}


TOYS = [recipe, toy_easy, toy_gold, toy_policy, toy_score]


@contextmanager
def stages_restored() -> Iterator[None]:
    """Within it, stages may take the names of others; these have them again afterwards."""
    stages, bodies = dict(STAGES), dict(BODIES)
    try:
        yield
    finally:
        STAGES.update(stages)
        BODIES.update(bodies)


def resources(home: Path, mode: str = "in_process") -> dict[str, Any]:
    """Resources over their own home, without tracking."""
    (home / "recipes").mkdir(parents=True, exist_ok=True)
    if not (home / "recipes" / f"{KEY}.yaml").exists():
        write_recipe(home, RECIPE)
    return {
        "store": StoreResource(home=str(home)),
        "compute": ComputeResource(mode=mode),
        "engine": EngineResource(),
        "tracking": TrackingResource(enabled=False),
    }


def write_recipe(home: Path, text: str) -> None:
    """Replace the toy recipe."""
    (home / "recipes").mkdir(parents=True, exist_ok=True)
    (home / "recipes" / f"{KEY}.yaml").write_text(text)


def materialize(
    home: Path,
    instance: dg.DagsterInstance,
    assets: list[dg.AssetsDefinition] | None = None,
    mode: str = "in_process",
    raise_on_error: bool = True,
    key: str = KEY,
) -> dg.ExecuteInProcessResult:
    """Materialize toys for one experiment."""
    instance.add_dynamic_partitions("experiment", [key])
    return dg.materialize(
        assets or TOYS,
        instance=instance,
        partition_key=key,
        resources=resources(home, mode),
        raise_on_error=raise_on_error,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )


def computed(result: dg.ExecuteInProcessResult) -> set[str]:
    """Stages that were computed, not reused."""
    events = result.get_asset_materialization_events()
    return {
        event.asset_key.to_user_string()
        for event in events
        if event.asset_key and not event.materialization.metadata["reused"].value
    }
