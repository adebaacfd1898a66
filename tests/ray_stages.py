"""Stages of the shards of `ray_shards`, for the tests of the Ray runner."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ray_shards import broken, endless, squares

from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.artifacts.shards import complete_shards
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.recipe import Recipe
from resources.compute import BODIES, ComputeResource, StageCall, StageOutcome


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
        call = StageCall(body, "ray_stages", job, recipe.model_dump(mode="json"), lock.fileno())
        return ComputeResource(mode="ray", ray_address=address).run(call)
