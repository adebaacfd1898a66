"""Where problems come from, without their answers."""

from __future__ import annotations

import json
from typing import Any

from assets._stage import stage
from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.recipe import RecipeSlice


def _fingerprint(recipe: RecipeSlice) -> dict[str, str]:
    from e2h_pipeline.problems.source import source_fingerprint

    return source_fingerprint(recipe.problems)


# What the source is, not which of its problems an experiment draws: those fields are left out.
_FIELDS = ("source", "world", "train_per_level", "path", "hub", "hub_revision", "strict_counts")


@stage(group="data", recipe=[f"problems.{field}" for field in _FIELDS], kinds={"json"}, external=_fingerprint)
def problem_source(job: StageJob) -> dict[str, Any]:
    """What the problem source is made of: fingerprint, counts by level, exclusions and near-duplicates of
    the benchmark. Holds no answers."""
    from e2h_pipeline.problems.source import describe_source

    description = describe_source(job.recipe.problems)
    (job.out / "source.json").write_text(
        json.dumps(description, indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )
    return description
