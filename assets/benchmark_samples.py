"""The sample pool that reranking chooses from."""

from __future__ import annotations

from typing import Any

from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.artifacts.tables import TABLE, read_table
from e2h_pipeline.recipe import RecipeSlice
from e2h_pipeline.stages.asset import stage


def _stops_early(recipe: RecipeSlice) -> bool:
    return bool(recipe.early_stop.enabled)


@stage(
    group="reranking",
    reads=["sft_policy", "benchmark_questions"],
    reads_if={"evaluator": _stops_early, "easy_step_labels": _stops_early},
    recipe=["seed", "sampling", "early_stop"],
    kinds={"parquet"},
    gpu=True,
    samples=True,
    grows="sampling.samples",
)
def benchmark_samples(job: StageJob) -> dict[str, Any]:
    """N completions of every benchmark question by the SFT policy."""
    from e2h_pipeline.generation.sample_pool import sample_pool
    from e2h_pipeline.rewards.early_stop import easy_watch

    stop = job.recipe.early_stop
    watch = None
    if stop.enabled:
        watch = easy_watch(job.path("evaluator"), job.path("easy_step_labels"), stop)

    return sample_pool(
        policy=job.path("sft_policy"),
        questions=read_table(job.path("benchmark_questions") / TABLE),
        out=job.out / "data",
        work=job.work.folder,
        options=job.recipe.sampling,
        seed=job.recipe.seed,
        stage="benchmark_samples",
        reporter=job.work.reporter,
        engine=job.work.engine,
        runner=job.work.runner,
        watch=watch,
    )
