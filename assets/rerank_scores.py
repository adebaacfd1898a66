"""What the evaluator thinks of every step of every sample."""

from __future__ import annotations

from typing import Any

from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.stages.asset import stage


@stage(
    group="reranking",
    reads=["evaluator", "benchmark_samples", "benchmark_questions"],
    recipe=["scoring"],
    kinds={"parquet"},
    gpu=True,
)
def rerank_scores(job: StageJob) -> dict[str, Any]:
    """Step scores of the benchmark samples by the easy evaluator, as raw logits."""
    from e2h_pipeline.rewards.scoring import score_pool

    return score_pool(
        prm=job.path("evaluator"),
        samples=job.path("benchmark_samples") / "data",
        questions=job.path("benchmark_questions"),
        out=job.out / "data",
        work=job.work.folder,
        options=job.recipe.scoring,
        reporter=job.work.reporter,
        runner=job.work.runner,
    )
