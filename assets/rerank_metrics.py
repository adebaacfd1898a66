"""The value of the easy evaluator for choosing among samples."""

from __future__ import annotations

from typing import Any

from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.registry import DOMAINS
from e2h_pipeline.stages.asset import stage


@stage(
    group="results",
    reads=["benchmark_samples", "rerank_scores", "gold_answers"],
    recipe=["seed", "reward.kind", "rerank", "evaluation", "problems.source", "samples.author"],
    methods=["problems.source", "rerank.aggregations", "evaluation.grader"],
    kinds={"parquet"},
    audit=True,
)
def rerank_metrics(job: StageJob) -> dict[str, Any]:
    """Majority, best-of-N, weighted vote and pass@N over N, by level, with intervals."""
    from e2h_pipeline.evaluation.graded import PoolFiles
    from e2h_pipeline.evaluation.rerank import rerank_metrics

    return rerank_metrics(
        PoolFiles(
            job.path("benchmark_samples"),
            job.path("rerank_scores"),
            job.path("gold_answers"),
            kind=job.recipe.reward.kind,
            policy=job.recipe.samples.drawn_by,
        ),
        DOMAINS.load(job.recipe.problems.source),
        job.recipe.rerank,
        job.recipe.evaluation,
        job.work,
    )
