"""What the policy is taught."""

from __future__ import annotations

from typing import Any

from assets.watched import SOLUTION_FILES
from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.recipe import RecipeSlice
from e2h_pipeline.stages.asset import stage

_HELD_OUT = ("hard_questions", "benchmark_questions")


def _fingerprint(recipe: RecipeSlice) -> dict[str, str]:
    """The files of solutions, where they are others'."""
    from e2h_pipeline.problems.solution_files import solution_fingerprint

    return solution_fingerprint(recipe.solutions)


@stage(
    group="data",
    reads=["easy_problems"],
    reads_if=dict.fromkeys(_HELD_OUT, lambda recipe: bool(recipe.solutions.from_files)),
    recipe=["solutions", "problems.seed"],
    kinds={"parquet"},
    external=_fingerprint,
    watches=[SOLUTION_FILES],
)
def easy_solutions(job: StageJob) -> dict[str, Any]:
    """Solutions of easy training problems, for supervised fine-tuning: those that come with the problems, or others'.
    Questions that are held out are read only to keep them out."""
    from e2h_pipeline.supervision.easy_solutions import write_easy_solutions

    options = job.recipe.solutions
    return write_easy_solutions(
        easy_problems=job.path("easy_problems"),
        held_out=[job.path(name) for name in _HELD_OUT if options.from_files],
        out=job.out,
        options=options,
        seed=job.recipe.problems.seed,
    )
