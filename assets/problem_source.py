"""Where problems come from, without their answers."""

from __future__ import annotations

import json
import time
from functools import lru_cache
from typing import Any

from assets.watched import PROBLEM_FILES, SOURCE_FIELDS
from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.problems.records import ProblemError
from e2h_pipeline.recipe import Problems, RecipeSlice
from e2h_pipeline.stages.asset import stage

_HUB_SECONDS = 60  # as often as the sensor `watch_files` asks


def _fingerprint(recipe: RecipeSlice) -> dict[str, str]:
    from e2h_pipeline.problems.source import source_fingerprint

    if not recipe.problems.hub:
        return source_fingerprint(recipe.problems)
    found = _of_hub(recipe.problems.model_dump_json(), int(time.monotonic() / _HUB_SECONDS))
    if isinstance(found, Exception):
        raise found
    return found


@lru_cache(maxsize=256)
def _of_hub(problems: str, _minute: int) -> dict[str, str] | ProblemError:
    """Commits of the Hub, or why there are none: plans of a sweep ask for every member, and often."""
    from e2h_pipeline.problems.source import source_fingerprint

    try:
        return source_fingerprint(Problems.model_validate_json(problems))
    except ProblemError as error:
        return error


@stage(
    group="data",
    recipe=[f"problems.{field}" for field in SOURCE_FIELDS],
    kinds={"json"},
    external=_fingerprint,
    watches=[PROBLEM_FILES],
)
def problem_source(job: StageJob) -> dict[str, Any]:
    """What the problem source is made of: fingerprint, counts by level, exclusions and near-duplicates of
    the benchmark. Holds no answers."""
    from e2h_pipeline.problems.source import describe_source

    description = describe_source(job.recipe.problems)
    (job.out / "source.json").write_text(
        json.dumps(description, indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )
    return description
