"""The evaluator: a process reward model trained on easy steps."""

from __future__ import annotations

from typing import Any

from assets._stage import stage
from e2h_pipeline.artifacts.job import StageJob


@stage(
    group="evaluator",
    reads=["base_model", "sft_policy", "easy_step_labels"],
    recipe=["seed", "prm"],
    kinds={"huggingface", "pytorch"},
    gpu=True,
)
def easy_prm(job: StageJob) -> dict[str, Any]:
    """A step scorer (token-classification head on step ends) that has seen easy labels only."""
    from e2h_pipeline.rewards.prm import train_prm

    return train_prm(
        init=job.path("base_model" if job.recipe.prm.init == "base" else "sft_policy"),
        labels=job.path("easy_step_labels"),
        out=job.out,
        work=job.work,
        options=job.recipe.prm,
        seed=job.recipe.seed,
        reporter=job.reporter,
    )
