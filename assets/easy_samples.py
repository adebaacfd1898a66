"""Solutions of easy problems, sampled hot: what the evaluator learns from."""

from __future__ import annotations

from typing import Any

from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.artifacts.tables import TABLE, read_table
from e2h_pipeline.stages.asset import stage


@stage(
    group="evaluator",
    reads=["sft_policy", "easy_problems"],
    recipe=["seed", "easy_samples"],
    kinds={"parquet"},
    gpu=True,
    samples=True,
    grows="easy_samples.samples",
)
def easy_samples(job: StageJob) -> dict[str, Any]:
    """Completions of every easy problem by the SFT policy."""
    from e2h_pipeline.generation.sample_pool import sample_pool

    return sample_pool(
        policy=job.path("sft_policy"),
        questions=read_table(job.path("easy_problems") / TABLE),
        out=job.out / "data",
        work=job.work.folder,
        options=job.recipe.easy_samples,
        seed=job.recipe.seed,
        stage="easy_samples",
        reporter=job.work.reporter,
        engine=job.work.engine,
        runner=job.work.runner,
    )
