"""Early stopping of samples: the tokens it would save, and the accuracy it would cost."""

from __future__ import annotations

from typing import Any

from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.registry import DOMAINS, STEP_CHECKERS
from e2h_pipeline.stages.asset import stage


@stage(
    group="results",
    reads=[
        "benchmark_samples",
        "rerank_scores",
        "gold_answers",
        "easy_evaluator",
        "easy_step_labels",
        "sft_policy",
    ],
    recipe=["seed", "reward.kind", "evaluation", "early_stop", "problems.source"],
    methods=["problems.source", "problems.source/step_checker", "reward.kind", "evaluation.grader"],
    kinds={"parquet"},
    audit=True,
)
def early_stop_metrics(job: StageJob) -> dict[str, Any]:
    """Tokens saved and accuracy lost if samples stop at step scores below a threshold.

    The threshold is from easy validation."""
    from e2h_pipeline.evaluation.early_stop import Trial, early_stop_metrics
    from e2h_pipeline.evaluation.graded import PoolFiles
    from e2h_pipeline.rewards.early_stop import right_lowest_scores

    source = job.recipe.problems.source
    domain = DOMAINS.load(source)
    easy = job.path("easy_evaluator"), job.path("easy_step_labels")
    return early_stop_metrics(
        PoolFiles(
            job.path("benchmark_samples"),
            job.path("rerank_scores"),
            job.path("gold_answers"),
            kind=job.recipe.reward.kind,
        ),
        Trial(
            job.recipe.early_stop,
            right_lowest_scores(*easy, domain.text),
            job.path("sft_policy"),
            STEP_CHECKERS.load(source),
        ),
        domain,
        job.recipe.evaluation,
        job.work,
    )
