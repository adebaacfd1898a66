"""The sample pool that reranking chooses from."""

from __future__ import annotations

from typing import Any

from assets._stage import TABLE, stage
from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.artifacts.tables import read_table


@stage(
    group="reranking",
    reads=["sft_policy", "benchmark_questions"],
    recipe=["seed", "sampling"],
    kinds={"parquet"},
    gpu=True,
    samples=True,
    grows="sampling.samples",
)
def benchmark_samples(job: StageJob) -> dict[str, Any]:
    """N completions of every benchmark question by the SFT policy."""
    from e2h_pipeline.generation.pool import sample_pool

    return sample_pool(
        policy=job.path("sft_policy"),
        questions=read_table(job.path("benchmark_questions") / TABLE),
        out=job.out / "data",
        work=job.work,
        options=job.recipe.sampling,
        seed=job.recipe.seed,
        stage="benchmark_samples",
        reporter=job.reporter,
        engine=job.engine,
        runner=job.runner,
    )
