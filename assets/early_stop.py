"""What giving samples up on the way would save, and what it would cost."""

from __future__ import annotations

from typing import Any

from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.stages.asset import stage


@stage(
    group="results",
    reads=[
        "benchmark_samples",
        "rerank_scores",
        "gold_answers",
        "evaluator",
        "easy_step_labels",
        "sft_policy",
    ],
    recipe=["seed", "reward", "evaluation", "early_stop", "problems.source"],
    kinds={"parquet"},
    audit=True,
)
def early_stop_metrics(job: StageJob) -> dict[str, Any]:
    """Tokens saved and accuracy lost by giving up samples with a step below a threshold of easy validation."""
    from e2h_pipeline.evaluation.early_stop import early_stop_metrics
    from e2h_pipeline.rewards.early_stop import right_lowest_scores

    return early_stop_metrics(
        samples=job.path("benchmark_samples"),
        scores=job.path("rerank_scores"),
        gold=job.path("gold_answers"),
        policy=job.path("sft_policy"),
        out=job.out,
        right=right_lowest_scores(job.path("evaluator"), job.path("easy_step_labels")),
        evaluator=f"easy_{job.recipe.reward.kind}",
        problems=job.recipe.problems,
        options=job.recipe.early_stop,
        evaluation=job.recipe.evaluation,
        seed=job.recipe.seed,
        reporter=job.work.reporter,
    )
