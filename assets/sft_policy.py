"""Supervised fine-tuning on easy solutions."""

from __future__ import annotations

from typing import Any

from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.registry import DOMAINS
from e2h_pipeline.stages.asset import stage


@stage(
    group="policy",
    reads=["base_model", "easy_solutions"],
    recipe=["seed", "sft", "problems.source"],
    methods=["problems.source"],
    kinds={"huggingface", "pytorch"},
    gpu=True,
    distributed=True,
)
def sft_policy(job: StageJob) -> dict[str, Any]:
    """The generator: the base model fine-tuned on easy solutions."""
    from e2h_pipeline.training.sft import train_sft

    return train_sft(
        base=job.path("base_model"),
        easy_solutions=job.path("easy_solutions"),
        options=job.recipe.sft,
        text=DOMAINS.load(job.recipe.problems.source).text,
        work=job.work,
    )
