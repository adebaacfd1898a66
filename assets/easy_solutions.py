"""The training solutions of the policy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from assets.watched import SOLUTION_FILES
from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.recipe import RecipeSlice
from e2h_pipeline.stages.asset import stage
from e2h_pipeline.stages.spec import HELD_OUT


def _files(recipe: RecipeSlice) -> Sequence[Path]:
    from e2h_pipeline.registry import SOLUTION_SOURCES

    options = recipe.solutions
    return SOLUTION_SOURCES.load(options.source)().files(options)


def _fingerprint(recipe: RecipeSlice) -> dict[str, str]:
    """The files of solutions by other people, if any."""
    from e2h_pipeline.problems.files import file_hashes

    return file_hashes(_files(recipe))


@stage(
    group="data",
    reads=["easy_problems"],
    reads_if=dict.fromkeys(HELD_OUT, lambda recipe: bool(recipe.solutions.from_files)),
    recipe=["solutions", "problems.seed", "problems.source"],
    methods=["solutions.source", "problems.source"],
    kinds={"parquet"},
    external=_fingerprint,
    outside=_files,
    watches=[SOLUTION_FILES],
)
def easy_solutions(job: StageJob) -> dict[str, Any]:
    """Solutions of easy training problems for supervised fine-tuning, from the problems or by other
    people.

    Held-out questions are read only to exclude them."""
    from e2h_pipeline.registry import DOMAINS
    from e2h_pipeline.supervision.easy_solutions import write_easy_solutions

    options = job.recipe.solutions
    return write_easy_solutions(
        easy_problems=job.path("easy_problems"),
        held_out=[job.path(name) for name in HELD_OUT if options.from_files],
        options=options,
        domain=DOMAINS.load(job.recipe.problems.source),
        seed=job.recipe.problems.seed,
        work=job.work,
    )
