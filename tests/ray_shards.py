"""Misbehaving shards and stages of them, for the tests of the Ray runner; workers import this
module."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.artifacts.shards import complete_shards
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.recipe import Recipe
from resources.compute import BODIES, ComputeResource, StageCall, StageOutcome


def squares(start: int) -> pa.Table:
    """Three numbers and their squares."""
    numbers = list(range(start, start + 3))
    return pa.table({"number": numbers, "square": [n * n for n in numbers]})


def noted(notes: Path, number: int) -> pa.Table:
    """Leaves a note of its process and surroundings."""
    names = ("OMP_NUM_THREADS", "E2H_GRADING_WORKERS", "CUDA_VISIBLE_DEVICES")
    found = {"pid": os.getpid(), **{name: os.environ.get(name) for name in names}}
    (notes / str(number)).write_text(json.dumps(found))
    return squares(number)


def endless(notes: Path, number: int) -> pa.Table:
    """Notes its process and never ends."""
    (notes / f"{number}.tmp").write_text(str(os.getpid()))
    (notes / f"{number}.tmp").rename(notes / f"{number}.pid")
    time.sleep(600)
    return squares(number)


def endless_at_first(notes: Path, number: int) -> pa.Table:
    """Never ends at the first try."""
    return squares(number) if (notes / f"{number}.pid").exists() else endless(notes, number)


def deadly(number: int) -> pa.Table:
    """Kills its worker at every try."""
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return squares(number)


def broken(number: int) -> pa.Table:
    """Fails on one shard."""
    if number == 1:
        raise ValueError("bad question in line 7")
    return squares(number)


def in_shards(job: StageJob) -> dict[str, Any]:
    """A stage with shards."""
    calls = [(f"part-{i}", (i,)) for i in range(4)]
    complete_shards(job.out, calls, squares, job.work.runner, job.work.reporter)
    return {"runner": type(job.work.runner).__name__}


def in_broken_shards(job: StageJob) -> dict[str, Any]:
    """A stage that fails."""
    complete_shards(job.out, [("part-1", (1,))], broken, job.work.runner, job.work.reporter)
    return {}


def in_endless_shards(job: StageJob) -> dict[str, Any]:
    """A stage that never ends."""
    complete_shards(job.out, [("part-0", (job.out.parent, 0))], endless, job.work.runner, job.work.reporter)
    return {}


BODIES.update(in_shards=in_shards, in_broken_shards=in_broken_shards, in_endless_shards=in_endless_shards)


def run(body: str, folder: Path, address: str = "") -> StageOutcome:
    """Run one of these stages like a step, in mode `ray`."""
    for name in ("out", "work"):
        (folder / name).mkdir()
    recipe = Recipe(name="toy", description="toy")
    job = StageJob(recipe=recipe.slice(["seed"]), inputs={}, work=Work(folder / "out", folder / "work"))
    with tempfile.TemporaryFile() as lock:
        call = StageCall(body, "ray_shards", job, recipe.model_dump(mode="json"), lock.fileno())
        return ComputeResource(mode="ray", ray_address=address).run(call)
