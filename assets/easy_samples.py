"""Solutions of easy problems, sampled at a high temperature as training data of the evaluator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.artifacts.tables import TABLE, read_table
from e2h_pipeline.registry import DOMAINS
from e2h_pipeline.stages.asset import stage


@stage(
    group="evaluator",
    reads=["sft_policy", "easy_problems"],
    recipe=["seed", "problems.source", "easy_samples"],
    methods=["problems.source"],
    kinds={"parquet"},
    gpu=True,
    samples=True,
    grows="easy_samples.samples",
)
def easy_samples(job: StageJob) -> dict[str, Any]:
    """Completions of every easy problem by the SFT policy."""
    from e2h_pipeline.generation.sample_pool import Drawing, sample_pool
    from e2h_pipeline.generation.search.independent import Independent

    drawing = Drawing(
        policy=job.path("sft_policy"),
        domain=DOMAINS.load(job.recipe.problems.source),
        options=job.recipe.easy_samples,
        stage="easy_samples",
        method=Independent(),
    )
    questions = read_table(job.path("easy_problems") / TABLE)
    return sample_pool(drawing, questions, replace(job.work, out=job.out / "data"))
