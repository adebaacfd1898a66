"""Where problems come from, without their answers."""

from __future__ import annotations

import json
from typing import Any

from assets._stage import stage
from assets.watched import PROBLEM_FILES, SOURCE_FIELDS
from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.recipe import RecipeSlice


def _fingerprint(recipe: RecipeSlice) -> dict[str, str]:
    from e2h_pipeline.problems.source import source_fingerprint

    return source_fingerprint(recipe.problems)


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
