"""The main result: accuracy of every policy and method on the benchmark."""

from __future__ import annotations

from typing import Any

from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.registry import DOMAINS
from e2h_pipeline.stages.asset import stage


@stage(
    group="results",
    reads=["base_answers", "sft_answers", "rl_answers", "rerank_metrics", "gold_answers"],
    recipe=["seed", "evaluation", "problems.source"],
    methods=["problems.source", "evaluation.grader"],
    kinds={"parquet"},
    audit=True,
)
def benchmark_metrics(job: StageJob) -> dict[str, Any]:
    """Greedy, voted and reranked accuracy of base, SFT and RL policies by level, with intervals."""
    from e2h_pipeline.evaluation.policies import benchmark_metrics

    return benchmark_metrics(
        {policy: job.path(f"{policy}_answers") for policy in ("base", "sft", "rl")},
        job.path("rerank_metrics"),
        job.path("gold_answers"),
        DOMAINS.load(job.recipe.problems.source),
        job.recipe.evaluation,
        job.work,
    )
