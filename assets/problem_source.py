"""The origin of the problems, without their answers."""

from __future__ import annotations

import json
from typing import Any

from assets.watched import PROBLEM_FILES, PROBLEM_SOURCE
from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.recipe import RecipeSlice
from e2h_pipeline.stages.asset import stage


def _fingerprint(recipe: RecipeSlice) -> dict[str, str]:
    """Files, Hub commits, or a generator's name."""
    from e2h_pipeline.problems.source import source_fingerprint

    return source_fingerprint(recipe.problems)


@stage(
    group="data",
    recipe=[PROBLEM_SOURCE],
    methods=["problems.source", "problems.source/reader"],
    kinds={"json"},
    external=_fingerprint,
    watches=[PROBLEM_FILES],
)
def problem_source(job: StageJob) -> dict[str, Any]:
    """The problem source: fingerprint, counts by level, exclusions, and near-duplicates of the
    benchmark. It holds no answers."""
    from e2h_pipeline.problems.source import describe_source

    description = describe_source(job.recipe.problems)
    (job.out / "source.json").write_text(
        json.dumps(description, indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )
    return description
