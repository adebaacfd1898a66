"""All problems with all their answers, and where they came from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from assets.watched import PROBLEM_FILES, PROBLEM_SOURCE
from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.recipe import RecipeSlice
from e2h_pipeline.stages.asset import stage
from e2h_pipeline.stages.spec import Where


def _fingerprint(recipe: RecipeSlice) -> dict[str, str]:
    """Files, Hub commits, or a generator's name."""
    from e2h_pipeline.problems.source import source_fingerprint

    return source_fingerprint(recipe.problems)


def _files(recipe: RecipeSlice) -> Sequence[Path]:
    from e2h_pipeline.problems.source import source_files

    return source_files(recipe.problems)


@stage(
    group="data",
    recipe=[PROBLEM_SOURCE, Where("problems.seed", lambda recipe: recipe.problems.drawn)],
    methods=["problems.source", "problems.source/reader"],
    kinds={"parquet"},
    external=_fingerprint,
    outside=_files,
    fetches=True,
    watches=[PROBLEM_FILES],
    audit=True,
)
def problem_source(job: StageJob) -> dict[str, Any]:
    """The only reader of problems from outside: all problems with all answers, for the split alone
    (`easy_problems`, `hard_questions`, `benchmark_questions`, `gold_answers`), so that one
    experiment cannot mix two states of a file. `source.json`, without answers: fingerprint, counts
    by level, exclusions, and near-duplicates of the benchmark."""
    from e2h_pipeline.problems.declassify import write_pool
    from e2h_pipeline.problems.source import describe_source, load_pool

    pool = load_pool(job.recipe.problems)
    write_pool(job.out, pool)
    description = describe_source(job.recipe.problems, pool)
    (job.out / "source.json").write_text(
        json.dumps(description, indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )
    return description
