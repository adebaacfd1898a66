"""The evaluator's score of every step of every sample."""

from __future__ import annotations

from typing import Any

from assets.judged import EVALUATOR, READ_BY
from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.registry import DOMAINS
from e2h_pipeline.stages.asset import stage


@stage(
    group="reranking",
    reads=["easy_evaluator", "benchmark_samples", "benchmark_questions"],
    recipe=["scoring", *EVALUATOR, "problems.source"],
    methods=[*READ_BY, "problems.source"],
    kinds={"parquet"},
    gpu=True,
)
def rerank_scores(job: StageJob) -> dict[str, Any]:
    """Step scores of the benchmark samples by the easy evaluator, as raw logits."""
    from e2h_pipeline.rewards.pool import score_pool

    return score_pool(
        evaluator=job.path("easy_evaluator"),
        samples=job.path("benchmark_samples") / "data",
        questions=job.path("benchmark_questions"),
        options=job.recipe.scoring,
        text=DOMAINS.load(job.recipe.problems.source).text,
        work=job.work.below("data"),
    )
