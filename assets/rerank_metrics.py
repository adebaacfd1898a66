"""What the easy evaluator is worth when it chooses among samples."""

from __future__ import annotations

from typing import Any

from assets._names import BENCHMARKS
from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.stages.asset import stage


@stage(
    group="results",
    reads=["benchmark_samples", "rerank_scores", "gold_answers"],
    recipe=["seed", "reward", "rerank", "evaluation", "problems.source"],
    kinds={"parquet"},
    audit=True,
)
def rerank_metrics(job: StageJob) -> dict[str, Any]:
    """Majority, best-of-N, weighted vote and pass@N over N, by level, with intervals."""
    from e2h_pipeline.evaluation.rerank import rerank_metrics

    return rerank_metrics(
        samples=job.path("benchmark_samples"),
        scores=job.path("rerank_scores"),
        gold=job.path("gold_answers"),
        out=job.out,
        work=job.work.folder,
        benchmark=BENCHMARKS[job.recipe.problems.source],
        policy="sft",
        evaluator=f"easy_{job.recipe.reward.kind}",
        rerank=job.recipe.rerank,
        evaluation=job.recipe.evaluation,
        easy_levels=job.recipe.evaluation.easy_levels,
        seed=job.recipe.seed,
        reporter=job.work.reporter,
        runner=job.work.runner,
    )
