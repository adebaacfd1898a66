"""Labels of final answers as right or wrong, on easy problems only."""

from __future__ import annotations

from typing import Any

from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.stages.asset import stage


@stage(
    group="evaluator",
    reads=["easy_samples", "easy_problems"],
    recipe=["seed", "problems.source", "evaluation.grader"],
    methods=["problems.source", "evaluation.grader"],
    kinds={"parquet"},
)
def easy_outcome_labels(job: StageJob) -> dict[str, Any]:
    """Solutions of easy problems with right and with wrong answers, balanced per problem."""
    from e2h_pipeline.registry import DOMAINS
    from e2h_pipeline.supervision.outcome_labels import label_easy_outcomes

    return label_easy_outcomes(
        easy_samples=job.path("easy_samples") / "data",
        easy_problems=job.path("easy_problems"),
        domain=DOMAINS.load(job.recipe.problems.source),
        grader_name=job.recipe.evaluation.grader,
        work=job.work,
    )
