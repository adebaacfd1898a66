"""Supervised fine-tuning on easy solutions."""

from __future__ import annotations

from typing import Any

from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.stages.asset import stage


@stage(
    group="policy",
    reads=["base_model", "easy_solutions"],
    recipe=["seed", "sft"],
    kinds={"huggingface", "pytorch"},
    gpu=True,
)
def sft_policy(job: StageJob) -> dict[str, Any]:
    """The generator: the base model fine-tuned on easy solutions."""
    from e2h_pipeline.training.sft import train_sft

    return train_sft(
        base=job.path("base_model"),
        easy_solutions=job.path("easy_solutions"),
        out=job.out,
        work=job.work.folder,
        options=job.recipe.sft,
        seed=job.recipe.seed,
        reporter=job.work.reporter,
    )
